# SPDX-License-Identifier: Apache-2.0
"""Rows of HELMET's judged tasks: a story and a question, a book to summarise, the documents of a lawsuit."""

from __future__ import annotations

from ..samples import Sample
from .sources import Row, read_rows

_STORY = (
    "You are given a story, which can be either a novel or a movie script, and a question. Answer the question as "
    "concisely as you can, using a single phrase if possible.\n\nQuestion: {question}"
)
_BOOK = (
    "You are given a book and you are tasked to summarize it. Write a summary of about 1000 to 1200 words. Only write "
    "about the plot and characters of the story. Do not discuss the themes or background of the book. Do not provide any "
    "analysis or commentary.\n\nNow summarize the book."
)
_LAWSUIT = (
    "You are given the legal documents in a civil rights lawsuit, and you are tasked to summarize the case. Write a "
    "concise summary of one paragraph (200 to 250 words). The summary should contain a short description of the "
    "background, the parties involved, and the outcomes of the case.\n\nNow please summarize the case."
)


def judged_samples(data: str, task: str, file: str) -> list[Sample]:
    """The samples of one of the three tasks; `details` has what its judge is shown."""
    if task == "narrativeqa":
        return [_story(row) for row in read_rows(data, file, None, ("document", "question", "answers"))]
    if task == "multi_lexsum":
        columns = ("id", "sources", "summary/long", "summary/short_keypoints")
        return [_lawsuit(row) for row in read_rows(data, file, None, columns)]
    points = {row["id"]: row["keypoints"] for row in read_rows(data, f"{file}_keypoints", None, ("id", "keypoints"))}
    samples = []
    for row in read_rows(data, file, None, ("id", "context", "answer")):
        if row["id"] not in points:
            raise ValueError(f"{data}/{file}_keypoints has no key points for id {row['id']!r}")
        answer = row["answer"] if isinstance(row["answer"], str) else row["answer"][0]
        details = {"keypoints": points[row["id"]]}
        samples.append(Sample(row["context"], _BOOK, "\n\nSummary:", (answer,), task, 1200, details=details))
    return samples


def _story(row: Row) -> Sample:
    asked = row["question"]["text"]
    answers = tuple(one["text"] for one in row["answers"])
    question, details = _STORY.format(question=asked), {"question": asked}
    return Sample(row["document"]["text"], question, "\nAnswer:", answers, "narrativeqa", 100, details=details)


def _lawsuit(row: Row) -> Sample:
    details = {"keypoints": row["summary/short_keypoints"]}
    context, expert = "\n\n".join(row["sources"]), (row["summary/long"],)
    return Sample(context, _LAWSUIT, "\n\nSummary:", expert, "multi_lexsum", 400, details=details)


__all__ = ["judged_samples"]
