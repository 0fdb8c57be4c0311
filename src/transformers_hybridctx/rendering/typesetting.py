# SPDX-License-Identifier: Apache-2.0
"""Typesetting: a text becomes lines on pages, and every character keeps its place.

Lengths are in points (1/72 in) until a pixel is named. Nothing here draws: advances come unhinted from the fonts' own
tables and are added up in integers, so line breaks are the same at every scale and on every machine.

What becomes of characters that are not letters:
- A newline (LF, CR, CRLF, VT, NEL, U+2028, U+2029) ends a line, or is drawn as `newline_markup`, one mark for a CRLF.
- A form feed ends the page as well (with `newline_markup` it is a newline like the others).
- White space at a line break is dropped; elsewhere it keeps its width. A tab goes to the next stop (rule sets differ).
- Invisible format characters (zero-width space and joiners, soft hyphen, byte-order mark, bidirectional controls)
  take no room and draw nothing; a soft hyphen at which a line ends is drawn as a hyphen, by the plain rules.
- Other control characters, lone surrogates and characters that no font has are listed in `undrawable` and drawn as a
  hollow box.
"""

from __future__ import annotations

import numpy as np

from .character_map import OwnWidths, Shaped
from .characters import (
    COMPLEX,
    EXTENDER,
    HYPHEN,
    LTR,
    MARK,
    NEWLINE,
    NO_GLYPH,
    PAGE_BREAK,
    RTL,
    SPACE,
    UNDRAWABLE,
    ZERO_WIDTH_JOINER,
    code_points,
)
from .fonts import FontChain, ShapedRun
from .line_table import NO_POSITIONS, LineTable, joined_ranges
from .manuscript import BrokenLines, Manuscript
from .newline_map import NewlineMap
from .pagination import paginate
from .settings import RenderConfig
from .typeset_document import Layout, TypesetDocument

# Longest stretch given to the shaper at once; longer words are shaped in pieces.
_LONGEST_RUN = 256
# Marks and joiners that may stand on one letter; HarfBuzz takes more than their number of steps for them.
_LONGEST_CLUSTER = 2048
# Characters whose widths are compared with their font's at a time.
_COMPARED_AT_ONCE = 1 << 20


class Typesetter:
    """Lays text out on pages by one config: `Typesetter(config).typeset(text)`."""

    def __init__(self, config: RenderConfig | None = None) -> None:
        self.config = config or RenderConfig()
        self.fonts = FontChain(self.config)
        self.rules = self.fonts.rules

    def typeset(self, text: str) -> TypesetDocument:
        """A text without one visible character is a ValueError ("empty document")."""
        if not isinstance(text, str):
            raise TypeError(f"the document is {type(text).__name__}, not str; decode bytes first")
        manuscript = self._read(text)
        self.rules.prepare(manuscript)
        self._mark_newlines(manuscript)
        manuscript.merged = self.rules.merged_spaces(manuscript)
        manuscript.widths[manuscript.merged] = 0
        shaped, shaped_at = self._shape(manuscript)
        self.rules.set_tabs(manuscript, self.fonts.space_advance)
        own_widths = self._own_widths(manuscript, shaped_at)
        # Advances become their own prefix sums, which a long text needs too much memory to have beside them.
        np.cumsum(manuscript.widths, out=manuscript.widths)
        starts, ends, new_page = self._paragraphs(manuscript)
        breaker = self.rules.line_breaker(self.config, self.fonts.units, manuscript)
        broken = breaker.break_paragraphs(starts, ends)
        if len(shown := self.rules.shown_hyphens(manuscript, broken)):
            shaped, own_widths = self._with_hyphens(manuscript, shown, shaped, own_widths)
        lines = self._place(manuscript, broken, new_page)
        undrawable = np.flatnonzero((manuscript.flags & UNDRAWABLE) != 0)
        layout = Layout(
            display=None if manuscript.display is text else manuscript.display,
            newlines=manuscript.newlines,
            lines=lines,
            shaped=shaped,
            own_widths=own_widths,
            attached=np.flatnonzero(manuscript.attached[:-1]),
            merged=manuscript.merged,
            undrawable=manuscript.newlines.outside_marks(undrawable),
        )
        return TypesetDocument(text, self.fonts, layout)

    def _read(self, text: str) -> Manuscript:
        """What each character is, and how wide by its font."""
        config, fonts = self.config, self.fonts
        display, newlines = NewlineMap.of(text, config.newline_markup, self.rules.newline, config.lines_per_paragraph)
        codes = code_points(display)
        fonts.learn(codes)
        source = codes if display is text else code_points(text)
        fonts.learn(source)
        self._check_visible(text, source)
        pen = np.zeros(len(codes) + 1, dtype=np.int64)
        fonts.advances.take(codes, out=pen[1:], mode="clip")
        attached = np.zeros(len(codes) + 1, dtype=bool)
        hyphen = fonts.nominal(HYPHEN)[1]
        return Manuscript(text, display, newlines, codes, fonts.flags.take(codes), pen, attached, hyphen=hyphen)

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

    def _mark_newlines(self, manuscript: Manuscript) -> None:
        """Lines may break at a mark's outer spaces, never inside it; newlines that are not drawn end their lines."""
        flags, attached, newlines = manuscript.flags, manuscript.attached, manuscript.newlines
        group = self.config.lines_per_paragraph
        if newlines.mark:
            flags[(flags & MARK) != 0] = NEWLINE
            begin, end = newlines.visible
            for offset in range(len(newlines.mark)):
                inside = begin <= offset < end
                at = newlines.mark_at + offset
                flags[at] = (MARK if offset == end - 1 else 0) if inside else SPACE
                attached[at] = inside and offset > begin
        elif self.config.newline_markup is not None and group is not None:
            paragraph_end = np.flatnonzero(((flags & MARK) != 0) & ~attached[1:])
            paragraph_end = paragraph_end[group - 1 :: group]
            flags[paragraph_end] = NEWLINE
            flags[paragraph_end[attached[paragraph_end]] - 1] = NEWLINE

    def _shape(self, manuscript: Manuscript) -> tuple[Shaped, np.ndarray]:
        """Shape what needs it: (the glyphs, all shaped positions); writes their widths and attachment."""
        codes, flags = manuscript.codes, manuscript.flags
        chosen = (flags & COMPLEX) != 0
        if not chosen.any():
            return Shaped(NO_POSITIONS, NO_POSITIONS.astype(np.int32), NO_POSITIONS, NO_POSITIONS), NO_POSITIONS
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
                while cut < end and flags[cut] & EXTENDER and cut - start < _LONGEST_CLUSTER:
                    cut += 1
                starts.append(start)
                runs.append(self.fonts.shape(manuscript.display[start:cut]))
                start = cut
        firsts = np.array(starts, dtype=np.int64)
        at = joined_ranges(firsts, np.array([len(run.advances) for run in runs], dtype=np.int64))
        manuscript.widths[at] = np.concatenate([run.advances for run in runs])
        manuscript.attached[at] |= np.concatenate([run.attached for run in runs])
        glyph_at = np.concatenate([run.at for run in runs]) + np.repeat(firsts, [len(run.at) for run in runs])
        keys, right, up = (np.concatenate([getattr(run, name) for run in runs]) for name in ("keys", "right", "up"))
        return Shaped(glyph_at, keys, right, up), at

    def _own_widths(self, manuscript: Manuscript, shaped_at: np.ndarray) -> OwnWidths:
        codes, widths = manuscript.codes, manuscript.widths
        own = np.zeros(len(codes), dtype=bool)
        for first in range(0, len(codes), _COMPARED_AT_ONCE):
            part = slice(first, first + _COMPARED_AT_ONCE)
            own[part] = widths[part] != self.fonts.advances.take(codes[part])
        own[shaped_at] = True
        at = np.flatnonzero(own)
        return OwnWidths(at, widths[at])

    def _with_hyphens(
        self, manuscript: Manuscript, shown: np.ndarray, shaped: Shaped, own: OwnWidths
    ) -> tuple[Shaped, OwnWidths]:
        """Draw hyphens for soft ones at the ends of lines, and let them take their room."""
        key, advance = self.fonts.nominal(HYPHEN)
        steps = np.zeros_like(manuscript.pen)
        steps[shown + 1] = advance
        manuscript.pen += np.cumsum(steps)
        at = np.searchsorted(shaped.glyph_at, shown)
        keys = np.insert(shaped.keys, at, key)
        offsets = (np.insert(values, at, 0) for values in (shaped.right, shaped.up))
        kept = ~np.isin(own.at, shown)
        before, advances = own.at[kept], own.advances[kept]
        place = np.searchsorted(before, shown)
        return (
            Shaped(np.insert(shaped.glyph_at, at, shown), keys, *offsets),
            OwnWidths(np.insert(before, place, shown), np.insert(advances, place, advance)),
        )

    def _paragraphs(self, manuscript: Manuscript) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Stretches between newlines that end lines: (starts, ends, whether each begins a page)."""
        flags, attached, size = manuscript.flags, manuscript.attached, len(manuscript.codes)
        newline = (flags & NEWLINE) != 0
        ends = np.append(np.flatnonzero(newline & ~attached[:-1]), size)
        next_starts = np.flatnonzero(newline & ~attached[1:]) + 1
        starts = np.append(0, next_starts)
        new_page = np.append(False, (flags[next_starts - 1] & PAGE_BREAK) != 0)
        if len(next_starts) and next_starts[-1] == size:
            # What follows the last newline of a text is not another, empty line.
            return starts[:-1], ends[:-1], new_page[:-1]
        return starts, ends, new_page

    def _place(self, manuscript: Manuscript, broken: BrokenLines, new_page: np.ndarray) -> LineTable:
        """Lines on pages. new_page: of each paragraph, whether it begins one."""
        config = self.config
        # A group of newlines makes a paragraph, unless these are drawn: then the group's last one alone breaks a line.
        group = config.lines_per_paragraph if config.newline_markup is None else None
        broken = self.rules.drawn_lines(broken, group)
        paragraphs = broken.paragraphs
        first = np.append(True, paragraphs[1:] != paragraphs[:-1])
        last = np.append(first[1:], True)
        forced = new_page[paragraphs] & first
        if group is not None:
            paragraphs = paragraphs // group
            first = np.append(True, paragraphs[1:] != paragraphs[:-1])
        directions = self._directions(manuscript, broken)
        lefts, widths, gaps = self._align(manuscript, broken, directions, first, last)
        columns, tops = paginate(self.fonts, broken, paragraphs, forced, last)
        pages, columns = columns // config.columns, columns % config.columns
        lefts += columns * (config.column_width + config.column_gap)
        return LineTable(broken.starts, broken.ends, pages, columns, tops, lefts, widths, gaps, paragraphs, directions)

    def _directions(self, manuscript: Manuscript, broken: BrokenLines) -> np.ndarray:
        """Of each line: 0 left to right only, 1 with right-to-left parts, 2 in a right-to-left paragraph. int8.

        A paragraph, from newline to newline of the text, has the direction of most of its letters, and of the first of
        them where both have as many (a heuristic that UAX #9 allows, HL1): a foreign word does not turn it. A line that
        holds several, since newlines are only drawn, has that of the paragraphs of most of its letters.
        """
        flags, starts, ends = manuscript.flags, broken.starts, broken.ends
        directions = np.zeros(len(starts), dtype=np.int8)
        rtl = np.flatnonzero((flags & RTL) != 0)
        if not len(rtl):
            return directions
        directions[np.searchsorted(rtl, ends) > np.searchsorted(rtl, starts)] = 1
        strong = np.flatnonzero((flags & (RTL | LTR)) != 0)
        sign = np.where((flags[strong] & RTL) != 0, 1, -1)
        newline = np.flatnonzero((flags & (NEWLINE | MARK)) != 0)
        paragraph = np.searchsorted(newline, strong)
        letters = np.bincount(paragraph, sign, minlength=len(newline) + 1)
        heads = np.append(True, paragraph[1:] != paragraph[:-1])
        letters[paragraph[heads]] += sign[heads] / 2
        letters = np.sign(letters)
        along = np.append(0, np.cumsum(letters[paragraph]))
        balance = along[np.searchsorted(strong, ends)] - along[np.searchsorted(strong, starts)]
        # A line without letters goes with the paragraph that it begins in.
        balance = np.where(balance == 0, letters[np.searchsorted(newline, starts)], balance)
        directions[(balance > 0) & (ends > starts)] = 2
        return directions

    def _align(
        self,
        manuscript: Manuscript,
        broken: BrokenLines,
        directions: np.ndarray,
        first: np.ndarray,
        last: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(left end, width, what each space is wider than its advance) of lines in points, float64 [num_lines]."""
        config, starts, ends = self.config, broken.starts, broken.ends
        natural = (manuscript.pen[ends] - manuscript.pen[starts]) * (config.font_size / self.fonts.units)
        indent = first * float(config.first_line_indent)
        room = config.text_width - indent
        gaps = np.zeros(len(starts))
        stretched = np.zeros(len(starts), dtype=bool)
        if self.rules.squeezes_lines:
            stretched |= natural > room + 1e-6
        if config.alignment == "JUSTIFY":
            stretched |= ~last
        if stretched.any():
            space = (manuscript.flags & SPACE) != 0
            space[manuscript.merged] = False
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
