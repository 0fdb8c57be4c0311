# SPDX-License-Identifier: Apache-2.0
"""What each token of a vocabulary says: its bytes, whatever the kind of tokenizer."""

from __future__ import annotations

import json
from bisect import bisect_left
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from .folding import fold_piece

MAX_PIECE_BYTES = 32
"""Folded bytes of the longest token that can be part of a quotation: longer ones (rows of dashes) are said in several."""


class TokenPieces:
    """
    The vocabulary of a tokenizer as bytes.

    A token of a byte-level vocabulary may be part of a character, so bytes are what is matched. Tokens that fold to the
    same bytes (a straight and a typographic apostrophe) are one piece.

    Attributes:
        raw: what each token says, UTF-8; None for special tokens and for ids that no token has.
        pieces: the folded bytes of all tokens that a quotation may hold, sorted, each once.
        table: `pieces` as a numpy array `[pieces]` of `MAX_PIECE_BYTES` bytes each; `keys`: their first 8, uint64.
        parents: int32 `[pieces]`, the longest other piece that a piece begins with, or -1.
        cuts: int32 `[pieces, MAX_PIECE_BYTES + 1]`: the longest piece of at most so many bytes that a piece begins with
            (or is), or -1.
        piece_of: int32 `[vocabulary]`, the piece of each token, or -1.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.raw = token_bytes(tokenizer)
        folded = [None if raw is None else folded_bytes(raw) for raw in self.raw]
        usable = {piece for piece in folded if piece and len(piece) <= MAX_PIECE_BYTES and 0 not in piece}
        self.pieces = sorted(usable)
        index = {piece: number for number, piece in enumerate(self.pieces)}
        self.piece_of = np.array([-1 if piece is None else index.get(piece, -1) for piece in folded], np.int32)
        self.table = np.array(self.pieces, dtype=f"S{MAX_PIECE_BYTES}")
        self.keys = first_bytes(self.table.view(np.uint8).reshape(-1, MAX_PIECE_BYTES))
        self.parents = self._parents()
        self.cuts = self._cuts()
        self._first_token, self._further_tokens = self._tokens()
        self._by_raw: dict[bytes, list[int]] = {}
        for token, raw in enumerate(self.raw):
            if raw:
                self._by_raw.setdefault(raw, []).append(token)
        self._sorted_raw = sorted(self._by_raw)

    def __len__(self) -> int:
        return len(self.raw)

    def _tokens(self) -> tuple[np.ndarray, dict[int, list[int]]]:
        """The first token of each piece, int64 `[pieces]`, and the others of those that have several."""
        tokens = np.flatnonzero(self.piece_of >= 0)
        _, first = np.unique(self.piece_of[tokens], return_index=True)
        others = np.setdiff1d(tokens, tokens[first])
        further: dict[int, list[int]] = {}
        for token in others.tolist():
            further.setdefault(int(self.piece_of[token]), []).append(token)
        return tokens[first], further

    def tokens_of(self, found: np.ndarray) -> np.ndarray:
        """The tokens of pieces: bool `[pieces]` (what is behind them counts for nothing) to bool `[vocabulary]`."""
        allowed = np.zeros(len(self.raw), bool)
        allowed[self._first_token[np.flatnonzero(found[: len(self.pieces)])]] = True
        for piece, tokens in self._further_tokens.items():
            if found[piece]:
                allowed[tokens] = True
        return allowed

    def _parents(self) -> np.ndarray:
        parents = np.full(len(self.pieces), -1, np.int32)
        open_pieces: list[int] = []
        for number, piece in enumerate(self.pieces):
            while open_pieces and not piece.startswith(self.pieces[open_pieces[-1]]):
                open_pieces.pop()
            if open_pieces:
                parents[number] = open_pieces[-1]
            open_pieces.append(number)
        return parents

    def _cuts(self) -> np.ndarray:
        lengths = np.array([*map(len, self.pieces), 0], np.int32)
        parents = np.append(self.parents, -1)
        cuts = np.empty((len(self.pieces), MAX_PIECE_BYTES + 1), np.int32)
        longest = np.arange(len(self.pieces), dtype=np.int32)
        for size in range(MAX_PIECE_BYTES, -1, -1):
            while len(long := np.flatnonzero(lengths[longest] > size)):
                longest[long] = parents[longest[long]]
            cuts[:, size] = longest
        return cuts

    def folded(self, token: int) -> bytes | None:
        """What a token adds to a quotation; None where it can be no part of one."""
        piece = self.piece_of[token] if token < len(self) else -1
        return None if piece < 0 else self.pieces[piece]

    def can_say(self, mark: bytes) -> bool:
        """Whether tokens say a mark, byte for byte, whatever stands before it."""
        reached = {0}
        for start in range(len(mark)):
            if start in reached:
                reached |= {start + len(self.raw[token] or b"") for token in self.tokens_towards(mark[start:])}
        return len(mark) in reached

    def tokens_towards(self, mark: bytes) -> list[int]:
        """Tokens that say `mark`, or a beginning of it, and nothing else."""
        return [token for end in range(1, len(mark) + 1) for token in self._by_raw.get(mark[:end], ())]

    def tokens_beyond(self, mark: bytes) -> list[int]:
        """Tokens that say `mark` and go on after it with more than white space."""
        found = []
        for index in range(bisect_left(self._sorted_raw, mark), len(self._sorted_raw)):
            raw = self._sorted_raw[index]
            if not raw.startswith(mark):
                break
            if raw[len(mark) :].strip():
                found += self._by_raw[raw]
        return found


def first_bytes(windows: np.ndarray) -> np.ndarray:
    """The first 8 bytes of each row of uint8 `[rows, 8 or more]` as a number that sorts as they do: uint64 `[rows]`."""
    return np.ascontiguousarray(windows[:, :8]).view(">u8").ravel().astype(np.uint64)


_known: WeakKeyDictionary[Any, TokenPieces] = WeakKeyDictionary()


def pieces_of(tokenizer: Any) -> TokenPieces:
    """
    The pieces of a tokenizer, worked out once for each tokenizer and size of its vocabulary.

    Raises:
        TypeError: something that is no tokenizer.
    """
    if not hasattr(tokenizer, "get_vocab"):
        way_out = ": give its tokenizer (processor.tokenizer)" if hasattr(tokenizer, "tokenizer") else ""
        raise TypeError(f"tokenizer= is the model's tokenizer, not {type(tokenizer).__name__}{way_out}")
    known = _known.get(tokenizer)
    if known is None or len(known) != len(tokenizer):
        known = _known[tokenizer] = TokenPieces(tokenizer)
    return known


def folded_bytes(raw: bytes) -> bytes:
    """A token's bytes folded; those of a part of a character as they are."""
    try:
        return fold_piece(raw.decode()).encode()
    except UnicodeDecodeError:
        return raw


def token_bytes(tokenizer: Any) -> list[bytes | None]:
    """
    What each token adds to a decoded text, in UTF-8; None for special tokens.

    Byte-level vocabularies, SentencePiece's with and without byte fallback, and those with a mark for the end of a word.

    Raises:
        ValueError: a tokenizer of another kind.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    decoders = _decoders(backend)
    kinds = {decoder["type"] for decoder in decoders}
    size = max([len(tokenizer) - 1, *tokenizer.get_vocab().values()]) + 1
    said: list[bytes | None] = [None] * size
    for token, number in tokenizer.get_vocab().items():
        said[number] = _byte_level(token) if "ByteLevel" in kinds else _decoded(token, decoders)
    for number, added in tokenizer.added_tokens_decoder.items():
        said[number] = None if added.special else added.content.encode()
    for number in tokenizer.all_special_ids:
        said[number] = None
    return said


def _decoders(backend: Any) -> list[dict[str, Any]]:
    """The steps of a tokenizer's decoder, as its file states them."""
    if backend is None or backend.decoder is None:
        raise ValueError(
            "the tokenizer has no decoder that says how its tokens become text (it is not a fast tokenizer, or was saved "
            "without one), so what its tokens say cannot be held to a document"
        )
    decoder = json.loads(backend.decoder.__getstate__())
    return decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]


def _decoded(token: str, decoders: list[dict[str, Any]]) -> bytes:
    """A token of a vocabulary of characters, as text in the middle of a line."""
    for decoder in decoders:
        if decoder["type"] == "ByteFallback" and len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            return bytes([int(token[3:5], 16)])
        if decoder["type"] == "Metaspace":
            token = token.replace(decoder["replacement"], " ")
        elif decoder["type"] == "Replace" and "String" in decoder["pattern"]:
            token = token.replace(decoder["pattern"]["String"], decoder["content"])
        elif decoder["type"] == "BPEDecoder":
            token = token.replace(decoder["suffix"], " ")
    return token.encode()


@lru_cache(maxsize=1)
def _byte_alphabet() -> dict[str, int]:
    """GPT-2's characters for bytes: printable ones stand for themselves, the others are shifted behind Latin-1."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + index): byte for index, byte in enumerate(hidden)}


def _byte_level(token: str) -> bytes | None:
    alphabet = _byte_alphabet()
    return bytes(alphabet[char] for char in token) if all(char in alphabet for char in token) else token.encode()


__all__ = ["MAX_PIECE_BYTES", "TokenPieces", "first_bytes", "folded_bytes", "pieces_of", "token_bytes"]
