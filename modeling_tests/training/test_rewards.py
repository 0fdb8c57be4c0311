# SPDX-License-Identifier: Apache-2.0
"""Rewards: worked by hand."""

from __future__ import annotations

import pytest

from transformers_hybridctx import HybridCtxProcessor
from transformers_hybridctx.training.records import TrainingRecord, TrainingTurn
from transformers_hybridctx.training.rewards import answer_reward, evidence_boxes, place_reward, quote_reward

CONTEXT = "It was the best\nof times. The code of room 7 is 42. " * 4


@pytest.mark.parametrize(
    ("said", "right", "reward"),
    [
        ("42", "42", 1.0),
        ("<think>the code is 42</think>42", "42", 1.0),
        ("<think>the code is 42", "42", 0.0),  # cut off: nothing was answered
        ("The code is 42.", "42", 2 / 5),
        ("41", "42", 0.0),
        ("", "42", 0.0),
    ],
)
def test_answers(said: str, right: str, reward: float) -> None:
    assert answer_reward([said], answer=[right]) == pytest.approx([reward])
    messages = [{"role": "assistant", "content": said}]
    assert answer_reward([messages], answer=[right], prompts=["?"]) == pytest.approx([reward])


@pytest.mark.parametrize(
    ("said", "reward"),
    [
        ("<think>The code of room 7 is 42.</think>42", 1.0),
        ("<think>It was the best of times.</think>42", 1.0),  # the document has a newline there
        ("<think>The code of room 8 is 42.</think>42", 0.0),
        ("<think>is 42.\nis 43.</think>42", 0.5),
        ("42", 0.0),
    ],
)
def test_quotations(said: str, reward: float) -> None:
    assert quote_reward([said], context=[CONTEXT]) == pytest.approx([reward])


@pytest.mark.parametrize(
    ("said", "reward"),
    [
        ("Page 1 [0, 0, 100, 100]", 1.0),
        ("Page 1 [0, 0, 50, 100]", 0.5),
        ("Page 1 [0, 0, 50, 100]\nPage 1 [50, 0, 100, 100]", 1.0),
        ("Page 1 [50, 0, 150, 100]", 1 / 3),
        ("Page 2 [0, 0, 100, 100]", 0.0),
        ("Page 1 [100, 0, 0, 100]", 0.0),
        ("somewhere", 0.0),
    ],
)
def test_places(said: str, reward: float) -> None:
    assert place_reward([said], boxes=[[[1, 0, 0, 100, 100]]]) == pytest.approx([reward])


def test_boxes_of_evidence_are_the_renderers(processor: HybridCtxProcessor) -> None:
    start = CONTEXT.index("42")
    record = TrainingRecord(CONTEXT, (TrainingTurn("Which code?", "42", ((start, start + 2),)),))
    document = processor.read_document(CONTEXT)
    ((page, left, top, right, bottom),) = evidence_boxes(record, document)
    said = f"Page {page} [{round(left)}, {round(top)}, {round(right)}, {round(bottom)}]"
    assert page == document.page_of(start) + 1
    assert place_reward([said], boxes=[[[page, left, top, right, bottom]]])[0] > 0.9
