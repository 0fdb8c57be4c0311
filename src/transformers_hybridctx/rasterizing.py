# SPDX-License-Identifier: Apache-2.0
"""Rasterising: typeset lines become uint8 pages, at any scale."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from .typesetting import (
    BUNDLED_MONO,
    MISSING_GLYPH,
    NO_GLYPH,
    FontChain,
    RenderConfig,
    TypesetDocument,
    Typesetter,
    code_points,
)

PHASES = 4


class _OutlinePen:
    """Collects a glyph's outline as line segments in font units; curves become `steps` chords."""

    def __init__(self, steps: int) -> None:
        self.points: list[tuple[float, float, float, float]] = []
        self.times = [step / steps for step in range(1, steps + 1)]
        self.here = self.begin = (0.0, 0.0)

    def moveTo(self, point: tuple[float, float]) -> None:  # noqa: N802 (the pen protocol's names)
        self.closePath()
        self.here = self.begin = point

    def lineTo(self, point: tuple[float, float]) -> None:  # noqa: N802
        self.points.append((*self.here, *point))
        self.here = point

    def qCurveTo(self, control: tuple[float, float], point: tuple[float, float]) -> None:  # noqa: N802
        (x0, y0), (x1, y1), (x2, y2) = self.here, control, point
        for t in self.times:
            a, b, c = (1 - t) * (1 - t), 2 * t * (1 - t), t * t
            self.lineTo((a * x0 + b * x1 + c * x2, a * y0 + b * y1 + c * y2))

    def curveTo(self, one: tuple[float, float], two: tuple[float, float], point: tuple[float, float]) -> None:  # noqa: N802
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
    """Every glyph that was needed, drawn once for each quarter-pixel phase, kept as its inked pixels only."""

    def __init__(self, fonts: FontChain, pixels_per_em: float, stride: int) -> None:
        self.fonts = fonts
        self.pixels_per_em = pixels_per_em
        self.stride = stride
        self.slots: dict[int, int] = {}
        self.offsets = np.zeros(0, dtype=np.int64)
        self.inks = np.zeros(0, dtype=np.uint8)
        self.firsts = np.zeros(0, dtype=np.int64)
        self.counts = np.zeros(0, dtype=np.int64)

    def segments(self, key: int) -> np.ndarray:
        """The outline in pixels at phase 0, baseline at 0, y downwards: float64 [n, 4]."""
        if key == MISSING_GLYPH:
            advance = self.fonts.missing_advance / self.fonts.units
            return _box_outline(advance * self.pixels_per_em, self.pixels_per_em)
        face = self.fonts.faces[key >> 16]
        steps = 8 if self.pixels_per_em <= 32 else 16 if self.pixels_per_em <= 128 else 32
        pen = _OutlinePen(steps)
        face.font.draw_glyph_with_pen(key & 0xFFFF, pen)
        pen.closePath()
        segments = np.asarray(pen.points, dtype=np.float64).reshape(-1, 4) * (self.pixels_per_em / face.upem)
        return segments * np.array([1.0, -1.0, 1.0, -1.0])

    def find(self, keys: np.ndarray, phases: np.ndarray) -> np.ndarray:
        """Slots of glyphs (key, phase), drawing those that are new."""
        codes = keys.astype(np.int64) * PHASES + phases
        unique, inverse = np.unique(codes, return_inverse=True)
        slots = np.empty(len(unique), dtype=np.int64)
        drawn: list[tuple[np.ndarray, np.ndarray]] = []
        for position, code in enumerate(unique.tolist()):
            if code not in self.slots:
                key, phase = code // PHASES, code % PHASES
                image, left, top = fill_outline(self.segments(key) + np.array([phase / PHASES, 0, phase / PHASES, 0]))
                rows, columns = np.nonzero(image)
                drawn.append(((rows + top) * self.stride + columns + left, image[rows, columns]))
                self.slots[code] = len(self.firsts) + len(drawn) - 1
            slots[position] = self.slots[code]
        if drawn:
            counts = np.array([len(ink) for _, ink in drawn])
            self.firsts = np.concatenate([self.firsts, len(self.inks) + np.cumsum(counts) - counts])
            self.counts = np.concatenate([self.counts, counts])
            self.offsets = np.concatenate([self.offsets, *(offset for offset, _ in drawn)])
            self.inks = np.concatenate([self.inks, *(ink for _, ink in drawn)])
        return slots[inverse]


def _box_outline(width: float, height: float) -> np.ndarray:
    """The replacement box: a hollow rectangle on the baseline."""
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
    def __init__(self, typeset: TypesetDocument, scale: float, pages: list[np.ndarray]) -> None:
        self.__dict__.update(typeset.__dict__)
        self.scale = scale
        self.pages = pages


class PageRenderer:
    def __init__(self, config: RenderConfig | None = None) -> None:
        self.config = config or RenderConfig()
        self.typesetter = Typesetter(self.config)
        self._atlases: dict[tuple[float, int], GlyphAtlas] = {}

    def typeset(self, text: str) -> TypesetDocument:
        return self.typesetter.typeset(text)

    def render(self, text: str | TypesetDocument, scale: float = 1.0) -> RenderedDocument:
        typeset = self.typeset(text) if isinstance(text, str) else text
        return RenderedDocument(typeset, scale, list(self.draw_pages(typeset, scale)))

    def draw_pages(self, typeset: TypesetDocument, scale: float = 1.0) -> Iterator[np.ndarray]:
        for page in range(typeset.num_pages):
            yield self._draw_page(typeset, page, scale)

    def _draw_page(self, typeset: TypesetDocument, page: int, scale: float) -> np.ndarray:
        config, fonts = typeset.config, typeset.fonts
        height, width = typeset.page_size(page, scale)
        ppp = typeset.pixels_per_point * scale
        pad = math.ceil(2 * config.font_size * ppp) + 2
        stride = width + 2 * pad
        atlas = self._atlases.setdefault((ppp, stride), GlyphAtlas(fonts, config.font_size * ppp, stride))
        first, last = typeset.page_lines(page)
        starts, ends = typeset.starts[first:last], typeset.ends[first:last]
        base = int(starts[0])
        codes = code_points(typeset.text[base : int(ends[-1]) + 1])
        widths = fonts.advances[codes]
        keys = fonts.keys[codes]
        crlf = np.flatnonzero((codes[:-1] == 0x0D) & (codes[1:] == 0x0A))
        widths[crlf] = 0
        keys[crlf] = NO_GLYPH
        pen = np.concatenate([[0], np.cumsum(widths)])
        lengths = ends - starts
        line = np.repeat(np.arange(last - first), lengths)
        index = np.repeat(starts - base, lengths) + np.arange(len(line)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        drawn = keys[index] != NO_GLYPH
        index, line = index[drawn], line[drawn]
        x = config.margin_x + (pen[index] - pen[starts[line] - base]) * (config.font_size / fonts.units)
        face = fonts.faces[0]
        ascent = face.ascender / face.upem * config.font_size
        descent = face.descender / face.upem * config.font_size
        baseline = config.margin_y + line * config.line_height + (config.line_height - ascent - descent) / 2 + ascent
        quarter = np.floor(x * ppp * PHASES + 0.5).astype(np.int64)
        row = np.floor(baseline * ppp + 0.5).astype(np.int64)
        slots = atlas.find(keys[index], quarter % PHASES)
        corner = (row + pad) * stride + quarter // PHASES + pad
        counts = atlas.counts[slots]
        total = int(counts.sum())
        where = np.arange(total) + np.repeat(atlas.firsts[slots] - (np.cumsum(counts) - counts), counts)
        target = np.repeat(corner, counts) + atlas.offsets[where]
        canvas_height = height + 2 * pad
        target_ok = (target >= 0) & (target < canvas_height * stride)
        ink = np.bincount(target[target_ok], atlas.inks[where][target_ok], minlength=canvas_height * stride)
        ink = np.minimum(ink, 255).astype(np.uint8).reshape(canvas_height, stride)
        return 255 - ink[pad : pad + height, pad : pad + width]
