# SPDX-License-Identifier: Apache-2.0
"""The passages that share most with the question's words."""

from __future__ import annotations

import logging
import math
import re
import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from ...rendering.characters import CharRange
from ..folding import folded
from ..paged_document import PagedDocument
from ..passages import check_passages, telling_passages
from ..sentences import RUN, UNSPACED_RUN
from .ranked import RankedPolicy

# 1,234,567 and 1.234.567, which may be asked for as 1234567.
_GROUPED_NUMBER = re.compile(r"\d{1,3}(?:([,.])\d{3})(?:\1\d{3})*")
# The halves of a word that is divided at a line's end.
_DIVIDED_WORD = re.compile(r"(?<![^\W\d_])([^\W\d_]++)-[ \t]*+\r?\n[ \t]*+([^\W\d_]++)")


@dataclass(frozen=True)
class BM25Policy(RankedPolicy):
    """Copies the passages that match the question best (BM25 through `bm25s`).

    A document of no more than `top_k` passages is copied whole, if the budget allows: there is nothing to choose, and the
    question may be in other words, or in another language. Of a longer one, a question without a word copies nothing.
    Words are compared in one form (`planning/folding.py`).

    Attributes:
        passage_chars: passages end with the sentence that reaches this length.
        top_k: how many passages are copied at most.
    """

    name: ClassVar[str] = "bm25"
    looks_at_question: ClassVar[bool] = True
    passage_chars: int = 300
    top_k: int = 8

    def __post_init__(self) -> None:
        check_passages(self.passage_chars, self.top_k)

    def rank(self, document: PagedDocument, question: str | None) -> list[CharRange]:
        if question is None:
            raise ValueError(
                "the policy 'bm25' ranks passages by the question's words, and there is no question: "
                "ask one, or use a policy that needs none, such as 'anchors'"
            )
        index = _index_of(document, self.passage_chars)
        if len(index.passages) <= self.top_k:
            best = index.order(question)
        else:
            best = index.order(question, above=0.0)[: self.top_k]
        return [index.passages[number] for number in best]


class _Index:
    """The passages of a text, and how well each matches a question."""

    def __init__(self, text: str, passage_chars: int) -> None:
        self.passages = telling_passages(text, passage_chars)
        words = [bm25_words(text[start:end]) for start, end in self.passages]
        self._known = frozenset().union(*words)
        self._retriever = _library().BM25() if self._known else None
        if self._retriever is not None:
            self._retriever.index(words, show_progress=False)

    def order(self, question: str, above: float = -math.inf) -> list[int]:
        """Numbers of the passages that score more than `above`, best first."""
        query = sorted(self._known.intersection(bm25_words(question)))
        if self._retriever is None or not query:
            return [] if above >= 0 else list(range(len(self.passages)))
        scores = self._retriever.get_scores(query)
        return [number for number in (-scores).argsort(kind="stable").tolist() if scores[number] > above]


# The last index of each document that is alive: its next question is ranked by the same one.
_INDICES: WeakKeyDictionary[PagedDocument, tuple[int, _Index]] = WeakKeyDictionary()
_LOCK = threading.Lock()


def _index_of(document: PagedDocument, passage_chars: int) -> _Index:
    with _LOCK:
        found = _INDICES.get(document)
    if found is None or found[0] != passage_chars:
        found = (passage_chars, _Index(document.text, passage_chars))
        with _LOCK:
            _INDICES[document] = found
    return found[1]


def bm25_words(text: str) -> list[str]:
    """Words for ranking, in one form and case: joined words whole and in parts, unspaced scripts as character pairs,
    a word that a line's end divides also as one, a number with separators also without.
    """
    text = folded(text)
    words: list[str] = []
    for run in RUN.findall(text):
        words.append(run)
        parts = re.findall(r"[^\W_]+", run)
        if len(parts) > 1:
            words += parts
            if _GROUPED_NUMBER.fullmatch(run):
                words.append("".join(parts))
    words += ["".join(halves) for halves in _DIVIDED_WORD.findall(text)]
    for run in UNSPACED_RUN.findall(text):
        words += [run] if len(run) == 1 else [run[index : index + 2] for index in range(len(run) - 1)]
    return words


@lru_cache(maxsize=1)
def _library() -> Any:
    """`bm25s`, imported when it is first needed: it brings numba, which is slow to start and may disturb an engine."""
    try:
        import bm25s
    except ImportError as error:
        raise ImportError("the text policy 'bm25' needs the library bm25s: pip install bm25s") from error
    # The library sets its own logger to DEBUG and would speak through the root's.
    logging.getLogger("bm25s").setLevel(logging.WARNING)
    return bm25s
