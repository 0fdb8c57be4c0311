# SPDX-License-Identifier: Apache-2.0
"""The lines of a document as columns of a table, since a log of a million lines should not cost a million objects."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

NO_POSITIONS = np.zeros(0, dtype=np.int64)


def joined_ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """[starts[0], starts[0] + 1, ..., starts[0] + lengths[0] - 1, starts[1], ...] as int64."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total, dtype=np.int64) + np.repeat(starts - (ends - lengths), lengths)


@dataclass(frozen=True)
class LineTable:
    """One entry a line, top to bottom, column by column, page by page.

    starts, ends: characters [start, end) of the text as it is displayed; pages, columns: where it stands, the columns
    counted on each page; tops, lefts, widths: its box in points from the page's corner; gaps: what each of its breaking
    spaces is wider than its advance, in points; paragraphs: their number; directions: 0 left to right only, 1 with
    right-to-left parts, 2 in a right-to-left paragraph.
    """

    starts: np.ndarray
    ends: np.ndarray
    pages: np.ndarray
    columns: np.ndarray
    tops: np.ndarray
    lefts: np.ndarray
    widths: np.ndarray
    gaps: np.ndarray
    paragraphs: np.ndarray
    directions: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def num_pages(self) -> int:
        return int(self.pages[-1]) + 1

    @functools.cached_property
    def _page_firsts(self) -> np.ndarray:
        return np.searchsorted(self.pages, np.arange(self.num_pages + 1))

    def of_page(self, page: int) -> tuple[int, int]:
        """Numbers [first, last) of a page's lines. An unknown page is an IndexError."""
        if not 0 <= page < self.num_pages:
            raise IndexError(f"page {page} does not exist; the document has pages 0 to {self.num_pages - 1}")
        return int(self._page_firsts[page]), int(self._page_firsts[page + 1])

    def holding(self, position: int) -> int:
        """The line of a displayed character, or the one before the break where it was dropped."""
        return max(int(np.searchsorted(self.starts, position, "right")) - 1, 0)
