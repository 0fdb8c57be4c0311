# SPDX-License-Identifier: Apache-2.0
"""Pages as they are, with the text that they show: pictures for the model, characters with boxes for everything else."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..rendering.paged_text import Box, Line, PagedText, check_scale
from .character_strips import STEPS, strips_of
from .page_numbers import PagedText as TextOfPages
from .page_numbers import SourcePage
from .scans import PageSource, ScannedPages

_FUZZ = 1e-9  # of a page's side


@dataclass(frozen=True, eq=False)
class ShownPage:
    """
    A page as it is, and the text that it shows.

    Attributes:
        source: draws it.
        text: in reading order; "" where it is not known.
        boxes: uint16 `[characters, 4]`, (left, top, right, bottom) in steps of 1 / `character_strips.STEPS` of the page's
            width and height; zeros for white space at the ends of lines, and for what lies off the page.
        strips: int32, the first character of each stretch of a line; see `character_strips.strips_of`.
        number: which page of its document it is.
        is_known: whether its text is what it shows; a scan has none, or a stamp, and shows more.
    """

    source: PageSource
    text: str
    boxes: np.ndarray
    strips: np.ndarray
    number: SourcePage | None = None
    is_known: bool = True

    @classmethod
    def of(
        cls, source: PageSource, text: str, shares: np.ndarray, number: SourcePage | None = None, is_known: bool = True
    ) -> ShownPage:
        """From boxes as shares of the page's width and height, float `[characters, 4]`, nan where there is none."""
        height, width = source.size
        return cls(source, text, *strips_of(text, shares, width, height), number, is_known)

    @classmethod
    def without_text(cls, source: PageSource, number: SourcePage | None = None, is_known: bool = False) -> ShownPage:
        return cls(source, "", np.zeros((0, 4), dtype=np.uint16), np.zeros(1, dtype=np.int32), number, is_known)

    def boxes_of(self, start: int, end: int) -> Iterator[Box]:
        """Of characters [start, end), one box for each strip, as shares of the page."""
        first = bisect_right(self.strips, start) - 1
        for number in range(first, len(self.strips)):
            low = max(start, int(self.strips[number]))
            if low >= end:
                return
            high = min(end, int(self.strips[number + 1]) if number + 1 < len(self.strips) else len(self.text))
            boxes = self.boxes[low:high]
            boxes = boxes[boxes[:, 2] > boxes[:, 0]]
            if len(boxes):
                (left, top), (right, bottom) = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
                yield float(left) / STEPS, float(top) / STEPS, float(right) / STEPS, float(bottom) / STEPS

    def spans_in(self, box: Box) -> list[tuple[int, int]]:
        """Characters that a region, in shares of the page, shows, whole or in part."""
        left, top, right, bottom = (side * STEPS for side in box)
        boxes, fuzz = self.boxes, _FUZZ * STEPS
        shown = (boxes[:, 0] < right - fuzz) & (boxes[:, 2] > left + fuzz)
        shown &= (boxes[:, 1] < bottom - fuzz) & (boxes[:, 3] > top + fuzz)
        places = np.flatnonzero(shown)
        if not len(places):
            return []
        strip = np.searchsorted(self.strips, places, "right")
        cuts = np.flatnonzero((np.diff(places) > 1) | (np.diff(strip) > 0)) + 1
        begins, ends = places[np.append(0, cuts)].tolist(), places[np.append(cuts, 0) - 1].tolist()
        return [(begin, end + 1) for begin, end in zip(begins, ends, strict=True)]


class SourceDocument(PagedText):
    """
    Pages as they are, as a document. Its text is theirs, with a form feed between two pages; each page is drawn when it
    is asked for, at any scale.

    What holds of a typeset text, and of the visual tokens that show it, holds here: `PagedText` is the contract.

    Attributes:
        pages: the pages.
        undrawable: empty: whatever a page shows, it shows.
    """

    layout_note = ""

    def __init__(self, pages: Sequence[ShownPage]) -> None:
        if not pages:
            raise ValueError("empty document: a list of no pages")
        self.pages = tuple(pages)
        self.text = TextOfPages([page.text for page in pages], [page.number for page in pages])
        self.num_pages = len(self.pages)
        self.undrawable = []
        self._pictures = ScannedPages([page.source for page in pages])
        self._starts = [0]
        for page in self.pages[:-1]:
            self._starts.append(self._starts[-1] + len(page.text) + 1)

    @property
    def only_scale(self) -> float | None:
        return None

    @property
    def unknown_pages(self) -> Sequence[int]:
        return [number for number, page in enumerate(self.pages) if not page.is_known]

    @property
    def lines(self) -> Sequence[Line]:
        found = []
        for number, (page, offset) in enumerate(zip(self.pages, self._starts, strict=True)):
            height, width = self.page_size(number)
            ends = [*page.strips.tolist()[1:], len(page.text)]
            for start, end in zip(page.strips.tolist(), ends, strict=True):
                boxed = np.flatnonzero(page.boxes[start:end, 2])
                if len(boxed):
                    box = next(page.boxes_of(start, end))
                    start, end = start + int(boxed[0]), start + int(boxed[-1]) + 1
                    found.append(Line(number, offset + start, offset + end, _scaled(box, width, height)))
        return found

    def page_size(self, page: int, scale: float | None = None) -> tuple[int, int]:
        self._check_page(page)
        scale = 1.0 if scale is None else scale
        check_scale(scale)
        return self._pictures.page_size(page, scale)

    def page_of(self, char_index: int) -> int:
        if not 0 <= char_index < len(self.text):
            raise IndexError(f"character {char_index} does not exist; the text has {len(self.text)} characters")
        return bisect_right(self._starts, char_index) - 1

    def page_span(self, page: int) -> tuple[int, int]:
        self._check_page(page)
        end = self._starts[page + 1] if page + 1 < self.num_pages else len(self.text)
        return self._starts[page], end

    def boxes(self, start: int, end: int, scale: float | None = None) -> list[tuple[int, Box]]:
        if not 0 <= start <= end <= len(self.text):
            raise ValueError(f"[{start}, {end}) is not within the text's {len(self.text)} characters")
        found: list[tuple[int, Box]] = []
        for number in range(bisect_right(self._starts, start) - 1, self.num_pages) if start < end else ():
            page, offset = self.pages[number], self._starts[number]
            if offset >= end:
                break
            height, width = self.page_size(number, scale)
            local = max(start - offset, 0), min(end - offset, len(page.text))
            found += [(number, _scaled(box, width, height)) for box in page.boxes_of(*local)]
        return found

    def spans_in_box(self, page: int, box: Box, scale: float | None = None) -> list[tuple[int, int]]:
        height, width = self.page_size(page, scale)
        spans = self.pages[page].spans_in(_scaled(box, 1 / width, 1 / height))
        return [(self._starts[page] + start, self._starts[page] + end) for start, end in spans]

    def draw_pages(self, scale: float, pages: Iterable[int] | None = None) -> Iterator[Image.Image]:
        """Pages in "L" or "RGB", each drawn when it is asked for; all of them, or those of the given indices.

        Raises:
            ValueError: a page is damaged; the message names it.
        """
        return self._pictures.draw_pages(scale, pages)

    def _check_page(self, page: int) -> None:
        if not 0 <= page < self.num_pages:
            raise IndexError(f"page {page} does not exist; the document has pages 0 to {self.num_pages - 1}")


def _scaled(box: Box, across: float, down: float) -> Box:
    return box[0] * across, box[1] * down, box[2] * across, box[3] * down
