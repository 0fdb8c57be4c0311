# SPDX-License-Identifier: Apache-2.0
"""`hybridctx plan`: what a request would cost, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.table import Table

from .console import answers_console, print_rows
from .errors import clear_errors
from .loading import load_processor, read_file_or_reading
from .options import (
    READING_SUFFIX,
    Budget,
    FileOrReading,
    Font,
    MaxTextTokens,
    MinScale,
    Model,
    VisualShare,
    in_options,
    limits,
)

_COLUMNS = ("prompt", "visual", "copied", "spans", "scale", "compression", "left out")


def plan(
    document: FileOrReading,
    question: Annotated[
        str | None, typer.Option("--question", "-q", help="What bm25 looks for; without, it has nothing to copy.")
    ] = None,
    model: Model = None,
    budget: Budget = None,
    visual_share: VisualShare = None,
    min_scale: MinScale = None,
    max_text_tokens: MaxTextTokens = None,
    font: Font = None,
) -> None:
    """Print what each text policy would cost, in tokens, without running a model.

    Exit code 1: no policy can be met.
    """
    from ..planning.budget import ContextBudgetError
    from ..planning.policies.registry import TEXT_POLICIES, resolve_text_policy

    table = Table("policy", box=None, header_style="bold", padding=(0, 2, 0, 0))
    for heading in _COLUMNS:
        table.add_column(heading, justify="right")
    notes: list[tuple[str, str]] = []
    with clear_errors():
        content = read_file_or_reading(document)
        processor = load_processor(model, font)
        is_reading = document.suffix == READING_SUFFIX
        laid_out = content.plan.document if is_reading else processor.read_document(content)
        bounds = limits(budget, visual_share, min_scale, max_text_tokens)
        for name in TEXT_POLICIES:
            try:
                if is_reading:
                    found = content.prompt(processor, question, bounds, name)[1]
                else:
                    found = processor.plan(laid_out, question, budget=bounds, text_policy=name)
            except ContextBudgetError as error:
                notes.append(
                    (name, in_options(f"cannot be met; the smallest {error.field} that works is {error.smallest:,}"))
                )
            except ValueError as error:
                notes.append((name, in_options(str(error))))
            else:
                table.add_row(name, *_cells(found))
                continue
            table.add_row(name, "–", *[""] * (len(_COLUMNS) - 1), style="dim")
        text = laid_out.text
        size = f"{len(text):,} characters, {processor.encoder.count(text) if text else 0:,} tokens as text"
        own = resolve_text_policy(processor.default_text_policy).name
    console = answers_console()
    rows = [("document", size), ("laid out", f"{laid_out.num_pages:,} pages"), ("ask takes", f"{own}, unless told")]
    print_rows(console, rows)
    console.print()
    console.print(table)
    console.print(
        "\nTokens of the whole prompt, of pages and of copied text; characters left out of both.", style="dim"
    )
    if notes:
        console.print()
        print_rows(console, notes)
    if len(notes) == len(TEXT_POLICIES):
        raise typer.Exit(1)


def _cells(found: Any) -> Sequence[str]:
    """A plan's figures in the order of the columns."""
    ratio = found.compression_ratio
    return (
        f"{found.total_tokens:,}",
        f"{found.visual_tokens:,}",
        f"{found.text_tokens:,}",
        f"{len(found.spans):,}",
        f"{found.scale:g}" if found.num_pages else "no pages",
        "unknown" if ratio is None else f"{ratio:.2f}",
        f"{found.omitted_characters:,}",
    )
