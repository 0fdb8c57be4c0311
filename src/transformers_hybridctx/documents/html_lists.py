# SPDX-License-Identifier: Apache-2.0
"""What stands before the items of lists of HTML: dashes, and numbers, letters or Roman numerals as the page counts."""

from __future__ import annotations

import re
from typing import Any

_STYLE = re.compile(r"(?:^|;)\s*list-style(?:-type)?\s*:[^;]*?\b(lower|upper)-(alpha|latin|roman)\b", re.I)
_TYPES = {"a": ("lower", "alpha"), "A": ("upper", "alpha"), "i": ("lower", "roman"), "I": ("upper", "roman")}
_ROMAN = {
    **{1000: "m", 900: "cm", 500: "d", 400: "cd", 100: "c", 90: "xc", 50: "l", 40: "xl", 10: "x"},
    **{9: "ix", 5: "v", 4: "iv", 1: "i"},
}
_NUMBER = re.compile(r"\s*([+-]?[0-9]{1,10})(?![0-9])")
_MOST = 2**31 - 1
MOST_ROMAN = 3999


class ListMarks:
    """The marks of one list's items, one after the other."""

    def __init__(self, node: Any) -> None:
        attributes = node.attributes
        self._is_numbered = node.tag == "ol"
        styled = _STYLE.search(attributes.get("style") or "")
        self._case, self._digits = (
            (styled[1].lower(), styled[2].lower()) if styled else _TYPES.get(attributes.get("type") or "", ("", ""))
        )
        self._step = -1 if "reversed" in attributes else 1
        first = len([one for one in node.iter() if one.tag == "li"]) if "reversed" in attributes else 1
        self._next = number_in(attributes.get("start"), first)

    def mark(self, item: Any) -> str:
        if not self._is_numbered:
            return "- "
        number = number_in(item.attributes.get("value"), self._next)
        self._next = number + self._step
        return f"{self._counted(number)}. "

    def _counted(self, number: int) -> str:
        if self._digits == "roman" and 0 < number <= MOST_ROMAN:
            text = roman(number)
        elif self._digits in ("alpha", "latin") and number > 0:
            text = _letters(number)
        else:
            return str(number)
        return text.upper() if self._case == "upper" else text


def number_in(text: str | None, otherwise: int) -> int:
    """The number that an attribute begins with, as browsers take it: one that 32 bits do not hold is none."""
    found = _NUMBER.match(text or "")
    return int(found[1]) if found and abs(int(found[1])) <= _MOST else otherwise


def _letters(number: int) -> str:
    text = ""
    while number:
        number, rest = divmod(number - 1, 26)
        text = chr(ord("a") + rest) + text
    return text


def roman(number: int) -> str:
    """A number of 1 to `MOST_ROMAN` in small Roman numerals."""
    text = ""
    for value, letters in _ROMAN.items():
        count, number = divmod(number, value)
        text += letters * count
    return text


__all__ = ["MOST_ROMAN", "ListMarks", "number_in", "roman"]
