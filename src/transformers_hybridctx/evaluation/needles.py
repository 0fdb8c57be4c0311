# SPDX-License-Identifier: Apache-2.0
"""Needle-in-a-haystack tasks in RULER's formats (https://arxiv.org/abs/2404.06654, appendix B), in real prose.

A needle is a sentence `One of the special magic numbers for KEY is: VALUE.` hidden between two sentences of a text;
the question asks for the value by the key. Keys are pairs of dictionary words. One word in ten is held out: training
draws its keys from the others, so a score on held-out keys cannot come from remembered ones.
"""

from __future__ import annotations

import re
import uuid
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Literal

from .metrics.string_match import exact_strings

Task = Literal["single_number", "single_uuid", "multikey", "multivalue", "multiquery"]
TASKS: tuple[Task, ...] = ("single_number", "single_uuid", "multikey", "multivalue", "multiquery")

SENTENCE_END = re.compile(r"(?<=[.!?])[\"')]*\s+")


@dataclass(frozen=True)
class NeedleExample:
    """A document, one question and the strings that a right answer holds, in the order of the text."""

    document: str
    question: str
    answers: tuple[str, ...]
    answer_spans: tuple[tuple[int, int], ...]
    """Characters [start, end) of each answer in `document`."""

    def is_exact(self, prediction: str) -> bool:
        """Whether all answers, and no other number or code, stand in `prediction` (order is free, as in RULER)."""
        return exact_strings(prediction, self.answers) == 1


@cache
def _words(held_out: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    from wonderwords import RandomWord

    source = RandomWord()
    chosen = []
    for part in ("adjectives", "nouns"):
        words = source.filter(include_categories=[part[:-1]], regex="[a-z]+")
        chosen.append(tuple(sorted({w for w in words if (zlib.crc32(w.encode()) % 10 == 0) == held_out})))
    return chosen[0], chosen[1]


def draw_key(rng: Random, *, held_out: bool) -> str:
    """An adjective and a noun joined by a hyphen, as RULER's keys."""
    adjectives, nouns = _words(held_out)
    return f"{rng.choice(adjectives)}-{rng.choice(nouns)}"


def draw_number(rng: Random) -> str:
    """Seven digits."""
    return str(rng.randint(10**6, 10**7 - 1))


def draw_uuid(rng: Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def needle_sentence(kind: str, key: str, value: str) -> str:
    return f"One of the special magic {kind} for {key} is: {value}."


def needle_question(kind: str, keys: list[str], *, several: bool) -> str:
    asked = keys[0] if len(keys) == 1 else ", ".join(keys[:-1]) + ", and " + keys[-1]
    if several:
        return f"What are all the special magic {kind} for {asked} mentioned in the provided text?"
    return f"What is the special magic {kind.removesuffix('s')} for {asked} mentioned in the provided text?"


def hide(rng: Random, haystack: str, sentences: list[str]) -> tuple[str, list[int]]:
    """Insert each sentence at a random sentence boundary of `haystack`; its order in the text is its order in the list.

    Returns:
        The text and the character at which each sentence starts.
    """
    ends = [m.end() for m in SENTENCE_END.finditer(haystack)] or [len(haystack)]
    places = sorted(rng.choices(ends, k=len(sentences)))
    pieces, starts, last, length = [], [], 0, 0
    for place, sentence in zip(places, sentences, strict=True):
        before = haystack[last:place]
        if before and not before[-1].isspace():
            before += " "
        starts.append(length + len(before))
        pieces += [before, sentence, " "]
        length += len(before) + len(sentence) + 1
        last = place
    pieces.append(haystack[last:])
    return "".join(pieces), starts


def make_example(
    rng: Random, haystack: str, task: Task, *, distractors: int = 3, held_out: bool = True
) -> NeedleExample:
    """Hide the needles of one question of `task` in `haystack`.

    Args:
        haystack: Prose to hide them in.
        distractors: For `multikey`, the number of needles with other keys.
        held_out: Whether keys are of the words that training never sees as keys.
    """
    kind, draw = ("uuids", draw_uuid) if task == "single_uuid" else ("numbers", draw_number)
    keys: list[str] = []
    while len(keys) < 1 + distractors:
        key = draw_key(rng, held_out=held_out)
        if key not in keys and key not in haystack:
            keys.append(key)
    if task == "multivalue":
        pairs, asked = [(keys[0], draw(rng)) for _ in range(3)], keys[:1]
    elif task == "multiquery":
        pairs, asked = [(key, draw(rng)) for key in keys[:2]], keys[:2]
    elif task == "multikey":
        pairs, asked = [(key, draw(rng)) for key in keys], keys[:1]
        rng.shuffle(pairs)
    else:
        pairs, asked = [(keys[0], draw(rng))], keys[:1]
    sentences = [needle_sentence(kind, key, value) for key, value in pairs]
    document, starts = hide(rng, haystack, sentences)
    answers, spans = [], []
    for (key, value), sentence, start in zip(pairs, sentences, starts, strict=True):
        if key in asked:
            answers.append(value)
            at = start + sentence.index(value)
            spans.append((at, at + len(value)))
    question = needle_question(kind, asked, several=len(answers) > 1)
    return NeedleExample(document, question, tuple(answers), tuple(spans))


def draw_haystack(rng: Random, prose: str, num_chars: int) -> str:
    """About `num_chars` characters of `prose`, from a sentence's start to a sentence's end."""
    if num_chars >= len(prose):
        return prose
    start = rng.randrange(len(prose) - num_chars)
    end = start + num_chars
    ends = [m.end() for m in SENTENCE_END.finditer(prose, start, end)]
    if len(ends) > 1:
        start, end = ends[0], ends[-1]
    return prose[start:end].strip() or prose[:num_chars]


def documents_of(count: Callable[[str], int], haystack: str, num_tokens: int) -> Callable[[Random], str]:
    """Draws pieces of the haystack of at least `num_tokens` tokens, and hardly more.

    Args:
        count: tokens of a text.
    """
    sample = haystack[:200_000]
    characters_per_token = len(sample) / count(sample)

    def draw(rng: Random) -> str:
        size = round(num_tokens * characters_per_token)
        while True:
            text = draw_haystack(rng, haystack, size)
            if count(text) >= num_tokens:
                return text
            if len(text) >= len(haystack):
                raise ValueError(f"the haystack has fewer than {num_tokens} tokens; give a longer text")
            size = round(size * 1.05) + 50

    return draw
