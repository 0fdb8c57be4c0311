# SPDX-License-Identifier: Apache-2.0
"""What makes a parser of the HTML standard slow: found before it is given the page.

The standard's algorithm looks through all open elements at every block that starts, and opens every formatting element
that was never closed anew in each block: time and memory grow with the square of the depth. Lexbor does the same with
the options of one list.
"""

from __future__ import annotations

import re

MAX_DEPTH = 2_000
"""Deepest nesting that is read; browsers stop at 512."""
_MANY_OPTIONS = 2_000

_TAG = re.compile(r"<(?:(!--)|(/?)([a-zA-Z][^\s/>]*))|(-->)")


def _tags(names: str) -> frozenset[str]:
    return frozenset(names.split())


_VOID = _tags("area base br col embed hr img input link meta param source track wbr")
# The parser ends these where the next one begins.
_ENDED_BY_NEXT = _tags(
    "a p li dt dd td th tr thead tbody tfoot colgroup option optgroup rt rp html head body h1 h2 h3 h4 h5 h6 nobr button"
)
_RAW = _tags("script style textarea title xmp iframe noembed noframes")
_OPTION = re.compile(r"<(/?)option\b", re.IGNORECASE)


def parsed_quickly(markup: str) -> str:
    """The page, long lists of options renamed to elements of which any number is parsed quickly.

    Raises:
        ValueError: elements are nested deeper than `MAX_DEPTH`.
    """
    if markup.count("<") <= min(MAX_DEPTH, _MANY_OPTIONS):
        return markup
    depth = options = 0
    skipping = ""  # an element of raw text, or "--" for a comment: nothing in it is markup
    for match in _TAG.finditer(markup):
        comment, closes, tag, comment_end = match.groups()
        name = (tag or "").lower()
        if skipping:
            if (skipping == "--" and comment_end) or (closes and name == skipping):
                skipping = ""
        elif comment:
            skipping = "--"
        elif name in _RAW:
            skipping = "" if closes else name
        elif name and name not in _VOID and name not in _ENDED_BY_NEXT:
            depth = max(0, depth + (-1 if closes else 1))
            if depth > MAX_DEPTH:
                raise ValueError(
                    f"its elements are nested deeper than {MAX_DEPTH:,} (character {match.start():,}); save it as text"
                )
        options += name == "option"
    return _OPTION.sub(r"<\1x-option", markup) if options > _MANY_OPTIONS else markup
