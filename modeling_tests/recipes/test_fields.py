# SPDX-License-Identifier: Apache-2.0
"""Fields of a document of records, asked for at random."""

from __future__ import annotations

from typing import Any

import pytest

from recipes.hybridctx_tiny.fields import score_fields

TEXT = "ICELAND\n\nIceland - Coastline: 4,970 km\nIceland - Area - land: 100,250 sq km\nA - B: 1\nA - B: 2\n"


class Answers:
    """A pipeline that knows one answer."""

    device = "cpu"

    def read(self, text: str) -> str:
        return f"read {text}"

    def __call__(self, question: str, document: str, text_policy: Any) -> dict[str, Any]:
        assert document == f"read {TEXT}"
        return {"answer": "4,970  km." if question == "What is the Coastline of Iceland?" else "", "score": 0.5}


def test_fields_that_stand_once_are_asked_for() -> None:
    found = score_fields(Answers(), TEXT, examples=2, seed=0)
    assert found["exact_match"] == 0.5
    assert {answer["question"] for answer in found["answers"]} == {
        "What is the Coastline of Iceland?",
        "What is the Area land of Iceland?",
    }
    assert found["interval"][0] < 0.5 < found["interval"][1]


def test_more_fields_than_there_are_is_an_error() -> None:
    with pytest.raises(ValueError, match="has 2 fields"):
        score_fields(Answers(), TEXT, examples=3, seed=0)
