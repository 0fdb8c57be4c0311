# SPDX-License-Identifier: Apache-2.0
"""Pages only, tokens only and hybrids on the same needles under the same budget, held to the document or not."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import torch
import transformers
from transformers.utils import logging

from .blank_pages import with_blank_pages
from .needles import TASKS, Task, draw_haystack, make_example

CONTEXTS: dict[str, dict[str, Any]] = {
    "pages only": {"text_policy": "none", "visual_share": 1.0},
    "tokens only": {"text_policy": "middle", "visual_share": 0.0},
    "bm25 alone": {"text_policy": {"name": "bm25", "top_k": 4}, "visual_share": 0.0},
    "hybrid, anchors": {"text_policy": "anchors"},
    "hybrid, bm25": {"text_policy": {"name": "bm25", "top_k": 4}},
    "hybrid, attention": {"text_policy": {"name": "attention", "top_k": 4}},
}
"""What a prompt is made of. `tokens only` keeps the head and the tail of the text, as RULER and LongBench do; `bm25
alone` is the hybrid without its pages."""
GROUNDINGS = ("none", "quote", "strings")


def run_needle_benchmark(
    pipe: Any,
    haystack: str,
    num_tokens: Sequence[int],
    budget_share: float,
    examples: int,
    seed: int,
    tasks: Sequence[Task] = TASKS,
    contexts: Sequence[str] = tuple(CONTEXTS),
    groundings: Sequence[str] = ("none",),
    blank_pages: bool = False,
    **generation: Any,
) -> list[dict[str, Any]]:
    """Exact match of each context on each task.

    Pages that are held to the document's text are a search for the question's words, too, so what reading them adds is
    the difference to `blank_pages`.

    Args:
        pipe: a `LongDocQAPipeline`.
        haystack: prose that the model was not trained on; keys are held out as well.
        num_tokens: lengths of the documents, in tokens of the model's own tokenizer.
        budget_share: `max_context_tokens` as a part of the document's tokens.
        examples: documents for each task and length.
        seed: of the documents, keys and values.
        tasks: which of RULER's formats.
        contexts: which of `CONTEXTS`.
        groundings: how answers are held to the document, of `GROUNDINGS`.
        blank_pages: whether each context that has pages is measured once more with nothing on them.
        generation: parameters such as `num_beams`.

    Returns:
        A row for each length, context, grounding and kind of pages: `exact_match` {task: 0 to 1}, mean `prompt_tokens`,
        and what it was measured with.
    """
    if not budget_share > 0:
        raise ValueError(f"budget_share={budget_share} must be above 0")
    for name, given, known in (("context", contexts, CONTEXTS), ("grounding", groundings, GROUNDINGS)):
        if unknown := [one for one in given if one not in known]:
            raise ValueError(f"{name} {unknown[0]!r} is not one of {', '.join(map(repr, known))}")
    blind = with_blank_pages(pipe)
    ways = [
        (context, grounding, blank)
        for context in contexts
        for grounding in groundings
        for blank in ((False, True) if blank_pages and CONTEXTS[context].get("visual_share") != 0 else (False,))
    ]
    rows = []
    for length in num_tokens:
        draw = documents_of(pipe, haystack, length)
        budget = round(length * budget_share)
        hits = {way: dict.fromkeys(tasks, 0) for way in ways}
        spent = dict.fromkeys(ways, 0)
        for task in tasks:
            for number in logging.tqdm(range(examples), desc=f"{length} {task}"):
                rng = Random(f"{seed} {length} {task} {number}")
                example = make_example(rng, draw(rng), task, held_out=True)
                document = pipe.lay_out(text=example.document)
                for way in ways:
                    context, grounding, blank = way
                    options = CONTEXTS[context]
                    answer = (blind if blank else pipe)(
                        question=example.question,
                        document=document,
                        budget={"max_context_tokens": budget, "visual_share": options.get("visual_share")},
                        text_policy=options["text_policy"],
                        grounding=None if grounding == "none" else grounding,
                        **generation,
                    )
                    hits[way][task] += example.is_exact(answer["answer"])
                    spent[way] += answer["usage"]["prompt_tokens"]
        rows += [
            {
                "num_tokens": length,
                "budget": budget,
                "context": way[0],
                "grounding": way[1],
                "blank_pages": way[2],
                "examples": examples,
                "exact_match": {task: hits[way][task] / examples for task in tasks},
                "prompt_tokens": spent[way] / examples / len(tasks),
                "environment": environment(pipe),
            }
            for way in ways
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
