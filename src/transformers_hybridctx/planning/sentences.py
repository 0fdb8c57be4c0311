# SPDX-License-Identifier: Apache-2.0
"""Where sentences and words begin and end, in any script: what can be copied without tearing it from its meaning."""

from __future__ import annotations

import re

# Letters and digits of scripts that put spaces between words; the others are read character by character.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_LETTER = f"[^\\W{_UNSPACED}]"
# A word with its inner joints: 10.0.0.1, 2024-01-02T10:11, green-lemur, a/b.c?d=e, 1,234,567.
RUN = re.compile(f"{_LETTER}+(?:(?:://|[-.:/@+#%&=~?]|(?<=\\d),(?=\\d\\d\\d)){_LETTER}+)*")
UNSPACED_RUN = re.compile(f"[{_UNSPACED}]+")

# A stop may only begin where no other stop is before it: rows of dots must not be scanned from each dot again.
_BREAK = re.compile(
    r"(?P<ideographic>[。！？｡]+[」』”’）]*)"
    r"|(?<![.!?…।؟۔])(?P<stop>[.!?…।؟۔]+[\"'”’»)\]]*)\s+"
    r"|[\n\x0b\x0c\x85\u2028\u2029](?P<blank>\s*[\n\x0c\u2029])?\s*"
)
_ABBREVIATION = re.compile(r"(?:\b[A-Z][a-z]{0,2}|\b(?:no|nos|vol|fig|eq|ca|cf|vs|e\.g|i\.e))$")


def sentence_starts(text: str) -> list[int]:
    """Where sentences, list items and lines of tables and logs start, in order; 0 is always one.

    A newline inside running prose does not end a sentence: the next line goes on in lower case, or starts unlike its
    predecessor after a line that ends in the middle of a phrase.
    """
    starts = [0]
    for match in _BREAK.finditer(text):
        end = match.end()
        if end >= len(text):
            break
        if match["stop"]:
            if text[end].islower() or (
                match["stop"] == "." and _ABBREVIATION.search(text, max(0, match.start() - 6), match.start())
            ):
                continue
        elif not match["ideographic"] and not match["blank"] and _is_wrapped(text, match.start(), end):
            continue
        starts.append(end)
    return starts


def _is_wrapped(text: str, line_end: int, next_start: int) -> bool:
    """Whether a line break stands inside a phrase."""
    last, following = text[max(0, line_end - 8) : line_end].rstrip()[-1:], text[next_start]
    if not (last.isalnum() or last in ",-–—("):
        return False
    if following.islower():
        return True
    line_start = text.rfind("\n", max(0, line_end - 200), line_end) + 1
    first = text[line_start]
    alike = first.isdigit() == following.isdigit() and first.isupper() == following.isupper()
    return line_end - line_start >= 50 and (last.islower() or last == ",") and following.isalnum() and not alike


def word_edge(text: str, position: int, edge: int, step: int, reach: int = 32) -> int:
    """The word boundary that is next inwards of a window's end, where there is one within `reach` characters."""
    if position == edge:
        return edge
    for offset in range(reach):
        before = position + step * offset
        if 0 < before < len(text) and text[before - (step > 0)].isspace():
            return before
    return position
