# SPDX-License-Identifier: Apache-2.0
"""Answers as they come: pieces of text told apart into reasoning and answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

Kind = Literal["reasoning_content", "content"]

_BEGIN, _END = "<think>", "</think>"
# What is left out of each kind of text.
_MARKS: dict[Kind, tuple[str, ...]] = {
    "reasoning_content": (_BEGIN, _END),
    "content": (_BEGIN, _END, "<answer>", "</answer>", "<|begin_of_box|>", "<|end_of_box|>"),
}
_PATTERNS = {kind: re.compile("|".join(map(re.escape, marks))) for kind, marks in _MARKS.items()}


class ReasoningSplitter:
    """
    Splits a stream as `split_reasoning` splits a whole text: what comes before `</think>` is reasoning.

    What a model says before it is known whether `</think>` follows counts as the answer, unless it begins with `<think>`.
    """

    def __init__(self) -> None:
        self._held = ""
        self._kind: Kind = "content"
        self._has_begun: dict[Kind, bool] = {"reasoning_content": False, "content": False}
        self._blank = ""

    def feed(self, piece: str) -> Iterator[tuple[Kind, str]]:
        """(what it is, text) of all that is certain after another piece."""
        self._held += piece
        while match := _PATTERNS[self._kind].search(self._held):
            yield from self._said(self._held[: match.start()])
            self._held = self._held[match.end() :]
            if match.group() in (_BEGIN, _END):
                self._blank = ""
                self._kind = "reasoning_content" if match.group() == _BEGIN else "content"
        certain = len(self._held) - _begun_mark(self._held, _MARKS[self._kind])
        yield from self._said(self._held[:certain])
        self._held = self._held[certain:]

    def finish(self) -> Iterator[tuple[Kind, str]]:
        """What was held back because it might have become a mark."""
        held, self._held = self._held, ""
        yield from self._said(held)

    def _said(self, text: str) -> Iterator[tuple[Kind, str]]:
        """Without white space at both ends of the whole: that before something is said only with it."""
        if not self._has_begun[self._kind]:
            text = text.lstrip()
        text = self._blank + text
        said = text.rstrip()
        self._blank = text[len(said) :]
        if said:
            self._has_begun[self._kind] = True
            yield self._kind, said


def _begun_mark(text: str, marks: tuple[str, ...]) -> int:
    """How many characters at the end may be the beginning of a mark."""
    for length in range(min(len(text), max(map(len, marks)) - 1), 0, -1):
        if any(mark.startswith(text[-length:]) for mark in marks):
            return length
    return 0


__all__ = ["Kind", "ReasoningSplitter"]
