# SPDX-License-Identifier: Apache-2.0
"""Newlines that are drawn as marks: positions in the text, and in the text as it is displayed with the marks in it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

from .line_table import NO_POSITIONS


@dataclass(frozen=True)
class NewlineMap:
    """Newlines of the text, each at newline_at and so many characters long, that stand as `mark` at mark_at in the
    displayed text. int64, ascending. Without entries both texts are the same: a mark of one character stands in for its
    newline by being drawn, not by replacing it.
    """

    mark: str = ""
    newline_at: np.ndarray = field(default_factory=lambda: NO_POSITIONS)
    lengths: np.ndarray = field(default_factory=lambda: NO_POSITIONS)
    mark_at: np.ndarray = field(default_factory=lambda: NO_POSITIONS)

    @classmethod
    def of(cls, text: str, mark: str | None, newline: str, group: int | None) -> tuple[str, NewlineMap]:
        """(the displayed text, its map). newline: the pattern of one; every group-th stays, since it ends a paragraph."""
        if mark is None or len(mark) == 1:
            return text, cls()
        newline_at, lengths, mark_at, pieces = [], [], [], []
        done = size = 0
        for number, found in enumerate(re.finditer(newline, text), start=1):
            if group is not None and number % group == 0:
                continue
            start, end = found.span()
            pieces += [text[done:start], mark]
            size += start - done
            newline_at.append(start)
            lengths.append(end - start)
            mark_at.append(size)
            size += len(mark)
            done = end
        if not pieces:
            return text, cls(mark)
        pieces.append(text[done:])
        return "".join(pieces), cls(mark, *(np.array(part, dtype=np.int64) for part in (newline_at, lengths, mark_at)))

    def __len__(self) -> int:
        return len(self.mark_at)

    @property
    def visible(self) -> tuple[int, int]:
        """The part [start, end) of the mark within its outer spaces."""
        return len(self.mark) - len(self.mark.lstrip()), len(self.mark.rstrip())

    def to_display(self, position: int) -> int:
        mark = int(np.searchsorted(self.newline_at, position, "right")) - 1
        if mark < 0:
            return position
        past = position - int(self.newline_at[mark]) - int(self.lengths[mark])
        return int(self.mark_at[mark]) + (len(self.mark) + past if past >= 0 else 0)

    def to_text(self, position: int, whole: int = 0) -> int:
        """whole: -1 takes a position inside a mark to its newline, 1 to what follows that, and 0 takes the white space
        around a mark's visible part to neither of its sides.
        """
        mark = int(np.searchsorted(self.mark_at, position, "right")) - 1
        if mark < 0:
            return position
        offset = position - int(self.mark_at[mark])
        after = int(self.newline_at[mark]) + int(self.lengths[mark])
        if offset >= len(self.mark):
            return after + offset - len(self.mark)
        before = offset == 0 or (offset <= self.visible[0] if whole == 0 else whole < 0)
        return int(self.newline_at[mark]) if before else after

    def outside_marks(self, positions: np.ndarray) -> np.ndarray:
        """Displayed positions outside marks as positions in the text: int64."""
        before = np.searchsorted(self.mark_at, positions, "right")
        shrunk = np.append(0, np.cumsum(len(self.mark) - self.lengths))
        return np.asarray(positions - shrunk[before])

    def inside_marks(self, positions: np.ndarray) -> np.ndarray:
        """Which displayed positions are part of a mark: bool."""
        if not len(self):
            return np.zeros(len(positions), dtype=bool)
        mark = np.searchsorted(self.mark_at, positions, "right") - 1
        return np.asarray((mark >= 0) & (positions - self.mark_at[np.maximum(mark, 0)] < len(self.mark)))

    def breaking_spaces(self, base: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Of the marks' characters among the displayed [base, stop): (where they are, from base; whether lines may break
        there, which they may at a mark's outer spaces).
        """
        low, high = np.searchsorted(self.mark_at, [base - len(self.mark), stop])
        first, last = self.visible
        offsets = np.arange(len(self.mark))
        at = (self.mark_at[low:high, None] + offsets - base).ravel()
        breaking = np.tile((offsets < first) | (offsets >= last), high - low)
        within = (at >= 0) & (at < stop - base)
        return at[within], breaking[within]
