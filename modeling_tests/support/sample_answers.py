# SPDX-License-Identifier: Apache-2.0
"""Answers as the pipeline gives them, of a model that says what a test wants."""

from __future__ import annotations

from typing import Any

import torch

from transformers_hybridctx import ContextPlan, HybridCtxProcessor
from transformers_hybridctx.answering.engine import GeneratedAnswer
from transformers_hybridctx.answering.generated import FinishReason
from transformers_hybridctx.answering.results import LongDocAnswer, result_of


def answer_that_says(
    processor: HybridCtxProcessor,
    plan: ContextPlan,
    question: str,
    text: str,
    finish_reason: FinishReason = "stop",
    **options: Any,
) -> LongDocAnswer:
    """
    The result of a text that was generated.

    Args:
        options: `return_pages`, `repair` and `abstain`, as in `result_of`.
    """
    token_ids = torch.tensor(processor.tokenizer.encode(text, add_special_tokens=False), dtype=torch.long)
    generated = GeneratedAnswer(question, plan, token_ids, torch.zeros(len(token_ids)), finish_reason, {"plan": 0.0})
    return result_of(generated, processor.tokenizer, **options)
