# SPDX-License-Identifier: Apache-2.0
"""What is shown of the passages that were copied for an answer."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pytest
from command_line import TALE
from PIL import Image
from sample_answers import answer_that_says

from transformers_hybridctx import HybridCtxProcessor
from transformers_hybridctx.answering.json_answers import answer_as_json
from transformers_hybridctx.cli.answers import answer_rows, passage_rows, standing_rows
from transformers_hybridctx.documents.joined_document import DocumentParts
from transformers_hybridctx.documents.pictures import GivenPicture
from transformers_hybridctx.documents.source_document import ShownPage

QUESTION = "What is the magic number for green-lemur?"


@pytest.fixture
def answer(processor: HybridCtxProcessor) -> dict[str, Any]:
    others = [f"The number of animal {n} is not known. " + "It was the age of wisdom. " * 30 for n in range(5)]
    document = "\n\n".join([TALE, *others])
    plan = processor.plan(document, QUESTION, text_policy={"name": "bm25", "top_k": 6})
    assert len(plan.spans) > 3
    return answer_that_says(processor, plan, QUESTION, "4821930")


def shown(rows: list[tuple[str, Any]]) -> list[str]:
    return [f"{label} {getattr(value, 'plain', value)}".strip() for label, value in rows]


def test_the_passage_with_the_evidence_comes_first_on_one_line(answer: dict[str, Any]) -> None:
    first, *_, last = shown(passage_rows(QUESTION, answer, all_passages=False))
    assert first.startswith("from page ") and "green-lemur is: 4821930" in first
    assert "\n" not in first and len(first) < 150
    assert last == f"and {len(answer['plan'].spans) - 3} more; --passages shows all, whole"


@pytest.mark.parametrize(
    ("said", "finish_reason", "options", "expected"),
    [
        ("4821930", "stop", {}, ["answer 4821930", "standing verbatim: the document has this word for word"]),
        (
            "4821931",
            "stop",
            {},
            [
                "answer 4821931",
                "standing near: the document has '4821930', not '4821931' (1 edit *character 363)",
            ],
        ),
        (
            "4821931",
            "stop",
            {"repair": True, "abstain": True},
            [
                "answer 4821931",
                "repaired 4821930",
                "standing near: the document has '4821930', not '4821931' (1 edit*",
            ],
        ),
        (
            "<think>it is so</think>9999999",
            "stop",
            {"repair": True},
            ["standing nothing in the document supports this", "reasoning it is so", "answer 9999999"],
        ),
        (
            "9999999",
            "stop",
            {"abstain": True},
            ["standing nothing in the document supports this", "answer not in the document", "said 9999999"],
        ),
        (
            "They say 4821930 and 77777, yes 77777",
            "stop",
            {},
            [
                "standing nothing in the document supports this",
                "answer They say 4821930 and 77777, yes 77777",
                "standing absent: the document has no '77777'",
            ],
        ),
        (
            "4821930 says he",
            "stop",
            {},
            [
                "answer 4821930 says he",
                "standing verbatim: the document has each number, code and name of it, though*",
            ],
        ),
        (
            "4821930",
            "length",
            {},
            ["answer 4821930", "standing verbatim: *", "standing cut off: the answer goes on; raise --max-new-tokens"],
        ),
        (
            "<think>it is",
            "length",
            {},
            [
                "standing cut off before the answer began, while the model was still thinking; raise*",
                "reasoning it is",
            ],
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*was cut off after")
def test_how_an_answer_stands_is_said_before_its_score(
    processor: HybridCtxProcessor,
    answer: dict[str, Any],
    said: str,
    finish_reason: Any,
    options: dict[str, Any],
    expected: list[str],
) -> None:
    found = answer_that_says(processor, answer["plan"], QUESTION, said, finish_reason, **options)
    rows = shown(answer_rows(QUESTION, found))
    assert rows[0] == f"question {QUESTION}"
    assert rows[1 + len(expected)].startswith("confidence ")
    for row, pattern in zip(rows[1:], expected, strict=False):
        assert fnmatchcase(row, pattern), f"{row!r} is not {pattern!r}"


def test_pictures_have_no_standing(processor: HybridCtxProcessor) -> None:
    plan = processor.plan([np.zeros((168, 168), np.uint8)], QUESTION)
    found = answer_that_says(processor, plan, QUESTION, "4821930", abstain=True)
    assert (found["support"], found["checked"], found["confidence"]) == (None, "4821930", None)
    cut = answer_that_says(processor, plan, QUESTION, "<think>it", "length")
    assert [value.plain for label, value in standing_rows(cut) if label == "standing"] == [
        "cut off before the answer began, while the model was still thinking; raise --max-new-tokens"
    ]
    unknown = "cannot be checked: the text of these pages is not known; text recognition (--ocr) would find it"
    assert shown(answer_rows(QUESTION, found))[1:3] == [f"standing {unknown}", "answer 4821930"]
    assert dict(standing_rows(found))["answer"].style == "yellow"  # green is for what was checked


def test_what_is_not_in_the_known_text_beside_scans_cannot_be_checked(processor: HybridCtxProcessor) -> None:
    page = ShownPage.without_text(GivenPicture.frames_of(Image.new("L", (90, 90)), "p")[0])
    plan = processor.plan(DocumentParts(("The code is 4821930.", page)), QUESTION)
    found = answer_that_says(processor, plan, QUESTION, "9999999", abstain=True)
    assert (found["support"]["status"], found["checked"], found["confidence"]) == ("unchecked", "9999999", None)
    rows = shown(answer_rows(QUESTION, found))
    assert rows[1].startswith("standing cannot be checked: the text of page 2 is not known")
    assert "evidence none in the text that is known" in rows


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
    document, start = answer["plan"].document, answer["plan"].document.text.index("4821930")
    assert found["evidence"][0]["page"] == document.page_of(start) + 1
    assert (found["checked"], found["support"]["status"], found["quotations"]) == ("4821930", "verbatim", [])
    assert json.loads(json.dumps(found["support"]))["whole"]["places"] == [[start, start + 7]]


def test_evidence_that_a_line_end_divides_is_one(processor: HybridCtxProcessor) -> None:
    said = "It was the age of wisdom and of foolishness, of light and of darkness"
    document = f"{said}. It was the best of times. " * 3
    plan = processor.plan(document, QUESTION)
    answer = answer_that_says(processor, plan, QUESTION, f"{said}. It was the best of times. {said}")
    items = answer["evidence"]
    assert len(items) > 1 and len({item["page"] for item in items}) == 1
    (row,) = [row for row in shown(answer_rows(QUESTION, answer)) if row.startswith("evidence page")]
    start, end = items[0]["start"], items[-1]["end"]
    assert f"characters {start:,} to {end:,}, {len(items)} boxes (" in row


@pytest.mark.parametrize(("confidence", "is_told"), [(0.07, True), (0.5, False), (None, False)])
def test_what_is_less_likely_right_than_wrong_says_so_before_its_words(
    answer: dict[str, Any], confidence: float | None, is_told: bool
) -> None:
    rows = shown(answer_rows(QUESTION, answer | {"confidence": confidence}))
    doubts = [place for place, row in enumerate(rows) if row.startswith("standing doubtful")]
    assert doubts == ([1] if is_told else [])
    assert "standing verbatim: the document has this word for word" in rows


def test_a_withheld_answer_is_not_said_to_be_missing_from_a_document_that_has_it(answer: dict[str, Any]) -> None:
    rows = shown(answer_rows(QUESTION, answer | {"confidence": 0.07, "checked": None}))
    assert "answer none: what was said is likelier wrong than right" in rows
    assert not any("not in the document" in row for row in rows)


def test_an_answer_that_goes_on_to_the_next_sentence_looks_wrong(processor: HybridCtxProcessor) -> None:
    plan = processor.plan(TALE, QUESTION)
    right = answer_that_says(processor, plan, QUESTION, "4821930")
    wrong = answer_that_says(processor, plan, QUESTION, "4821930. It was the age of wisdom", abstain=True)
    assert right["confidence"] > 0.9 and wrong["confidence"] < 0.5 and wrong["checked"] is None
    headline, *_ = [str(value) for label, value in standing_rows(wrong) if label == "standing"]
    assert headline == "overlong: it goes on behind what was asked, to 'It was the age of wisdom'"
