# SPDX-License-Identifier: Apache-2.0
"""Blank pages: the same prompts with nothing on their pages."""

from __future__ import annotations

import torch
from sample_questions import DOCUMENT, QUESTION

from transformers_hybridctx import LongDocQAPipeline
from transformers_hybridctx.evaluation.blank_pages import with_blank_pages


def test_pages_are_white_and_all_else_is_the_same(pipe: LongDocQAPipeline) -> None:
    blind = with_blank_pages(pipe)
    plan = pipe.processor.plan(DOCUMENT, QUESTION)
    blank, drawn = (each.processor.draw_pages(plan, return_tensors="pt") for each in (blind, pipe))
    assert (blank["pixel_values"] == 255).all() and (drawn["pixel_values"] != 255).any()
    assert torch.equal(blank["image_grid_thw"], drawn["image_grid_thw"])
    answers = [each(question=QUESTION, document=DOCUMENT, text_policy="none") for each in (blind, pipe)]
    assert answers[0]["plan"] == answers[1]["plan"]
    assert answers[0]["score"] != answers[1]["score"]
