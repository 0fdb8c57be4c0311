# SPDX-License-Identifier: Apache-2.0
"""Batches of questions whose documents stand in the prompt as latents, some with passages copied beside them."""

from __future__ import annotations

from random import Random
from typing import Any

import torch

from recipes.hybridctx_tiny.answer_batches import LossWeights, RecordsOfCountries, quoted_with_a_blank
from recipes.hybridctx_tiny.batches import IGNORE, SequenceEncoder
from recipes.hybridctx_tiny.tasks import Document, TaskMixture, draw_passages
from transformers_hybridctx import HybridCtxProcessor
from transformers_hybridctx.planning.plan import ContextPlan

WHOLE = {"visual_share": 0, "latent_share": 1}
"""A budget in which latents stand for the whole of a document."""
_MOST_ROWS, _FEWEST_OF_RECORDS = 24, 600
"""Documents of a batch, and characters of one with several countries."""


class LatentAnswers:
    """
    Draws batches.

    Args:
        prose: as [`TaskMixture`] takes it.
        num_chars: of documents, at least and at most; short ones are more likely.
        tokens_per_batch: bound on the decoder's padded tokens.
        copied: the part of the batches that has passages beside its latents.
        num_facts: of a document, at least and at most; most of them are asked for.
        records: the part of the documents that are of several countries with the same fields.
    """

    def __init__(
        self,
        processor: HybridCtxProcessor,
        prose: dict[str, str],
        *,
        num_chars: tuple[int, int] = (60, 1600),
        tokens_per_batch: int = 1400,
        copied: float = 0.15,
        num_facts: tuple[int, int] = (1, 6),
        records: float = 0.3,
    ) -> None:
        self._processor, self._mixture = processor, TaskMixture(prose)
        self._records, self._part_of_records, self._num_facts = RecordsOfCountries(prose), records, num_facts
        self._encode, self._weights = SequenceEncoder(processor.tokenizer), LossWeights(processor.tokenizer)
        self._num_chars, self._tokens, self._copied = num_chars, tokens_per_batch, copied

    def draw(self, rng: Random) -> dict[str, Any]:
        """What the model takes, with `labels` and the `weights` of their tokens."""
        least, most = self._num_chars
        num_chars, with_passages = round(least + (most - least) * rng.random() ** 1.5), rng.random() < self._copied
        rows: list[tuple[list[int], list[int], ContextPlan]] = []
        while len(rows) < _MOST_ROWS:
            document = quoted_with_a_blank(self._document(rng, num_chars))
            passages = draw_passages(rng, document, rng.randint(0, num_chars // 2)) if with_passages else []
            rows.append(self.row(document, passages))
            if len(rows) * max(len(ids) for ids, _, _ in rows) > self._tokens and len(rows) > 1:
                rows.pop()
                break
        batch: dict[str, Any] = self._encode.pad([(ids, labels) for ids, labels, _ in rows])
        batch["weights"] = torch.zeros(batch["labels"].shape)
        for number, (ids, _, _) in enumerate(rows):
            batch["weights"][number, : len(ids)] = torch.tensor(self._weights(ids))
        chunks = [chunk.input_ids for _, _, plan in rows for chunk in plan.latents]
        longest = max(map(len, chunks))
        batch["latent_input_ids"] = torch.tensor([[*chunk, *[0] * (longest - len(chunk))] for chunk in chunks])
        batch["latent_attention_mask"] = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in chunks])
        return batch

    def _document(self, rng: Random, num_chars: int) -> Document:
        count = rng.randint(*self._num_facts)
        if rng.random() < self._part_of_records:
            return self._records.draw(rng, max(num_chars, _FEWEST_OF_RECORDS), count)[0]
        return self._mixture.draw(rng, num_chars, count, 60)

    def row(self, document: Document, passages: list[tuple[int, int]]) -> tuple[list[int], list[int], ContextPlan]:
        """Tokens and labels of one conversation as the processor writes it, and the plan of its latents."""
        plan = self._processor.plan(document.text, "?", budget=WHOLE, text_policy="none")
        pages = [plan.document.page_span(page) for page in range(plan.document.num_pages)]
        ids, labels = self._encode(document, passages, pages, [])
        begin = len(self._encode.opening([]))
        latents = list(plan.latent_ids)
        return (
            [*ids[:begin], *latents, *ids[begin:]],
            [*labels[:begin], *[IGNORE] * len(latents), *labels[begin:]],
            plan,
        )
