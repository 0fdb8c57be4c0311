# SPDX-License-Identifier: Apache-2.0
"""A text as passages of about equal length, of whole sentences where these are short enough."""

from __future__ import annotations

import re

from ..rendering.characters import CharRange
from .knobs import whole_number
from .sentences import sentence_starts, word_edge

# Passages of fewer characters would be words, and a long document many millions of them.
LEAST_PASSAGE = 16
# A line of a table of contents: `3.2 Termination ........ 17`.
_LEADER = re.compile(r"(?:[.\u00b7\u2026][ \t]?){4,}[ \t]*(?:\d+|[ivxlc]+)[ \t]*$", re.MULTILINE)


def check_passages(passage_chars: int, top_k: int) -> None:
    whole_number("passage_chars", passage_chars, LEAST_PASSAGE, "characters")
    whole_number("top_k", top_k, 1, "passages, or use the policy 'none' to copy nothing")


def passages_of(text: str, passage_chars: int) -> list[CharRange]:
    """Consecutive pieces of about `passage_chars` characters, of whole sentences where these are short enough."""
    passages: list[CharRange] = []
    starts = sentence_starts(text)
    start = 0
    for end in [*starts[1:], len(text)]:
        while end - start > 2 * passage_chars:
            cut = word_edge(text, start + passage_chars, end, step=1)
            passages.append((start, cut))
            start = cut
        if end - start >= passage_chars or end == len(text):
            passages.append((start, end))
            start = end
    return [(start, end) for start, end in passages if text[start:end].strip()]


def telling_passages(text: str, passage_chars: int) -> list[CharRange]:
    """The passages but for those of a table of contents, which name what others say; all of them, if all are such."""
    passages = passages_of(text, passage_chars)
    telling = [(start, end) for start, end in passages if not _is_contents(text[start:end])]
    return telling or passages


def _is_contents(passage: str) -> bool:
    """Whether dots lead to a page's number in a third of the lines or more: those at its ends may be cut."""
    lines = sum(bool(line.strip()) for line in passage.splitlines())
    return 0 < lines <= 3 * len(_LEADER.findall(passage))
