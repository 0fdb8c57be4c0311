# SPDX-License-Identifier: Apache-2.0
"""Rasterising: typeset lines become uint8 pages, at any scale.

Each glyph is drawn once for each of four horizontal phases and kept; a page is put together from copies of their
columns, so the same text gives the same bytes on every run and every machine.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from .atlas import PHASES, GlyphAtlas, lay_glyphs
from .characters import NO_GLYPH
from .fonts import FontChain
from .paged_text import Box, PagedText, check_scale
from .parallel import check_workers, draw_pages_in_parallel, render_in_parallel
from .rendered_document import RenderedDocument
from .settings import RenderConfig
from .typeset_document import TypesetDocument
from .typesetting import Typesetter

# Pages whose glyphs are placed together.
_PAGES_AT_ONCE = 16
# Scales whose glyphs a renderer keeps at a time.
_ATLASES_KEPT = 8
_LARGEST_PAGE = 1 << 28


_Color = tuple[int, int, int]


@dataclass(frozen=True)
class _Glyphs:
    """Glyphs line by line. index: the character that each belongs to; line: its number; rows: of the baseline;
    quarters: the pen's place in quarters of a pixel; keys: as in `FontChain`.
    """

    index: np.ndarray
    line: np.ndarray
    rows: np.ndarray
    quarters: np.ndarray
    keys: np.ndarray


class PageRenderer:
    """Text to pages: `PageRenderer(config).render(text).pages`. Glyphs once drawn are kept for the next document.

    Threads may share a renderer and its documents: each gets what it would have got alone.
    """

    def __init__(self, config: RenderConfig | None = None) -> None:
        self.config = config or RenderConfig()
        self.typesetter = Typesetter(self.config)
        self._atlases: OrderedDict[float, GlyphAtlas] = OrderedDict()
        self._choosing = threading.Lock()
        self.rules = self.typesetter.rules
        # How many times as wide as they are letters are drawn.
        self._stretch = 1.0 if self.rules.stretches_picture else self.config.horizontal_scale

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_atlases": OrderedDict(), "_choosing": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _choosing=threading.Lock())

    def typeset(self, text: str) -> TypesetDocument:
        """Lay the text out without drawing it. A text without a visible character is a ValueError."""
        return self.typesetter.typeset(text)

    def render(self, text: str | PagedText, scale: float = 1.0) -> RenderedDocument:
        """Typeset (unless that is done) and draw every page at scale times the config's dpi."""
        check_scale(scale, self.config.only_scale)
        typeset = self.typeset(text) if isinstance(text, str) else _typeset_of(text)
        return RenderedDocument(typeset, scale, list(self.draw_pages(typeset, scale)))

    def render_documents(
        self, texts: Iterable[str], scale: float = 1.0, num_workers: int = 1
    ) -> Iterator[RenderedDocument]:
        """Each text typeset and drawn, in order, one document a time by each of num_workers processes.

        The bytes are those of `render`. As with every use of processes, a script that calls this with more than one
        worker needs the guard `if __name__ == "__main__":`.
        """
        check_scale(scale, self.config.only_scale)
        check_workers(num_workers)
        if num_workers == 1:
            for text in texts:
                yield self.render(text, scale)
        else:
            for typeset, pages in render_in_parallel(self, texts, scale, num_workers):
                yield RenderedDocument(typeset, scale, pages)

    def draw_pages(
        self, document: PagedText, scale: float = 1.0, num_workers: int = 1, pages: range | None = None
    ) -> Iterator[np.ndarray]:
        """Pages in order, one after the other, so that a long document needs little memory: uint8 [H, W] or [H, W, 3].

        num_workers: processes that draw; the bytes do not depend on it. More than one is worth its start from some
        hundred pages on. pages: which ones, without gaps; None is all of them.
        """
        check_scale(scale, self.config.only_scale)
        check_workers(num_workers)
        typeset = _typeset_of(document)
        pages = range(typeset.num_pages) if pages is None else pages
        if num_workers == 1:
            for first in range(0, len(pages), _PAGES_AT_ONCE):
                yield from self._draw(typeset, pages[first : first + _PAGES_AT_ONCE], scale)
        else:
            yield from draw_pages_in_parallel(self, typeset, pages, scale, num_workers)

    def draw_page(self, document: PagedText, page: int, scale: float = 1.0) -> np.ndarray:
        """One page: uint8 [H, W] where all colours are grey, else [H, W, 3]."""
        return next(self.draw_pages(document, scale, pages=range(page, page + 1)))

    def _draw(self, typeset: TypesetDocument, pages: range, scale: float) -> Iterator[np.ndarray]:
        """Pages that follow each other: their glyphs are placed, and drawn where they are new, all at once."""
        config = self.config
        if typeset.config != config:
            raise ValueError("the document was typeset with another RenderConfig; typeset it with this renderer")
        sizes = [typeset.page_size(page, scale) for page in pages]
        for height, width in sizes:
            if height * width > _LARGEST_PAGE:
                raise ValueError(
                    f"scale={scale:g} makes a page of {width} x {height} pixels, more than {_LARGEST_PAGE}; lower it"
                )
        lines = [typeset.page_lines(page)[0] for page in pages] + [typeset.page_lines(pages[-1])[1]]
        glyphs = self._glyphs(typeset, lines[0], lines[-1], scale)
        atlas = self._atlas(typeset.fonts, typeset.geometry.pixels_per_point * scale)
        pens = glyphs.quarters // PHASES
        tiles = atlas.find(glyphs.keys, glyphs.quarters - pens * PHASES)
        font_color, mark_color = _channels(config.font_color), _channels(config.newline_color or config.font_color)
        marked = None if mark_color == font_color else typeset.characters.is_mark(glyphs.index)
        parts = pairwise(np.searchsorted(glyphs.line, lines).tolist())
        for page, (height, width), (begin, end) in zip(pages, sizes, parts, strict=True):
            part = slice(begin, end)
            if config.horizontal_scale != self._stretch:
                width = round(math.ceil(config.page_width * typeset.geometry.pixels_per_point - 1e-6) * scale)
            placed = tiles[part], glyphs.rows[part], pens[part]
            layers = [(font_color, placed)]
            if marked is not None:
                layers = [
                    (color, (placed[0][chosen], placed[1][chosen], placed[2][chosen]))
                    for color, chosen in ((font_color, ~marked[part]), (mark_color, marked[part]))
                ]
            inks = [(color, lay_glyphs(atlas.sheet, *laid, height, width)) for color, laid in layers]
            yield self._paint(typeset, page, inks, scale)

    def _glyphs(self, typeset: TypesetDocument, first: int, last: int, scale: float) -> _Glyphs:
        """What is drawn on lines [first, last) of whole pages."""
        down = typeset.geometry.pixels_per_point * scale
        across = down * self._stretch
        cells = typeset.characters.cells(first, last, drawn=True)
        index, line, left, keys = cells.index, cells.line, cells.left, cells.keys
        rows = typeset.geometry.baseline_rows(first, last, scale)[line - first]
        shaped, lines = typeset.layout.shaped, typeset.line_table
        low, high = np.searchsorted(shaped.glyph_at, [lines.starts[first], lines.ends[last - 1]])
        if low < high:
            unit = typeset.config.font_size / typeset.fonts.units
            at = shaped.glyph_at[low:high]
            alone, anchor = np.flatnonzero(keys != NO_GLYPH), np.searchsorted(index, at)
            both = np.append(alone, anchor)
            right = np.append(np.zeros(len(alone)), shaped.right[low:high] * unit)
            up = np.append(np.zeros(len(alone)), shaped.up[low:high] * unit)
            keys = np.append(keys[alone], shaped.keys[low:high])
            order = np.argsort(line[both], kind="stable")
            both = both[order]
            index, line, left = index[both], line[both], left[both] + right[order]
            rows = rows[both] - np.floor(up[order] * down + 0.5).astype(np.int64)
            keys = keys[order]
        left *= across * PHASES
        left += self.rules.pen_rounding
        return _Glyphs(index, line, rows, np.floor(left, out=left).astype(np.int64), keys)

    def _paint(
        self, typeset: TypesetDocument, page: int, inks: list[tuple[_Color, np.ndarray]], scale: float
    ) -> np.ndarray:
        """A page of its background and layers of ink, each of one colour: uint8 [H, W] or [H, W, 3]."""
        config = self.config
        height, width = inks[0][1].shape
        background = self._background(typeset, *typeset.page_lines(page), height, width, scale)
        colors = (config.font_color, config.page_bg_color, config.para_bg_color, config.border_color)
        grey = all(_is_grey(color) for color in (*colors, config.newline_color or config.font_color))
        planes = []
        for channel in range(1 if grey else 3):
            plane = background[channel]
            for color, ink in inks:
                plane = _lay(plane, ink, color[channel])
            planes.append(np.asarray(plane))
        drawn = planes[0] if grey else np.stack(planes, axis=-1)
        if config.horizontal_scale != self._stretch:
            size = max(1, int(width * config.horizontal_scale)), height
            wide = np.asarray(Image.fromarray(drawn).resize(size, Image.Resampling.BICUBIC))
            drawn = np.empty((*typeset.page_size(page, scale), *drawn.shape[2:]), dtype=np.uint8)
            drawn[:] = _channels(config.page_bg_color)[: 1 if grey else 3]
            drawn[:, : wide.shape[1]] = wide[:, : drawn.shape[1]]
        return drawn

    def _atlas(self, fonts: FontChain, pixels_per_point: float) -> GlyphAtlas:
        with self._choosing:
            atlas = self._atlases.get(pixels_per_point)
            if atlas is None:
                atlas = GlyphAtlas(fonts, self.config.font_size * pixels_per_point, self._stretch)
                self._atlases[pixels_per_point] = atlas
            self._atlases.move_to_end(pixels_per_point)
            while len(self._atlases) > _ATLASES_KEPT:
                self._atlases.popitem(last=False)
            return atlas

    def _background(
        self, typeset: TypesetDocument, first: int, last: int, height: int, width: int, scale: float
    ) -> list[int | np.ndarray]:
        """Red, green and blue of the page before the text: a number where it is one colour, else uint8 [H, W]."""
        config = self.config
        page, block, border = (
            _channels(color) for color in (config.page_bg_color, config.para_bg_color, config.border_color)
        )
        if block == page and (config.border_width == 0 or border == page):
            return list(page)
        planes = [np.full((height, width), value, dtype=np.uint8) for value in page]
        down = typeset.geometry.pixels_per_point * scale
        across = down * self._stretch
        for outside, inside in typeset.geometry.blocks(first, last, down, across):
            for box, colors in ((outside, border), (inside, block)):
                left, top, right, bottom = (max(side, 0) for side in box)
                for plane, value in zip(planes, colors, strict=True):
                    plane[top:bottom, left:right] = value
        return list(planes)


def _typeset_of(document: PagedText) -> TypesetDocument:
    if isinstance(document, RenderedDocument):
        return document.typeset
    if not isinstance(document, TypesetDocument):
        raise TypeError(
            f"{type(document).__name__} is not a typeset document; give a text, or what `typeset` returned"
        )
    return document


def _lay(background: int | np.ndarray, ink: np.ndarray, color: int) -> np.ndarray:
    """Colour over background where there is ink: uint8 [H, W]."""
    if isinstance(background, int) and background - color == 255:
        return np.asarray(255 - ink)
    if isinstance(background, int):
        levels = np.arange(256)
        return ((background * (255 - levels) + color * levels + 127) // 255).astype(np.uint8)[ink]
    amount = ink.astype(np.uint32)
    return ((background * (255 - amount) + color * amount + 127) // 255).astype(np.uint8)


def _channels(color: str) -> _Color:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def _is_grey(color: str) -> bool:
    return len(set(_channels(color))) == 1


# Evidence: what the tint multiplies the page by, and the outline.
_TINT = (255, 244, 200)
_OUTLINE = (214, 24, 24)


def mark_boxes(page_array: np.ndarray, boxes: Iterable[Box]) -> Image.Image:
    """The page as an RGB picture with each box (left, top, right, bottom, in the page's pixels) tinted and outlined.

    page_array: uint8 [H, W] or [H, W, 3]. The tint keeps dark text dark. The outline runs just outside the box, or just
    inside where `unroll_strip` will cut the page: no line of it shows in another column. A box that does not meet the
    page is a ValueError.
    """
    if page_array.dtype != np.uint8 or page_array.ndim not in (2, 3):
        raise ValueError(f"a page is a uint8 array [H, W] or [H, W, 3], not {page_array.dtype} {page_array.shape}")
    grey = page_array.ndim == 2
    pixels = np.repeat(page_array[:, :, None], 3, axis=2) if grey else page_array.copy()
    height, width = pixels.shape[:2]
    columns = strip_columns(height, width)
    column = height if columns is None else columns[0] * width
    outlines = []
    for box in boxes:
        left, top = math.floor(box[0]), math.floor(box[1])
        right, bottom = math.ceil(box[2] - 1e-6), math.ceil(box[3] - 1e-6)
        if right <= 0 or bottom <= 0 or left >= width or top >= height or right < left or bottom < top:
            raise ValueError(f"box {tuple(box)} does not lie on the page of {width} x {height} pixels")
        region = pixels[max(top, 0) : bottom, max(left, 0) : right]
        region[:] = region.astype(np.uint16) * np.array(_TINT, dtype=np.uint16) // 255
        first, last = top // column * column, (max(bottom - 1, top) // column + 1) * column - 1
        outlines.append(
            (max(left - 1, 0), max(top - 1, first, 0), min(right, width - 1), min(bottom, last, height - 1))
        )
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    for outline in outlines:
        draw.rectangle(outline, outline=_OUTLINE)
    return picture


# A page of this many times its width is a strip; about this high for its width, a sheet is easy to look at.
_STRIP, _SHEET = 4, 1.4


def strip_columns(height: int, width: int) -> tuple[int, int, int] | None:
    """(cells in a column, columns, pixels between two) as `unroll_strip` lays a page out; None where it leaves it."""
    if height <= _STRIP * width:
        return None
    cells = -(-height // width)
    rows = -(-cells // max(1, round((cells / _SHEET) ** 0.5)))
    return rows, -(-cells // rows), width // 4


def unroll_strip(picture: Image.Image) -> Image.Image:
    """A page that is one narrow strip as columns side by side, twice as large, for people to look at; others as they are.

    Cuts are at multiples of the strip's width, where a page of cells (`cell_aligned_config`) has borders between them.
    """
    width, height = picture.size
    found = strip_columns(height, width)
    if found is None:
        return picture
    rows, columns, gap = found
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * width), "white")
    for column in range(columns):
        top = column * rows * width
        sheet.paste(picture.crop((0, top, width, min(height, top + rows * width))), (column * (width + gap), 0))
    draw = ImageDraw.Draw(sheet)
    for column in range(1, columns):
        middle = column * (width + gap) - gap // 2
        draw.line((middle, 0, middle, sheet.height), fill="lightgrey")
    return sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.LANCZOS)
