# SPDX-License-Identifier: Apache-2.0
"""Lines on pages: which column each stands in, and how far down."""

from __future__ import annotations

import math

import numpy as np

from .fonts import FontChain
from .manuscript import BrokenLines


def paginate(
    fonts: FontChain, broken: BrokenLines, paragraphs: np.ndarray, forced: np.ndarray, last: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(column, top in points) of each line, columns counted through all pages.

    paragraphs: the number of each line's; forced: lines that begin a page; last: lines that end at a newline.
    """
    config, rules = fonts.config, fonts.rules
    origin = rules.first_top(config, fonts.ascent)
    if max(config.space_before, config.space_after) > 0:
        columns, tops = _paginate_with_gaps(fonts, paragraphs, forced, last & broken.at_newlines)
        return columns, origin + tops
    columns, rows = rules.rows(config, broken, paragraphs, forced, last)
    return columns, origin + rows * config.line_height


def _paginate_with_gaps(
    fonts: FontChain, paragraphs: np.ndarray, forced: np.ndarray, hard: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """As `paginate`, where paragraphs keep their distance; tops from the first line's."""
    config, together = fonts.config, fonts.rules.keeps_lines_together
    gap, bottom = max(config.space_before, config.space_after), config.text_height + 1e-9
    columns, tops = np.zeros(len(paragraphs), dtype=np.int64), np.zeros(len(paragraphs))
    left = np.searchsorted(paragraphs, paragraphs, "right") - np.arange(len(paragraphs))
    column, top, previous, broken = 0, 0.0, -1, False
    lines = zip(paragraphs.tolist(), forced.tolist(), hard.tolist(), left.tolist(), strict=True)
    for number, (paragraph, new_page, ends_hard, lines_left) in enumerate(lines):
        begins = paragraph != previous
        if begins and top > 0:
            top += gap
        fitting = math.floor((bottom - top) / config.line_height)
        if new_page and number:
            column, top = (column // config.columns + 1) * config.columns, 0.0
        elif fitting < 1 or (together and begins and top > 0 and fitting == 1 and lines_left > 1):
            column, top = column + 1, 0.0
            if together and broken and not begins and 2 * config.line_height <= bottom:
                top = config.line_height
        columns[number], tops[number] = column, top
        top += config.line_height
        previous, broken = paragraph, ends_hard
    return columns, tops
