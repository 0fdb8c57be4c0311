# SPDX-License-Identifier: Apache-2.0
"""UltraChat-200k (https://huggingface.co/datasets/HuggingFaceH4/ultrachat_200k, MIT): short dialogues, which keep the
language of a model that learns long documents. Only what exceeds a budget is drawn: see the objective `chat`.
"""

from __future__ import annotations

from typing import Any

from ..records import TrainingRecord
from .json_lines import turns_of_messages


def record_of(row: dict[str, Any]) -> TrainingRecord:
    """Row: `{"prompt", "prompt_id", "messages": [{"role", "content"}, ...]}`."""
    system, turns = turns_of_messages(row["messages"])
    return TrainingRecord("", turns, system, row["prompt_id"])
