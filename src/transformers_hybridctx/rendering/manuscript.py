# SPDX-License-Identifier: Apache-2.0
"""A text on its way to lines: what each step of typesetting finds out and the next ones need."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .line_table import NO_POSITIONS
from .newline_map import NewlineMap


@dataclass
class Manuscript:
    """A text as it will be displayed, character by character.

    codes, flags: code points and what these are to the typesetter; pen: int64 [characters + 1], advances at [1:] until
    they are added up to the pen's places; attached: bool [characters + 1], true where no line may begin because the
    character belongs to the one before; merged: positions of spaces that are one with the space before them; hyphen:
    the advance of the hyphen that stands for a soft one at a line's end.
    """

    text: str
    display: str
    newlines: NewlineMap
    codes: np.ndarray
    flags: np.ndarray
    pen: np.ndarray
    attached: np.ndarray
    merged: np.ndarray = field(default_factory=lambda: NO_POSITIONS)
    hyphen: int = 0

    @property
    def widths(self) -> np.ndarray:
        """A view of the pen's places while these are still advances."""
        return self.pen[1:]


@dataclass(frozen=True)
class BrokenLines:
    """Lines that were broken. Each begins and ends at characters [start, end) of one paragraph; blocks: the number of
    the cell that each is a part of, where there are cells; at_newlines: a paragraph's last line ends at its newline.
    """

    starts: np.ndarray
    ends: np.ndarray
    paragraphs: np.ndarray
    blocks: np.ndarray | None = None
    at_newlines: bool = True

    def chosen(self, which: np.ndarray) -> BrokenLines:
        return BrokenLines(self.starts[which], self.ends[which], self.paragraphs[which], None, self.at_newlines)
