# SPDX-License-Identifier: Apache-2.0
"""Pixel arithmetic of pages: sizes, crops, baselines, and the blocks of colour behind paragraphs."""

from __future__ import annotations

import functools
import math

import numpy as np

from .character_map import CharacterMap
from .characters import COMPLEX, MARK, NO_GLYPH
from .paged_text import Box, check_scale

PixelBox = tuple[int, int, int, int]


class PageGeometry:
    """Where a document's lines lie on its pages, in pixels at any scale."""

    def __init__(self, characters: CharacterMap) -> None:
        self.characters, self.lines, self.fonts = characters, characters.lines, characters.fonts
        self.config, self.rules = self.fonts.config, self.fonts.rules
        self.ascent, self.pixels_per_point = self.fonts.ascent, self.config.dpi / 72

    def pixels(self, number: int, left: float, right: float, scale: float) -> Box:
        """(left, top, right, bottom) in pixels of a stretch of line `number` that is given in points."""
        down = self.pixels_per_point * scale
        across = down * self.config.horizontal_scale
        top = float(self.lines.tops[number])
        return left * across, top * down, right * across, (top + self.config.line_height) * down

    def line_box(self, number: int, scale: float = 1.0) -> Box:
        """(left, top, right, bottom) of line `number` in pixels."""
        left = float(self.lines.lefts[number])
        return self.pixels(number, left, left + float(self.lines.widths[number]), scale)

    def page_size(self, page: int, scale: float) -> tuple[int, int]:
        """(height, width) of a page in pixels."""
        config, lines = self.config, self.lines
        check_scale(scale, config.only_scale)
        ppp = self.pixels_per_point
        height = math.ceil(config.page_height * ppp - 1e-6)
        width = math.ceil(config.page_width * ppp - 1e-6)
        if config.horizontal_scale != 1:
            width = int(width * config.horizontal_scale)
        first, last = lines.of_page(page)
        if config.auto_crop_last_page and page == lines.num_pages - 1:
            height = min(height, self.rules.cropped_height(self, first, last))
        if config.auto_crop_width:
            ink = math.ceil(float(self._ink_rights[first:last].max()) * ppp * config.horizontal_scale - 1e-6)
            ink = max(ink, self.blocks_end(first, last)[0])
            if ink > 0:
                width = min(width, int(ink + config.margin_x))
        multiple = config.page_multiple
        padded = (-(-side // multiple) * multiple for side in (height, width))
        high, wide = (max(1, round(side * scale)) for side in padded)
        return high, wide

    def baseline_rows(self, first: int, last: int, scale: float = 1.0) -> np.ndarray:
        """Pixel rows of the baselines of lines [first, last) of whole pages, int64."""
        return self.rules.baseline_rows(self, first, last, scale)

    def paragraph_extents(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(first line, top, bottom) of each paragraph's part in each column of lines [first, last) of whole pages, in
        points from the top of the frame.
        """
        config, lines = self.config, self.lines
        origin = self.rules.first_top(config, self.ascent)
        part = slice(first, last)
        heads = np.diff(lines.pages[part] * config.columns + lines.columns[part], prepend=-1) != 0
        begins = first + np.flatnonzero(heads | (np.diff(lines.paragraphs[part], prepend=-1) != 0))
        tops = self.rules.block_tops(np.round(lines.tops[begins] - origin, 6), heads[begins - first])
        lowest = np.append(begins[1:], last) - 1
        return begins, tops, np.round(lines.tops[lowest] - origin, 6) + config.line_height

    def blocks(self, first: int, last: int, down: float, across: float) -> list[tuple[PixelBox, PixelBox]]:
        """(outside, inside) the frame of what is coloured behind each paragraph on lines [first, last) of one page.

        down, across: pixels to a point. The frame's stroke runs along the block's edge, one half on either side, and is
        at least a pixel wide, as poppler draws it.
        """
        config = self.config
        margin, pad = config.margin_y + config.frame_padding, config.border_padding
        begins, tops, bottoms = self.paragraph_extents(first, last)
        lefts = config.margin_x + config.frame_padding + config.left_indent
        lefts = lefts + self.lines.columns[begins] * (config.column_width + config.column_gap)
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

    def blocks_end(self, first: int, last: int) -> tuple[int, int]:
        """(right, bottom) of the blocks that can be seen on a page, in pixels at scale 1; zeros where there are none."""
        config, down = self.config, self.pixels_per_point
        framed = config.border_width > 0 and config.border_color != config.page_bg_color
        if not framed and config.para_bg_color == config.page_bg_color:
            return 0, 0
        boxes = [pair[0 if framed else 1] for pair in self.blocks(first, last, down, down * config.horizontal_scale)]
        return max(box[2] for box in boxes), max(box[3] for box in boxes)

    def depth(self, number: int) -> float | None:
        """How far a line's glyphs reach below its baseline, in ems; None for a line without any."""
        keys = self.characters.cells(number, number + 1).keys
        keys = keys[keys != NO_GLYPH]
        return max(self.fonts.extents(key)[1] for key in np.unique(keys).tolist()) if len(keys) else None

    @functools.cached_property
    def _ink_rights(self) -> np.ndarray:
        """Rightmost ink of each line in points; 0 for a line without ink. float64 [num_lines]."""
        lines, fonts, display = self.lines, self.fonts, self.characters.display
        rights = np.where(lines.ends > lines.starts, lines.lefts + lines.widths, 0.0)
        # The last glyph may stop short of its advance, or reach over it.
        codes = np.array([ord(display[end - 1]) for end in lines.ends.tolist() if end], dtype=np.uint32)
        has = np.flatnonzero((lines.ends > lines.starts) & (lines.directions == 0))
        offset = int((lines.ends == 0).sum())
        codes = codes[has - offset]
        keys = fonts.keys[codes]
        simple = (keys != NO_GLYPH) & ((fonts.flags[codes] & (COMPLEX | MARK)) == 0)
        has, codes, keys = has[simple], codes[simple], keys[simple]
        unique, inverse = np.unique(keys, return_inverse=True)
        reach = np.array([fonts.extents(key)[0] for key in unique.tolist()])[inverse] if len(unique) else 0.0
        short = fonts.advances[codes] / fonts.units - reach
        rights[has] -= short * self.config.font_size
        return rights
