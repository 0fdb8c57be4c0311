# SPDX-License-Identifier: Apache-2.0
"""The training mixture of the reference checkpoint: documents in which facts can be looked up, and questions on them.

Four kinds of document, all of real prose: RULER's needles, needles in many other wordings, the World Factbook's own
fields, and prose as it is with questions for the words that follow a quotation.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from transformers_hybridctx.evaluation.needles import (
    SENTENCE_END,
    draw_haystack,
    draw_key,
    draw_number,
    draw_uuid,
    hide,
    needle_question,
    needle_sentence,
)

from .wordings import parts_of_lines


@dataclass(frozen=True)
class Question:
    """A question, its answer as the model is taught to say it, and where in the document the answer's parts stand."""

    text: str
    answer: str
    places: tuple[tuple[int, int], ...]
    """Characters [start, end) of the sentences that a reader needs to see."""
    quotes: tuple[str, ...] = ()
    """What the model is taught to quote before it answers: from the key to the value."""


@dataclass(frozen=True)
class Document:
    text: str
    questions: tuple[Question, ...]


ATTRIBUTES = (
    "access code", "serial number", "phone number", "account number", "password", "invoice number", "reference",
    "passport number", "price", "port", "room number", "flight number", "secret code", "magic number", "token",
    "tracking code", "licence number", "case number", "order number", "address", "date", "total", "balance", "value",
    "code", "number", "extension", "batch", "height", "distance", "identifier", "key", "name", "status",
)  # fmt: skip
STATEMENTS = (
    "The {attribute} of {key} is {value}.",
    "The {attribute} for {key} is {value}.",
    "The {attribute} of {key} is: {value}.",
    "{key} has the {attribute} {value}.",
    "Remember that the {attribute} of {key} is {value}.",
    "{key} - {attribute}: {value}",
    "{key}, {attribute}: {value}.",
    "{attribute} {key} = {value}",
    "For {key}, the {attribute} was {value}.",
    "{key}'s {attribute} is {value}.",
)
QUERIES = (
    "What is the {attribute} of {key}?",
    "What is the {attribute} for {key}?",
    "what is the {attribute} of {key}",
    "What is {key}'s {attribute}?",
    "Which {attribute} does {key} have?",
    "Find the {attribute} of {key}.",
    "{key} {attribute}?",
    'What is the {attribute} of "{key}"?',
)
THINGS = (
    "account", "access", "backup", "booking", "branch", "building", "client", "contract", "customer", "delivery", "door",
    "emergency", "entry", "exit", "first", "flight", "gate", "guest", "helpdesk", "home", "insurance", "invoice", "last",
    "main", "meeting", "member", "office", "order", "parking", "project", "purchase", "release", "rental", "return",
    "safe", "server", "shipping", "site", "support", "tax", "team", "test", "ticket", "travel", "user", "visitor", "work",
)  # fmt: skip
KINDS_OF_VALUE = (
    "address", "amount", "area", "code", "colour", "contact", "cost", "date", "deadline", "fee", "limit", "line", "name",
    "number", "PIN", "place", "price", "rate", "reference", "room", "size", "street", "temperature", "term", "time",
    "weight",
)  # fmt: skip
PLAIN_STATEMENTS = (
    "The {what} is {value}.",
    "the {what} is {value}",
    "The {what}: {value}",
    "{What}: {value}",
    "{What} = {value}",
    "{What} is {value}.",
    "Your {what} is {value}.",
    "Our {what} is now {value}.",
    "My {what} was {value}.",
    "Please note that the {what} is {value}.",
    "Note: {what} {value}.",
    "As of today the {what} is {value}.",
    "We agreed on {value} as the {what}.",
    "{value} is the {what}.",
    "The new {what} will be {value}.",
    "The {what} was changed to {value}.",
    "They set the {what} to {value}.",
    "For the {what}, use {value}.",
)
PLAIN_QUERIES = (
    "What is the {what}?",
    "What's the {what}?",
    "what is the {what}",
    "What is my {what}?",
    "What was the {what}?",
    "Which {what} is given?",
    "Tell me the {what}.",
    "{What}?",
    "Which is the {what}?",
)
STATED: list[tuple[str, str]] = [(statement, question) for statement, question in parts_of_lines("statements.txt")]
FIELD_QUERIES = (
    "What is the {label} of {country}?",
    "What is the {label} for {country}?",
    "What does the text say about {label} in {country}?",
    "{country} {label}?",
    "{country} - {label}",
)
QUOTE_QUERIES = (
    'What comes after "{prefix}"?',
    'What follows "{prefix}"?',
    "What comes after: {prefix}",
    "Complete: {prefix}",
)


class TaskMixture:
    """Draws training documents.

    Args:
        prose: {name: text}; names that begin with `factbook_` are asked about by field, the others hide needles.
    """

    def __init__(self, prose: dict[str, str]) -> None:
        self._factbook = [text for name, text in prose.items() if name.startswith("factbook_")]
        self._prose = [text for name, text in prose.items() if not name.startswith("factbook_")]
        self._weights = [len(text) for text in self._prose]

    def draw_prose(self, rng: Random, num_chars: int) -> str:
        """A piece of prose; one in five is of the factbook, whose text is dense in numbers and names."""
        if rng.random() < 0.2:
            return draw_haystack(rng, rng.choice(self._factbook), num_chars)
        return draw_haystack(rng, rng.choices(self._prose, self._weights)[0], num_chars)

    def draw(self, rng: Random, num_chars: int, num_facts: int, longest_answer: int = 1000) -> Document:
        """A document of about `num_chars` characters with up to `num_facts` facts and a question for most of them.

        Args:
            longest_answer: questions with longer answers, in characters, are left out.
        """
        while True:
            kinds = (self._ruler, self._worded, self._plain, self._fields, self._quotations)
            kind = rng.choices(kinds, (34, 17, 24, 18, 7))[0]
            document = kind(rng, num_chars, num_facts)
            questions = tuple(question for question in document.questions if len(question.answer) <= longest_answer)
            if questions:
                return Document(document.text, questions)

    def _ruler(self, rng: Random, num_chars: int, num_facts: int) -> Document:
        kind, draw = rng.choice(
            (
                *[("numbers", draw_number)] * 5,
                ("uuids", draw_uuid),
                ("words", draw_word),
                ("words", draw_word),
            )
        )
        keys = list(dict.fromkeys(draw_key(rng, held_out=False) for _ in range(num_facts)))
        pairs = [(key, draw(rng)) for key in keys for _ in range(rng.choice((1, 1, 1, 2, 3)))]
        rng.shuffle(pairs)
        pairs = pairs[: max(num_facts, 1)]
        text, spans = self.hide(rng, num_chars, [needle_sentence(kind, key, value) for key, value in pairs])
        asked = [[key] for key in dict.fromkeys(key for key, _ in pairs)]
        if len(asked) >= 2 and rng.random() < 0.3:
            asked.append(rng.sample([keys[0] for keys in asked], 2))
        rng.shuffle(asked)
        questions = []
        for keys in asked:
            found = [(value, span) for (key, value), span in zip(pairs, spans, strict=True) if key in keys]
            if len(found) > 4:
                continue
            questions.append(
                Question(
                    needle_question(kind, keys, several=len(found) > 1),
                    ", ".join(value for value, _ in found),
                    tuple(span for _, span in found),
                    tuple(text[slice(*span)][text[slice(*span)].index("for ") + 4 : -1] for _, span in found),
                )
            )
        return Document(text, tuple(questions))

    def _worded(self, rng: Random, num_chars: int, num_facts: int) -> Document:
        draw_value = rng.choice(VALUES)
        statement, facts = rng.choice(STATEMENTS), {}
        few_attributes = rng.sample(ATTRIBUTES, 3)
        for _ in range(num_facts):
            facts[(draw_name(rng), rng.choice(few_attributes))] = draw_value(rng)
        sentences = [statement.format(key=key, attribute=what, value=value) for (key, what), value in facts.items()]
        text, spans = self.hide(rng, num_chars, sentences)
        questions = [
            Question(
                rng.choice(QUERIES).format(key=key, attribute=attribute),
                value,
                (span,),
                (text[slice(*span)][: text[slice(*span)].rindex(value) + len(value)],),
            )
            for ((key, attribute), value), span in zip(facts.items(), spans, strict=True)
        ]
        rng.shuffle(questions)
        return Document(text, tuple(questions))

    def _plain(self, rng: Random, num_chars: int, num_facts: int) -> Document:
        """Facts as people write them down, with no other key than what they are about; a third without prose around."""
        if rng.random() < 0.5:
            return self._stated(rng, num_chars, num_facts)
        facts: dict[str, str] = {}
        for _ in range(num_facts):
            attribute = rng.choice(KINDS_OF_VALUE) if rng.random() < 0.5 else rng.choice(ATTRIBUTES)
            facts[attribute if rng.random() < 0.3 else f"{rng.choice(THINGS)} {attribute}"] = rng.choice(VALUES)(rng)
        sentences = [_worded(rng.choice(PLAIN_STATEMENTS), what, value) for what, value in facts.items()]
        if rng.random() < 0.33:
            text, spans = joined(sentences, rng.choice((" ", "\n")))
        else:
            text, spans = self.hide(rng, num_chars, sentences)
        questions = [
            Question(
                _worded(rng.choice(PLAIN_QUERIES), what),
                value,
                (span,),
                (text[slice(*span)].strip().removesuffix("."),),
            )
            for (what, value), span in zip(facts.items(), spans, strict=True)
        ]
        rng.shuffle(questions)
        return Document(text, tuple(questions))

    def _stated(self, rng: Random, num_chars: int, num_facts: int) -> Document:
        """The same in whole sentences, each with its own question; half without prose around."""
        pairs = [
            (one, asked, rng.choice(VALUES)(rng)) for one, asked in rng.sample(STATED, min(num_facts, len(STATED)))
        ]
        sentences = [statement.format(value) for statement, _, value in pairs]
        if rng.random() < 0.5:
            text, spans = joined(sentences, " ")
        else:
            text, spans = self.hide(rng, num_chars, sentences)
        questions = [
            Question(asked, value, (span,), (statement.format(value).removesuffix("."),))
            for (statement, asked, value), span in zip(pairs, spans, strict=True)
        ]
        rng.shuffle(questions)
        return Document(text, tuple(questions))

    def _fields(self, rng: Random, num_chars: int, num_facts: int) -> Document:
        text = rng.choice(self._factbook)
        start = text.find("\n", rng.randrange(max(1, len(text) - num_chars))) + 1
        text = text[start : start + num_chars].rsplit("\n", 1)[0]
        lines = [
            m
            for m in re.finditer(r"^(.+?) - (.+?): (.{1,60})$", text, re.MULTILINE)
            if text.count(f"{m[1]} - {m[2]}:") == 1
        ]
        questions = [
            Question(
                rng.choice(FIELD_QUERIES).format(country=line[1], label=_vary_case(rng, line[2].replace(" - ", " "))),
                line[3].strip(),
                (line.span(),),
                (line[0].strip(),),
            )
            for line in rng.sample(lines, min(len(lines), num_facts))
        ]
        return Document(text, tuple(questions))

    def _quotations(self, rng: Random, num_chars: int, num_facts: int) -> Document:
        text = self.draw_prose(rng, num_chars)
        questions = []
        for _ in range(num_facts):
            start = text.find(" ", rng.randrange(len(text))) + 1
            quotation = re.match(r"((?:\S+\s+){3,7}\S*\w)(\s+)([^.,;:?!\n\"]{4,60})(?=[.,;:?!])", text[start:])
            if not quotation or text.count(quotation[1]) > 1:
                continue
            questions.append(
                Question(
                    rng.choice(QUOTE_QUERIES).format(prefix=" ".join(quotation[1].split())),
                    " ".join(quotation[3].split()),
                    ((start, start + quotation.end()),),
                    (" ".join(quotation[0].split()),),
                )
            )
        return Document(text, tuple(questions))

    def hide(self, rng: Random, num_chars: int, sentences: list[str]) -> tuple[str, list[tuple[int, int]]]:
        """The sentences in prose, a text of about `num_chars` characters, and the place of each."""
        room = max(40, num_chars - sum(map(len, sentences)))
        text, starts = hide(rng, self.draw_prose(rng, room), sentences)
        return text, [(start, start + len(s)) for start, s in zip(starts, sentences, strict=True)]


def joined(sentences: list[str], between: str) -> tuple[str, list[tuple[int, int]]]:
    """The sentences as a text, and the place of each."""
    spans, start = [], 0
    for sentence in sentences:
        spans.append((start, start + len(sentence)))
        start += len(sentence) + len(between)
    return between.join(sentences), spans


def _worded(template: str, what: str, value: str = "") -> str:
    return template.format(what=what, What=what[0].upper() + what[1:], value=value)


def draw_passages(rng: Random, document: Document, num_chars: int) -> list[tuple[int, int]]:
    """Passages that a text policy might copy: all that the questions need, and others up to about `num_chars`.

    Returns:
        Sentence-bounded spans [start, end) in document order that neither touch nor overlap.
    """
    text = document.text
    bounds = [0, *(m.end() for m in SENTENCE_END.finditer(text)), len(text)]
    pieces, start = [], 0
    size = rng.choice((60, 120, 200, 300, 400))
    for bound in bounds[1:]:
        if bound - start >= size or bound == len(text):
            if bound > start:
                pieces.append((start, bound))
            start = bound
    needed = [place for question in document.questions for place in question.places]
    chosen = {i for i, (a, b) in enumerate(pieces) if any(a < end and begin < b for begin, end in needed)}
    others = [i for i in range(len(pieces)) if i not in chosen]
    rng.shuffle(others)
    total = sum(pieces[i][1] - pieces[i][0] for i in chosen)
    for i in others:
        if total >= num_chars:
            break
        chosen.add(i)
        total += pieces[i][1] - pieces[i][0]
    spans: list[tuple[int, int]] = []
    for i in sorted(chosen):
        if spans and spans[-1][1] == pieces[i][0] and rng.random() < 0.5:
            spans[-1] = (spans[-1][0], pieces[i][1])
        else:
            spans.append(pieces[i])
    return [(start, start + len(text[start:end].rstrip())) for start, end in spans]


def draw_word(rng: Random) -> str:
    """A word as a value, of the form that keys have."""
    return draw_key(rng, held_out=False)


def _draw_digits(rng: Random) -> str:
    return "".join(rng.choices(string.digits, k=rng.randint(2, 10)))


def _draw_code(rng: Random) -> str:
    alphabet = rng.choice((string.ascii_uppercase + string.digits, string.ascii_lowercase + string.digits))
    return "-".join("".join(rng.choices(alphabet, k=rng.randint(2, 5))) for _ in range(rng.randint(1, 3)))


def _draw_decimal(rng: Random) -> str:
    return rng.choice(("", "$", "")) + f"{rng.randint(0, 10**6):,}.{rng.randint(0, 99):02}"


def draw_date(rng: Random) -> str:
    months = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ]
    day, month, year = rng.randint(1, 28), rng.randrange(12), rng.randint(1600, 2030)
    return rng.choice((f"{day} {months[month]} {year}", f"{year}-{month + 1:02}-{day:02}"))


VALUES: tuple[Callable[[Random], str], ...] = (
    draw_number, _draw_digits, _draw_code, draw_uuid, _draw_decimal, draw_date, draw_word,
)  # fmt: skip


def draw_name(rng: Random) -> str:
    """Two words in one of several forms, such as "Quiet Harbour" or "quiet_harbour"."""
    words = draw_key(rng, held_out=False).split("-")
    style = rng.randrange(6)
    if style == 0:
        return "-".join(words)
    if style == 1:
        return " ".join(word.capitalize() for word in words)
    if style == 2:
        return words[1].capitalize()
    if style == 3:
        return " ".join(words)
    if style == 4:
        return words[1].capitalize() + f" {rng.choice(string.ascii_uppercase)}-{rng.randint(1, 99)}"
    return "_".join(words)


def _vary_case(rng: Random, label: str) -> str:
    return label.lower() if rng.random() < 0.5 else label
