# SPDX-License-Identifier: Apache-2.0
"""Intervals and paired tests against figures worked out elsewhere."""

from __future__ import annotations

import pytest

from transformers_hybridctx.evaluation.intervals import interval_95, paired_difference


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(0, 20, 0.0, 0.1611), (20, 20, 0.8389, 1.0), (9, 10, 0.5958, 0.9821), (50, 100, 0.4038, 0.5962)],
)
def test_shares_have_wilsons_interval(hits: int, n: int, low: float, high: float) -> None:
    assert interval_95([1.0] * hits + [0.0] * (n - hits)) == pytest.approx((low, high), abs=1e-4)


def test_other_scores_have_the_percentiles_of_resampled_means() -> None:
    low, high = interval_95([0.1, 0.5, 0.5, 0.9] * 25)
    assert 0.43 < low < 0.5 < high < 0.57
    assert interval_95([0.5] * 4) == (0.5, 0.5)
    assert interval_95([0.1, 0.5]) == interval_95([0.1, 0.5])
    with pytest.raises(ValueError, match="no scores"):
        interval_95([])


def test_a_difference_is_tested_pair_by_pair() -> None:
    same = paired_difference([1.0, 0.0, 0.5], [1.0, 0.0, 0.5])
    assert (same.difference, same.p_value, same.better, same.worse) == (0.0, 1.0, 0, 0)
    up = paired_difference([0.0] * 12 + [1.0] * 8, [1.0] * 20)
    assert up.difference == pytest.approx(0.6) and up.better == 12 and up.worse == 0
    assert up.p_value < 0.002 and 0.35 < up.low < 0.6 < up.high < 0.85
    mixed = paired_difference([0.0, 1.0] * 10, [1.0, 0.0] * 10)
    assert mixed.difference == 0 and mixed.p_value > 0.5
    with pytest.raises(ValueError, match="not 1 and 2"):
        paired_difference([0.0], [0.0, 1.0])
