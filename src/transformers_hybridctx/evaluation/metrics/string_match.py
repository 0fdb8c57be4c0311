# SPDX-License-Identifier: Apache-2.0
"""RULER's metrics (NVIDIA/RULER, `scripts/eval/synthetic/constants.py`), for one sample.

lm-evaluation-harness has a `string_match_part` of its own, the share of the references: its QA scores cannot be compared
with these.
"""

from __future__ import annotations

import re
from collections.abc import Sequence


def string_match_all(prediction: str, answers: Sequence[str]) -> float:
    """The share of the references that stand in the answer, in any case."""
    said = prediction.lower()
    return sum(answer.lower() in said for answer in answers) / len(answers)


def string_match_part(prediction: str, answers: Sequence[str]) -> float:
    """1 if any reference stands in the answer, in any case."""
    said = prediction.lower()
    return float(any(answer.lower() in said for answer in answers))


def exact_strings(prediction: str, answers: Sequence[str]) -> float:
    """1 if all references, and no other word or number, stand in the answer, in any order."""
    return float(sorted(re.findall(r"[\w-]+", prediction)) == sorted(answers))


__all__ = ["exact_strings", "string_match_all", "string_match_part"]
