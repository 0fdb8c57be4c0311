# SPDX-License-Identifier: Apache-2.0
"""Which attention heads find what a question asks for: measured on needles, not guessed.

A head is as good as the place it gives the needle's passage among all passages, by its attention from the question
to the visual tokens (retrieval heads, https://arxiv.org/abs/2404.15574).
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
from transformers.utils import logging

from ..caching.attention_ranking import passage_scores
from ..planning.passages import passages_of
from ..planning.policies.bm25 import BM25Policy
from .needles import Task, documents_of, make_example
from .runner import environment


def measure_retrieval_heads(
    pipe: Any,
    haystack: str,
    num_tokens: int,
    examples: int,
    seed: int,
    tasks: Sequence[Task] = ("single_number", "multikey"),
    passage_chars: int = 300,
    held_out: bool = False,
) -> dict[str, Any]:
    """
    Every head's ranking of needle passages.

    Args:
        pipe: a `LongDocQAPipeline`.
        haystack: prose to hide needles in.
        num_tokens: length of the documents, in tokens of the model's own tokenizer.
        examples: documents for each task.
        held_out: whether keys are those that training never saw; heads are chosen on the others.

    Returns:
        `heads`, best first: `[layer, head]`, `mean_reciprocal_rank` of the needle's passage, and how often it is among
        the first four (`hit_at_4`); the same of all heads together (`all_heads`), of `bm25` and of a random order
        (`chance`); `passages`, how many there are on average; `environment`.
    """
    draw = documents_of(pipe.processor.encoder.count, haystack, num_tokens)
    ranks: list[np.ndarray] = []
    together: list[int] = []
    words: list[int] = []
    counts: list[int] = []
    for task in tasks:
        for number in logging.tqdm(range(examples), desc=f"{num_tokens} {task}"):
            rng = Random(f"{seed} {num_tokens} {task} {number}")
            example = make_example(rng, draw(rng), task, held_out=held_out)
            cache = pipe.read(text=example.document, text_policy="none")
            passages = passages_of(example.document, passage_chars)
            scores = passage_scores(pipe.model, pipe.processor, cache, example.question, passages, None)
            needle = [
                index
                for index, (start, end) in enumerate(passages)
                if any(start < last and first < end for first, last in example.answer_spans)
            ]
            ranks.append(_ranks(scores, needle))
            together.append(int(_ranks(scores.mean(0, keepdims=True), needle)[0]))
            found = BM25Policy(passage_chars, top_k=len(passages)).rank(cache.plan.document, example.question)
            words.append(min(found.index(passages[index]) + 1 for index in needle if passages[index] in found))
            counts.append(len(passages))
    table = np.stack(ranks)
    text = pipe.model.config.text_config
    names = [[layer, head] for layer in range(text.num_hidden_layers) for head in range(text.num_attention_heads)]
    heads = [{"head": name, **_summary(table[:, index])} for index, name in enumerate(names)]
    chance = [float(np.mean([1 / rank for rank in range(1, count + 1)])) for count in counts]
    return {
        "heads": sorted(heads, key=lambda head: -head["mean_reciprocal_rank"]),
        "all_heads": _summary(np.array(together)),
        "bm25": _summary(np.array(words)),
        "chance": {
            "mean_reciprocal_rank": float(np.mean(chance)),
            "hit_at_4": float(np.mean([min(1.0, 4 / count) for count in counts])),
        },
        "num_tokens": num_tokens,
        "examples": len(ranks),
        "passages": float(np.mean(counts)),
        "environment": environment(pipe),
    }


def _ranks(scores: np.ndarray, needle: list[int]) -> np.ndarray:
    """Place of the best needle passage, from 1, in each head's order: int64 [heads]. scores: [heads, passages]."""
    best = scores[:, needle].max(axis=1, keepdims=True)
    return 1 + (scores > best).sum(axis=1)


def _summary(ranks: np.ndarray) -> dict[str, float]:
    return {"mean_reciprocal_rank": float((1 / ranks).mean()), "hit_at_4": float((ranks <= 4).mean())}
