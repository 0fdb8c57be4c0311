# SPDX-License-Identifier: Apache-2.0
"""The end of the text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..knobs import whole_number
from .base import Selection, SpanCosts
from .elastic import ElasticPolicy, fill


@dataclass(frozen=True)
class TailPolicy(ElasticPolicy):
    """Copies the last part of the text that fits, from a word boundary where there is one.

    Attributes:
        max_chars: copy at most this many characters, however large the budget is (None: no limit).
    """

    name: ClassVar[str] = "tail"
    max_chars: int | None = None

    def __post_init__(self) -> None:
        if self.max_chars is not None:
            whole_number("max_chars", self.max_chars, 1, "characters, or None for no bound")

    def select(self, costs: SpanCosts, limit: int | None) -> Selection:
        end = len(costs.document.text)
        start = 0 if self.max_chars is None else max(0, end - self.max_chars)
        chosen, _ = fill(costs, (start, end), limit, from_end=True)
        kept = chosen[0][0] if chosen else end
        return Selection(chosen, [(start, kept)] if kept > start else [])
