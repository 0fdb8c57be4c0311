# SPDX-License-Identifier: Apache-2.0
"""A text as it is matched, not as it is set: what typography adds is folded away, and every character keeps its place.

What is folded: runs of white space to one blank (to none at line breaks between ideographs); hyphens at line breaks,
which go unless the document has the word with a hyphen elsewhere, or it is a code; NFD to NFC; ligatures to letters,
presentation forms of Arabic and Hebrew letters among them; quotation marks and dashes to those of ASCII; soft hyphens,
zero-width spaces and direction marks to nothing. Case is kept: codes depend on it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

_DROPPED = "\u00ad\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\u061c\ufeff\x00"
"""Soft hyphen, zero-width space, direction marks, word joiner, byte order mark, NUL: nobody says them."""
_HYPHENS = "-\u2010"
_SPELLED = {
    **dict.fromkeys("‘’‚‛ʼ‹›", "'"),
    **dict.fromkeys("“”„‟«»", '"'),
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-"),
    **dict.fromkeys(_DROPPED, ""),
    "…": "...",
    "ĳ": "ij",
    "Ĳ": "IJ",
}
_IDEOGRAPH = re.compile("[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]")
_PRESENTATION_FORM = re.compile("[\ufb00-\ufdff\ufe70-\ufefc]")  # ligatures, and letters as fonts have them
_LETTERS_BEFORE = re.compile(r"[^\W\d_]+\Z")
_LETTERS = re.compile(r"[^\W\d_]+")
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")

# What a character may do to the folded text.
_PLAIN, _BLANK, _OTHER_SPACE, _IS_DROPPED, _IS_SPELLED, _COMPOSES = range(6)


@dataclass(frozen=True, eq=False)
class FoldedText:
    """
    A text and its folded form.

    Attributes:
        raw: the text as it is.
        text: its folded form.
        stretches: int64 `[replaced stretches, 4]`, in order: start and end in `text`, start and end in `raw`. Between
            two of them the texts are alike, character by character.
    """

    raw: str
    text: str
    stretches: np.ndarray

    def raw_span(self, start: int, end: int) -> tuple[int, int]:
        """Characters of `raw` that the characters [start, end) of `text` stand for; `start < end`."""
        first, last = self._stretch(start), self._stretch(end - 1)
        if first is None:
            raw_start = start
        else:
            raw_start = first[2] if start < first[1] else first[3] + start - first[1]
        if last is None:
            raw_end = end
        else:
            raw_end = last[3] if end <= last[1] else last[3] + end - last[1]
        return raw_start, raw_end

    def _stretch(self, position: int) -> list[int] | None:
        """The last replaced stretch that begins at or before a character of `text`."""
        index = int(np.searchsorted(self.stretches[:, 0], position, side="right")) - 1
        return None if index < 0 else self.stretches[index].tolist()


def fold(text: str) -> FoldedText:
    """Fold a document, or a stretch of one."""
    parts: list[str] = []
    stretches: list[tuple[int, int, int, int]] = []
    done = length = 0
    for start, end, folded in _replacements(text):
        if text[start:end] == folded:
            continue
        parts += (text[done:start], folded)
        length += start - done
        stretches.append((length, length + len(folded), start, end))
        length += len(folded)
        done = end
    parts.append(text[done:])
    return FoldedText(text, "".join(parts), np.array(stretches, np.int64).reshape(-1, 4))


def fold_piece(piece: str) -> str:
    """A token's string folded: no more than can be told without what stands around it."""
    if not (piece.isascii() and piece.isprintable()):
        piece = _composed("".join(map(_spelled, _composed(piece))))
    return re.sub(r"\s+", " ", piece)


def code_points(text: str) -> np.ndarray:
    """uint32 `[characters]`."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def table_of(text: str, kind: dict[str, int]) -> np.ndarray:
    """The kind of each character of a text by a dict of kinds, 0 where it has none: uint8 `[characters]`."""
    table = np.zeros(0x110000, np.uint8)
    for char, value in kind.items():
        table[ord(char)] = value
    return table[code_points(text)]


def _replacements(text: str) -> Iterator[tuple[int, int, str]]:
    """Stretches `[start, end)` of a text and what they fold to, in order; some fold to what they are."""
    kinds = table_of(text, _kinds(text))
    is_space = (kinds == _BLANK) | (kinds == _OTHER_SPACE) | (kinds == _IS_DROPPED)
    group = np.where(is_space, 1, np.where(kinds == _COMPOSES, 2, np.where(kinds == _IS_SPELLED, 3, 0)))
    bounds = np.append(np.flatnonzero(np.diff(group, prepend=-1)), len(text))
    starts, ends = bounds[:-1], bounds[1:]
    here = group[starts]
    # A single blank between other characters is as it should be.
    replaced = (here > 0) & ~((here == 1) & (ends - starts == 1) & (kinds[starts] == _BLANK))
    if len(starts):
        replaced[[0, -1]] |= here[[0, -1]] == 1
    known: set[str] | None = None
    done = 0
    rows = zip(starts[replaced].tolist(), ends[replaced].tolist(), here[replaced].tolist())
    for start, end, what in rows:
        if what == 1:
            run = text[start:end]
            is_hyphen = start > 1 and text[start - 1] in _HYPHENS and "\n" in run and end < len(text)
            if is_hyphen and text[start - 2].isalnum() and text[end].isalnum():
                known = {word.lower() for word in _WORD.findall(text)} if known is None else known
                yield start - 1, end, _unbroken(text, start - 1, end, known)
            elif _is_composed_with(kinds, start, end):
                continue
            else:
                yield start, end, _blank(text, run, start, end)
        elif what == 2:
            first = start
            while first > done and kinds[first - 1] == _IS_DROPPED:
                first -= 1
            first -= first > done and not text[first - 1].isspace()
            yield first, end, _composed("".join(map(_spelled, _composed(text[first:end]))))
        elif end - start == 1 and text[start] in _HYPHENS and text[end : end + 1].isspace():
            continue  # perhaps at a line break; the white space after it looks at it
        else:
            end -= _is_composed_with(kinds, end, end)
            # one by one, so that each keeps its place
            yield from ((place, place + 1, _spelled(text[place])) for place in range(start, end))
        done = end


def _is_composed_with(kinds: np.ndarray, start: int, end: int) -> bool:
    """Whether all of [start, end), and what follows, is dropped before a character that composes with one before it."""
    if (kinds[start:end] != _IS_DROPPED).any():
        return False
    while end < len(kinds) and kinds[end] == _IS_DROPPED:
        end += 1
    return end < len(kinds) and bool(kinds[end] == _COMPOSES)


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _kinds(text: str) -> dict[str, int]:
    """The kind of each character that a text has, but for plain ones."""
    here = set(text)
    is_composed = unicodedata.is_normalized("NFC", text)
    if is_composed and any(map(unicodedata.combining, here)):  # marks may come to stand behind other characters
        is_composed = all(_spelled(char) == char for char in here)
    composing = frozenset() if is_composed else _composing()
    kinds = {}
    for char in here:
        if char == " ":
            kinds[char] = _BLANK
        elif char.isspace():
            kinds[char] = _OTHER_SPACE
        elif char in _DROPPED:
            kinds[char] = _IS_DROPPED
        elif char in composing or (composing and unicodedata.normalize("NFC", char) != char):
            kinds[char] = _COMPOSES
        elif _spelled(char) != char:
            kinds[char] = _IS_SPELLED
    return kinds


@lru_cache(maxsize=1)
def _composing() -> frozenset[str]:
    """Characters that may become one with what stands before them (NFC_Quick_Check is Maybe, or a combining class)."""
    composing = {chr(code) for code in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))}  # Hangul vowels and finals
    for code in range(0x110000):
        char = chr(code)
        if unicodedata.combining(char):
            composing.add(char)
        parts = unicodedata.decomposition(char).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            composing.add(chr(int(parts[1], 16)))
    return frozenset(composing)


def _blank(text: str, run: str, start: int, end: int) -> str:
    """What a run of white space and of characters that nobody says comes to."""
    if start == 0 or end == len(text) or not any(map(str.isspace, run)):
        return ""
    if "\n" not in run:
        return " "
    is_within = run[0] == "\u00ad" or (_IDEOGRAPH.match(text, start - 1) and _IDEOGRAPH.match(text, end))
    return "" if is_within else " "


def _unbroken(text: str, start: int, end: int, known: set[str]) -> str:
    """What a hyphen at a line break comes to: nothing within a word, a hyphen within a code or a compound."""
    left = _LETTERS_BEFORE.search(text, max(0, start - 40), start)
    right = _LETTERS.match(text, end)
    if not left or not right or not text[end].islower():
        return "-"
    around = text[left.start() - 1] if left.start() else "", text[right.end() : right.end() + 1]
    if any(char.isdigit() for char in around):
        return "-"
    one, other = left.group().lower(), right.group().lower()
    return "-" if f"{one}-{other}" in known and one + other not in known else ""


@lru_cache(maxsize=4096)
def _spelled(char: str) -> str:
    """Letters and ASCII marks for what type has in other forms."""
    spelled = _SPELLED.get(char)
    if spelled is None and _PRESENTATION_FORM.match(char):
        spelled = unicodedata.normalize("NFKC", char)
        if " " in spelled:  # a mark that stands alone, or a whole phrase
            return char
    return char if spelled is None else spelled


__all__ = ["FoldedText", "code_points", "fold", "fold_piece", "table_of"]
