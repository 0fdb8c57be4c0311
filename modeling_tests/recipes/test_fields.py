# SPDX-License-Identifier: Apache-2.0
"""Fields of a document of records, lines of forms and phrases, asked for."""

from __future__ import annotations

from typing import Any

import pytest

from recipes.hybridctx_tiny.fields import score_fields
from recipes.hybridctx_tiny.forms import score_forms
from recipes.hybridctx_tiny.phrases import PHRASES, score_phrases
from recipes.hybridctx_tiny.tasks import PLAIN_STATEMENTS, STATED

TEXT = "ICELAND\n\nIceland - Coastline: 4,970 km\nIceland - Area - land: 100,250 sq km\nA - B: 1\nA - B: 2\n"


class Answers:
    """A pipeline that knows one answer."""

    device = "cpu"

    def read(self, text: str) -> str:
        return f"read {text}"

    def __call__(self, question: str, document: str) -> dict[str, Any]:
        assert document == f"read {TEXT}"
        said = "4,970  km." if question == "What is the Coastline of Iceland?" else ""
        return {"answer": said, "score": 0.75 if said else 0.25, "confidence": 0.5}


def test_fields_that_stand_once_are_asked_for() -> None:
    found = score_fields(Answers(), TEXT, examples=2, seed=0)
    assert found["exact_match"] == 0.5
    assert {answer["question"] for answer in found["answers"]} == {
        "What is the Coastline of Iceland?",
        "What is the Area land of Iceland?",
    }
    assert found["interval"][0] < 0.5 < found["interval"][1]
    assert found["auroc"] == {"score": 1.0, "confidence": 0.5}


def test_more_fields_than_there_are_is_an_error() -> None:
    with pytest.raises(ValueError, match="has 2 fields"):
        score_fields(Answers(), TEXT, examples=3, seed=0)


def test_phrases_are_sentences_with_a_value_and_no_wording_of_the_training() -> None:
    statements = [statement for statement, _ in PHRASES]
    assert len(set(statements)) == 100 and all(statement.count("{}") == 1 for statement in statements)
    trained = {template.replace("{value}", "{}") for template in PLAIN_STATEMENTS} | {one for one, _ in STATED}
    assert not trained & set(statements)

    def knows(question: str, text: str) -> dict[str, Any]:
        statement = next(one for one, asked in PHRASES if asked == question and text.startswith(one.split("{}")[0]))
        before, behind = statement.split("{}")
        return {"answer": text.removeprefix(before).removesuffix(behind) if "code" in question else "no"}

    found = score_phrases(knows, seed=3)
    assert found["exact_match"] == sum("code" in question for _, question in PHRASES) / 100


def test_a_line_of_each_form_is_asked_for() -> None:
    def reads(question: str, text: str) -> dict[str, Any]:
        line = text.splitlines()[-1].strip("| ")
        return {"answer": line.split(": ")[-1].split(" | ")[-1] + ".", "reasoning": line, "confidence": 0.5}

    found = score_forms(reads, examples=20, seed=1)
    answers = found["answers"]
    assert len({answer["text"] for answer in answers}) == len(answers) == 20
    assert all(answer["value"] in answer["text"] for answer in answers)
    right = [answer["answer"] == answer["value"] + "." for answer in answers]
    assert [answer["is_right"] for answer in answers] == right
    assert 0 < found["exact_match"] == sum(right) / 20
