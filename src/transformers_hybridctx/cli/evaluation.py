# SPDX-License-Identifier: Apache-2.0
"""`hybridctx evaluate` and `hybridctx heads`: what a checkpoint finds in long documents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from .console import answers_console
from .errors import clear_errors
from .loading import load_pipeline, read_prose
from .options import Haystack, Model
from .output_files import write_json

Seed = Annotated[int, typer.Option(help="Of the documents, keys and values.")]


def evaluate(
    haystack: Haystack,
    model: Model = None,
    num_tokens: Annotated[list[int], typer.Option(help="Length of the documents in text tokens.")] = [2048],  # noqa: B006
    budget_share: Annotated[float, typer.Option(help="Budget as a part of the document's tokens.")] = 0.5,
    examples: Annotated[int, typer.Option(min=1, help="Documents for each task.")] = 50,
    seed: Seed = 0,
    context: Annotated[
        list[str],
        typer.Option(help="Only these: pages only; tokens only; bm25 alone; hybrid, anchors; hybrid, bm25; ..."),
    ] = [],  # noqa: B006
    grounding: Annotated[
        list[str],
        typer.Option(help="How answers are held to the document: none, quote, strings; several times for each."),
    ] = ["none"],  # noqa: B006
    blank_pages: Annotated[
        bool, typer.Option("--blank-pages", help="Also with nothing on the pages: what holding alone gives.")
    ] = False,
    num_beams: Annotated[int, typer.Option(min=1, help="Beams of the search.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Write the table as JSON here.")] = None,
) -> None:
    """Needles in RULER's formats: pages only, tokens only and hybrids side by side, by exact match."""
    with clear_errors():
        from ..evaluation.needle_benchmark import CONTEXTS, TASKS, run_needle_benchmark

        text = read_prose(haystack)
        rows = run_needle_benchmark(
            load_pipeline(model),
            text,
            num_tokens,
            budget_share,
            examples,
            seed,
            contexts=context or list(CONTEXTS),
            groundings=grounding,
            blank_pages=blank_pages,
            num_beams=num_beams,
        )
        if out:
            write_json(out, rows)
    table = Table("document tokens", "budget", "context", "held", "pages", *TASKS, "prompt tokens")
    for row in rows:
        scores = [f"{row['exact_match'][task]:.0%}" for task in TASKS]
        what = [row["context"], row["grounding"], "blank" if row["blank_pages"] else "as drawn"]
        table.add_row(str(row["num_tokens"]), str(row["budget"]), *what, *scores, f"{row['prompt_tokens']:.0f}")
    answers_console().print(table)


def heads(
    haystack: Haystack,
    model: Model = None,
    num_tokens: Annotated[int, typer.Option(help="Length of the documents in text tokens.")] = 2048,
    examples: Annotated[int, typer.Option(min=1, help="Documents for each task.")] = 20,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Write all heads as JSON here.")] = None,
) -> None:
    """Which attention heads find a needle's passage: what the policy `attention` can listen to (`retrieval_heads`)."""
    with clear_errors():
        from ..evaluation.retrieval_heads import measure_retrieval_heads

        text = read_prose(haystack)
        found = measure_retrieval_heads(load_pipeline(model), text, num_tokens, examples, seed)
        if out:
            write_json(out, found)
    table = Table("head", "mean reciprocal rank", "among the first 4")
    rows = [(f"layer {layer}, head {head}", row) for row in found["heads"][:8] for layer, head in [row["head"]]]
    for name, row in [*rows, *((name.replace("_", " "), found[name]) for name in ("all_heads", "bm25", "chance"))]:
        table.add_row(name, f"{row['mean_reciprocal_rank']:.2f}", f"{row['hit_at_4']:.0%}")
    answers_console().print(table)
