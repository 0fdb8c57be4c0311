# SPDX-License-Identifier: Apache-2.0
"""HELMET's judged scores (`scripts/eval_gpt4_longqa.py` and `eval_gpt4_summ.py`): its scales and arithmetic.

The rubrics are said in words of our own and without HELMET's long examples: figures are near to HELMET's, not equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..judging import GradeError, judge_json

_FLUENCY = (
    "fluency: 0 if the text is incoherent, repeats itself, is incomplete or gibberish; 1 if it is coherent, fluent and "
    "grammatical. A last sentence that is cut off is no fault."
)
_ANSWER = """Grade an answer to a question about a long text, which you do not see, by the correct answers that are given.

{fluency}
correctness: 0 if it agrees with none of the correct answers; 1 if it agrees with one of them in part; 2 if it agrees with
one fully but also says what has nothing to do with the question; 3 if it agrees with one fully and everything in it is
relevant, however long it is.

Question: {question}
Correct answers: {answers}
Answer: {answer}

Think step by step, then end with JSON such as {{"fluency": 0, "correctness": 1}}."""
_READS = """Grade the fluency of a text.

{fluency}

Text: {text}

End with JSON such as {{"fluency": 1}}."""
_RECALL = """Count which of the key points of a text are in a summary of it. A key point is there if the summary supports
its facts.

Key points:
{points}

Summary: {summary}

Think step by step, point by point, then end with JSON such as {{"recall": 2}}: how many are there."""
_PRECISION = """Count which sentences of a summary are supported by an expert's summary of the same text. A sentence is
supported if its main facts are in the expert's summary, which need not have its details.

Expert's summary: {expert}

Summary: {summary}

Think step by step, sentence by sentence, then end with JSON such as {{"precision": 7, "sentence_count": 20}}: how many
are supported, and how many there are."""


def answer_grade(judge: str, question: str, answers: Sequence[str], answer: str) -> tuple[float, dict[str, Any]]:
    """Fluency (0 or 1) times correctness (0 to 3), of 3; and both."""
    prompt = _ANSWER.format(fluency=_FLUENCY, question=question, answers=list(answers), answer=answer)
    found = judge_json(judge, prompt, ("fluency", "correctness"))
    fluency, correctness = _number(found, "fluency", 1), _number(found, "correctness", 3)
    return fluency * correctness / 3, {"fluency": fluency, "correctness": correctness}


def summary_grade(judge: str, summary: str, points: Sequence[str], expert: str) -> tuple[float, dict[str, Any]]:
    """Fluency times the F1 of key points that are there and of sentences that are supported; and all three."""
    summary = summary.strip()
    listed = "\n".join(f"{number}. {point}" for number, point in enumerate(points, start=1))
    fluent = judge_json(judge, _READS.format(fluency=_FLUENCY, text=summary), ("fluency",))
    recalled = judge_json(judge, _RECALL.format(points=listed, summary=summary), ("recall",))
    precise = judge_json(judge, _PRECISION.format(expert=expert, summary=summary), ("precision", "sentence_count"))
    fluency, sentences = _number(fluent, "fluency", 1), _number(precise, "sentence_count")
    recall = _number(recalled, "recall", len(points)) / len(points) if points else 0.0
    precision = _number(precise, "precision", sentences) / sentences if sentences else 0.0
    f1 = 2 * recall * precision / (recall + precision) if recall + precision else 0.0
    return fluency * f1, {"fluency": fluency, "recall": recall, "precision": precision}


def _number(graded: dict[str, Any], name: str, most: float = float("inf")) -> float:
    """Raises [`GradeError`] for what is no number on the scale."""
    try:
        value = float(graded[name])
    except (TypeError, ValueError) as error:
        raise GradeError(f"the judge gave {name}={graded[name]!r:.80}, which is no number") from error
    if not 0 <= value <= most:
        raise GradeError(f"the judge gave {name}={value:g}, which is not on the scale from 0 to {most:g}")
    return value


__all__ = ["answer_grade", "summary_grade"]
