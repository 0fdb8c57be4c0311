# SPDX-License-Identifier: Apache-2.0
"""Policies that rank pieces of the document and copy the best."""

from __future__ import annotations

from collections.abc import Iterable

from ...rendering.characters import CharRange
from ..paged_document import PagedDocument
from .base import Selection, SpanCosts, TextPolicy


class RankedPolicy(TextPolicy):
    """A policy that ranks disjoint spans: the best are copied first, and all of them in document order."""

    def rank(self, document: PagedDocument, question: str | None) -> list[CharRange]:
        """Disjoint spans, best first."""
        raise NotImplementedError(f"{type(self).__name__} must rank its spans")

    def select(self, costs: SpanCosts, limit: int | None) -> Selection:
        wishes = costs.wishes(self)
        if limit is None:
            return Selection(merge_touching(costs, wishes), [])
        taken: list[CharRange] = []
        refused: list[CharRange] = []
        left, room = wishes, limit
        # Spans that touch share one page label, which as a rule makes room for more, less each time.
        for _ in range(_ROUNDS):
            if not left or room <= 0:
                break
            more, left = _take_best(costs, left, room, give_up=bool(taken))
            before, tried = len(taken), taken + more
            taken, used = _longest_that_fits(costs, tried, limit)
            refused += tried[len(taken) :]
            if len(taken) <= before:
                break
            room = limit - used
        return Selection(merge_touching(costs, taken), merge_touching(costs, [*refused, *left]))

    def smallest(self, costs: SpanCosts) -> int | None:
        return min(costs.tokens(costs.wishes(self)), default=None)


# How often room that was won by merging is given away again.
_ROUNDS = 16
# After this many spans in a row that did not fit, a budget that holds any span counts as used up.
_PATIENCE = 64


def _take_best(
    costs: SpanCosts, ranked: list[CharRange], room: int, give_up: bool
) -> tuple[list[CharRange], list[CharRange]]:
    """Take spans best first while they fit into `room` tokens: (taken, left), both best first.

    `give_up`: stop after some that did not fit even if none did, because others have been taken before.
    """
    taken: list[CharRange] = []
    left: list[CharRange] = []
    misses = 0
    for first in range(0, len(ranked), _PATIENCE):
        batch = ranked[first : first + _PATIENCE]
        for wish, cost in zip(batch, costs.tokens(batch), strict=True):
            if cost <= room:
                taken.append(wish)
                room -= cost
                misses = 0
            else:
                left.append(wish)
                misses += 1
        if (taken or give_up) and misses >= _PATIENCE:
            return taken, left + ranked[first + _PATIENCE :]
    return taken, left


def _longest_that_fits(costs: SpanCosts, taken: list[CharRange], limit: int) -> tuple[list[CharRange], int]:
    """The longest head of the spans, best first, that fits when those that touch are merged: (spans, tokens)."""

    def tokens(count: int) -> int:
        return sum(costs.tokens(merge_touching(costs, taken[:count])))

    if (used := tokens(len(taken))) <= limit:
        return taken, used
    # What stands between spans that touch may cost more than their labels do.
    fits, too_many, used = 0, len(taken), 0
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if (needed := tokens(middle)) <= limit:
            fits, used = middle, needed
        else:
            too_many = middle
    return taken[:fits], used


def merge_touching(costs: SpanCosts, ranges: Iterable[CharRange]) -> list[CharRange]:
    """Ranges in document order; those of one page with nothing but white space between them become one."""
    text = costs.document.text
    merged: list[CharRange] = []
    for start, end in sorted(ranges):
        if merged:
            before, touch = merged[-1]
            gap = text[touch:start]
            if (not gap or gap.isspace()) and costs.page_of(before) == costs.page_of(start):
                merged[-1] = (before, max(touch, end))
                continue
        merged.append((start, end))
    return merged
