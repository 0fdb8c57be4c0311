# SPDX-License-Identifier: Apache-2.0
"""Arguments and options that several commands have, and what of the library they stand for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

READING_SUFFIX = ".safetensors"
"""Of a document that a model has read."""

File = Annotated[
    Path, typer.Argument(help="A file: text, Markdown, HTML, PDF or a picture of a page.", show_default=False)
]
FileOrReading = Annotated[
    Path,
    typer.Argument(
        help="A file: text, Markdown, HTML, PDF, a picture of a page, or what `hybridctx read` wrote.",
        show_default=False,
    ),
]
Haystack = Annotated[Path, typer.Argument(help="A text file whose prose hides the needles.", show_default=False)]
Model = Annotated[
    str | None, typer.Option(help="Folder or Hub id of a checkpoint; the one inside the package if not given.")
]
Budget = Annotated[
    int | None,
    typer.Option(
        min=1, help="Longest prompt, in tokens; the checkpoint's own bound if not given.", show_default=False
    ),
]
VisualShare = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Part of the budget that pages may take: 0 tokens only, 1 pages only."),
]
MinScale = Annotated[
    float | None,
    typer.Option(min=0.05, max=8, help="Draw no page smaller than this; 1 is the checkpoint's own resolution."),
]
MaxTextTokens = Annotated[
    int | None, typer.Option(min=0, help="Most tokens of copied text; the checkpoint's own bound if not given.")
]
Policy = Annotated[
    str | None,
    typer.Option(
        help="What is copied as exact tokens: bm25, attention, anchors, tail, middle, full or none; the checkpoint's "
        "own choice if not given.",
        show_default=False,
    ),
]
Font = Annotated[
    Path | None, typer.Option(help="A font file for characters that the checkpoint's fonts lack.", show_default=False)
]

_OPTIONS = {
    "max_context_tokens": "--budget",
    "visual_share": "--visual-share",
    "min_scale": "--min-scale",
    "max_text_tokens": "--max-text-tokens",
    "text_policy": "--text-policy",
    "max_new_tokens": "--max-new-tokens",
}
_FIELD = re.compile(rf"\b({'|'.join(_OPTIONS)})\b(=(?=\S))?")


def given(**options: Any) -> dict[str, Any]:
    """The options that were given: the others are left to the library's and the checkpoint's defaults."""
    return {name: value for name, value in options.items() if value is not None}


def limits(
    budget: int | None, visual_share: float | None, min_scale: float | None, max_text_tokens: int | None
) -> dict[str, Any]:
    """The fields of a `ContextBudget` that were given.

    A smallest scale above 1 also moves the largest one, as `ContextBudget` does for a request's own fields.
    """
    return given(
        max_context_tokens=budget, visual_share=visual_share, min_scale=min_scale, max_text_tokens=max_text_tokens
    )


def in_options(message: str) -> str:
    """An error of the library in the words of the command line: `max_context_tokens=3` is `--budget 3` there."""
    return _FIELD.sub(lambda match: _OPTIONS[match[1]] + (" " if match[2] else ""), message)
