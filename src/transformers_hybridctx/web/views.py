# SPDX-License-Identifier: Apache-2.0
"""What the page is given, in plain JSON: documents, costs and answers, in the words of the command line."""

from __future__ import annotations

import re
from typing import Any

from ..answering.json_answers import answer_as_json
from ..answering.results import LongDocAnswer
from ..cli.answers import in_context, in_the_file, is_doubtful, standing_rows, whole_spans, why_no_evidence
from ..cli.console import rows_of
from ..cli.why import styled_pieces
from ..planning.budget import ContextBudgetError
from ..planning.plan import ContextPlan
from .asking import Question
from .pages import place_on_picture
from .sessions import OpenDocument

_IN_WORDS = {
    "max_context_tokens": "the budget",
    "min_scale": "the smallest scale of the pages",
    "max_scale": "the largest scale of the pages",
    "visual_share": "the pages' share of the budget",
    "max_text_tokens": "the bound on copied text",
    "text_policy": "what is copied",
    "password": "its password",
    "encoding": "its encoding",
    "ocr": "its scans' languages",
    "pages": "its pages",
}
_PHRASES = (  # of parameters that the page has under another name, or none for
    (re.compile(r" \(min_scale=[\d.]+(?:, visual_share=[\d.]+)?\)"), ""),
    (re.compile(r"visual_share=0 does without pages"), "“copied text only” does without pages"),
    (re.compile(r"raise visual_share"), "show the pages, too"),
    (re.compile(r"visual_share=0"), "“copied text only”"),
    (re.compile(r" \((?:password|ocr)=\)"), ""),
    (re.compile(r"\bencoding=(?= )"), "the encoding under “How files are read”"),
)
_LONGER = "start `hybridctx web` with more of --max-new-tokens or --max-seconds"
_RECOGNITION = "under “How files are read”"
_BEGINS_WITH_A_WORD = re.compile(r"[a-z]+[ ,:]")
_OPTION = re.compile(rf"\b({'|'.join(_IN_WORDS)})=([^\s,()]*[^\s,:;()])")
_MENTIONED = re.compile(rf"\b({'|'.join(name for name in _IN_WORDS if '_' in name)})\b")  # the others are words, too


def in_words(message: str) -> str:
    """An error of the library as a sentence for somebody who sees no parameter: `max_context_tokens=3` is the budget."""
    for parameters, words in _PHRASES:
        message = parameters.sub(words, message)
    message = _OPTION.sub(lambda match: f"{_IN_WORDS[match[1]]} ({match[2]})", message)
    message = _MENTIONED.sub(lambda match: _IN_WORDS[match[1]], message)
    if _BEGINS_WITH_A_WORD.match(message):  # and not with a file's name
        message = message[0].upper() + message[1:]
    return message if message.endswith((".", "!", "?")) else message + "."


def document_view(document: OpenDocument) -> dict[str, Any]:
    laid_out = document.laid_out
    return {
        "id": document.id,
        "name": document.name,
        "characters": len(laid_out.text),
        "tokens": document.num_tokens,
        "pages": laid_out.num_pages,
        "notes": [in_words(note) for note in document.notes],
        "shared": document.is_shared,
    }


def cost_view(name: str, found: ContextPlan | ValueError) -> dict[str, Any]:
    """
    What a policy would cost, or why it cannot be met and, where that helps, the smallest budget that can.

    `is_open`: what it copies comes on top, and is not known yet.
    """
    if isinstance(found, ContextBudgetError):
        smallest = found.smallest if found.field == "max_context_tokens" else None
        told = f"It needs a budget of {smallest:,} tokens." if smallest else in_words(str(found))
        return {"policy": name, "error": told, "smallest": smallest}
    if isinstance(found, ValueError):
        return {"policy": name, "error": in_words(str(found)), "smallest": None}
    return {
        "policy": name,
        "is_open": name != found.policy,
        "prompt": found.total_tokens,
        "visual": found.visual_tokens,
        "copied": found.text_tokens,
        "spans": len(found.spans),
        "scale": found.scale if found.num_pages else None,
        "compression": found.compression_ratio,
        "characters": found.characters_per_token,
        "omitted": found.omitted_characters,
    }


def answer_view(answer_id: str, question: Question, document: OpenDocument, answer: LongDocAnswer) -> dict[str, Any]:
    """
    An answer with all that it rests on.

    `standing` and `said` are rows `(label, [(text, style), ...])`, the first of what is to be known before the second is
    believed; each of `evidence` has a box a line, in parts of the page: `[left, top, right, bottom]`, 0 to 1.
    """
    plan = answer["plan"]
    plain = answer_as_json(question.words, answer)
    rows = [(label, styled_pieces(value)) for label, value in standing_rows(answer, _LONGER, _RECOGNITION)]
    evidence = []
    for items in whole_spans(answer):
        page, start, end = items[0]["page"], items[0]["start"], items[-1]["end"]
        height, width = plan.document.page_size(page, plan.scale if plan.num_pages else None)
        boxes = [place_on_picture(item["box"], height, width) for item in items]
        around = styled_pieces(in_context(plan.document.text, start, end))
        place = f"page {page + 1}{in_the_file(plan.document.text, start)}"
        evidence.append({"page": page + 1, "place": place, "boxes": boxes, "around": around})
    return {
        "id": answer_id,
        "document": document.id,
        "question": question.words,
        "context": question.context,
        "status": None if plain["support"] is None else plain["support"]["status"],
        "standing": [row for row in rows if row[0] == "standing"],
        "said": [row for row in rows if row[0] != "standing"],
        "text": answer["answer"],
        "confidence": answer["confidence"],
        "is_doubtful": is_doubtful(answer),
        "score": answer["score"],
        "evidence": evidence,
        "no_evidence": why_no_evidence(answer),
        "passages": plain["passages"],
        "plan": rows_of(plan.summary()),
        "has_pages": bool(plan.num_pages),
        "seconds": answer["usage"]["seconds"],
        "new_tokens": answer["usage"]["new_tokens"],
    }


__all__ = ["answer_view", "cost_view", "document_view", "in_words"]
