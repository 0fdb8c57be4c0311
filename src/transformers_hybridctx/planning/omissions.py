# SPDX-License-Identifier: Apache-2.0
"""What a plan leaves out of the prompt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..rendering.characters import CharRange
from .paged_document import PagedDocument
from .plan import Omission
from .policies.base import Selection


def omissions_of(document: PagedDocument, selection: Selection, has_pages: bool) -> list[Omission]:
    not_copied = _gaps(selection.chosen, len(document.text))
    if not has_pages:
        return [Omission(start, end, "absent") for start, end in not_copied]
    boxes = _joined((position, position + 1) for position, _ in document.undrawable)
    lost = [Omission(start, end, "undrawable") for start, end in _common(boxes, not_copied)]
    missed = [Omission(start, end, "not copied") for start, end in selection.missed]
    return sorted([*lost, *missed], key=lambda piece: (piece.start, piece.end))


def _joined(ranges: Iterable[CharRange]) -> list[CharRange]:
    """Sorted ranges, those that touch as one."""
    joined: list[CharRange] = []
    for start, end in ranges:
        if joined and joined[-1][1] >= start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def _gaps(ranges: Sequence[CharRange], length: int) -> list[CharRange]:
    """What sorted disjoint ranges leave of [0, length)."""
    edges = [0, *(edge for span in ranges for edge in span), length]
    return [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if start < end]


def _common(one: Sequence[CharRange], other: Sequence[CharRange]) -> list[CharRange]:
    """What two lists of sorted disjoint ranges have in common."""
    common: list[CharRange] = []
    first = second = 0
    while first < len(one) and second < len(other):
        start, end = max(one[first][0], other[second][0]), min(one[first][1], other[second][1])
        if start < end:
            common.append((start, end))
        if one[first][1] <= other[second][1]:
            first += 1
        else:
            second += 1
    return common
