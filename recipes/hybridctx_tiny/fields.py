# SPDX-License-Identifier: Apache-2.0
"""Fields of a document of records, drawn at random and asked for as the README asks: how often the answer is right."""

from __future__ import annotations

import re
from random import Random
from typing import Any

import numpy as np

from transformers_hybridctx.evaluation.answer_scores import auroc
from transformers_hybridctx.evaluation.intervals import interval_95

FIELD = re.compile(r"^(.+?) - (.+?): (.{1,60})$", re.MULTILINE)
"""A line of the World Factbook's: country, label, value."""


def score_fields(pipe: Any, text: str, examples: int, seed: int, **options: Any) -> dict[str, Any]:
    """
    Ask `pipe` for fields that stand once in a document, with its own budget.

    Args:
        pipe: a `LongDocQAPipeline`.
        text: lines `Iceland - Coastline: 4,970 km`, among others.
        examples: how many fields.
        seed: of the draw.
        options: of each call, such as `text_policy` and `grounding`; the checkpoint's own choice if not given.

    Returns:
        `exact_match` (0 to 1; white space and a final stop do not count), its `interval` of 95%, `auroc` of score and
        confidence (None where all are right or none is), and `answers`: field, value, what was said, its score and
        confidence, and whether it was right.
    """
    lines = [line for line in FIELD.finditer(text) if text.count(f"{line[1]} - {line[2]}:") == 1]
    if len(lines) < examples:
        raise ValueError(f"the document has {len(lines)} fields of their own; ask for no more than these")
    reading = pipe.read(text=text)
    answers = []
    for line in Random(f"fields {seed}").sample(lines, examples):
        question = f"What is the {line[2].replace(' - ', ' ')} of {line[1]}?"
        said = pipe(question=question, document=reading, **options)
        is_right = folded_answer(said["answer"]) == folded_answer(line[3])
        answers.append(
            {
                "question": question,
                "value": line[3].strip(),
                "answer": said["answer"],
                "score": said["score"],
                "confidence": said["confidence"],
                "is_right": is_right,
            }
        )
    right = np.array([answer["is_right"] for answer in answers])
    scores = {name: np.array([answer[name] for answer in answers]) for name in ("score", "confidence")}
    return {
        "examples": examples,
        "exact_match": right.mean().item(),
        "interval": interval_95([float(one) for one in right]),
        "auroc": {name: auroc(one[right], one[~right]) for name, one in scores.items()},
        "answers": answers,
    }


def folded_answer(text: str) -> str:
    """Without what does not count: white space, and a final stop."""
    return " ".join(text.split()).removesuffix(".")
