# SPDX-License-Identifier: Apache-2.0
"""VTCBench-Wild (`MLLM-CL/VTCBench`, CC BY-NC 4.0: fetched when it is run, never part of this package)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..samples import Sample
from .base import Suite
from .sources import Row, read_rows

_INSTRUCTIONS = {
    "Retrieval": "Answer a question based on the above book snippet. Your answer should be short and based on "
    "either explicitly "
    "stated facts or strong, logical inferences. Return only the final answer with no additional explanation or "
    "reasoning. "
    "Question: ",
    "Reasoning": "Answer a question based on the above book snippet. Some special magic numbers are hidden within "
    "the following "
    "text. Make sure to memorize it. I will quiz you about the numbers afterwards. Question: ",
    "Memory": "Based on the above context, write an answer in the form of a short phrase for the following "
    "question. Answer with "
    "exact words from the context whenever possible. Question: ",
}
_MAX_NEW_TOKENS = 256


@dataclass(frozen=True)
class VTCBench(Suite):
    """
    VTCBench-Wild from its texts (`_context`), which are drawn here as the checkpoint draws pages.

    The score is `contains_all`: the share of the references in the answer, as they are written.

    Attributes:
        data: a folder with `Retrieval`, `Reasoning` and `Memory` as files or folders, or a Hub id.
        revision: the Hub's.
    """

    name: ClassVar[str] = "vtcbench"
    metric: ClassVar[str] = "contains all"
    task_names: ClassVar[tuple[str, ...]] = tuple(_INSTRUCTIONS)

    data: str = "MLLM-CL/VTCBench"
    revision: str | None = None

    def samples(self, tokenizer: Any) -> list[Sample]:
        found = []
        for task in self.chosen_tasks:
            rows = read_rows(self.data, task, self.revision, ("problem", "answers", "_context"), split=task)
            found += [self._sample(task, row) for row in rows]
        return self._first(found)

    @staticmethod
    def _sample(task: str, row: Row) -> Sample:
        context = row["_context"]
        text = context if isinstance(context, str) else str(context["text"])
        answers = tuple(str(answer).strip() for answer in row["answers"])
        return Sample(text, _INSTRUCTIONS[task] + row["problem"], "", answers, task, _MAX_NEW_TOKENS)

    def score(self, sample: Sample, answer: str) -> float:
        return sum(one in answer for one in sample.answer) / len(sample.answer)


__all__ = ["VTCBench"]
