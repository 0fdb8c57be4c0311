# SPDX-License-Identifier: Apache-2.0
"""Whether a score tells right answers from wrong ones: needles that are in the document, and needles that are not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from ..answering.confidence import ABSTAIN_BELOW, WEIGHTS, Weights, confidence, features
from .contexts import Context
from .needles import NeedleExample, Task, documents_of, make_example

KEPT = 0.95
"""Share of the right answers that abstaining must keep."""
_NEEDLE = re.compile(r"One of the special magic \w+ for \S+ is: [\w-]+\. ")


def without_its_needles(example: NeedleExample) -> NeedleExample:
    """The same question about the same document without the sentences that answer it; other needles stay."""
    document = example.document
    for start, _ in reversed(example.answer_spans):
        (needle,) = (one for one in _NEEDLE.finditer(document) if one.start() < start < one.end())
        document = document[: needle.start()] + document[needle.end() :]
    return replace(example, document=document, answers=(), answer_spans=())


def run_score_benchmark(
    pipe: Any,
    haystack: str,
    num_tokens: int,
    context: Context,
    examples: int,
    seed: int,
    tasks: Sequence[Task] = ("single_number", "single_uuid", "multikey"),
    groundings: Sequence[str] = ("none", "quote"),
    **generation: Any,
) -> list[dict[str, Any]]:
    """
    Questions whose needle is in the document, and the same ones about the document without it.

    Args:
        pipe: a `LongDocQAPipeline`.
        haystack: prose that the model was not trained on; keys are held out as well.
        num_tokens: length of the documents, in tokens of the model's own tokenizer.
        context: what a prompt is made of.
        examples: documents for each task.
        seed: of the documents, keys and values.
        groundings: how answers are held to the document; each question is asked once for each.
        generation: parameters such as `num_beams`.

    Returns:
        What each answer came to, in order: its `grounding`, `task` and `example`, `is_there`, `is_right`, and what
        [`confidence`] is made of: `score`, `status`, `agreement`.
    """
    draw = documents_of(pipe.processor.encoder.count, haystack, num_tokens)
    options = {**context.options(num_tokens), **generation}
    found = []
    for number in logging.tqdm(range(examples), desc="scores"):
        for task in tasks:
            rng = Random(f"{seed} {num_tokens} {task} {number}")
            example = make_example(rng, draw(rng), task, held_out=True)
            for asked in (example, without_its_needles(example)):
                document = pipe.lay_out(text=asked.document)
                for grounding in groundings:
                    held = {**options, "grounding": grounding}
                    answer = pipe(question=asked.question, document=document, **held)
                    found.append(
                        {
                            "grounding": grounding,
                            "task": task,
                            "example": number,
                            "is_there": bool(asked.answers),
                            "is_right": bool(asked.answers) and asked.is_exact(answer["answer"]),
                            "score": answer["score"],
                            "status": answer["support"]["status"],
                            "agreement": answer["support"]["agreement"],
                        }
                    )
    return found


def score_report(
    answers: Sequence[dict[str, Any]], weights: Weights = WEIGHTS, least: float = ABSTAIN_BELOW
) -> list[dict[str, Any]]:
    """
    How well `score`, and `confidence` by these weights, tell right answers from others.

    Returns:
        A row for each grounding: `right`, the share of right answers where the needle is there; for each score what
        [`judged`] tells; `abstain`, what withholding answers does whose confidence is below `least` or that nothing
        supports: the share of right answers that it keeps, and of questions about what is not there that it leaves.
    """
    rows = []
    for grounding in dict.fromkeys(one["grounding"] for one in answers):
        sure = [
            {**one, "confidence": confidence(one["score"], one["status"], one["agreement"], weights)}
            for one in answers
            if one["grounding"] == grounding
        ]
        withheld = [one["confidence"] < least or one["status"] in ("absent", "cut off") for one in sure]
        kept = [not held for one, held in zip(sure, withheld, strict=True) if one["is_right"]]
        left = [held for one, held in zip(sure, withheld, strict=True) if not one["is_there"]]
        rows.append(
            {
                "grounding": grounding,
                "answers": len(sure),
                "right": _mean([one["is_right"] for one in sure if one["is_there"]]),
                **{name: judged(sure, name) for name in ("score", "confidence")},
                "abstain": {"right_kept": _mean(kept), "not_there": _mean(left)},
            }
        )
    return rows


def judged(rows: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    """
    How a score of answers tells right ones from others.

    Returns:
        `auroc`; `not_there`: the share of answers about what is not in the document that fall below the threshold that
        keeps 95% of the right ones, chosen on the other half of the answers each; `threshold`, chosen on all; `bins`,
        each a fifth of the answers: mean score and share of right ones; `calibration_error`: their mean difference.
    """
    scores = np.array([row[name] for row in rows])
    right = np.array([row["is_right"] for row in rows])
    absent = np.array([not row["is_there"] for row in rows])
    halves = np.arange(len(rows)) // 2 % 2  # a question and the same without its needle stay together
    below = []
    for half in (0, 1):
        other = (halves != half) & right
        if other.any():
            below += (scores[(halves == half) & absent] < threshold_that_keeps(scores[other])).tolist()
    order = np.array_split(np.argsort(scores, kind="stable"), 5)
    bins = [[float(scores[one].mean()), float(right[one].mean())] for one in order if len(one)]
    return {
        "auroc": auroc(scores[right], scores[~right]),
        "not_there": _mean(below),
        "threshold": threshold_that_keeps(scores[right]) if right.any() else None,
        "bins": bins,
        "calibration_error": float(np.mean([abs(mean - share) for mean, share in bins])),
    }


def threshold_that_keeps(right: np.ndarray) -> float:
    """The highest score at or above which 95% of the right answers are."""
    return float(np.sort(right)[int(np.floor((1 - KEPT) * len(right)))])


def auroc(right: np.ndarray, wrong: np.ndarray) -> float | None:
    """The chance that a right answer has a higher score than a wrong one, ties counting half (Mann and Whitney's U)."""
    if not len(right) or not len(wrong):
        return None
    pairs = np.sign(right[:, None] - wrong[None, :])
    return float((pairs.mean() + 1) / 2)


def fitted_weights(answers: Sequence[dict[str, Any]], ridge: float = 1e-3) -> Weights:
    """The weights of [`confidence`] by logistic regression: under which what is right and wrong here is likeliest."""
    inputs = torch.tensor(
        [features(one["score"], one["status"], one["agreement"]) for one in answers], dtype=torch.float64
    )
    right = torch.tensor([float(one["is_right"]) for one in answers], dtype=torch.float64)
    weights = torch.zeros(inputs.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logits = inputs @ weights[1:] + weights[0]
        value = torch.nn.functional.binary_cross_entropy_with_logits(logits, right) + ridge * (weights[1:] ** 2).sum()
        value.backward()
        return value

    optimizer.step(loss)
    return Weights(*(round(weight, 2) for weight in weights.tolist()))


def _mean(values: Sequence[Any]) -> float | None:
    return float(np.mean(values)) if len(values) else None


__all__ = [
    "auroc",
    "fitted_weights",
    "judged",
    "run_score_benchmark",
    "score_report",
    "threshold_that_keeps",
    "without_its_needles",
]
