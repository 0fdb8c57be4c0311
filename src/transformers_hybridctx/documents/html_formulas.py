# SPDX-License-Identifier: Apache-2.0
"""Formulas of MathML on one line: what a page shows above each other does not become one number."""

from __future__ import annotations

from typing import Any

# What stands before the second and the third part of an element.
_BETWEEN = {
    **{"mfrac": "/", "msup": "^", "mover": "^", "mroot": "^1/", "msub": "_", "munder": "_"},
    **{"msubsup": "_^", "munderover": "_^"},
}
_HOLDERS = frozenset(("math", "mrow", "mstyle", "semantics", "msqrt", *_BETWEEN))
_MOST_BEFORE = 8  # elements, and blanks between them
_ROOTS = ("msqrt", "mroot")
UNSEEN = frozenset(("annotation", "annotation-xml"))
"""Elements that say a formula once more, for programs."""


def is_layout(text: str, around: Any) -> bool:
    """Whether characters are blanks between the elements of a formula, which it does not show."""
    return around.tag in _HOLDERS and not text.strip()


def opening(node: Any) -> str:
    """What stands before an element of a formula; "" for all that are none."""
    return _before(node) + "√" * (node.tag in _ROOTS) + "(" * _is_grouped(node)


def closing(node: Any) -> str:
    return ")" * _is_grouped(node)


def _before(node: Any) -> str:
    marks = _BETWEEN.get(node.parent.tag)
    if marks is None:
        return ""
    place, before = 0, node.prev
    for _ in range(_MOST_BEFORE):
        if before is None:
            break
        place += not before.tag.startswith("-")
        before = before.prev
    if node.parent.tag == "mroot":
        return marks * (place == 1)
    return marks[place - 1] if 0 < place <= len(marks) else ""


def _is_grouped(node: Any) -> bool:
    """Whether an element is a part of another, and has several of its own."""
    if node.tag not in ("mrow", "msqrt") or (node.tag == "mrow" and node.parent.tag not in _BETWEEN):
        return False
    return sum(not one.tag.startswith("-") for one in node.iter(include_text=False)) > 1


__all__ = ["UNSEEN", "closing", "is_layout", "opening"]
