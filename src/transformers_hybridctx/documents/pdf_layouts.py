# SPDX-License-Identifier: Apache-2.0
"""How a page of a PDF is shown: its text typeset anew, or the page as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from .page_numbers import listed
from .pdf import PageContent

Layout = Literal["typeset", "source", "auto"]
"""typeset: text is set anew, and only pages that hold none are shown; source: all pages as they are; auto: pages whose
look says something as they are."""
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

_PICTURES = 0.1  # of the page
_PATHS = 40
_ROWS = 3
_GAP = 2.0  # of a line's height
_MOST_NAMED = 12


def check_layout(layout: str) -> None:
    if layout not in LAYOUTS:
        raise ValueError(f"layout={layout!r} is not one of {', '.join(map(repr, LAYOUTS))}")


def reasons_to_show(content: PageContent) -> list[str]:
    """Why a page of text should rather be seen as it is; its content must have boxes."""
    reasons = []
    if content.has_entries:
        reasons.append("form fields or notes")
    if content.survey.coverage >= _PICTURES:
        reasons.append("pictures")
    if _has_table(content):
        reasons.append("tables")
    elif content.survey.num_paths >= _PATHS:
        reasons.append("drawings")
    return reasons


def _has_table(content: PageContent) -> bool:
    """Whether lines that follow each other hold wide gaps, as rows of cells do."""
    text, boxes = content.text.text, content.text.boxes
    if boxes is None or not text:
        return False
    width, height = content.survey.box[2] - content.survey.box[0], content.survey.box[3] - content.survey.box[1]
    in_row, start = 0, 0
    for line in text.split("\n"):
        own = boxes[start : start + len(line)]
        start += len(line) + 1
        inked = np.array([not one.isspace() for one in line], dtype=bool)
        own = own[inked & np.isfinite(own).all(axis=1)] if len(line) else own
        if len(own) < 2:
            continue
        gaps = (own[1:, 0] - own[:-1, 2]) * width
        wide = gaps > _GAP * float(np.median(own[:, 3] - own[:, 1])) * height
        level = (own[1:, 1] < own[:-1, 3]) & (own[:-1, 1] < own[1:, 3])
        in_row = in_row + 1 if (wide & level).any() else 0
        if in_row >= _ROWS:
            return True
    return False


def note_of(shown: Mapping[int, Sequence[str]], num_typeset: int) -> str:
    """For people: which pages (from 1) are shown as they are and why, and how many are typeset."""
    if not shown:
        return ""
    reasons: dict[str, list[int]] = {}
    for page, why in shown.items():
        for reason in why:
            reasons.setdefault(reason, []).append(page)
    why = "; ".join(f"{reason} on {_shortened(pages)}" for reason, pages in reasons.items())
    count = f"{len(shown):,} page{'s' * (len(shown) != 1)} as in the file"
    return f"{count}{f' ({why})' * bool(why)}" + f", {num_typeset:,} typeset" * bool(num_typeset)


def _shortened(pages: Sequence[int]) -> str:
    return (
        listed(pages)
        if len(pages) <= _MOST_NAMED
        else f"{listed(pages[:_MOST_NAMED])} and {len(pages) - _MOST_NAMED} more"
    )
