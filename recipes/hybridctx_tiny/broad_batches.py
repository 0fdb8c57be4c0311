# SPDX-License-Identifier: Apache-2.0
"""Training batches of the stage `broaden`: answers of several values, answers in two steps, and people's own wordings.

What is copied for a question is what the policy `bm25` copies for it, as in the stage before, whose batches go on.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from transformers import PreTrainedTokenizerFast

from transformers_hybridctx.evaluation.needles import (
    draw_key,
    draw_number,
    draw_uuid,
    needle_question,
    needle_sentence,
)
from transformers_hybridctx.planning.policies.bm25 import BM25Policy

from .answer_batches import AnswerBatches, Row, quoted_with_a_blank
from .forms import draw_form
from .invented_records import InventedRecords
from .long_batches import PASSAGE_CHARS, Asked, LongBatches, are_copied, drawn_length
from .reference import DEFAULT_TEXT_POLICY
from .tasks import ATTRIBUTES, STATEMENTS, VALUES, Document, Question, draw_name, draw_word, joined
from .wordings import CHAINS, Sentences

KINDS = {
    "answers": 0.17, "records": 0.11, "passages": 0.14, "facts": 0.03,
    "several": 0.11, "several_text": 0.14, "chains": 0.01, "chains_text": 0.02, "phrases": 0.27,
}  # fmt: skip
"""How often a batch is of each kind, see [`BroadBatches`]."""
ANSWER_KINDS = {"pages": 0.25, "choice": 0.35, "hybrid": 0.10, "records": 0.18, "text": 0.12}
"""The kinds of `AnswerBatches` within `answers`: choosing one of several facts from pages alone is what lags behind."""
SEVERAL_CHARS = (1_500, 20_000)
"""Lengths of documents with several values or with chains, drawn on a logarithmic scale."""
FORMS = 0.4
"""How often a short document is a form."""
REVERSED = 0.15
"""How often a phrase's question gives the value and asks whose it is."""
REVERSED_QUERIES = (
    "Whose {attribute} is {value}?",
    "Which one has the {attribute} {value}?",
    "Who has the {attribute} {value}?",
    "What has the {attribute} {value}?",
)


class BroadBatches(LongBatches):
    """
    Item i is the whole batch of step i.

    Args:
        prose: as `TaskMixture` takes it.
        kinds: weights of `several` (all values of a key, or of several keys), `chains` (what a fact leads to is looked up
            in turn), each also as `.._text`, without pages; `phrases` (a few sentences in people's words, or a form);
            and the kinds of `LongBatches`, which keep what the stages before taught.
        num_chars: of the documents of `LongBatches`; shorter than there, as they are not what is new.
        others: `steps`, `tokens_per_batch` and `seed`, as there.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        prose: dict[str, str],
        *,
        kinds: dict[str, float] = KINDS,
        num_chars: tuple[int, int] = (3_000, 60_000),
        **others: Any,
    ) -> None:
        super().__init__(tokenizer, prose, kinds=kinds, num_chars=num_chars, **others)
        self._kinds = ANSWER_KINDS
        self._sentences = Sentences()
        self._records = InventedRecords(prose)

    def __getitem__(self, step: int) -> dict[str, Any]:
        rng = Random(f"broaden {self._seed} {step}")
        kind = rng.choices(list(self._long_kinds), list(self._long_kinds.values()))[0]
        if kind in ("phrases", "several_text"):
            tokens = self._tokens // 2 if kind == "phrases" else self._tokens
            return self._collated(_filled(self._phrases(rng) if kind == "phrases" else self._alone(rng), tokens), kind)
        if kind == "answers":
            return AnswerBatches.__getitem__(self, step)
        if not kind.startswith(("several", "chains")):
            return self._long(rng, kind)
        while True:
            num_chars = drawn_length(rng, SEVERAL_CHARS)
            found = self._several(rng, num_chars) if kind == "several" else self._chains(rng, num_chars, kind)
            if found[1]:
                return self._on_one_document(kind, *found)

    def _several(self, rng: Random, num_chars: int) -> Asked:
        """Needles of keys with several values, and questions for all of them, or for those of several keys.

        Of one key they are quoted in the document's order, of several keys in the question's.
        """
        kind, draw = rng.choices((("numbers", draw_number), ("uuids", draw_uuid), ("words", draw_word)), (6, 2, 2))[0]
        keys = list(dict.fromkeys(draw_key(rng, held_out=False) for _ in range(rng.randint(2, 5))))
        if rng.random() < 0.65:
            pairs = [(keys[0], draw(rng)) for _ in range(rng.choice((2, 3, 4, 4, 4)))]
            pairs += [(key, draw(rng)) for key in keys[1 : rng.randint(1, 3)]]
            groups = [keys[:1]]
        else:
            pairs = [(key, draw(rng)) for key in keys]
            groups = [rng.sample(keys, rng.randint(2, min(4, len(keys)))) for _ in range(3) if len(keys) > 1]
        if rng.random() < 0.3:
            groups.append([rng.choice(pairs)[0]])
        rng.shuffle(pairs)
        sentences = [needle_sentence(kind, key, value) for key, value in pairs]
        text, spans = self._mixture.hide(rng, num_chars, sentences)
        questions = []
        for asked in groups:
            found = [(key, value, span) for (key, value), span in zip(pairs, spans, strict=True) if key in asked]
            found.sort(key=lambda one: asked.index(one[0]))
            questions.append(
                Question(
                    needle_question(kind, asked, several=len(found) > 1),
                    ", ".join(value for _, value, _ in found),
                    tuple(span for _, _, span in found),
                    tuple(f"{key} is: {value}" for key, value, _ in found),
                )
            )
        return self._with_passages(rng, quoted_with_a_blank(Document(text, tuple(questions))), 0)

    def _chains(self, rng: Random, num_chars: int, kind: str) -> Asked:
        """Chains of one or two wordings, and the question of each.

        Beside pages, the second step need not be copied, as the question does not name what it is about.
        """
        wordings = rng.sample(CHAINS, rng.randint(1, 2))
        names = list(dict.fromkeys(draw_name(rng) for _ in range(12)))
        draw_value = rng.choice((draw_number, draw_number, *VALUES))
        sentences, chains = [], []
        for number in range(min(rng.randint(2, 5), len(names) // 2)):
            wording, a, b = rng.choice(wordings), names[2 * number], names[2 * number + 1]
            chains.append((wording, a, b, draw_value(rng)))
            sentences += [wording.first.format(a=a, b=b), wording.second.format(b=b, v=chains[-1][3])]
        order = list(range(len(sentences)))
        rng.shuffle(order)
        text, spans = self._mixture.hide(rng, num_chars, [sentences[index] for index in order])
        drawn, asked = self._reader.draw(text), []
        policy = BM25Policy(passage_chars=rng.choice(PASSAGE_CHARS), top_k=rng.choice((3, 4, 4, 6)))
        for number, (wording, a, b, value) in enumerate(chains):
            first, second = (spans[order.index(2 * number + hop)] for hop in (0, 1))
            quotes = _from_to(text[slice(*first)], a, b), _from_to(text[slice(*second)], b, value)
            question = Question(wording.question.format(a=a), value, (first, second), quotes)
            words = question.text if kind == "chains" else f"{question.text} {text[slice(*second)]}"
            passages = self._copied(policy, drawn, words)
            if are_copied(question.places[: 1 if kind == "chains" else 2], passages):
                asked.append((quoted_with_a_blank(Document(text, (question,))), passages))
        return drawn, asked

    def _alone(self, rng: Random) -> Iterator[Row]:
        """Rows of several values from passages alone, a document for each."""
        while True:
            drawn, asked = self._several(rng, round(500 * 30 ** rng.random()))
            if asked:
                document, passages = rng.choice(asked)
                yield *self._encode(document, passages, self._reader.spans(drawn), []), None

    def _phrases(self, rng: Random) -> Iterator[Row]:
        """Rows of short documents, each with one question; what is copied is what the checkpoint's own policy copies."""
        policy = BM25Policy(top_k=DEFAULT_TEXT_POLICY["top_k"])
        while True:
            document = quoted_with_a_blank(self._phrase(rng))
            drawn = self._reader.draw(document.text)
            pages = self._reader.tokens(drawn) if rng.random() < 0.8 else []
            copies = not pages or rng.random() < 0.9
            passages = self._copied(policy, drawn, document.questions[0].text) if copies else []
            yield *self._encode(document, passages, self._reader.spans(drawn), pages), drawn if pages else None

    def _phrase(self, rng: Random) -> Document:
        if rng.random() < FORMS:
            return draw_form(rng)
        count = rng.choices((1, rng.randint(2, 5)), (0.6, 0.4))[0]
        if rng.random() < REVERSED:
            return self._reversed(rng, count)
        pairs = [(*self._sentences.draw(rng), rng.choice(VALUES)(rng)) for _ in range(count)]
        sentences = [sentence.format(value) for sentence, _, value in pairs]
        if rng.random() < 0.8:
            text, spans = joined(sentences, rng.choice((" ", " ", "\n")))
        else:
            text, spans = self._mixture.hide(rng, rng.randint(300, 1500), sentences)
        sentence, asked, value = pairs[number := rng.randrange(count)]
        quote = sentence.format(value).removesuffix(".")
        return Document(text, (Question(asked, value, (spans[number],), (quote,)),))

    def _reversed(self, rng: Random, count: int) -> Document:
        statement, draw_value = rng.choice(STATEMENTS), rng.choice(VALUES)
        facts = [(draw_name(rng), rng.choice(ATTRIBUTES), draw_value(rng)) for _ in range(count)]
        sentences = [statement.format(key=key, attribute=what, value=value) for key, what, value in facts]
        text, spans = self._mixture.hide(rng, rng.randint(200, 1200), sentences)
        key, attribute, value = facts[number := rng.randrange(count)]
        question = rng.choice(REVERSED_QUERIES).format(attribute=attribute, value=value)
        return Document(text, (Question(question, key, (spans[number],), (sentences[number].removesuffix("."),)),))


def _filled(rows: Iterator[Row], tokens: int) -> list[Row]:
    """The first rows, as many as have so many padded tokens, and one at least."""
    taken: list[Row] = []
    longest = 0
    for row in rows:
        longest = max(longest, len(row[0]))
        if taken and longest * (len(taken) + 1) > tokens:
            break
        taken.append(row)
    return taken


def _from_to(sentence: str, start: str, end: str) -> str:
    begin = sentence.index(start)
    return sentence[begin : sentence.index(end, begin + len(start)) + len(end)]
