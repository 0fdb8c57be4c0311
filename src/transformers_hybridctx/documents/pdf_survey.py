# SPDX-License-Identifier: Apache-2.0
"""What is on a PDF's page: how much of it pictures cover, and whether its text can be taken as PDFium gives it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from ctypes import c_float, c_int, c_uint
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pypdfium2.raw as pdfium

from .pdf_characters import Box

SMALLEST_SIZE = 1.0
"""Text below this size, in points, is never seen."""
LIGHT = 200
"""Text of which no channel of red, green and blue is below this may be as light as its paper."""

PAINTED_TWICE = 0.12
"""Share of its height by which a character, at most, lies beside the same one that was painted before for looks."""

_GRID = 64
_NEAR = 8.0
_MOST_DEPTH = 16
_MOST_COVERS = 200
_SMALLEST_COVER = 6.0


class _Matrix(NamedTuple):
    a: float
    b: float
    c: float
    d: float
    e: float
    f: float

    def then(self, outer: _Matrix) -> _Matrix:
        a, b, c, d, e, f = self
        return _Matrix(
            a * outer.a + b * outer.c,
            a * outer.b + b * outer.d,
            c * outer.a + d * outer.c,
            c * outer.b + d * outer.d,
            e * outer.a + f * outer.c + outer.e,
            e * outer.b + f * outer.d + outer.f,
        )

    def bounds(self, left: float, bottom: float, right: float, top: float) -> Box:
        xs = [self.a * x + self.c * y + self.e for x in (left, right) for y in (bottom, top)]
        ys = [self.b * x + self.d * y + self.f for x in (left, right) for y in (bottom, top)]
        return min(xs), min(ys), max(xs), max(ys)


_IDENTITY = _Matrix(1, 0, 0, 1, 0, 0)


@dataclass(frozen=True)
class PageSurvey:
    """What is on a page.

    Attributes:
        box: the part of the page that is shown, in its own coordinates (before /Rotate).
        covered: bool [64, 64], from the bottom left: where pictures are.
        is_plain: all text is upright, painted in a dark colour, inside the page, not covered afterwards, painted once.
        is_drawn: there is anything but text.
        num_paths: lines and shapes.
    """

    box: Box
    covered: np.ndarray
    is_plain: bool
    is_drawn: bool
    num_paths: int = 0

    @property
    def coverage(self) -> float:
        """Share of the page that pictures cover."""
        return float(self.covered.mean())

    def is_covered(self, x: float, y: float) -> bool:
        left, bottom, right, top = self.box
        column = int((x - left) / max(right - left, 1e-6) * _GRID)
        row = int((y - bottom) / max(top - bottom, 1e-6) * _GRID)
        return 0 <= column < _GRID and 0 <= row < _GRID and bool(self.covered[row, column])

    def holds(self, x: float, y: float) -> bool:
        left, bottom, right, top = self.box
        return left <= x <= right and bottom <= y <= top


def survey(page: Any) -> PageSurvey:
    """Look at all objects of a page once; nothing is drawn."""
    box = page.get_bbox()
    covered = np.zeros((_GRID, _GRID), dtype=bool)
    found = PageSurvey(box, covered, True, False)
    is_plain, is_drawn = page.get_rotation() == 0, False
    texts: list[Box] = []
    covers = paths = 0
    for item, outer in _objects(page, None, _IDENTITY, 0):
        kind = pdfium.FPDFPageObj_GetType(item)
        if kind == pdfium.FPDF_PAGEOBJ_TEXT:
            matrix = _matrix_of(item).then(outer)
            texts.append(outer.bounds(*_bounds_of(item)))
            is_plain = is_plain and found.holds(matrix.e, matrix.f) and _is_plain_text(item, matrix)
            continue
        is_drawn = is_drawn or kind != pdfium.FPDF_PAGEOBJ_FORM
        paths += kind == pdfium.FPDF_PAGEOBJ_PATH
        if kind == pdfium.FPDF_PAGEOBJ_IMAGE:
            shown = _matrix_of(item).then(outer).bounds(0, 0, 1, 1)
            _cover(covered, box, shown)
        elif kind == pdfium.FPDF_PAGEOBJ_PATH and _is_filled(item):
            shown = outer.bounds(*_bounds_of(item))
        else:
            continue
        if is_plain and texts and covers < _MOST_COVERS:
            covers += 1
            is_plain = not _hides(shown, texts)
    return PageSurvey(box, covered, is_plain and not _is_painted_twice(texts), is_drawn, paths)


def _objects(page: Any, form: Any, outer: _Matrix, depth: int) -> Iterator[tuple[Any, _Matrix]]:
    """(object, the matrix from its own coordinates to the page's), objects of forms included."""
    count, get = (
        (pdfium.FPDFPage_CountObjects, pdfium.FPDFPage_GetObject)
        if form is None
        else (pdfium.FPDFFormObj_CountObjects, pdfium.FPDFFormObj_GetObject)
    )
    holder = page if form is None else form
    for index in range(max(0, count(holder))):
        item = get(holder, index)
        if not item:
            continue
        yield item, outer
        if pdfium.FPDFPageObj_GetType(item) == pdfium.FPDF_PAGEOBJ_FORM and depth < _MOST_DEPTH:
            yield from _objects(page, item, _matrix_of(item).then(outer), depth + 1)


def _matrix_of(item: Any) -> _Matrix:
    matrix = pdfium.FS_MATRIX()
    pdfium.FPDFPageObj_GetMatrix(item, matrix)
    return _Matrix(matrix.a, matrix.b, matrix.c, matrix.d, matrix.e, matrix.f)


def _bounds_of(item: Any) -> Box:
    sides = [c_float() for _ in range(4)]
    pdfium.FPDFPageObj_GetBounds(item, *sides)
    left, bottom, right, top = (side.value for side in sides)
    return left, bottom, right, top


def _is_plain_text(item: Any, matrix: _Matrix) -> bool:
    if pdfium.FPDFTextObj_GetTextRenderMode(item) in (3, 7):  # neither filled nor stroked
        return False
    if abs(matrix.b) > 0.1 * abs(matrix.a) or matrix.a <= 0:
        return False
    size = c_float()
    pdfium.FPDFTextObj_GetFontSize(item, size)
    if size.value * math.hypot(matrix.c, matrix.d) < SMALLEST_SIZE:
        return False
    red, green, blue, alpha = (c_uint() for _ in range(4))
    if not pdfium.FPDFPageObj_GetFillColor(item, red, green, blue, alpha):
        return True
    return min(red.value, green.value, blue.value) < LIGHT and alpha.value > 255 - LIGHT


def _cover(covered: np.ndarray, page: Box, picture: Box) -> None:
    """Mark the cells of the grid whose middle lies in the picture."""
    width, height = max(page[2] - page[0], 1e-6), max(page[3] - page[1], 1e-6)
    if not all(map(math.isfinite, picture)):
        return
    left, right = ((x - page[0]) / width * _GRID for x in (picture[0], picture[2]))
    bottom, top = ((y - page[1]) / height * _GRID for y in (picture[1], picture[3]))
    columns = slice(max(0, round(min(left, _GRID))), max(0, round(min(right, _GRID))))
    rows = slice(max(0, round(min(bottom, _GRID))), max(0, round(min(top, _GRID))))
    covered[rows, columns] = True


def _hides(shape: Box, texts: list[Box]) -> bool:
    """Whether a shape or picture that is drawn later may lie on text."""
    left, bottom, right, top = shape
    if right - left < _SMALLEST_COVER or top - bottom < _SMALLEST_COVER:
        return False
    return any(left < other[2] and right > other[0] and bottom < other[3] and top > other[1] for other in texts)


def _is_painted_twice(texts: list[Box]) -> bool:
    """Whether two texts are of one size and lie on each other, as bold print and shadows are made."""
    seen: dict[tuple[int, int], list[Box]] = {}
    for left, bottom, right, top in texts:
        near = PAINTED_TWICE * (top - bottom)
        if near <= 0 or not all(map(math.isfinite, (left, bottom, right, top))):
            continue
        column, row = int(left // _NEAR), int(bottom // _NEAR)
        around = (seen.get((column + x, row + y), ()) for x in (-1, 0, 1) for y in (-1, 0, 1))
        if any(
            max(abs(left - other[0]), abs(bottom - other[1]), abs(right - other[2]), abs(top - other[3])) <= near
            for cell in around
            for other in cell
        ):
            return True
        seen.setdefault((column, row), []).append((left, bottom, right, top))
    return False


def _is_filled(path: Any) -> bool:
    fill, stroke = c_int(), c_int()
    return bool(pdfium.FPDFPath_GetDrawMode(path, fill, stroke)) and fill.value != pdfium.FPDF_FILLMODE_NONE
