# SPDX-License-Identifier: Apache-2.0
"""MMLongBench-Doc's scores (mayubo2333/MMLongBench-Doc, `eval/eval_score.py`), by the format of the answer.

Its quirks are kept: endings such as "million" stay (they are taken off a copy), a number 100 times too large or too small
is right, lists are compared in order of their strings.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from math import isclose
from typing import Any

from rapidfuzz.distance import Levenshtein

NOT_ANSWERABLE = "Not answerable"
_LEAST_LIKENESS = 0.5
_EXACT = re.compile(
    r"\d+(-\d+|\s\d+)?|\d{4}[-\s]\d{2}[-\s]\d{2}|\d{4}[-\s]\d{2}|[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+\.[a-zA-Z]{2,}"
)


def mmlongbench_score(answer: str, prediction: str, answer_format: str) -> float:
    """0 to 1, for an answer in the format "Int", "Float", "Str", "None" or "List"."""
    if answer_format == "Int":
        try:
            return float(int(answer) == int(float(prediction)))
        except (ValueError, OverflowError):
            return 0.0
    if answer_format == "Float":
        try:
            return float(_is_close(float(_clean(answer)), float(_clean(prediction))))
        except ValueError:
            return 0.0
    if answer_format in ("Str", "None"):
        return _likeness(_clean(answer), _clean(prediction))
    wanted, said = (sorted(_clean(one) for one in _as_list(text)) for text in (answer, prediction))
    if len(wanted) != len(said):
        return 0.0
    if not wanted:
        return 1.0
    if _is_number(wanted[0]) or _is_exact(wanted[0]):
        return float("-".join(wanted) == "-".join(said))
    return min(_anls(one, other) for one, other in zip(wanted, said, strict=True))


def accuracy_and_f1(graded: Sequence[tuple[float, str, str]]) -> tuple[float, float]:
    """
    Of (score, answer, prediction): the mean, and the F1 in which answers to what cannot be answered cost precision.

    Questions without an answer count for accuracy; for recall and precision only the others score.
    """
    if not graded:
        return 0.0, 0.0
    total = sum(score for score, answer, _ in graded if answer != NOT_ANSWERABLE)
    there = sum(answer != NOT_ANSWERABLE for _, answer, _ in graded)
    answered = sum(prediction != NOT_ANSWERABLE for _, _, prediction in graded)
    recall, precision = (total / count if count else 0.0 for count in (there, answered))
    f1 = 2 * recall * precision / (recall + precision) if recall + precision else 0.0
    return sum(score for score, _, _ in graded) / len(graded), f1


def _clean(text: Any) -> str:
    text = re.sub(r"\s*\([^)]*\)", "", str(text).lower().strip()).strip()
    text = re.sub(r"^['\"]|['\"]$", "", text).strip()
    return text.lstrip("$").strip().rstrip("%").strip()


def _is_exact(text: str) -> bool:
    """Addresses, files, pages, telephone numbers, times and dates: like is not enough."""
    parts = ("https://", "a.m.", "p.m.")
    return (
        any(part in text for part in parts)
        or text.endswith((".py", "ipynb"))
        or text.startswith("page")
        or _EXACT.fullmatch(text) is not None
    )


def _likeness(answer: str, prediction: str) -> float:
    return float(answer == prediction) if _is_exact(answer) else _anls(answer, prediction)


def _anls(answer: str, prediction: str) -> float:
    likeness = float(Levenshtein.normalized_similarity(answer, prediction))
    return likeness if likeness > _LEAST_LIKENESS else 0.0


def _is_close(answer: float, prediction: float) -> bool:
    for value in (answer / 100, answer, answer * 100):
        digits = max(min(_digits(prediction), _digits(value)), 2)
        if isclose(value, prediction, rel_tol=0.01) or round(prediction, digits) == round(value, digits):
            return True
    return False


def _digits(value: float) -> int:
    return len(str(value).split(".")[-1]) if "." in str(value) else 3


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _as_list(text: str) -> list[Any]:
    if text.startswith("["):
        try:
            found = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return [text]
        return list(found) if isinstance(found, (list, tuple)) else [found]
    return [text]


__all__ = ["NOT_ANSWERABLE", "accuracy_and_f1", "mmlongbench_score"]
