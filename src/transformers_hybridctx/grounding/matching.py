# SPDX-License-Identifier: Apache-2.0
"""Spans said token by token: where they stand, and which tokens go on with them.

Two matchers do the same: [`PlainMatcher`] defines it with nothing but `bytes.find`; [`IndexMatcher`] is the fast one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from .borders import word_borders
from .span_index import BoundIndex, DocumentIndex, character_offsets, longest_pieces
from .token_pieces import TokenPieces

_FEW = 1 << 18
"""Places that are looked at one by one (10 ns each); of more, those that go on alike are looked at together."""
_SAMPLE = 1 << 12
"""Of more places, those that are looked at first."""
_KEPT_FROM, _KEPT_STEPS = 1 << 12, 128
"""Steps at so many places and more are kept, so many for each document: one byte a piece each."""


class Cursor(NamedTuple):
    """
    A span that has begun.

    Attributes:
        said: its folded bytes.
        fresh: no token is said yet, so that the next one may bring a blank.
        low, high: it stands at the places [low, high) of the index.
        label: the label that it may be, as running words have it ([`LabelMatcher`]).
        is_label: it is a label in other words than the document's, and not whole.
    """

    said: bytes
    fresh: bool
    low: int = 0
    high: int = 0
    label: Cursor | None = None
    is_label: bool = False

    @property
    def spoken(self) -> bytes:
        """Without a blank that ends it."""
        return self.said.removesuffix(b" ")


class Matcher(Protocol):
    """Spans of a text, token by token."""

    def start(self) -> Cursor: ...

    def spell(self, said: bytes) -> Cursor | None:
        """The span that begins with folded bytes; None where the text has none."""
        ...

    def extend(self, cursor: Cursor, token: int) -> Cursor | None:
        """The span with a token more; None where the text does not go on so."""
        ...

    def allowed(self, cursor: Cursor) -> np.ndarray:
        """Bool `[vocabulary]`: the tokens that [`Matcher.extend`] takes."""
        ...

    def may_end(self, cursor: Cursor) -> bool:
        """Whether the span may end here (before a blank that it ends with), at one of its places at least."""
        ...

    def places(self, cursor: Cursor, may_end: bool = True) -> list[tuple[int, int]]:
        """Bytes [start, end) of the text at which the span stands (and, unless told otherwise, may end), in order."""
        ...

    def count(self, cursor: Cursor) -> int:
        """At how many places the span stands."""
        ...

    def tokens_at(self, cursor: Cursor, starts: Sequence[int]) -> list[int]:
        """The tokens that go on with the span where it begins at one of some bytes, if it stands there."""
        ...


@dataclass(eq=False)
class IndexMatcher:
    """
    Spans of an indexed text.

    A step takes time for the places that go on differently, not for all of them, and for the vocabulary once.
    """

    bound: BoundIndex

    def start(self) -> Cursor:
        return Cursor(b"", True, 0, len(self.bound.index.order))

    def extend(self, cursor: Cursor, token: int) -> Cursor | None:
        piece = self.bound.pieces.folded(token)
        if piece is None:
            return None
        if cursor.fresh and piece.startswith(b" "):
            piece = piece[1:]
        return self._narrowed(cursor, piece)

    def spell(self, said: bytes) -> Cursor | None:
        return self._narrowed(self.start(), said)

    def _narrowed(self, cursor: Cursor, piece: bytes) -> Cursor | None:
        low, high = self.bound.index.narrow(cursor.low, cursor.high, len(cursor.said), piece)
        return Cursor(cursor.said + piece, False, low, high) if low < high else None

    def allowed(self, cursor: Cursor) -> np.ndarray:
        return self.bound.pieces.tokens_of(self._pieces(cursor))

    def _pieces(self, cursor: Cursor) -> np.ndarray:
        """Bool `[pieces + 1]`, which must not be changed."""
        if cursor.fresh:
            return self.bound.at_start
        kept = self.bound.kept_steps.get(cursor)
        if kept is not None:
            return kept
        found = np.zeros(len(self.bound.at_start), bool)
        ends = self._different_ends(cursor)
        found[self.bound.longest[ends[ends < len(self.bound.longest)]]] = True
        self.bound.with_beginnings(found)
        if cursor.high - cursor.low >= _KEPT_FROM and len(self.bound.kept_steps) < _KEPT_STEPS:
            self.bound.kept_steps[cursor] = found
        return found

    def _different_ends(self, cursor: Cursor) -> np.ndarray:
        """Where the span ends at its places; of neighbours in order that go on alike, at least one."""
        low, high, depth = cursor.low, cursor.high, len(cursor.said)
        order = self.bound.index.order
        if high - low <= _FEW:
            return order[low:high] + depth
        step = max(1, (high - low) // _SAMPLE)
        some = order[low:high:step] + depth
        windows = self.bound.index.windows(some)
        # Places are sorted by what follows: where two agree, so do all between them.
        differ = np.append((windows[1:] != windows[:-1]).any(axis=1), True)
        gaps = (np.flatnonzero(differ) * step)[:, None] + np.arange(step)
        between = low + gaps[gaps < high - low]
        return np.concatenate((some, order[between] + depth))

    def may_end(self, cursor: Cursor) -> bool:
        depth = len(cursor.spoken)
        if not depth:
            return False
        order, may_end = self.bound.index.order, self.bound.index.may_end
        start, size = cursor.low, 256
        while start < cursor.high:
            if may_end[order[start : min(start + size, cursor.high)] + depth].any():
                return True
            start, size = start + size, size * 8
        return False

    def places(self, cursor: Cursor, may_end: bool = True) -> list[tuple[int, int]]:
        starts = self.bound.index.order[cursor.low : cursor.high]
        depth = len(cursor.spoken)
        if may_end:
            starts = starts[self.bound.index.may_end[starts + depth]]
        starts = np.sort(starts)
        return [(start, start + depth) for start in starts.tolist()]

    def count(self, cursor: Cursor) -> int:
        return cursor.high - cursor.low

    def tokens_at(self, cursor: Cursor, starts: Sequence[int]) -> list[int]:
        buffer, depth = self.bound.index.buffer, len(cursor.said)
        ends = [start + depth for start in starts if buffer.startswith(cursor.said, start)]
        windows = self.bound.index.windows(np.array(ends, np.int64))
        found = np.zeros(len(self.bound.at_start), bool)
        found[longest_pieces(windows, self.bound.pieces)] = True
        if cursor.fresh:
            windows = np.roll(windows, 1, axis=1)
            windows[:, 0] = ord(" ")
            found[longest_pieces(windows, self.bound.pieces)] = True
        return np.flatnonzero(self.bound.pieces.tokens_of(self.bound.with_beginnings(found))).tolist()


class PlainMatcher:
    """The same, defined: a token is allowed if what is said, and it, stand in the text from a word border on. Slow."""

    def __init__(self, text: str, pieces: TokenPieces) -> None:
        self._text = text.encode("utf-8", "surrogatepass")
        self._borders = {int(end) for end in character_offsets(self._text)[word_borders(text)]}
        self._pieces = pieces

    def start(self) -> Cursor:
        return Cursor(b"", True)

    def extend(self, cursor: Cursor, token: int) -> Cursor | None:
        piece = self._pieces.folded(token)
        if piece is None:
            return None
        if cursor.fresh and piece.startswith(b" "):
            piece = piece[1:]
        return self.spell(cursor.said + piece)

    def spell(self, said: bytes) -> Cursor | None:
        return Cursor(said, False) if self._starts(said) else None

    def allowed(self, cursor: Cursor) -> np.ndarray:
        return np.array([self.extend(cursor, token) is not None for token in range(len(self._pieces))])

    def may_end(self, cursor: Cursor) -> bool:
        return bool(cursor.spoken) and bool(self.places(cursor))

    def places(self, cursor: Cursor, may_end: bool = True) -> list[tuple[int, int]]:
        found = [(start, start + len(cursor.spoken)) for start in self._starts(cursor.said)]
        return [(start, end) for start, end in found if not may_end or end in self._borders]

    def count(self, cursor: Cursor) -> int:
        return len(self._starts(cursor.said))

    def tokens_at(self, cursor: Cursor, starts: Sequence[int]) -> list[int]:
        said = [(token, self.extend(cursor, token)) for token in range(len(self._pieces))]
        stands = [(token, after) for token, after in said if after is not None]
        return [token for token, after in stands if any(self._text.startswith(after.said, start) for start in starts)]

    def _starts(self, said: bytes) -> list[int]:
        """Where a span that is said stands from a word border on."""
        found, start = [], self._text.find(said)
        while start >= 0:
            if start in self._borders and self._text[start : start + 1] not in (b" ", b""):
                found.append(start)
            start = self._text.find(said, start + 1)
        return found


@dataclass(eq=False)
class LabelMatcher:
    """
    Spans of a document that may begin with a label as running words have it.

    While a label is said in other words than the document's, the span is as much of the document's label; when it is
    whole, it goes on as the document does. What the document has word for word goes before.

    Args:
        document: matches the document's spans.
        labels: matches the labels as they may be said.
        written: of each of these, the document's.
    """

    document: Matcher
    labels: Matcher
    written: Mapping[bytes, bytes]

    def __post_init__(self) -> None:
        self._forms = sorted(self.written)

    def start(self) -> Cursor:
        return self.document.start()._replace(label=self.labels.start())

    def spell(self, said: bytes) -> Cursor | None:
        return self.document.spell(said)

    def extend(self, cursor: Cursor, token: int) -> Cursor | None:
        exact = None if cursor.is_label else self.document.extend(cursor, token)
        label = self.labels.extend(cursor.label, token) if cursor.label else None
        if label is None:
            return exact
        if label.said in self.written:
            return exact or self.document.spell(self.written[label.said])
        return exact._replace(label=label) if exact else self._begun(label)

    def _begun(self, label: Cursor) -> Cursor:
        """The span where a label has begun that is said in other words: the first one that begins so."""
        form = self._forms[bisect_left(self._forms, label.said)]
        written = self.written[form]
        size = len(label.said) - len(form) + len(written)
        begun = self.document.spell(written[:size]) if size > 0 else None
        return (begun or Cursor(b"", False))._replace(label=label, is_label=True)

    def allowed(self, cursor: Cursor) -> np.ndarray:
        if cursor.label is None:
            return self.document.allowed(cursor)
        labels = self.labels.allowed(cursor.label)
        return labels if cursor.is_label else labels | self.document.allowed(cursor._replace(label=None))

    def may_end(self, cursor: Cursor) -> bool:
        return not cursor.is_label and self.document.may_end(cursor)

    def places(self, cursor: Cursor, may_end: bool = True) -> list[tuple[int, int]]:
        return self.document.places(cursor, may_end) if cursor.said else []

    def count(self, cursor: Cursor) -> int:
        return self.document.count(cursor)

    def tokens_at(self, cursor: Cursor, starts: Sequence[int]) -> list[int]:
        return [] if cursor.is_label else self.document.tokens_at(cursor, starts)


def document_matcher(index: DocumentIndex, pieces: TokenPieces) -> Matcher:
    """Matches a document's spans in a vocabulary, its labels in running words, too, if it has any."""
    document, labels = index.bound_to(pieces)
    matcher = IndexMatcher(document)
    return matcher if labels is None else LabelMatcher(matcher, IndexMatcher(labels), index.labels)


__all__ = ["Cursor", "IndexMatcher", "LabelMatcher", "Matcher", "PlainMatcher", "document_matcher"]
