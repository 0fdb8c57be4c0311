# SPDX-License-Identifier: Apache-2.0
"""Texts made comparable: one form for what readers take for the same, with the way back to the text's own characters.

Composed and decomposed accents, ligatures, full-width letters and digits, soft hyphens and zero-width characters all
look like the plain word. What is compared is the compatibility composition (NFKC, Unicode Standard Annex 15) of words
without the invisible; what is copied stays the document's own.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence

from ..rendering.characters import INVISIBLE_RANGES, CharRange, within

# Between the digits of one number: no-break spaces, thin spaces and apostrophes, as Swiss and French typography has them.
_DIGIT_GROUPS = re.compile("(?<=[0-9])[\u00a0\u202f\u2009'\u2019](?=[0-9]{3}(?![0-9]))")
# Hangul letters that make syllables together.
_JAMO = "\u1100-\u11ff"


class FoldedText:
    """A text in one form, and where its characters come from.

    Attributes:
        text: the folded text.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        # Of each piece that was replaced: its [start, end) in the folded text, and in the original.
        self._folded: list[CharRange] = []
        self._original: list[CharRange] = []
        pattern = None if text.isascii() else _foldable(text)
        if pattern is None:
            return
        parts: list[str] = []
        position = length = 0
        forms: dict[str, str] = {}
        for match in pattern.finditer(text):
            written = match.group()
            piece = forms.get(written)
            if piece is None:
                seen = "".join(char for char in written if not _is_invisible(char))
                piece = forms[written] = unicodedata.normalize("NFKC", seen)
            if piece == written:
                continue
            parts += [text[position : match.start()], piece]
            length += match.start() - position
            self._folded.append((length, length + len(piece)))
            self._original.append(match.span())
            length += len(piece)
            position = match.end()
        self.text = "".join([*parts, text[position:]])

    def original(self, start: int, end: int) -> CharRange:
        """The original's characters that became the folded text's [start, end), whole pieces at either end."""
        return self._back(start, False), self._back(end, True)

    def _back(self, position: int, is_end: bool) -> int:
        # An end belongs to the piece that its last character is of.
        index = bisect_right(self._folded, position - is_end, key=lambda piece: piece[0]) - 1
        if index < 0:
            return position
        folded, original = self._folded[index], self._original[index]
        if position - is_end < folded[1]:
            return original[is_end]
        return original[1] + position - folded[1]


def folded(text: str) -> str:
    """A text in one form, for comparison: as `FoldedText`, without case, and without what groups a number's digits."""
    plain = text if text.isascii() else FoldedText(text).text
    return _DIGIT_GROUPS.sub("", plain).casefold()


def _foldable(text: str) -> re.Pattern[str] | None:
    """What finds the pieces of a text that may have another form; None where there are none."""
    characters = set(text)
    marks, others = [], []
    for char in characters:
        if char.isascii():
            continue
        if _is_invisible(char) or unicodedata.category(char) == "Mn":
            marks.append(char)
        elif any(map(str.isalnum, other := unicodedata.normalize("NFKC", char))) and other != char:
            others.append(char)
    if not marks and not others and not any("\u1100" <= char <= "\u11ff" for char in characters):
        return None
    choices = [f"[{_JAMO}]+"]
    if others:
        choices.append(f"[{_in_class(others)}]+")
    if marks:
        choices.append(f".?[{_in_class(marks)}]+")
        choices[:-1] = [f"(?:{choice})[{_in_class(marks)}]*" for choice in choices[:-1]]
    return re.compile("|".join(choices), re.DOTALL)


def _in_class(characters: Sequence[str]) -> str:
    return "".join(map(re.escape, sorted(characters)))


def _is_invisible(char: str) -> bool:
    return char == "\u00ad" or char == "\ufeff" or within(ord(char), INVISIBLE_RANGES)
