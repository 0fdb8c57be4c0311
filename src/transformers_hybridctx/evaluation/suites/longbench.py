# SPDX-License-Identifier: Apache-2.0
"""LongBench v1 and v2 (THUDM/LongBench): published rows, their own prompts, their own scores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, ClassVar

from ..metrics.longbench import METRICS, longbench_score, longbench_v2_choice
from ..samples import Sample
from .base import Suite
from .sources import Row, parts_of, read_rows

_COLUMNS = ("input", "context", "answers", "length", "all_classes")
_E_TASKS = (
    "qasper",
    "multifieldqa_en",
    "hotpotqa",
    "2wikimqa",
    "gov_report",
    "multi_news",
    "trec",
    "triviaqa",
    "samsum",
    "passage_count",
    "passage_retrieval_en",
    "lcc",
    "repobench-p",
)


@cache
def _prompts() -> dict[str, Any]:
    return dict(json.loads(files(__package__).joinpath("longbench_prompts.json").read_text(encoding="utf-8"))["tasks"])


def prompt_parts(prompt: str) -> tuple[str, str]:
    """
    What stands in a published prompt right before its context (`Story: `), and all that is asked about it.

    A document is shown before the question, so an instruction from before the context is said after it, unless the
    question has it already.
    """
    before, after = prompt.split("{context}")
    instruction, gap, label = before.rpartition("\n")
    if not gap:
        instruction, label = before, ""
    instruction = instruction.strip()
    return label, after if instruction in after else f"{instruction}\n\n{after.lstrip(chr(10))}"


@dataclass(frozen=True)
class LongBench(Suite):
    """
    LongBench v1.

    Attributes:
        data: a folder with `TASK.jsonl` (as in the original's zip), or a Hub id.
        revision: the Hub's.
        e: LongBench-E: 13 tasks (`TASK_e`), scored by length: 0-4k, 4-8k, 8k+.
    """

    name: ClassVar[str] = "longbench"
    metric: ClassVar[str] = "LongBench score"
    task_names: ClassVar[tuple[str, ...]] = tuple(METRICS)

    data: str = "Xnhyacinth/LongBench"
    revision: str | None = None
    e: bool = False

    def samples(self, tokenizer: Any) -> list[Sample]:
        wanted = [task for task in self.chosen_tasks if not self.e or task in _E_TASKS]
        names = [f"{task}_e" if self.e else task for task in wanted]
        if not self.tasks:
            there = parts_of(self.data, names)
            if not there:
                raise ValueError(f"{self.data} has none of LongBench's files, such as {names[0]}.jsonl")
            names = there
        found = []
        for name in names:
            task = name.removesuffix("_e")
            found += [self._sample(task, row) for row in read_rows(self.data, name, self.revision, _COLUMNS)]
        return self._first(found)

    def _sample(self, task: str, row: Row) -> Sample:
        published = _prompts()[task]
        label, question = prompt_parts(published["prompt"])
        details = {"all_classes": row["all_classes"], "words": row["length"]}
        asked = question.replace("{input}", row["input"])
        bound = published["max_new_tokens"]
        return Sample(label + row["context"], asked, "", tuple(row["answers"]), task, bound, details=details)

    def score(self, sample: Sample, answer: str) -> float:
        return longbench_score(sample.task, answer, sample.answer, sample.details)

    def details(self, sample: Sample, answer: str) -> dict[str, Any]:
        words = sample.details["words"]
        return {"bin": "0-4k" if words < 4000 else "4-8k" if words < 8000 else "8k+"}


@dataclass(frozen=True)
class LongBenchV2(Suite):
    """
    LongBench v2: four choices, by its generative protocol (`The correct answer is (X)`).

    Attributes:
        data: a folder with `data.json` or `train.jsonl`, or a Hub id.
        revision: the Hub's.
    """

    name: ClassVar[str] = "longbench-v2"
    metric: ClassVar[str] = "accuracy"

    data: str = "THUDM/LongBench-v2"
    revision: str | None = None

    def samples(self, tokenizer: Any) -> list[Sample]:
        columns = (
            "question",
            "choice_A",
            "choice_B",
            "choice_C",
            "choice_D",
            "answer",
            "context",
            "difficulty",
            "length",
        )
        return self._first(
            [self._sample(row) for row in read_rows(self.data, "", self.revision, columns, split="train")]
        )

    @staticmethod
    def _sample(row: Row) -> Sample:
        choices = "\n".join(f"({letter}) {row[f'choice_{letter}'].strip()}" for letter in "ABCD")
        question = (
            "Please read the text above and answer the question below.\n\n"
            f"What is the correct answer to this question: {row['question'].strip()}\nChoices:\n{choices}\n\n"
            'Format your response as follows: "The correct answer is (insert answer here)".'
        )
        details = {"difficulty": row["difficulty"], "words": row["length"]}
        # a task of its own for each length, so that the published columns are the table's
        return Sample(row["context"].strip(), question, "", (row["answer"],), row["length"], 128, details=details)

    def score(self, sample: Sample, answer: str) -> float:
        return float(longbench_v2_choice(answer) == sample.answer[0])

    def details(self, sample: Sample, answer: str) -> dict[str, Any]:
        return {"difficulty": sample.details["difficulty"], "choice": longbench_v2_choice(answer)}

    def summary(self, means: Mapping[str, float]) -> dict[str, float]:
        """None: the mean of lengths is not the published overall figure, which is that of all samples (`95% of all`)."""
        return {}


__all__ = ["LongBench", "LongBenchV2", "prompt_parts"]
