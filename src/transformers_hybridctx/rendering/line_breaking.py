# SPDX-License-Identifier: Apache-2.0
"""Line breaking: greedy, over prefix sums of advances. How each rule set breaks is a subclass, here or beside them."""

from __future__ import annotations

import math
from bisect import bisect_right

import numpy as np

from .characters import CJK, MARK, NEWLINE, NO_END, NO_START, SPACE, ZERO_WIDTH_SPACE
from .manuscript import BrokenLines, Manuscript
from .settings import RenderConfig

# A line is looked for in so many units first, more than most hold.
_UNITS_TRIED = 64


class LineBreaker:
    """Greedy line breaking of one text; pen places are in `units` to the em.

    A unit is a stretch that a line takes whole: a word, a newline mark, a CJK character with its punctuation.
    """

    parts = 1
    """Lines are measured in such parts of a unit of length."""

    def __init__(self, config: RenderConfig, units: int, manuscript: Manuscript) -> None:
        self.codes, self.flags = manuscript.codes, manuscript.flags
        self.pen, self.attached = manuscript.pen, manuscript.attached
        # Newlines to a paragraph, whose first line has the first line's indent.
        self.group = config.lines_per_paragraph or 1
        self.room = math.floor(config.text_width / config.font_size * units + 1e-6)
        self.first_room = math.floor((config.text_width - config.first_line_indent) / config.font_size * units + 1e-6)
        solid = (self.flags & (SPACE | NEWLINE)) == 0
        before = np.ones(len(self.codes) + 1, dtype=bool)  # may a line start here?
        before[1:-1] = ~(solid[:-1] & solid[1:])
        before[1:-1] |= self.may_part()
        before &= ~self.attached
        self.starts = np.flatnonzero(solid & before[:-1])
        self.ends = np.flatnonzero(solid & before[1:]) + 1
        pens = self.pen[self.starts]
        widths = self.pen[self.ends] - pens
        self.spare = self.spared(pens, widths)
        self.reach = (pens + widths) * self.parts - self.spare

    def may_part(self) -> np.ndarray | bool:
        """Where a line may start between two characters that are no spaces: bool [characters - 1], or everywhere."""
        return False

    def spared(self, pens: np.ndarray, widths: np.ndarray) -> np.ndarray:
        """By how much, in parts, the spaces before each unit may shrink."""
        return np.zeros_like(pens)

    def first_place(self, starts: np.ndarray, filled: np.ndarray, first: np.ndarray) -> None:
        """Move the starts of filled paragraphs, whose first units are given, where white space before them goes."""

    def broken_word(self, start: int, room: int, word_start: int, word_end: int) -> int:
        """Where a line from start, at whose end a word does not fit, is to end within that word; else word_start."""
        return word_start

    def break_paragraphs(self, paragraph_starts: np.ndarray, paragraph_ends: np.ndarray) -> BrokenLines:
        """A paragraph without units is one empty line."""
        number = np.arange(len(paragraph_starts))
        rooms = np.where(number % self.group == 0, self.first_room, self.room)
        firsts = np.searchsorted(self.starts, paragraph_starts)
        lasts = np.searchsorted(self.starts, paragraph_ends)
        begins, stops = paragraph_starts.copy(), paragraph_starts.copy()
        filled = np.flatnonzero(lasts > firsts)
        first, last = firsts[filled], lasts[filled] - 1
        self.first_place(begins, filled, first)
        stops[filled] = self.ends[last]
        limits = (self.pen[begins] + rooms)[filled] * self.parts - self.spare[first]
        long = np.zeros(len(number), dtype=bool)
        long[filled] = self.reach[last] > limits
        pieces = [
            self._break_by_units(int(begins[index]), int(firsts[index]), int(lasts[index]), int(rooms[index]))
            for index in np.flatnonzero(long).tolist()
        ]
        return joined_lines(begins, stops, long, pieces)

    def _break_by_units(self, start: int, unit: int, last: int, room: int) -> list[tuple[int, int]]:
        # Views whose elements are plain numbers: numpy's scalars would make a line ten times as long.
        starts, ends, reach = self.starts.data, self.ends.data, self.reach.data
        pen, spare = self.pen.data, self.spare.data
        lines = []
        while unit < last:
            limit = (pen[start] + room) * self.parts - spare[unit]
            near = min(unit + _UNITS_TRIED, last)
            fit = bisect_right(reach, limit, unit, near)
            if fit == near:
                fit = bisect_right(reach, limit, near, last)
            word_start = starts[min(fit, last - 1)]
            if fit > unit:
                end = ends[fit - 1]
                unit = fit
                if fit < last:
                    cut = self.broken_word(start, room, word_start, ends[fit])
                    if cut > word_start:
                        end = word_start = cut
                lines.append((start, end))
                start = word_start
            elif start < word_start:
                start = word_start
                continue
            else:
                cut = max(self.cut(start, room), self.after(start))
                lines.append((start, cut))
                start = cut
                if start >= ends[unit]:
                    unit += 1
                    start = starts[min(unit, last - 1)]
            room = self.room
        return lines

    def cut(self, start: int, room: int) -> int:
        """The last place between clusters that a line from start reaches; start if not even one cluster fits."""
        cut = int(np.searchsorted(self.pen, self.pen[start] + room, "right")) - 1
        while cut > start and self.attached[cut]:
            cut -= 1
        return cut

    def after(self, start: int) -> int:
        """The end of the cluster at start."""
        end = start + 1
        while self.attached[end]:
            end += 1
        return end


def joined_lines(
    begins: np.ndarray, stops: np.ndarray, long: np.ndarray, pieces: list[list[tuple[int, int]]], newlines: bool = True
) -> BrokenLines:
    """Lines of paragraphs that fit one line each, and of the long ones, which were broken to pieces."""
    number = np.arange(len(begins))
    spans = np.array([line for lines in pieces for line in lines], dtype=np.int64).reshape(-1, 2)
    start, end = np.append(begins[~long], spans[:, 0]), np.append(stops[~long], spans[:, 1])
    owner = np.append(number[~long], np.repeat(np.flatnonzero(long), [len(lines) for lines in pieces]))
    order = np.argsort(start, kind="stable")
    return BrokenLines(start[order], end[order], owner[order].astype(np.int64), at_newlines=newlines)


class PlainLineBreaker(LineBreaker):
    """Lines may also start behind a newline's mark, a zero-width space and between CJK characters."""

    def may_part(self) -> np.ndarray:
        codes, flags = self.codes, self.flags
        wide = ((flags[:-1] | flags[1:]) & CJK) != 0
        wide &= ((flags[1:] & NO_START) == 0) & ((flags[:-1] & NO_END) == 0)
        return wide | ((flags[:-1] & MARK) != 0) | (codes[:-1] == ZERO_WIDTH_SPACE)
