# SPDX-License-Identifier: Apache-2.0
"""The `hybridctx` command: ask a document, look at its plan or its pages; convert, train and evaluate checkpoints."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .conversion import CHECKPOINT_COMMANDS
from .errors import clear_errors

# Torch and transformers are imported by the commands that need them, so that --help and mistyped names are quick.
app = typer.Typer(
    help="Ask long documents: pages as pictures, exact words as tokens, the evidence with every answer.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Document = Annotated[
    Path, typer.Argument(help="A file: text, Markdown, HTML, PDF or a picture of a page.", show_default=False)
]
Model = Annotated[
    str | None, typer.Option(help="Folder or Hub id of a checkpoint; the one inside the package if not given.")
]
Tokens = Annotated[
    int | None, typer.Option("--budget", min=1, help="Longest prompt, in tokens; as long as it takes if not given.")
]
Share = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Part of the budget that pages may take: 0 tokens only, 1 pages only."),
]
Policy = Annotated[
    str | None,
    typer.Option(
        help="What is copied as exact tokens: bm25, anchors, tail, middle, full or none.", show_default=False
    ),
]

_LABEL_WIDTH = 12  # that of ContextPlan.summary
_AROUND_EVIDENCE = 60  # characters
_READ_SUFFIX = ".safetensors"  # of a document that was read


@app.command()
def ask(
    document: Annotated[
        Path,
        typer.Argument(
            help="A file: text, Markdown, HTML, PDF, a picture of a page, or what `hybridctx read` wrote.",
            show_default=False,
        ),
    ],
    question: Annotated[
        list[str], typer.Option("--question", "-q", help="May be given several times.", show_default=False)
    ],
    model: Model = None,
    budget: Tokens = None,
    visual_share: Share = None,
    text_policy: Policy = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer, in tokens.")] = None,
    evidence_dir: Annotated[
        Path | None, typer.Option(help="Write the pages that hold the evidence here, with it marked, as PNG.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answers as JSON and nothing else.")] = False,
) -> None:
    """Answer questions about a document, each with its plan, its evidence and the time of each stage."""
    console = _console()
    with clear_errors(), Console(stderr=True).status("") as status:
        seconds: dict[str, float] = {}
        is_read = document.suffix == _READ_SUFFIX
        with _timed(seconds, "read the file", status):
            content = _read_cache(document) if is_read else _read(document)
        with _timed(seconds, "load the model", status):
            pipe = _pipeline(model)
        with _timed(seconds, "lay it out", status):
            laid_out = content if is_read else pipe.lay_out(content)
        with _timed(seconds, "answer", status):
            answers = pipe(
                question=question,
                document=laid_out,
                budget=_given(max_context_tokens=budget, visual_share=visual_share),
                return_pages=evidence_dir is not None,
                **_given(text_policy=text_policy, max_new_tokens=max_new_tokens),
            )
        pictures = [_save_evidence(answer, evidence_dir, number) for number, answer in enumerate(answers, start=1)]
    if as_json:
        found = [_as_json(*each) for each in zip(question, answers, pictures, strict=True)]
        typer.echo(json.dumps(found, indent=1))
        return
    for asked, answer, saved in zip(question, answers, pictures, strict=True):
        _print_answer(console, asked, answer, saved)
    _print_rule(console)
    _print_rows(console, [("in all", _in_seconds(seconds))])


@app.command()
def read(
    document: Document,
    out: Annotated[
        Path, typer.Argument(help="The file to write; its name ends with .safetensors.", show_default=False)
    ],
    model: Model = None,
    budget: Tokens = None,
    visual_share: Share = None,
    text_policy: Policy = None,
) -> None:
    """Let the model read a document once, and keep that in a file: `hybridctx ask` then takes the file instead.

    The file holds the document's text and fits this checkpoint only.
    """
    console = _console()
    with clear_errors(), Console(stderr=True).status("") as status:
        if out.suffix != _READ_SUFFIX:
            raise ValueError(f"{out} does not end with {_READ_SUFFIX}, by which `hybridctx ask` knows such a file")
        seconds: dict[str, float] = {}
        content = _read(document)
        with _timed(seconds, "load the model", status):
            pipe = _pipeline(model)
        with _timed(seconds, "read the document", status):
            limits = _given(max_context_tokens=budget, visual_share=visual_share)
            cache = pipe.read(content, budget=limits, **_given(text_policy=text_policy))
        with _timed(seconds, "write the file", status):
            cache.save(out)
    for line in cache.plan.summary().splitlines():
        console.print(line, highlight=False, markup=False)
    rows = [
        ("kept", f"{len(cache):,} tokens, which no question has to pay again"),
        ("later", f"policy {cache.text_policy.name!r} copies spans for each question"),
        ("written to", f"{out}, {out.stat().st_size / 1e6:,.1f} MB"),
        ("in all", _in_seconds(seconds)),
    ]
    _print_rows(console, [row for row in rows if row[0] != "later" or cache.text_policy.looks_at_question])


@app.command()
def plan(
    document: Document,
    question: Annotated[
        str | None, typer.Option("--question", "-q", help="What bm25 looks for; without, it has nothing to copy.")
    ] = None,
    model: Model = None,
    budget: Tokens = None,
    visual_share: Share = None,
) -> None:
    """Print what each text policy would cost, in tokens, without running a model."""
    from ..planning.context_planning import TEXT_POLICIES, ContextBudgetError

    console = _console()
    table = Table("policy", box=None, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("prompt", "visual", "copied", "spans", "scale", "compression", "left out"):
        table.add_column(heading, justify="right")
    notes: list[tuple[str, str]] = []
    with clear_errors():
        content = _read(document)
        processor = _processor(model)
        laid_out = processor.read_document(content)
        limits = _given(max_context_tokens=budget, visual_share=visual_share)
        for name in TEXT_POLICIES:
            try:
                found = processor.plan(laid_out, question, budget=limits, text_policy=name)
            except ContextBudgetError as error:
                option = "--budget" if error.field == "max_context_tokens" else error.field
                table.add_row(name, "–", *[""] * 6, style="dim")
                notes.append((name, f"cannot be met; the smallest {option} that works is {error.smallest:,}"))
                continue
            except ValueError as error:
                table.add_row(name, "–", *[""] * 6, style="dim")
                notes.append((name, str(error)))
                continue
            ratio = found.compression_ratio
            table.add_row(
                name,
                f"{found.total_tokens:,}",
                f"{found.visual_tokens:,}",
                f"{found.text_tokens:,}",
                f"{len(found.spans):,}",
                f"{found.scale:g}" if found.num_pages else "no pages",
                "unknown" if ratio is None else f"{ratio:.2f}",
                f"{found.omitted_characters:,}",
            )
        text = laid_out.text
        size = f"{len(text):,} characters, {processor.encoder.count(text) if text else 0:,} tokens as text"
    _print_rows(console, [("document", size), ("laid out", f"{laid_out.num_pages:,} pages")])
    console.print()
    console.print(table)
    console.print(
        "\nTokens of the whole prompt, of pages and of copied text; characters left out of both.", style="dim"
    )
    if notes:
        console.print()
        _print_rows(console, notes)


@app.command()
def render(
    document: Document,
    out: Annotated[
        Path, typer.Option(help="Folder for the pages (PNG) and their map (layout.json).", show_default=False)
    ],
    config: Annotated[
        Path | None, typer.Option(help="Settings in Glyph's format (JSON); the bundled checkpoint's if not given.")
    ] = None,
    scale: Annotated[float, typer.Option(min=0.05, max=8.0, help="1 is the settings' own resolution.")] = 1.0,
) -> None:
    """Draw a document's pages, and write which characters stand where."""
    from PIL import Image
    from rich.progress import track

    from ..rendering.rasterizing import PageRenderer
    from ..rendering.typesetting import RenderConfig

    with clear_errors():
        text = _read(document)
        if not isinstance(text, str):
            raise ValueError(f"{document} holds pictures already; there is no text to typeset")
        render_config = _processor(None).render_config if config is None else RenderConfig.from_glyph(config)
        renderer = PageRenderer(render_config)
        laid_out = renderer.typeset(text)
        out.mkdir(parents=True, exist_ok=True)
        drawn = renderer.draw_pages(laid_out, scale)
        bar = track(drawn, "drawing", total=laid_out.num_pages, console=Console(stderr=True), transient=True)
        for number, page in enumerate(bar, start=1):
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
    rows = [
        ("document", f"{len(text):,} characters"),
        ("pages", f"{laid_out.num_pages:,} at scale {scale:g}"),
        ("undrawable", f"{len(laid_out.undrawable):,} characters, drawn as boxes and listed in layout.json"),
        ("written to", str(out)),
    ]
    _print_rows(_console(), [row for row in rows if row[0] != "undrawable" or laid_out.undrawable])


@app.command()
def evaluate(
    haystack: Annotated[Path, typer.Argument(help="A text file whose prose hides the needles.", show_default=False)],
    model: Model = None,
    num_tokens: Annotated[list[int], typer.Option(help="Length of the documents in text tokens.")] = [2048],  # noqa: B006
    budget_share: Annotated[float, typer.Option(help="Budget as a part of the document's tokens.")] = 0.5,
    examples: Annotated[int, typer.Option(min=1, help="Documents for each task.")] = 50,
    seed: Annotated[int, typer.Option(help="Of the documents, keys and values.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the table as JSON here.")] = None,
) -> None:
    """Needles in RULER's formats: pages only, tokens only and hybrids side by side, by exact match."""
    with clear_errors():
        from ..evaluation.needle_benchmark import TASKS, run_needle_benchmark

        text = _read_haystack(haystack)
        rows = run_needle_benchmark(_pipeline(model), text, num_tokens, budget_share, examples, seed)
    table = Table("document tokens", "budget", "context", *TASKS, "prompt tokens")
    for row in rows:
        scores = [f"{row['exact_match'][task]:.0%}" for task in TASKS]
        table.add_row(
            str(row["num_tokens"]), str(row["budget"]), row["context"], *scores, f"{row['prompt_tokens']:.0f}"
        )
    _console().print(table)
    if out:
        _write_json(out, rows)


@app.command()
def heads(
    haystack: Annotated[Path, typer.Argument(help="A text file whose prose hides the needles.", show_default=False)],
    model: Model = None,
    num_tokens: Annotated[int, typer.Option(help="Length of the documents in text tokens.")] = 2048,
    examples: Annotated[int, typer.Option(min=1, help="Documents for each task.")] = 20,
    seed: Annotated[int, typer.Option(help="Of the documents, keys and values.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write all heads as JSON here.")] = None,
) -> None:
    """Which attention heads find a needle's passage: what the policy `attention` can listen to (`retrieval_heads`)."""
    with clear_errors():
        from ..evaluation.retrieval_heads import measure_retrieval_heads

        text = _read_haystack(haystack)
        found = measure_retrieval_heads(_pipeline(model), text, num_tokens, examples, seed)
    table = Table("head", "mean reciprocal rank", "among the first 4")
    rows = [(f"layer {layer}, head {head}", row) for row in found["heads"][:8] for layer, head in [row["head"]]]
    for name, row in [*rows, *((name.replace("_", " "), found[name]) for name in ("all_heads", "bm25", "chance"))]:
        table.add_row(name, f"{row['mean_reciprocal_rank']:.2f}", f"{row['hit_at_4']:.0%}")
    _console().print(table)
    if out:
        _write_json(out, found)


for command in CHECKPOINT_COMMANDS:
    app.command()(command)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _checked(model: str | None) -> str | None:
    """The model's name, where it is not a path to nowhere that the Hub would be asked for in vain."""
    if model is not None and model.startswith(("/", "./", "../", "~")):
        model = str(Path(model).expanduser())
        if not Path(model).is_dir():
            raise FileNotFoundError(f"--model {model}: there is no such folder")
    return model


def _pipeline(model: str | None) -> Any:
    from transformers import pipeline
    from transformers.utils import logging

    from .. import modeling_hybridctx, pipeline_long_doc_qa  # noqa: F401  (each registers its classes)

    logging.disable_progress_bar()
    return pipeline("long-doc-qa", model=_checked(model))


def _processor(model: str | None) -> Any:
    from ..pipeline_long_doc_qa import BUNDLED_CHECKPOINT
    from ..processing_hybridctx import HybridCtxProcessor

    return HybridCtxProcessor.from_pretrained(_checked(model) or BUNDLED_CHECKPOINT)


def _read_haystack(path: Path) -> str:
    text = _read(path)
    if not isinstance(text, str):
        raise ValueError(f"{path} holds pictures; needles are hidden in text")
    return text


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _read_cache(path: Path) -> Any:
    from ..caching.document_cache import DocumentCache

    return DocumentCache.load(path)


def _read(document: Path) -> Any:
    from ..documents.files import read_document_file

    return read_document_file(document)


@contextmanager
def _timed(seconds: dict[str, float], stage: str, status: Any) -> Iterator[None]:
    status.update(f"{stage} ...")
    started = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - started


def _save_evidence(answer: dict[str, Any], folder: Path | None, number: int) -> list[Path]:
    if folder is None:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for page, picture in answer["pages"].items():
        paths.append(folder / f"question-{number}-page-{page + 1}.png")
        picture.save(paths[-1])
    return paths


def _as_json(question: str, answer: dict[str, Any], pictures: list[Path]) -> dict[str, Any]:
    kept = {name: answer[name] for name in ("answer", "reasoning", "score", "evidence", "usage")}
    found = answer["plan"]
    summary = {
        "policy": found.policy,
        "scale": found.scale,
        "pages": found.num_pages,
        "spans": [
            {"page": span.page, "start": span.start, "end": span.end, "tokens": span.tokens} for span in found.spans
        ],
        "document_characters": found.document_characters,
        "omitted_characters": found.omitted_characters,
    }
    return {"question": question, **kept, "plan": summary, "pictures": [str(path) for path in pictures]}


# Printing


def _console() -> Console:
    """Lines are folded at a terminal's width; in a file or pipe they stay whole."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 1000)


def _print_rule(console: Console) -> None:
    console.print("─" * min(console.width, 100), style="dim")


def _print_rows(console: Console, rows: list[tuple[str, Any]]) -> None:
    """Labels and values (strings are printed as they are, without markup) in two columns."""
    cells = [(label, Text(value) if isinstance(value, str) else value) for label, value in rows]
    if not console.is_terminal:
        for label, value in cells:
            console.print(f"{label:<{_LABEL_WIDTH}} {value.plain}", markup=False, soft_wrap=True)
        return
    table = Table.grid(padding=(0, 1))
    table.add_column(width=_LABEL_WIDTH, style="dim")
    table.add_column(overflow="fold")
    for label, value in cells:
        table.add_row(label, value)
    console.print(table)


def _print_answer(console: Console, question: str, answer: dict[str, Any], pictures: list[Path]) -> None:
    _print_rule(console)
    rows: list[tuple[str, Any]] = [
        ("question", Text(question, style="bold")),
        ("answer", Text(answer["answer"] or "(no words)", style="bold green")),
        ("score", f"{answer['score']:.3f}"),
    ]
    if answer["reasoning"]:
        rows.insert(1, ("reasoning", Text(answer["reasoning"], style="italic")))
    text = answer["plan"].document.text
    for item in answer["evidence"]:
        start, end = item["start"], item["end"]
        box = ", ".join(f"{side:.0f}" for side in item["box"])
        place = f"page {item['page'] + 1}, characters {start:,} to {end:,}, box ({box}) pixels"
        rows += [("evidence", place), ("", _in_context(text, start, end))]
    if not answer["evidence"]:
        why = "these words do not stand in the document" if text else "the text of these pages is not known"
        rows.append(("evidence", f"none: {why}"))
    rows += [("picture", str(path)) for path in pictures]
    for line in answer["plan"].summary().splitlines():
        rows.append((line[:_LABEL_WIDTH].strip(), line[_LABEL_WIDTH:].strip()))
    rows.append(("seconds", _in_seconds(answer["usage"]["seconds"])))
    _print_rows(console, rows)


def _in_context(text: str, start: int, end: int) -> Any:
    """The evidence in bold, with the words around it, on one line."""
    before = text[max(0, start - _AROUND_EVIDENCE) : start].partition(" " if start > _AROUND_EVIDENCE else "\0")
    after = text[end : end + _AROUND_EVIDENCE]
    after = after.rpartition(" ")[0] if end + _AROUND_EVIDENCE < len(text) else after
    pieces = (before[2] or before[0], text[start:end], after)
    shown = [re.sub(r"\s+", " ", piece) for piece in pieces]
    return Text.assemble((f"…{shown[0]}", "dim"), (shown[1], "bold"), (f"{shown[2]}…", "dim"))


def _in_seconds(seconds: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in seconds.items())
