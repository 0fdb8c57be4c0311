# SPDX-License-Identifier: Apache-2.0
"""Where each character of a line lies, and which characters belong together."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

import numpy as np

from .bidirectional import MIRRORS, bidi_levels, visual_order
from .characters import MARK, NO_GLYPH, code_points
from .fonts import FontChain
from .line_table import LineTable, joined_ranges
from .newline_map import NewlineMap


@dataclass(frozen=True)
class Shaped:
    """What the shaper drew, by position in the displayed text: glyph_at (ascending, the first character of a glyph's
    cluster), keys, right and up (offsets from the cluster's left end on the baseline, in the fonts' units).
    """

    glyph_at: np.ndarray
    keys: np.ndarray
    right: np.ndarray
    up: np.ndarray


@dataclass(frozen=True)
class OwnWidths:
    """Characters whose width is not their font's, or whose glyph is not: shaped ones, halves of a CRLF, spaces that are
    one with the space before them. at: int64, ascending; advances: int64, in the fonts' units.
    """

    at: np.ndarray
    advances: np.ndarray


@dataclass
class Cells:
    """Where the characters of some lines lie. One entry a character, in the order of the text (the displayed text, that
    is, with each newline replaced by its mark). left and width are points from the page's left edge.
    """

    index: np.ndarray
    line: np.ndarray
    left: np.ndarray
    width: np.ndarray
    keys: np.ndarray


class CharacterMap:
    """Places of the characters of one displayed text, worked out line by line when they are asked for.

    attached: positions, ascending, of characters that belong to the cluster before them; merged: of spaces that are one
    with the space before them.
    """

    def __init__(
        self,
        display: str,
        fonts: FontChain,
        lines: LineTable,
        newlines: NewlineMap,
        shaped: Shaped,
        own: OwnWidths,
        attached: np.ndarray,
        merged: np.ndarray,
    ) -> None:
        self.display, self.fonts, self.lines, self.newlines = display, fonts, lines, newlines
        self.shaped, self.own, self.attached, self.merged = shaped, own, attached, merged

    def cluster(self, position: int) -> int:
        """The first character of the cluster that a displayed character belongs to."""
        where = self._attached_at(position)
        if where is None:
            return position
        # Attached characters that follow each other keep their distance to their numbers.
        first = bisect_left(range(where), position - where, key=lambda at: int(self.attached[at]) - at)
        return int(self.attached[first]) - 1

    def cluster_end(self, position: int) -> int:
        """The first position at or behind this one at which no cluster goes on."""
        where = self._attached_at(position)
        if where is None:
            return position
        numbers = range(len(self.attached))
        past = bisect_right(numbers, position - where, where, key=lambda at: int(self.attached[at]) - at)
        return int(self.attached[past - 1]) + 1

    def _attached_at(self, position: int) -> int | None:
        where = int(np.searchsorted(self.attached, position))
        return where if where < len(self.attached) and int(self.attached[where]) == position else None

    def is_mark(self, positions: np.ndarray) -> np.ndarray:
        """Which of these displayed characters stand for a newline: bool."""
        if self.newlines.mark:
            return self.newlines.inside_marks(positions)
        first = int(positions.min(initial=0))
        codes = code_points(self.display[first : int(positions.max(initial=0)) + 1])[positions - first]
        return np.asarray((self.fonts.flags.take(codes) & MARK) != 0)

    def cells(self, first: int, last: int, drawn: bool = False) -> Cells:
        """Where every character of lines [first, last) lies; with `drawn` only those at which glyphs are drawn, and
        without their widths.
        """
        fonts, lines = self.fonts, self.lines
        starts, lengths = lines.starts[first:last], lines.ends[first:last] - lines.starts[first:last]
        base, stop = int(starts[0]), int(lines.ends[last - 1])
        starts = starts - base
        codes = code_points(self.display[base:stop])
        # numpy takes by uint32 three times as fast as it indexes.
        widths = fonts.advances.take(codes)
        keys = fonts.keys.take(codes)
        low, high = np.searchsorted(self.own.at, [base, stop])
        here = self.own.at[low:high] - base
        widths[here] = self.own.advances[low:high]
        keys[here] = NO_GLYPH
        turned = np.flatnonzero(lines.directions[first:last])
        if drawn:
            shown = keys != NO_GLYPH
            low, high = np.searchsorted(self.shaped.glyph_at, [base, stop])
            shown[self.shaped.glyph_at[low:high] - base] = True
            shown[joined_ranges((starts + lengths)[:-1], starts[1:] - (starts + lengths)[:-1])] = False
        index = np.flatnonzero(shown) if drawn and not len(turned) else joined_ranges(starts, lengths)
        cuts = np.append(np.searchsorted(index, starts), len(index))
        counts = np.diff(cuts)

        def along(steps: np.ndarray) -> np.ndarray:
            """The sum of steps from a line's start to each cell."""
            total = np.zeros(len(codes) + 1, dtype=np.int64)
            np.cumsum(steps, out=total[1:])
            return total[index] - np.repeat(total[starts], counts)

        unit = fonts.config.font_size / fonts.units
        left = along(widths) * unit
        left += np.repeat(lines.lefts[first:last], counts)
        gaps = lines.gaps[first:last]
        space = self._breaking_spaces(base, stop) if gaps.any() else None
        if space is not None:
            left += np.repeat(gaps, counts) * along(space)
        line = np.repeat(np.arange(first, last), counts)
        if drawn and not len(turned):
            return Cells(index + base, line, left, np.zeros(0), keys[index])
        width = widths[index] * unit
        if space is not None:
            width += np.repeat(gaps, counts) * space[index]
        cells = Cells(index + base, line, left, width, keys[index])
        for number in turned.tolist():
            where = slice(cuts[number], cuts[number + 1])
            self._reorder(cells, where, codes[index[where]], first + number)
        if drawn:
            chosen = shown[index]
            cells = Cells(cells.index[chosen], line[chosen], left[chosen], np.zeros(0), cells.keys[chosen])
        return cells

    def _breaking_spaces(self, base: int, stop: int) -> np.ndarray:
        """Which displayed characters [base, stop) are spaces that lines may break at: bool."""
        start = max(base - 1, 0)
        codes = code_points(self.display[start : stop + 1])
        space = self.fonts.rules.breaking_spaces(codes, self.fonts.flags.take(codes))
        space = space[base - start : base - start + stop - base]
        low, high = np.searchsorted(self.merged, [base, stop])
        space[self.merged[low:high] - base] = False
        at, breaking = self.newlines.breaking_spaces(base, stop)
        space[at] = breaking
        return space

    def _reorder(self, cells: Cells, where: slice, codes: np.ndarray, number: int) -> None:
        """Put the characters of a line with right-to-left script where the reader expects them (UAX #9)."""
        positions = cells.index[where]
        if not len(positions):
            return
        levels = bidi_levels(codes.tolist(), 1 if self.lines.directions[number] == 2 else 0)
        low, high = np.searchsorted(self.attached, [positions[0], positions[-1] + 1])
        joined = np.zeros(len(positions), dtype=bool)
        joined[self.attached[low:high] - positions[0]] = True
        joined[0] = False
        atoms = np.flatnonzero(~joined)
        sizes = np.diff(np.append(atoms, len(positions)))
        order = visual_order([levels[atom] for atom in atoms.tolist()])
        width = cells.width[where]
        atom_widths = np.add.reduceat(width, atoms)
        visual_left = np.empty(len(atoms))
        ordered = atom_widths[order]
        visual_left[order] = float(self.lines.lefts[number]) + np.cumsum(ordered) - ordered
        inside = np.cumsum(width) - width
        inside -= np.repeat(inside[atoms], sizes)
        cells.left[where] = np.repeat(visual_left, sizes) + inside
        keys = cells.keys[where]
        turned = [
            (place, ord(MIRRORS[chr(code)]))
            for place, (level, code) in enumerate(zip(levels, codes.tolist(), strict=True))
            if level % 2 and keys[place] >= 0 and chr(code) in MIRRORS
        ]
        if turned:
            places, mirrors = np.array(turned).T
            self.fonts.learn(np.unique(mirrors).astype(np.uint32))
            keys[places] = self.fonts.keys[mirrors]
