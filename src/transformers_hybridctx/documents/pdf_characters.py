# SPDX-License-Identifier: Apache-2.0
"""Characters of a PDF's page with their boxes, and entries of its form among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

Box = tuple[float, float, float, float]
"""(left, bottom, right, top) in points, in the page's own coordinates (before /Rotate)."""


# Characters whose middles differ by no more than this, in points, stand on one line.
_SAME_LINE = 3.0


class Character(NamedTuple):
    """A character of a page.

    Attributes:
        text: one code point.
        box: None where PDFium made it up (white space).
        angle: which way the text runs, in degrees clockwise: 0, 90, 180 or 270.
        is_mapped: whether its font says which character it is.
        run: a number that it shares with what was painted together with it.
        is_unpainted: painted neither inside nor as an outline, as text recognition writes over pictures of text.
        size: in points, as it is shown.
    """

    text: str
    box: Box | None = None
    angle: int = 0
    is_mapped: bool = True
    run: int = 0
    is_unpainted: bool = False
    size: float = 0.0

    @property
    def middle(self) -> tuple[float, float]:
        left, bottom, right, top = self.box or (0.0, 0.0, 0.0, 0.0)
        return (left + right) / 2, (bottom + top) / 2


class Entry(NamedTuple):
    """What a form field or an annotation holds: shown at its box, and no part of the page's own text."""

    name: str
    value: str
    box: Box


def with_entries(characters: Sequence[Character], entries: Sequence[Entry]) -> list[Character]:
    """The page's characters with each entry behind what stands to its left on its line, or below what is above it."""
    lines = _lines(characters)
    insertions: dict[int, list[Character]] = {}
    for entry in sorted(entries, key=lambda entry: (-(entry.box[1] + entry.box[3]), entry.box[0])):
        place, before, after = _place(lines, entry)
        value = f"{entry.name}: {entry.value}" if entry.name and before != " " and after != " " else entry.value
        written = f"{before}{value}{after}"
        insertions.setdefault(place, []).extend(Character(one, box=entry.box) for one in written)
    if not characters and insertions:
        return insertions[0][:-1]  # without the line end of the last
    result: list[Character] = []
    for place in range(len(characters) + 1):
        result += insertions.get(place, ())
        result += characters[place : place + 1]
    return result


def _lines(characters: Sequence[Character]) -> list[tuple[int, float, float, float]]:
    """(place in the text, middle across, bottom, top) of the characters that have a box and ink."""
    return [
        (place, (one.box[0] + one.box[2]) / 2, one.box[1], one.box[3])
        for place, one in enumerate(characters)
        if one.box is not None and not one.text.isspace()
    ]


def _place(lines: Sequence[tuple[int, float, float, float]], entry: Entry) -> tuple[int, str, str]:
    """(where to insert it, what goes before it, what after)."""
    left, bottom, _, top = entry.box
    touching = [(place, x, (low + high) / 2) for place, x, low, high in lines if low <= top and high >= bottom]
    middle = min(
        (across for _, _, across in touching), key=lambda across: abs(across - (bottom + top) / 2), default=0.0
    )
    same_line = [(x, place) for place, x, across in touching if abs(across - middle) <= _SAME_LINE]
    to_the_left = [(x, place) for x, place in same_line if x <= left + 1]
    if to_the_left:
        return max(to_the_left)[1] + 1, " ", ""
    if same_line:
        return min(same_line)[1], "", " "
    above = [(low, -x, place) for place, x, low, _ in lines if low >= top]
    if not above:
        return 0, "", "\n"
    nearest = min(low for low, _, _ in above)
    place = max(place for low, _, place in above if low < nearest + 4) + 1
    return place, "\n", ""
