# SPDX-License-Identifier: Apache-2.0
"""A text on pages: where every character lies, and which characters lie where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import overload

import numpy as np

from .character_map import Cells, CharacterMap, OwnWidths, Shaped
from .fonts import FontChain
from .line_table import LineTable
from .newline_map import NewlineMap
from .page_geometry import PageGeometry
from .paged_text import Box, Line, PagedText, check_scale


@dataclass(frozen=True)
class Layout:
    """What the typesetter found out about a text: all of a `TypesetDocument` but the text itself and its fonts.

    display: the text as it is displayed, or None where that is the text; attached, merged: as in `CharacterMap`;
    undrawable: positions in the text, int64.
    """

    display: str | None
    newlines: NewlineMap
    lines: LineTable
    shaped: Shaped
    own_widths: OwnWidths
    attached: np.ndarray
    merged: np.ndarray
    undrawable: np.ndarray


class _Lines(Sequence[Line]):
    """Lines made as they are asked for."""

    def __init__(self, document: TypesetDocument) -> None:
        self._document = document

    def __len__(self) -> int:
        return len(self._document.line_table)

    @overload
    def __getitem__(self, index: int) -> Line: ...
    @overload
    def __getitem__(self, index: slice) -> list[Line]: ...
    def __getitem__(self, index: int | slice) -> Line | list[Line]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        document = self._document
        start, end = document.line_span(number)
        return Line(int(document.line_table.pages[number]), start, end, document.geometry.line_box(number))


class TypesetDocument(PagedText):
    """A text on pages: every character lies on exactly one line, or is white space at a line break.

    Attributes beside those of `PagedText`:
        display: the text with each newline that is drawn replaced by its mark; line_table, characters and geometry speak
            of positions in it.
        fonts: the chain that it was typeset with.
    """

    def __init__(self, text: str, fonts: FontChain, layout: Layout) -> None:
        self.text, self.fonts, self.config, self.layout = text, fonts, fonts.config, layout
        self.display = text if layout.display is None else layout.display
        self.newlines, self.line_table = layout.newlines, layout.lines
        self.num_pages = layout.lines.num_pages
        self.undrawable = [(at, text[at]) for at in layout.undrawable.tolist()]
        self.characters = CharacterMap(
            self.display,
            fonts,
            layout.lines,
            layout.newlines,
            layout.shaped,
            layout.own_widths,
            layout.attached,
            layout.merged,
        )
        self.geometry = PageGeometry(self.characters)

    @property
    def lines(self) -> Sequence[Line]:
        return _Lines(self)

    def line_span(self, number: int) -> tuple[int, int]:
        """Characters [start, end) of line `number` of the document."""
        start, end = int(self.line_table.starts[number]), int(self.line_table.ends[number])
        return self.newlines.to_text(start), self.newlines.to_text(end)

    def page_lines(self, page: int) -> tuple[int, int]:
        """Numbers [first, last) of a page's lines. An unknown page is an IndexError."""
        return self.line_table.of_page(page)

    def cells(self, first: int, last: int) -> Cells:
        """Where every character of lines [first, last) lies."""
        return self.characters.cells(first, last)

    def page_size(self, page: int, scale: float | None = None) -> tuple[int, int]:
        return self.geometry.page_size(page, 1.0 if scale is None else scale)

    def page_of(self, char_index: int) -> int:
        if not 0 <= char_index < len(self.text):
            raise IndexError(f"character {char_index} does not exist; the text has {len(self.text)} characters")
        position = self.newlines.to_display(char_index)
        if len(self.newlines) and self.characters.is_mark(np.array([position]))[0]:
            # A newline is where its mark can be seen, whose outer spaces may end a line.
            position += self.newlines.visible[0]
        return int(self.line_table.pages[self.line_table.holding(position)])

    def page_span(self, page: int) -> tuple[int, int]:
        first, last = self.page_lines(page)
        starts, at_end = self.line_table.starts, page == self.num_pages - 1
        start = 0 if page == 0 else self.newlines.to_text(int(starts[first]))
        return start, len(self.text) if at_end else self.newlines.to_text(int(starts[last]))

    def boxes(self, start: int, end: int, scale: float | None = None) -> list[tuple[int, Box]]:
        if not 0 <= start <= end <= len(self.text):
            raise ValueError(f"[{start}, {end}) is not within the text's {len(self.text)} characters")
        scale = 1.0 if scale is None else scale
        check_scale(scale, self.config.only_scale)
        if start == end:
            return []
        start = self.characters.cluster(self.newlines.to_display(start))
        end = self.characters.cluster_end(self.newlines.to_display(end))
        table, found = self.line_table, []
        for number in range(table.holding(start), int(np.searchsorted(table.starts, end, "left"))):
            line_start, line_end = int(table.starts[number]), int(table.ends[number])
            if line_start == line_end or line_end <= start:
                continue
            page = int(table.pages[number])
            if start <= line_start and line_end <= end:
                if table.widths[number] > 0:
                    found.append((page, self.geometry.line_box(number, scale)))
            else:
                strips = self._strips(number, start, end)
                found += [(page, self.geometry.pixels(number, left, right, scale)) for left, right in strips]
        sizes = {page: self.page_size(page, scale) for page, _ in found}
        on_page = []
        for page, (left, top, right, bottom) in found:
            height, width = sizes[page]
            box = max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))
            if box[0] < box[2] and box[1] < box[3]:
                on_page.append((page, box))
        return on_page

    def _strips(self, number: int, start: int, end: int) -> list[list[float]]:
        """[left, right] in points of the stretches that displayed characters [start, end) fill of a line."""
        cells = self.characters.cells(number, number + 1)
        chosen = (cells.index >= start) & (cells.index < end) & (cells.width > 0)
        lefts, rights = cells.left[chosen], cells.left[chosen] + cells.width[chosen]
        order = np.argsort(lefts, kind="stable")
        strips: list[list[float]] = []
        for left, right in zip(lefts[order].tolist(), rights[order].tolist(), strict=True):
            if strips and left <= strips[-1][1] + 1e-6:
                strips[-1][1] = max(strips[-1][1], right)
            else:
                strips.append([left, right])
        return strips

    def spans_in_box(self, page: int, box: Box, scale: float | None = None) -> list[tuple[int, int]]:
        scale = 1.0 if scale is None else scale
        check_scale(scale, self.config.only_scale)
        first, last = self.page_lines(page)
        table, down = self.line_table, self.geometry.pixels_per_point * scale
        across = down * self.config.horizontal_scale
        left, top, right, bottom = box[0] / across, box[1] / down, box[2] / across, box[3] / down
        fuzz = 1e-6
        edges = first + np.searchsorted(table.columns[first:last], np.arange(self.config.columns + 1))
        spans: list[tuple[int, int]] = []
        for begin, end in pairwise(edges.tolist()):
            # Lines go down a column, so those that the region meets are neighbours.
            tops = table.tops[begin:end]
            low = begin + int(np.searchsorted(tops + self.config.line_height, top + fuzz, "right"))
            high = begin + int(np.searchsorted(tops, bottom - fuzz, "left"))
            if low < high:
                spans += self._spans_between(low, high, left + fuzz, right - fuzz)
        return spans

    def _spans_between(self, low: int, high: int, left: float, right: float) -> list[tuple[int, int]]:
        """Characters of lines [low, high) that reach into the strip from left to right, in points."""
        cells = self.characters.cells(low, high)
        shown = (cells.left < right) & (cells.left + cells.width > left) & (cells.width > 0)
        positions = cells.index[shown]
        if not len(positions):
            return []
        jump = np.flatnonzero((np.diff(positions) > 1) | (np.diff(cells.line[shown]) > 0)) + 1
        begins, ends = positions[np.append(0, jump)].tolist(), (positions[np.append(jump, 0) - 1] + 1).tolist()
        spans = []
        for start, end in zip(begins, ends, strict=True):
            start, end = self.characters.cluster(start), self.characters.cluster_end(end)
            spans.append((self.newlines.to_text(start, whole=-1), self.newlines.to_text(end, whole=1)))
        return [span for span in spans if span[0] < span[1]]
