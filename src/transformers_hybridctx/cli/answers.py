# SPDX-License-Identifier: Apache-2.0
"""An answer as a person reads it, and as JSON. Pages count from 1 in both, as they do on the pictures' names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from ..answering.confidence import ABSTAIN_BELOW
from ..answering.json_answers import shared_words
from ..documents.page_numbers import listed, source_page
from ..planning.sentences import RUN
from .console import in_seconds, rows_of
from .output_files import written_whole

if TYPE_CHECKING:
    from ..answering.results import AnswerStanding, LongDocAnswer, StringSupport
    from ..grounding.evidence import Evidence

_AROUND_EVIDENCE = 60  # characters
_PASSAGES_SHOWN = 3
_PASSAGE_SHOWN = 110  # characters of each, unless all are asked for
_CUT_OFF_BEFORE = "cut off before the answer began, while the model was still thinking"
_UNKNOWN = "cannot be checked: the text of {} is not known; text recognition ({}) would find it"
_PICTURE = re.compile(r"question-\d+-page-\d+\.png")


def answer_rows(
    question: str, answer: LongDocAnswer, pictures: Sequence[Path] = (), all_passages: bool = False
) -> list[tuple[str, Any]]:
    """One question: what the model says, where that stands, what was copied for it, the plan and the seconds."""
    rows: list[tuple[str, Any]] = [
        ("question", Text(question, style="bold")),
        *standing_rows(answer),
        *([] if answer["confidence"] is None else [("confidence", f"{answer['confidence']:.2f}")]),
        ("score", f"{answer['score']:.3f}"),
    ]
    rows += _evidence_rows(answer)
    rows += [("picture", str(path)) for path in pictures]
    rows += passage_rows(question, answer, all_passages)
    rows += rows_of(answer["plan"].summary())
    return [*rows, ("seconds", in_seconds(answer["usage"]["seconds"]))]


def purpose_rows(model: Any) -> list[tuple[str, str]]:
    """What the checkpoint is for, where whoever made it says so in its config."""
    purpose = model.config.purpose
    name = Path(model.config._name_or_path).name
    return [("checkpoint", f"{name or type(model).__name__} {purpose}")] if purpose else []


def save_evidence(answers: Sequence[LongDocAnswer], folder: Path | None) -> list[list[Path]]:
    """Write the pages that hold the evidence of each answer, in place of those that an earlier call left there."""
    if folder is None:
        return [[] for _ in answers]
    from ..rendering.rasterizing import unroll_strip

    folder.mkdir(parents=True, exist_ok=True)
    saved: list[list[Path]] = []
    for number, answer in enumerate(answers, start=1):
        saved.append([folder / f"question-{number}-page-{page + 1}.png" for page in answer["pages"]])
        for path, picture in zip(saved[-1], answer["pages"].values(), strict=True):
            with written_whole(path) as unfinished:
                unroll_strip(picture).save(unfinished)
    written = {path for paths in saved for path in paths}
    for path in folder.iterdir():
        if _PICTURE.fullmatch(path.name) and path not in written:
            path.unlink()
    return saved


def standing_rows(
    answer: LongDocAnswer, longer: str = "raise --max-new-tokens", recognition: str = "--ocr"
) -> list[tuple[str, Any]]:
    """
    What the model says, and what is to be known of it before it is believed.

    An answer that nothing in the document supports or could be held against, that is less likely right than wrong, or
    that was cut off before it began, has that as its headline.

    Args:
        longer: how a longer answer can be had.
        recognition: what has the text of scans recognised.
    """
    support, text = answer["support"], answer["plan"].document.text
    status = None if support is None else support["status"]
    said = answer["answer"] or "(no words)"
    rows: list[tuple[str, Any]] = []
    if answer["reasoning"]:
        rows.append(("reasoning", Text(answer["reasoning"], style="italic")))
    if status == "cut off" or (support is None and not answer["answer"] and answer["finish_reason"] == "length"):
        return [*_headline(f"{_CUT_OFF_BEFORE}; {longer}"), *rows]
    if status in (None, "unchecked"):
        rows = [*_unchecked(answer, recognition), *rows]
    if status == "absent":
        rows = [*_headline("nothing in the document supports this"), *rows]
    elif support is not None and support["beyond"]:
        behind = repr(_on_one_line(support["beyond"])[:_PASSAGE_SHOWN])
        rows = [*_headline(f"overlong: it goes on behind what was asked, to {behind}"), *rows]
    elif is_doubtful(answer):
        rows = [*_headline("doubtful: less likely right than wrong, as its confidence says"), *rows]
    if answer["checked"] is None:
        withheld = "not in the document" if status == "absent" else "none: what was said is likelier wrong than right"
        rows += [("answer", Text(withheld, style="bold")), ("said", Text(said, style="dim"))]
    else:
        rows.append(("answer", Text(said, style=_style(answer, status))))
    if answer["checked"] not in (None, answer["answer"]):
        rows.append(("repaired", Text(answer["checked"], style="bold green")))
    if support is not None:
        rows += _support_rows(text, support)
    if answer["finish_reason"] == "length":
        rows += _headline(f"cut off: the answer goes on; {longer}")
    return rows


def is_doubtful(answer: LongDocAnswer) -> bool:
    """Whether `--abstain` would withhold it: a wrong answer stands in the document word for word, too, somewhere."""
    return answer["confidence"] is not None and answer["confidence"] < ABSTAIN_BELOW


def _unchecked(answer: LongDocAnswer, recognition: str) -> list[tuple[str, Any]]:
    """Why an answer cannot be held against the document: pictures of pages say what they say to the model alone."""
    pages = [page + 1 for page in answer["plan"].document.unknown_pages]
    of = "these pages" if answer["support"] is None else f"page{'s' * (len(pages) != 1)} {listed(pages)}"
    return [("standing", Text(_UNKNOWN.format(of, recognition), style="bold yellow"))]


def _style(answer: LongDocAnswer, status: str | None) -> str:
    """Green is for what was held against the document and is likelier right than wrong."""
    if status == "absent" or is_doubtful(answer):
        return "red"
    return "yellow" if status in (None, "unchecked") else "bold green"


def _support_rows(text: str, support: AnswerStanding) -> list[tuple[str, Any]]:
    """How an answer, and each string of it that matters, stands to the document."""
    whole, strings = support["whole"], support["strings"]
    if whole["status"] == "verbatim":
        return [("standing", "verbatim: the document has this word for word")]
    if support["status"] == "verbatim":
        return [("standing", "verbatim: the document has each number, code and name of it, though not in these words")]
    strings = tuple({one["text"]: one for one in strings}.values())  # each once, however often it was said
    near = [whole] if whole["status"] == "near" else [one for one in strings if one["status"] == "near"]
    absent = [one for one in strings if one["status"] == "absent" and one["text"] != whole["text"]]
    return [
        *(("standing", _standing(text, one)) for one in near),
        *(("standing", Text(f"absent: the document has no {one['text']!r}", style="bold red")) for one in absent),
    ]


def _headline(words: str) -> list[tuple[str, Any]]:
    return [("standing", Text(words, style="bold red"))]


def _standing(text: str, near: StringSupport) -> Text:
    """What the document has in place of a string that it has not, and where."""
    found = " or ".join(repr(_on_one_line(one)) for one in near["found"])
    edits = f"{near['distance']} edit{'s' * (near['distance'] != 1)}"
    (place, _), *others = near["places"]
    where = f"{edits} away, at character {place:,}{in_the_file(text, place)}"
    where += f" and {len(others):,} other places" * bool(others)
    return Text(f"near: the document has {found}, not {near['text']!r} ({where})", style="bold yellow")


def _evidence_rows(answer: LongDocAnswer) -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    text = answer["plan"].document.text
    for items in whole_spans(answer):
        page, start, end = items[0]["page"], items[0]["start"], items[-1]["end"]
        boxes = [f"({', '.join(f'{side:.0f}' for side in item['box'])})" for item in items]
        where = f"box {boxes[0]}" if len(boxes) == 1 else f"{len(boxes)} boxes {boxes[0]} to {boxes[-1]}"
        place = f"page {page + 1}{in_the_file(text, start)}, characters {start:,} to {end:,}, {where} pixels"
        rows += [("evidence", place), ("", in_context(text, start, end))]
    return rows or [("evidence", why_no_evidence(answer))]


def why_no_evidence(answer: LongDocAnswer) -> str:
    """What stands in place of an answer's evidence, where there is none."""
    if not answer["answer"]:
        return "none, as there is no answer"
    document = answer["plan"].document
    if not document.text:
        return "unknown: the text of these pages is not known"
    return "none in the text that is known" if document.unknown_pages else "none in the document"


def whole_spans(answer: LongDocAnswer) -> list[list[Evidence]]:
    """The evidence, the lines of one span on one page together."""
    text = answer["plan"].document.text
    found: list[list[Evidence]] = []
    for item in answer["evidence"]:
        last = found[-1][-1] if found else None
        goes_on = last is not None and last["page"] == item["page"] and last["end"] <= item["start"]
        if last is not None and goes_on and not text[last["end"] : item["start"]].strip():
            found[-1].append(item)
        else:
            found.append([item])
    return found


def in_the_file(text: str, position: int) -> str:
    page = source_page(text, position)
    if page is None:
        return ""
    if not page.label:  # of a file without pages
        return f" (in {page.file})" if page.file else ""
    printed = "" if page.label == str(page.number) else f", numbered {page.label}"
    return f" (page {page.number} of {page.file or 'the file'}{printed})"


def passage_rows(question: str, answer: LongDocAnswer, all_passages: bool) -> list[tuple[str, Any]]:
    """What was copied as tokens: all of it, whole; or a line each of the passages that say most about the question."""
    spans = answer["plan"].spans
    if all_passages:
        return [row for span in spans for row in _whole_passage(question, span)]

    def proof(span: Any) -> int | None:
        """Where in the document the evidence stands that a passage holds."""
        return next((item["start"] for item in answer["evidence"] if span.start <= item["start"] < span.end), None)

    def says(span: Any) -> tuple[bool, int]:
        return proof(span) is not None, len(shared_words(question, span.text))

    best = sorted(spans, key=says, reverse=True)[:_PASSAGES_SHOWN]
    rows: list[tuple[str, Any]] = [
        (f"from page {span.page + 1}", _excerpt(question, span, proof(span))) for span in best
    ]
    if len(spans) > len(best):
        rows.append(("", Text(f"and {len(spans) - len(best):,} more; --passages shows all, whole", style="dim")))
    return rows


def _whole_passage(question: str, span: Any) -> list[tuple[str, Any]]:
    why = ", ".join(shared_words(question, span.text))
    place = f"characters {span.start:,} to {span.end:,}, {span.tokens:,} tokens"
    return [(f"from page {span.page + 1}", place + f"; has {why}" * bool(why)), ("", _on_one_line(span.text).strip())]


def _excerpt(question: str, span: Any, proof: int | None) -> str:
    """The part of a passage that holds the evidence, or else most of the question's words, on one line."""
    text = span.text
    if proof is None:
        shared = set(shared_words(question, text))
        places = [match.start() for match in RUN.finditer(text) if match.group().lower() in shared] or [0]
        centre = max(places, key=lambda at: sum(abs(other - at) < _PASSAGE_SHOWN // 2 for other in places))
    else:
        centre = proof - span.start
    start = min(max(0, centre - _PASSAGE_SHOWN // 2), max(0, len(text) - _PASSAGE_SHOWN))
    end = start + _PASSAGE_SHOWN
    shown = text[start:end]
    shown = shown.partition(" ")[2] or shown if start else shown
    shown = shown.rpartition(" ")[0] or shown if end < len(text) else shown
    return "…" * bool(start) + _on_one_line(shown).strip() + "…" * (end < len(text))


def in_context(text: str, start: int, end: int) -> Text:
    """The evidence in bold, with the words around it, on one line."""
    before = text[max(0, start - _AROUND_EVIDENCE) : start].partition(" " if start > _AROUND_EVIDENCE else "\0")
    after = text[end : end + _AROUND_EVIDENCE]
    after = after.rpartition(" ")[0] if end + _AROUND_EVIDENCE < len(text) else after
    shown = [_on_one_line(piece) for piece in (before[2] or before[0], text[start:end], after)]
    return Text.assemble((f"…{shown[0]}", "dim"), (shown[1], "bold"), (f"{shown[2]}…", "dim"))


def _on_one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text)
