# SPDX-License-Identifier: Apache-2.0
"""Typesetting: a text becomes lines on pages, and every character keeps its place.

Lengths are in points (1/72 in) until a pixel is named. Nothing here draws: advances come unhinted from the fonts' own
tables and are added up in integers, so line breaks are the same at every scale and on every machine.

What becomes of characters that are not letters:
- A newline (LF, CR, CRLF, VT, NEL, U+2028, U+2029) ends a line, or is drawn as `newline_markup`, one mark for a CRLF.
- A form feed ends the page as well (with `newline_markup` it is a newline like the others).
- White space at a line break is dropped; elsewhere it keeps its width. A tab is four spaces wide.
- Invisible format characters (zero-width space and joiners, soft hyphen, byte-order mark, bidirectional controls)
  take no room and draw nothing.
- Other control characters, lone surrogates and characters that no font has are listed in `undrawable` and drawn as a
  hollow box.
"""

from __future__ import annotations

import math
import re

import numpy as np

from .bidirectional import bidi_levels
from .characters import (
    COMPLEX,
    EXTENDER,
    LTR,
    MARK,
    NEWLINE,
    PAGE_BREAK,
    RTL,
    SPACE,
    UNDRAWABLE,
    ZERO_WIDTH_JOINER,
    code_points,
    doubled_spaces,
    first_halves,
    space_runs,
)
from .fonts import MISSING_GLYPH, NO_GLYPH, FontChain, FontFace, ShapedRun
from .line_breaking import LineBreaker, holds_cjk
from .settings import BUNDLED_MONO, BUNDLED_SANS, RenderConfig
from .typeset_document import (
    NO_POSITIONS,
    Box,
    Cells,
    Line,
    Shaped,
    TypesetDocument,
    check_scale,
    joined_ranges,
)

__all__ = [
    "BUNDLED_MONO",
    "BUNDLED_SANS",
    "MISSING_GLYPH",
    "NO_GLYPH",
    "Box",
    "Cells",
    "FontChain",
    "FontFace",
    "Line",
    "RenderConfig",
    "Shaped",
    "TypesetDocument",
    "Typesetter",
    "bidi_levels",
    "check_scale",
]

# Longest stretch given to the shaper at once; longer words are shaped in pieces.
_LONGEST_RUN = 256


class Typesetter:
    """Lays text out on pages by one config: `Typesetter(config).typeset(text)`."""

    def __init__(self, config: RenderConfig | None = None) -> None:
        self.config = config or RenderConfig()
        self.fonts = FontChain(self.config)

    def typeset(self, text: str) -> TypesetDocument:
        """A text without one visible character is a ValueError ("empty document")."""
        if not isinstance(text, str):
            raise TypeError(f"the document is {type(text).__name__}, not str; decode bytes first")
        fonts, config = self.fonts, self.config
        plain = config.line_breaking == "plain"
        display, marks = self._expand(text)
        codes = code_points(display)
        fonts.learn(codes)
        flags = fonts.flags.take(codes)
        source = codes
        if marks is not None:
            source = code_points(text)
            fonts.learn(source)
        self._check_visible(text, source)
        # Advances become their own prefix sums, which a long text needs too much memory to have beside them.
        pen = np.zeros(len(codes) + 1, dtype=np.int64)
        widths = pen[1:]
        fonts.advances.take(codes, out=widths, mode="clip")
        attached = np.zeros(len(codes) + 1, dtype=bool)
        if plain:
            # CRLF is one newline: its first half takes no room, and no line ends between the halves.
            halves = first_halves(codes)
            widths[halves] = 0
            attached[halves + 1] = True
        else:
            flags[space_runs(codes)] &= ~np.uint16(SPACE)
        if marks is not None:
            self._bind_marks(marks[2], flags, attached)
        elif config.newline_markup is not None and config.lines_per_paragraph is not None:
            paragraph_end = np.flatnonzero(((flags & MARK) != 0) & ~attached[1:])
            paragraph_end = paragraph_end[config.lines_per_paragraph - 1 :: config.lines_per_paragraph]
            flags[paragraph_end] = NEWLINE
            flags[paragraph_end[attached[paragraph_end]] - 1] = NEWLINE
        doubled = NO_POSITIONS
        if not plain and not holds_cjk(codes):
            doubled = np.flatnonzero(doubled_spaces((flags & SPACE) != 0))
            widths[doubled] = 0
        shaped = self._shape(display, codes, flags, widths, attached)
        undrawable = self._source(np.flatnonzero((flags & UNDRAWABLE) != 0), marks)
        np.cumsum(widths, out=widths)

        newline = (flags & NEWLINE) != 0
        paragraph_ends = np.append(np.flatnonzero(newline & ~attached[:-1]), len(codes))
        next_starts = np.flatnonzero(newline & ~attached[1:]) + 1
        paragraph_starts = np.append(0, next_starts)
        new_page = np.append(False, (flags[next_starts - 1] & PAGE_BREAK) != 0)
        if len(next_starts) and next_starts[-1] == len(codes):
            # What follows the last newline of a text is not another, empty line.
            paragraph_starts, paragraph_ends, new_page = paragraph_starts[:-1], paragraph_ends[:-1], new_page[:-1]
        breaker = LineBreaker(config, fonts.units, codes, flags, pen, attached)
        starts, ends, paragraphs = breaker.break_paragraphs(paragraph_starts, paragraph_ends)

        group = config.lines_per_paragraph if config.newline_markup is None else None
        if group is not None and not plain:
            # reportlab draws no line for a break at the end of a paragraph.
            drawn = (ends > starts) | (paragraphs % group != group - 1)
            starts, ends, paragraphs = starts[drawn], ends[drawn], paragraphs[drawn]
        first = np.append(True, paragraphs[1:] != paragraphs[:-1])
        last = np.append(first[1:], True)
        forced = new_page[paragraphs] & first
        hard = last & (not breaker.by_characters)
        if group is not None:
            paragraphs = paragraphs // group
            first = np.append(True, paragraphs[1:] != paragraphs[:-1])
        directions = self._directions(flags, starts, ends, paragraphs)
        lefts, line_widths, gaps = self._place(starts, ends, directions, first, last, pen, flags, doubled)
        columns, tops = self._paginate(paragraphs, forced, hard)
        pages, columns = columns // config.columns, columns % config.columns
        lefts += columns * (config.column_width + config.column_gap)
        lines = {
            "starts": starts,
            "ends": ends,
            "pages": pages,
            "columns": columns,
            "tops": tops,
            "lefts": lefts,
            "widths": line_widths,
            "gaps": gaps,
            "paragraphs": paragraphs,
            "directions": directions,
        }
        attached_at = np.flatnonzero(attached[:-1])
        return TypesetDocument(text, fonts, display, marks, shaped, attached_at, doubled, undrawable, lines)

    def _check_visible(self, text: str, codes: np.ndarray) -> None:
        fonts = self.fonts
        # Most texts show something early on.
        for part in (codes[:256], codes[256:]):
            if np.any((fonts.keys[part] != NO_GLYPH) & ((fonts.flags[part] & MARK) == 0)):
                break
        else:
            raise ValueError(
                f"empty document: none of the text's {len(text)} characters is visible; "
                "give a text with something to read"
            )

    def _expand(self, text: str) -> tuple[str, tuple[np.ndarray, np.ndarray, np.ndarray] | None]:
        """The display text, where a mark of several characters replaces each newline that is drawn, and where these
        are: (newline at, its length, mark at), all int64; None where both texts are the same.
        """
        mark, group = self.config.newline_markup, self.config.lines_per_paragraph
        if mark is None or len(mark) == 1:
            return text, None
        pattern = "\n" if self.config.line_breaking == "reportlab" else "\r\n|[\n\r\x0b\x0c\x85\u2028\u2029]"
        newline_at, lengths, mark_at, pieces = [], [], [], []
        done = size = 0
        for number, found in enumerate(re.finditer(pattern, text), start=1):
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
        pieces.append(text[done:])
        marks = tuple(np.array(values, dtype=np.int64) for values in (newline_at, lengths, mark_at))
        return "".join(pieces), (marks[0], marks[1], marks[2])

    def _bind_marks(self, mark_at: np.ndarray, flags: np.ndarray, attached: np.ndarray) -> None:
        """Lines may break at a mark's outer spaces, never inside it; newlines that are not drawn end their lines."""
        flags[(flags & MARK) != 0] = NEWLINE
        mark = self.config.newline_markup or ""
        begin, end = len(mark) - len(mark.lstrip()), len(mark.rstrip())
        for offset in range(len(mark)):
            inside = begin <= offset < end
            flags[mark_at + offset] = (MARK if offset == end - 1 else 0) if inside else SPACE
            attached[mark_at + offset] = inside and offset > begin

    def _source(self, positions: np.ndarray, marks: tuple[np.ndarray, np.ndarray, np.ndarray] | None) -> np.ndarray:
        """Positions in the display text, outside marks, as positions in the text."""
        if marks is None:
            return positions
        before = np.searchsorted(marks[2], positions, "right")
        shrunk = np.append(0, np.cumsum(len(self.config.newline_markup or "") - marks[1]))
        return np.asarray(positions - shrunk[before])

    def _shape(
        self, display: str, codes: np.ndarray, flags: np.ndarray, widths: np.ndarray, attached: np.ndarray
    ) -> Shaped:
        """Shape what needs it; writes the shaped characters' widths and attachment in place."""
        chosen = (flags & COMPLEX) != 0
        if not chosen.any():
            return Shaped(
                NO_POSITIONS, NO_POSITIONS, NO_POSITIONS, NO_POSITIONS.astype(np.int32), NO_POSITIONS, NO_POSITIONS
            )
        base = (flags & (SPACE | NEWLINE | MARK)) == 0
        chosen[:-1] |= (flags[1:] & EXTENDER) != 0
        chosen[1:] |= (codes[:-1] == ZERO_WIDTH_JOINER) & chosen[:-1]
        chosen &= base
        edges = np.flatnonzero(np.diff(chosen.astype(np.int8), prepend=0, append=0))
        starts: list[int] = []
        runs: list[ShapedRun] = []
        for start, end in edges.reshape(-1, 2).tolist():
            while start < end:
                cut = min(start + _LONGEST_RUN, end)
                while cut < end and flags[cut] & EXTENDER:
                    cut += 1
                starts.append(start)
                runs.append(self.fonts.shape(display[start:cut]))
                start = cut
        firsts = np.array(starts, dtype=np.int64)
        at = joined_ranges(firsts, np.array([len(run.advances) for run in runs], dtype=np.int64))
        advances = np.concatenate([run.advances for run in runs])
        widths[at] = advances
        attached[at] |= np.concatenate([run.attached for run in runs])
        glyph_at = np.concatenate([run.at for run in runs]) + np.repeat(firsts, [len(run.at) for run in runs])
        keys, right, up = (np.concatenate([getattr(run, name) for run in runs]) for name in ("keys", "right", "up"))
        return Shaped(at, advances, glyph_at, keys, right, up)

    def _directions(
        self, flags: np.ndarray, starts: np.ndarray, ends: np.ndarray, paragraphs: np.ndarray
    ) -> np.ndarray:
        """Of each line: 0 left to right only, 1 with right-to-left parts, 2 in a right-to-left paragraph. int8.

        The first strong character of a paragraph decides (rules P2 and P3); where newlines are only drawn, of a line.
        """
        directions = np.zeros(len(starts), dtype=np.int8)
        rtl = np.flatnonzero((flags & RTL) != 0)
        if not len(rtl):
            return directions
        strong = np.flatnonzero((flags & (RTL | LTR)) != 0)
        if self.config.newline_markup is None:
            begins = starts[np.searchsorted(paragraphs, paragraphs)]
            stops = ends[np.searchsorted(paragraphs, paragraphs, "right") - 1]
        else:
            begins, stops = starts, ends
        first = strong[np.minimum(np.searchsorted(strong, begins), len(strong) - 1)]
        directions[np.searchsorted(rtl, ends) > np.searchsorted(rtl, starts)] = 1
        directions[(first >= begins) & (first < stops) & ((flags[first] & RTL) != 0) & (ends > starts)] = 2
        return directions

    def _place(
        self,
        starts: np.ndarray,
        ends: np.ndarray,
        directions: np.ndarray,
        first: np.ndarray,
        last: np.ndarray,
        pen: np.ndarray,
        flags: np.ndarray,
        doubled: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(left end, width, what each space is wider than its advance) of lines in points, float64 [num_lines]."""
        config = self.config
        natural = (pen[ends] - pen[starts]) * (config.font_size / self.fonts.units)
        indent = first * float(config.first_line_indent)
        room = config.text_width - indent
        gaps = np.zeros(len(starts))
        stretched = np.zeros(len(starts), dtype=bool)
        if config.line_breaking == "reportlab":
            stretched |= natural > room + 1e-6
        if config.alignment == "JUSTIFY":
            stretched |= ~last
        if stretched.any():
            space = (flags & SPACE) != 0
            space[doubled] = False
            at = np.flatnonzero(space)
            spaces = np.searchsorted(at, ends) - np.searchsorted(at, starts)
            stretched &= spaces > 0
            gaps[stretched] = (room - natural)[stretched] / spaces[stretched]
            natural[stretched] = room[stretched]
        free = room - natural
        share = {"CENTER": 0.5, "RIGHT": 1.0}.get(config.alignment, 0.0)
        shares = np.where((directions == 2) & (share == 0), 1.0, share)
        lefts = config.margin_x + config.frame_padding + config.left_indent + indent + free * shares
        return lefts, natural, gaps

    def _paginate(self, paragraphs: np.ndarray, forced: np.ndarray, hard: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(column, top in points) of each line, columns counted through all pages.

        forced: lines that begin a page; hard: lines that end with a newline that reportlab parts paragraphs at.
        """
        config = self.config
        count = len(paragraphs)
        origin = config.margin_y + config.frame_padding
        plain = config.line_breaking == "plain"
        if not plain:
            # Its first baseline is one font size below the frame's top.
            origin += config.font_size - self.fonts.ascent
        if max(config.space_before, config.space_after) > 0:
            columns, tops = self._paginate_with_gaps(paragraphs, forced, hard)
            return columns, origin + tops
        height = math.floor(config.text_height / config.line_height + 1e-9)
        if not plain:
            columns, rows = _reportlab_rows(paragraphs, hard, height)
            return columns, origin + rows * config.line_height
        segments = np.flatnonzero(forced)
        if not len(segments) or segments[0] != 0:
            segments = np.append(0, segments)
        lengths = np.diff(np.append(segments, count))
        pages = -(-lengths // (height * config.columns))
        columns_before = np.append(0, np.cumsum(pages)[:-1]) * config.columns
        row = np.arange(count) - np.repeat(segments, lengths)
        columns = np.repeat(columns_before, lengths) + row // height
        return columns, origin + (row % height) * config.line_height

    def _paginate_with_gaps(
        self, paragraphs: np.ndarray, forced: np.ndarray, hard: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `_paginate`, where paragraphs keep their distance; tops from the first line's."""
        config = self.config
        gap, bottom = max(config.space_before, config.space_after), config.text_height + 1e-9
        plain = config.line_breaking == "plain"
        columns, tops = np.zeros(len(paragraphs), dtype=np.int64), np.zeros(len(paragraphs))
        left = np.searchsorted(paragraphs, paragraphs, "right") - np.arange(len(paragraphs))
        column, top, previous, broken = 0, 0.0, -1, False
        lines = zip(paragraphs.tolist(), forced.tolist(), hard.tolist(), left.tolist(), strict=True)
        for number, (paragraph, new_page, ends_hard, lines_left) in enumerate(lines):
            begins = paragraph != previous
            if begins and top > 0:
                top += gap
            fitting = math.floor((bottom - top) / config.line_height)
            if new_page and number:
                column, top = (column // config.columns + 1) * config.columns, 0.0
            elif fitting < 1 or (not plain and begins and top > 0 and fitting == 1 and lines_left > 1):
                column, top = column + 1, 0.0
                if not plain and broken and not begins and 2 * config.line_height <= bottom:
                    top = config.line_height
            columns[number], tops[number] = column, top
            top += config.line_height
            previous, broken = paragraph, ends_hard
        return columns, tops


def _reportlab_rows(paragraphs: np.ndarray, hard: np.ndarray, height: int) -> tuple[np.ndarray, np.ndarray]:
    """(column, row) of each line in columns of `height` rows, as reportlab parts paragraphs: a paragraph's first line
    does not stay alone at the foot, and what goes on in the next column after a hard newline begins with an empty row.
    """
    count = len(paragraphs)
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
