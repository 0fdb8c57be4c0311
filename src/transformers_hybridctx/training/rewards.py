# SPDX-License-Identifier: Apache-2.0
"""Rewards from exact evidence, as TRL's `GRPOTrainer` takes them in `reward_funcs=`.

Each takes completions, as texts or as messages, and the columns of the data set that it needs, a list each; what
FocusVTC (arXiv 2609.36651) has a second model place, the renderer and the data set know.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from ..grounding.evidence import split_reasoning
from ..grounding.folding import fold
from .records import TrainingRecord

REWARDS = ("answer", "quote", "place")
"""Names of the rewards in a config."""

_WORD = re.compile(r"\w+")
_PLACE = re.compile(r"Page (\d+) \[(\d+), (\d+), (\d+), (\d+)\]")
_BOX_UNITS = 1000
Box = tuple[int, float, float, float, float]
"""A page, from 1, and (left, top, right, bottom) in thousandths of it."""


def answer_reward(completions: Sequence[Any], answer: Sequence[str], **_: Any) -> list[float]:
    """F1 of the answer's words, SQuAD's way without its articles: 1 where they are the same, 0 where none is shared."""
    return [_f1(split_reasoning(_text_of(said))[1], right) for said, right in zip(completions, answer, strict=True)]


def quote_reward(completions: Sequence[Any], context: Sequence[str], **_: Any) -> list[float]:
    """
    The part of what was quoted before the answer, in characters, that the document has word for word, its white space and
    forms of letters aside; 0 where nothing is quoted.
    """
    return [_quoted(split_reasoning(_text_of(said))[0], text) for said, text in zip(completions, context, strict=True)]


def place_reward(completions: Sequence[Any], boxes: Sequence[Sequence[Sequence[float]]], **_: Any) -> list[float]:
    """
    How far the places named, `Page 2 [x1, y1, x2, y2]`, and those of the evidence cover one another: area of what both
    have over area of what either has.

    Args:
        boxes: for each completion, the evidence's, as [`evidence_boxes`] has them.
    """
    found = zip(completions, boxes, strict=True)
    return [_overlap(list(_named(_text_of(said))), [_box_of(box) for box in right]) for said, right in found]


def evidence_boxes(record: TrainingRecord, document: Any) -> list[Box]:
    """Where all evidence of a record stands on its pages, a box a line: a column for [`place_reward`].

    Args:
        document: the record's context, typeset as the model is shown it: `processor.read_document(record.context)`.
    """
    found = []
    for start, end in (span for turn in record.turns for span in turn.evidence):
        for page, (left, top, right, bottom) in document.boxes(start, end):
            height, width = document.page_size(page)
            sides = (left / width, top / height, right / width, bottom / height)
            found.append((page + 1, *(_BOX_UNITS * side for side in sides)))
    return found


def _text_of(completion: Any) -> str:
    if isinstance(completion, str):
        return completion
    return "".join(str(message["content"]) for message in completion)


def _f1(said: str, right: str) -> float:
    ours, theirs = (Counter(_WORD.findall(fold(text).text.lower())) for text in (said, right))
    shared = (ours & theirs).total()
    return 2 * shared / (ours.total() + theirs.total()) if shared else 0.0


def _quoted(quotation: str, context: str) -> float:
    lines = [line for line in (fold(one).text.strip() for one in quotation.splitlines()) if line]
    document = fold(context).text
    total = sum(map(len, lines))
    return sum(len(line) for line in lines if line in document) / total if total else 0.0


def _named(text: str) -> Iterator[Box]:
    for match in _PLACE.finditer(text):
        page, left, top, right, bottom = map(int, match.groups())
        if left < right <= _BOX_UNITS and top < bottom <= _BOX_UNITS:
            yield page, left, top, right, bottom


def _box_of(box: Sequence[float]) -> Box:
    page, left, top, right, bottom = box
    return int(page), left, top, right, bottom


def _overlap(ours: Sequence[Box], theirs: Sequence[Box]) -> float:
    """Of unions of boxes, page by page, on the grid that their sides make."""
    both = either = 0.0
    for page in {box[0] for box in (*ours, *theirs)}:
        mine, right = ([box[1:] for box in boxes if box[0] == page] for boxes in (ours, theirs))
        columns = sorted({side for box in (*mine, *right) for side in (box[0], box[2])})
        rows = sorted({side for box in (*mine, *right) for side in (box[1], box[3])})
        for x1, x2 in pairwise(columns):
            for y1, y2 in pairwise(rows):
                inside = [any(_covers(box, x1, y1, x2, y2) for box in boxes) for boxes in (mine, right)]
                both += (x2 - x1) * (y2 - y1) * all(inside)
                either += (x2 - x1) * (y2 - y1) * any(inside)
    return both / either if either else 0.0


def _covers(box: Sequence[float], left: float, top: float, right: float, bottom: float) -> bool:
    return box[0] <= left and right <= box[2] and box[1] <= top and bottom <= box[3]


__all__ = ["REWARDS", "answer_reward", "evidence_boxes", "place_reward", "quote_reward"]
