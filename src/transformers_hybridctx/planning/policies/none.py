# SPDX-License-Identifier: Apache-2.0
"""Pages alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .base import Selection, SpanCosts, TextPolicy


@dataclass(frozen=True)
class NonePolicy(TextPolicy):
    """Copies nothing: the pages alone."""

    name: ClassVar[str] = "none"

    def select(self, costs: SpanCosts, limit: int | None) -> Selection:
        return Selection([], [])

    def smallest(self, costs: SpanCosts) -> int | None:
        return None
