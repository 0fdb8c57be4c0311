# SPDX-License-Identifier: Apache-2.0
"""RULER as a suite."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from ...metrics.string_match import string_match_all, string_match_part
from ...samples import Sample
from ...token_counts import TokenCounter
from ..base import Suite
from .counting import COMMON_FORM, FREQUENT_FORM, draw_common, draw_frequent
from .draws import Drawn, Form
from .needles import NEEDLE_TASKS
from .questions import FILES, draw_questions
from .questions import FORM as QUESTION_FORM
from .tracing import FORM as TRACING_FORM
from .tracing import draw_tracing

ESSAYS = "PaulGrahamEssays.json"
TEN_TASKS = (*NEEDLE_TASKS, *FILES)
"""Those of the mean on which Glyph and FocusVTC are quoted: without vt, cwe and fwe."""


@dataclass(frozen=True)
class Ruler(Suite):
    """
    RULER, generated with the model's own tokenizer.

    Attributes:
        lengths: tokens of prompt and answer together.
        data: the folder of RULER's own downloads: `PaulGrahamEssays.json`, `squad.json`, `hotpotqa.json` and, for long
            lists of words, `english_words.json`; only what the tasks need.
        prose: a text file for haystacks of prose, in place of the essays: the same form, other figures.
    """

    name: ClassVar[str] = "ruler"
    metric: ClassVar[str] = "string match"
    task_names: ClassVar[tuple[str, ...]] = (*NEEDLE_TASKS, "vt", "cwe", "fwe", *FILES)

    lengths: tuple[int, ...] = (4096,)
    data: Path | None = None
    prose: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("data", "prose"):
            if (given := getattr(self, name)) is not None:
                object.__setattr__(self, name, Path(given))

    def samples(self, tokenizer: Any) -> list[Sample]:
        count, prose = TokenCounter(tokenizer), self._prose()
        self._check_questions()
        found = []
        for length in self.lengths:
            for task in self.chosen_tasks:
                form, drawn = self._draw(task, Random(self.seed), count, length, prose)
                found += [
                    form.sample(prompt, answers, task, length)
                    for prompt, answers in islice(drawn, 500 if self.examples is None else self.examples)
                ]
        return found

    def _draw(self, task: str, rng: Random, count: TokenCounter, length: int, prose: str | None) -> tuple[Form, Drawn]:
        if task in NEEDLE_TASKS:
            return NEEDLE_TASKS[task].form, NEEDLE_TASKS[task].draw(rng, self.seed, count, length, prose)
        if task == "vt":
            return TRACING_FORM, draw_tracing(rng, self.seed, count, length)
        if task == "cwe":
            more = None if self.data is None else self.data / "english_words.json"
            return COMMON_FORM, draw_common(rng, self.seed, count, length, more)
        if task == "fwe":
            return FREQUENT_FORM, draw_frequent(rng, self.seed, count, length)
        assert self.data is not None
        return QUESTION_FORM, draw_questions(task, rng, self.seed, count, length, self.data)

    def _prose(self) -> str | None:
        if self.prose is not None:
            return self.prose.read_text(encoding="utf-8")
        if self.data is not None and (self.data / ESSAYS).is_file():
            return str(json.loads((self.data / ESSAYS).read_text(encoding="utf-8"))["text"])
        needing = [
            task for task in self.chosen_tasks if task in NEEDLE_TASKS and NEEDLE_TASKS[task].haystack == "essay"
        ]
        if needing:
            raise ValueError(
                f"{', '.join(needing)} hide needles in prose: give --prose FILE, or --data FOLDER with {ESSAYS}, or "
                f"choose "
                "--task niah_single_1, niah_multikey_2, niah_multikey_3, vt, cwe, fwe, which need none"
            )
        return None

    def _check_questions(self) -> None:
        for task in self.chosen_tasks:
            if task in FILES and (self.data is None or not (self.data / FILES[task]).is_file()):
                raise ValueError(
                    f"{task} asks about the passages of {FILES[task]}: give --data FOLDER that has it (SQuAD 2.0's "
                    f"dev set, "
                    "HotpotQA's dev set with distractors), or choose other tasks by --task"
                )

    def score(self, sample: Sample, answer: str) -> float:
        metric = string_match_part if sample.task in FILES else string_match_all
        return metric(answer, sample.answer)

    def summary(self, means: Mapping[str, float]) -> dict[str, float]:
        """The mean of all tasks that were run; with all of them at hand, the mean of ten that papers quote."""
        found = super().summary(means)
        if all(task in means for task in TEN_TASKS):
            found["ten-task mean"] = sum(means[task] for task in TEN_TASKS) / len(TEN_TASKS)
        return found


__all__ = ["ESSAYS", "TEN_TASKS", "Ruler"]
