# SPDX-License-Identifier: Apache-2.0
"""The tasks of the trade-off: what a search by the question's words finds, and what it cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .needles import Needles


@dataclass(frozen=True)
class TradeOffTasks(Needles):
    """Two tasks of [`Needles`] that a search by the question's words solves, and one that it does not."""

    name: ClassVar[str] = "tradeoff"
    task_names: ClassVar[tuple[str, ...]] = ("single_number", "multikey", "second_hop")

    examples: int | None = 20
    lengths: tuple[int, ...] = (1024, 2048, 4096)


__all__ = ["TradeOffTasks"]
