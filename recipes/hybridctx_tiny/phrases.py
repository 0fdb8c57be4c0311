# SPDX-License-Identifier: Apache-2.0
"""Facts in a user's own words, one sentence a document: how often the answer is right."""

from __future__ import annotations

from random import Random
from typing import Any

from transformers_hybridctx.evaluation.intervals import interval_95

from .fields import folded_answer
from .tasks import VALUES
from .wordings import parts_of_lines

PHRASES = parts_of_lines("phrases.txt")
"""A hundred statements of a value and questions for it, none of them among the training's wordings."""


def score_phrases(pipe: Any, seed: int, **options: Any) -> dict[str, Any]:
    """
    Ask `pipe` for the value of each phrase, a sentence being the whole document.

    Args:
        pipe: a `LongDocQAPipeline`.
        seed: of the values.
        options: of each call, such as `text_policy` and `grounding`.

    Returns:
        `exact_match` (0 to 1; white space and a final stop do not count), its `interval` of 95%, and `answers`: text,
        question, value, what was said, and whether it was right.
    """
    rng = Random(f"phrases {seed}")
    answers = []
    for statement, question in PHRASES:
        value = rng.choice(VALUES)(rng)
        text = statement.format(value)
        said = pipe(question=question, text=text, **options)["answer"]
        is_right = folded_answer(said) == value
        answers.append({"text": text, "question": question, "value": value, "answer": said, "is_right": is_right})
    hits = [float(answer["is_right"]) for answer in answers]
    return {"exact_match": sum(hits) / len(hits), "interval": interval_95(hits), "answers": answers}
