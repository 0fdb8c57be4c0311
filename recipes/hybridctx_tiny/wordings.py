# SPDX-License-Identifier: Apache-2.0
"""Statements and questions in people's words: sentences that state a value, and chains of two that lead to one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from random import Random

_SLOT = re.compile(r"<(\w+)([/~]?)>")
_ASKED_OF = {"My": "my", "Our": "our", "Her": "her", "The": "the", "A": "the", "She": "she", "He": "he"}
"""How a sentence's first word goes on in a question."""


@dataclass(frozen=True)
class Chain:
    """Two sentences: the first leads from `{a}` to `{b}`, the second from `{b}` to the value `{v}`."""

    first: str
    second: str
    question: str


class Sentences:
    """Sentences of a small grammar, each with its question.

    Their file has lists of words, `name = one, another`, and behind a line of dashes templates: the sentence, in which
    `{}` is the value, and its question. A slot `<name>` is one of the words, the same in sentence and question; `<name/>`
    is the word in lower case, `<name~>` as it stands within a question ("She" is asked of as "she").
    """

    def __init__(self) -> None:
        lists, templates = _text("sentences.txt").split("\n--\n")
        self._words = {
            name: words.split(", ") for name, _, words in (line.partition(" = ") for line in lists.splitlines())
        }
        self._templates = [tuple(line.split("|")) for line in templates.splitlines()]

    def draw(self, rng: Random) -> tuple[str, str]:
        """A sentence with `{}` for its value, and its question."""
        sentence, question = rng.choice(self._templates)
        chosen: dict[str, str] = {}

        def fill(slot: re.Match[str]) -> str:
            word = chosen.setdefault(slot[1], rng.choice(self._words[slot[1]]))
            if slot[2] == "/":
                return word.lower()
            return _as_asked_of(word) if slot[2] == "~" else word

        sentence = _SLOT.sub(fill, sentence)
        return sentence, _SLOT.sub(fill, question)

    def all(self) -> set[str]:
        """Every sentence that can be drawn."""
        found = set()
        for sentence, _ in self._templates:
            partial = {sentence}
            for slot in dict.fromkeys(_SLOT.finditer(sentence)):
                words = self._words[slot[1]]
                fills = [word.lower() if slot[2] == "/" else word for word in words]
                partial = {one.replace(slot[0], word) for one in partial for word in fills}
            found |= partial
        return found


def _as_asked_of(word: str) -> str:
    first, _, rest = word.partition(" ")
    return f"{_ASKED_OF[first]} {rest}".strip()


def parts_of_lines(name: str) -> list[tuple[str, ...]]:
    """The lines of a file of this folder, in their parts, between `|`."""
    return [tuple(line.split("|")) for line in _text(name).splitlines()]


def _text(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


CHAINS = [Chain(*parts) for parts in parts_of_lines("chains.txt")]
