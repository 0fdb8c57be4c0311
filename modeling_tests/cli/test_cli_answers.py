# SPDX-License-Identifier: Apache-2.0
"""What is shown of the passages that were copied for an answer."""

from __future__ import annotations

from typing import Any

import pytest
from command_line import TALE

from transformers_hybridctx import HybridCtxProcessor
from transformers_hybridctx.cli.answers import answer_as_json, answer_rows, passage_rows, standing_rows

QUESTION = "What is the magic number for green-lemur?"


@pytest.fixture
def answer(processor: HybridCtxProcessor) -> dict[str, Any]:
    others = [f"The number of animal {n} is not known. " + "It was the age of wisdom. " * 30 for n in range(5)]
    document = "\n\n".join([TALE, *others])
    start = document.index("4821930")
    evidence = [{"page": 0, "start": start, "end": start + 7, "box": (0, 0, 1, 1), "text": "4821930"}]
    plan = processor.plan(document, QUESTION, text_policy={"name": "bm25", "top_k": 6})
    assert len(plan.spans) > 3
    return {
        "answer": "4821930",
        "reasoning": "",
        "finish_reason": "stop",
        "score": 1.0,
        "usage": {},
        "plan": plan,
        "evidence": evidence,
    }


def shown(rows: list[tuple[str, Any]]) -> list[str]:
    return [f"{label} {getattr(value, 'plain', value)}".strip() for label, value in rows]


def test_the_passage_with_the_evidence_comes_first_on_one_line(answer: dict[str, Any]) -> None:
    first, *_, last = shown(passage_rows(QUESTION, answer, all_passages=False))
    assert first.startswith("from page ") and "green-lemur is: 4821930" in first
    assert "\n" not in first and len(first) < 150
    assert last == f"and {len(answer['plan'].spans) - 3} more; --passages shows all, whole"


def test_what_is_wrong_with_an_answer_is_said_before_its_score(answer: dict[str, Any]) -> None:
    assert standing_rows(answer) == []
    usage = {"seconds": {}}
    rows = answer_rows(QUESTION, {**answer, "usage": usage, "evidence": [], "finish_reason": "length"})
    labels = [label for label, _ in rows]
    assert labels[:5] == ["question", "answer", "standing", "standing", "score"]
    assert "cut off" in shown(rows)[2] and "do not stand in the document" in shown(rows)[3]


def test_all_passages_are_shown_whole_on_demand(answer: dict[str, Any]) -> None:
    text = " ".join(shown(passage_rows(QUESTION, answer, all_passages=True)))
    for span in answer["plan"].spans:
        assert " ".join(span.text.split()) in text
        assert f"characters {span.start:,} to {span.end:,}" in text
    assert "has magic, number, green-lemur" in text


def test_json_has_every_passage_with_its_place_and_what_it_shares_with_the_question(answer: dict[str, Any]) -> None:
    found = answer_as_json(QUESTION, answer, [])
    assert [passage["text"] for passage in found["passages"]] == [span.text for span in answer["plan"].spans]
    (holder,) = (passage for passage in found["passages"] if "4821930" in passage["text"])
    assert holder["shared_words"] == ["magic", "number", "green-lemur"]
    assert found["evidence"][0]["page"] == 1
