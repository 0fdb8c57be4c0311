# SPDX-License-Identifier: Apache-2.0
"""The whole text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ..knobs import shown
from .base import Selection, SpanCosts, TextPolicy, page_ranges
from .middle import MiddlePolicy


@dataclass(frozen=True)
class FullPolicy(TextPolicy):
    """Copies the whole text, one span for each page.

    Attributes:
        truncate: None: a budget that cannot hold the text is an error; "middle": the middle is left out instead.
    """

    name: ClassVar[str] = "full"
    truncate: Literal["middle"] | None = None

    def __post_init__(self) -> None:
        if self.truncate not in (None, "middle"):
            raise ValueError(f"truncate={shown(self.truncate)} is not a way to truncate; give None or 'middle'")

    @property
    def required(self) -> bool:
        return self.truncate is None

    def select(self, costs: SpanCosts, limit: int | None) -> Selection:
        if self.truncate is not None:
            return MiddlePolicy().select(costs, limit)
        return Selection(page_ranges(costs.document, (0, len(costs.document.text))), [])

    def smallest(self, costs: SpanCosts) -> int | None:
        if self.truncate is not None:
            return MiddlePolicy().smallest(costs)
        chosen = self.select(costs, None).chosen
        return sum(costs.tokens(chosen)) if chosen else None
