# SPDX-License-Identifier: Apache-2.0
"""Rasterising: typeset lines become uint8 pages, at any scale.

Glyphs are drawn from their outlines by exact area coverage: no hinting, no sampling, no rasteriser of the machine's
own, so the same text gives the same bytes everywhere. Each glyph is drawn once for each of four horizontal phases and
kept as the few pixels that it inks; a page is one addition of all its glyphs' pixels.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from .font_chain import MISSING_GLYPH, NO_GLYPH, FontChain
from .render_config import RenderConfig
from .typeset_document import Box, TypesetDocument, check_scale
from .typesetting import Typesetter

# Horizontal positions within a pixel at which a glyph is drawn.
PHASES = 4
# Scales whose glyphs a renderer keeps at a time.
_ATLASES_KEPT = 8
_LARGEST_PAGE = 1 << 28


_Point = tuple[float, float]


class _OutlinePen:
    """Collects a glyph's outline as line segments in font units; curves become `steps` chords."""

    def __init__(self, steps: int) -> None:
        self.points: list[tuple[float, float, float, float]] = []
        self.times = [step / steps for step in range(1, steps + 1)]
        self.here = self.begin = (0.0, 0.0)

    def moveTo(self, point: _Point) -> None:  # noqa: N802 (the pen protocol's names)
        self.closePath()
        self.here = self.begin = point

    def lineTo(self, point: _Point) -> None:  # noqa: N802
        self.points.append((*self.here, *point))
        self.here = point

    def qCurveTo(self, control: _Point, point: _Point) -> None:  # noqa: N802
        (x0, y0), (x1, y1), (x2, y2) = self.here, control, point
        for t in self.times:
            a, b, c = (1 - t) * (1 - t), 2 * t * (1 - t), t * t
            self.lineTo((a * x0 + b * x1 + c * x2, a * y0 + b * y1 + c * y2))

    def curveTo(self, one: _Point, two: _Point, point: _Point) -> None:  # noqa: N802
        (x0, y0), (x1, y1), (x2, y2), (x3, y3) = self.here, one, two, point
        for t in self.times:
            s = 1 - t
            a, b, c, d = s * s * s, 3 * s * s * t, 3 * s * t * t, t * t * t
            self.lineTo((a * x0 + b * x1 + c * x2 + d * x3, a * y0 + b * y1 + c * y2 + d * y3))

    def closePath(self) -> None:  # noqa: N802
        if self.here != self.begin:
            self.lineTo(self.begin)


def fill_outline(segments: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Exact area coverage of a closed outline on the pixel grid (a box filter of one pixel, no hinting).

    segments: float64 [n, 4] as (x0, y0, x1, y1) in pixels, y downwards. Returns (uint8 [h, w], left, top).
    The signed area that each edge leaves to its right is added up cell by cell; the running sum along a row is the
    winding-weighted coverage.
    """
    segments = segments[segments[:, 1] != segments[:, 3]]
    if not len(segments):
        return np.zeros((0, 0), dtype=np.uint8), 0, 0
    x0, y0, x1, y1 = segments.T
    left, top = math.floor(min(x0.min(), x1.min())), math.floor(min(y0.min(), y1.min()))
    width = math.floor(max(x0.max(), x1.max())) + 2 - left
    height = math.floor(max(y0.max(), y1.max())) + 1 - top
    x0, x1, y0, y1 = x0 - left, x1 - left, y0 - top, y1 - top
    # Cut every edge where it crosses a grid line, so that each piece lies in one cell.
    cuts = [np.zeros(len(x0)), np.ones(len(x0))]
    owners = [np.arange(len(x0)), np.arange(len(x0))]
    for begin, end in ((x0, x1), (y0, y1)):
        low, high = np.minimum(begin, end), np.maximum(begin, end)
        first = np.floor(low).astype(np.int64) + 1
        count = np.maximum(np.ceil(high).astype(np.int64) - first, 0)
        owner = np.repeat(np.arange(len(x0)), count)
        line = first[owner] + np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
        owners.append(owner)
        cuts.append((line - begin[owner]) / (end - begin)[owner])
    owner, time = np.concatenate(owners), np.concatenate(cuts)
    order = np.lexsort((time, owner))
    owner, time = owner[order], time[order]
    x = x0[owner] + (x1 - x0)[owner] * time
    y = y0[owner] + (y1 - y0)[owner] * time
    same = owner[1:] == owner[:-1]
    xa, xb, ya, yb = x[:-1][same], x[1:][same], y[:-1][same], y[1:][same]
    middle_x, middle_y, rise = (xa + xb) / 2, (ya + yb) / 2, yb - ya
    column = np.clip(np.floor(middle_x).astype(np.int64), 0, width - 2)
    row = np.clip(np.floor(middle_y).astype(np.int64), 0, height - 1)
    beyond = rise * (middle_x - column)
    cells = np.bincount(row * width + column, rise - beyond, minlength=height * width)
    cells += np.bincount(row * width + column + 1, beyond, minlength=height * width)
    area = np.abs(np.cumsum(cells.reshape(height, width), axis=1))
    # Quantised twice, so that a last-bit difference between machines' sums cannot change a byte.
    return np.floor(np.round(np.minimum(area, 1) * 255, 6) + 0.5).astype(np.uint8), left, top


class GlyphAtlas:
    """Every glyph that was needed at one size, drawn once for each phase and kept as its inked pixels only.

    Slot n's pixels are entries firsts[n] to firsts[n] + counts[n] of rows, columns (relative to the baseline's row
    and the pen's column) and inks (uint8).
    """

    def __init__(self, fonts: FontChain, pixels_per_em: float, horizontal_scale: float = 1.0) -> None:
        self.fonts = fonts
        self.pixels_per_em = pixels_per_em
        self.stretch = np.array([horizontal_scale, 1.0, horizontal_scale, 1.0])
        self.slots: dict[int, int] = {}
        self.rows = np.zeros(0, dtype=np.int32)
        self.columns = np.zeros(0, dtype=np.int32)
        self.inks = np.zeros(0, dtype=np.uint8)
        self.firsts = np.zeros(0, dtype=np.int64)
        self.counts = np.zeros(0, dtype=np.int64)

    def segments(self, key: int) -> np.ndarray:
        """The outline in pixels at phase 0, baseline at 0, y downwards: float64 [n, 4]."""
        if key == MISSING_GLYPH:
            advance = self.fonts.missing_advance / self.fonts.units
            return _box_outline(advance * self.pixels_per_em, self.pixels_per_em) * self.stretch
        face = self.fonts.faces[key >> 16]
        steps = 8 if self.pixels_per_em <= 32 else 16 if self.pixels_per_em <= 128 else 32
        pen = _OutlinePen(steps)
        face.font.draw_glyph_with_pen(key & 0xFFFF, pen)
        pen.closePath()
        segments = np.asarray(pen.points, dtype=np.float64).reshape(-1, 4) * (self.pixels_per_em / face.upem)
        return segments * np.array([1.0, -1.0, 1.0, -1.0]) * self.stretch

    def draw(self, key: int, phase: int) -> tuple[np.ndarray, int, int]:
        """One glyph with its pen `phase` quarters into a pixel: (uint8 [h, w], left, top) relative to the pen."""
        return fill_outline(self.segments(key) + np.array([phase / PHASES, 0.0, phase / PHASES, 0.0]))

    def find(self, keys: np.ndarray, phases: np.ndarray) -> np.ndarray:
        """Slots of glyphs (key, phase), drawing those that are new. int64 [n]."""
        codes = keys.astype(np.int64) * PHASES + phases
        unique, inverse = np.unique(codes, return_inverse=True)
        new = [code for code in unique.tolist() if code not in self.slots]
        if new:
            images = [self.draw(code // PHASES, code % PHASES) for code in new]
            inked = [np.nonzero(image) for image, _, _ in images]
            counts = np.array([len(rows) for rows, _ in inked], dtype=np.int64)
            self.slots.update(zip(new, range(len(self.firsts), len(self.firsts) + len(new)), strict=True))
            self.firsts = np.append(self.firsts, len(self.inks) + np.cumsum(counts) - counts)
            self.counts = np.append(self.counts, counts)
            drawn = list(zip(images, inked, strict=True))
            rows = [rows.astype(np.int32) + top for (_, _, top), (rows, _) in drawn]
            columns = [columns.astype(np.int32) + left for (_, left, _), (_, columns) in drawn]
            self.rows = np.concatenate([self.rows, *rows])
            self.columns = np.concatenate([self.columns, *columns])
            self.inks = np.concatenate([self.inks, *(image[where] for (image, _, _), where in drawn)])
        return np.array([self.slots[code] for code in unique.tolist()], dtype=np.int64)[inverse]


def _box_outline(width: float, height: float) -> np.ndarray:
    """The replacement box: a hollow rectangle on the baseline. float64 [8, 4]."""
    stroke = max(height * 0.07, 0.5)
    left, right, top, bottom = width * 0.1, width * 0.9, -height * 0.72, height * 0.02
    outer = [(left, top), (right, top), (right, bottom), (left, bottom)]
    inner = [(left + stroke, top + stroke), (left + stroke, bottom - stroke)]
    inner += [(right - stroke, bottom - stroke), (right - stroke, top + stroke)]
    edges = []
    for ring in (outer, inner):
        edges += [(*a, *b) for a, b in zip(ring, ring[1:] + ring[:1], strict=True)]
    return np.array(edges)


class RenderedDocument(TypesetDocument):
    """A typeset document with its pages drawn at one scale.

    Attributes beside those of `TypesetDocument`:
        scale: what the pages were drawn at.
        pages: list of uint8 arrays, [height, width] where all colours of the config are grey, else [height, width, 3].

    `boxes`, `spans_in_box` and `page_size` speak of these pages' pixels unless another scale is given.
    """

    scale: float
    pages: list[np.ndarray]

    def __init__(self, typeset: TypesetDocument, scale: float, pages: list[np.ndarray]) -> None:
        self.__dict__.update({name: value for name, value in typeset.__dict__.items() if name != "lines"})
        self.scale = scale
        self.pages = pages

    def page_size(self, page: int, scale: float | None = None) -> tuple[int, int]:
        """(height, width) of a page in pixels."""
        return super().page_size(page, self.scale if scale is None else scale)

    def boxes(self, start: int, end: int, scale: float | None = None) -> list[tuple[int, Box]]:
        """[(page, (left, top, right, bottom)), ...] of characters [start, end) in pixels."""
        return super().boxes(start, end, self.scale if scale is None else scale)

    def spans_in_box(self, page: int, box: Box, scale: float | None = None) -> list[tuple[int, int]]:
        """Characters [(start, end), ...] that a pixel region of a page shows."""
        return super().spans_in_box(page, box, self.scale if scale is None else scale)


class PageRenderer:
    """Text to pages: `PageRenderer(config).render(text).pages`. Glyphs once drawn are kept for the next document."""

    def __init__(self, config: RenderConfig | None = None) -> None:
        self.config = config or RenderConfig()
        self.typesetter = Typesetter(self.config)
        self._atlases: OrderedDict[float, GlyphAtlas] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_atlases": OrderedDict()}

    def typeset(self, text: str) -> TypesetDocument:
        """Lay the text out without drawing it. A text without a visible character is a ValueError."""
        return self.typesetter.typeset(text)

    def render(self, text: str | TypesetDocument, scale: float = 1.0) -> RenderedDocument:
        """Typeset (unless that is done) and draw every page at scale times the config's dpi."""
        check_scale(scale)
        typeset = self.typeset(text) if isinstance(text, str) else text
        return RenderedDocument(typeset, scale, list(self.draw_pages(typeset, scale)))

    def draw_pages(self, typeset: TypesetDocument, scale: float = 1.0) -> Iterator[np.ndarray]:
        """Pages one at a time, so that a long document needs the memory of one page: uint8 [H, W] or [H, W, 3]."""
        check_scale(scale)
        for page in range(typeset.num_pages):
            yield self.draw_page(typeset, page, scale)

    def draw_page(self, typeset: TypesetDocument, page: int, scale: float = 1.0) -> np.ndarray:
        """One page: uint8 [H, W] where all colours are grey, else [H, W, 3]."""
        config = self.config
        if typeset.config != config:
            raise ValueError("the document was typeset with another RenderConfig; typeset it with this renderer")
        height, width = typeset.page_size(page, scale)
        if height * width > _LARGEST_PAGE:
            raise ValueError(
                f"scale={scale:g} makes a page of {width} x {height} pixels, more than {_LARGEST_PAGE}; lower it"
            )
        first, last = typeset.page_lines(page)
        rows, columns, keys, marked = self._glyphs(typeset, first, last, scale)
        atlas = self._atlas(typeset.fonts, typeset.pixels_per_point * scale)
        slots = atlas.find(keys, columns % PHASES)
        columns = columns // PHASES
        font_color, mark_color = _channels(config.font_color), _channels(config.newline_color or config.font_color)
        layers: list[tuple[tuple[int, int, int], Any]] = [(font_color, slice(None))]
        if mark_color != font_color:
            layers = [(font_color, ~marked), (mark_color, marked)]
        background = self._background(typeset, first, last, height, width, scale)
        inks = [(color, _blot(atlas, slots[part], rows[part], columns[part], height, width)) for color, part in layers]
        colors = (config.font_color, config.page_bg_color, config.para_bg_color, config.border_color)
        grey = all(_is_grey(color) for color in (*colors, config.newline_color or config.font_color))
        planes = []
        for channel in range(1 if grey else 3):
            plane = background[channel]
            for color, ink in inks:
                plane = _lay(plane, ink, color[channel])
            planes.append(plane)
        drawn = planes[0] if grey else np.stack(planes, axis=-1)
        return np.ascontiguousarray(np.broadcast_to(drawn, (height, width, 3) if not grey else (height, width)))

    def _glyphs(
        self, typeset: TypesetDocument, first: int, last: int, scale: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(baseline row, pen in quarter columns, key, stands for a newline) of each glyph on lines [first, last)."""
        down = typeset.pixels_per_point * scale
        across = down * self.config.horizontal_scale
        cells = typeset.cells(first, last)
        rows = typeset.baseline_rows(first, last, scale)
        drawn = cells.keys != NO_GLYPH
        index, line, keys = cells.index[drawn], cells.line[drawn] - first, cells.keys[drawn]
        left, row = cells.left[drawn], rows[line]
        shaped = typeset.shaped
        low, high = np.searchsorted(shaped.glyph_at, [typeset.line_starts[first], typeset.line_ends[last - 1]])
        if high > low:
            unit = typeset.config.font_size / typeset.fonts.units
            anchor = np.searchsorted(cells.index, shaped.glyph_at[low:high])
            left = np.append(left, cells.left[anchor] + shaped.right[low:high] * unit)
            raised = np.floor(shaped.up[low:high] * unit * down + 0.5).astype(np.int64)
            row = np.append(row, rows[cells.line[anchor] - first] - raised)
            keys = np.append(keys, shaped.keys[low:high])
            index = np.append(index, shaped.glyph_at[low:high])
        # Poppler cuts the pen's place down to a quarter of a pixel, where the nearest quarter would be nearer.
        nearest = 1e-4 if self.config.line_breaking == "reportlab" else 0.5
        quarters = np.floor(left * across * PHASES + nearest).astype(np.int64)
        if self.config.newline_color is None:
            return row, quarters, keys, np.zeros(len(keys), dtype=bool)
        return row, quarters, keys, typeset.is_mark(index)

    def _atlas(self, fonts: FontChain, pixels_per_point: float) -> GlyphAtlas:
        atlas = self._atlases.get(pixels_per_point)
        if atlas is None:
            config = self.config
            atlas = GlyphAtlas(fonts, config.font_size * pixels_per_point, config.horizontal_scale)
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
        down = typeset.pixels_per_point * scale
        across = down * config.horizontal_scale
        stroke = max(1, round(config.border_width * down)) if config.border_width else 0
        for left, top, right, bottom in typeset.blocks(first, last):
            x0, x1, y0, y1 = round(left * across), round(right * across), round(top * down), round(bottom * down)
            for plane, outer, inner in zip(planes, border, block, strict=True):
                if stroke:
                    plane[max(y0 - stroke, 0) : max(y1 + stroke, 0), max(x0 - stroke, 0) : max(x1 + stroke, 0)] = outer
                plane[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = inner
        return list(planes)


def _blot(
    atlas: GlyphAtlas, slots: np.ndarray, rows: np.ndarray, columns: np.ndarray, height: int, width: int
) -> np.ndarray:
    """The ink of glyphs with their pens at (rows, columns): uint8 [height, width]; where glyphs meet their ink adds
    up.
    """
    counts = atlas.counts[slots]
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    where = np.arange(total) + np.repeat(atlas.firsts[slots] - (ends - counts), counts)
    row = np.repeat(rows, counts) + atlas.rows[where]
    column = np.repeat(columns, counts) + atlas.columns[where]
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    target = row * width + column
    inks = atlas.inks[where]
    if not inside.all():
        target, inks = target[inside], inks[inside]
    ink = np.bincount(target, inks, minlength=height * width)
    return np.minimum(ink, 255).astype(np.uint8).reshape(height, width)


def _lay(background: int | np.ndarray, ink: np.ndarray, color: int) -> np.ndarray:
    """Colour over background where there is ink: uint8 [H, W]."""
    if isinstance(background, int) and background - color == 255:
        return np.asarray(255 - ink)
    if isinstance(background, int):
        levels = np.arange(256)
        return ((background * (255 - levels) + color * levels + 127) // 255).astype(np.uint8)[ink]
    amount = ink.astype(np.uint32)
    return ((background * (255 - amount) + color * amount + 127) // 255).astype(np.uint8)


def _channels(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def _is_grey(color: str) -> bool:
    return len(set(_channels(color))) == 1


# Evidence: what the tint multiplies the page by, and the outline.
_TINT = (255, 244, 200)
_OUTLINE = (214, 24, 24)


def mark_boxes(page_array: np.ndarray, boxes: Iterable[Box]) -> Image.Image:
    """The page as an RGB picture with each box (left, top, right, bottom, in the page's pixels) tinted and outlined.

    page_array: uint8 [H, W] or [H, W, 3]. The tint keeps dark text dark, and the outline runs just outside the box. A
    box that does not meet the page is a ValueError.
    """
    if page_array.dtype != np.uint8 or page_array.ndim not in (2, 3):
        raise ValueError(f"a page is a uint8 array [H, W] or [H, W, 3], not {page_array.dtype} {page_array.shape}")
    grey = page_array.ndim == 2
    pixels = np.repeat(page_array[:, :, None], 3, axis=2) if grey else page_array.copy()
    height, width = pixels.shape[:2]
    outlines = []
    for box in boxes:
        left, top = math.floor(box[0]), math.floor(box[1])
        right, bottom = math.ceil(box[2] - 1e-6), math.ceil(box[3] - 1e-6)
        if right <= 0 or bottom <= 0 or left >= width or top >= height or right < left or bottom < top:
            raise ValueError(f"box {tuple(box)} does not lie on the page of {width} x {height} pixels")
        region = pixels[max(top, 0) : bottom, max(left, 0) : right]
        region[:] = region.astype(np.uint16) * np.array(_TINT, dtype=np.uint16) // 255
        outlines.append((max(left - 1, 0), max(top - 1, 0), min(right, width - 1), min(bottom, height - 1)))
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    for outline in outlines:
        draw.rectangle(outline, outline=_OUTLINE)
    return picture
