# SPDX-License-Identifier: Apache-2.0
"""Answers as plain JSON, for files and for the wire. Pages count from 1 there, as they do for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..documents.page_numbers import source_page
from ..planning.sentences import RUN

if TYPE_CHECKING:
    from .results import LongDocAnswer  # which imports torch


def answer_as_json(question: str, answer: LongDocAnswer, pictures: Sequence[Path] = ()) -> dict[str, Any]:
    """Plain JSON of an answer: `page` counts from 1, `start` and `end` are characters of the document from 0.

    `page_in_file` is the page of the file that the text came from, None where it has none.
    """
    plan = answer["plan"]
    summary: dict[str, Any] = {
        "policy": plan.policy,
        "scale": plan.scale,
        "pages": plan.num_pages,
        "document_characters": plan.document_characters,
        "omitted_characters": plan.omitted_characters,
    }
    if plan.looked_at:
        summary["looked_at"] = [{"start": start, "end": end} for start, end in plan.looked_at]
    passages = [
        {
            "page": span.page + 1,
            "page_in_file": _source_page(plan.document.text, span.start),
            "start": span.start,
            "end": span.end,
            "tokens": span.tokens,
            "text": span.text,
            "shared_words": shared_words(question, span.text),
        }
        for span in plan.spans
    ]
    return {
        "question": question,
        **{name: answer[name] for name in ("answer", "checked", "support", "reasoning", "finish_reason")},
        **{name: answer[name] for name in ("confidence", "score")},
        "quotations": answer["quotations"],
        "evidence": [
            {**item, "page": item["page"] + 1, "page_in_file": _source_page(plan.document.text, item["start"])}
            for item in answer["evidence"]
        ],
        "passages": passages,
        "usage": answer["usage"],
        "plan": summary,
        "pictures": [str(path) for path in pictures],
    }


def shared_words(question: str, text: str) -> list[str]:
    """The question's words of some length that stand in a text, in the question's order."""
    there = {word.lower() for word in RUN.findall(text)}
    asked = dict.fromkeys(word.lower() for word in RUN.findall(question))
    return [word for word in asked if word in there and (len(word) > 3 or not word.isascii() or word.isdigit())]


def _source_page(text: str, position: int) -> dict[str, Any] | None:
    """The file's own page: its place from 1, and the number that is printed for it. None where it has no pages."""
    page = source_page(text, position)
    return None if page is None else page._asdict()


__all__ = ["answer_as_json", "shared_words"]
