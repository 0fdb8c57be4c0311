# SPDX-License-Identifier: Apache-2.0
"""The strings that a vision encoder misreads."""

from __future__ import annotations

import bisect
import re
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from ...rendering.characters import CharRange
from ..folding import FoldedText
from ..knobs import shown, whole_number
from ..paged_document import PagedDocument
from ..sentences import RUN, sentence_starts, word_edge
from .ranked import RankedPolicy

# Tiers, best first.
_CODE, _IDENTIFIER, _UNDRAWABLE, _SHORT_NUMBER, _RARE_WORD = range(5)
_ADDRESS = re.compile(r"://|^www\.|.@[^@]+\.")
_IDENTIFIER_SHAPE = re.compile(r"[a-z][A-Z]|\w_\w|[./:#=&?~].*[./:#=&?~]|\.\w+$")
_DIGITS_TO_ZERO = str.maketrans("123456789", "000000000")
_ALL_TO_X = str.maketrans(dict.fromkeys("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", "x"))


class _Anchor(NamedTuple):
    start: int
    end: int
    rank: tuple[int, ...]


def _tier(run: str) -> int | None:
    """How easily a vision encoder misreads a run of letters and digits; None for an ordinary word."""
    digits = sum(map(str.isdigit, run))
    if digits:
        if _ADDRESS.search(run):
            return _IDENTIFIER
        letters = sum(map(str.isalpha, run))
        long = digits >= 4 if not letters else digits >= 2 and digits + letters >= 5
        return _CODE if long else _SHORT_NUMBER
    if _ADDRESS.search(run) or _IDENTIFIER_SHAPE.search(run):
        return _IDENTIFIER
    return None


def _shape(run: str) -> str:
    """What a run looks like: runs of one shape are one kind of thing (all timestamps, all UUIDs)."""
    return run.translate(_ALL_TO_X) if any(map(str.isalpha, run)) else run.translate(_DIGITS_TO_ZERO)


@dataclass(frozen=True)
class AnchorsPolicy(RankedPolicy):
    """Copies the strings that a vision encoder misreads, each with its sentence; does not look at the question.

    Best first: codes and numbers of four digits or more, then identifiers and addresses, characters that no font of
    the page has, numbers of three digits or less, rare words. Within a tier the kind that the document uses least
    comes first, so that one odd code goes before a thousand timestamps; kinds used more than `common_shape` times
    come after everything else. No anchor is cut.

    Attributes:
        max_chars: a sentence up to this length is copied whole.
        context_chars: in a longer one, about this many characters on either side, to a word boundary.
        min_chars: a sentence shorter than this takes the one before it along (a number alone in its line).
        common_shape: how often strings of one shape may occur before they count as boilerplate.
        rare_words: also copy names that occur once, and words that occur once and are `rare_word_chars` long or more.
        rare_word_chars: length in characters.
    """

    name: ClassVar[str] = "anchors"
    max_chars: int = 320
    context_chars: int = 120
    min_chars: int = 32
    common_shape: int = 256
    rare_words: bool = True
    rare_word_chars: int = 12

    def __post_init__(self) -> None:
        for name in ("max_chars", "rare_word_chars"):
            whole_number(name, getattr(self, name), 1, "characters")
        for name in ("context_chars", "min_chars"):
            whole_number(name, getattr(self, name), 0, "characters")
        whole_number("common_shape", self.common_shape, 0, "occurrences")
        if not isinstance(self.rare_words, bool):
            raise ValueError(f"rare_words={shown(self.rare_words)} must be True or False")

    def rank(self, document: PagedDocument, question: str | None = None) -> list[CharRange]:
        starts = sentence_starts(document.text)
        anchors = sorted([*self._written_anchors(document.text, starts), *_undrawable_anchors(document, starts)])
        units = self._units(document.text, anchors, starts)
        return [(start, end) for start, end, _ in sorted(units, key=lambda unit: unit.rank)]

    def _written_anchors(self, text: str, starts: list[int]) -> list[_Anchor]:
        folded = FoldedText(text)
        runs = [(match.group(), *folded.original(*match.span())) for match in RUN.finditer(folded.text)]
        counts = Counter(run for run, _, _ in runs)
        tiers = {run: _tier(run) for run in counts}
        shapes = {run: _shape(run) for run, tier in tiers.items() if tier is not None}
        shape_counts: Counter[str] = Counter()
        for run, shape in shapes.items():
            shape_counts[shape] += counts[run]
        rare = self._rare(counts, tiers) if self.rare_words else set()
        sentence_firsts = set(starts)
        anchors = []
        for run, start, end in runs:
            tier = tiers[run]
            if tier is not None:
                seen = shape_counts[shapes[run]]
                rank = (int(seen > self.common_shape), tier, seen, -len(run), start)
                anchors.append(_Anchor(start, end, rank))
            elif run in rare and (start not in sentence_firsts or len(run) >= self.rare_word_chars):
                anchors.append(_Anchor(start, end, (0, _RARE_WORD, 1, -len(run), start)))
        return anchors

    def _rare(self, counts: Counter[str], tiers: dict[str, int | None]) -> set[str]:
        caseless: Counter[str] = Counter()
        for run, count in counts.items():
            caseless[run.lower()] += count
        return {
            run
            for run, tier in tiers.items()
            if tier is None
            and caseless[run.lower()] == 1
            and (len(run) >= self.rare_word_chars or (len(run) > 2 and run[0].isupper()))
        }

    def _units(self, text: str, anchors: list[_Anchor], starts: list[int]) -> list[_Anchor]:
        """Disjoint spans to copy, in document order, each with the rank of its best anchor."""
        units: list[_Anchor] = []
        edges = [*starts, len(text)]
        index = 0
        while index < len(anchors):
            anchor = anchors[index]
            if units and anchor.end <= units[-1].end:
                units[-1] = units[-1]._replace(rank=min(units[-1].rank, anchor.rank))
                index += 1
                continue
            start, end = self._window(text, anchor, edges)
            if units and start < units[-1].end:
                start = anchor.start - len(text[units[-1].end : anchor.start].lstrip())
            rank = anchor.rank
            # No anchor is cut: one that begins inside the window is taken along whole.
            while index < len(anchors) and anchors[index].start < end:
                end = max(end, anchors[index].end)
                rank = min(rank, anchors[index].rank)
                index += 1
            units.append(_Anchor(start, end, rank))
        return units

    def _window(self, text: str, anchor: _Anchor, edges: list[int]) -> CharRange:
        """The characters that make sense of one anchor: its sentence, or words before and after it."""
        sentence = bisect.bisect_right(edges, anchor.start) - 1
        start, end = edges[sentence], edges[min(sentence + 1, len(edges) - 1)]
        if end - start < self.min_chars and sentence and start - edges[sentence - 1] <= self.max_chars:
            start = edges[sentence - 1]
        if end - start > self.max_chars:
            start = word_edge(text, max(start, anchor.start - self.context_chars), start, step=1)
            end = word_edge(text, min(end, anchor.end + self.context_chars), end, step=-1)
        # White space at the ends says nothing.
        end = max(anchor.end, start + len(text[start:end].rstrip()))
        start = min(anchor.start, end - len(text[start:end].lstrip()))
        return start, end


def _undrawable_anchors(document: PagedDocument, starts: list[int], longest: int = 64) -> list[_Anchor]:
    """Characters that no font has, neighbours of one sentence together."""
    runs: list[list[int]] = []
    sentence_firsts = set(starts)
    for position, _ in document.undrawable:
        joins = runs and position == runs[-1][1] and position not in sentence_firsts
        if joins and position - runs[-1][0] < longest:
            runs[-1][1] = position + 1
        else:
            runs.append([position, position + 1])
    return [_Anchor(start, end, (0, _UNDRAWABLE, 1, start - end, start)) for start, end in runs]
