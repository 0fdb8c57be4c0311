# SPDX-License-Identifier: Apache-2.0
"""The commands of the recipe: `python -m recipes.latents --help`, from the repository's root."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from transformers_hybridctx.bundled_checkpoint import BUNDLED_CHECKPOINT
from transformers_hybridctx.cli.console import answers_console, print_line
from transformers_hybridctx.cli.errors import clear_errors

app = typer.Typer(help="Train a latent encoder for a small checkpoint, and measure it.", no_args_is_help=True)
Corpus = Annotated[Path, typer.Option(help="Folder that `python -m recipes.hybridctx_tiny corpus` wrote.")]
Checkpoint = Annotated[Path, typer.Option(help="What the training starts from; the bundled one if not given.")]


@app.command()
def train(
    folder: Annotated[Path, typer.Argument(help="Where the checkpoint goes.", show_default=False)],
    corpus: Corpus,
    checkpoint: Checkpoint = BUNDLED_CHECKPOINT,
    method: Annotated[str, typer.Option(help="latents, or mean: the baseline.")] = "latents",
    num_latents: Annotated[int, typer.Option(min=1, help="Of each text.")] = 16,
    layers: Annotated[int, typer.Option(min=1, help="Of the encoder; no more than the decoder has.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 3000,
    minutes: Annotated[float | None, typer.Option(help="Stop there at the latest.")] = None,
    learning_rate: Annotated[float, typer.Option(help="The encoder's peak; the decoder's is 0.02 of it.")] = 1e-3,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    seed: Annotated[int, typer.Option(help="Of weights and batches.")] = 0,
) -> None:
    """Train on repeating texts from their latents, and on going on with them."""
    with clear_errors():
        import torch

        from .models import METHODS
        from .training import train as run

        if method not in METHODS:
            raise ValueError(f"unknown method {method!r}; the methods are {', '.join(METHODS)}")
        torch.set_num_threads(threads)
        found = run(
            checkpoint,
            corpus,
            folder,
            method=method,
            num_latents=num_latents,
            layers=layers,
            steps=steps,
            minutes=minutes,
            learning_rate=learning_rate,
            seed=seed,
        )
    print_line(f"{found['steps']:,} steps in {found['minutes']:.1f} minutes; checkpoint in {folder}")


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(help="Folders that train wrote.", show_default=False)],
    corpus: Corpus,
    checkpoint: Checkpoint = BUNDLED_CHECKPOINT,
    examples: Annotated[int, typer.Option(min=2, help="Texts of each length and kind.")] = 32,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Write all figures as JSON here.")] = None,
) -> None:
    """Precision and edit distance of texts repeated from latents, mean pooling, pages and the text's own beginning."""
    with clear_errors():
        import torch

        from transformers_hybridctx.cli.output_files import write_json

        from .report import report as run

        torch.set_num_threads(threads)
        found = run(folders, checkpoint, corpus, examples=examples)
        if out:
            write_json(out, found)
    answers_console().print(_table(found["rows"]))
    for name, value in found["perplexity"].items():
        print_line(f"perplexity {name}: {value:,.1f}")


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(
        "way", "text", "tokens", "decoder tokens", "precision", "95%", "edit distance", "exact", "by quarter"
    )
    for row in rows:
        parts = " ".join(f"{part:.0%}" for part in row["by_part"] or ())
        low, high = row["interval"]
        table.add_row(
            row["way"],
            row["kind"],
            f"{row['from_tokens']}-{row['to_tokens']}",
            f"{row['decoder_tokens']:g}",
            f"{row['precision']:.1%}",
            f"{low:.0%}-{high:.0%}",
            f"{row['edit_distance']:.3f}",
            f"{row['exact']:.0%}",
            parts,
        )
    return table


if __name__ == "__main__":
    app()
