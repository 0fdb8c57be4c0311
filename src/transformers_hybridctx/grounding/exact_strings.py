# SPDX-License-Identifier: Apache-2.0
"""Codes, numbers and identifiers in free text: those that begin like one of a document's go on as one of these."""

from __future__ import annotations

import re
from codecs import getincrementaldecoder
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

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


def exact_strings(texts: Iterable[str]) -> list[str]:
    """The words of folded texts that hold an exact character, each once, sorted by their bytes."""
    found = {word for text in texts for word, _ in _words(text) if EXACT_CHARACTER.search(word)}
    return sorted(found, key=lambda word: word.encode("utf-8", "surrogatepass"))


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


class ExactStrings:
    """
    Exact strings of documents, and which tokens go on with them.

    A word becomes exact with its first digit, underscore or at sign. If the word up to there begins one of the strings,
    it is held: it has to become one of these strings, whole. Other words are free.

    Args:
        texts: documents and questions, folded.
        pieces: the vocabulary.
    """

    def __init__(self, texts: Iterable[str], pieces: TokenPieces) -> None:
        words = exact_strings(texts)
        buffer = "".join(f"{word}\n" for word in words).encode("utf-8", "surrogatepass")
        ends = np.flatnonzero(np.frombuffer(buffer, np.uint8) == ord("\n"))
        may_end = np.zeros(len(buffer) + 1, bool)
        may_end[ends] = True
        starts = np.append(0, ends + 1)[: len(words)]
        self._matcher = IndexMatcher(BoundIndex(SpanIndex(buffer, starts, may_end), pieces))
        self._pieces = pieces
        texts = [fold_end(decoded(raw or b"")[0]) for raw in pieces.raw]
        kinds = np.array([_first_kind(text) for text in texts])
        self._is_glued, self._is_joint = kinds == "word", kinds == "joint"
        self._after_blank = np.ones(len(pieces), bool)
        self._heads: dict[str, list[int]] = {}
        for token, text in enumerate(texts):
            if exact := EXACT_CHARACTER.search(text):
                self._after_blank[token] = self._is_fine(text)
                if kinds[token] != "other":
                    self._heads.setdefault(text[: exact.end()], []).append(token)
        first_bytes = np.array([(raw or b"a")[0] for raw in pieces.raw])
        is_exact = np.array([EXACT_CHARACTER.search(text) is not None for text in texts])
        self._goes_on_with_part = (first_bytes & 0xC0 == 0x80) & ~is_exact
        broken = [token for token, text in enumerate(texts) if _is_broken(text, pieces.raw[token])]
        self._after_blank[broken] = False
        self._kept: dict[str, np.ndarray] = {}

    def allowed(self, state: StringState) -> np.ndarray:
        """Tokens that may come next, bool `[vocabulary]`; ends of the answer count as blanks."""
        word = state.word
        exact = EXACT_CHARACTER.search(word)
        if exact and self._find(word[: exact.end()]):
            return self._go_on(state)
        if state.part:
            return self._goes_on_with_part
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
        allowed = self._matcher.allowed(cursor) if cursor else np.zeros(len(self._pieces), bool)
        if self._is_whole(word) or (_JOINT.match(word[-1]) and self._is_whole(word[:-1])):
            ends = (
                self._ending_part(state.part) if state.part else self._after_blank & ~self._is_glued & ~self._is_joint
            )
            allowed = allowed | ends
        return allowed

    def _ending_part(self, part: bytes) -> np.ndarray:
        """Tokens that go on with a character after a word, and make it none of the word's."""
        allowed = self._goes_on_with_part.copy()
        for token in np.flatnonzero(allowed).tolist():
            text, _ = decoded(part + (self._pieces.raw[token] or b""))
            allowed[token] = _first_kind(fold_end(text)) == "other"
        return allowed

    def _not_exact(self, word: str, is_free: bool) -> np.ndarray:
        """Tokens after a word that is not exact yet, or is exact and free."""
        kept = self._kept.get(word)
        if kept is not None:
            return kept
        allowed = self._after_blank | self._is_glued | self._is_joint
        cursor = None if is_free else self._find(word)
        if cursor is not None:
            goes_on = self._matcher.allowed(cursor)
            begun = {head[0]: self._find(word + head[0]) is not None for head in self._heads}
            for head, tokens in self._heads.items():
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

    def _is_fine(self, text: str) -> bool:
        """Whether a token's exact words are strings, or begin one at the token's end, or are free."""
        for word, is_last in _words(text):
            exact = EXACT_CHARACTER.search(word)
            if (
                exact
                and self._find(word[: exact.end()])
                and not (self._find(word) if is_last else self._is_whole(word))
            ):
                return False
        return True


def fold_end(text: str) -> str:
    """A stretch of free text folded, a blank before or after it kept."""
    before, after = text[:1].isspace(), text[-1:].isspace()
    return f"{' ' if before else ''}{fold(text).text}{' ' if after else ''}"


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


def _is_of_word(char: str) -> bool:
    """Whether a character is part of a word that may go on."""
    return bool(char) and not word_borders(f"a{char}")[1]


def _first_kind(text: str) -> str:
    """Whether a token goes on with a word, or with a joint that a word's letters follow; `"other"` else."""
    if not text:
        return "other"
    if _JOINT.match(text[0]):
        return "joint" if _is_of_word(text[1:2]) else "other"
    return "word" if _is_of_word(text[0]) else "other"


__all__ = ["EXACT_CHARACTER", "ExactStrings", "StringState", "decoded", "exact_strings", "fold_end"]
