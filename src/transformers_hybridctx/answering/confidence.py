# SPDX-License-Identifier: Apache-2.0
"""How likely an answer is right: from how sure the model was, how it stands to the document, and whether that is where
the question is about.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # numpy comes with it, and the command line starts without
    from ..grounding.support import Status

ABSTAIN_BELOW = 0.5
"""`abstain=True` withholds answers that are less likely right than wrong."""
_SUPPORT: dict[Status, float] = {"verbatim": 1.0, "near": 0.5, "absent": 0.0, "cut off": 0.0}
_LEAST = 1e-6


class Weights(NamedTuple):
    """Of a logistic function."""

    bias: float
    log_score: float
    support: float
    agreement: float


WEIGHTS = Weights(-4.52, 3.2, 2.35, 5.73)
"""Of `benchmarks/answer_scores.py` with the bundled checkpoint, on needles that are in the document or are not; but for
the score's, which was 1.55 there. No needle's answer stands beside what is asked and is wrong all the same, as the first
words of a value are ("1" of "1 June 2024"): four such fields of the demo document, with scores of 0.19 to 0.31, looked
right. Answers of one value that are right have scores above 0.6."""


def features(score: float, status: Status, agreement: float) -> tuple[float, float, float]:
    """What the weights beside the bias are of."""
    return math.log(max(score, _LEAST)) if score == score else math.log(_LEAST), _SUPPORT[status], agreement


def confidence(score: float, status: Status, agreement: float, weights: Weights = WEIGHTS) -> float:
    """
    The chance that an answer is right, 0 to 1, as far as these tell.

    Args:
        score: the geometric mean of its tokens' probabilities, without any constraint.
        status: how it stands to the document.
        agreement: see [`SupportChecker.agreement`].
    """
    logit = weights.bias + sum(
        weight * value for weight, value in zip(weights[1:], features(score, status, agreement), strict=True)
    )
    return 1 / (1 + math.exp(min(-logit, 700)))  # beyond that, exp overflows


__all__ = ["ABSTAIN_BELOW", "WEIGHTS", "Weights", "confidence", "features"]
