# SPDX-License-Identifier: Apache-2.0
"""RULER's needles: eight tasks of keys and values in noise, prose or other needles."""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random
from typing import Literal

import numpy as np

from ...token_counts import TokenCounter
from .draws import NOISE, SHORT, Drawn, Form, draw, drawn_to_fit, fitting_size, joined, sentences_of

NEEDLE = "One of the special magic {kind} for {key} is: {value}."
_DEPTHS = [int(depth) for depth in np.round(np.linspace(0, 100, num=40))]
_PROSE_STEP = 500  # words


@dataclass(frozen=True)
class NeedleTask:
    """What is hidden in what: the arguments of `niah.py`."""

    haystack: Literal["noise", "essay", "needle"]
    keys_are: str = "words"
    values_are: str = "numbers"
    keys: int = 1
    values: int = 1
    queries: int = 1

    @property
    def form(self) -> Form:
        template = (
            "Some special magic {kind} are hidden within the following text. Make sure to memorize it. I will quiz you "
            "about the {kind} afterwards.\n{context}\nWhat are all the special magic {kind} for {query} mentioned in the "
            "provided text?"
        )
        prefix = " The special magic {kind} for {query} mentioned in the provided text are"
        if self.queries * self.values == 1:
            template, prefix = (
                words.replace("Some", "A").replace("are all", "is").replace("are", "is")
                for words in (template, prefix)
            )
        return Form(template, prefix, r"What (?:is|are all) the special magic ", 128)

    def draw(self, rng: Random, seed: int, count: TokenCounter, length: int, prose: str | None) -> Drawn:
        """
        Prompts without end.

        Args:
            prose: for haystacks of essays.
        """
        words = re.sub(r"\s+", " ", prose or "").split(" ")
        step = _PROSE_STEP if self.haystack == "essay" else 5 if length < SHORT else 25
        form = self.form

        def make(size: int) -> tuple[str, list[str]]:
            return self._prompt(rng, seed, form, words, size)

        size = fitting_size(lambda one: make(one)[0], count, length, form.max_new_tokens, step)
        while True:
            yield drawn_to_fit(make, count, length, form.max_new_tokens, size, step)

    def _prompt(self, rng: Random, seed: int, form: Form, words: list[str], size: int) -> tuple[str, list[str]]:
        keys: list[str] = []
        values: list[list[str]] = []
        needles: list[str] = []
        for _ in range(max(self.keys, self.queries)):
            keys.append(draw(rng, self.keys_are))
            values.append([])
            for _ in range(self.values):
                values[-1].append(draw(rng, self.values_are))
                needles.append(NEEDLE.format(kind=self.values_are, key=keys[-1], value=values[-1][-1]))
        Random(seed).shuffle(needles)
        context = (
            self._in_prose(rng, words, needles, size)
            if self.haystack == "essay"
            else self._in_lines(rng, needles, size)
        )
        asked = rng.sample(range(len(keys)), self.queries)
        answers = [value for index in asked for value in values[index]]
        kind = self.values_are.removesuffix("s") if self.queries * self.values == 1 else self.values_are
        query = joined([keys[index] for index in asked])
        return form.whole.format(kind=kind, context=context, query=query), answers

    @staticmethod
    def _in_prose(rng: Random, words: list[str], needles: list[str], size: int) -> str:
        repeats = -(-size // len(words))
        sentences = sentences_of(" ".join((words * repeats)[:size]).strip())
        depths = sorted(int(len(sentences) * (depth / 100)) for depth in rng.sample(_DEPTHS, len(needles)))
        places = [0, *depths, len(sentences)]
        pieces = []
        for index in range(1, len(places)):
            pieces.append(" ".join(sentences[places[index - 1] : places[index]]))
            if index <= len(needles):
                pieces.append(needles[index - 1])
        return " ".join(pieces)

    def _in_lines(self, rng: Random, needles: list[str], size: int) -> str:
        if self.haystack == "noise":
            lines = [NOISE] * size
        else:
            lines = [
                NEEDLE.format(kind=self.values_are, key=draw(rng, self.keys_are), value=draw(rng, self.values_are))
                for _ in range(size)
            ]
        for place, needle in zip(sorted(rng.sample(range(size), len(needles)), reverse=True), needles, strict=True):
            lines.insert(place, needle)
        return "\n".join(lines)


NEEDLE_TASKS = {
    "niah_single_1": NeedleTask("noise"),
    "niah_single_2": NeedleTask("essay"),
    "niah_single_3": NeedleTask("essay", values_are="uuids"),
    "niah_multikey_1": NeedleTask("essay", keys=4),
    "niah_multikey_2": NeedleTask("needle"),
    "niah_multikey_3": NeedleTask("needle", keys_are="uuids", values_are="uuids"),
    "niah_multivalue": NeedleTask("essay", values=4),
    "niah_multiquery": NeedleTask("essay", queries=4),
}

__all__ = ["NEEDLE", "NEEDLE_TASKS", "NeedleTask"]
