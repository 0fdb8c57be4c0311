# SPDX-License-Identifier: Apache-2.0
"""Needles in held-out prose, asked of latents, pages, copied passages and cut text within one and the same budget."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers_hybridctx import HybridCtxForCausalLM, HybridCtxProcessor, LongDocQAPipeline, evaluation

from .cells import CellLatents, CellTargets
from .models import load, with_encoder

BEFORE = "before"
"""What the checkpoint that the trainings began with is called."""


def questions(
    folders: Sequence[Path],
    checkpoint: str | Path,
    prose: Path,
    *,
    tasks: Sequence[str] = ("single_number", "multikey"),
    lengths: Sequence[int] = (256,),
    budget_share: float = 0.65,
    examples: int = 20,
    others: bool = True,
    cells: Sequence[int] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """
    Exact answers and what they cost, one row for each checkpoint, length and context.

    Args:
        folders: that the commands read and train wrote.
        checkpoint: that they began with, whose rows say what their decoders could do.
        prose: a text that no training read.
        budget_share: the longest prompt of every context, as a part of the document's tokens.
        others: ask the folders' checkpoints without latents, too, which says what a trained decoder has kept.
        cells: numbers of latents to ask the checkpoint with, each being what `read` teaches it to be.

    Returns:
        `rows`: fields of [`evaluation.tables.Row`], and `checkpoint`.
    """
    suite = evaluation.make_suite(
        "needles", tasks=tuple(tasks), lengths=tuple(lengths), examples=examples, seed=seed, prose=prose
    )
    without = evaluation.make_contexts(["pages", "truncated", "bm25-only"], budget_share=budget_share)
    with_latents = [
        *evaluation.make_contexts(["latents", "pages", "truncated"], budget_share=budget_share),
        *evaluation.make_contexts(["bm25-only"], budget_share=budget_share, latent_shares=[0.5]),
    ]
    with_latents = [context for context in with_latents if others or context.has_latents]
    models: list[tuple[str, Any, HybridCtxProcessor]] = [
        (
            BEFORE,
            HybridCtxForCausalLM.from_pretrained(checkpoint),
            HybridCtxProcessor.from_pretrained(checkpoint),
        ),
        *((folder.name, *load(folder)[:2]) for folder in folders),
        *((f"cells-{count}", *_with_cells(checkpoint, count)) for count in cells),
    ]
    rows = []
    for name, model, processor in models:
        pipe = LongDocQAPipeline(model=model.eval(), processor=processor)
        contexts = without if name == BEFORE else with_latents
        rows += [{"checkpoint": name, **vars(row)} for row in evaluation.run(suite, pipe, contexts).rows]
    return {"tasks": list(tasks), "rows": rows}


def _with_cells(checkpoint: str | Path, num_latents: int, stretch: int = 4) -> tuple[Any, HybridCtxProcessor]:
    model, processor = with_encoder(checkpoint, "latents", num_latents, 1, num_latents * stretch)
    model.model.latent = CellLatents(CellTargets(model, processor, stretch), model.config)
    return model, processor
