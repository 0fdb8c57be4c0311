# SPDX-License-Identifier: Apache-2.0
"""Needles and fields of held-out documents, asked of latents, pages, copied passages and what they make together, within
one and the same budget; and of another document's latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any, ClassVar

import torch
from torch import nn

from recipes.hybridctx_tiny.corpus import HELD_OUT
from recipes.hybridctx_tiny.fields import FIELD, folded_answer
from transformers_hybridctx import HybridCtxForCausalLM, HybridCtxProcessor, LongDocQAPipeline, evaluation
from transformers_hybridctx.evaluation.contexts import Context
from transformers_hybridctx.evaluation.needles import make_example
from transformers_hybridctx.evaluation.records import Record
from transformers_hybridctx.evaluation.samples import Sample
from transformers_hybridctx.evaluation.suites.base import Suite
from transformers_hybridctx.evaluation.suites.needles import Needles
from transformers_hybridctx.evaluation.tables import Row
from transformers_hybridctx.modules.latent_encoder import HybridCtxLatentEncoder

from .cells import CellLatents, CellTargets
from .models import load, with_encoder

BEFORE = "before"
"""What the checkpoint that the trainings began with is called."""
FIELDS = "fields"
_MOST_SAID = 96
"""Tokens of an answer with its reasoning, which has room in half of that: a longer one goes on without an end."""


class _CountsCutOff(Suite):
    """Beside the scores, how many answers found no end."""

    def figures(self, records: Sequence[Record]) -> dict[str, float]:
        return {"cut off": fmean(record.plan.get("new", 0) >= _MOST_SAID for record in records)}


@dataclass(frozen=True)
class HiddenNeedles(_CountsCutOff, Needles):
    """Needles in held-out prose."""


@dataclass(frozen=True)
class FieldsOfCountries(_CountsCutOff, Suite):
    """
    Fields of held-out countries of the World Factbook, one a document, asked for in plain words.

    Attributes:
        corpus: the folder of the countries.
        length: tokens of a document, at most.
    """

    name: ClassVar[str] = FIELDS
    metric: ClassVar[str] = "exact match"
    task_names: ClassVar[tuple[str, ...]] = (FIELDS,)

    corpus: Path | None = None
    length: int = 256

    def samples(self, tokenizer: Any) -> list[Sample]:
        assert self.corpus is not None
        files = [path for name in HELD_OUT if (path := self.corpus / f"{name}.txt").is_file() and "factbook" in name]
        texts = [path.read_text(encoding="utf-8") for path in files]
        found: list[Sample] = []
        rng = Random(f"fields {self.seed}")
        while len(found) < (self.examples or 20):
            lines = rng.choice(texts).splitlines(keepends=True)
            document = ""
            for line in lines[rng.randrange(len(lines)) :]:
                if len(tokenizer(document + line).input_ids) > self.length:
                    break
                document += line
            fields = [one for one in FIELD.finditer(document) if document.count(f"{one[1]} - {one[2]}:") == 1]
            if fields:
                asked = rng.choice(fields)
                question = f"What is the {asked[2].replace(' - ', ' ')} of {asked[1]}?"
                found.append(Sample(document, question, "", (asked[3].strip(),), FIELDS, 128, self.length))
        return found

    def score(self, sample: Sample, answer: str) -> float:
        return float(folded_answer(answer) == folded_answer(sample.answer[0]))


@dataclass(frozen=True)
class FirstInLatents(Context):
    """A context in which latents stand for the document's first chunk, whatever else has room."""

    @property
    def has_latents(self) -> bool:
        return True

    @property
    def label(self) -> str:
        return f"a chunk of latents and {super().label}"

    def options(self, context_tokens: int) -> dict[str, Any]:
        options = super().options(context_tokens)
        return options | {"budget": options["budget"] | {"latent_chunks": 1}}


class LatentsOfAnother(HybridCtxLatentEncoder):
    """In an encoder's place: the latents of another text. What is answered from these was not read.

    Args:
        encoder: that makes them.
        other: token ids of that text, enough for any chunk.
    """

    def __init__(self, encoder: HybridCtxLatentEncoder, other: Sequence[int]) -> None:
        nn.Module.__init__(self)
        self.num_latent_tokens, self.batch_tokens = encoder.num_latent_tokens, encoder.batch_tokens
        self._encoder, self._other = (encoder,), torch.tensor(other)  # no part of this module

    def forward(self, chunks: Sequence[torch.Tensor]) -> torch.Tensor:
        """As the encoder's."""
        return self._encoder[0]([self._other[: len(chunk)].to(chunk.device) for chunk in chunks])


def questions(
    folders: Sequence[Path],
    checkpoint: str | Path,
    corpus: Path,
    *,
    tasks: Sequence[str] = ("single_number", "multikey", FIELDS),
    length: int = 256,
    budget_share: float = 0.65,
    examples: int = 20,
    channels: bool = True,
    cells: Sequence[int] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """
    Exact answers and what they cost, one row for each checkpoint and context.

    Args:
        folders: that the commands read and train wrote. What latents make together with other channels, and
            what another text's make, is asked of the first.
        checkpoint: that they began with, whose rows say what their decoders could do.
        corpus: whose held-out prose and countries are asked about.
        tasks: of the suite needles, and `fields`.
        length: tokens of the documents, without what is hidden in them.
        budget_share: the longest prompt of every context, as a part of the document's tokens.
        channels: whether to ask the checkpoint, and what only the first folder is asked of; or latents alone.
        cells: numbers of latents to ask the checkpoint with, each being what `read` teaches it to be.

    Returns:
        `tasks`, and `rows`: `checkpoint`, `context`; by the task's name `scores`, `intervals` and `counts`; of needles
        and of fields, where both are asked for, `prompt_tokens` and, among them, `latent_tokens`; `cut_off`, the part of
        answers without an end.
    """
    prose = next(path for name in HELD_OUT if (path := corpus / f"{name}.txt").is_file())
    suites: list[Suite] = []
    if needles := tuple(task for task in tasks if task != FIELDS):
        suites.append(HiddenNeedles(needles, examples, seed, lengths=(length,), prose=prose))
    if FIELDS in tasks:
        suites.append(FieldsOfCountries(examples=examples, seed=seed, corpus=corpus, length=length))

    def contexts(*kinds: str, cls: type[Context] = Context) -> list[Context]:
        return [cls(kind, "bm25" if kind == "hybrid" else None, budget_share=budget_share) for kind in kinds]

    asked: list[tuple[str, Any, HybridCtxProcessor, list[Context]]] = []
    if channels:
        plain = HybridCtxForCausalLM.from_pretrained(checkpoint), HybridCtxProcessor.from_pretrained(checkpoint)
        asked.append((BEFORE, *plain, contexts("truncated", "bm25-only", "pages", "hybrid")))
    for number, folder in enumerate(folders):
        model, processor, _ = load(folder)
        asked.append((folder.name, model, processor, contexts("latents")))
        if channels and number == 0:
            asked[-1][-1].extend(contexts("bm25-only", "pages", "hybrid", cls=FirstInLatents))
            other, *_ = load(folder)
            other.model.latent = LatentsOfAnother(other.model.latent, _another_text(processor, prose))
            asked.append((f"{folder.name}, another text's", other, processor, contexts("latents")))
    asked += [(f"cells-{count}", *_with_cells(checkpoint, count), contexts("latents")) for count in cells]
    rows = []
    for name, model, processor, ways in asked:
        pipe = LongDocQAPipeline(model=model.eval(), processor=processor)
        tables = [evaluation.run(suite, pipe, ways, max_new_tokens=_MOST_SAID) for suite in suites]
        for found in zip(*(table.rows for table in tables), strict=True):
            rows.append({"checkpoint": name, "context": found[0].context} | _joined(found))
    return {"tasks": list(tasks), "length": length, "budget_share": budget_share, "rows": rows}


def _joined(found: Sequence[Row]) -> dict[str, Any]:
    """One row of those of several suites."""
    if failed := [row.first_failure for row in found if row.failures]:
        raise RuntimeError(f"an answer failed in the context {found[0].context!r}: {failed[0]}")
    counts = {task: count for row in found for task, count in row.counts.items()}
    cut_off = sum(row.summary["cut off"] * sum(row.counts.values()) for row in found)
    return {
        "scores": {task: score for row in found for task, score in row.scores.items()},
        "intervals": {task: row.intervals[task] for row in found for task in row.scores},
        "counts": counts,
        "prompt_tokens": [row.prompt_tokens for row in found],
        "latent_tokens": [row.latent_tokens for row in found],
        "cut_off": cut_off / sum(counts.values()),
    }


def _another_text(processor: HybridCtxProcessor, prose: Path) -> list[int]:
    """Tokens of held-out prose with a needle of its own."""
    assert processor.latents is not None
    needle = make_example(Random("another"), prose.read_text(encoding="utf-8")[:2000], "single_number", held_out=True)
    (ids,) = processor.encoder([needle.document])
    return list(ids[: processor.latents.chunk_tokens])


def _with_cells(checkpoint: str | Path, num_latents: int, stretch: int = 4) -> tuple[Any, HybridCtxProcessor]:
    model, processor = with_encoder(checkpoint, "latents", num_latents, 1, num_latents * stretch)
    model.model.latent = CellLatents(CellTargets(model, processor, stretch), model.config)
    return model, processor
