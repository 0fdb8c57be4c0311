# SPDX-License-Identifier: Apache-2.0
"""QASPER (https://huggingface.co/datasets/allenai/qasper, CC BY 4.0): whole papers, several questions on each."""

from __future__ import annotations

from typing import Any

from ...evaluation.suites.papers import answer_of, paper_of
from ..records import TrainingRecord, TrainingTurn, UnusableRow
from .extractive_qa import ABSENT


def record_of(row: dict[str, Any]) -> TrainingRecord:
    """
    Row: `{"id", "title", "abstract", "full_text": {"section_name": [...], "paragraphs": [[...], ...]}, "qas":
    {"question": [...], "answers": [{"answer": [{"unanswerable", "extractive_spans", "free_form_answer", "yes_no",
    "evidence", "highlighted_evidence"}, ...]}, ...]}}`.

    The answer is the first annotator's; what it says is not in the paper is answered with "not in the document". Evidence
    is the spans of an extractive answer, else the paragraphs named, where the paper has them word for word.
    """
    paper = paper_of(row)
    turns = []
    for question, annotated in zip(row["qas"]["question"], row["qas"]["answers"], strict=True):
        if not annotated["answer"]:
            continue
        first = annotated["answer"][0]
        kind, words = answer_of(first)
        if kind == "none":
            turns.append(TrainingTurn(question, ABSENT))
        else:
            turns.append(TrainingTurn(question, words, _evidence_of(first, paper)))
    if not turns:
        raise UnusableRow("a paper without an answered question")
    return TrainingRecord(paper, tuple(turns), None, row["id"])


def _evidence_of(answer: dict[str, Any], paper: str) -> tuple[tuple[int, int], ...]:
    paragraphs = [text for text in answer["evidence"] if text.strip() and text in paper]
    found = []
    for span in answer["extractive_spans"] or paragraphs:
        # within a paragraph that is named: the same words may stand elsewhere, too
        places = [paper.index(text) + text.index(span) for text in paragraphs if span in text] or [paper.find(span)]
        if places[0] >= 0 and span.strip():
            found.append((places[0], places[0] + len(span)))
    return tuple(sorted(set(found)))


__all__ = ["record_of"]
