# SPDX-License-Identifier: Apache-2.0
"""Answers that end early: because nobody waits for them any more, or their time is up."""

from __future__ import annotations

import time
from threading import Event
from typing import Any

import torch
from transformers import StoppingCriteria


class StopsEarly(StoppingCriteria):
    """
    Ends generation after the token during which nobody waited for the answer any more, or its time was up.

    Attributes:
        has_cut: whether it ended an answer.
    """

    def __init__(self, cancelled: Event, seconds: float) -> None:
        self._cancelled = cancelled
        self._deadline = time.monotonic() + seconds
        self.has_cut = False

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        self.has_cut |= self._cancelled.is_set() or time.monotonic() > self._deadline
        return torch.full((len(input_ids),), self.has_cut, device=input_ids.device)


__all__ = ["StopsEarly"]
