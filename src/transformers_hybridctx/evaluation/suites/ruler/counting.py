# SPDX-License-Identifier: Apache-2.0
"""RULER's aggregation tasks: the most common words of a list, and the most frequent of coded words."""

from __future__ import annotations

import json
import math
import string
from functools import cache
from pathlib import Path
from random import Random

import numpy as np

from ...token_counts import TokenCounter
from .draws import SHORT, Drawn, Form, drawn_to_fit, fitting_size, word_list

_COMMON = 10
_STEP = 10
_TRIED_WORDS = 4096
_CODE_LETTERS = 6
_ALPHA = 2.0
_ZETA = math.pi**2 / 6  # of alpha

COMMON_FORM = Form(
    "Below is a numbered list of words. In these words, some appear more often than others. Memorize the ones that "
    "appear "
    "most often.\n{context}\nQuestion: What are the 10 most common words in the above list?",
    " Answer: The top 10 words that appear most often in the list are:",
    "Question: What are the 10 most common words",
    120,
)
FREQUENT_FORM = Form(
    "Read the following coded text and track the frequency of each coded word. Find the three most frequently "
    "appeared coded "
    "words. {context}\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What are the three most "
    "frequently appeared words in the above coded text?",
    " Answer: According to the coded text above, the three most frequently appeared words are:",
    "Question: Do not provide any explanation",
    50,
)


def draw_common(rng: Random, seed: int, count: TokenCounter, length: int, more_words: Path | None) -> Drawn:
    """
    Prompts without end, each after a solved example.

    Args:
        more_words: RULER's `english_words.json`, for lists that are longer than wonderwords'.
    """
    words = _shuffled_words(seed)
    example, repeats = ((20, 3, 1), (6, 1)) if length < SHORT else ((40, 10, 3), (30, 3))

    def listed(size: int, often: int, seldom: int) -> tuple[str, list[str]]:
        drawn = rng.sample(words if size <= len(words) else _more(more_words, size), size)
        all_words = drawn[:_COMMON] * often + drawn[_COMMON:] * seldom
        Random(seed).shuffle(all_words)
        return " ".join(f"{number}. {word}" for number, word in enumerate(all_words, start=1)), drawn[:_COMMON]

    def make(size: int) -> tuple[str, list[str]]:
        shown, solved = listed(*example)
        context, answers = listed(size, *repeats)
        solution = " ".join(f"{number}. {word}" for number, word in enumerate(solved, start=1))
        whole = COMMON_FORM.whole
        return f"{whole.format(context=shown)} {solution}\n{whole.format(context=context)}", answers

    tokens_each = count(make(_TRIED_WORDS)[0]) / _TRIED_WORDS
    most = int(length // tokens_each) * 2
    reserved = COMMON_FORM.max_new_tokens
    size = fitting_size(lambda one: make(one)[0], count, length, reserved, _STEP, most)
    while True:
        yield drawn_to_fit(make, count, length, reserved, size, _STEP)


@cache
def _shuffled_words(seed: int) -> list[str]:
    words = sorted({word for name in ("nounlist", "adjectivelist", "verblist") for word in word_list(name)})
    Random(seed).shuffle(words)
    return words


@cache
def _more(file: Path | None, size: int) -> list[str]:
    if file is None or not file.is_file():
        raise ValueError(
            f"cwe needs {size} different words at this length, more than wonderwords has: put RULER's "
            f"english_words.json into "
            "the folder of --data"
        )
    return list(json.loads(file.read_text(encoding="utf-8")).values())


def draw_frequent(rng: Random, seed: int, count: TokenCounter, length: int) -> Drawn:
    """Prompts without end: coded words, the n-th most frequent one in proportion to n to the power of -2."""
    longest = length - FREQUENT_FORM.max_new_tokens
    step = longest // 32
    vocabulary = longest // 50

    def coded() -> list[str]:
        codes = [_code(rng) for _ in range(vocabulary)]
        while len(set(codes)) < vocabulary:
            codes.append(_code(rng))
        codes = sorted(set(codes))
        Random(seed).shuffle(codes)
        codes[0] = "..."  # the most frequent one is noise
        return codes

    def written(codes: list[str], size: int) -> str:
        counts = (size * (np.arange(1, len(codes) + 1) ** -_ALPHA) / _ZETA).astype(int)
        said = [code for code, times in zip(codes, counts, strict=True) for _ in range(times)]
        Random(seed).shuffle(said)
        return FREQUENT_FORM.whole.format(context=" ".join(said))

    if vocabulary < 4:
        raise ValueError(f"fwe needs a length of 250 tokens or more, not {length}")
    codes, size = coded(), longest // _CODE_LETTERS
    while count(written(codes, size)) < longest:
        size += step
    fitting = size - step
    while True:
        codes, size = coded(), fitting
        while count(written(codes, size)) > longest:
            size -= step
        yield written(codes, size), codes[1:4]


def _code(rng: Random) -> str:
    return "".join(rng.choices(string.ascii_lowercase, k=_CODE_LETTERS))


__all__ = ["COMMON_FORM", "FREQUENT_FORM", "draw_common", "draw_frequent"]
