# SPDX-License-Identifier: Apache-2.0
"""Text policies that rank pieces of the document: by what is easily misread, by the question's words, by attention."""

from __future__ import annotations

import bisect
import logging
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import bm25s

from .sentences import RUN, UNSPACED_RUN, sentence_starts, word_edge
from .text_policies import CharRange, PagedDocument, RankedPolicy, register_text_policy


class _Anchor(NamedTuple):
    start: int
    end: int
    rank: tuple[int, ...]


# Tiers, best first.
_CODE, _IDENTIFIER, _UNDRAWABLE, _SHORT_NUMBER, _RARE_WORD = range(5)
_ADDRESS = re.compile(r"://|^www\.|.@[^@]+\.")
_IDENTIFIER_SHAPE = re.compile(r"[a-z][A-Z]|\w_\w|[./:#=&?~].*[./:#=&?~]|\.\w+$")
_DIGITS_TO_ZERO = str.maketrans("123456789", "000000000")
_ALL_TO_X = str.maketrans(dict.fromkeys("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", "x"))


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

    def rank(self, document: PagedDocument, question: str | None = None) -> list[CharRange]:
        starts = sentence_starts(document.text)
        anchors = sorted([*self._written_anchors(document.text, starts), *_undrawable_anchors(document, starts)])
        units = self._units(document.text, anchors, starts)
        return [(start, end) for start, end, _ in sorted(units, key=lambda unit: unit.rank)]

    def _written_anchors(self, text: str, starts: list[int]) -> list[_Anchor]:
        runs = [(match.group(), match.start()) for match in RUN.finditer(text)]
        counts = Counter(run for run, _ in runs)
        tiers = {run: _tier(run) for run in counts}
        shapes = {run: _shape(run) for run, tier in tiers.items() if tier is not None}
        shape_counts: Counter[str] = Counter()
        for run, shape in shapes.items():
            shape_counts[shape] += counts[run]
        rare = self._rare(counts, tiers) if self.rare_words else set()
        sentence_firsts = set(starts)
        anchors = []
        for run, start in runs:
            tier = tiers[run]
            if tier is not None:
                seen = shape_counts[shapes[run]]
                rank = (int(seen > self.common_shape), tier, seen, -len(run), start)
                anchors.append(_Anchor(start, start + len(run), rank))
            elif run in rare and (start not in sentence_firsts or len(run) >= self.rare_word_chars):
                anchors.append(_Anchor(start, start + len(run), (0, _RARE_WORD, 1, -len(run), start)))
        return anchors

    def _rare(self, counts: Counter[str], tiers: dict[str, int | None]) -> set[str]:
        folded: Counter[str] = Counter()
        for run, count in counts.items():
            folded[run.lower()] += count
        return {
            run
            for run, tier in tiers.items()
            if tier is None
            and folded[run.lower()] == 1
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


@dataclass(frozen=True)
class BM25Policy(RankedPolicy):
    """Copies the passages that match the question best (BM25 through `bm25s`).

    A document of no more than `top_k` passages is copied whole, if the budget allows: there is nothing to choose, and the
    question may be in other words, or in another language.

    Attributes:
        passage_chars: passages end with the sentence that reaches this length.
        top_k: how many passages are copied at most.
    """

    name: ClassVar[str] = "bm25"
    looks_at_question: ClassVar[bool] = True
    passage_chars: int = 300
    top_k: int = 8

    def __post_init__(self) -> None:
        _check_passages(self.passage_chars, self.top_k)

    def rank(self, document: PagedDocument, question: str | None) -> list[CharRange]:
        query = set(bm25_words(question or ""))
        if not query:
            raise ValueError(
                f"the policy 'bm25' ranks passages by the question's words, and question={question!r} has none; "
                "ask a question, or use a policy that needs none, such as 'anchors'"
            )
        passages = passages_of(document.text, self.passage_chars)
        words = [bm25_words(document.text[start:end]) for start, end in passages]
        known = query.intersection(*[set().union(*words)]) if words else set()
        scores = _bm25_scores(words, sorted(known)) if known else [0.0] * len(passages)
        best = sorted(range(len(passages)), key=lambda index: (-scores[index], index))[: self.top_k]
        return [passages[index] for index in best if scores[index] > 0 or len(passages) <= self.top_k]


@dataclass(frozen=True)
class AttentionPolicy(RankedPolicy):
    """Copies the passages that the model itself attends to when it reads the question after the pages.

    The model's part is done by whoever has one: the pipeline ranks the passages
    (`attention_ranking.rank_by_attention`) and plans with that ranking.

    Attributes:
        passage_chars: passages end with the sentence that reaches this length.
        top_k: how many passages are copied at most.
        heads: (layer, head) of the attention heads that are listened to; None: those of the model's config.
        ranking: passages as characters [start, end), best first; None before the model has ranked them.
    """

    name: ClassVar[str] = "attention"
    looks_at_question: ClassVar[bool] = True
    passage_chars: int = 300
    top_k: int = 8
    heads: tuple[tuple[int, int], ...] | None = None
    ranking: tuple[CharRange, ...] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _check_passages(self.passage_chars, self.top_k)
        if self.heads is not None:  # lists, where they come from JSON
            object.__setattr__(self, "heads", tuple((int(layer), int(head)) for layer, head in self.heads))

    def rank(self, document: PagedDocument, question: str | None) -> list[CharRange]:
        if self.ranking is None:
            raise ValueError(
                "the policy 'attention' needs a model that ranks the passages: ask through the pipeline 'long-doc-qa', "
                "or use a policy that needs none, such as 'bm25'"
            )
        return list(self.ranking[: self.top_k])


def _check_passages(passage_chars: int, top_k: int) -> None:
    if passage_chars < 1 or top_k < 1:
        raise ValueError(
            f"passage_chars={passage_chars} and top_k={top_k} must both be 1 or more; "
            "use the policy 'none' to copy nothing"
        )


def passages_of(text: str, passage_chars: int) -> list[CharRange]:
    """Consecutive pieces of about `passage_chars` characters, of whole sentences where these are short enough."""
    passages: list[CharRange] = []
    starts = sentence_starts(text)
    start = 0
    for end in [*starts[1:], len(text)]:
        while end - start > 2 * passage_chars:
            cut = word_edge(text, start + passage_chars, end, step=1)
            passages.append((start, cut))
            start = cut
        if end - start >= passage_chars or end == len(text):
            passages.append((start, end))
            start = end
    return [(start, end) for start, end in passages if text[start:end].strip()]


def bm25_words(text: str) -> list[str]:
    """Words for ranking, in lower case: joined words whole and in parts, unspaced scripts as character pairs."""
    words: list[str] = []
    for run in RUN.findall(text.lower()):
        words.append(run)
        parts = re.findall(r"[^\W_]+", run)
        if len(parts) > 1:
            words += parts
    for run in UNSPACED_RUN.findall(text):
        words += [run] if len(run) == 1 else [run[index : index + 2] for index in range(len(run) - 1)]
    return words


def _bm25_scores(passages: list[list[str]], query: list[str]) -> list[float]:
    """One score for each passage. The library sets its own logger to DEBUG and would speak through the root's."""
    logger = logging.getLogger("bm25s")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        retriever = bm25s.BM25()
        retriever.index(passages, show_progress=False)
        return [float(score) for score in retriever.get_scores(query)]
    finally:
        logger.disabled = was_disabled


for _policy in (AnchorsPolicy, BM25Policy, AttentionPolicy):
    register_text_policy(_policy)
