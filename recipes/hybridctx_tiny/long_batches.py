# SPDX-License-Identifier: Apache-2.0
"""Training batches of the stage `lengthen`: long documents that are read once, many questions on each.

A page that is read without gradients costs a quarter of one that is trained on, and one reading serves all questions of a
step, so that documents ten times as long as those of the stage `answer` are affordable. What is copied for a question is
what the policy `bm25` copies for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from transformers_hybridctx.planning.policies.bm25 import BM25Policy
from transformers_hybridctx.planning.span_tokens import SpanTokens
from transformers_hybridctx.rendering.rendered_document import RenderedDocument

from .answer_batches import AnswerBatches, quoted_with_a_blank
from .reference import DEFAULT_BUDGET
from .tasks import Document

Asked = tuple[RenderedDocument, list[tuple[Document, list[tuple[int, int]]]]]
"""A document, its questions one by one, and the passages that are copied for each of them."""
KINDS = {"answers": 0.3, "records": 0.28, "passages": 0.22, "facts": 0.2}
"""How often a batch is of each kind, see [`LongBatches`]."""
PASSAGE_CHARS, PASSAGES = (100, 150, 200, 300, 300, 400), (1, 2, 3, 4, 4, 6)
"""What the policy is asked for."""
WITHOUT_PAGES = ("passages", "chains_text")
"""Kinds whose documents are not shown as pages."""
WITHOUT_PASSAGES = 0.3
"""How often a question on facts is asked of the pages alone."""


class LongBatches(AnswerBatches):
    """
    Item i is the whole batch of step i: a document, and one question a row; or a batch of the stage `answer`.

    Args:
        prose: as `TaskMixture` takes it.
        kinds: weights of `records` (countries that have the same fields), `passages` (the same, without pages), `facts`
            (hidden in prose) and `answers`: a batch of the stage before, which keeps what that stage taught.
        num_chars: of documents, drawn on a logarithmic scale.
        tokens_per_batch: bound on the padded tokens of a step's questions and passages.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        prose: dict[str, str],
        *,
        steps: int,
        kinds: dict[str, float] = KINDS,
        num_chars: tuple[int, int] = (3_000, 170_000),
        tokens_per_batch: int = 4000,
        seed: int = 0,
    ) -> None:
        super().__init__(tokenizer, prose, steps=steps, tokens_per_batch=tokens_per_batch, seed=seed)
        self._long_kinds, self._long_chars = kinds, num_chars

    def __getitem__(self, step: int) -> dict[str, Any]:
        rng = Random(f"lengthen {self._seed} {step}")
        kind = rng.choices(list(self._long_kinds), list(self._long_kinds.values()))[0]
        return super().__getitem__(step) if kind == "answers" else self._long(rng, kind)

    def _long(self, rng: Random, kind: str) -> dict[str, Any]:
        num_chars = drawn_length(rng, self._long_chars)
        while not (found := self._questions(rng, kind, num_chars))[1]:
            num_chars = round(num_chars * 0.8)
        return self._on_one_document(kind, *found)

    def _questions(self, rng: Random, kind: str, num_chars: int) -> Asked:
        if kind == "facts":
            document = self._mixture.draw(rng, num_chars, rng.randint(4, 16))
        else:
            document = self._records.draw(rng, num_chars, 16)[0]
        return self._with_passages(rng, quoted_with_a_blank(document), WITHOUT_PASSAGES if kind == "facts" else 0)

    def _with_passages(self, rng: Random, document: Document, without: float) -> Asked:
        """
        Args:
            without: how often nothing is copied for a question.
        """
        drawn = self._reader.draw(document.text)
        policy = BM25Policy(passage_chars=rng.choice(PASSAGE_CHARS), top_k=rng.choice(PASSAGES))
        asked: list[tuple[Document, list[tuple[int, int]]]] = []
        for question in document.questions:
            one = Document(document.text, (question,))
            if without and rng.random() < without:
                asked.append((one, []))
                continue
            passages = self._copied(policy, drawn, question.text)
            # else the pages alone would have to answer, which is another question
            if are_copied(question.places, passages):
                asked.append((one, passages))
        return drawn, asked

    def _copied(self, policy: BM25Policy, drawn: RenderedDocument, words: str) -> list[tuple[int, int]]:
        costs = SpanTokens(drawn, words, self._encode.texts)
        return list(policy.select(costs, DEFAULT_BUDGET["max_text_tokens"]).chosen)

    def _on_one_document(
        self, kind: str, drawn: RenderedDocument, asked: list[tuple[Document, list[tuple[int, int]]]]
    ) -> dict[str, Any]:
        tokens = [] if kind in WITHOUT_PAGES else self._reader.tokens(drawn)
        shared, spans = self._encode.opening(tokens), self._reader.spans(drawn)
        rows: list[tuple[list[int], list[int]]] = []
        weights: list[list[float]] = []
        for document, passages in asked:
            ids, labels = (row[len(shared) :] for row in self._encode(document, passages, spans, tokens))
            if rows and max(len(ids), *(len(row) for row, _ in rows)) * (len(rows) + 1) > self._tokens:
                break
            rows.append((ids, labels))
            weights.append(self._weights(ids) if passages else self._weights.of_pages(ids, choice=True))
        batch: dict[str, Any] = self._encode.pad(rows)
        batch["weights"] = torch.ones(batch["labels"].shape)
        for row, shares in zip(batch["weights"], weights, strict=True):
            row[: len(shares)] = torch.tensor(shares)
        batch |= {"shared_ids": torch.tensor([shared]), "kind": f"long_{kind}"}
        return batch | (self._reader.pixels(list(drawn.pages)) if tokens else {})


def drawn_length(rng: Random, bounds: tuple[int, int]) -> int:
    """A length between two, on a logarithmic scale; shorter ones are a little more likely."""
    least, most = bounds
    return round(least * (most / least) ** rng.random() ** 1.3)


def are_copied(places: Iterable[tuple[int, int]], passages: list[tuple[int, int]]) -> bool:
    """Whether each place [start, end) lies in one of the passages."""
    return all(any(a <= start and end <= b for a, b in passages) for start, end in places)
