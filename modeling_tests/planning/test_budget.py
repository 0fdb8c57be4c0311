# SPDX-License-Identifier: Apache-2.0
"""Budgets: what may be asked for, and what is refused."""

from __future__ import annotations

import json
import math
import pickle
from typing import Any

import numpy as np
import pytest

from transformers_hybridctx.planning.budget import SCALES, ContextBudget, ContextBudgetError


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[
            (name, value)
            for name in ("max_context_tokens", "max_text_tokens")
            for value in (-1, 1.5, True, "9", math.nan)
        ],
        ("max_context_tokens", 10**400),
        *[
            (name, value)
            for name in ("min_scale", "max_scale", "visual_share")
            for value in (-0.5, math.nan, math.inf, 1e6, 10**400, "0.5", True, [1.0], 1 + 2j)
        ],
        ("min_scale", 0),
        ("max_scale", 1e-9),
        ("visual_share", 1.2),
        ("visual_share", 1e-300),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_value_that_makes_no_sense_is_refused_by_its_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name}=.* must be") as caught:
        ContextBudget(**{name: value})
    assert len(str(caught.value)) < 250


def test_a_number_that_is_too_large_is_told_the_largest() -> None:
    with pytest.raises(ValueError, match=rf"max_context_tokens={10**20} .*: 0 to {2**63 - 1}"):
        ContextBudget(max_context_tokens=10**20)


def test_scales_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match=r"min_scale=2.0 is above max_scale=1.0"):
        ContextBudget(min_scale=2.0, max_scale=1.0)


def test_numbers_of_other_libraries_are_numbers() -> None:
    made = ContextBudget(np.int64(9), np.float32(0.5), max_text_tokens=2**63 - 1)  # type: ignore[arg-type]
    assert made == ContextBudget(9, 0.5, max_text_tokens=2**63 - 1)
    assert json.loads(json.dumps(vars(made)))["max_context_tokens"] == 9


def test_a_budget_is_read_from_plain_json_and_unknown_fields_are_named() -> None:
    assert ContextBudget.of({"max_context_tokens": 9}) == ContextBudget(max_context_tokens=9)
    assert ContextBudget.of(None) == ContextBudget()
    with pytest.raises(ValueError, match=r"'max_tokens'.*max_context_tokens"):
        ContextBudget.of({"max_tokens": 9})
    with pytest.raises(TypeError, match="9"):
        ContextBudget.of(9)  # type: ignore[arg-type]


def test_a_request_fills_its_gaps_from_the_default_and_moves_a_default_scale_aside() -> None:
    default = ContextBudget(max_text_tokens=100, min_scale=1.0, max_scale=1.0)
    assert ContextBudget(max_context_tokens=5).filled_from(default) == ContextBudget(
        max_context_tokens=5, max_text_tokens=100, min_scale=1.0, max_scale=1.0
    )
    assert ContextBudget(max_scale=0.6).filled_from(default).scales == (0.6, 0.6)
    assert ContextBudget(min_scale=2.0).filled_from(default).scales == (2.0, 2.0)


def test_candidate_scales_fall_from_the_largest_to_the_smallest_in_hundredths() -> None:
    assert list(ContextBudget(min_scale=0.975, max_scale=1.0).candidate_scales()) == [1.0, 0.99, 0.98, 0.975]
    assert list(ContextBudget(min_scale=1.0, max_scale=1.0).candidate_scales()) == [1.0]


def test_a_budget_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(ContextBudgetError("too small", 7)))
    assert (str(error), error.smallest, error.field) == ("too small", 7, "max_context_tokens")


def test_no_budget_makes_many_scales_of_it() -> None:
    low, high = SCALES
    assert len(ContextBudget(min_scale=low, max_scale=high).candidate_scales()) <= 1600


def test_a_message_never_fails_over_the_value_that_it_names() -> None:
    nested: list[Any] = []
    for _ in range(5000):
        nested = [nested]
    for value in (nested, [10**5000], "a" * 10**6):
        for name in ("max_context_tokens", "visual_share"):
            with pytest.raises(ValueError, match=rf"^{name}=.* must be") as caught:
                ContextBudget(**{name: value})  # type: ignore[arg-type]
            assert len(str(caught.value)) < 250
        with pytest.raises(TypeError, match="budget must be a ContextBudget"):
            ContextBudget.of(value)  # type: ignore[arg-type]
