# SPDX-License-Identifier: Apache-2.0
"""Where an answer stands in its document: characters, lines, boxes, and pages with these marked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TypedDict

from PIL import Image

from ..planning.folding import FoldedText
from ..planning.plan import ContextPlan
from ..planning.sentences import RUN
from ..prompting.pages import drawn_page
from ..rendering.paged_text import Box, PagedText
from ..rendering.rasterizing import mark_boxes
from .folding import fold
from .grounded import document_index
from .quote_processor import Quotation

_EVIDENCE_CONTEXT = 200
"""Characters before and after a place that are compared with the question."""
MAX_PLACES = 2000
"""Places of one answer that are compared; an answer that stands in more of them ("the") says nothing by its place."""
_PARTS = re.compile(r"[,;、，；\n]|\band\b")
_JOINED_DIGITS = re.compile(r"\d[.,:]\d")
# Of four digits or more, with separators between thousands or without; one point alone may stand before decimals.
_GROUPED = r"\d{4,}|\d{1,3}(?:,\d{3})+|\d{1,3}(?:[' ]\d{3})+|\d{1,3}(?:\.\d{3}){2,}"
_NUMBER = re.compile(rf"((?<![\d.,])(?:{_GROUPED})(?!\d|[.,]\d{{3}}(?!\d)))")
_AROUND_WORDS = " .!?:。！？：'\"“”‘’()[]"


class Evidence(TypedDict):
    """
    Characters [start, end) of the document, on one line.

    `page` counts from 0; `box` is (left, top, right, bottom) in pixels of that page at the plan's scale.
    """

    page: int
    start: int
    end: int
    box: Box
    text: str


def split_reasoning(text: str) -> tuple[str, str]:
    """What a model says before its answer, and the answer, as GLM's thinking models mark them.

    `<think>...</think>`, then the answer, which may stand in `<answer>...</answer>` or in a box. A text that was cut
    while thinking has no answer.
    """
    reasoning, closed, answer = text.rpartition("</think>")
    if not closed and "<think>" in text:
        reasoning, answer = text, ""
    answer = re.sub(r"</?answer>|<\|(?:begin|end)_of_box\|>", "", answer)
    return reasoning.replace("<think>", "").strip(), answer.strip()


def quoted_evidence(plan: ContextPlan, quotations: Sequence[Quotation]) -> list[Evidence]:
    """
    Where the answer that was taken from quotations stands, or else where these do: all places, in order.

    Nothing is searched for: a quotation knows its characters. Of an answer with more than `MAX_PLACES` places, the first
    ones.
    """
    document = plan.document
    if not isinstance(document, PagedText):
        return []
    said = [one for one in quotations if one.is_answer] or quotations
    places = sorted({place for one in said for place in one.places})[:MAX_PLACES]
    return [item for start, end in places for item in _on_lines(document, start, end, plan.scale)]


def find_evidence(plan: ContextPlan, answer: str, question: str) -> list[Evidence]:
    """Where `answer` stands in the document, or its parts (between commas and the like) where the whole does not.

    Of several places the one whose surroundings share most with the question is taken, a rare word counting for more
    than a frequent one, and one that was copied as tokens before one that was not. Nothing is returned for words that
    the document does not have, nor for page pictures, whose text is not known.
    """
    document = plan.document
    if not answer or not isinstance(document, PagedText):
        return []
    evidence: list[Evidence] = []
    whole = answer.strip()
    parts = [whole] if _places(document, whole) else _PARTS.split(answer)
    for part in dict.fromkeys(part.strip() for part in parts):
        bare = part.strip(_AROUND_WORDS)
        places = (part and _places(document, part)) or (bare and _places(document, bare)) or []
        if places:
            evidence += _on_lines(document, *_closest(document.text, places, question, plan), plan.scale)
    return evidence


def mark_evidence(plan: ContextPlan, evidence: Sequence[Evidence]) -> dict[int, Image.Image]:
    """{page: picture} of the pages (from 0) that hold evidence, with its boxes marked."""
    boxes: dict[int, list[Box]] = {}
    for item in evidence:
        boxes.setdefault(item["page"], []).append(item["box"])
    return {page: mark_boxes(drawn_page(plan.document, page, plan.scale), boxes[page]) for page in sorted(boxes)}


def _places(document: PagedText, part: str) -> list[tuple[int, int]]:
    """Where `part` stands in a document as whole words: as it is; else with any white space and in any case; else as
    what readers take for the same, such as composed or full-width letters, divided words, `1,234,567` for `1234567`.
    """
    words = r"\s+".join(map(re.escape, part.split()))
    for pattern, flags in ((re.escape(part), 0), (words, re.IGNORECASE)):
        found = _whole_words(document.text, pattern, flags)
        if found is not None:
            return found
    if not document.text.strip():
        return []
    index = document_index(document)
    plain = FoldedText(index.folded.text)
    pattern = _folded_pattern(FoldedText(fold(part).text).text)
    found = _whole_words(plain.text, pattern, re.IGNORECASE) if pattern else None
    return [index.folded.raw_span(*plain.original(start, end)) for start, end in found or ()]


def _whole_words(text: str, pattern: str, flags: int) -> list[tuple[int, int]] | None:
    """Where a pattern stands as whole words; none of too many places; None where it stands nowhere."""
    found = []
    for match in re.finditer(pattern, text, flags):
        start, end = match.span()
        if start < end and not _is_inside_word(text, start) and not _is_inside_word(text, end):
            found.append((start, end))
            if len(found) > MAX_PLACES:
                return []
    return found or None


def _folded_pattern(part: str) -> str:
    """A pattern for folded text: numbers may be written with or without separators between their thousands."""
    pieces: list[str] = []
    for piece in _NUMBER.split(part):
        if not _NUMBER.fullmatch(piece):
            pieces += [re.escape(piece)]
            continue
        digits = "".join(filter(str.isdigit, piece))
        head = len(digits) % 3 or 3
        groups = [digits[:head], *(digits[at : at + 3] for at in range(head, len(digits), 3))]
        separators = "[,.' ]" if len(groups) > 2 else "[,' ]"
        pieces.append(f"(?:{digits}|{separators.join(groups)})")
    return "".join(pieces)


def _is_inside_word(text: str, position: int) -> bool:
    """Whether the characters on both sides belong to one number, or to one word of a script that has blanks."""
    if not 0 < position < len(text):
        return False
    if RUN.fullmatch(text, position - 1, position + 1):
        return True
    around = (text[max(0, position - 2) : position + 1], text[position - 1 : position + 2])
    return any(_JOINED_DIGITS.fullmatch(piece) for piece in around)


def _closest(text: str, places: list[tuple[int, int]], question: str, plan: ContextPlan) -> tuple[int, int]:
    """The place whose surroundings share most with the question."""
    asked = {word.lower() for word in RUN.findall(question)}
    around = [
        {
            word.lower()
            for word in RUN.findall(text, max(0, start - _EVIDENCE_CONTEXT), min(len(text), end + _EVIDENCE_CONTEXT))
        }
        & asked
        for start, end in places
    ]
    frequency = Counter(word for words in around for word in words)

    def rank(index: int) -> tuple[float, bool, int]:
        start, end = places[index]
        copied = any(span.start <= start and end <= span.end for span in plan.spans)
        return -sum(1 / frequency[word] for word in around[index]), not copied, start

    return places[min(range(len(places)), key=rank)]


def _on_lines(document: PagedText, start: int, end: int, scale: float) -> Iterator[Evidence]:
    """Characters [start, end), an item for each line (for each stretch of it where scripts of both directions mix)."""
    for page, box in document.boxes(start, end, scale):
        shown = [
            (max(start, first), min(end, last))
            for first, last in document.spans_in_box(page, box, scale)
            if first < end and last > start
        ]
        if shown:
            first, last = min(shown)[0], max(shown)[1]
            yield Evidence(page=page, start=first, end=last, box=box, text=document.text[first:last])


__all__ = ["MAX_PLACES", "Evidence", "find_evidence", "mark_evidence", "quoted_evidence", "split_reasoning"]
