# SPDX-License-Identifier: Apache-2.0
"""Short documents made long by others of their source, with the evidence still known.

At places at random, as FILM does (IN2, arXiv 2404.16811, section 2), or between the pieces of others that are most alike,
as NExtLong does (arXiv 2501.12766).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal

from ...planning.passages import passages_of
from ...planning.policies.bm25 import bm25_words
from ..records import ReadCount, TrainingRecord, TrainingTurn

_BETWEEN = "\n\n"
_TRIES = 50
_UNKNOWN = "a turn without evidence, whose answer another text may hold"


@dataclass(frozen=True)
class Lengthening:
    """
    Attributes:
        characters: how long documents become, about; those that are longer stay as they are.
        others: "random": other texts at random, with the pieces of the document anywhere among them, in their order.
            "similar": behind each piece those of other documents that share most words with it (BM25), which a model has
            to tell apart.
        piece_characters: pieces of texts end with the sentence that reaches this length, and none ends within evidence.
        seed: of what is drawn.
    """

    characters: int
    others: Literal["random", "similar"] = "random"
    piece_characters: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.others not in ("random", "similar"):
            raise ValueError(f"data: lengthen.others={self.others!r} is not 'random' or 'similar'")
        if self.characters < 1 or self.piece_characters < 1:
            raise ValueError(f"data: lengthen: {self} has to be of numbers above 0")

    def apply(self, records: Sequence[TrainingRecord], count: ReadCount) -> Iterator[TrainingRecord]:
        """
        The records, longer.

        Args:
            records: all of a source, which lengthen one another.
            count: where turns are counted that are left out, for other texts may answer them.
        """
        cut = [_pieces_of(record, self.piece_characters) for record in records]
        owners = [(number, text) for number, pieces in enumerate(cut) for _, text in pieces]
        index = _Index([text for _, text in owners]) if self.others == "similar" else None
        for number, record in enumerate(records):
            kept = tuple(turn for turn in record.turns if turn.evidence)
            count.unused[_UNKNOWN] += len(record.turns) - len(kept)
            if not record.context.strip() or (record.turns and not kept):
                continue
            short = replace(record, turns=kept)
            rng = Random(f"{self.seed} {number}")
            if index is None:
                yield self._among_others(short, number, cut[number], owners, rng)
            else:
                yield self._between_similar(short, number, cut[number], owners, index)
        count.unused = +count.unused

    def _among_others(
        self, record: TrainingRecord, number: int, own: list[_Piece], owners: list[tuple[int, str]], rng: Random
    ) -> TrainingRecord:
        room, others, in_vain = self.characters - len(record.context), list[str](), 0
        while room > 0 and in_vain < _TRIES:  # of few texts, all may be there
            owner, text = owners[rng.randrange(len(owners))]
            if owner == number or text in others:
                in_vain += 1
                continue
            others.append(text)
            room, in_vain = room - len(text) - len(_BETWEEN), 0
        slots = sorted(rng.randrange(len(others) + 1) for _ in own)
        texts: list[_Piece] = []
        for place in range(len(others) + 1):
            texts += [piece for piece, slot in zip(own, slots) if slot == place]
            texts += [(None, text) for text in others[place : place + 1]]
        return _joined(record, texts)

    def _between_similar(
        self, record: TrainingRecord, number: int, own: list[_Piece], owners: list[tuple[int, str]], index: _Index
    ) -> TrainingRecord:
        room, used = self.characters - len(record.context), set()
        texts: list[_Piece] = []
        for place, piece in enumerate(own):
            texts.append(piece)
            share = room // (len(own) - place)
            for candidate in index.order(piece[1]):
                owner, text = owners[candidate]
                if share < len(text) // 2:
                    break
                if owner != number and text not in used:
                    used.add(text)
                    texts.append((None, text))
                    share -= len(text) + len(_BETWEEN)
                    room -= len(text) + len(_BETWEEN)
        return _joined(record, texts)


_Piece = tuple[int | None, str]
"""Where a piece stood in its document, or None for another's; and its text."""


class _Index:
    """Which texts share most words with one."""

    def __init__(self, texts: list[str]) -> None:
        import bm25s

        words = [bm25_words(text) or [""] for text in texts]
        self._known = frozenset().union(*words)
        self._retriever: Any = bm25s.BM25()
        self._retriever.index(words, show_progress=False)

    def order(self, text: str) -> Iterator[int]:
        query = sorted(self._known.intersection(bm25_words(text)))
        if query:
            yield from (-self._retriever.get_scores(query)).argsort(kind="stable").tolist()


def _pieces_of(record: TrainingRecord, characters: int) -> list[_Piece]:
    """A record's text in pieces, without their outer white space; what lies within one evidence stays together."""
    spans = [span for turn in record.turns for span in turn.evidence]
    merged: list[list[int]] = []
    for start, end in passages_of(record.context, characters):
        border_in_evidence = merged and any(
            first < merged[-1][1] < last or first < start < last for first, last in spans
        )
        if border_in_evidence:
            merged[-1][1] = end
        else:
            merged.append([start, end])
    pieces: list[_Piece] = []
    for start, end in merged:
        text = record.context[start:end]
        if text.strip():
            pieces.append((start + len(text) - len(text.lstrip()), text.strip()))
    return pieces


def _joined(record: TrainingRecord, texts: list[_Piece]) -> TrainingRecord:
    """A record whose document is these texts, its own and others, and whose evidence stands where its pieces now are."""
    parts, moved, length = [], [], 0
    for start, text in texts:
        if start is not None:
            moved.append((start, start + len(text), length - start))
        parts.append(text)
        length += len(text) + len(_BETWEEN)
    context = _BETWEEN.join(parts)

    def at(span: tuple[int, int]) -> tuple[int, int]:
        start, end, by = next(piece for piece in moved if piece[0] < span[1] and span[0] < piece[1])
        return max(span[0], start) + by, min(span[1], end) + by

    turns = tuple(
        TrainingTurn(turn.question, turn.answer, tuple(at(span) for span in turn.evidence)) for turn in record.turns
    )
    return replace(record, context=context, turns=turns, document=record.named)


__all__ = ["Lengthening"]
