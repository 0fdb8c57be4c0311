# SPDX-License-Identifier: Apache-2.0
"""Blank pages: the same prompts with nothing on their pages; and the needle benchmark with both, held or not."""

from __future__ import annotations

import pytest
import torch
from sample_questions import DOCUMENT, QUESTION

from transformers_hybridctx import LongDocQAPipeline
from transformers_hybridctx.evaluation.blank_pages import with_blank_pages
from transformers_hybridctx.evaluation.needle_benchmark import run_needle_benchmark


def test_pages_are_white_and_all_else_is_the_same(pipe: LongDocQAPipeline) -> None:
    blind = with_blank_pages(pipe)
    plan = pipe.processor.plan(DOCUMENT, QUESTION)
    blank, drawn = (each.processor.draw_pages(plan, return_tensors="pt") for each in (blind, pipe))
    assert (blank["pixel_values"] == 255).all() and (drawn["pixel_values"] != 255).any()
    assert torch.equal(blank["image_grid_thw"], drawn["image_grid_thw"])
    answers = [each(question=QUESTION, document=DOCUMENT, text_policy="none") for each in (blind, pipe)]
    assert answers[0]["plan"] == answers[1]["plan"]
    assert answers[0]["score"] != answers[1]["score"]


def test_the_benchmark_has_a_row_for_each_context_held_or_not_with_pages_and_without(pipe: LongDocQAPipeline) -> None:
    prose = "It was the best of times, it was the worst of times. It was the age of wisdom. " * 60
    contexts, groundings = ["pages only", "bm25 alone"], ["none", "quote", "strings"]
    options = {"contexts": contexts, "groundings": groundings, "blank_pages": True, "max_new_tokens": 2}
    rows = run_needle_benchmark(pipe, prose, [200], 2.0, 1, 0, ("single_number",), **options)
    assert [(row["context"], row["grounding"], row["blank_pages"]) for row in rows] == [
        *(("pages only", grounding, blank) for grounding in groundings for blank in (False, True)),
        *(("bm25 alone", grounding, False) for grounding in groundings),
    ]
    assert len({row["prompt_tokens"] for row in rows if row["context"] == "pages only"}) == 1
    for name, value in (("contexts", ["pages"]), ("groundings", ["quotes"])):
        with pytest.raises(ValueError, match=f"{name[:-1]} '{value[0]}' is not one of "):
            run_needle_benchmark(pipe, prose, [200], 2.0, 1, 0, **{name: value})
