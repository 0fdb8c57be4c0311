# SPDX-License-Identifier: Apache-2.0
"""Pages only, tokens only and hybrids on the same needles under the same budget."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import torch
import transformers
from transformers.utils import logging

from .needles import TASKS, Task, draw_haystack, make_example

CONTEXTS: dict[str, dict[str, Any]] = {
    "pages only": {"text_policy": "none", "visual_share": 1.0},
    "tokens only": {"text_policy": "middle", "visual_share": 0.0},
    "hybrid, anchors": {"text_policy": "anchors"},
    "hybrid, bm25": {"text_policy": {"name": "bm25", "top_k": 4}},
    "hybrid, attention": {"text_policy": {"name": "attention", "top_k": 4}},
}
"""What a prompt is made of. `tokens only` keeps the head and the tail of the text, as RULER and LongBench do."""


def run_needle_benchmark(
    pipe: Any,
    haystack: str,
    num_tokens: Sequence[int],
    budget_share: float,
    examples: int,
    seed: int,
    tasks: Sequence[Task] = TASKS,
) -> list[dict[str, Any]]:
    """Exact match of each context on each task.

    Args:
        pipe: a `LongDocQAPipeline`.
        haystack: prose that the model was not trained on; keys are held out as well.
        num_tokens: lengths of the documents, in tokens of the model's own tokenizer.
        budget_share: `max_context_tokens` as a part of the document's tokens.
        examples: documents for each task and length.
        seed: of the documents, keys and values.
        tasks: which of RULER's formats.

    Returns:
        A row for each length and context: `exact_match` {task: 0 to 1}, mean `prompt_tokens`, and what it was
        measured with.
    """
    if not budget_share > 0:
        raise ValueError(f"budget_share={budget_share} must be above 0")
    rows = []
    for length in num_tokens:
        draw = documents_of(pipe, haystack, length)
        budget = round(length * budget_share)
        hits = {context: dict.fromkeys(tasks, 0) for context in CONTEXTS}
        spent = dict.fromkeys(CONTEXTS, 0)
        for task in tasks:
            for number in logging.tqdm(range(examples), desc=f"{length} {task}"):
                rng = Random(f"{seed} {length} {task} {number}")
                example = make_example(rng, draw(rng), task, held_out=True)
                document = pipe.lay_out(text=example.document)
                for context, options in CONTEXTS.items():
                    answer = pipe(
                        question=example.question,
                        document=document,
                        budget={"max_context_tokens": budget, "visual_share": options.get("visual_share")},
                        text_policy=options["text_policy"],
                    )
                    hits[context][task] += example.is_exact(answer["answer"])
                    spent[context] += answer["usage"]["prompt_tokens"]
        rows += [
            {
                "num_tokens": length,
                "budget": budget,
                "context": context,
                "examples": examples,
                "exact_match": {task: hits[context][task] / examples for task in tasks},
                "prompt_tokens": spent[context] / examples / len(tasks),
                "environment": environment(pipe),
            }
            for context in CONTEXTS
        ]
    return rows


def environment(pipe: Any) -> dict[str, Any]:
    """What the figures were measured with."""
    return {
        "device": str(pipe.device),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def documents_of(pipe: Any, haystack: str, num_tokens: int) -> Callable[[Random], str]:
    """Draws pieces of the haystack of at least `num_tokens` text tokens, and hardly more."""
    count = pipe.processor.encoder.count
    sample = haystack[:200_000]
    characters_per_token = len(sample) / count(sample)

    def draw(rng: Random) -> str:
        size = round(num_tokens * characters_per_token)
        while True:
            text = draw_haystack(rng, haystack, size)
            if count(text) >= num_tokens:
                return text
            if len(text) >= len(haystack):
                raise ValueError(f"the haystack has fewer than {num_tokens} tokens; give a longer text")
            size = round(size * 1.05) + 50

    return draw
