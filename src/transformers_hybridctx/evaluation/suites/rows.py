# SPDX-License-Identifier: Apache-2.0
"""Rows that are in the six columns already: `simonjegou/ruler` and others of its form, or one's own file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..metrics.string_match import string_match_all, string_match_part
from ..samples import Sample
from .base import Suite
from .sources import read_rows

_COLUMNS = ("context", "question", "answer_prefix", "answer", "task", "max_new_tokens")


@dataclass(frozen=True)
class Rows(Suite):
    """
    Rows of context, question, answer_prefix, answer, task and max_new_tokens, scored by RULER's string match.

    Tasks whose names begin with `qa` need any of the references, the others all.

    Attributes:
        data: a folder or file, or a Hub id; there, `lengths` name its configurations (4096, 8192, 16384).
        revision: the Hub's.
        lengths: one part of the data each; empty: all of it, without nominal lengths.
    """

    name: ClassVar[str] = "rows"
    metric: ClassVar[str] = "string match"

    data: str = "simonjegou/ruler"
    revision: str | None = None
    lengths: tuple[int, ...] = ()

    def samples(self, tokenizer: Any) -> list[Sample]:
        found = []
        for length in self.lengths or (None,):
            rows = read_rows(self.data, "" if length is None else str(length), self.revision, _COLUMNS)
            found += [Sample.from_row(row, length) for row in rows]
        return self._first(found)

    def score(self, sample: Sample, answer: str) -> float:
        metric = string_match_part if sample.task.startswith("qa") else string_match_all
        return metric(answer, sample.answer)


__all__ = ["Rows"]
