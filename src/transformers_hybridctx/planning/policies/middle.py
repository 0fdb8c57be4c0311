# SPDX-License-Identifier: Apache-2.0
"""Head and tail of the text, cut in the middle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .base import Selection, SpanCosts
from .elastic import ElasticPolicy, fill


@dataclass(frozen=True)
class MiddlePolicy(ElasticPolicy):
    """Copies head and tail of the text, half of the limit each, and leaves out the middle (as LongBench does)."""

    name: ClassVar[str] = "middle"

    def select(self, costs: SpanCosts, limit: int | None) -> Selection:
        whole = (0, len(costs.document.text))
        everything, used = fill(costs, whole, limit, from_end=False)
        if limit is None or (everything and everything[-1][1] == whole[1]):
            return Selection(everything, [])
        head, used = fill(costs, whole, limit - limit // 2, from_end=False)
        cut_start = head[-1][1] if head else 0
        tail, _ = fill(costs, (cut_start, whole[1]), limit - used, from_end=True)
        cut_end = tail[0][0] if tail else whole[1]
        return Selection(head + tail, [(cut_start, cut_end)] if cut_end > cut_start else [])
