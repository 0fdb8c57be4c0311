# SPDX-License-Identifier: Apache-2.0
"""The plain rules: greedy lines, white space kept, CJK broken between characters."""

from __future__ import annotations

import numpy as np

from .characters import NEWLINES, first_halves
from .layout_rules import LayoutRules, filled_columns, rows_of_column
from .line_breaking import LineBreaker, PlainLineBreaker
from .manuscript import BrokenLines, Manuscript
from .settings import RenderConfig

_TAB_SPACES = 4


class PlainRules(LayoutRules):
    """Every newline of Unicode counts, and white space is as wide as the font has it."""

    newline = "\r\n|[\n\r\x0b\x0c\x85\u2028\u2029]"

    def is_newline(self, character: str) -> bool:
        return character in NEWLINES

    def white_space_advance(self, character: str, own: int | None, space: int, em: int) -> int:
        if character == "\t":
            return _TAB_SPACES * space
        return own if own is not None else em if character == "\u3000" else space

    def prepare(self, manuscript: Manuscript) -> None:
        # CRLF is one newline: its first half takes no room, and no line ends between the halves.
        halves = first_halves(manuscript.codes)
        manuscript.widths[halves] = 0
        manuscript.attached[halves + 1] = True

    def line_breaker(self, config: RenderConfig, units: int, manuscript: Manuscript) -> LineBreaker:
        return PlainLineBreaker(config, units, manuscript)

    def rows(
        self, config: RenderConfig, broken: BrokenLines, paragraphs: np.ndarray, forced: np.ndarray, last: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        return filled_columns(forced, rows_of_column(config), config.columns)
