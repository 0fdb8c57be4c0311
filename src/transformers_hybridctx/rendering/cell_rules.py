# SPDX-License-Identifier: Apache-2.0
"""Cells: squares of a page, one to a visual token, that each hold contiguous text."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from .characters import DIGIT, HYPHEN, SPACE, doubled_spaces
from .layout_rules import filled_columns
from .line_breaking import LineBreaker, PlainLineBreaker
from .line_table import NO_POSITIONS
from .manuscript import BrokenLines, Manuscript
from .plain_rules import PlainRules
from .settings import RenderConfig

# Characters of a cell line that are looked at first, more than most hold.
_CHARACTERS_TRIED = 64


class _CellBreaker(PlainLineBreaker):
    """Words go into the present cell while they fit, else into the next. A word with a digit begins a cell and may take
    number_lines of it. A word longer than a cell, or than these, is cut before its hyphens, and a part that is still
    too long where the cell, or the last of these lines, ends.
    """

    def __init__(self, config: RenderConfig, units: int, manuscript: Manuscript) -> None:
        super().__init__(config, units, manuscript)
        self.lines = config.cell_lines
        self.number_lines = config.number_lines or config.cell_lines
        self._places = self.pen.data
        digit = np.append(0, np.cumsum((self.flags & DIGIT) != 0))
        numeric = digit[self.ends] > digit[self.starts]
        self._cut_long_words(numeric)

    def _cut_long_words(self, numeric: np.ndarray) -> None:
        """Units become pieces none of which is longer than it may be: where each begins and ends, whether it begins a
        cell, and how many lines of a cell may be filled when it is put in.
        """
        begins: list[int] = []
        self.forced: list[bool] = []
        self.limits: list[int] = []
        stops: list[int] = []
        # What fits one line needs no closer look.
        short = self.pen[self.ends] - self.pen[self.starts] <= self.room
        units = zip(self.starts.tolist(), self.ends.tolist(), numeric.tolist(), short.tolist(), strict=True)
        for start, end, has_digit, is_short in units:
            allowed = self.number_lines if has_digit else self.lines
            pieces = [(start, end)]
            if not is_short and self._line_ends(start, allowed)[-1] < end:
                pieces = self._pieces(start, end, allowed)
            for begin, stop in pieces:
                begins.append(begin)
                stops.append(stop)
                self.forced.append(has_digit and begin == start)
                self.limits.append(self.lines if begin == start else allowed)
        self.begins, self.stops = np.array(begins, dtype=np.int64), np.array(stops, dtype=np.int64)

    def _pieces(self, start: int, end: int, lines: int) -> list[tuple[int, int]]:
        hyphen = self.codes[start:end] == HYPHEN
        cuts = start + 1 + np.flatnonzero(hyphen[1:] & ~hyphen[:-1])
        cuts = cuts[~self.attached[cuts]]
        pieces, begin = [], start
        for stop in [*cuts.tolist(), end]:
            while (border := self._line_ends(begin, lines)[-1]) < stop:
                pieces.append((begin, border))
                begin = border
            pieces.append((begin, stop))
            begin = stop
        return pieces

    def _line_ends(self, start: int, lines: int) -> list[int]:
        """Where each of a cell's lines ends if the cell begins at start and runs on through words."""
        pen, ends = self._places, []
        for _ in range(lines):
            limit = pen[start] + self.room
            near = min(start + _CHARACTERS_TRIED, len(pen))
            end = bisect_right(pen, limit, start, near)
            if end == near:
                end = bisect_right(pen, limit, near)
            end -= 1
            while end > start and self.attached[end]:
                end -= 1
            if end == start < len(pen) - 1:
                end = self.after(start)
            ends.append(end)
            start = end
        return ends

    def break_paragraphs(self, paragraph_starts: np.ndarray, paragraph_ends: np.ndarray) -> BrokenLines:
        """Lines by cells; a paragraph without a word is one empty line, and a cell."""
        firsts = np.searchsorted(self.begins, paragraph_starts)
        lasts = np.searchsorted(self.begins, paragraph_ends)
        lines: list[tuple[int, int, int, int]] = []
        block = 0
        for paragraph, (start, first, last) in enumerate(
            zip(paragraph_starts.tolist(), firsts.tolist(), lasts.tolist(), strict=True)
        ):
            if first == last:
                lines.append((start, start, paragraph, block))
                block += 1
            piece = first
            while piece < last:
                start, piece, ends = self._cell(piece, last)
                for end in ends:
                    lines.append((start, end, paragraph, block))
                    start = end
                block += 1
        table = np.array(lines, dtype=np.int64).reshape(-1, 4)
        return BrokenLines(table[:, 0].copy(), table[:, 1].copy(), table[:, 2].copy(), table[:, 3].copy())

    def _cell(self, piece: int, last: int) -> tuple[int, int, list[int]]:
        """The cell that begins with a piece: (its start, the piece after it, where its lines end)."""
        stops, start = self.stops.data, int(self.begins[piece])
        borders = self._line_ends(start, self.lines)
        after = piece + 1
        while after < last and not self.forced[after] and stops[after] <= borders[self.limits[after] - 1]:
            after += 1
        end = stops[after - 1]
        ends = [border for border in borders if border < end]
        return start, after, [*ends, end]


class CellRules(PlainRules):
    """Newlines are as in the plain rules; white space between words is one space."""

    def white_space_advance(self, character: str, own: int | None, space: int, em: int) -> int:
        return space

    def merged_spaces(self, manuscript: Manuscript) -> np.ndarray:
        return np.flatnonzero(doubled_spaces((manuscript.flags & SPACE) != 0))

    def set_tabs(self, manuscript: Manuscript, space: int) -> None:
        """A tab is a space like any other."""

    def shown_hyphens(self, manuscript: Manuscript, broken: BrokenLines) -> np.ndarray:
        """Words are not divided at soft hyphens."""
        return NO_POSITIONS

    def line_breaker(self, config: RenderConfig, units: int, manuscript: Manuscript) -> LineBreaker:
        return _CellBreaker(config, units, manuscript)

    def rows(
        self, config: RenderConfig, broken: BrokenLines, paragraphs: np.ndarray, forced: np.ndarray, last: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        assert broken.blocks is not None
        heads = np.append(True, broken.blocks[1:] != broken.blocks[:-1])
        height = max(int((config.text_height + 1e-6) / (config.line_height * config.cell_lines)), 1)
        columns, places = filled_columns(forced[heads], height, config.columns)
        begins = np.flatnonzero(heads)
        row = np.arange(len(heads)) - begins[broken.blocks]
        return columns[broken.blocks], places[broken.blocks] * config.cell_lines + row
