# SPDX-License-Identifier: Apache-2.0
"""A document of some pages, questions about it, and what of an answer is the same each time."""

from typing import Any

import pytest

DOCUMENT = (
    "It was the best of times, it was the worst of times. " * 6
    + "The special magic number for green-lemur is: 4821930. "
    + "It was the age of wisdom, it was the age of foolishness. " * 6
    + "The special magic number for blue-heron is: 7750112."
)
QUESTION = "What is the special magic number for green-lemur?"
QUESTIONS = [QUESTION, "Which age was it?", "What is the special magic number for blue-heron, and whose is it?"]


def comparable(answer: dict[str, Any]) -> dict[str, Any]:
    """All but the time it took."""
    usage = {name: value for name, value in answer["usage"].items() if name != "seconds"}
    sure = {name: pytest.approx(answer[name], abs=1e-6) for name in ("score", "confidence")}
    return {**answer, **sure, "usage": usage}
