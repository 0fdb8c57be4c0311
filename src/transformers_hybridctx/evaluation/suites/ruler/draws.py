# SPDX-License-Identifier: Apache-2.0
"""What RULER's tasks share: their words, how long a haystack fits, and how a prompt is split into the six columns."""

from __future__ import annotations

import re
import uuid
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from random import Random
from typing import Any

from ...samples import Sample
from ...token_counts import TokenCounter

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
SHORT = 4096
"""Below this length, tasks take smaller steps and easier examples."""
_ATTEMPTS = 200


@dataclass(frozen=True)
class Form:
    """
    The words of a task.

    Attributes:
        template: the prompt, with `{context}` and what the task puts in.
        answer_prefix: what the prompt ends with.
        question_starts: the words with which the question begins, at their last place in the prompt.
        max_new_tokens: tokens that are left for the answer.
    """

    template: str
    answer_prefix: str
    question_starts: str
    max_new_tokens: int

    @property
    def whole(self) -> str:
        return self.template + self.answer_prefix

    def sample(self, prompt: str, answers: Sequence[str], task: str, length: int) -> Sample:
        """The six columns of a prompt."""
        end = prompt.rfind(self.answer_prefix[:10])
        start = [match.start() for match in re.finditer(self.question_starts, prompt[:end])][-1]
        return Sample(
            prompt[:start], prompt[start:end], prompt[end:], tuple(answers), task, self.max_new_tokens, length
        )


def fitting_size(
    make: Callable[[int], str], count: TokenCounter, length: int, reserved: int, step: int, first: int | None = None
) -> int:
    """The largest haystack whose prompt and `reserved` tokens fit, by bisection; `step` if none does.

    Each try draws random numbers, as the original's does.

    Args:
        make: a haystack's size -> a prompt.
        first: the bound above which no size is tried; estimated from a haystack of `step` if not given.
    """
    if first is None:
        tokens_each = count(make(step)) / step
        first = int((length / tokens_each) * 3)
    low, high, found = step, max(first, step * 2), None
    while low <= high:
        middle = (low + high) // 2
        if count(make(middle)) + reserved <= length:
            found, low = middle, middle + 1
        else:
            high = middle - 1
    return step if found is None else found


def drawn_to_fit(
    make: Callable[[int], tuple[str, list[str]]], count: TokenCounter, length: int, reserved: int, size: int, step: int
) -> tuple[str, list[str]]:
    """A prompt and its references; smaller ones are tried where it came out too long.

    Raises:
        ValueError: not even the smallest haystack fits.
    """
    for _ in range(_ATTEMPTS):
        prompt, answers = make(size)
        if count(prompt) + reserved <= length:
            return prompt, answers
        if size > step:
            size -= step
    raise ValueError(
        f"no prompt of this task fits {length} tokens with {reserved} left for the answer: give a greater length"
    )


@cache
def word_list(name: str) -> tuple[str, ...]:
    """A list of the package wonderwords (MIT): `nounlist`, `adjectivelist` or `verblist`, in its order."""
    from wonderwords import random_word

    return tuple(random_word._get_words_from_text_file(f"{name}.txt"))


class Keys(Sequence[str]):
    """
    All `adjective-noun` in order, without writing nine million of them down.

    An adjective that begins with another one and a hyphen (`well`, `well-off`) is sorted in among the other's pairs.
    """

    def __init__(self, adjectives: Sequence[str], nouns: Sequence[str]) -> None:
        self._nouns = sorted(set(nouns))
        self._families: list[list[str]] = []
        for adjective in sorted(set(adjectives), key=lambda word: word + "-"):
            if self._families and adjective.startswith(self._families[-1][0] + "-"):
                self._families[-1].append(adjective)
            else:
                self._families.append([adjective])
        self._mixed = {
            place: sorted({f"{adjective}-{noun}" for adjective in family for noun in self._nouns})
            for place, family in enumerate(self._families)
            if len(family) > 1
        }

    @cached_property
    def _starts(self) -> list[int]:
        starts = [0]
        for place in range(len(self._families)):
            starts.append(starts[-1] + len(self._mixed.get(place, self._nouns)))
        return starts

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: Any) -> Any:
        place = bisect_right(self._starts, index) - 1
        within = index - self._starts[place]
        if place in self._mixed:
            return self._mixed[place][within]
        return f"{self._families[place][0]}-{self._nouns[within]}"


@cache
def all_keys() -> Keys:
    return Keys(word_list("adjectivelist"), word_list("nounlist"))


def draw(rng: Random, kind: str) -> str:
    """A key or a value: one of `numbers` (seven digits), `words` and `uuids`."""
    if kind == "numbers":
        return str(rng.randint(10**6, 10**7 - 1))
    if kind == "words":
        return str(rng.choice(all_keys()))
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def sentences_of(text: str) -> list[str]:
    """Sentences by nltk where it and its data are installed, as in the original; else by a stop and a blank."""
    try:
        from nltk.tokenize import sent_tokenize

        return list(sent_tokenize(text))
    except (ImportError, LookupError):
        return re.split(r"(?<=[.!?])\s+", text)


def joined(names: Sequence[str]) -> str:
    """`a`, or `a, b, and c`."""
    return ", ".join(names[:-1]) + ", and " + names[-1] if len(names) > 1 else names[0]


Drawn = Iterator[tuple[str, list[str]]]
"""Prompts and their references."""

__all__ = [
    "NOISE",
    "SHORT",
    "Drawn",
    "Form",
    "Keys",
    "all_keys",
    "draw",
    "drawn_to_fit",
    "fitting_size",
    "joined",
    "sentences_of",
    "word_list",
]
