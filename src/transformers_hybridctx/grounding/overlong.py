# SPDX-License-Identifier: Apache-2.0
"""Answers that go on behind what was asked: a value, and the sentence, the clause or the cells of a table after it."""

from __future__ import annotations

import re
from collections.abc import Set

from ..planning.sentences import RUN, UNSPACED_RUN, sentence_starts

_AROUND = 2000
"""Characters before and after an answer in which its sentences begin and end."""
_FEWEST_WORDS = 3
"""Of what goes on behind a sentence: fewer may stand behind an abbreviation ("approx. 38 metres")."""
_CLOSING = re.compile(r"[\s.!?:;,。！？：；，'\"“”‘’()\[\]]*")

_MOST_WORDS_OF_A_VALUE = 4
_LOOKED_AT = 400
"""Characters in which a value of so few words ends, and a clause behind it says what it is about."""
_CLAUSE = re.compile(
    r"(?:(?:[,;]| [-–—]) (?:(?:and|but|while|whereas) )?| ?[(\[]| (?P<joined>and) | (?:but|while|whereas) )"
    r"(?P<about>[^,;.:=()\[\]\s][^,;.:=()\[\]]{0,79}?)(?: (?:is|was|has|had|does)"
    r"| (?P<plural>are|were|have|do|did|can|could|will|would|may|might|must|shall|should)|(?P<label>[:=])"
    r"| \w{2,}(?:s|(?P<past>ed))(?= (?:(?:about|some|over|only|nearly|almost) )?[\d$£€])) "
)
"""What goes before a subject, the subject, and its verb: one of a few, or any by its ending and the number behind it."""
_BETWEEN_CELLS = re.compile(r"\t|\s*\|\s*|;(?!\s)|(?!(?<=\d),\d{3}(?!\d)),(?!\s)")
"""But no comma between words, nor one within a number ("1,234")."""
_REMARKS = frozenset(("note", "notes", "formerly", "source"))
"""Labels of what belongs to a value."""


def beyond_a_sentence(text: str, start: int, end: int) -> str:
    """
    What of a document's characters [start, end) lies behind the end of a sentence that they begin in the middle of, or
    in a sentence that they leave in its middle; "" of whole sentences, and of what lies in one.
    """
    first = max(0, start - _AROUND)
    window = text[first : end + _AROUND]
    starts = [first + place for place in sentence_starts(window)]
    opening = _CLOSING.match(text, start, end)
    begins = start if opening is None else opening.end()
    borders = [place for place in starts if begins < place < end and not _follows_abbreviation(text, place)]
    behind = text[borders[0] : end].strip() if borders else ""
    if len(RUN.findall(behind)) < _FEWEST_WORDS and not UNSPACED_RUN.search(behind):
        return ""
    closing = _CLOSING.match(text, end)
    ends = end if closing is None else closing.end()
    is_whole = (start in starts or begins in starts) and (ends in starts or ends == len(text))
    return "" if is_whole else behind


def beyond_a_value(answer: str, question: str, function_words: Set[str]) -> str:
    """What of an answer that begins with a value is a clause of its own about what the question does not name, or ""."""
    text = " ".join(answer.split())
    asked = {word.lower() for word in RUN.findall(question)}
    for found in _CLAUSE.finditer(text, 0, _LOOKED_AT) if asked else ():
        value = text[: found.start()]
        if len(RUN.findall(value)) > _MOST_WORDS_OF_A_VALUE:
            return ""
        is_value = value[:1].isupper() or any(character.isdigit() for character in value)
        about = {word.lower() for word in RUN.findall(found["about"]) if word.isalpha()} - function_words
        if is_value and _is_clause(found) and about - asked - _REMARKS:
            return text[found.start("about") :]
    return ""


def beyond_a_cell(answer: str, question: str, function_words: Set[str]) -> str:
    """
    What of an answer that begins with the question's own words goes on over more cells of a table's row than were asked
    for, or "".

    "Who founded Muir Woods?" has one answer in "Muir Woods,California,1908,T. Roosevelt", and it is not said which.
    """
    cells = [cell for cell in _BETWEEN_CELLS.split(answer.strip("|\t ")) if cell.strip()]
    asked = {word.lower() for word in RUN.findall(question)}
    key = {word.lower() for word in RUN.findall(cells[0])} - function_words if cells else set()
    wanted = 2 + question.count(",") + len(re.findall(r"\band\b", question))
    return answer[answer.index(cells[1]) :] if key and key <= asked and len(cells) > wanted else ""


def _is_clause(found: re.Match[str]) -> bool:
    """Whether it has a subject of its own: not the rest of a list, nor one of two that a verb in the plural is about."""
    if found["label"]:
        return True
    return found["about"][0].islower() and not (found["joined"] and (found["plural"] or found["past"]))


def _follows_abbreviation(text: str, place: int) -> bool:
    """Whether a number goes on behind a stop, on its line, as in "approx. 38": hardly a sentence begins with one."""
    return text[place].isdigit() and "\n" not in text[max(0, place - 2) : place]


__all__ = ["beyond_a_cell", "beyond_a_sentence", "beyond_a_value"]
