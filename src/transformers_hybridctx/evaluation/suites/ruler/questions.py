# SPDX-License-Identifier: Apache-2.0
"""RULER's questions on passages: SQuAD and HotpotQA, from the files that RULER downloads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from ...token_counts import TokenCounter
from .draws import Drawn, Form, drawn_to_fit, fitting_size

_INSTRUCTION = (
    "Answer the question based on the given documents. Only give me the answer and do not output any other words."
)
FORM = Form(
    f"{_INSTRUCTION}\n\nThe following are given documents.\n\n{{context}}\n\n{_INSTRUCTION}\n\nQuestion: {{query}}",
    " Answer:",
    "Answer the question based on the given documents",
    32,
)
_STEP = 10
FILES = {"qa_1": "squad.json", "qa_2": "hotpotqa.json"}


@dataclass(frozen=True)
class _Question:
    query: str
    answers: list[str]
    passages: list[int]
    more: list[int]


def draw_questions(task: str, rng: Random, seed: int, count: TokenCounter, length: int, folder: Path) -> Drawn:
    """As many prompts as there are questions: the passages that answer one, among others.

    Raises:
        ValueError, OSError: no such file, or not one of SQuAD 2.0's or HotpotQA's (distractor) form.
    """
    file = folder / FILES[task]
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        questions, passages = _squad(data) if task == "qa_1" else _hotpot(data)
    except (KeyError, TypeError, IndexError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{file} is not in the published form of {file.stem} ({type(error).__name__}: {error})"
        ) from error

    def prompt(question: _Question, size: int) -> tuple[str, list[str]]:
        if size >= len(passages):
            chosen = (passages * (-(-size // len(passages))))[:size]
        else:
            room = size - len(question.passages)
            if room > len(question.more):
                near = question.passages + question.more
                others = [index for index in range(len(passages)) if index not in set(near)]
                indices = near + rng.sample(others, max(0, size - len(near)))
            else:
                indices = question.passages + rng.sample(question.more, max(0, room))
            chosen = [passages[index] for index in indices]
        Random(seed).shuffle(chosen)
        context = "\n\n".join(f"Document {number}:\n{passage}" for number, passage in enumerate(chosen, start=1))
        return FORM.whole.format(context=context, query=question.query), question.answers

    size = fitting_size(lambda one: prompt(questions[0], one)[0], count, length, FORM.max_new_tokens, _STEP)
    for question in questions:
        yield drawn_to_fit(lambda one, q=question: prompt(q, one), count, length, FORM.max_new_tokens, size, _STEP)  # type: ignore[misc]


def _squad(data: Any) -> tuple[list[_Question], list[str]]:
    passages = sorted({part["context"] for article in data["data"] for part in article["paragraphs"]})
    places = {passage: index for index, passage in enumerate(passages)}
    questions = []
    for article in data["data"]:
        all_of_it = [places[part["context"]] for part in article["paragraphs"]]
        for part in article["paragraphs"]:
            own = places[part["context"]]
            for one in part["qas"]:
                if not one["is_impossible"]:
                    answers = [answer["text"] for answer in one["answers"]]
                    more = [index for index in all_of_it if index != own]
                    questions.append(_Question(one["question"], answers, [own], more))
    return questions, passages


def _hotpot(data: Any) -> tuple[list[_Question], list[str]]:
    def texts(row: Any) -> list[str]:
        return [f"{title}\n{''.join(sentences)}" for title, sentences in row["context"]]

    passages = sorted({text for row in data for text in texts(row)})
    places = {passage: index for index, passage in enumerate(passages)}
    return [
        _Question(row["question"], [row["answer"]], [places[text] for text in texts(row)], []) for row in data
    ], passages


__all__ = ["FILES", "FORM", "draw_questions"]
