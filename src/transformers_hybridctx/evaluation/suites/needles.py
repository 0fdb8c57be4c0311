# SPDX-License-Identifier: Apache-2.0
"""Needles in prose of one's own, asked in RULER's words with keys that training never saw: all answers and no other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from ..metrics.string_match import exact_strings
from ..needles import TASKS, documents_of, make_example
from ..samples import Sample
from ..token_counts import TokenCounter
from .base import Suite

_MAX_NEW_TOKENS = 256


@dataclass(frozen=True)
class Needles(Suite):
    """
    Needles in a text file's prose.

    Attributes:
        lengths: tokens of the documents.
        prose: a text file that the model was not trained on.
    """

    name: ClassVar[str] = "needles"
    metric: ClassVar[str] = "exact match"
    task_names: ClassVar[tuple[str, ...]] = TASKS

    examples: int | None = 50
    seed: int = 0
    lengths: tuple[int, ...] = (2048,)
    prose: Path | None = None

    def samples(self, tokenizer: Any) -> list[Sample]:
        if self.prose is None:
            raise ValueError("needles are hidden in prose: give a text file, hybridctx evaluate FILE or --prose FILE")
        haystack = self.prose.read_text(encoding="utf-8")
        found = []
        for length in self.lengths:
            draw = documents_of(TokenCounter(tokenizer), haystack, length)
            for task in TASKS:
                for number in range((self.examples or 50) if task in self.chosen_tasks else 0):
                    rng = Random(f"{self.seed} {length} {task} {number}")
                    example = make_example(rng, draw(rng), task, held_out=True)
                    found.append(
                        Sample(example.document, example.question, "", example.answers, task, _MAX_NEW_TOKENS, length)
                    )
        return found

    def score(self, sample: Sample, answer: str) -> float:
        return exact_strings(answer, sample.answer)


__all__ = ["Needles"]
