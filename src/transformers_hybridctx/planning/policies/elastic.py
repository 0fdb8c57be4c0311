# SPDX-License-Identifier: Apache-2.0
"""Policies whose wish is the whole text and which can be cut at any character."""

from __future__ import annotations

import re

from ...rendering.characters import CharRange
from .base import SpanCosts, TextPolicy, page_ranges


class ElasticPolicy(TextPolicy):
    """A policy whose wish is the whole text and which can be cut at any character."""

    def smallest(self, costs: SpanCosts) -> int | None:
        end = len(costs.document.text)
        return costs.tokens([(end - 1, end)])[0] if end else None


def fill(costs: SpanCosts, within: CharRange, limit: int | None, from_end: bool) -> tuple[list[CharRange], int]:
    """Pages of `within` from one end on while they fit, then a part of the next: (ranges in order, tokens)."""
    pages = page_ranges(costs.document, within) if within[0] < within[1] else []
    if limit is None:
        return pages, sum(costs.tokens(pages))
    chosen: list[CharRange] = []
    room = limit
    for page in reversed(pages) if from_end else pages:
        cost = costs.tokens([page])[0]
        piece: CharRange | None = page
        if cost > room:
            piece, cost = _longest_piece(costs, page, room, from_end)
        if piece is not None:
            chosen.append(piece)
            room -= cost
        if piece != page:
            break
    return sorted(chosen), limit - room


def _longest_piece(costs: SpanCosts, page: CharRange, room: int, from_end: bool) -> tuple[CharRange | None, int]:
    """The longest head (or tail) of a page's characters that costs at most `room` tokens."""

    def piece(length: int) -> CharRange:
        return (page[1] - length, page[1]) if from_end else (page[0], page[0] + length)

    fits, too_long = 0, page[1] - page[0] + 1
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if costs.tokens([piece(middle)])[0] <= room:
            fits = middle
        else:
            too_long = middle
    if not fits:
        return None, 0
    whole_words = piece(_at_word_boundary(costs.document.text, piece(fits), from_end))
    if whole_words[0] < whole_words[1] and (cost := costs.tokens([whole_words])[0]) <= room:
        return whole_words, cost
    return piece(fits), costs.tokens([piece(fits)])[0]


def _at_word_boundary(text: str, kept: CharRange, from_end: bool, reach: int = 48) -> int:
    """How many characters of `kept` remain when its cut end moves to the nearest white space, at most `reach` away."""
    start, end = kept
    if from_end:
        if start == 0 or text[start - 1].isspace():
            return end - start
        found = re.search(r"\s", text[start : min(end, start + reach)])
        return end - start - found.end() if found else end - start
    if end == len(text) or text[end].isspace():
        return end - start
    window = max(start, end - reach)
    found_end = max((match.start() for match in re.finditer(r"\s", text[window:end])), default=None)
    return window + found_end - start if found_end is not None else end - start
