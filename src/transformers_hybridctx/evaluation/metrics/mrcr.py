# SPDX-License-Identifier: Apache-2.0
"""OpenAI-MRCR's grade (the data card of `openai/mrcr`)."""

from __future__ import annotations

from difflib import SequenceMatcher


def mrcr_grade(response: str, answer: str, prefix: str) -> float:
    """Difflib's ratio of both without the prefix; 0 unless the response starts with it."""
    if not response.startswith(prefix):
        return 0.0
    return float(SequenceMatcher(None, response.removeprefix(prefix), answer.removeprefix(prefix)).ratio())


__all__ = ["mrcr_grade"]
