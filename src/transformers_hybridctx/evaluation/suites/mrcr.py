# SPDX-License-Identifier: Apache-2.0
"""OpenAI-MRCR (`openai/mrcr`, MIT): which of several like answers in a long conversation was the n-th."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..metrics.mrcr import mrcr_grade
from ..samples import Sample
from .base import Suite
from .sources import Row, read_rows

_COLUMNS = (
    "prompt",
    "answer",
    "random_string_to_prepend",
    "n_needles",
    "desired_msg_index",
    "total_messages",
    "n_chars",
)
_NEEDLES = ("2needle", "4needle", "8needle")
_MAX_NEW_TOKENS = 2048


@dataclass(frozen=True)
class MRCR(Suite):
    """
    OpenAI-MRCR; the conversation is the context, its last request the question.

    Attributes:
        data: a folder with `2needle/`, `4needle/` and `8needle/`, or a Hub id.
        revision: the Hub's: the rows were repaired on 2025-12-05, and figures of before cannot be compared. A run keeps
            the commit.
        max_chars: longer conversations are left out.
    """

    name: ClassVar[str] = "mrcr"
    metric: ClassVar[str] = "MRCR grade"
    task_names: ClassVar[tuple[str, ...]] = _NEEDLES

    data: str = "openai/mrcr"
    revision: str | None = None
    max_chars: int | None = None

    def samples(self, tokenizer: Any) -> list[Sample]:
        found = []
        for task in self.chosen_tasks:
            # the Hub has one configuration, with the rows of all three folders
            part = task if Path(self.data).exists() else ""
            rows = read_rows(self.data, part, self.revision, _COLUMNS, split="train")
            rows = [row for row in rows if f"{row['n_needles']}needle" == task]
            found += [
                self._sample(task, row) for row in rows if not self.max_chars or int(row["n_chars"]) <= self.max_chars
            ]
        return self._first(found)

    @staticmethod
    def _sample(task: str, row: Row) -> Sample:
        messages = json.loads(row["prompt"])
        said = [f"{message['role'].capitalize()}: {message['content']}" for message in messages[:-1]]
        details = {"prefix": row["random_string_to_prepend"], "n_chars": row["n_chars"]}
        bound, question = _MAX_NEW_TOKENS, messages[-1]["content"]
        return Sample("\n\n".join(said), question, "", (row["answer"],), task, bound, details=details)

    def score(self, sample: Sample, answer: str) -> float:
        return mrcr_grade(answer, sample.answer[0], sample.details["prefix"])


__all__ = ["MRCR"]
