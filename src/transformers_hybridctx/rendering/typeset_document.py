# SPDX-License-Identifier: Apache-2.0
"""A text on pages: where every character lies, and which characters lie where."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import overload

import numpy as np

from .bidirectional import MIRRORS, bidi_levels, visual_order
from .characters import COMPLEX, MARK, SPACE, code_points, first_halves, space_runs
from .fonts import NO_GLYPH, FontChain

Box = tuple[float, float, float, float]
PixelBox = tuple[int, int, int, int]
NO_POSITIONS = np.zeros(0, dtype=np.int64)


def joined_ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """[starts[0], starts[0] + 1, ..., starts[0] + lengths[0] - 1, starts[1], ...] as int64."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total, dtype=np.int64) + np.repeat(starts - (ends - lengths), lengths)


@dataclass(frozen=True)
class Line:
    """Characters [start, end) of the text on one line; box is (left, top, right, bottom) in pixels at scale 1."""

    page: int
    start: int
    end: int
    box: Box


@dataclass(frozen=True)
class Shaped:
    """All `ShapedRun`s of a document, by position in the display text.

    at, advances: every shaped character, ascending; glyph_at (ascending), keys, right, up: the glyphs.
    """

    at: np.ndarray
    advances: np.ndarray
    glyph_at: np.ndarray
    keys: np.ndarray
    right: np.ndarray
    up: np.ndarray


@dataclass
class Cells:
    """Where the characters of some lines lie. One entry a character, in the order of the text (the display text, that
    is, the text with each newline replaced by its mark). left and width are points from the page's left edge.
    """

    index: np.ndarray
    line: np.ndarray
    left: np.ndarray
    width: np.ndarray
    keys: np.ndarray


class _Lines(Sequence[Line]):
    """Lines made as they are asked for, since a log of a million lines should not cost a million objects."""

    def __init__(self, document: TypesetDocument) -> None:
        self._document = document

    def __len__(self) -> int:
        return len(self._document.line_starts)

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
        return Line(int(document.line_pages[number]), start, end, document.line_box(number))


class TypesetDocument:
    """A text on pages: every character lies on exactly one line, or is white space at a line break.

    Attributes:
        text, config: what was typeset, and how.
        lines: a sequence of `Line`, top to bottom.
        num_pages: number of pages.
        undrawable: [(position, character), ...] that no font has; a hollow box stands for each on its line.
    """

    def __init__(
        self,
        text: str,
        fonts: FontChain,
        display: str,
        marks: tuple[np.ndarray, np.ndarray, np.ndarray] | None,
        shaped: Shaped,
        attached: np.ndarray,
        doubled: np.ndarray,
        undrawable: np.ndarray,
        lines: dict[str, np.ndarray],
    ) -> None:
        self.text = text
        self.config = fonts.config
        self.fonts = fonts
        self.display = display
        self._marks = marks
        self.shaped = shaped
        self._attached = attached
        self._doubled = doubled
        self.undrawable: list[tuple[int, str]] = [(int(at), text[at]) for at in undrawable.tolist()]
        self.line_starts = lines["starts"]
        self.line_ends = lines["ends"]
        self.line_pages = lines["pages"]
        self.line_columns = lines["columns"]
        self.line_tops = lines["tops"]
        self.line_lefts = lines["lefts"]
        self.line_widths = lines["widths"]
        self.line_gaps = lines["gaps"]
        self.line_paragraphs = lines["paragraphs"]
        self.line_directions = lines["directions"]
        self.num_pages = int(self.line_pages[-1]) + 1
        self._page_firsts = np.searchsorted(self.line_pages, np.arange(self.num_pages + 1))
        self.pixels_per_point = self.config.dpi / 72

    @property
    def lines(self) -> Sequence[Line]:
        return _Lines(self)

    # Positions in the text and in the display text differ only where a mark is longer or shorter than its newline.

    def _to_display(self, position: int) -> int:
        if self._marks is None:
            return position
        newline_at, newline_length, mark_at = self._marks
        mark = int(np.searchsorted(newline_at, position, "right")) - 1
        if mark < 0:
            return position
        past = position - int(newline_at[mark]) - int(newline_length[mark])
        return int(mark_at[mark]) + (len(self.config.newline_markup or "") + past if past >= 0 else 0)

    def _to_text(self, position: int, whole: int = 0) -> int:
        """whole: -1 takes a position inside a mark to its newline, 1 to what follows that, and 0 takes the white space
        around a mark's visible part to neither of its sides.
        """
        if self._marks is None:
            return position
        newline_at, newline_length, mark_at = self._marks
        mark = int(np.searchsorted(mark_at, position, "right")) - 1
        if mark < 0:
            return position
        offset = position - int(mark_at[mark])
        text, after = self.config.newline_markup or "", int(newline_at[mark]) + int(newline_length[mark])
        if offset >= len(text):
            return after + offset - len(text)
        visible = len(text) - len(text.lstrip())
        before = offset == 0 or (offset <= visible if whole == 0 else whole < 0)
        return int(newline_at[mark]) if before else after

    def is_mark(self, positions: np.ndarray) -> np.ndarray:
        """Which of these characters of the display text stand for a newline: bool."""
        if self._marks is None:
            first = int(positions.min(initial=0))
            codes = code_points(self.display[first : int(positions.max(initial=0)) + 1])[positions - first]
            return np.asarray((self.fonts.flags.take(codes) & MARK) != 0)
        mark_at = self._marks[2]
        if not len(mark_at):
            return np.zeros(len(positions), dtype=bool)
        mark = np.searchsorted(mark_at, positions, "right") - 1
        inside = positions - mark_at[np.maximum(mark, 0)] < len(self.config.newline_markup or "")
        return np.asarray((mark >= 0) & inside)

    def line_span(self, number: int) -> tuple[int, int]:
        """Characters [start, end) of line `number` of the document."""
        start, end = int(self.line_starts[number]), int(self.line_ends[number])
        return self._to_text(start), self._to_text(end)

    def line_box(self, number: int, scale: float = 1.0) -> Box:
        """(left, top, right, bottom) of line `number` in pixels."""
        left = float(self.line_lefts[number])
        return self._pixels(number, left, left + float(self.line_widths[number]), scale)

    def _pixels(self, number: int, left: float, right: float, scale: float) -> Box:
        down = self.pixels_per_point * scale
        across = down * self.config.horizontal_scale
        top = float(self.line_tops[number])
        return left * across, top * down, right * across, (top + self.config.line_height) * down

    def page_lines(self, page: int) -> tuple[int, int]:
        """Numbers [first, last) of a page's lines. An unknown page is an IndexError."""
        if not 0 <= page < self.num_pages:
            raise IndexError(f"page {page} does not exist; the document has pages 0 to {self.num_pages - 1}")
        return int(self._page_firsts[page]), int(self._page_firsts[page + 1])

    def page_size(self, page: int, scale: float = 1.0) -> tuple[int, int]:
        """(height, width) of a page in pixels, without drawing it."""
        check_scale(scale)
        config = self.config
        ppp = self.pixels_per_point
        height = math.ceil(config.page_height * ppp - 1e-6)
        width = math.ceil(config.page_width * ppp - 1e-6)
        if config.horizontal_scale != 1:
            width = int(width * config.horizontal_scale)
        first, last = self.page_lines(page)
        if config.auto_crop_last_page and page == self.num_pages - 1:
            height = min(height, self._cropped_height(first, last))
        if config.auto_crop_width:
            ink = math.ceil(float(self._ink_rights[first:last].max()) * ppp * config.horizontal_scale - 1e-6)
            ink = max(ink, self._blocks_end(first, last)[0])
            if ink > 0:
                width = min(width, int(ink + config.margin_x))
        multiple = config.page_multiple
        padded = (-(-side // multiple) * multiple for side in (height, width))
        high, wide = (max(1, round(side * scale)) for side in padded)
        return high, wide

    def baseline_rows(self, first: int, last: int, scale: float = 1.0) -> np.ndarray:
        """Pixel rows of the baselines of lines [first, last) of whole pages, int64.

        The nearest row, or, where reportlab's pages are followed, the row that poppler cuts it down to: the sums are
        those of a PDF that places each paragraph by its lower left corner, so that they round alike at any dpi.
        """
        config, down = self.config, self.pixels_per_point * scale
        if config.line_breaking == "plain":
            return np.floor((self.line_tops[first:last] + self.fonts.ascent) * down + 0.5).astype(np.int64)
        frame = config.margin_y + config.frame_padding
        begins, top, bottom = self._paragraph_extents(first, last)
        paragraph = np.repeat(np.arange(len(begins)), np.diff(np.append(begins, last)))
        tops = np.round(self.line_tops[first:last] - (config.font_size - self.fonts.ascent) - frame, 6)
        corner = (config.page_height - frame - bottom) * -down + down * config.page_height
        above = (bottom - top - config.font_size)[paragraph] - (tops - top[paragraph])
        return np.floor(above * -down + corner[paragraph]).astype(np.int64)

    def _paragraph_extents(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(first line, top, bottom) of each paragraph's part in each column of lines [first, last) of whole pages, in
        points from the top of the frame.
        """
        config = self.config
        reportlab = config.line_breaking == "reportlab"
        origin = config.margin_y + config.frame_padding + (config.font_size - self.fonts.ascent if reportlab else 0.0)
        lines = slice(first, last)
        heads = np.diff(self.line_pages[lines] * config.columns + self.line_columns[lines], prepend=-1) != 0
        begins = first + np.flatnonzero(heads | (np.diff(self.line_paragraphs[lines], prepend=-1) != 0))
        top = np.round(self.line_tops[begins] - origin, 6)
        if reportlab:
            top[heads[begins - first]] = 0.0
        lowest = np.append(begins[1:], last) - 1
        return begins, top, np.round(self.line_tops[lowest] - origin, 6) + config.line_height

    def blocks(self, first: int, last: int, down: float, across: float) -> list[tuple[PixelBox, PixelBox]]:
        """(outside, inside) the frame of what is coloured behind each paragraph on lines [first, last) of one page.

        down, across: pixels to a point. The frame's stroke runs along the block's edge, one half on either side, and is
        at least a pixel wide, as poppler draws it.
        """
        config = self.config
        margin, pad = config.margin_y + config.frame_padding, config.border_padding
        begins, tops, bottoms = self._paragraph_extents(first, last)
        lefts = config.margin_x + config.frame_padding + config.left_indent
        lefts = lefts + self.line_columns[begins] * (config.column_width + config.column_gap)
        rights = lefts + config.text_width
        edges = np.stack([(lefts - pad) * across, (margin + tops - pad) * down], axis=1)
        ends = np.stack([(rights + pad) * across, (margin + bottoms + pad) * down], axis=1)
        half, least = config.border_width * down / 2, 1 if config.border_width else 0

        def stroke(edge: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            low = np.floor(edge - half + 0.5).astype(np.int64)
            return low, np.maximum(np.floor(edge + half + 0.5).astype(np.int64), low + least)

        (outer, inner), (inner_end, outer_end) = stroke(edges), stroke(ends)
        boxes = np.concatenate([outer, outer_end, inner, inner_end], axis=1).tolist()
        return [(tuple(box[:4]), tuple(box[4:])) for box in boxes]

    def _blocks_end(self, first: int, last: int) -> tuple[int, int]:
        """(right, bottom) of the blocks that can be seen on a page, in pixels at scale 1; zeros where there are none."""
        config, down = self.config, self.pixels_per_point
        framed = config.border_width > 0 and config.border_color != config.page_bg_color
        if not framed and config.para_bg_color == config.page_bg_color:
            return 0, 0
        boxes = [pair[0 if framed else 1] for pair in self.blocks(first, last, down, down * config.horizontal_scale)]
        return max(box[2] for box in boxes), max(box[3] for box in boxes)

    def _cropped_height(self, first: int, last: int) -> int:
        config, ppp = self.config, self.pixels_per_point
        if config.line_breaking == "plain":
            bottom = (
                float(self.line_tops[first:last].max()) + config.line_height + config.margin_y + config.frame_padding
            )
            return math.ceil(bottom * ppp - 1e-6)
        # Glyph's renderer cuts margin_y pixels below the last inked row.
        if block_end := self._blocks_end(first, last)[1]:
            return int(block_end - 1 + config.margin_y)
        baselines = self.baseline_rows(first, last)
        lowest, cut = -math.inf, 0
        for number in (first + np.argsort(-self.line_tops[first:last], kind="stable")).tolist():
            if float(self.line_tops[number]) < lowest:
                break
            keys = self.cells(number, number + 1).keys
            keys = keys[keys != NO_GLYPH]
            if len(keys):
                lowest = float(self.line_tops[number])
                depth = max(self.fonts.extents(key)[1] for key in np.unique(keys).tolist())
                below = math.ceil(max(depth, 0.0) * config.font_size * ppp)
                cut = max(cut, int(baselines[number - first] + below - 1 + config.margin_y))
        return cut or math.ceil(config.page_height * ppp - 1e-6)

    @functools.cached_property
    def _ink_rights(self) -> np.ndarray:
        """Rightmost ink of each line in points; 0 for a line without ink. float64 [num_lines]."""
        rights = np.where(self.line_ends > self.line_starts, self.line_lefts + self.line_widths, 0.0)
        # The last glyph may stop short of its advance, or reach over it.
        codes = np.array([ord(self.display[end - 1]) for end in self.line_ends.tolist() if end], dtype=np.uint32)
        has = np.flatnonzero((self.line_ends > self.line_starts) & (self.line_directions == 0))
        offset = int((self.line_ends == 0).sum())
        codes = codes[has - offset]
        keys = self.fonts.keys[codes]
        simple = (keys != NO_GLYPH) & ((self.fonts.flags[codes] & (COMPLEX | MARK)) == 0)
        has, codes, keys = has[simple], codes[simple], keys[simple]
        unique, inverse = np.unique(keys, return_inverse=True)
        reach = np.array([self.fonts.extents(key)[0] for key in unique.tolist()])[inverse] if len(unique) else 0.0
        short = self.fonts.advances[codes] / self.fonts.units - reach
        rights[has] -= short * self.config.font_size
        return rights

    def cells(self, first: int, last: int, drawn: bool = False) -> Cells:
        """Where every character of lines [first, last) lies; with `drawn` only those at which glyphs are drawn, and
        without their widths.
        """
        fonts = self.fonts
        starts, lengths = self.line_starts[first:last], self.line_ends[first:last] - self.line_starts[first:last]
        base, stop = int(starts[0]), int(self.line_ends[last - 1])
        starts = starts - base
        codes = code_points(self.display[base:stop])
        # numpy takes by uint32 three times as fast as it indexes.
        widths = fonts.advances.take(codes)
        keys = fonts.keys.take(codes)
        low, high = np.searchsorted(self.shaped.at, [base, stop])
        here = self.shaped.at[low:high] - base
        widths[here] = self.shaped.advances[low:high]
        keys[here] = NO_GLYPH
        halves = first_halves(codes) if self.config.line_breaking == "plain" else NO_POSITIONS
        widths[halves] = 0
        keys[halves] = NO_GLYPH
        widths[self._doubled_in(base, stop)] = 0
        turned = np.flatnonzero(self.line_directions[first:last])
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

        unit = self.config.font_size / fonts.units
        left = along(widths) * unit
        left += np.repeat(self.line_lefts[first:last], counts)
        gaps = self.line_gaps[first:last]
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

    def _doubled_in(self, base: int, stop: int) -> np.ndarray:
        """Which of the characters [base, stop) of the display text are one with the space before them; from base."""
        low, high = np.searchsorted(self._doubled, [base, stop])
        return np.asarray(self._doubled[low:high] - base)

    def _breaking_spaces(self, base: int, stop: int) -> np.ndarray:
        """Which characters [base, stop) of the display text are spaces that lines may break at: bool."""
        start = max(base - 1, 0)
        codes = code_points(self.display[start : stop + 1])
        space = (self.fonts.flags.take(codes) & SPACE) != 0
        if self.config.line_breaking == "reportlab":
            space &= ~space_runs(codes)
        space = space[base - start : base - start + stop - base]
        space[self._doubled_in(base, stop)] = False
        if self._marks is not None:
            mark = self.config.newline_markup or ""
            low, high = np.searchsorted(self._marks[2], [base - len(mark), stop])
            for offset, character in enumerate(mark):
                at = self._marks[2][low:high] + offset - base
                at = at[(at >= 0) & (at < stop - base)]
                space[at] = (character.isspace() and not mark[:offset].strip()) or not mark[offset:].strip()
        return space

    def _reorder(self, cells: Cells, where: slice, codes: np.ndarray, number: int) -> None:
        """Put the characters of a line with right-to-left script where the reader expects them (UAX #9)."""
        positions = cells.index[where]
        if not len(positions):
            return
        levels = bidi_levels(codes.tolist(), 1 if self.line_directions[number] == 2 else 0)
        low, high = np.searchsorted(self._attached, [positions[0], positions[-1] + 1])
        joined = np.zeros(len(positions), dtype=bool)
        joined[self._attached[low:high] - positions[0]] = True
        joined[0] = False
        atoms = np.flatnonzero(~joined)
        sizes = np.diff(np.append(atoms, len(positions)))
        order = visual_order([levels[atom] for atom in atoms.tolist()])
        width = cells.width[where]
        atom_widths = np.add.reduceat(width, atoms)
        visual_left = np.empty(len(atoms))
        ordered = atom_widths[order]
        visual_left[order] = float(self.line_lefts[number]) + np.cumsum(ordered) - ordered
        inside = np.cumsum(width) - width
        inside -= np.repeat(inside[atoms], sizes)
        cells.left[where] = np.repeat(visual_left, sizes) + inside
        keys = cells.keys[where]
        for place, (level, code) in enumerate(zip(levels, codes.tolist(), strict=True)):
            mirror = MIRRORS.get(chr(code)) if level % 2 and keys[place] >= 0 else None
            if mirror is not None:
                self.fonts.learn(np.array([ord(mirror)], dtype=np.uint32))
                keys[place] = self.fonts.keys[ord(mirror)]

    def page_of(self, char_index: int) -> int:
        """The page of a character; white space dropped at a line break counts to the line before it."""
        if not 0 <= char_index < len(self.text):
            raise IndexError(f"character {char_index} does not exist; the text has {len(self.text)} characters")
        position = self._to_display(char_index)
        if self._marks is not None and self.is_mark(np.array([position]))[0]:
            # A newline is where its mark can be seen, whose outer spaces may end a line.
            mark = self.config.newline_markup or ""
            position += len(mark) - len(mark.lstrip())
        line = int(np.searchsorted(self.line_starts, position, "right")) - 1
        return int(self.line_pages[max(line, 0)])

    def page_span(self, page: int) -> tuple[int, int]:
        """Characters [start, end) of a page. The spans of all pages tile the text: white space at a break goes to the
        page before it.
        """
        first, last = self.page_lines(page)
        start = 0 if page == 0 else self._to_text(int(self.line_starts[first]))
        end = len(self.text) if page == self.num_pages - 1 else self._to_text(int(self.line_starts[last]))
        return start, end

    def boxes(self, start: int, end: int, scale: float = 1.0) -> list[tuple[int, Box]]:
        """[(page, (left, top, right, bottom)), ...] of characters [start, end), top to bottom, in pixels.

        One box a line, more where right-to-left script puts neighbours apart; none for white space at a line break.
        A character inside a cluster (a letter with its accents, a ligature) has the cluster's box. Boxes end where the
        page does, which a crop may put inside a line's height.
        """
        if not 0 <= start <= end <= len(self.text):
            raise ValueError(f"[{start}, {end}) is not within the text's {len(self.text)} characters")
        check_scale(scale)
        if start == end:
            return []
        start, end = self._to_display(start), self._to_display(end)
        while start > 0 and self._is_attached(start):
            start -= 1
        while end < len(self.display) and self._is_attached(end):
            end += 1
        first = max(int(np.searchsorted(self.line_starts, start, "right")) - 1, 0)
        last = int(np.searchsorted(self.line_starts, end, "left"))
        found: list[tuple[int, Box]] = []
        for number in range(first, last):
            line_start, line_end = int(self.line_starts[number]), int(self.line_ends[number])
            if line_start == line_end or line_end <= start:
                continue
            page = int(self.line_pages[number])
            if start <= line_start and line_end <= end:
                if self.line_widths[number] > 0:
                    found.append((page, self.line_box(number, scale)))
                continue
            cells = self.cells(number, number + 1)
            chosen = (cells.index >= start) & (cells.index < end) & (cells.width > 0)
            lefts, rights = cells.left[chosen], cells.left[chosen] + cells.width[chosen]
            order = np.argsort(lefts, kind="stable")
            pieces: list[list[float]] = []
            for left, right in zip(lefts[order].tolist(), rights[order].tolist(), strict=True):
                if pieces and left <= pieces[-1][1] + 1e-6:
                    pieces[-1][1] = max(pieces[-1][1], right)
                else:
                    pieces.append([left, right])
            found += [(page, self._pixels(number, left, right, scale)) for left, right in pieces]
        sizes = {page: self.page_size(page, scale) for page, _ in found}
        on_page = []
        for page, (left, top, right, bottom) in found:
            height, width = sizes[page]
            box = max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))
            if box[0] < box[2] and box[1] < box[3]:
                on_page.append((page, box))
        return on_page

    def _is_attached(self, position: int) -> bool:
        where = int(np.searchsorted(self._attached, position))
        return where < len(self._attached) and int(self._attached[where]) == position

    def spans_in_box(self, page: int, box: Box, scale: float = 1.0) -> list[tuple[int, int]]:
        """Characters that a region (left, top, right, bottom) of a page shows, whole or in part: [(start, end),
        ...].
        """
        check_scale(scale)
        first, last = self.page_lines(page)
        down = self.pixels_per_point * scale
        across = down * self.config.horizontal_scale
        left, top, right, bottom = box[0] / across, box[1] / down, box[2] / across, box[3] / down
        fuzz = 1e-6
        edges = first + np.searchsorted(self.line_columns[first:last], np.arange(self.config.columns + 1))
        spans: list[tuple[int, int]] = []
        for begin, end in pairwise(edges.tolist()):
            # Lines go down a column, so those that the region meets are neighbours.
            tops = self.line_tops[begin:end]
            low = begin + int(np.searchsorted(tops + self.config.line_height, top + fuzz, "right"))
            high = begin + int(np.searchsorted(tops, bottom - fuzz, "left"))
            if low < high:
                spans += self._spans_between(low, high, left + fuzz, right - fuzz)
        return spans

    def _spans_between(self, low: int, high: int, left: float, right: float) -> list[tuple[int, int]]:
        """Characters of lines [low, high) that reach into the strip from left to right, in points."""
        cells = self.cells(low, high)
        shown = (cells.left < right) & (cells.left + cells.width > left) & (cells.width > 0)
        positions = cells.index[shown]
        if not len(positions):
            return []
        jump = np.flatnonzero((np.diff(positions) > 1) | (np.diff(cells.line[shown]) > 0)) + 1
        spans = []
        for piece in np.split(positions, jump):
            start, end = int(piece[0]), int(piece[-1]) + 1
            while start > 0 and self._is_attached(start):
                start -= 1
            while end < len(self.display) and self._is_attached(end):
                end += 1
            spans.append((self._to_text(start, whole=-1), self._to_text(end, whole=1)))
        return [span for span in spans if span[0] < span[1]]


def check_scale(scale: float) -> None:
    """ValueError unless scale is a finite number greater than 0."""
    if not isinstance(scale, (int, float)) or not math.isfinite(scale) or scale <= 0:
        raise ValueError(f"scale={scale!r} must be a finite number greater than 0; 1.0 draws at the config's dpi")
