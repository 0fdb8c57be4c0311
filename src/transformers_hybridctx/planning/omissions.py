# SPDX-License-Identifier: Apache-2.0
"""What a plan leaves out of the prompt."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..rendering.characters import CharRange
from .paged_document import PagedDocument
from .plan import Omission
from .policies.base import Selection

_NO_FONT_HAS = {"Cc": "control characters", "Cs": "lone surrogates", "Cn": "unassigned", "Co": "private use"}
_MOST_SCRIPTS = 4
_LONGEST_ACRONYM = 3  # CJK


def omissions_of(
    document: PagedDocument, selection: Selection, has_pages: bool, latents_end: int = 0
) -> list[Omission]:
    """Args: latents_end: latents stand for all characters before this one."""
    not_copied = _gaps(_joined(sorted([(0, latents_end), *selection.chosen])), len(document.text))
    missed = [Omission(start, end, "not copied") for start, end in selection.missed]
    if not has_pages:
        absent = [Omission(start, end, "absent") for start, end in not_copied]
        missed = [replace(piece, end=min(piece.end, latents_end)) for piece in missed if piece.start < latents_end]
        return sorted([*absent, *missed], key=lambda piece: (piece.start, piece.end))
    boxes = _joined((position, position + 1) for position, _ in document.undrawable)
    lost = [Omission(start, end, "undrawable") for start, end in _common(boxes, not_copied)]
    return sorted([*lost, *missed], key=lambda piece: (piece.start, piece.end))


def why_undrawn(document: PagedDocument) -> str:
    """Which characters of a document no font has, by script, and the way out; "" where all are drawn."""
    found: Counter[str] = Counter()
    for character, count in Counter(character for _, character in document.undrawable).items():
        found[_script_of(character)] += count
    if not found:
        return ""
    kinds = ", ".join(f"{count:,} {script}" for script, count in found.most_common(_MOST_SCRIPTS))
    more = ", ..." * (len(found) > _MOST_SCRIPTS)
    has_way_out = any(script not in _NO_FONT_HAS.values() for script in found)
    way_out = "; --font system, or fallback_font_paths=, brings one that has them" * has_way_out
    return f"{found.total():,} characters are drawn as boxes: {kinds}{more}{way_out}"


def _script_of(character: str) -> str:
    """The script that a character's name begins with; for what has none, what it is."""
    category = unicodedata.category(character)
    if category in _NO_FONT_HAS:
        return _NO_FONT_HAS[category]
    if category.startswith("S"):
        return "symbols"
    word = unicodedata.name(character, "others").split(" ")[0].split("-")[0]
    return word if len(word) <= _LONGEST_ACRONYM else word.capitalize()


def _joined(ranges: Iterable[CharRange]) -> list[CharRange]:
    """Sorted ranges, those that touch as one."""
    joined: list[CharRange] = []
    for start, end in ranges:
        if joined and joined[-1][1] >= start:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
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
