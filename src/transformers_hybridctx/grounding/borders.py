# SPDX-License-Identifier: Apache-2.0
"""Where a quotation may begin and end: not inside a word, a number, a code, or a character that is drawn as one."""

from __future__ import annotations

import re
import unicodedata

import numpy as np

from ..planning.sentences import UNSPACED_RUN
from .folding import table_of

JOINTS = "-.:/@+#%&=~?'"
"""Between two letters or digits these are part of a word, as in `planning.sentences.RUN`, and the apostrophe: 10.0.0.1,
green-lemur, don't. A comma is between two digits."""
# Joiners, skin tones and tag letters, which belong to what stands before them, as marks do.
_ATTACHED = re.compile("[\u200c\u200d\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]")
_FLAG_LETTER = re.compile("[\U0001f1e6-\U0001f1ff]")

_LETTER, _DIGIT, _JOINT, _COMMA, _MARK, _FLAG, _JOINER = range(1, 8)


def word_borders(text: str) -> np.ndarray:
    """
    Where words may be parted.

    Scripts without blanks between words (Chinese, Japanese, Thai, and Korean, whose particles hang on) part between any
    two characters; other scripts between words.

    Returns:
        bool `[len(text) + 1]`: whether there is a border before each character, and at the end.
    """
    kinds = table_of(text, {char: _kind(char) for char in set(text)})
    attached = (kinds == _MARK) | (kinds == _JOINER)
    # A mark is of the kind of what it stands on.
    bases = np.maximum.accumulate(np.where(attached, 0, np.arange(len(kinds))))
    kinds_below = np.where(attached & (bases == 0) & attached[:1].any(), 0, kinds[bases]) if len(kinds) else kinds
    in_word = (kinds_below == _LETTER) | (kinds_below == _DIGIT)
    begins = in_word & ~attached

    borders = np.ones(len(text) + 1, bool)
    borders[1:-1] &= ~(in_word[:-1] & begins[1:])
    before, joint, after = in_word[:-2], kinds[1:-1], begins[2:]
    digits = (kinds_below[:-2] == _DIGIT) & (kinds[2:] == _DIGIT)
    inside = before & after & ((joint == _JOINT) | ((joint == _COMMA) & digits))
    for match in re.finditer("://", text):
        start = match.start()
        if start and match.end() < len(text) and in_word[start - 1] and begins[match.end()]:
            borders[start : match.end() + 1] = False
    borders[1:-2] &= ~inside
    borders[2:-1] &= ~inside
    borders[1:-1] &= ~attached[1:] & (kinds[:-1] != _JOINER)
    borders[1:-1] &= ~((kinds[:-1] == _FLAG) & (kinds[1:] == _FLAG))
    return borders


def _kind(char: str) -> int:
    if char in "\u200d":
        return _JOINER
    category = unicodedata.category(char)
    if category[0] == "M" or _ATTACHED.match(char):
        return _MARK
    if _FLAG_LETTER.match(char):
        return _FLAG
    if UNSPACED_RUN.match(char):
        return 0
    if category[0] == "N":
        return _DIGIT
    if category[0] == "L" or category == "Pc":
        return _LETTER
    return _JOINT if char in JOINTS else _COMMA if char == "," else 0


__all__ = ["JOINTS", "word_borders"]
