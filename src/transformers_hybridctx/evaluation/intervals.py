# SPDX-License-Identifier: Apache-2.0
"""How far a mean of few samples can be trusted, and whether two runs on the same samples differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
_Z = 1.959963984540054  # of 95%


def interval_95(scores: Sequence[float]) -> tuple[float, float]:
    """
    A 95% interval of the mean of scores in 0 to 1.

    Where each is 0 or 1 it is Wilson's (https://doi.org/10.1080/01621459.1927.10502953), which is right for few
    samples, too; otherwise the percentiles of resampled means, by a fixed seed.

    Raises:
        ValueError: no score.
    """
    if not scores:
        raise ValueError("there is no interval of no scores")
    n = len(scores)
    mean = sum(scores) / n
    if set(scores) <= {0.0, 1.0}:
        middle = (mean + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        half = _Z * math.sqrt(mean * (1 - mean) / n + _Z**2 / (4 * n**2)) / (1 + _Z**2 / n)
        return max(0.0, middle - half), min(1.0, middle + half)
    low, high = np.percentile(_resampled_means(np.asarray(scores, dtype=float)), [2.5, 97.5])
    return float(low), float(high)


@dataclass(frozen=True)
class PairedDifference:
    """
    B minus A on the same samples.

    Attributes:
        n: samples that both have.
        mean_a, mean_b: of these.
        low, high: a 95% interval of the difference, by resampling pairs.
        p_value: of a sign-flip permutation test, two-sided: how often chance alone would give such a difference.
        better, worse: samples on which B is above and below A.
    """

    n: int
    mean_a: float
    mean_b: float
    low: float
    high: float
    p_value: float
    better: int
    worse: int

    @property
    def difference(self) -> float:
        return self.mean_b - self.mean_a


def paired_difference(a: Sequence[float], b: Sequence[float]) -> PairedDifference:
    """
    Compare two runs sample by sample.

    Raises:
        ValueError: sequences of different lengths, or of none.
    """
    if len(a) != len(b) or not a:
        raise ValueError(f"a paired test needs the same samples of both, not {len(a)} and {len(b)}")
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    gaps = second - first
    low, high = np.percentile(_resampled_means(gaps), [2.5, 97.5])
    differing = gaps[gaps != 0]
    signs = np.random.default_rng(0).choice((-1.0, 1.0), (RESAMPLES, differing.size))
    extreme = np.abs(signs @ differing) >= abs(differing.sum()) - 1e-9
    p_value = float((extreme.sum() + 1) / (RESAMPLES + 1)) if differing.size else 1.0
    return PairedDifference(
        len(a),
        float(first.mean()),
        float(second.mean()),
        float(low),
        float(high),
        p_value,
        int((gaps > 0).sum()),
        int((gaps < 0).sum()),
    )


def _resampled_means(values: np.ndarray) -> np.ndarray:
    """Float64 [RESAMPLES], a thousand at a time."""
    rng = np.random.default_rng(0)
    blocks = [values[rng.integers(len(values), size=(1000, len(values)))].mean(1) for _ in range(RESAMPLES // 1000)]
    return np.concatenate(blocks)


__all__ = ["PairedDifference", "interval_95", "paired_difference"]
