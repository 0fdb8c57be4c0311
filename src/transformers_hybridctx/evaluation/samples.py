# SPDX-License-Identifier: Apache-2.0
"""The one form of a question about a long context, whatever benchmark it comes from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_COLUMNS = ("context", "question", "answer_prefix", "answer", "task", "max_new_tokens")


@dataclass(frozen=True)
class Sample:
    """
    A question about a context: the columns of `simonjegou/ruler`, and what is needed to score and to group it.

    Attributes:
        context: the long text; many questions may share it, and it is then read once.
        question: what is asked about it.
        answer_prefix: what the benchmark's own prompt ends with, where the model goes on. Chat models are not made to say
            it (`run(answer_prefix=...)` puts it behind the question, or makes it the answer's beginning).
        answer: the references.
        task: which of the suite's tasks this is.
        max_new_tokens: the benchmark's own bound on the answer.
        length: nominal length of the context in tokens, where the suite has one: tables have a row for each.
        is_file: `context` is the path of a file, such as a PDF, which is shown in its own pages.
        details: what the metric looks at beside the references, such as LongBench's `all_classes`.
    """

    context: str
    question: str
    answer_prefix: str
    answer: tuple[str, ...]
    task: str
    max_new_tokens: int
    length: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    is_file: bool = False

    def __post_init__(self) -> None:
        for name in ("context", "question"):
            if not getattr(self, name).strip():
                raise ValueError(f"a sample of the task {self.task!r} has no {name}")
        if not self.answer:
            raise ValueError(f"a sample of the task {self.task!r} has no reference: {self.question!r:.80}")

    @property
    def key(self) -> str:
        """What tells the sample from others, in files: it depends on all that is asked and how it is scored."""
        said = json.dumps([*self.to_row().values(), self.length, dict(self.details)], default=str, sort_keys=True)
        return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def to_row(self) -> dict[str, Any]:
        """The six columns."""
        return {name: getattr(self, name) for name in _COLUMNS} | {"answer": list(self.answer)}

    @classmethod
    def from_row(cls, row: Mapping[str, Any], length: int | None = None) -> Sample:
        """
        A sample from the six columns; `answer` may be one string.

        Raises:
            ValueError: a column is missing.
        """
        if missing := [name for name in _COLUMNS if name not in row]:
            raise ValueError(f"a row has no column {missing[0]!r}; it needs {', '.join(_COLUMNS)}")
        answer = row["answer"]
        answers = (answer,) if isinstance(answer, str) else tuple(map(str, answer))
        return cls(
            str(row["context"]),
            str(row["question"]),
            str(row["answer_prefix"]),
            answers,
            str(row["task"]),
            int(row["max_new_tokens"]),
            length,
        )


__all__ = ["Sample"]
