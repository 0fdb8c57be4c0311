# SPDX-License-Identifier: Apache-2.0
"""Questions that share no content word with the passage that answers them: what no search by words finds.

Each document says `CHOICES` things of one form, of which one is asked for, so that an answer of the right form that was
found without reading, such as one that is held to the document beside blank pages, is right once in `CHOICES` times.
Keys are held out of what the bundled checkpoint was trained on, and no wording of its training shares more with one of
these than a word beside "many" and "much".
"""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Literal

from ..grounding.agreement import function_words
from ..planning.policies.bm25 import bm25_words
from .needles import NeedleExample, draw_key, draw_number, hide

IndirectTask = Literal["second_hop", "by_value", "odd_one_out", "paraphrase"]
INDIRECT_TASKS: tuple[IndirectTask, ...] = ("second_hop", "by_value", "odd_one_out", "paraphrase")
CHOICES = 8
_STEM = 5  # letters in which words of one stem agree
FAR_APART = 600
"""Characters between the two hops of a chain, where the document has room: no passage holds both."""

HOPS = (
    (
        "In the register {name} stands as {alias}.",
        "Whoever opens the vault for {alias} must enter {value}.",
        "What has to be typed to reach the belongings of {name}?",
    ),
    (
        "The painter {name} signed every canvas as {alias}.",
        "A dealer in Bath paid {value} pounds for a landscape by {alias}.",
        "How much money was given for a picture made by {name}?",
    ),
    (
        "Among friends {name} was always called {alias}.",
        "On the morning train {alias} held a ticket stamped {value}.",
        "Which digits were printed on what {name} travelled with?",
    ),
)
"""Of a chain: its first sentence, the one that answers, and the question."""
COUNTS = (
    ("{name} keeps {count} sheep on the hill.", "Whose flock has {spelled} animals?"),
    ("The lamp of {name} burned for {count} nights.", "Whose light went out after {spelled} evenings?"),
    ("{name} climbed {count} steps to the tower.", "Who used a staircase with {spelled} stairs?"),
)
"""A field, and the question that gives its value, spelled in words, and asks whose it is."""
EXCEPTIONS = (
    (
        "{name} left the harbour under a {kind} flag.",
        ("blue", "green", "red", "white", "yellow"),
        "Who sailed with other colours than all the rest?",
    ),
    (
        "{name} was sealed with wax and {kind} string.",
        ("silk", "hemp", "cotton", "linen", "woollen"),
        "Which parcel looks unlike the rest of them?",
    ),
    (
        "{name} voted for the new {kind}.",
        ("bridge", "canal", "railway", "market", "lighthouse"),
        "Which member disagreed with everybody else at the meeting?",
    ),
)
"""What is said of each alike but for one, its kinds, and the question."""
PARAPHRASES = (
    ("The physician demands {value} for a visit.", "What does the doctor charge?"),
    ("In the attic they counted {value} old coins.", "How many pieces of ancient money lay under the roof?"),
    ("The ferry has carried {value} travellers since spring.", "How many passengers has the boat taken across?"),
    ("Rain spoiled {value} bushels of wheat.", "How much grain was ruined by bad weather?"),
    ("The orphanage got {value} by a widow's will.", "What sum did the home for children without parents inherit?"),
    ("Her uncle's debts had grown to {value}.", "How much did the relative owe in the end?"),
    ("The quarry shipped {value} blocks of granite.", "How many stones were sent away by sea?"),
    ("The shoemaker's cottage went for {value} at auction.", "How much was paid for the house of the cobbler?"),
    ("A thief took {value} from the parsonage.", "What was stolen from the clergyman?"),
    ("The choir rehearsed for {value} minutes.", "How long did the singers practise?"),
    ("The gardener planted {value} tulips.", "How many flowers were put into the ground?"),
    ("The bakery burned {value} logs last winter.", "How much firewood heated the ovens in the cold season?"),
    ("The wedding guests emptied {value} bottles.", "How much wine was drunk when the couple married?"),
    ("The tailor sewed on {value} buttons.", "How many fasteners did the dressmaker attach?"),
)
"""A statement and its question in other words."""
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_UNITS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPELLED = {
    10 * tens + units: f"{ten}-{unit}"
    for tens, ten in enumerate(_TENS, start=2)
    for units, unit in enumerate(_UNITS, start=1)
}
"""Numbers of two digits in words."""


def content_words(text: str) -> set[str]:
    """The words of a text as bm25 compares them, joined words in parts, too, but for "the", "what" and the like."""
    return set(bm25_words(text)) - function_words()


def stems(text: str) -> set[str]:
    """What tells its content words apart whatever their endings."""
    return {word[:_STEM] for word in content_words(text)}


def make_indirect(rng: Random, haystack: str, task: IndirectTask) -> NeedleExample:
    """
    Hide `CHOICES` statements in prose, and ask for one of them in other words.

    `second_hop`: one sentence gives a name another name, and another sentence, far from it, gives the other name a
    number. `by_value`: whose field has a value, which is written in digits there and in words in the question.
    `odd_one_out`: of whom another thing is said than of all others. `paraphrase`: the same fact in other words.

    Args:
        haystack: Prose to hide them in.
    """
    names = _names(rng, haystack, 2 * CHOICES)
    asked = rng.randrange(CHOICES)
    first_hops: list[str] = []
    if task == "second_hop":
        first, second, question = rng.choice(HOPS)
        values = [draw_number(rng) for _ in range(CHOICES)]
        aliases = names[CHOICES:]
        first_hops = [first.format(name=name, alias=alias) for name, alias in zip(names, aliases, strict=False)]
        sentences = [second.format(alias=alias, value=value) for alias, value in zip(aliases, values, strict=True)]
        question, answer = question.format(name=names[asked]), values[asked]
    elif task == "by_value":
        statement, question = rng.choice(COUNTS)
        counts = rng.sample(sorted(SPELLED), CHOICES)
        sentences = [statement.format(name=name, count=count) for name, count in zip(names, counts, strict=False)]
        question, answer = question.format(spelled=SPELLED[counts[asked]]), names[asked]
    elif task == "odd_one_out":
        statement, kinds, question = rng.choice(EXCEPTIONS)
        usual, other = rng.sample(kinds, 2)
        sentences = [
            statement.format(name=name, kind=other if index == asked else usual)
            for index, name in enumerate(names[:CHOICES])
        ]
        answer = names[asked]
    else:
        chosen = rng.sample(PARAPHRASES, CHOICES)
        values = [draw_number(rng) for _ in range(CHOICES)]
        sentences = [statement.format(value=value) for (statement, _), value in zip(chosen, values, strict=True)]
        question, answer = chosen[asked][1], values[asked]
    return _hidden(rng, haystack, first_hops, sentences, asked, question, answer)


def _names(rng: Random, haystack: str, count: int) -> list[str]:
    """Keys that share no stem with each other or with any of the wordings, and do not stand in the prose."""
    taken = _stems_of_wordings()
    names: list[str] = []
    while len(names) < count:
        name = draw_key(rng, held_out=True)
        if name not in haystack and not stems(name.replace("-", " ")) & taken:
            names.append(name)
            taken = taken | stems(name.replace("-", " "))
    return names


@cache
def _stems_of_wordings() -> frozenset[str]:
    said = [words for group in (HOPS, COUNTS, PARAPHRASES) for wording in group for words in wording]
    said += [words for statement, kinds, question in EXCEPTIONS for words in (statement, *kinds, question)]
    return frozenset(stems(" ".join([*said, *SPELLED.values()])))


def _hidden(
    rng: Random, haystack: str, first_hops: list[str], sentences: list[str], asked: int, question: str, answer: str
) -> NeedleExample:
    """The document, its statements in any order; the asked chain's hops apart, as far as the document allows."""
    order = list(enumerate([*sentences, *first_hops]))
    best: tuple[int, str, int] | None = None
    for _ in range(20):
        rng.shuffle(order)
        document, starts = hide(rng, haystack, [sentence for _, sentence in order])
        places = {index: start for (index, _), start in zip(order, starts, strict=True)}
        apart = abs(places[asked] - places[len(sentences) + asked]) if first_hops else FAR_APART
        if best is None or apart > best[0]:
            best = (apart, document, places[asked] + sentences[asked].index(answer))
        if apart >= FAR_APART:
            break
    assert best is not None
    _, document, at = best
    return NeedleExample(document, question, (answer,), ((at, at + len(answer)),))


__all__ = ["CHOICES", "INDIRECT_TASKS", "IndirectTask", "content_words", "make_indirect", "stems"]
