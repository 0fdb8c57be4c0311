# SPDX-License-Identifier: Apache-2.0
"""Training batches of text: documents as token sequences with their labels.

Every batch is a function of (seed, step) alone: a training that stops and resumes sees the same data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast

from .tasks import Document, TaskMixture, draw_passages

IGNORE = -100


@dataclass
class Curriculum:
    """How the documents grow over a stage. Pairs are (at its start, at its end), lengths in characters."""

    num_chars: tuple[int, int]
    num_facts: tuple[int, int]

    def at(self, progress: float, rng: Random) -> tuple[int, int]:
        """Length and number of facts for one batch: anything up to what `progress` (0 to 1) allows, mostly the most."""
        reach = rng.random() ** 0.5
        chars = self.num_chars[0] + (self.num_chars[1] - self.num_chars[0]) * progress * reach
        facts = self.num_facts[0] + (self.num_facts[1] - self.num_facts[0]) * progress * reach
        return round(chars), round(facts)


class SequenceEncoder:
    """Writes (pages, passages, questions, answers) as the token sequence that the processor's chat template gives."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._id = tokenizer.convert_tokens_to_ids
        self._newline = self.text("\n")

    def text(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)

    def texts(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.text(text) for text in texts]

    def __call__(
        self, document: Document, passages: list[tuple[int, int]], pages: list[tuple[int, int]], page_tokens: list[int]
    ) -> tuple[list[int], list[int]]:
        """Tokens and labels of one conversation on `document`, each question a turn.

        What an answer rests on is quoted before it, between `<think>` and `</think>`: copying goes from word to word,
        where an answer at once would have to find the value behind a key in a single step.

        Args:
            passages: Character spans that are copied as tokens.
            pages: Character span of each page.
            page_tokens: Visual tokens of each page; empty where the pages are not shown.
        """
        user = self._id("<|user|>")
        ids = self.opening(page_tokens)
        for start, end in passages:
            number = next(n for n, (first, last) in enumerate(pages, 1) if first <= start < last or n == len(pages))
            ids += self.text(f"[page {number}] {document.text[start:end]}\n")
        labels = [IGNORE] * len(ids)
        for turn, question in enumerate(document.questions):
            prompt = self.prompt(question.text, is_first=not turn)
            quote = [self._id("<think>"), *self.text("\n".join(question.quotes)), self._id("</think>")]
            answer = [*quote, *self.text(question.answer), user]
            ids += prompt + answer
            labels += [IGNORE] * len(prompt) + answer
        return ids, labels

    def prompt(self, question: str, *, is_first: bool) -> list[int]:
        """A question, and what an answer to it begins behind."""
        return [*([] if is_first else self._newline), *self.text(question), self._id("<|assistant|>"), *self._newline]

    def opening(self, page_tokens: list[int]) -> list[int]:
        """What a conversation begins with, up to the end of its pages."""
        ids = [self._id("[gMASK]"), self._id("<sop>"), self._id("<|user|>"), *self._newline]
        for count in page_tokens:
            ids += [self._id("<|begin_of_image|>"), *[self._id("<|image|>")] * count, self._id("<|end_of_image|>")]
        return ids

    def page_tokens(self, input_ids: Tensor) -> Tensor:
        """mm_token_type_ids of `input_ids`: 1 where a visual embedding goes, else 0."""
        return (input_ids == self._id("<|image|>")).int()

    def pad(self, rows: list[tuple[list[int], list[int]]]) -> dict[str, Tensor]:
        """Right-padded input_ids, labels and attention_mask [rows, longest]."""
        longest = max(len(ids) for ids, _ in rows)
        pad = self._tokenizer.pad_token_id
        return {
            "input_ids": torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in rows]),
            "labels": torch.tensor([labels + [IGNORE] * (longest - len(ids)) for ids, labels in rows]),
            "attention_mask": torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in rows]),
        }


class RecallBatches(Dataset[dict[str, Tensor]]):
    """Stage `recall`: passages as tokens only. Item i is the whole batch of step i.

    The first `copy_steps` steps hold repeated random tokens beside the documents: the shortest way to the induction
    heads that all looking-up is made of.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        prose: dict[str, str],
        *,
        steps: int,
        tokens_per_batch: int = 4096,
        copy_steps: int = 300,
        seed: int = 0,
    ) -> None:
        self._encode, self._mixture = SequenceEncoder(tokenizer), TaskMixture(prose)
        self._vocab = range(len(tokenizer.all_special_ids), len(tokenizer))
        self._steps, self._tokens, self._copy_steps, self._seed = steps, tokens_per_batch, copy_steps, seed
        self._curriculum = Curriculum(num_chars=(160, 2400), num_facts=(2, 9))

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        rng = Random(f"recall {self._seed} {step}")
        num_chars, num_facts = self._curriculum.at(min(1.0, step / (0.7 * self._steps)), rng)
        rows: list[tuple[list[int], list[int]]] = []
        while not rows or (len(rows) + 1) * max(len(ids) for ids, _ in rows) <= self._tokens:
            if step < self._copy_steps and rng.random() < 0.5:
                rows.append(self._copy(rng, round(num_chars / 8)))
                continue
            document = self._mixture.draw(rng, num_chars, num_facts)
            rows.append(self._encode(document, draw_passages(rng, document, num_chars), [(0, len(document.text))], []))
        return self._encode.pad(rows)

    def _copy(self, rng: Random, length: int) -> tuple[list[int], list[int]]:
        tokens = rng.choices(self._vocab, k=length)
        return tokens + tokens, [IGNORE] * (length + 1) + tokens[1:]
