# SPDX-License-Identifier: Apache-2.0
"""The order in which readers expect the characters of a line with right-to-left script (Unicode Standard Annex #9)."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np

_MIRRORED_PAIRS = ("()", "[]", "{}", "<>", "«»", "‹›", "≤≥", "⟨⟩", "「」", "『』", "【】", "《》", "〈〉")
MIRRORS = dict([(pair[0], pair[1]) for pair in _MIRRORED_PAIRS] + [(pair[1], pair[0]) for pair in _MIRRORED_PAIRS])
# Brackets that may be open at a time; behind one more none are paired (BD16).
_OPEN_BRACKETS = 63
_BIDI_CONTROLS = frozenset(("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"))


def bidi_levels(codes: Sequence[int], base: int) -> list[int]:
    """Embedding level of each character of a line (Unicode Standard Annex #9, rules W1-W7, N0-N2, I1-I2 and L1;
    explicit embeddings and isolates are not interpreted). base: 0 left to right, 1 right to left.
    """
    kinds = [unicodedata.bidirectional(chr(code)) or "L" for code in codes]
    kinds = ["BN" if kind in _BIDI_CONTROLS else kind for kind in kinds]
    original = list(kinds)
    edge = "R" if base else "L"
    previous, strong = edge, edge
    for index, kind in enumerate(kinds):
        if kind == "NSM":
            kind = previous
        elif kind == "EN" and strong == "AL":
            kind = "AN"
        if kind in ("L", "R", "AL"):
            strong = kind
        kinds[index] = previous = kind
        if kind == "AL":
            kinds[index] = "R"
    for index in range(1, len(kinds) - 1):
        before, after = kinds[index - 1], kinds[index + 1]
        separates = kinds[index] == "CS" or (kinds[index] == "ES" and before == "EN")
        if separates and before == after and before in ("EN", "AN"):
            kinds[index] = before
    index = 0
    while index < len(kinds):
        end = index
        while end < len(kinds) and kinds[end] in ("ET", "BN"):
            end += 1
        if end > index:
            touches = (index > 0 and kinds[index - 1] == "EN") or (end < len(kinds) and kinds[end] == "EN")
            if touches and "ET" in kinds[index:end]:
                kinds[index:end] = ["EN"] * (end - index)
        index = max(end, index + 1)
    strong = edge
    for index, kind in enumerate(kinds):
        if kind in ("L", "R"):
            strong = kind
        elif kind == "EN" and strong == "L":
            kinds[index] = "L"
    _pair_brackets(codes, kinds, edge)
    index = 0
    while index < len(kinds):
        end = index
        while end < len(kinds) and kinds[end] not in ("L", "R", "EN", "AN"):
            end += 1
        if end > index:
            before = edge if index == 0 else "L" if kinds[index - 1] == "L" else "R"
            after = edge if end == len(kinds) else "L" if kinds[end] == "L" else "R"
            kinds[index:end] = [before if before == after else edge] * (end - index)
        index = max(end, index + 1)
    if base:
        levels = [1 if kind == "R" else 2 for kind in kinds]
    else:
        levels = [{"L": 0, "R": 1}.get(kind, 2) for kind in kinds]
    for index in range(len(levels) - 1, -1, -1):
        if original[index] not in ("WS", "BN", "B", "S"):
            break
        levels[index] = base
    return levels


def _pair_brackets(codes: Sequence[int], kinds: list[str], edge: str) -> None:
    """Rule N0: the two brackets of a pair take the same direction."""
    waiting: list[tuple[str, int]] = []
    pairs = []
    for index, code in enumerate(codes):
        character = chr(code)
        if kinds[index] != "ON" or character not in MIRRORS or unicodedata.category(character) not in ("Ps", "Pe"):
            continue
        if unicodedata.category(character) == "Ps":
            if len(waiting) == _OPEN_BRACKETS:
                break
            waiting.append((MIRRORS[character], index))
            continue
        for depth in range(len(waiting) - 1, -1, -1):
            if waiting[depth][0] == character:
                pairs.append((waiting[depth][1], index))
                del waiting[depth:]
                break
    other = "L" if edge == "R" else "R"
    for start, end in sorted(pairs):
        inside = {"L" if kind == "L" else "R" for kind in kinds[start + 1 : end] if kind in ("L", "R", "EN", "AN")}
        if edge in inside:
            kinds[start] = kinds[end] = edge
        elif inside:
            strong = start - 1
            while strong >= 0 and kinds[strong] not in ("L", "R", "EN", "AN"):
                strong -= 1
            before = kinds[strong] if strong >= 0 else edge
            kinds[start] = kinds[end] = other if ("L" if before == "L" else "R") == other else edge


def visual_order(levels: Sequence[int]) -> np.ndarray:
    """Logical positions from left to right (rule L2)."""
    order = list(range(len(levels)))
    for level in range(max(levels), 0, -1):
        index = 0
        while index < len(order):
            end = index
            while end < len(order) and levels[order[end]] >= level:
                end += 1
            order[index:end] = order[index:end][::-1]
            index = max(end, index + 1)
    return np.array(order, dtype=np.int64)
