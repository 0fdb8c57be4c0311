# SPDX-License-Identifier: Apache-2.0
"""Visual tokens to characters and back: which part of a page each token of the vision tower shows.

A page's tokens lie in a grid of (rows, columns), numbered row by row, which covers the whole page: for a processor's
`image_grid_thw` and `merge_size`, (h // merge_size, w // merge_size). The page may have been resized to that grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from .paged_text import Box, PagedText

Grid = tuple[int, int]


def visual_token_box(document: PagedText, page: int, token: int, grid: Grid, scale: float | None = None) -> Box:
    """(left, top, right, bottom) of a page's visual token in pixels of the page drawn at `scale`.

    A token outside the grid is an IndexError.
    """
    rows, columns = grid
    if not 0 <= token < rows * columns:
        raise IndexError(f"visual token {token} does not exist; the page has tokens 0 to {rows * columns - 1}")
    height, width = document.page_size(page, scale)
    row, column = divmod(token, columns)
    return (
        column * width / columns,
        row * height / rows,
        (column + 1) * width / columns,
        (row + 1) * height / rows,
    )


def characters_of_visual_token(
    document: PagedText, page: int, token: int, grid: Grid, scale: float | None = None
) -> list[tuple[int, int]]:
    """Characters [(start, end), ...] that a visual token shows, whole or in part."""
    return document.spans_in_box(page, visual_token_box(document, page, token, grid, scale), scale)


def visual_tokens_of_characters(
    document: PagedText, start: int, end: int, grids: Sequence[Grid], scale: float | None = None
) -> list[tuple[int, int]]:
    """[(page, token), ...], ascending, of every visual token that characters [start, end) reach into.

    grids: of every page of the document.
    """
    found: set[tuple[int, int]] = set()
    for page, (left, top, right, bottom) in document.boxes(start, end, scale):
        rows, columns = grids[page]
        height, width = document.page_size(page, scale)
        fuzz = 1e-6
        across = range(
            max(math.floor(left * columns / width + fuzz), 0), min(math.ceil(right * columns / width - fuzz), columns)
        )
        down = range(
            max(math.floor(top * rows / height + fuzz), 0), min(math.ceil(bottom * rows / height - fuzz), rows)
        )
        found.update((page, row * columns + column) for row in down for column in across)
    return sorted(found)
