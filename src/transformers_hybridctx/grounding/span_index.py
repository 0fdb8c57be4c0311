# SPDX-License-Identifier: Apache-2.0
"""All spans of a text that a quotation may be, findable by how they begin: a sorted list of places.

The suffix array is libdivsufsort's (Y. Mori, "libdivsufsort", by way of `pydivsufsort`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from pydivsufsort import divsufsort

from .borders import word_borders
from .folding import FoldedText, fold
from .labels import spoken_labels
from .token_pieces import MAX_PIECE_BYTES, TokenPieces, first_bytes

_SAMPLE, _COMPARED = 1000, 256
"""Neighbours of a kept order that are compared, and bytes of each."""
_AT_A_TIME = 1 << 18
"""Places whose longest pieces are looked up at a time: a bound on memory (times 64 bytes)."""


class SpanIndex:
    """
    The places of a text at which a span may begin, in the order of what stands there.

    Attributes:
        buffer: the text, UTF-8 bytes.
        order: int32 or int64 `[places]`: offsets into `buffer`, sorted by the bytes from there on.
        may_end: bool `[len(buffer) + 1]`: whether a span may end before each byte.
    """

    def __init__(self, buffer: bytes, order: np.ndarray, may_end: np.ndarray) -> None:
        self.buffer = buffer
        self.order = order
        self.may_end = may_end
        self._padded = np.frombuffer(buffer + bytes(MAX_PIECE_BYTES), np.uint8)

    @classmethod
    def of_text(cls, text: str, order: np.ndarray | None = None) -> SpanIndex:
        """
        Spans that begin and end at word borders, and with no white space.

        Args:
            text: folded.
            order: of an index of the same text, to be used again.
        """
        buffer = text.encode("utf-8", "surrogatepass")
        offsets = character_offsets(buffer)
        borders = word_borders(text)
        may_end = np.zeros(len(buffer) + 1, bool)
        may_end[offsets[borders]] = True
        may_begin = may_end[:-1] & (np.frombuffer(buffer, np.uint8) != ord(" "))
        if order is None:
            suffixes = divsufsort(buffer)
            return cls(buffer, suffixes[may_begin[suffixes]], may_end)
        index = cls(buffer, order, may_end)
        index._check_order(may_begin)
        return index

    @classmethod
    def of_lines(cls, lines: Iterable[bytes]) -> SpanIndex:
        """Spans that begin and end with lines, which hold no line break."""
        words = sorted(lines)
        buffer = b"".join(word + b"\n" for word in words)
        ends = np.flatnonzero(np.frombuffer(buffer, np.uint8) == ord("\n"))
        may_end = np.zeros(len(buffer) + 1, bool)
        may_end[ends] = True
        return cls(buffer, np.append(0, ends + 1)[: len(words)], may_end)

    def _check_order(self, may_begin: np.ndarray) -> None:
        """`ValueError` for an order that does not hold just these places, or not sorted, as far as a sample shows."""
        order, found = self.order, np.zeros(len(may_begin), bool)
        is_whole = order.ndim == 1 and order.dtype.kind == "i" and len(order) == np.count_nonzero(may_begin) > 0
        if is_whole and order.min() >= 0 and order.max() < len(found):
            found[order] = True
        if np.array_equal(found, may_begin):
            sample = np.linspace(0, len(order) - 1, _SAMPLE, dtype=np.int64)
            neighbours = ((order[place], order[min(place + 1, len(order) - 1)]) for place in sample)
            if all(self._from(one) <= self._from(other) for one, other in neighbours):
                return
        raise ValueError("the order is that of another text: make the index without it")

    def _from(self, place: int) -> bytes:
        return self.buffer[place : place + _COMPARED]

    def narrow(self, low: int, high: int, depth: int, piece: bytes) -> tuple[int, int]:
        """Those of the places [low, high), whose texts agree for `depth` bytes, that go on with `piece`."""
        buffer, order, size = self.buffer, self.order, len(piece)

        def following(index: int) -> bytes:
            start = int(order[index]) + depth
            return buffer[start : start + size]

        places = range(low, high)
        first = bisect_left(places, piece, key=following)
        last = bisect_left(places, True, lo=first, key=lambda index: following(index) > piece)
        return low + first, low + last

    def has(self, span: bytes) -> bool:
        """Whether a span begins so."""
        low, high = self.narrow(0, len(self.order), 0, span)
        return low < high

    def windows(self, places: np.ndarray | slice) -> np.ndarray:
        """The bytes from each place on, uint8 `[places, MAX_PIECE_BYTES]`, zeros behind the end."""
        return np.lib.stride_tricks.sliding_window_view(self._padded, MAX_PIECE_BYTES)[places]


class BoundIndex:
    """
    A [`SpanIndex`] for the pieces of one vocabulary.

    Attributes:
        longest: int32 `[len(buffer)]`: the longest piece that stands at each byte, or -1.
        at_start: bool `[pieces + 1]`: pieces that a span may begin with, with a blank before it or without; the last
            entry stands for tokens without a piece, and is False.
        kept_steps: what goes on after the first words of spans that stand in very many places, for those who match.
    """

    def __init__(self, index: SpanIndex, pieces: TokenPieces) -> None:
        self.kept_steps: dict[Any, np.ndarray] = {}
        self.index = index
        self.pieces = pieces
        self.longest = np.empty(len(index.buffer), np.int32)
        for start in range(0, len(self.longest), _AT_A_TIME):
            places = slice(start, min(start + _AT_A_TIME, len(self.longest)))
            self.longest[places] = longest_pieces(index.windows(places), pieces)
        self.at_start = self._at_start()

    def _at_start(self) -> np.ndarray:
        index, order = self.index, self.index.order
        found = np.zeros(len(self.pieces.pieces) + 1, bool)
        found[self.longest[order]] = True
        is_behind_blank = index.windows(order - 1)[:, 0] == ord(" ")
        found[self.longest[order[is_behind_blank] - 1]] = True
        others = order[~is_behind_blank]
        for start in range(0, len(others), _AT_A_TIME):
            windows = np.roll(index.windows(others[start : start + _AT_A_TIME]), 1, axis=1)
            windows[:, 0] = ord(" ")
            found[longest_pieces(windows, self.pieces)] = True
        return self.with_beginnings(found)

    def with_beginnings(self, found: np.ndarray) -> np.ndarray:
        """Marks, too, every piece that a marked one begins with; bool `[pieces + 1]`, changed in place."""
        found[-1] = False
        new = np.flatnonzero(found)
        while len(new):
            parents = self.pieces.parents[new]
            new = np.unique(parents[parents >= 0])
            new = new[~found[new]]
            found[new] = True
        return found


def longest_pieces(windows: np.ndarray, pieces: TokenPieces) -> np.ndarray:
    """The longest piece that each window (uint8 `[windows, MAX_PIECE_BYTES]`) begins with, int32, or -1."""
    if not len(pieces.pieces):
        return np.full(len(windows), -1, np.int32)
    # The last piece in order that is not behind the window: what the window begins with is it, or what it begins with.
    keys = first_bytes(windows)
    last = np.searchsorted(pieces.keys, keys, side="right").astype(np.int32) - 1
    differing = pieces.keys[last] ^ keys
    alike = sum((differing >> np.uint64(64 - 8 * size)) == 0 for size in range(1, 9)).astype(np.int32)
    if len(same := np.flatnonzero((alike == 8) & (last >= 0))):  # pieces of 8 bytes and more: all their bytes decide
        rows = np.ascontiguousarray(windows[same])
        found = np.searchsorted(pieces.table, rows.view(f"S{MAX_PIECE_BYTES}").ravel(), side="right") - 1
        shown = pieces.table[found].view(np.uint8).reshape(-1, MAX_PIECE_BYTES) != rows
        last[same] = found
        alike[same] = np.where(shown.any(axis=1), shown.argmax(axis=1), MAX_PIECE_BYTES)
    return np.where(last < 0, -1, pieces.cuts[last, alike])


def character_offsets(buffer: bytes) -> np.ndarray:
    """Where each character of UTF-8 bytes begins, and the end: int64 `[characters + 1]`."""
    leads = np.flatnonzero((np.frombuffer(buffer, np.uint8) & 0xC0) != 0x80)
    return np.append(leads, len(buffer))


class DocumentIndex:
    """
    A document that quotations can be held to: made once for a document, for any vocabulary.

    Args:
        text: the document.
        order: the `order` of an index of the same text, as [`DocumentIndex.order`] gave it to be kept.

    Raises:
        ValueError: a document without text, or an order of another text.
    """

    def __init__(self, text: str, order: np.ndarray | None = None) -> None:
        self.folded: FoldedText = fold(text)
        if not self.folded.text:
            raise ValueError(
                "the document has no text, so nothing can be quoted from it (page pictures need text recognition first)"
            )
        self.spans = SpanIndex.of_text(self.folded.text, order)
        self._bound: tuple[TokenPieces, BoundIndex, BoundIndex | None] | None = None
        self._offsets: np.ndarray | None = None

    @property
    def order(self) -> np.ndarray:
        """What is worth keeping of the index: the sorted places, int32 `[places]`; the rest is soon made again."""
        return self.spans.order

    @cached_property
    def labels(self) -> dict[bytes, bytes]:
        """What the document's lines begin with, as it may be said, see [`spoken_labels`]."""
        spoken = spoken_labels(self.folded.raw)
        # a line's first word may be the rest of one that a hyphen has broken
        standing = {label for label in set(spoken.values()) if self.spans.has(label)}
        return {form: label for form, label in spoken.items() if label in standing}

    def bound_to(self, pieces: TokenPieces) -> tuple[BoundIndex, BoundIndex | None]:
        """The index for a vocabulary, and that of its labels, if it has any; those of the last vocabulary are kept."""
        if self._bound is None or self._bound[0] is not pieces:
            # a vocabulary without blanks, as WordPiece's, cannot say what begins with an article
            may_say = any(piece.startswith(b" ") for piece in pieces.pieces) and bool(self.labels)
            labels = BoundIndex(SpanIndex.of_lines(self.labels), pieces) if may_say else None
            self._bound = pieces, BoundIndex(self.spans, pieces), labels
        return self._bound[1:]

    def raw_span(self, start: int, end: int) -> tuple[int, int]:
        """Characters of the document that the bytes [start, end) of its folded form stand for."""
        if self._offsets is None:
            self._offsets = character_offsets(self.spans.buffer)
        first, last = np.searchsorted(self._offsets, (start, end)).tolist()
        return self.folded.raw_span(first, last)


def as_index(document: Any) -> DocumentIndex:
    """A text's index, or the one given."""
    return document if isinstance(document, DocumentIndex) else DocumentIndex(document)


def documents_of(text: str | DocumentIndex | Sequence[str | DocumentIndex]) -> list[str | DocumentIndex]:
    """
    The documents that a caller gives, one or several.

    Raises:
        TypeError, ValueError: something that is no document; none.
    """
    documents: list[Any] = list(text) if isinstance(text, (list, tuple)) else [text]
    for document in documents:
        if not isinstance(document, (str, DocumentIndex)):
            raise TypeError(
                f"text= is the document's text, a DocumentIndex, or a list of these, not {type(document).__name__}: "
                f"{document!r:.80}"
            )
    if not documents:
        raise ValueError("text=[] names no document: give one, or one for each prompt")
    return documents


__all__ = [
    "BoundIndex",
    "DocumentIndex",
    "SpanIndex",
    "as_index",
    "character_offsets",
    "documents_of",
    "longest_pieces",
]
