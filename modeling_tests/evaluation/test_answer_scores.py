# SPDX-License-Identifier: Apache-2.0
"""Scores of answers: the same questions with and without their needles, and how well a score tells them apart."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest

from transformers_hybridctx import LongDocQAPipeline
from transformers_hybridctx.answering.confidence import Weights, confidence
from transformers_hybridctx.evaluation.answer_scores import (
    auroc,
    fitted_weights,
    judged,
    run_score_benchmark,
    score_report,
    threshold_that_keeps,
    without_its_needles,
)
from transformers_hybridctx.evaluation.contexts import Context
from transformers_hybridctx.evaluation.needles import TASKS, Task, make_example

PROSE = "It was the best of times, it was the worst of times. It was the age of wisdom. " * 60


@pytest.mark.parametrize("task", TASKS)
def test_a_question_without_its_needles_has_no_answer_and_the_same_other_needles(task: Task) -> None:
    example = make_example(Random(1), PROSE, task)
    absent = without_its_needles(example)
    assert absent.question == example.question
    assert all(answer in example.document and answer not in absent.document for answer in example.answers)
    missing = example.document.count("One of the special magic") - absent.document.count("One of the special magic")
    assert missing == len(example.answers)


def test_auroc_is_the_chance_that_right_ones_stand_above_others() -> None:
    rng = np.random.default_rng(0)
    right, wrong = rng.integers(0, 9, 30).astype(float), rng.integers(0, 9, 20).astype(float)
    plain = np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a in right for b in wrong])
    assert auroc(right, wrong) == pytest.approx(plain)
    assert auroc(right, wrong[:0]) is None


@pytest.mark.parametrize("count", [1, 19, 20, 100])
def test_a_threshold_keeps_95_of_a_hundred_right_answers(count: int) -> None:
    right = np.random.default_rng(count).random(count)
    assert (right >= threshold_that_keeps(right)).mean() >= 0.95


def answers(count: int = 200) -> list[dict[str, Any]]:
    """Answers whose score says nothing and whose agreement says all."""
    rng = np.random.default_rng(3)
    rows = []
    for index in range(count):
        there = index % 2 == 0
        agreement = float(rng.uniform(0.4, 1) if there else rng.uniform(0, 0.5))
        row = {"grounding": "none", "example": index // 2, "is_there": there, "is_right": there, "status": "verbatim"}
        rows.append({**row, "score": float(rng.uniform(0.5, 1)), "agreement": agreement})
    return rows


def test_fitted_weights_tell_right_answers_from_others() -> None:
    rows = answers()
    weights = fitted_weights(rows)
    assert weights.agreement > 5 > abs(weights.log_score)
    (report,) = score_report(rows, weights)
    assert report["confidence"]["auroc"] > 0.95 > 0.65 > report["score"]["auroc"]
    assert report["confidence"]["not_there"] > report["score"]["not_there"]
    assert report["abstain"]["right_kept"] > 0.8 and report["abstain"]["not_there"] > 0.8
    assert report["confidence"]["calibration_error"] < 0.2
    assert sum(share for _, share in judged(rows, "score")["bins"]) / 5 == pytest.approx(0.5)


def test_a_confidence_grows_with_what_it_is_made_of() -> None:
    best = confidence(1.0, "verbatim", 1.0)
    assert best > 0.9
    for worse in ((0.3, "verbatim", 1.0), (1.0, "near", 1.0), (1.0, "absent", 1.0), (1.0, "verbatim", 0.0)):
        assert 0 < confidence(*worse) < best  # type: ignore[arg-type]
    assert confidence(0.31, "verbatim", 1.0) < 0.5 < confidence(0.4, "verbatim", 1.0)  # unsure of its own words
    assert 0 <= confidence(float("nan"), "cut off", 0.0) < 0.01
    assert 0 <= confidence(0.0, "cut off", 0.0, Weights(-900.0, 1.0, 1.0, 1.0)) < 1e-9


def test_the_benchmark_asks_each_question_twice_of_each_grounding(pipe: LongDocQAPipeline) -> None:
    options: dict[str, Any] = {"tasks": ("single_number",), "groundings": ("none", "strings"), "max_new_tokens": 2}
    found = run_score_benchmark(pipe, PROSE, 200, Context("pages", budget_share=2.0), 2, 0, **options)
    assert [(one["example"], one["is_there"], one["grounding"]) for one in found] == [
        (example, there, grounding)
        for example in (0, 1)
        for there in (True, False)
        for grounding in ("none", "strings")
    ]
    assert len(score_report(found)) == 2
