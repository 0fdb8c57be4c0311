# SPDX-License-Identifier: Apache-2.0
"""Glyphs as pixels: outlines filled by exact area coverage, an atlas that keeps each glyph once it was drawn, and pages
put together from it.

No sampling and, unless a config asks for it, no hinting: the same glyph gives the same bytes everywhere.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

import numpy as np

from .characters import MISSING_GLYPH
from .fonts import FontChain
from .hinted_glyphs import HintedFace, pasted
from .line_table import joined_ranges

# Horizontal positions within a pixel at which a glyph is drawn.
PHASES = 4
# What is filled, and laid, at once, so that it stays in the processor's cache: glyphs and cells of the pixel grid; tiles.
_GLYPHS_AT_ONCE, _CELLS_AT_ONCE = 200, 1 << 18
_TILES_AT_ONCE = 1 << 10

_Point = tuple[float, float]


class _OutlinePen:
    """Collects outlines step by step: a point that begins a contour (order 0), a line's end (order 1), the two and
    three points of quadratic and cubic curves. HarfBuzz ends every contour where it began.
    """

    def __init__(self) -> None:
        self.orders: list[int] = []
        self.points: list[float] = []

    def moveTo(self, point: _Point) -> None:  # noqa: N802 (the pen protocol's names)
        self.orders.append(0)
        self.points += point

    def lineTo(self, point: _Point) -> None:  # noqa: N802
        self.orders.append(1)
        self.points += point

    def qCurveTo(self, control: _Point, point: _Point) -> None:  # noqa: N802
        self.orders.append(2)
        self.points += control + point

    def curveTo(self, one: _Point, two: _Point, point: _Point) -> None:  # noqa: N802
        self.orders.append(3)
        self.points += one + two + point

    def closePath(self) -> None:  # noqa: N802
        pass

    def edges(self, chords: int) -> tuple[np.ndarray, np.ndarray]:
        """Straight edges, `chords` to a curve: (complex128 [2, n], their ends as x + iy; the step that each is of)."""
        orders = np.array(self.orders, dtype=np.int64)
        points = np.array(self.points, dtype=np.float64).view(np.complex128)
        last = np.cumsum(np.maximum(orders, 1)) - 1
        edges, steps = [np.zeros((2, 0), dtype=np.complex128)], [np.zeros(0, dtype=np.int64)]
        for order in (1, 2, 3):
            step = np.flatnonzero(orders == order)
            if not len(step):
                continue
            count = chords if order > 1 else 1
            time = np.arange(count + 1) / count
            path = np.zeros((len(step), count + 1), dtype=np.complex128)
            for nth in range(order + 1):
                weight = math.comb(order, nth) * (1 - time) ** (order - nth) * time**nth
                path += points[last[step] - order + nth, None] * weight
            edges.append(np.stack([path[:, :-1].ravel(), path[:, 1:].ravel()]))
            steps.append(np.repeat(step, count))
        return np.concatenate(edges, axis=1), np.concatenate(steps)


def _cut(begins: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Stretches of a line cut at the whole numbers between their ends: (the stretch that each piece is of, where it
    begins, where it ends, which pieces are less than a stretch).
    """
    first = np.floor(np.minimum(begins, ends)) + 1
    count = np.maximum(np.ceil(np.maximum(begins, ends)) - first, 0)
    sizes = count.astype(np.int64) + 1
    owner = np.repeat(np.arange(len(sizes)), sizes)
    starts, stops = begins[owner], ends[owner]
    inner = np.flatnonzero(owner[1:] == owner[:-1])
    of = owner[inner]
    nth = inner - (np.cumsum(sizes) - sizes)[of]
    line = first[of] + np.where(stops[inner] > starts[inner], nth, count[of] - 1 - nth)
    stops[inner] = starts[inner + 1] = line
    return owner, starts, stops, np.flatnonzero(sizes[owner] > 1)


def fill_outlines(
    edges: np.ndarray, outline: np.ndarray, which: np.ndarray, shifts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    """Exact area coverage of closed outlines on the pixel grid (a box filter of one pixel, no hinting).

    edges: float64 [4, n] as (x0, y0, x1, y1) in pixels, y downwards; outline: int64 [n], ascending, which outline each
    is of. Image i shows outline which[i] moved to the right by shifts[i]. Returns (uint8 [images, h, w], int64
    [images], int): the images, the column where each begins and the row where all do.

    The signed area that each edge leaves to its right is added up cell by cell; the running sum along a row is the
    winding-weighted coverage.
    """
    slanted = edges[1] != edges[3]
    x0, y0, x1, y1 = edges[:, slanted]
    if not len(y0):
        return np.zeros((len(which), 1, 1), dtype=np.uint8), np.zeros(len(which), dtype=np.int64), 0
    # Pieces in one row each, which all images of an outline share.
    edge, ya, yb, _ = _cut(y0, y1)
    fall, across = (y1 - y0)[edge], (x1 - x0)[edge]
    xa, xb = (x0[edge] + across * ((y - y0[edge]) / fall) for y in (ya, yb))
    row = np.floor((ya + yb) / 2).astype(np.int64)
    top = int(row.min())
    height = int(row.max()) + 1 - top
    outline = outline[slanted][edge]
    counts = np.bincount(outline, minlength=int(which.max()) + 1)
    firsts, inked = np.cumsum(counts) - counts, counts > 0
    least = np.zeros(len(counts))
    least[inked] = np.minimum.reduceat(np.minimum(xa, xb), firsts[inked])
    lefts = np.floor(least[which] + shifts)
    # Pieces in one cell each.
    image = np.repeat(np.arange(len(which)), counts[which])
    piece = joined_ranges(firsts[which], counts[which])
    right = (shifts - lefts)[image]
    part, begins, ends, less = _cut(xa[piece] + right, xb[piece] + right)
    piece, image = piece[part], image[part]
    rise = (yb - ya)[piece]
    rise[less] *= (ends - begins)[less] / (xb - xa)[piece[less]]
    middle = (begins + ends) / 2
    column = middle.astype(np.int64)
    width = int(column.max()) + 2
    beyond = rise * (middle - column)
    cell = (image * height + (row - top)[piece]) * width + column
    size = len(which) * height * width
    cells = np.bincount(cell, rise - beyond, minlength=size)
    cells += np.bincount(cell + 1, beyond, minlength=size)
    area = np.abs(np.cumsum(cells.reshape(-1, width), axis=1))
    # Quantised twice, so that a last-bit difference between machines' sums cannot change a byte.
    images = np.floor(np.round(np.minimum(area, 1) * 255, 6) + 0.5).astype(np.uint8)
    return images.reshape(-1, height, width), lefts.astype(np.int64), top


@dataclass(frozen=True)
class TileSheet:
    """Glyphs as tiles: uint8 [n, columns, rows], columns first since glyphs follow each other from left to right; rows
    from `top` to `bottom`, relative to the baseline's row. A glyph wider than a tile has several, one after the other.

    lefts, counts: int64 [n], where a tile begins relative to the pen's column, and how many of its columns are the
    glyph's own. parts: int64 [n], how many tiles a glyph has, at its first one.
    """

    tiles: np.ndarray
    lefts: np.ndarray
    counts: np.ndarray
    parts: np.ndarray
    top: int
    bottom: int


class GlyphAtlas:
    """Every glyph that was needed at one size, drawn once for each phase and kept as tiles.

    sheet: all of them. A sheet never changes and tiles keep their numbers in the ones after it, so threads that share
    an atlas lay what `find` gave them with whatever sheet they see afterwards.
    """

    def __init__(self, fonts: FontChain, pixels_per_em: float, horizontal_scale: float = 1.0) -> None:
        self.fonts = fonts
        self.pixels_per_em = pixels_per_em
        self.horizontal_scale = horizontal_scale
        # By key and phase, the missing glyph first: tile + 1, or 0 while it was not drawn.
        self._slots = np.zeros(0, dtype=np.int32)
        tiles = np.zeros((0, math.ceil(pixels_per_em * horizontal_scale) + 1, 1), dtype=np.uint8)
        none = np.zeros(0, dtype=np.int64)
        self.sheet = TileSheet(tiles, none, none, none, 0, 1)
        self._drawing = threading.Lock()
        self._hinted = [HintedFace(face, pixels_per_em) for face in fonts.faces] if fonts.config.hinted else []

    def outlines(self, keys: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """The glyphs' edges in pixels at phase 0, baseline at 0, y downwards: (float64 [4, n], the glyph of each)."""
        pen, ends, factors = _OutlinePen(), [], []
        for key in keys:
            if key == MISSING_GLYPH:
                advance = self.fonts.missing_advance / self.fonts.units
                _draw_box(pen, advance * self.pixels_per_em, self.pixels_per_em)
                factors.append(1.0)
            else:
                face = self.fonts.faces[key >> 16]
                face.font.draw_glyph_with_pen(key & 0xFFFF, pen)
                factors.append(self.pixels_per_em / face.upem)
            ends.append(len(pen.orders))
        edges, steps = pen.edges(8 if self.pixels_per_em <= 32 else 16 if self.pixels_per_em <= 128 else 32)
        glyph = np.searchsorted(ends, steps, "right")
        order = np.argsort(glyph, kind="stable")
        edges, glyph = edges[:, order], glyph[order]
        edges *= np.array(factors)[glyph]
        across, down = edges.real * self.horizontal_scale, -edges.imag
        return np.stack([across[0], down[0], across[1], down[1]]), glyph

    def find(self, keys: np.ndarray, phases: np.ndarray) -> np.ndarray:
        """The first tiles of glyphs (key, phase), drawing those that are new. int64 [n]."""
        codes = (keys.astype(np.int64) - MISSING_GLYPH) * PHASES + phases
        if not len(codes):
            return codes
        most, slots = int(codes.max()), self._slots
        if most < len(slots) and (found := slots[codes]).all():
            return found.astype(np.int64) - 1
        with self._drawing:
            if most >= len(self._slots):
                more = max(most + 1, 2 * len(self._slots)) - len(self._slots)
                self._slots = np.append(self._slots, np.zeros(more, dtype=np.int32))
            slots = self._slots
            new = np.zeros(len(slots), dtype=bool)
            new[codes[slots[codes] == 0]] = True
            self._draw_new(np.flatnonzero(new))
        return slots[codes].astype(np.int64) - 1

    def _draw_new(self, codes: np.ndarray) -> None:
        at_once = max(1, min(_GLYPHS_AT_ONCE, int(_CELLS_AT_ONCE / (2 * self.pixels_per_em) ** 2)))
        sheets, firsts = [self.sheet], []
        first = len(self.sheet.parts)
        for number in range(0, len(codes), at_once):
            part = codes[number : number + at_once]
            drawn, parts = _cut_into_tiles(*self._images(part), self.sheet.tiles.shape[1])
            sheets.append(drawn)
            firsts.append(first + np.cumsum(parts) - parts)
            first += len(drawn.parts)
        if firsts:
            self.sheet = _joined_sheets(sheets)
            # Last: whoever finds a slot finds its tile.
            self._slots[codes] = np.concatenate(firsts) + 1

    def _images(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """Glyphs, each at its phase: what `fill_outlines` returns."""
        keys, phases = codes // PHASES + MISSING_GLYPH, codes % PHASES / PHASES
        unique, which = np.unique(keys, return_inverse=True)
        filled = fill_outlines(*self.outlines(unique.tolist()), which, phases)
        if not self._hinted:
            return filled
        glyphs = enumerate(zip(keys.tolist(), phases.tolist(), strict=True))
        hinted = {at: self._hinted[key >> 16].draw(key & 0xFFFF, phase) for at, (key, phase) in glyphs if key >= 0}
        return pasted(*filled, {at: image for at, image in hinted.items() if image is not None})


def _joined_sheets(sheets: list[TileSheet]) -> TileSheet:
    top, bottom = min(sheet.top for sheet in sheets), max(sheet.bottom for sheet in sheets)
    lefts, counts, parts = (
        np.concatenate([getattr(sheet, name) for sheet in sheets]) for name in ("lefts", "counts", "parts")
    )
    tiles = np.zeros((len(parts), sheets[0].tiles.shape[1], bottom - top), dtype=np.uint8)
    first = 0
    for sheet in sheets:
        rows = slice(sheet.top - top, sheet.bottom - top)
        tiles[first : first + len(sheet.tiles), :, rows] = sheet.tiles
        first += len(sheet.tiles)
    return TileSheet(tiles, lefts, counts, parts, top, bottom)


def _cut_into_tiles(images: np.ndarray, lefts: np.ndarray, top: int, span: int) -> tuple[TileSheet, np.ndarray]:
    """Images, uint8 [n, h, w], as tiles of `span` columns: (these, the parts of each image). Without blank columns at
    their sides fewer glyphs meet.
    """
    count, height, width = images.shape
    shown = np.any(images, axis=1)
    begins = shown.argmax(axis=1)
    ends = np.where(np.any(shown, axis=1), width - shown[:, ::-1].argmax(axis=1), begins)
    parts = np.maximum(-((begins - ends) // span), 1)
    owner = np.repeat(np.arange(count), parts)
    starts = joined_ranges(np.zeros_like(parts), parts) * span + begins[owner]
    counts = np.minimum(ends[owner] - starts, span)
    columns = np.zeros((count * width + 1, height), dtype=np.uint8)
    columns[:-1] = images.transpose(0, 2, 1).reshape(-1, height)
    nth = np.arange(span)
    source = np.where(nth < counts[:, None], (owner * width + starts)[:, None] + nth, count * width)
    tiles = columns.take(source, axis=0)
    return TileSheet(tiles, lefts[owner] + starts, counts, parts[owner], top, top + height), parts


def _draw_box(pen: _OutlinePen, width: float, height: float) -> None:
    """The replacement box: a hollow rectangle on the baseline."""
    stroke = max(height * 0.07, 0.5)
    left, right, top, bottom = width * 0.1, width * 0.9, height * 0.72, -height * 0.02
    outer = [(left, top), (right, top), (right, bottom), (left, bottom)]
    inner = [(left + stroke, top - stroke), (left + stroke, bottom + stroke)]
    inner += [(right - stroke, bottom + stroke), (right - stroke, top - stroke)]
    for ring in (outer, inner):
        pen.moveTo(ring[0])
        for point in (*ring[1:], ring[0]):
            pen.lineTo(point)


def lay_glyphs(
    sheet: TileSheet, tiles: np.ndarray, rows: np.ndarray, pens: np.ndarray, height: int, width: int
) -> np.ndarray:
    """The ink of glyphs with their pens at (rows, pens): uint8 [height, width]; where glyphs meet their ink adds up.

    tiles: what `GlyphAtlas.find` gave. Glyphs on one baseline make a strip, kept column by column like the tiles; then
    the rows of all strips are laid on the page.
    """
    ink = np.zeros((height, width), dtype=np.uint8)
    if sheet.parts.max(initial=1) > 1:
        parts = sheet.parts[tiles]
        tiles, rows, pens = joined_ranges(tiles, parts), np.repeat(rows, parts), np.repeat(pens, parts)
    span, tall = sheet.tiles.shape[1:]
    begins = pens + sheet.lefts[tiles]
    if begins.min(initial=0) <= -span or begins.max(initial=0) >= width:
        inside = (begins > -span) & (begins < width)
        tiles, rows, begins = tiles[inside], rows[inside], begins[inside]
    # Marks that are stacked may stand far above the page, each on a row of its own.
    if len(rows) and (rows.min() + sheet.bottom <= 0 or rows.max() + sheet.top >= height):
        inside = (rows + sheet.bottom > 0) & (rows + sheet.top < height)
        tiles, rows, begins = tiles[inside], rows[inside], begins[inside]
    if not len(tiles):
        return ink
    base = int(rows.min())
    present = np.zeros(int(rows.max()) - base + 1, dtype=bool)
    present[rows - base] = True
    baselines = np.flatnonzero(present) + base
    # Room for a tile at both sides.
    pitch = span + width + span
    places = ((np.cumsum(present) - 1) * pitch + span)[rows - base] + begins
    strips = _lay_tiles(sheet, tiles, places, len(baselines) * pitch).reshape(-1, pitch, tall)
    lined = np.ascontiguousarray(strips[:, span : span + width].transpose(0, 2, 1)).reshape(-1, width)
    at = (baselines[:, None] + np.arange(sheet.top, sheet.bottom)).reshape(-1)
    if at[0] < 0 or at[-1] >= height:
        inside = (at >= 0) & (at < height)
        at, lined = at[inside], lined[inside]
    _whole(ink)[at] = _whole(lined)
    again = _again(at, height)
    _add(ink, at[again], lined[again])
    return ink


def _lay_tiles(sheet: TileSheet, tiles: np.ndarray, places: np.ndarray, columns: int) -> np.ndarray:
    """Tiles whose first columns are at `places` of so many: uint8 [columns, rows].

    A tile is one stretch of memory, moved whole, from left to right: its blank rest comes under the next. What of a
    glyph comes under the next is added again.
    """
    span, tall = sheet.tiles.shape[1:]
    if np.any(places[1:] < places[:-1]):
        order = np.argsort(places, kind="stable")
        tiles, places = tiles[order], places[order]
    strips = np.zeros((columns, tall), dtype=np.uint8)
    images = _whole(sheet.tiles.reshape(-1, span * tall))
    windows = np.ndarray(columns - span + 1, images.dtype, strips, strides=(tall,))
    for first in range(0, len(tiles), _TILES_AT_ONCE):
        part = slice(first, first + _TILES_AT_ONCE)
        windows[places[part]] = images[tiles[part]]
    counts = sheet.counts[tiles]
    covered = (places + counts)[:-1] - places[1:]
    meeting = np.flatnonzero(covered > 0)
    covered = covered[meeting]
    source = joined_ranges((tiles * span + counts)[meeting] - covered, covered)
    _add(strips, joined_ranges(places[meeting + 1], covered), sheet.tiles.reshape(-1, tall).take(source, axis=0))
    return strips


def _whole(items: np.ndarray) -> np.ndarray:
    """uint8 [n, size] as n items, which numpy moves in one go."""
    return items.view(np.dtype((np.void, items.shape[1])))[:, 0]


def _again(at: np.ndarray, size: int) -> np.ndarray:
    """Which of the places, below size, come again further on: bool."""
    number, last = np.arange(len(at)), np.empty(size, dtype=np.int64)
    last[at] = number
    return np.asarray(last[at] != number)


def _add(canvas: np.ndarray, at: np.ndarray, items: np.ndarray) -> None:
    """Add items, uint8 [n, size], to canvas[at], where 255 is the most."""
    again = _again(at, len(canvas))
    if again.any():
        # Any number may have one place: theirs are summed up before.
        order = np.argsort(at[again], kind="stable")
        places, more = at[again][order], items[again][order]
        firsts = np.flatnonzero(np.append(True, places[1:] != places[:-1]))
        sums = np.add.reduceat(more, firsts, axis=0, dtype=np.uint32)
        _add(canvas, places[firsts], np.minimum(sums, 255).astype(np.uint8))
        at, items = at[~again], items[~again]
    there = canvas.take(at, axis=0)
    there += np.minimum(items, ~there)
    _whole(canvas)[at] = _whole(there)
