# SPDX-License-Identifier: Apache-2.0
"""Codes, numbers and identifiers in free text: those that begin like one of a document's go on as one of these."""

from __future__ import annotations

import re
from codecs import getincrementaldecoder
from collections.abc import Iterator, Set
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from weakref import WeakKeyDictionary

import numpy as np

from .borders import JOINTS, word_borders
from .folding import fold
from .matching import Cursor, IndexMatcher
from .span_index import BoundIndex, SpanIndex
from .token_pieces import TokenPieces

EXACT_CHARACTER = re.compile(r"[\d_@]")
"""A word is exact from the first of these on: a digit of any script, an underscore, an at sign."""
_JOINT = re.compile(f"[{re.escape(JOINTS)},]")
_KEPT_WORDS = 256


def exact_strings(text: str) -> set[str]:
    """The words of a folded text that hold an exact character."""
    bounds = np.flatnonzero(word_borders(text))
    places = np.fromiter((match.start() for match in EXACT_CHARACTER.finditer(text)), np.int64)
    words = np.unique(np.searchsorted(bounds, places, side="right"))
    return {text[start:end] for start, end in zip(bounds[words - 1].tolist(), bounds[words].tolist())}


@dataclass(frozen=True)
class StringState:
    """
    How far free text has come.

    Attributes:
        word: the word at its end, a joint behind it included; folded.
        part: bytes of a character that is not complete yet.
    """

    word: str = ""
    part: bytes = b""


class TokenWords:
    """
    What the tokens of a vocabulary do to the word that a text ends with: the same for every document.

    Attributes:
        is_glued, is_joint: bool `[vocabulary]`: tokens that go on with it: by one of its letters; by a joint and one.
        is_broken: tokens that go on with a character that has not begun, or begins none.
        goes_on_with_part: tokens that go on with a character, and are not exact.
        exact: the exact words of each token that has some, as (up to its first exact character, whole, whether it goes to
            the token's end).
        heads: the tokens that make a word exact, by their text up to the first exact character.
    """

    def __init__(self, pieces: TokenPieces) -> None:
        size = len(pieces)
        self.is_glued, self.is_joint, self.is_broken = (np.zeros(size, bool) for _ in range(3))
        self.goes_on_with_part = np.zeros(size, bool)
        self.exact: dict[int, list[tuple[str, str, bool]]] = {}
        self.heads: dict[str, list[int]] = {}
        for token, raw in enumerate(pieces.raw):
            text = fold_end(decoded(raw or b"")[0])
            kind = _first_kind(text[:2])
            self.is_glued[token], self.is_joint[token] = kind == "word", kind == "joint"
            self.is_broken[token] = _is_broken(text, raw)
            exact = EXACT_CHARACTER.search(text)
            self.goes_on_with_part[token] = exact is None and bool(raw) and (raw or b"")[0] & 0xC0 == 0x80
            if exact:
                words = [(word, EXACT_CHARACTER.search(word), is_last) for word, is_last in _words(text)]
                self.exact[token] = [(word[: found.end()], word, is_last) for word, found, is_last in words if found]
                if kind != "other":
                    self.heads.setdefault(text[: exact.end()], []).append(token)


_token_words: WeakKeyDictionary[TokenPieces, TokenWords] = WeakKeyDictionary()


def token_words(pieces: TokenPieces) -> TokenWords:
    """Those of a vocabulary, worked out once."""
    known = _token_words.get(pieces)
    if known is None:
        known = _token_words[pieces] = TokenWords(pieces)
    return known


class ExactStrings:
    """
    Exact strings of documents, and which tokens go on with them.

    A word becomes exact with its first digit, underscore or at sign. If the word up to there begins one of the strings,
    it is held: it has to become one of these strings, whole. Other words are free.

    Args:
        strings: of documents and questions ([`exact_strings`]).
        pieces: the vocabulary.
    """

    def __init__(self, strings: Set[str], pieces: TokenPieces) -> None:
        self.strings = strings
        self.pieces = pieces
        lines = SpanIndex.of_lines(word.encode("utf-8", "surrogatepass") for word in strings)
        self._matcher = IndexMatcher(BoundIndex(lines, pieces))
        self._words = token_words(pieces)
        self._after_blank = ~self._words.is_broken
        for token, exact in self._words.exact.items():
            self._after_blank[token] &= all(map(self._is_fine, exact))
        self._kept: dict[str, np.ndarray] = {}

    def allowed(self, state: StringState) -> np.ndarray:
        """Tokens that may come next, bool `[vocabulary]`; ends of the answer count as blanks."""
        word = state.word
        exact = EXACT_CHARACTER.search(word)
        if exact and self._find(word[: exact.end()]):
            return self._go_on(state)
        if state.part:
            return self._words.goes_on_with_part
        return self._after_blank if not word else self._not_exact(word, is_free=bool(exact))

    def advance(self, state: StringState, raw: bytes | None) -> StringState:
        """The state after a token's bytes, or after a special token."""
        if raw is None:
            return StringState()
        text, part = decoded(state.part + raw)
        return StringState(_last_word(state.word + fold_end(text)), part)

    def _go_on(self, state: StringState) -> np.ndarray:
        """Tokens that go on with a word that is held."""
        word = state.word
        cursor = self._find(word, state.part)
        allowed = self._matcher.allowed(cursor) if cursor else np.zeros(len(self.pieces), bool)
        if self._is_whole(word) or (_JOINT.match(word[-1]) and self._is_whole(word[:-1])):
            others = self._after_blank & ~self._words.is_glued & ~self._words.is_joint
            allowed = allowed | (self._ending_part(state.part) if state.part else others)
        return allowed

    def _ending_part(self, part: bytes) -> np.ndarray:
        """Tokens that go on with a character after a word, and make it none of the word's."""
        allowed = self._words.goes_on_with_part.copy()
        for token in np.flatnonzero(allowed).tolist():
            text, _ = decoded(part + (self.pieces.raw[token] or b""))
            allowed[token] = _first_kind(fold_end(text)) == "other"
        return allowed

    def _not_exact(self, word: str, is_free: bool) -> np.ndarray:
        """Tokens after a word that is not exact yet, or is exact and free."""
        kept = self._kept.get(word)
        if kept is not None:
            return kept
        allowed = self._after_blank | self._words.is_glued | self._words.is_joint
        cursor = None if is_free else self._find(word)
        if cursor is not None:
            goes_on = self._matcher.allowed(cursor)
            begun = {head[0]: self._find(word + head[0]) is not None for head in self._words.heads}
            for head, tokens in self._words.heads.items():
                if begun[head[0]] and self._find(word + head):
                    allowed[tokens] = goes_on[tokens]
        if len(self._kept) >= _KEPT_WORDS:
            self._kept.pop(next(iter(self._kept)))
        self._kept[word] = allowed
        return allowed

    def _find(self, word: str, part: bytes = b"") -> Cursor | None:
        """The strings that begin with a word."""
        said = word.encode("utf-8", "surrogatepass") + part
        index = self._matcher.bound.index
        low, high = index.narrow(0, len(index.order), 0, said)
        return Cursor(said, False, low, high) if low < high else None

    def _is_whole(self, word: str) -> bool:
        cursor = self._find(word)
        return cursor is not None and self._matcher.may_end(cursor)

    def _is_fine(self, exact: tuple[str, str, bool]) -> bool:
        """Whether an exact word of a token is a string, or begins one at the token's end, or is free."""
        head, word, is_last = exact
        if self._find(head) is None:
            return True
        return self._find(word) is not None if is_last else self._is_whole(word)


def fold_end(text: str) -> str:
    """A stretch of free text folded, a blank before or after it kept."""
    before, after = text[:1].isspace(), text[-1:].isspace()
    bare = text.strip()
    if not (bare.isascii() and bare.isalnum()):  # else there is nothing to fold
        bare = fold(text).text
    return f"{' ' if before else ''}{bare}{' ' if after else ''}"


def decoded(raw: bytes) -> tuple[str, bytes]:
    """Bytes as text, and the bytes at their end of a character that is not complete."""
    decoder = getincrementaldecoder("utf-8")("replace")
    return decoder.decode(raw), decoder.getstate()[0]


def _is_broken(text: str, raw: bytes | None) -> bool:
    """Whether a token goes on with a character that has not begun, or begins none: text in UTF-8 has no such bytes."""
    return "\ufffd" in text and "\ufffd".encode() not in (raw or b"")


def _words(text: str) -> Iterator[tuple[str, bool]]:
    """Each word of a folded text, and whether it goes to the text's end."""
    bounds = np.flatnonzero(word_borders(text)).tolist()
    return ((text[start:end], end == len(text)) for start, end in pairwise(bounds) if not text[start:end].isspace())


def _last_word(text: str) -> str:
    """The word that a text ends with, and a joint behind it; empty where it ends otherwise."""
    text = text[-256:]
    joint = text[-1:] if _JOINT.match(text[-1:]) else ""
    bare = text[: len(text) - len(joint)]
    if not _is_of_word(bare[-1:]):
        return ""
    return bare[np.flatnonzero(word_borders(bare))[-2] :] + joint


@lru_cache(maxsize=4096)
def _is_of_word(char: str) -> bool:
    """Whether a character is part of a word that may go on."""
    return bool(char) and not word_borders(f"a{char}")[1]


@lru_cache(maxsize=65536)
def _first_kind(text: str) -> str:
    """Whether a token goes on with a word, or with a joint that a word's letters follow; `"other"` else."""
    if not text:
        return "other"
    if _JOINT.match(text[0]):
        return "joint" if _is_of_word(text[1:2]) else "other"
    return "word" if _is_of_word(text[0]) else "other"


__all__ = [
    "EXACT_CHARACTER",
    "ExactStrings",
    "StringState",
    "TokenWords",
    "decoded",
    "exact_strings",
    "fold_end",
    "token_words",
]
