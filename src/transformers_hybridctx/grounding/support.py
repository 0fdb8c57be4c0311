# SPDX-License-Identifier: Apache-2.0
"""How an answer stands to its document: word for word, nearly, or not at all; per string that matters.

Distances are Levenshtein's, by RapidFuzz.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np
from rapidfuzz import fuzz, process
from rapidfuzz.distance import Levenshtein

from .agreement import Agreement, function_words
from .borders import word_borders
from .folding import fold
from .overlong import beyond_a_cell, beyond_a_sentence, beyond_a_value
from .span_index import DocumentIndex, as_index, character_offsets

Status = Literal["verbatim", "near", "absent", "unchecked", "cut off"]

_SHORTEST_NEAR = 4
"""Characters of the shortest string that another may be near to: any two-digit number is near any other."""
_LONGEST_NEAR = 256
"""Characters of the longest answer that is looked for as a whole where it is not verbatim: the best place in a window is
found in time that grows with the square of its length, or worse. Of a longer one, each string that matters still is."""
_CHARACTERS_AN_EDIT = 6
"""Characters of a string for each edit that it may be away from another and still be near."""
_MOST_PLACES = 64
"""Places of a word around which the rest of an answer is looked for."""
_AROUND_ANSWERS = " \t\n.!?:;,。！？：；，、'\"“”‘’()[]*`"
_EXACT = re.compile(r"\d|\w_\w|[a-z][A-Z]|.@.|://")
_SENTENCE_END = re.compile(r"(?:^|[.!?:。！？：\n]\W*)$")


@dataclass(frozen=True)
class Support:
    """
    How a string stands to a document.

    Attributes:
        text: the string; `start`, `end`: its characters in the answer.
        status: `"verbatim"`: it is in the document, but for what typography adds; `"near"`: something like it is;
            `"absent"`: neither; `"unchecked"`: neither, but pages show more than the document's text has; `"cut off"`:
            there is no answer, as it was cut before it began.
        found: the document's own strings that are nearest to it, one where it is verbatim.
        places: characters [start, end) of the document, of all occurrences of the first of these.
        distance: edits (characters inserted, left out or replaced) between the string and what was found; else None.
    """

    text: str
    start: int
    end: int
    status: Status
    found: tuple[str, ...] = ()
    places: tuple[tuple[int, int], ...] = ()
    distance: int | None = None


@dataclass(frozen=True)
class AnswerSupport:
    """
    How an answer stands to a document.

    Attributes:
        status: that of the whole answer; where that is absent, that of the worst of its strings that matter, if any.
        whole: the whole answer's support.
        strings: that of each number, code, identifier and name in it, in order, but for those that only the question has.
        beyond: what of a verbatim answer goes on behind the end of a sentence ([`beyond_a_sentence`]), behind a value,
            in one sentence, about something else ([`beyond_a_value`]), or over a table's row ([`beyond_a_cell`]).
    """

    status: Status
    whole: Support
    strings: tuple[Support, ...]
    beyond: str = ""

    @property
    def places(self) -> tuple[tuple[int, int], ...]:
        """Characters [start, end) of the document where the answer stands, or else its strings do."""
        return self.whole.places or tuple(place for one in self.strings for place in one.places)


class SupportChecker:
    """
    Checks answers against one document.

    Args:
        document (`str` or [`DocumentIndex`]): an index is not made again.

    Raises:
        ValueError: a document without text.
    """

    def __init__(self, document: str | DocumentIndex) -> None:
        self.index = as_index(document)

    def check(
        self, answer: str, question: str = "", is_cut_off: bool = False, shows_more: bool = False
    ) -> AnswerSupport:
        """
        How an answer stands to the document.

        Args:
            question: strings that are in it, and not in the document, need no support.
            is_cut_off: whether generation ended before the answer.
            shows_more: whether pages of the document show what its text has not, so that nothing is known to be absent.
        """
        found = self._checked(answer, question, is_cut_off)
        return _unchecked(found) if shows_more else found

    def _checked(self, answer: str, question: str, is_cut_off: bool) -> AnswerSupport:
        stripped = answer.strip(_AROUND_ANSWERS) or answer.strip()
        start = answer.find(stripped)
        if not stripped:
            status: Status = "cut off" if is_cut_off else "absent"
            return AnswerSupport(status, Support(answer, 0, len(answer), status), ())
        asked = fold(question).text.casefold()
        strings = []
        for first, last in strings_that_matter(answer):
            support = self._string(answer, first, last)
            if support.status == "verbatim" or fold(support.text).text.casefold() not in asked:
                strings.append(support)
        whole = self._whole(answer, start, start + len(stripped))
        worst: Status = whole.status
        if whole.status == "absent" and strings:
            order: tuple[Status, ...] = ("verbatim", "near", "absent")
            worst = max((support.status for support in strings), key=order.index)
        beyond = ""
        if whole.status == "verbatim":
            beyond = beyond_a_sentence(self.index.folded.raw, *whole.places[0])
            for beyond_one in (beyond_a_value, beyond_a_cell):
                beyond = beyond or beyond_one(stripped, question, function_words())
        return AnswerSupport(worst, whole, tuple(strings), beyond)

    def repaired(self, answer: str, support: AnswerSupport) -> str:
        """The answer with the document's own string wherever exactly one is near."""
        whole = support.whole
        near = [whole] if whole.status == "near" else [one for one in support.strings if one.status == "near"]
        for string in sorted(near, key=lambda one: one.start, reverse=True):
            if len(string.found) == 1:
                answer = answer[: string.start] + string.found[0] + answer[string.end :]
        return answer

    def places(self, text: str) -> list[tuple[int, int]]:
        """Characters [start, end) of the document at which a text stands between word borders, in order."""
        said = fold(text).text.encode("utf-8", "surrogatepass")
        spans = self.index.spans
        if not said:
            return []
        low, high = spans.narrow(0, len(spans.order), 0, said)
        starts = spans.order[low:high]
        starts = np.sort(starts[spans.may_end[starts + len(said)]])
        return [self.index.raw_span(start, start + len(said)) for start in starts.tolist()]

    def agreement(self, question: str, places: Iterable[tuple[int, int]]) -> float:
        """Whether the document speaks of what is asked at one of these places, 0 to 1: [`Agreement.of`]."""
        return self._agreement.of(question, places)

    def _string(self, answer: str, start: int, end: int) -> Support:
        """The support of one word of the answer."""
        text = answer[start:end]
        if places := self.places(text):
            return Support(text, start, end, "verbatim", (self._raw(places[0]),), tuple(places), 0)
        folded = fold(text).text
        near = self._near_words(folded)
        if not near:
            return Support(text, start, end, "absent")
        places = self.places(near[0])
        found = tuple(self._raw(self.places(word)[0]) for word in near)
        return Support(text, start, end, "near", found, tuple(places), Levenshtein.distance(folded, near[0]))

    def _near_words(self, word: str) -> list[str]:
        """Words of the document that are near to one, all as near as the nearest; of several all within reach."""
        reach = _reach(word)
        if not reach:
            return []
        words = self._codes if _EXACT.search(word) else self._words
        found = process.extract(word, words, scorer=Levenshtein.distance, score_cutoff=reach, limit=_MOST_PLACES)
        return [near for near, _, _ in sorted(found, key=lambda one: (one[1], one[0]))]

    def _whole(self, answer: str, start: int, end: int) -> Support:
        for first, last in ((0, len(answer)), (start, end)):
            if places := self.places(answer[first:last]):
                return Support(answer[first:last], first, last, "verbatim", (self._raw(places[0]),), tuple(places), 0)
        text = answer[start:end]
        folded = fold(text).text
        near: dict[str, tuple[int, str]] = {}
        for first, last in self._windows(folded) if len(folded) <= _LONGEST_NEAR else ():
            spelled = self.index.folded.text[first:last]
            distance = Levenshtein.distance(folded, spelled)
            if distance <= _reach(folded) and self.places(spelled):
                near[spelled] = distance, spelled
        if not near:
            return Support(text, start, end, "absent")
        ranked = sorted(near.values())
        places = self.places(ranked[0][1])
        found = tuple(self._raw(self.places(spelled)[0]) for _, spelled in ranked)
        return Support(text, start, end, "near", found, tuple(places), ranked[0][0])

    def _windows(self, folded: str) -> Iterator[tuple[int, int]]:
        """Spans of the folded document that may be near to an answer: around the rarest word that they share."""
        spans, text = self.index.spans, self.index.folded.text
        shared = []
        for start, end in _words_of(folded):
            word = folded[start:end].encode("utf-8", "surrogatepass")
            low, high = spans.narrow(0, len(spans.order), 0, word)
            if low < high:
                shared.append((high - low, start, low, min(high, low + _MOST_PLACES)))
        if not shared:
            for near in self._near_words(folded):
                first = text.find(near)
                yield first, first + len(near)
            return
        _, offset, low, high = min(shared)
        slack = _reach(folded)
        for byte in spans.order[low:high].tolist():
            at = self._character(byte) - offset
            first, last = max(0, at - slack), min(len(text), at + len(folded) + slack)
            alignment = fuzz.partial_ratio_alignment(folded, text[first:last])
            if alignment is not None:
                begin, end = first + alignment.dest_start, first + alignment.dest_end
                yield self._widened(begin, end)

    def _widened(self, start: int, end: int) -> tuple[int, int]:
        """A span of the folded document, to the next word borders outside of it."""
        while start > 0 and not self._borders[start]:
            start -= 1
        while end < len(self._borders) - 1 and not self._borders[end]:
            end += 1
        text = self.index.folded.text[start:end]
        return start + len(text) - len(text.lstrip()), end - len(text) + len(text.rstrip())

    def _character(self, byte: int) -> int:
        return int(np.searchsorted(self._offsets, byte))

    def _raw(self, place: tuple[int, int]) -> str:
        return self.index.folded.raw[place[0] : place[1]]

    @cached_property
    def _agreement(self) -> Agreement:
        return Agreement(self.index.folded.raw)

    @cached_property
    def _offsets(self) -> np.ndarray:
        return character_offsets(self.index.spans.buffer)

    @cached_property
    def _borders(self) -> np.ndarray:
        return self.index.spans.may_end[self._offsets]

    @cached_property
    def _words(self) -> list[str]:
        """All words of the folded document, each once."""
        text = self.index.folded.text
        bounds = np.flatnonzero(self._borders).tolist()
        return sorted({text[start:end] for start, end in pairwise(bounds) if text[start].isalnum()})

    @cached_property
    def _codes(self) -> list[str]:
        """The numbers, codes and identifiers among them."""
        return [word for word in self._words if _EXACT.search(word)]


def _unchecked(found: AnswerSupport) -> AnswerSupport:
    """The same, of a document that shows more than its text has."""

    def of(status: Status) -> Status:
        return "unchecked" if status == "absent" else status

    whole, *strings = (replace(one, status=of(one.status)) for one in (found.whole, *found.strings))
    return replace(found, status=of(found.status), whole=whole, strings=tuple(strings))


def strings_that_matter(answer: str) -> list[tuple[int, int]]:
    """
    Characters [start, end) of the strings of an answer that must not be wrong.

    Numbers and codes (words with a digit), identifiers (with an underscore or an `@`, with a capital inside, addresses),
    and names (words with a capital that do not begin a sentence).
    """
    found = []
    for start, end in _words_of(answer):
        word = answer[start:end]
        is_name = word[0].isupper() and not _SENTENCE_END.search(answer, max(0, start - 8), start)
        if _EXACT.search(word) or (is_name and len(word) > 1):
            found.append((start, end))
    return found


def _words_of(text: str) -> Iterator[tuple[int, int]]:
    bounds = np.flatnonzero(word_borders(text)).tolist()
    return ((start, end) for start, end in pairwise(bounds) if text[start].isalnum())


def _reach(text: str) -> int:
    """Edits that a string may be away and still be near."""
    return 0 if len(text) < _SHORTEST_NEAR else max(1, len(text) // _CHARACTERS_AN_EDIT)


__all__ = ["AnswerSupport", "Support", "SupportChecker", "strings_that_matter"]
