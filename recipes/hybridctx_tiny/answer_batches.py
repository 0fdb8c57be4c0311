# SPDX-License-Identifier: Apache-2.0
"""Training batches of the stage `answer`: questions whose answers stand on pages of cells, in passages, or in both.

Every batch is a function of (seed, step) alone: a training that stops and resumes sees the same data.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast

from transformers_hybridctx.evaluation.needles import (
    draw_key,
    draw_number,
    draw_uuid,
    hide,
    needle_question,
    needle_sentence,
)
from transformers_hybridctx.rendering.rendered_document import RenderedDocument

from .batches import SequenceEncoder
from .fields import FIELD
from .pages import PLACES, PageReader
from .tasks import FIELD_QUERIES, Document, Question, TaskMixture, draw_passages, draw_word

Row = tuple[list[int], list[int], RenderedDocument | None]
"""Tokens, labels and document of one conversation; None where its pages are not shown."""

KINDS = {"pages": 0.2, "choice": 0.15, "hybrid": 0.2, "records": 0.25, "text": 0.2}
"""How often a batch is of each kind, see [`AnswerBatches`]."""
PAGE_TOKEN_WEIGHT, FIRST_DIGIT_WEIGHT = 0.8, 3.0
"""Loss weights of what an answer from pages says beside a number's digits, and of the digit that chooses a number."""
CHOOSING_WEIGHT, CHOOSING_TOKENS = 3.0, 3
"""Loss weight of what stands right behind a colon in a quotation, where a value begins, and how many tokens that is."""

BEGINNING_WEIGHT, BEGINNING_TOKENS = 2.0, 2
"""Loss weight of the words that a quotation begins with, which choose its place, and how many tokens they are; and of
what ends a quotation, which chooses whether there is another, and begins and ends the answer, which choose what of it
is the value."""


class RecordsOfCountries:
    """Documents of several countries that have the same fields: what is asked of one stands there for the others, too.

    Args:
        prose: {name: text}, of which those whose names begin with `factbook_` are used.
    """

    def __init__(self, prose: dict[str, str]) -> None:
        texts = [text for name, text in prose.items() if name.startswith("factbook_")]
        self._countries = [sections for text in texts if (sections := _sections(text))]

    def draw(self, rng: Random, num_chars: int, num_facts: int) -> tuple[Document, tuple[tuple[int, int], ...]]:
        """A document with questions, and the places where the same fields of other countries stand."""
        while True:
            text = self._text(rng, num_chars)
            lines = [line for line in FIELD.finditer(text) if text.count(f"{line[1]} - {line[2]}:") == 1]
            if lines:
                break
        alike: dict[str, list[re.Match[str]]] = {}
        for line in lines:
            alike.setdefault(line[2], []).append(line)
        shared = [line for line in lines if len(alike[line[2]]) > 1] or lines
        asked = rng.sample(shared, min(len(shared), num_facts))
        others = [line.span() for one in asked for line in alike[one[2]] if line is not one and rng.random() < 0.7]
        questions = [
            Question(
                rng.choice(FIELD_QUERIES).format(country=line[1], label=_as_asked(rng, line[2])),
                line[3].strip(),
                (line.span(),),
                (line[0].strip(),),
            )
            for line in asked
        ]
        return Document(text, tuple(questions)), tuple(others)

    def _text(self, rng: Random, num_chars: int) -> str:
        chosen = rng.sample(self._countries, rng.randint(2, 5))
        first = rng.choice(list(chosen[0]))
        each, parts = num_chars // len(chosen), []
        for country in chosen:
            names = list(country)
            start = names.index(first) if first in country and num_chars < 25_000 else 0
            text = "\n\n".join(country[name] for name in names[start:])
            parts.append(text[:each].rsplit("\n", 1)[0])
        return "\n\n".join(parts)


def _sections(text: str) -> dict[str, str]:
    """{name of a section: its text, heading included} of a country."""
    return {part.partition("\n")[0].partition(": ")[2]: part for part in text.split("\n\n") if ": " in part[:80]}


def _as_asked(rng: Random, label: str) -> str:
    label = label.replace(" - ", " ")
    return label.lower() if rng.random() < 0.5 else label


class LossWeights:
    """How much each token of an answer weighs."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._think, self._close, self._user = tokenizer.convert_tokens_to_ids(["<think>", "</think>", "<|user|>"])
        self._colons = frozenset(id for piece, id in tokenizer.get_vocab().items() if piece.endswith(":"))
        self._digits = frozenset(tokenizer.convert_tokens_to_ids(list(string.digits)))
        self._newline = frozenset(tokenizer.encode("\n", add_special_tokens=False))
        self._borders = {self._think, *self._newline}

    def __call__(self, ids: list[int]) -> list[float]:
        """Of answers from passages: what stands right behind a key decides between its values, the rest is copied."""
        weights, behind, before = [], CHOOSING_TOKENS, -1
        for token, is_quoted, begins in self._in_order(ids):
            chooses = is_quoted and behind < CHOOSING_TOKENS
            ends = token in (self._close, self._user) or (is_quoted and token in self._newline)
            is_border = begins or ends or before == self._close
            weights.append(CHOOSING_WEIGHT if chooses else BEGINNING_WEIGHT if is_border else 1.0)
            behind, before = 0 if token in self._colons else behind + 1, token
        return weights

    def of_pages(self, ids: list[int], choice: bool) -> list[float]:
        """Of answers from pages alone, with or without a `choice` among several values."""
        weights, before = [], -1
        for token, is_quoted, begins in self._in_order(ids):
            is_digit = is_quoted and token in self._digits
            first = choice and is_digit and before not in self._digits
            weight = (FIRST_DIGIT_WEIGHT if first else 1.0) if is_digit else PAGE_TOKEN_WEIGHT
            weights.append(max(weight, BEGINNING_WEIGHT) if begins else weight)
            before = token
        return weights

    def _in_order(self, ids: list[int]) -> Iterator[tuple[int, bool, bool]]:
        """Each token, whether it is quoted, and whether it is one of the first of a quotation."""
        is_quoted, begun = False, BEGINNING_TOKENS
        for token in ids:
            is_quoted = (is_quoted or token == self._think) and token != self._close
            yield token, is_quoted, is_quoted and begun < BEGINNING_TOKENS
            begun = 0 if token in self._borders else begun + 1


class AnswerBatches(Dataset[dict[str, Any]]):
    """
    Item i is the whole batch of step i: all of its rows are of one kind.

    Args:
        prose: as [`TaskMixture`] takes it.
        kinds: weights of `pages` (one fact), `choice` (one of several facts, on pages alone), `hybrid`, `records`
            (hybrid, of countries that have the same fields) and `text`.
        num_chars: of documents, at least and at most.
        tokens_per_batch: bound on padded tokens; a longer document makes a batch of its own.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        prose: dict[str, str],
        *,
        steps: int,
        kinds: dict[str, float] = KINDS,
        num_chars: tuple[int, int] = (60, 7600),
        tokens_per_batch: int = 2600,
        seed: int = 0,
    ) -> None:
        self._reader, self._encode, self._mixture = (
            PageReader(tokenizer),
            SequenceEncoder(tokenizer),
            TaskMixture(prose),
        )
        self._records = RecordsOfCountries(prose)
        self._steps, self._tokens, self._seed = steps, tokens_per_batch, seed
        self._kinds, self._num_chars = kinds, num_chars
        self._weights = LossWeights(tokenizer)

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> dict[str, Any]:
        return self._collated(*self._rows(step))

    def with_characters(self, step: int) -> tuple[dict[str, Any], Tensor]:
        """The batch of a step, and what each of its visual tokens shows, see `PageReader.characters`."""
        rows, kind = self._rows(step)
        shown = [self._reader.characters(drawn) for _, _, drawn in rows if drawn]
        return self._collated(rows, kind), torch.cat(shown) if shown else torch.zeros(0, PLACES, dtype=torch.long)

    def _rows(self, step: int) -> tuple[list[Row], str]:
        rng = Random(f"answer {self._seed} {step}")
        kind = rng.choices(list(self._kinds), list(self._kinds.values()))[0]
        least, most = self._num_chars
        num_chars = round(least + (most - least) * rng.random() ** 0.7)
        rows: list[Row] = []
        while not rows or (len(rows) + 1) * max(len(ids) for ids, _, _ in rows) <= self._tokens:
            rows.append(self._row(rng, kind, num_chars))
        return rows, kind

    def _row(self, rng: Random, kind: str, num_chars: int) -> Row:
        decoys: tuple[tuple[int, int], ...] = ()
        if kind == "records" or (kind == "text" and rng.random() < 0.65):
            document, decoys = self._records.draw(rng, min(max(num_chars, 600), 5000), rng.randint(3, 8))
        elif kind in ("pages", "choice"):
            several = kind == "choice"
            document = self._facts(
                rng, min(num_chars, 4000) if several else num_chars, rng.randint(2, 6) if several else 1
            )
        else:
            document = self._mixture.draw(
                rng, min(num_chars, 4500) if kind == "text" else num_chars, rng.randint(3, 10)
            )
        document = quoted_with_a_blank(document)
        with_decoys = Document(document.text, (*document.questions, Question("", "", decoys)))
        if kind == "text":
            passages = draw_passages(rng, with_decoys, rng.randint(400, 4500))
            ids, labels = self._encode(document, passages, [(0, len(document.text))], [])
            return ids, labels, None
        drawn = self._reader.draw(document.text)
        passages = []
        if kind not in ("pages", "choice"):
            passages = draw_passages(rng, with_decoys, rng.randint(0, 2500))
            if rng.random() < 0.1:  # as a budget makes it happen
                passages = sorted(rng.sample(passages, rng.randint(1, len(passages))))
        ids, labels = self._encode(document, passages, self._reader.spans(drawn), self._reader.tokens(drawn))
        return ids, labels, drawn

    def _facts(self, rng: Random, num_chars: int, count: int) -> Document:
        """Needles of one kind, each asked for."""
        kind, draw = rng.choices(
            (("numbers", draw_number), ("numbers", _short_number), ("words", draw_word), ("uuids", draw_uuid)),
            (54, 10, 18, 18),
        )[0]
        keys = list(dict.fromkeys(draw_key(rng, held_out=False) for _ in range(count)))
        pairs = [(key, draw(rng)) for key in keys]
        sentences = [needle_sentence(kind, key, value) for key, value in pairs]
        room = max(40, num_chars - sum(map(len, sentences)))
        text, _ = hide(rng, self._mixture.draw_prose(rng, room), sentences)
        rng.shuffle(pairs)
        questions = [
            Question(needle_question(kind, [key], several=False), value, (), (f"{key} is: {value}",))
            for key, value in pairs
        ]
        return Document(text, tuple(questions))

    def _collated(self, rows: list[Row], kind: str) -> dict[str, Any]:
        batch: dict[str, Any] = self._encode.pad([(ids, labels) for ids, labels, _ in rows])
        batch["mm_token_type_ids"] = self._encode.page_tokens(batch["input_ids"])
        batch["weights"] = torch.ones(batch["labels"].shape)
        batch["kind"] = kind
        for row, (ids, _, _) in enumerate(rows):
            weights = (
                self._weights.of_pages(ids, kind == "choice") if kind in ("pages", "choice") else self._weights(ids)
            )
            batch["weights"][row, : len(ids)] = torch.tensor(weights)
        if pages := [page for _, _, drawn in rows if drawn for page in drawn.pages]:
            batch |= self._reader.pixels(pages)
        return batch


def quoted_with_a_blank(document: Document) -> Document:
    """With a blank before each quotation, a key has the tokens there that it has in the question and in the text."""
    return Document(
        document.text,
        tuple(replace(one, quotes=tuple(f" {quote}" for quote in one.quotes)) for one in document.questions),
    )


def _short_number(rng: Random) -> str:
    return str(rng.randint(10, 9999))
