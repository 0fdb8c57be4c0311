# SPDX-License-Identifier: Apache-2.0
"""The plain rules: greedy lines, white space kept, CJK broken between characters."""

from __future__ import annotations

import numpy as np

from .characters import MARK, NEWLINE, NEWLINES, SOFT_HYPHEN, first_halves
from .layout_rules import LayoutRules, filled_columns, rows_of_column
from .line_breaking import LineBreaker, PlainLineBreaker
from .line_table import NO_POSITIONS
from .manuscript import BrokenLines, Manuscript
from .settings import RenderConfig

_TAB = 0x09
_TAB_SPACES = 8


class _HyphenatingLineBreaker(PlainLineBreaker):
    """Lines may also end at soft hyphens, which take the room of a hyphen there."""

    def __init__(self, config: RenderConfig, units: int, manuscript: Manuscript) -> None:
        self._is_soft = _soft_hyphens(manuscript)
        self._hyphen = manuscript.hyphen
        super().__init__(config, units, manuscript)
        divided = self._is_soft[self.ends[:-1] - 1] & (self.ends[:-1] == self.starts[1:])
        self.reach[:-1][divided] += self._hyphen * self.parts

    def may_part(self) -> np.ndarray:
        return super().may_part() | self._is_soft[:-1]

    def cut(self, start: int, room: int) -> int:
        cut = super().cut(start, room)
        while cut > start + 1 and self._is_soft[cut - 1] and self.pen[cut] + self._hyphen > self.pen[start] + room:
            cut -= 1
        return cut


def _soft_hyphens(manuscript: Manuscript) -> np.ndarray:
    """Which characters are soft hyphens at which a line may end: bool."""
    return (manuscript.codes == SOFT_HYPHEN) & ~manuscript.attached[:-1] & ~manuscript.attached[1:]


class PlainRules(LayoutRules):
    """Every newline of Unicode counts, and white space is as wide as the font has it.

    Tabs go to the next stop, eight spaces from one to the next, counted from the last newline.
    """

    newline = "\r\n|[\n\r\x0b\x0c\x85\u2028\u2029]"

    def is_newline(self, character: str) -> bool:
        return character in NEWLINES

    def white_space_advance(self, character: str, own: int | None, space: int, em: int) -> int:
        if character == "\t":
            return space
        return own if own is not None else em if character == "\u3000" else space

    def prepare(self, manuscript: Manuscript) -> None:
        # CRLF is one newline: its first half takes no room, and no line ends between the halves.
        halves = first_halves(manuscript.codes)
        manuscript.widths[halves] = 0
        manuscript.attached[halves + 1] = True

    def set_tabs(self, manuscript: Manuscript, space: int) -> None:
        tabs = np.flatnonzero(manuscript.codes == _TAB)
        if not len(tabs) or space <= 0:
            return
        widths, stop = manuscript.widths, _TAB_SPACES * space
        widths[tabs] = 0
        newlines = np.flatnonzero((manuscript.flags & (NEWLINE | MARK)) != 0)
        starts = np.append(0, newlines + 1)
        starts = np.unique(starts[np.searchsorted(starts, tabs, "right") - 1])  # of lines that have tabs
        bounds = np.union1d(starts, tabs)
        along = np.add.reduceat(widths, bounds).tolist()
        is_start, is_tab = np.isin(bounds, starts).tolist(), np.isin(bounds, tabs).tolist()
        pen, found = 0, []
        for begins, ends_at_stop, between in zip(is_start, is_tab, along, strict=True):
            pen = 0 if begins else pen
            if ends_at_stop:
                width = stop - pen % stop
                width += stop if width < space else 0
                found.append(width)
                pen += width
            pen += between
        widths[tabs] = found

    def line_breaker(self, config: RenderConfig, units: int, manuscript: Manuscript) -> LineBreaker:
        has_soft = bool((manuscript.codes == SOFT_HYPHEN).any())
        breaker = _HyphenatingLineBreaker if has_soft else PlainLineBreaker
        return breaker(config, units, manuscript)

    def shown_hyphens(self, manuscript: Manuscript, broken: BrokenLines) -> np.ndarray:
        goes_on = (broken.ends[:-1] == broken.starts[1:]) & (broken.paragraphs[:-1] == broken.paragraphs[1:])
        last = broken.ends[:-1][goes_on & (broken.ends[:-1] > broken.starts[:-1])] - 1
        return last[_soft_hyphens(manuscript)[last]] if len(last) else NO_POSITIONS

    def rows(
        self, config: RenderConfig, broken: BrokenLines, paragraphs: np.ndarray, forced: np.ndarray, last: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        return filled_columns(forced, rows_of_column(config), config.columns)
