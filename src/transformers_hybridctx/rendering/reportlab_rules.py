# SPDX-License-Identifier: Apache-2.0
"""The rules of reportlab and poppler, which drew the pages that Glyph was trained on."""

from __future__ import annotations

import math
import unicodedata

import numpy as np

from .characters import SPACE, doubled_spaces, space_runs
from .layout_rules import Geometry, LayoutRules, rows_of_column
from .line_breaking import LineBreaker, joined_lines
from .line_table import NO_POSITIONS
from .manuscript import BrokenLines, Manuscript
from .settings import RenderConfig

# The characters that reportlab's CJK line breaking lets hang into the margin.
_CANNOT_START = frozenset(
    map(
        ord,
        "!',.:;?!\")]、。」』】〕］】）々―ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮーヵヶ゛゜・ヽヾゝゞ―‐°′″℃￠％‰",
    )
)
_CJK = (0x4E00, 0x9FFF)


def holds_cjk(codes: np.ndarray) -> bool:
    """Whether reportlab breaks the text between characters: one CJK ideograph anywhere switches all of it."""
    low, high = _CJK
    return bool(np.any((codes >= low) & (codes <= high)))


class _WordBreaker(LineBreaker):
    """A line may run over by 1/20 of its spaces' width, which then shrink to fit; leading spaces go."""

    parts = 20

    def spared(self, pens: np.ndarray, widths: np.ndarray) -> np.ndarray:
        return pens - (np.cumsum(widths) - widths)

    def first_place(self, starts: np.ndarray, filled: np.ndarray, first: np.ndarray) -> None:
        starts[filled] = self.starts[first]

    def broken_word(self, start: int, room: int, word_start: int, word_end: int) -> int:
        # A word that no line can hold begins on the line before.
        too_long = self.pen[word_end] - self.pen[word_start] > self.room
        return self.cut(start, room) if too_long else word_start


class _CharacterBreaker(LineBreaker):
    """Breaking of a text that holds CJK: anywhere, but back to a space or CJK character from Latin."""

    def break_paragraphs(self, paragraph_starts: np.ndarray, paragraph_ends: np.ndarray) -> BrokenLines:
        rooms = np.where(np.arange(len(paragraph_starts)) % self.group == 0, self.first_room, self.room)
        long = self.pen[paragraph_ends] - self.pen[paragraph_starts] > rooms
        pieces = [
            self._break(int(paragraph_starts[index]), int(paragraph_ends[index]), int(rooms[index]))
            for index in np.flatnonzero(long).tolist()
        ]
        return joined_lines(paragraph_starts, paragraph_ends, long, pieces, newlines=False)

    def _break(self, start: int, stop: int, room: int) -> list[tuple[int, int]]:
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
            if code not in _CANNOT_START and end > start + 1:
                end -= 1
            while end > start + 1 and self.attached[end]:
                end -= 1
            while self.attached[end]:
                end += 1
            lines.append((start, end))
            start, room = end, self.room
        return lines


class ReportlabRules(LayoutRules):
    """Glyph's renderer hands reportlab one paragraph of so many newlines at a time, and poppler draws the PDF."""

    newline = "\n"
    keeps_lines_together = True
    squeezes_lines = True
    stretches_picture = True
    # Poppler cuts the pen's place down to a quarter of a pixel, where the nearest quarter would be nearer.
    pen_rounding = 1e-4

    def is_newline(self, character: str) -> bool:
        return character == "\n"

    def white_space_advance(self, character: str, own: int | None, space: int, em: int) -> int:
        return em if own is None and character == "\u3000" else space

    def prepare(self, manuscript: Manuscript) -> None:
        # Glyph's renderer writes runs of spaces as no-break spaces.
        manuscript.flags[space_runs(manuscript.codes)] &= ~np.uint16(SPACE)

    def merged_spaces(self, manuscript: Manuscript) -> np.ndarray:
        if holds_cjk(manuscript.codes):
            return NO_POSITIONS
        return np.flatnonzero(doubled_spaces((manuscript.flags & SPACE) != 0))

    def breaking_spaces(self, codes: np.ndarray, flags: np.ndarray) -> np.ndarray:
        return super().breaking_spaces(codes, flags) & ~space_runs(codes)

    def line_breaker(self, config: RenderConfig, units: int, manuscript: Manuscript) -> LineBreaker:
        breaker = _CharacterBreaker if holds_cjk(manuscript.codes) else _WordBreaker
        return breaker(config, units, manuscript)

    def drawn_lines(self, broken: BrokenLines, group: int | None) -> BrokenLines:
        if group is None:
            return broken
        # No line is drawn for a break at the end of a paragraph.
        return broken.chosen((broken.ends > broken.starts) | (broken.paragraphs % group != group - 1))

    def first_top(self, config: RenderConfig, ascent: float) -> float:
        # The first baseline is one font size below the frame's top.
        return super().first_top(config, ascent) + config.font_size - ascent

    def rows(
        self, config: RenderConfig, broken: BrokenLines, paragraphs: np.ndarray, forced: np.ndarray, last: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """A paragraph's first line does not stay alone at the foot, and what goes on in the next column after a newline
        begins with an empty row.
        """
        height, hard, count = rows_of_column(config), last & broken.at_newlines, len(paragraphs)
        columns, rows = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
        column = begin = 0
        while begin < count:
            goes_on = begin > 0 and paragraphs[begin] == paragraphs[begin - 1]
            top = 1 if goes_on and hard[begin - 1] and height > 1 else 0
            end = min(begin + height - top, count)
            alone = end - begin > 1 and end < count and paragraphs[end - 2] != paragraphs[end - 1] == paragraphs[end]
            end -= bool(alone)
            columns[begin:end] = column
            rows[begin:end] = np.arange(top, top + end - begin)
            column, begin = column + 1, end
        return columns, rows

    def baseline_rows(self, geometry: Geometry, first: int, last: int, scale: float) -> np.ndarray:
        """The row that poppler cuts a baseline down to: the sums are those of a PDF that places each paragraph by its
        lower left corner, so that they round alike at any dpi.
        """
        config, down = geometry.config, geometry.pixels_per_point * scale
        frame = config.margin_y + config.frame_padding
        begins, top, bottom = geometry.paragraph_extents(first, last)
        paragraph = np.repeat(np.arange(len(begins)), np.diff(np.append(begins, last)))
        tops = np.round(geometry.lines.tops[first:last] - self.first_top(config, geometry.ascent), 6)
        corner = (config.page_height - frame - bottom) * -down + down * config.page_height
        above = (bottom - top - config.font_size)[paragraph] - (tops - top[paragraph])
        return np.floor(above * -down + corner[paragraph]).astype(np.int64)

    def block_tops(self, tops: np.ndarray, heads: np.ndarray) -> np.ndarray:
        return np.where(heads, 0.0, tops)

    def cropped_height(self, geometry: Geometry, first: int, last: int) -> int:
        """Glyph's renderer cuts margin_y pixels below the last inked row."""
        config, down = geometry.config, geometry.pixels_per_point
        if block_end := geometry.blocks_end(first, last)[1]:
            return int(block_end - 1 + config.margin_y)
        baselines, tops = geometry.baseline_rows(first, last), geometry.lines.tops
        lowest, cut = -math.inf, 0
        for number in (first + np.argsort(-tops[first:last], kind="stable")).tolist():
            if float(tops[number]) < lowest:
                break
            depth = geometry.depth(number)
            if depth is not None:
                lowest = float(tops[number])
                below = math.ceil(max(depth, 0.0) * config.font_size * down)
                cut = max(cut, int(baselines[number - first] + below - 1 + config.margin_y))
        return cut or math.ceil(config.page_height * down - 1e-6)
