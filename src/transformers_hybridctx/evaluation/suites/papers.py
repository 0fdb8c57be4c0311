# SPDX-License-Identifier: Apache-2.0
"""QASPER (`allenai/qasper`, CC BY 4.0): questions about whole papers, several on each, so that a paper is read once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..metrics.longbench import normalize_answer, token_f1
from ..samples import Sample
from .base import Suite
from .sources import Row, read_rows

_QUESTION = (
    "Answer the question about the paper as concisely as you can, using a single phrase or sentence if possible. If the "
    'question cannot be answered from the paper, write "Unanswerable". Answer a yes/no question by "Yes" or "No".\n\n'
    "Question: {question}"
)
_TASKS = {"extractive": "extractive", "free_form": "abstractive", "yes_no": "boolean", "unanswerable": "none"}


@dataclass(frozen=True)
class Qasper(Suite):
    """
    QASPER's questions with their papers; F1 of answers, the best over the annotators, as its evaluator has it.

    Attributes:
        data: a folder with rows of title, abstract, full_text (section_name, paragraphs) and qas (question,
            answers), or a Hub id.
        revision: the Hub's.
    """

    name: ClassVar[str] = "qasper"
    metric: ClassVar[str] = "answer F1"
    task_names: ClassVar[tuple[str, ...]] = tuple(_TASKS.values())

    data: str = "allenai/qasper"
    revision: str | None = "refs/convert/parquet"

    def samples(self, tokenizer: Any) -> list[Sample]:
        columns = ("title", "abstract", "full_text", "qas")
        rows = read_rows(self.data, "", self.revision, columns, split="test")
        return self._first([sample for row in rows for sample in _samples_of(row)])

    def score(self, sample: Sample, answer: str) -> float:
        said = normalize_answer(answer).split()
        return max(token_f1(said, normalize_answer(one).split()) for one in sample.answer)


def paper_of(row: Row) -> str:
    """The text of a row's paper: title, abstract, sections."""
    sections = zip(row["full_text"]["section_name"], row["full_text"]["paragraphs"], strict=True)
    parts = [row["title"], row["abstract"], *("\n".join([name or "", *texts]) for name, texts in sections)]
    return "\n\n".join(part for part in parts if part)


def _samples_of(row: Row) -> list[Sample]:
    paper = paper_of(row)
    samples = []
    for question, annotated in zip(row["qas"]["question"], row["qas"]["answers"], strict=True):
        read = [answer_of(one) for one in annotated["answer"]]
        samples.append(
            Sample(paper, _QUESTION.format(question=question), "", tuple(text for _, text in read), read[0][0], 128)
        )
    return samples


def answer_of(answer: Row) -> tuple[str, str]:
    """An annotator's kind of answer, and the answer in words."""
    if answer["unanswerable"]:
        return "none", "Unanswerable"
    if answer["extractive_spans"]:
        return "extractive", ", ".join(answer["extractive_spans"])
    if answer["free_form_answer"]:
        return "abstractive", answer["free_form_answer"]
    return "boolean", "Yes" if answer["yes_no"] else "No"


__all__ = ["Qasper", "answer_of", "paper_of"]
