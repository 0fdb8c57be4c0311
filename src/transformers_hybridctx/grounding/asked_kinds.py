# SPDX-License-Identifier: Apache-2.0
"""Whether words can be the answer to a question at all: whatever "how many" is asked of, the answer is a number."""

from __future__ import annotations

import re
from collections.abc import Set

from ..planning.sentences import RUN

_NUMBER = re.compile(
    r"\d|\b(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|(?:twen|thir|for|fif|six|seven|"
    r"eigh|nine)ty|hundreds?|thousands?|(?:m|b|tr)illions?|dozens?|scores?|single|half|quarters?|thirds?|pair|couple|once|"
    r"twice|both|all|every|any|several|many|much|few|little|more|most|less|least|part|whole|entire|full|rest|remainder|same|"
    r"free|no|none|nobody|nothing|not|never|unlimited|unknown)\b",
    re.IGNORECASE,
)
_KINDS = tuple(
    (re.compile(asked, re.IGNORECASE), has)
    for asked, has in (
        (r"^\W*who(?:m|se)?\b", re.compile(r"[^\W\d_]")),  # nobody's name is a number
        (r"\bhow (?:many|much|old|tall|high|wide|heavy)\b", _NUMBER),
        (r"\b(?:what|which) (?:percentage|percent|share|year)\b", _NUMBER),
        (r"^\W*(?:what|which)(?: is| was| are| were)? (?:(?!and\b|has\b|have\b)[\w-]+ ){0,3}number\b", _NUMBER),
        (r"\be-?mail address\b", re.compile(r"@|\bat\b", re.IGNORECASE)),
    )
)
"""What a question asks for, and what of an answer to it there must be."""
_BRACKETS = (("(", ")"), ("[", "]"), ("{", "}"), ("（", "）"), ("「", "」"), ("《", "》"))
_GLUE = frozenset((
    "a", "an", "the", "and", "or", "but", "nor", "of", "for", "from", "by", "to", "at", "in", "into", "with", "as",
    "than", "if", "that", "which", "is", "are", "was", "were", "be", "been", "it", "its", "this", "these", "those",
))  # fmt: skip
"""Function words that answer nothing by themselves, as "both", "off" or "no" do."""
_NUMBERING = re.compile(r"^\W*(?:\d+[.)])+\s+")
_ALTERNATIVES = re.compile(r"\bor\b", re.IGNORECASE)


def may_answer(question: str, said: str, function_words: Set[str]) -> bool:
    """
    Whether `said` is what `question` asks for, as far as words tell.

    It is not where it lacks what such an answer has: letters of a person ("who"), a number ("how many", "which year"),
    the sign of an e-mail address; where it opens a bracket and does not close it, and is a fragment; where it is glue
    between words and no more ("the", but not "IT"); nor where it only says the question's own words again, but for
    numbers and for questions that name alternatives ("steel or wood").

    Args:
        function_words: in lower case; they say nothing.
    """
    if any(asked.search(question) and not has.search(said) for asked, has in _KINDS):
        return False
    if any(said.count(opened) > said.count(closed) for opened, closed in _BRACKETS):
        return False
    said = _NUMBERING.sub("", said)  # of a heading, or of an item of a list
    if any(character.isdigit() for character in said) or _ALTERNATIVES.search(question):
        return True
    runs = RUN.findall(said)
    if runs and all(word.lower() in _GLUE and not word.isupper() for word in runs):
        return False
    words = {word.lower() for word in runs} - function_words
    return not words or not words <= {word.lower() for word in RUN.findall(question)}


__all__ = ["may_answer"]
