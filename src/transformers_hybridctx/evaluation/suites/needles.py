# SPDX-License-Identifier: Apache-2.0
"""Needles in prose of one's own: in RULER's words, and asked in words that the document does not have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, ClassVar, cast

from ..indirect import INDIRECT_TASKS, make_indirect
from ..metrics.string_match import exact_strings, string_match_all
from ..needles import TASKS, Task, documents_of, make_example
from ..samples import Sample
from ..token_counts import TokenCounter
from .base import Suite

_MAX_NEW_TOKENS = 256
_MAX_NEW_TOKENS_INDIRECT = 128  # one short statement, and what is asked for out of it


@dataclass(frozen=True)
class Needles(Suite):
    """
    Needles in a text file's prose, with keys that training never saw; all values and no other.

    Five tasks are RULER's. In four, the question shares no content word with the passage that answers it (`second_hop`,
    `by_value`, `odd_one_out`, `paraphrase`), and one of eight statements of a form answers it.

    Attributes:
        lengths: tokens of the documents, without what is hidden in them.
        prose: a text file that the model was not trained on.
    """

    name: ClassVar[str] = "needles"
    metric: ClassVar[str] = "exact match"
    task_names: ClassVar[tuple[str, ...]] = (*TASKS, *INDIRECT_TASKS)

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
            for task in self.chosen_tasks:
                for number in range(self.examples or 50):
                    rng = Random(f"{self.seed} {length} {task} {number}")
                    text, bound = draw(rng), _MAX_NEW_TOKENS
                    if task in INDIRECT_TASKS:
                        example, bound = make_indirect(rng, text, task), _MAX_NEW_TOKENS_INDIRECT
                    else:
                        example = make_example(rng, text, cast(Task, task), held_out=True)
                    found.append(Sample(example.document, example.question, "", example.answers, task, bound, length))
        return found

    def score(self, sample: Sample, answer: str) -> float:
        return exact_strings(answer, sample.answer)

    def summary(self, means: Mapping[str, float]) -> dict[str, float]:
        """The means of RULER's tasks, and of those whose questions share no content word with the passage."""
        found = {}
        for name, tasks in (("RULER's", TASKS), ("indirect", INDIRECT_TASKS)):
            had = [means[task] for task in tasks if task in means]
            if len(had) > 1:
                found[name] = sum(had) / len(had)
        return found


@dataclass(frozen=True)
class SaidNeedles(Needles):
    """The same for models that answer in sentences: the share of the values that stand in the answer, as in RULER."""

    name: ClassVar[str] = "needles-said"
    metric: ClassVar[str] = "string match"

    def score(self, sample: Sample, answer: str) -> float:
        return string_match_all(answer, sample.answer)


__all__ = ["Needles", "SaidNeedles"]
