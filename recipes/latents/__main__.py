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
def read(
    folder: Annotated[
        Path, typer.Argument(help="Where the checkpoints go, a folder latents-N for each N.", show_default=False)
    ],
    corpus: Corpus,
    checkpoint: Checkpoint = BUNDLED_CHECKPOINT,
    num_latents: Annotated[
        list[int], typer.Option(min=1, help="Of each chunk; several times for each: one training serves all.")
    ] = [32, 64, 100],  # noqa: B006
    stretch: Annotated[int, typer.Option(min=1, help="Tokens of a chunk, at most, for each of its latents.")] = 4,
    layers: Annotated[int, typer.Option(min=1, help="Of the encoder.")] = 2,
    minutes: Annotated[float, typer.Option(help="How long, with what was spent before a stop.")] = 10,
    learning_rate: Annotated[float, typer.Option(help="Its peak.")] = 2e-3,
    bf16: Annotated[
        bool, typer.Option(help="Compute in half precision, where the processor is faster in it.")
    ] = False,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    seed: Annotated[int, typer.Option(help="Of weights and batches.")] = 0,
) -> None:
    """Teach an encoder to hold its text in a form that the decoder reads already, without a decoder's training.

    The same command goes on with a training that was stopped.
    """
    with clear_errors():
        import torch

        from .reading import read as run

        torch.set_num_threads(threads)
        found = run(
            checkpoint,
            corpus,
            folder,
            num_latents=num_latents,
            stretch=stretch,
            layers=layers,
            minutes=minutes,
            learning_rate=learning_rate,
            bf16=bf16,
            seed=seed,
        )
    print_line(f"{found['steps']:,.0f} steps in {found['minutes']:.1f} minutes")
    for count in num_latents:
        print_line(
            f"{folder / f'latents-{count}'}: of held-out text {found[f'held_out_{count}']:.1%} of tokens are read right; "
            f"of the cells' variance {found[f'lacking_{count}']:.1%} are lacking"
        )


@app.command()
def train(
    folder: Annotated[Path, typer.Argument(help="Where the checkpoint goes.", show_default=False)],
    corpus: Corpus,
    checkpoint: Annotated[
        Path, typer.Option(help="What the training starts from: a folder that read wrote, or one without latents.")
    ] = BUNDLED_CHECKPOINT,
    method: Annotated[str, typer.Option(help="Of a checkpoint without latents: latents, or mean, the baseline.")] = (
        "latents"
    ),
    num_latents: Annotated[int, typer.Option(min=1, help="Of a checkpoint without latents: of each chunk.")] = 16,
    chunk_tokens: Annotated[int, typer.Option(min=16, help="Of a checkpoint without latents: of a chunk.")] = 64,
    layers: Annotated[int, typer.Option(min=1, help="Of a checkpoint without latents: of its encoder.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 3000,
    minutes: Annotated[float | None, typer.Option(help="Stop there at the latest.")] = None,
    learning_rate: Annotated[float, typer.Option(help="The encoder's peak.")] = 5e-4,
    decoder_rate: Annotated[
        float, typer.Option(min=0, help="The decoder's, as a part of it; 0 leaves the decoder as it is.")
    ] = 0.5,
    task: Annotated[list[str], typer.Option(help="Several times for each; all of them if none is given.")] = [],  # noqa: B006
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    seed: Annotated[int, typer.Option(help="Of weights and batches.")] = 0,
) -> None:
    """Train encoder and decoder on questions about texts in latents, on repeating them and on going on with them.

    Tasks are answer, repeat, go on, and keep: what the decoder was trained on before. The same command goes on with a
    training that was stopped.
    """
    with clear_errors():
        import torch

        from .models import METHODS
        from .training import TASKS
        from .training import train as run

        if unknown := set(task) - set(TASKS):
            raise ValueError(f"unknown task {min(unknown)!r}; the tasks are {', '.join(TASKS)}")
        if method not in METHODS:
            raise ValueError(f"unknown method {method!r}; the methods are {', '.join(METHODS)}")
        torch.set_num_threads(threads)
        found = run(
            checkpoint,
            corpus,
            folder,
            method=method,
            num_latents=num_latents,
            chunk_tokens=chunk_tokens,
            layers=layers,
            steps=steps,
            minutes=minutes,
            learning_rate=learning_rate,
            decoder_rate=decoder_rate,
            tasks={name: TASKS[name] for name in task or TASKS},
            seed=seed,
        )
    print_line(f"{found['steps']:,} steps in {found['minutes']:.1f} minutes; checkpoint in {folder}")


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(help="Folders that read or train wrote.", show_default=False)],
    corpus: Corpus,
    checkpoint: Checkpoint = BUNDLED_CHECKPOINT,
    edge: Annotated[
        list[int], typer.Option(min=1, help="Of the texts' lengths in tokens, ascending; several times for each.")
    ] = [64, 128, 256, 400],  # noqa: B006
    examples: Annotated[
        int, typer.Option(min=2, help="Texts of each length and kind, and documents of each task.")
    ] = (24),
    texts: Annotated[bool, typer.Option(help="Texts said again; or questions and perplexity alone.")] = True,
    said: Annotated[
        int, typer.Option(min=0, help="Texts of at most so many tokens are repeated by the decoder, too.")
    ] = 128,
    task: Annotated[list[str], typer.Option(help="Of the suite needles, and fields; several times for each.")] = [  # noqa: B006
        "single_number",
        "multikey",
        "fields",
    ],
    channels: Annotated[
        bool, typer.Option(help="Questions of every channel, and of what they make together; or of latents alone.")
    ] = True,
    length: Annotated[int, typer.Option(min=16, help="Tokens of the documents that are asked about.")] = 512,
    budget_share: Annotated[float, typer.Option(help="The longest prompt, as a part of them.")] = 0.5,
    cells: Annotated[
        list[int], typer.Option(min=1, help="Ask as many latents as they are to be, too; several times for each.")
    ] = [],  # noqa: B006
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Write all figures as JSON here.")] = None,
) -> None:
    """Texts said again, and questions, from latents, mean pooling, pages and tokens, each at the same cost."""
    with clear_errors():
        import torch

        from transformers_hybridctx.cli.output_files import write_json

        from .questions import questions
        from .report import report as run

        torch.set_num_threads(threads)
        found = run(folders, checkpoint, corpus, bins=edge if texts else (), examples=examples, said=said)
        if out:
            write_json(out, found)
        if texts:
            answers_console().print(_table(found["rows"]))
        for name, value in found["perplexity"].items():
            print_line(f"perplexity {name}: {value:,.1f}")
        found["questions"] = questions(
            folders,
            checkpoint,
            corpus,
            tasks=task,
            length=length,
            budget_share=budget_share,
            examples=examples,
            channels=channels,
            cells=cells,
        )
        if out:
            write_json(out, found)
    answers_console().print(_questions_table(found["questions"]))


@app.command()
def long(
    folder: Annotated[Path, typer.Argument(help="A folder that read or train wrote.", show_default=False)],
    document: Annotated[Path, typer.Argument(help="A text.", show_default=False)],
    question: Annotated[str, typer.Option("--question", "-q", help="About it.", show_default=False)],
    characters: Annotated[int, typer.Option(min=1, help="Of the text, from its beginning on.")] = 100_000,
    chunks: Annotated[int, typer.Option(min=1, help="That become latents, from the text's beginning on.")] = 25,
    chunk_tokens: Annotated[
        int | None, typer.Option(min=16, help="Of a chunk, at most; as the encoder was taught if not given.")
    ] = None,
    budget: Annotated[int, typer.Option(min=1, help="Tokens of the prompt, at most.")] = 12_000,
    text_tokens: Annotated[int, typer.Option(min=0, help="Of them for copied passages.")] = 400,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Write all figures as JSON here.")] = None,
) -> None:
    """One question of a long document, its beginning in latents, the rest in pages, with passages beside them."""
    with clear_errors():
        import torch

        from transformers_hybridctx.cli.output_files import write_json

        from .long_document import long_document

        torch.set_num_threads(threads)
        text = document.read_text(encoding="utf-8")[:characters]
        found = long_document(
            folder,
            text,
            question,
            chunks=chunks,
            max_context_tokens=budget,
            text_tokens=text_tokens,
            chunk_tokens=chunk_tokens,
        )
        if out:
            write_json(out, found)
    for name, value in found.items():
        shown = f"{value:,.1f}" if isinstance(value, float) else value if isinstance(value, str) else f"{value:,}"
        print_line(f"{name:<20}{shown}")


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table("way", "text", "tokens", "cost", "precision", "edit distance", "exact", "loops", "right by quarters")
    for row in rows:
        table.add_row(
            row["way"],
            row["kind"],
            f"{row['from_tokens']}-{row['to_tokens']}",
            f"{row['decoder_tokens']:g}",
            _within(row["precision"], row["interval"]),
            f"{row['edit_distance']:.3f} ({row['edit_interval'][0]:.3f}-{row['edit_interval'][1]:.3f})",
            f"{row['exact']:.0%}",
            f"{row['loops']:.0%}",
            " ".join(f"{part:.0%}" for part in row["by_part"] or ()),
        )
    return table


def _questions_table(found: dict[str, Any]) -> Table:
    shown = Table("checkpoint", "context", *found["tasks"], "prompt tokens", "of them latent", "cut off")
    for row in found["rows"]:
        shown.add_row(
            row["checkpoint"],
            row["context"],
            *(_within(row["scores"][task], row["intervals"][task]) for task in found["tasks"]),
            " ".join(f"{count:,.0f}" for count in row["prompt_tokens"]),
            " ".join(f"{count:,.0f}" for count in row["latent_tokens"]),
            f"{row['cut_off']:.0%}",
        )
    return shown


def _within(mean: float, interval: tuple[float, float]) -> str:
    return f"{mean:.0%} ({interval[0]:.0%}-{interval[1]:.0%})".replace("%-", "-")


if __name__ == "__main__":
    app()
