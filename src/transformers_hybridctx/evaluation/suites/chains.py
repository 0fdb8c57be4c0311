# SPDX-License-Identifier: Apache-2.0
"""The tasks of the trade-off: what a search by the question's words finds, and what it cannot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, ClassVar, cast

from ..metrics.string_match import exact_strings
from ..needles import Task, documents_of, draw_key, draw_number, hide, make_example
from ..samples import Sample
from ..token_counts import TokenCounter
from .base import Suite

_MAX_NEW_TOKENS = 256
_CHAINS = 4  # one is asked for


@dataclass(frozen=True)
class TradeOffTasks(Suite):
    """
    Needles, and the second hop of a chain.

    `second_hop`: one sentence gives a name another name, and another sentence, anywhere in the text, gives the other
    name a
    number. The question shares no word with the second sentence: passages ranked by its words miss it.

    Attributes:
        lengths: tokens of the documents.
        prose: a text file that the model was not trained on.
    """

    name: ClassVar[str] = "tradeoff"
    metric: ClassVar[str] = "exact match"
    task_names: ClassVar[tuple[str, ...]] = ("single_number", "multikey", "second_hop")

    examples: int | None = 20
    seed: int = 0
    lengths: tuple[int, ...] = (1024, 2048, 4096)
    prose: Path | None = None

    def samples(self, tokenizer: Any) -> list[Sample]:
        if self.prose is None:
            raise ValueError("the trade-off hides its facts in prose: give --prose FILE")
        haystack = self.prose.read_text(encoding="utf-8")
        found = []
        for length in self.lengths:
            draw = documents_of(TokenCounter(tokenizer), haystack, length)
            for task in self.chosen_tasks:
                for number in range(self.examples or 20):
                    rng = Random(f"{self.seed} {length} {task} {number}")
                    if task == "second_hop":
                        context, question, answer = second_hop(rng, draw(rng))
                        answers: tuple[str, ...] = (answer,)
                    else:
                        example = make_example(rng, draw(rng), cast(Task, task), held_out=True)
                        context, question, answers = example.document, example.question, example.answers
                    found.append(Sample(context, question, "", answers, task, _MAX_NEW_TOKENS, length))
        return found

    def score(self, sample: Sample, answer: str) -> float:
        return exact_strings(answer, sample.answer)


def second_hop(rng: Random, haystack: str) -> tuple[str, str, str]:
    """A document with chains of two sentences, a question about one chain, and its answer."""
    names: list[str] = []
    while len(names) < 2 * _CHAINS:
        name = draw_key(rng, held_out=True)
        if name not in names and name not in haystack:
            names.append(name)
    chains = [(names[2 * index], names[2 * index + 1], draw_number(rng)) for index in range(_CHAINS)]
    sentences = [f"In the register {name} stands as {alias}." for name, alias, _ in chains]
    sentences += [f"Whoever opens the vault for {alias} must enter {digits}." for _, alias, digits in chains]
    rng.shuffle(sentences)
    document, _ = hide(rng, haystack, sentences)
    name, _, digits = rng.choice(chains)
    return document, f"What number belongs to {name}?", digits


__all__ = ["TradeOffTasks", "second_hop"]
