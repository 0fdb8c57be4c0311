# SPDX-License-Identifier: Apache-2.0
"""One page of HTML for a person who has to sign: each answer with all that it rests on, and nothing from elsewhere."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from datetime import datetime
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from .. import __version__
from .answers import answer_rows
from .output_files import written_whole

if TYPE_CHECKING:
    from ..answering.results import LongDocAnswer

_AROUND = 140  # pixels of the page that are shown above and below the evidence
_READABLE = 640  # pixels; what is narrower is shown larger


def write_page(
    path: Path, document: str, questions: Sequence[str], answers: Sequence[LongDocAnswer], model: Any
) -> None:
    """
    Write the page: questions, answers, how they stand to the document, the places with their boxes, the passages that
    were copied, the plan, and which checkpoint said it.

    Args:
        document: what it is called.
        answers: with their `pages`.
        model: whose weights' checksum is told.
    """
    from jinja2 import Environment

    from ..caching.checkpoint_checksum import checkpoint_checksum

    about = [
        ("checkpoint", model.config._name_or_path or type(model).__name__),
        ("checksum", checkpoint_checksum(model)),
        ("made", f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z} by hybridctx {__version__}"),
    ]
    shown = []
    for question, answer in zip(questions, answers, strict=True):
        rows = [(name, styled_pieces(value)) for name, value in answer_rows(question, answer, all_passages=True)[1:]]
        shown.append({"question": question, "rows": rows, "pictures": _pictures(answer)})
    template = files(__package__).joinpath("why.html.jinja").read_text(encoding="utf-8")
    page = Environment(autoescape=True).from_string(template).render(document=document, about=about, answers=shown)
    with written_whole(path) as unfinished:
        unfinished.write_text(page, encoding="utf-8")


def styled_pieces(value: Any) -> list[tuple[str, str]]:
    """(text, names of its styles) of what the command line prints."""
    if not isinstance(value, Text):
        return [(str(value), "")]
    borders = sorted({0, len(value.plain), *(edge for span in value.spans for edge in (span.start, span.end))})

    def styles(start: int) -> str:
        inside = [str(span.style) for span in value.spans if span.start <= start < span.end]
        return " ".join([str(value.style), *inside]).strip()

    return [(value.plain[start:end], styles(start)) for start, end in pairwise(borders)]


def _pictures(answer: LongDocAnswer) -> list[tuple[str, str]]:
    """(caption, PNG in base64) of each place of the evidence: the part of its page around it, large enough to read."""
    from PIL import Image

    found = []
    for page, picture in answer["pages"].items():
        boxes = [item["box"] for item in answer["evidence"] if item["page"] == page]
        top = max(0, int(min(box[1] for box in boxes)) - _AROUND)
        bottom = min(picture.height, int(max(box[3] for box in boxes)) + _AROUND)
        part = picture.crop((0, top, picture.width, bottom))
        times = max(1, min(4, round(_READABLE / part.width)))
        part = part.resize((part.width * times, part.height * times), Image.Resampling.LANCZOS)
        data = io.BytesIO()
        part.save(data, "PNG")
        found.append((f"page {page + 1}", base64.b64encode(data.getvalue()).decode()))
    return found
