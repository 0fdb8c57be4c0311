# SPDX-License-Identifier: Apache-2.0
"""Whether a document speaks of what is asked where an answer stands."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Set
from functools import lru_cache

from ..planning.sentences import RUN, sentence_starts
from .asked_kinds import may_answer

_AROUND = 200
"""Characters before and after an answer that are compared with the question."""
_ENOUGH = 0.3
"""Of the weight of a question's words: it has some of its own ("mentioned", "text")."""
_ELSEWHERE = 0.3
"""What counts of words around an answer, but in other sentences: of a short document that is every word of it, and of
records the label of another value. Too little to believe the answer, enough to tell it from one far away."""
_OF_A_KIND = frozenset(("address", "amount", "code", "date", "name", "number", "title", "total", "value"))
"""Words that say what kind of thing is asked for, which a form has of many: "permit number" is no "telephone number"."""
_KIND_WEIGHT = 0.3
_LONGEST_LABEL = 80
_VALUE = re.compile(r"\d|: ")
_COLUMNS = re.compile(r"[|,;\t][^|,;\t]*[|,;\t]")
_NUMBERING = " #0123456789.*"


class Agreement:
    """
    Holds questions against what stands around answers.

    Args:
        text: the document's.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._frequency = Counter(RUN.findall(text.lower()))

    def of(self, question: str, places: Iterable[tuple[int, int]]) -> float:
        """
        How much of a question stands in the sentence of its answer, or in the label above it; 0 to 1.

        Words weigh the more, the rarer they are in the document, and most where it has them nowhere; function words
        ("what", "the") do not count, and those that many labels have ("number") count little. `_ENOUGH` of the weight
        counts as all. What cannot be an answer ([`may_answer`]) agrees with nothing.

        Args:
            places: characters [start, end) of the document; the best of them counts.
        """
        asked = _words(question) - function_words()
        weights = {word: (_KIND_WEIGHT if word in _OF_A_KIND else 1.0) / (1 + self._frequency[word]) for word in asked}
        enough = _ENOUGH * sum(weights.values())

        def share(words: Set[str]) -> float:
            return min(1.0, sum(weights[word] for word in asked & words) / enough)

        best = 0.0
        for start, end in places if asked else ():
            if may_answer(question, self._text[start:end], function_words()):
                around = self._text[max(0, start - _AROUND) : end + _AROUND]
                best = max(best, share(self._spoken(start, end)), _ELSEWHERE * share(_words(around)))
        return best

    def _spoken(self, start: int, end: int) -> set[str]:
        """The words of the sentences that a place is in, and of the nearest label above them."""
        first = max(0, start - 2 * _AROUND)
        window = self._text[first : end + _AROUND]
        borders = [first + at for at in sentence_starts(window)]
        before = [at for at in borders if at <= start]
        after = next((at for at in borders if at >= end), len(self._text))
        words = _words(self._text[max(before[-1], start - _AROUND) : min(after, end + _AROUND)])
        for begin, stop in zip(reversed(before[:-1]), reversed(before[1:])):
            if begin < start - _AROUND:
                break
            if _is_label(self._text[begin:stop]):
                return words | _words(self._text[begin:stop])
        return words


def _is_label(sentence: str) -> bool:
    """Whether what follows is about it: a heading, a question, what ends with a colon; no record with its own value, nor
    the names of columns, which are of every row.
    """
    line = sentence.strip()
    if line.endswith((":", "?", "：", "？")):
        return True
    is_short = 0 < len(line) <= _LONGEST_LABEL and not line.endswith((".", "!", ";", ",", "。", "！", "；", "，"))
    return is_short and not _VALUE.search(line.lstrip(_NUMBERING)) and not _COLUMNS.search(line)


def _words(text: str) -> set[str]:
    return {word.lower() for word in RUN.findall(text)}


@lru_cache(maxsize=1)
def function_words() -> frozenset[str]:
    """English words that say nothing of what a text is about ("the", "what"), in lower case."""
    try:
        from bm25s.tokenization import STOPWORDS_EN_PLUS
    except ImportError:
        return frozenset()
    return frozenset(STOPWORDS_EN_PLUS)


__all__ = ["Agreement", "function_words"]
