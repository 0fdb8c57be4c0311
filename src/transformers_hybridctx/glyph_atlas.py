# SPDX-License-Identifier: Apache-2.0
"""Glyphs as pixels: outlines filled by exact area coverage, and an atlas that keeps each glyph once it was drawn.

No hinting, no sampling, no rasteriser of the machine's own, so the same glyph gives the same bytes everywhere.
"""

from __future__ import annotations

import numpy as np

from .font_chain import MISSING_GLYPH, FontChain
from .typeset_document import joined_ranges

# Horizontal positions within a pixel at which a glyph is drawn.
PHASES = 4

_Point = tuple[float, float]


class _OutlinePen:
    """Collects the outlines of glyphs in font units, piece by piece: (order, control points) of lines and curves."""

    def __init__(self) -> None:
        self.lines: list[tuple[float, ...]] = []
        self.quadratics: list[tuple[float, ...]] = []
        self.cubics: list[tuple[float, ...]] = []
        self.here = self.begin = (0.0, 0.0)
        self.order = 0

    def moveTo(self, point: _Point) -> None:  # noqa: N802 (the pen protocol's names)
        self.closePath()
        self.here = self.begin = point

    def lineTo(self, point: _Point) -> None:  # noqa: N802
        self.lines.append((self.order, *self.here, *point))
        self.order += 1
        self.here = point

    def qCurveTo(self, control: _Point, point: _Point) -> None:  # noqa: N802
        self.quadratics.append((self.order, *self.here, *control, *point))
        self.order += 1
        self.here = point

    def curveTo(self, one: _Point, two: _Point, point: _Point) -> None:  # noqa: N802
        self.cubics.append((self.order, *self.here, *one, *two, *point))
        self.order += 1
        self.here = point

    def closePath(self) -> None:  # noqa: N802
        if self.here != self.begin:
            self.lineTo(self.begin)

    def end_glyph(self) -> int:
        """Close the glyph that was drawn; returns how many pieces there are now."""
        self.closePath()
        self.here = self.begin = (0.0, 0.0)
        return self.order

    def segments(self, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """All outlines as line segments in order, curves as `steps` chords: float64 [n, 4] as (x0, y0, x1, y1), and
        the piece that each is of.
        """
        t = np.arange(1, steps + 1) / steps
        s = 1 - t
        curves = (
            (self.lines, [np.ones(1)]),
            (self.quadratics, [s * s, 2 * s * t, t * t]),
            (self.cubics, [s * s * s, 3 * s * s * t, 3 * s * t * t, t * t * t]),
        )
        orders, parts = [np.zeros(0)], [np.zeros((0, 4))]
        for pieces, weights in curves:
            if not pieces:
                continue
            table = np.array(pieces, dtype=np.float64)
            points = table[:, 1:].reshape(len(table), -1, 2)
            drawn = points[:, 1:] if pieces is self.lines else points
            terms = [drawn[:, n, None, :] * weight[:, None] for n, weight in enumerate(weights)]
            ends = sum(terms[1:], start=terms[0])
            begins = np.concatenate([points[:, :1], ends[:, :-1]], axis=1)
            parts.append(np.concatenate([begins, ends], axis=2).reshape(-1, 4))
            orders.append(np.repeat(table[:, 0], ends.shape[1]))
        order = np.concatenate(orders)
        by_order = np.argsort(order, kind="stable")
        return np.concatenate(parts)[by_order], order[by_order]


def fill_outline(segments: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Exact area coverage of a closed outline on the pixel grid (a box filter of one pixel, no hinting).

    segments: float64 [n, 4] as (x0, y0, x1, y1) in pixels, y downwards. Returns (uint8 [h, w], left, top), without blank
    columns at its sides.
    """
    return fill_outlines([segments])[0]


def fill_outlines(outlines: list[np.ndarray]) -> list[tuple[np.ndarray, int, int]]:
    """`fill_outline` of many outlines at once.

    The signed area that each edge leaves to its right is added up cell by cell; the running sum along a row is the
    winding-weighted coverage. Outlines lie below one another on a canvas, so none meets another's rows.
    """
    images = [(np.zeros((0, 0), dtype=np.uint8), 0, 0)] * len(outlines)
    edges = np.concatenate([np.zeros((0, 4)), *outlines])
    slanted = edges[:, 1] != edges[:, 3]
    owner = np.repeat(np.arange(len(outlines)), [len(outline) for outline in outlines])[slanted]
    inked, sizes = np.unique(owner, return_counts=True)
    if not len(inked):
        return images
    glyph = np.repeat(np.arange(len(inked)), sizes)
    x0, y0, x1, y1 = edges[slanted].T
    firsts = np.cumsum(sizes) - sizes
    lefts = np.floor(np.minimum.reduceat(np.minimum(x0, x1), firsts)).astype(np.int64)
    tops = np.floor(np.minimum.reduceat(np.minimum(y0, y1), firsts)).astype(np.int64)
    widths = np.floor(np.maximum.reduceat(np.maximum(x0, x1), firsts)).astype(np.int64) + 2 - lefts
    heights = np.floor(np.maximum.reduceat(np.maximum(y0, y1), firsts)).astype(np.int64) + 1 - tops
    x0, x1, y0, y1 = x0 - lefts[glyph], x1 - lefts[glyph], y0 - tops[glyph], y1 - tops[glyph]
    # Cut every edge where it crosses a grid line, so that each piece lies in one cell.
    number = np.arange(len(x0))
    cuts = [np.zeros(len(x0)), np.ones(len(x0))]
    owners = [number, number]
    for begin, end in ((x0, x1), (y0, y1)):
        low, high = np.minimum(begin, end), np.maximum(begin, end)
        first = np.floor(low).astype(np.int64) + 1
        count = np.maximum(np.ceil(high).astype(np.int64) - first, 0)
        owner = np.repeat(number, count)
        line = joined_ranges(first, count)
        owners.append(owner)
        cuts.append((line - begin[owner]) / (end - begin)[owner])
    owner, time = np.concatenate(owners), np.concatenate(cuts)
    order = np.lexsort((time, owner))
    owner, time = owner[order], time[order]
    x = x0[owner] + (x1 - x0)[owner] * time
    y = y0[owner] + (y1 - y0)[owner] * time
    same = owner[1:] == owner[:-1]
    xa, xb, ya, yb = x[:-1][same], x[1:][same], y[:-1][same], y[1:][same]
    piece = glyph[owner[:-1][same]]
    middle_x, middle_y, rise = (xa + xb) / 2, (ya + yb) / 2, yb - ya
    column = np.clip(np.floor(middle_x).astype(np.int64), 0, widths[piece] - 2)
    row = np.clip(np.floor(middle_y).astype(np.int64), 0, heights[piece] - 1)
    beyond = rise * (middle_x - column)
    width, bottoms = int(widths.max()), np.cumsum(heights)
    cell = (row + (bottoms - heights)[piece]) * width + column
    size = int(bottoms[-1]) * width
    cells = np.bincount(cell, rise - beyond, minlength=size)
    cells += np.bincount(cell + 1, beyond, minlength=size)
    area = np.abs(np.cumsum(cells.reshape(-1, width), axis=1))
    # Quantised twice, so that a last-bit difference between machines' sums cannot change a byte.
    canvas = np.floor(np.round(np.minimum(area, 1) * 255, 6) + 0.5).astype(np.uint8)
    # Without blank columns at their sides fewer glyphs meet.
    shown = np.logical_or.reduceat(canvas != 0, bottoms - heights, axis=0)
    begins = shown.argmax(axis=1)
    ends = np.where(shown.any(axis=1), width - shown[:, ::-1].argmax(axis=1), begins)
    places = np.stack([inked, bottoms - heights, bottoms, begins, ends, lefts + begins, tops], axis=1)
    for at, high, low, begin, end, left, top in places.tolist():
        images[at] = canvas[high:low, begin:end], left, top
    return images


class GlyphAtlas:
    """Every glyph that was needed at one size, drawn once for each phase and kept column by column.

    columns: uint8 [n, rows], the first of them blank, with rows from `top` to `bottom` (relative to the baseline's row)
    and blank ones below. Slot n is columns firsts[n] to firsts[n] + counts[n], to be laid from lefts[n] (relative to
    the pen's column).
    """

    def __init__(self, fonts: FontChain, pixels_per_em: float, horizontal_scale: float = 1.0) -> None:
        self.fonts = fonts
        self.pixels_per_em = pixels_per_em
        self.stretch = np.array([horizontal_scale, 1.0, horizontal_scale, 1.0])
        # By key and phase, the missing glyph first: slot + 1, or 0 while it was not drawn.
        self._slots = np.zeros(0, dtype=np.int32)
        self.top = self.bottom = 0
        self.columns = np.zeros((1, 8), dtype=np.uint8)
        self.firsts = np.zeros(0, dtype=np.int64)
        self.counts = np.zeros(0, dtype=np.int64)
        self.lefts = np.zeros(0, dtype=np.int64)

    def segments(self, keys: list[int]) -> list[np.ndarray]:
        """The outline of each glyph in pixels at phase 0, baseline at 0, y downwards: float64 [n, 4]."""
        pen, ends, factors = _OutlinePen(), [], []
        for key in keys:
            if key != MISSING_GLYPH:
                face = self.fonts.faces[key >> 16]
                face.font.draw_glyph_with_pen(key & 0xFFFF, pen)
                factors.append(self.pixels_per_em / face.upem)
            else:
                factors.append(1.0)
            ends.append(pen.end_glyph())
        steps = 8 if self.pixels_per_em <= 32 else 16 if self.pixels_per_em <= 128 else 32
        segments, piece = pen.segments(steps)
        cuts = np.searchsorted(piece, ends)
        segments *= np.repeat(factors, np.diff(cuts, prepend=0))[:, None]
        outlines = np.split(segments * np.array([1.0, -1.0, 1.0, -1.0]) * self.stretch, cuts[:-1])
        advance = self.fonts.missing_advance / self.fonts.units
        box = _box_outline(advance * self.pixels_per_em, self.pixels_per_em) * self.stretch
        return [box if key == MISSING_GLYPH else outline for key, outline in zip(keys, outlines, strict=True)]

    def draw(self, key: int, phase: int) -> tuple[np.ndarray, int, int]:
        """One glyph with its pen `phase` quarters into a pixel: (uint8 [h, w], left, top) relative to the pen."""
        return fill_outline(self.segments([key])[0] + np.array([phase / PHASES, 0.0, phase / PHASES, 0.0]))

    def find(self, keys: np.ndarray, phases: np.ndarray) -> np.ndarray:
        """Slots of glyphs (key, phase), drawing those that are new. int64 [n]."""
        codes = (keys.astype(np.int64) - MISSING_GLYPH) * PHASES + phases
        if not len(codes):
            return codes
        if (most := int(codes.max())) >= len(self._slots):
            more = max(most + 1, 2 * len(self._slots)) - len(self._slots)
            self._slots = np.append(self._slots, np.zeros(more, dtype=np.int32))
        slots = self._slots[codes]
        if not slots.all():
            self._draw_new(np.unique(codes[slots == 0]))
            slots = self._slots[codes]
        return slots.astype(np.int64) - 1

    def _draw_new(self, codes: np.ndarray) -> None:
        keys, which = np.unique(codes // PHASES + MISSING_GLYPH, return_inverse=True)
        outlines = self.segments(keys.tolist())
        shifts = (codes % PHASES / PHASES).tolist()
        placed = [
            outlines[number] + np.array([shift, 0.0, shift, 0.0])
            for number, shift in zip(which.tolist(), shifts, strict=True)
        ]
        images = fill_outlines(placed)
        top = min(self.top, *(image_top for _, _, image_top in images))
        bottom = max(self.bottom, *(image_top + image.shape[0] for image, _, image_top in images))
        # Columns of 8, 16 or 32 bytes are copied in one move.
        rows = bottom - top
        rows = 8 if rows <= 8 else 16 if rows <= 16 else -(-rows // 32) * 32
        counts = np.array([image.shape[1] for image, _, _ in images], dtype=np.int64)
        columns = np.zeros((len(self.columns) + int(counts.sum()), rows), dtype=np.uint8)
        above = self.top - top
        used = self.bottom - self.top
        columns[: len(self.columns), above : above + used] = self.columns[:, :used]
        first = len(self.columns)
        self.firsts = np.append(self.firsts, first + np.cumsum(counts) - counts)
        for image, _, image_top in images:
            columns[first : first + image.shape[1], image_top - top : image_top - top + image.shape[0]] = image.T
            first += image.shape[1]
        self.columns, self.top, self.bottom = columns, top, bottom
        self._slots[codes] = np.arange(len(self.counts), len(self.counts) + len(codes)) + 1
        self.counts = np.append(self.counts, counts)
        self.lefts = np.append(self.lefts, np.array([left for _, left, _ in images], dtype=np.int64))


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


def lay_glyphs(
    atlas: GlyphAtlas, slots: np.ndarray, rows: np.ndarray, pens: np.ndarray, height: int, width: int
) -> np.ndarray:
    """The ink of glyphs with their pens at (rows, pens): uint8 [height, width]; where glyphs meet their ink adds up.

    Glyphs on one baseline make a strip. Which column of the atlas each column of each strip shows is found first; then
    whole columns are copied. Where several glyphs claim a column, one is copied and the others are added to it.
    """
    ink = np.zeros((height, width), dtype=np.uint8)
    if not len(slots):
        return ink
    begins = pens + atlas.lefts[slots]
    counts = atlas.counts[slots]
    base = int(rows.min())
    present = np.zeros(int(rows.max()) - base + 1, dtype=bool)
    present[rows - base] = True
    baselines = np.flatnonzero(present) + base
    strip = (np.cumsum(present) - 1)[rows - base]
    total = int(counts.sum())
    entry = np.arange(total)
    before = np.cumsum(counts) - counts
    source = entry + np.repeat(atlas.firsts[slots] - before, counts)
    target = entry + np.repeat(strip * width + begins - before, counts)
    if int(begins.min()) < 0 or int((begins + counts).max()) > width:
        column = entry + np.repeat(begins - before, counts)
        inside = (column >= 0) & (column < width)
        source, target = source[inside], target[inside]
        entry = entry[: len(source)]
    claim = np.full(len(baselines) * width, -1)
    claim[target] = entry
    shown = np.append(source, 0)[claim]
    strips = atlas.columns.take(shown, axis=0)
    lost = np.flatnonzero(claim[target] != entry)
    while len(lost):
        claim[target[lost]] = lost
        wins = claim[target[lost]] == lost
        where, added = target[lost[wins]], atlas.columns.take(source[lost[wins]], axis=0)
        there = strips.take(where, axis=0)
        there += np.minimum(added, ~there)
        # As one item a column, which numpy moves whole.
        whole = np.dtype((np.void, strips.shape[1]))
        strips.view(whole)[where] = there.view(whole)
        lost = lost[~wins]
    strips = strips.reshape(len(baselines), width, -1)
    filled = 0
    for baseline, columns in zip(baselines.tolist(), strips, strict=True):
        top, bottom = max(baseline + atlas.top, 0), min(baseline + atlas.bottom, height)
        if top >= bottom:
            continue
        pixels = columns.T[top - baseline - atlas.top : bottom - baseline - atlas.top]
        met = min(max(filled - top, 0), bottom - top)
        if met:
            there = ink[top : top + met]
            there += np.minimum(pixels[:met], ~there)
        ink[top + met : bottom] = pixels[met:]
        filled = max(filled, bottom)
    return ink
