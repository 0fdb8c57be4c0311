# SPDX-License-Identifier: Apache-2.0
"""Line breaking: greedy, over prefix sums of advances, by our own rules or reportlab's."""

from __future__ import annotations

import math
import unicodedata
from bisect import bisect_right

import numpy as np

from .characters import CJK, MARK, NEWLINE, NO_END, NO_START, SPACE, ZERO_WIDTH_SPACE
from .settings import RenderConfig

# The characters that reportlab's CJK line breaking lets hang into the margin.
_REPORTLAB_CANNOT_START = frozenset(
    map(
        ord,
        "!',.:;?!\")]、。」』】〕］】）々―ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮーヵヶ゛゜・ヽヾゝゞ―‐°′″℃￠％‰",
    )
)
_REPORTLAB_CJK = (0x4E00, 0x9FFF)
# A line may run over by 1/20 of its spaces' width, which then shrink to fit.
_SHRINK_PARTS = 20
# A line is looked for in so many units first, more than most hold.
_UNITS_TRIED = 64


def holds_cjk(codes: np.ndarray) -> bool:
    """Whether reportlab breaks the text between characters: one CJK ideograph anywhere switches all of it."""
    low, high = _REPORTLAB_CJK
    return bool(np.any((codes >= low) & (codes <= high)))


class LineBreaker:
    """Greedy line breaking over one text's prefix sums of advances (`pen`, int64 [characters + 1]).

    A unit is a stretch that a line takes whole: a word, a newline mark, a CJK character with its punctuation.
    """

    def __init__(
        self,
        config: RenderConfig,
        units: int,
        codes: np.ndarray,
        flags: np.ndarray,
        pen: np.ndarray,
        attached: np.ndarray,
    ) -> None:
        self.codes, self.flags, self.pen, self.attached = codes, flags, pen, attached
        self.plain = config.line_breaking == "plain"
        self.group = config.lines_per_paragraph or 1
        self.room = math.floor(config.text_width / config.font_size * units + 1e-6)
        self.first_room = math.floor((config.text_width - config.first_line_indent) / config.font_size * units + 1e-6)
        solid = (flags & (SPACE | NEWLINE)) == 0
        before = np.ones(len(codes) + 1, dtype=bool)  # may a line start here?
        before[1:-1] = ~(solid[:-1] & solid[1:])
        if self.plain:
            before[1:-1] |= ((flags[:-1] & MARK) != 0) | (codes[:-1] == ZERO_WIDTH_SPACE)
            wide = ((flags[:-1] | flags[1:]) & CJK) != 0
            before[1:-1] |= wide & ((flags[1:] & NO_START) == 0) & ((flags[:-1] & NO_END) == 0)
        before &= ~attached
        self.starts = np.flatnonzero(solid & before[:-1])
        self.ends = np.flatnonzero(solid & before[1:]) + 1
        self.parts = 1 if self.plain else _SHRINK_PARTS
        pens = pen[self.starts]
        widths = pen[self.ends] - pens
        # A part of the spaces before each unit is what lines may run over by.
        self.spaces = np.zeros_like(pens) if self.plain else pens - (np.cumsum(widths) - widths)
        self.reach = (pens + widths) * self.parts - self.spaces
        self.by_characters = not self.plain and holds_cjk(codes)

    def break_paragraphs(
        self, paragraph_starts: np.ndarray, paragraph_ends: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(start, end, paragraph) of every line, int64. A paragraph without units is one empty line."""
        number = np.arange(len(paragraph_starts))
        rooms = np.where(number % self.group == 0, self.first_room, self.room)
        firsts = np.searchsorted(self.starts, paragraph_starts)
        lasts = np.searchsorted(self.starts, paragraph_ends)
        begins, stops = paragraph_starts.copy(), paragraph_starts.copy()
        long = np.zeros(len(number), dtype=bool)
        if self.by_characters:
            stops = paragraph_ends
            long = self.pen[stops] - self.pen[begins] > rooms
        else:
            filled = np.flatnonzero(lasts > firsts)
            first, last = firsts[filled], lasts[filled] - 1
            if not self.plain:
                begins[filled] = self.starts[first]
            stops[filled] = self.ends[last]
            limits = (self.pen[begins] + rooms)[filled] * self.parts - self.spaces[first]
            long[filled] = self.reach[last] > limits
        lines: list[tuple[int, int]] = []
        counts = []
        broken = np.flatnonzero(long)
        for paragraph in broken.tolist():
            before, room = len(lines), int(rooms[paragraph])
            if self.by_characters:
                lines += self._break_by_characters(int(begins[paragraph]), int(stops[paragraph]), room)
            else:
                units = int(firsts[paragraph]), int(lasts[paragraph])
                lines += self._break_by_units(int(begins[paragraph]), *units, room)
            counts.append(len(lines) - before)
        spans = np.array(lines, dtype=np.int64).reshape(-1, 2)
        start, end = np.append(begins[~long], spans[:, 0]), np.append(stops[~long], spans[:, 1])
        owner = np.append(number[~long], np.repeat(broken, counts))
        order = np.argsort(start, kind="stable")
        return start[order], end[order], owner[order]

    def _break_by_units(self, start: int, unit: int, last: int, room: int) -> list[tuple[int, int]]:
        # Views whose elements are plain numbers: numpy's scalars would make a line ten times as long.
        starts, ends, reach = self.starts.data, self.ends.data, self.reach.data
        pen, spaces = self.pen.data, self.spaces.data
        lines = []
        while unit < last:
            limit = (pen[start] + room) * self.parts - spaces[unit]
            near = min(unit + _UNITS_TRIED, last)
            fit = bisect_right(reach, limit, unit, near)
            if fit == near:
                fit = bisect_right(reach, limit, near, last)
            word_start = starts[min(fit, last - 1)]
            if fit > unit:
                end = ends[fit - 1]
                unit = fit
                if fit < last and not self.plain and pen[ends[fit]] - pen[word_start] > self.room:
                    # reportlab begins a word that no line can hold on the line before.
                    cut = self._cut(start, room)
                    if cut > word_start:
                        end = word_start = cut
                lines.append((start, end))
                start = word_start
            elif start < word_start:
                start = word_start
                continue
            else:
                cut = max(self._cut(start, room), self._after(start))
                lines.append((start, cut))
                start = cut
                if start >= ends[unit]:
                    unit += 1
                    start = starts[min(unit, last - 1)]
            room = self.room
        return lines

    def _cut(self, start: int, room: int) -> int:
        """The last place between clusters that a line from start reaches; start if not even one cluster fits."""
        cut = int(np.searchsorted(self.pen, self.pen[start] + room, "right")) - 1
        while cut > start and self.attached[cut]:
            cut -= 1
        return cut

    def _after(self, start: int) -> int:
        """The end of the cluster at start."""
        end = start + 1
        while self.attached[end]:
            end += 1
        return end

    def _break_by_characters(self, start: int, stop: int, room: int) -> list[tuple[int, int]]:
        """Reportlab's breaking of a text that holds CJK: anywhere, but back to a space or CJK character from Latin."""
        lines = []
        while start < stop:
            over = int(np.searchsorted(self.pen, self.pen[start] + room, "right")) - 1
            if over >= stop:
                lines.append((start, stop))
                break
            end, code = over + 1, int(self.codes[over])
            if code < 0x3000:
                for back in range(over, (start + end) >> 1, -1):
                    candidate = int(self.codes[back])
                    if back < over and (candidate >= 0x3000 or unicodedata.category(chr(candidate)) == "Zs"):
                        end, code = back + 2, int(self.codes[back + 1])
                        break
            if code not in _REPORTLAB_CANNOT_START and end > start + 1:
                end -= 1
            while end > start + 1 and self.attached[end]:
                end -= 1
            while self.attached[end]:
                end += 1
            lines.append((start, end))
            start, room = end, self.room
        return lines
