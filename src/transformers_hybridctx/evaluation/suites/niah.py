# SPDX-License-Identifier: Apache-2.0
"""A needle at every depth of contexts of every length: the heat map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from ..metrics.string_match import string_match_all
from ..needles import SENTENCE_END, documents_of, draw_key, draw_number, needle_question, needle_sentence
from ..samples import Sample
from ..token_counts import TokenCounter
from .base import Suite

_MAX_NEW_TOKENS = 128


@dataclass(frozen=True)
class NeedleAtDepths(Suite):
    """
    One needle (a key and a number, in RULER's words) at evenly spread depths.

    Attributes:
        lengths: tokens of the contexts.
        prose: a text file to hide it in.
        depths: how many, from the first sentence to the last.
        examples: needles for each depth and length.
    """

    name: ClassVar[str] = "niah"
    metric: ClassVar[str] = "string match"
    task_names: ClassVar[tuple[str, ...]] = ("needle",)

    examples: int | None = 1
    lengths: tuple[int, ...] = (1024, 2048, 4096)
    prose: Path | None = None
    depths: int = 11

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depths < 2:
            raise ValueError(f"depths={self.depths} must be 2 or more: the first and the last sentence")

    def samples(self, tokenizer: Any) -> list[Sample]:
        if self.prose is None:
            raise ValueError("niah hides needles in prose: give --prose FILE")
        haystack = self.prose.read_text(encoding="utf-8")
        found = []
        for length in self.lengths:
            draw = documents_of(TokenCounter(tokenizer), haystack, length)
            for step in range(self.depths):
                depth = step / (self.depths - 1)
                for number in range(self.examples or 1):
                    rng = Random(f"{self.seed} {length} {step} {number}")
                    key, value = draw_key(rng, held_out=True), draw_number(rng)
                    context = _with_needle(draw(rng), needle_sentence("numbers", key, value), depth)
                    question = needle_question("numbers", [key], several=False)
                    details = {"depth": round(depth, 4)}
                    found.append(Sample(context, question, "", (value,), "needle", _MAX_NEW_TOKENS, length, details))
        return found

    def score(self, sample: Sample, answer: str) -> float:
        return string_match_all(answer, sample.answer)

    def details(self, sample: Sample, answer: str) -> dict[str, Any]:
        return {"depth": sample.details["depth"]}


def _with_needle(text: str, needle: str, depth: float) -> str:
    """The needle after that part of the sentences."""
    borders = [0, *(match.end() for match in SENTENCE_END.finditer(text)), len(text)]
    place = borders[round(depth * (len(borders) - 1))]
    before = text[:place].rstrip()
    return " ".join(filter(None, (before, needle, text[place:].lstrip())))


__all__ = ["NeedleAtDepths"]
