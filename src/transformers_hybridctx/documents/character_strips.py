# SPDX-License-Identifier: Apache-2.0
"""Boxes of a page's characters as strips without gaps, so that any part of a line is one box that its characters fill."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

STEPS = 65_535
"""A page's width, and its height, in the units of its characters' boxes."""

_LINE_ENDS = frozenset("\n\r\f\v\x85\u2028\u2029")
_OVERLAP = 0.3  # of the smaller of two boxes, by which they stand on one line
_THIN = 0.01  # points


def strips_of(text: str, shares: np.ndarray, width: float, height: float) -> tuple[np.ndarray, np.ndarray]:
    """
    The boxes of a page's characters, tidied up, and the strips that they form.

    A strip is a stretch of a line whose characters follow each other in one direction. Within one, all boxes are as high
    as the strip (as wide, where text runs sideways), and white space fills the gap in which it stands. A character with
    ink and no box of its own, such as an accent, has that of its neighbour; white space at the ends of strips has none.

    Args:
        text: of the page.
        shares: float64 `[characters, 4]`, (left, top, right, bottom) as shares of the page's width and height; nan: none.
        width, height: of the page, in points or in pixels.

    Returns:
        boxes: uint16 `[characters, 4]` in steps of 1 / `STEPS`, clipped to the page; zeros where there is none.
        starts: int32 `[strips]`, the first character of each strip; each ends where the next one starts.
    """
    boxes = np.asarray(shares, dtype=np.float64).reshape(-1, 4) * (width, height, width, height)
    boxed = np.isfinite(boxes).all(axis=1) & ~np.array([one in _LINE_ENDS for one in text], dtype=bool)
    boxes[~boxed] = np.nan
    places = np.flatnonzero(boxed).tolist()
    starts = [0]
    strip: list[int] = []
    line_ends = np.cumsum([one in _LINE_ENDS for one in text])
    run = _Run()
    for place in places:
        box = boxes[place].tolist()
        if strip and (line_ends[place] != line_ends[strip[-1]] or not run.takes(box)):
            _tile(boxes, strip, run)
            start = strip[-1] + 1
            while start < place and not text[start].isspace():  # an accent at the end of a line, say
                start += 1
            starts.append(start)
            strip, run = [], _Run()
        run.add(box)
        strip.append(place)
    if strip:
        _tile(boxes, strip, run)
    edges = np.array(starts, dtype=np.int32)
    _lend(text, boxes, edges)
    return _in_steps(boxes / (width, height, width, height)), edges


class _Run:
    """Boxes that follow each other: along which axis (0: across, 1: down), and which way (1 or -1; 0: not yet known)."""

    def __init__(self) -> None:
        self.last: list[float] | None = None
        self.axis, self.way = 0, 0

    def takes(self, box: list[float]) -> bool:
        """Whether the box goes on where the last one ended."""
        axis, way = self._step(box)
        if not way:
            return axis >= 0
        return axis >= 0 and (not self.way or (axis, way) == (self.axis, self.way))

    def add(self, box: list[float]) -> None:
        if self.last is not None:
            axis, way = self._step(box)
            if way and not self.way:
                self.axis, self.way = axis, way
        self.last = box

    def _step(self, box: list[float]) -> tuple[int, int]:
        """(axis, way) from the last box to this one; axis -1: they are not on one line."""
        last = self.last
        if last is None:
            return 0, 0
        shared = [_shared(last, box, axis) for axis in (0, 1)]
        moved = [(box[axis] + box[axis + 2] - last[axis] - last[axis + 2]) / 2 for axis in (0, 1)]
        if self.way:
            axis = self.axis
        elif shared[0] >= _OVERLAP and shared[1] >= _OVERLAP:
            axis = 0 if abs(moved[0]) >= abs(moved[1]) else 1
        else:
            axis = 0 if shared[1] >= shared[0] else 1
        if shared[1 - axis] < _OVERLAP:
            return -1, 1
        if abs(moved[axis]) < _THIN:
            return axis, 0
        return axis, 1 if moved[axis] > 0 else -1


def _shared(one: list[float], other: list[float], axis: int) -> float:
    """How much of the smaller of two boxes both share along an axis."""
    shared = min(one[axis + 2], other[axis + 2]) - max(one[axis], other[axis])
    return shared / max(min(one[axis + 2] - one[axis], other[axis + 2] - other[axis]), _THIN)


def _tile(boxes: np.ndarray, strip: list[int], run: _Run) -> None:
    """Make the boxes of a strip's characters, and of the white space among them, meet."""
    axis = run.axis
    low, high = axis, axis + 2
    members = boxes[strip]
    boxes[strip, 1 - axis] = members[:, 1 - axis].min()
    boxes[strip, 3 - axis] = members[:, 3 - axis].max()
    for before, after in pairwise(strip):
        between = after - before - 1
        if run.way < 0:
            edge, gap = boxes[before, low], boxes[before, low] - boxes[after, high]
        else:
            edge, gap = boxes[before, high], boxes[after, low] - boxes[before, high]
        gap = max(gap, 0.0)
        for number, place in enumerate(range(before + 1, after)):
            boxes[place] = boxes[before]
            near, far = (gap * step / between for step in (number, number + 1))
            boxes[place, low], boxes[place, high] = (
                (edge - far, edge - near) if run.way < 0 else (edge + near, edge + far)
            )
        if not between and gap:
            boxes[before, low if run.way < 0 else high] += -gap if run.way < 0 else gap


def _lend(text: str, boxes: np.ndarray, starts: np.ndarray) -> None:
    """Give characters whose box is thin, or that have ink and none, that of a neighbour in their strip.

    Where no character of a page has a box, it is the page.
    """
    thin = (boxes[:, 2] - boxes[:, 0] < _THIN) | (boxes[:, 3] - boxes[:, 1] < _THIN)
    bare = np.isnan(boxes[:, 0])
    has = np.flatnonzero(~(thin | bare))
    strip_of = np.searchsorted(starts, np.arange(len(text)), "right")
    for place in np.flatnonzero(thin | bare).tolist():
        if bare[place] and text[place].isspace():
            continue
        after = int(np.searchsorted(has, place))
        near = [int(has[index]) for index in (after - 1, after) if 0 <= index < len(has)]
        near = [one for one in near if strip_of[one] == strip_of[place]]
        if near:
            boxes[place] = boxes[near[0]]
        elif thin[place]:
            boxes[place, 2:] += _THIN
        elif not len(has):
            boxes[place] = (0.0, 0.0, np.inf, np.inf)


def _in_steps(shares: np.ndarray) -> np.ndarray:
    clipped = np.clip(np.nan_to_num(shares, nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0)
    off_page = (clipped[:, 2] <= clipped[:, 0]) | (clipped[:, 3] <= clipped[:, 1])
    steps = np.rint(clipped * STEPS).astype(np.int64)
    for low in (0, 1):
        even = steps[:, low] >= steps[:, low + 2]
        steps[even, low + 2] = np.minimum(steps[even, low] + 1, STEPS)
        steps[even, low] = steps[even, low + 2] - 1
    steps[off_page] = 0
    return steps.astype(np.uint16)
