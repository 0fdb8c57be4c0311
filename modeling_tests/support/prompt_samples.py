# SPDX-License-Identifier: Apache-2.0
"""A document of some pages, a question about it, and prompts as texts."""

from __future__ import annotations

from typing import Any

from transformers_hybridctx import HybridCtxProcessor

DOCUMENT = (
    "It was the best of times, it was the worst of times. " * 6
    + "The special magic number for green-lemur is: 4821930. "
    + "It was the age of wisdom, it was the age of foolishness. " * 6
)
QUESTION = "What is the special magic number for green-lemur?"


def decode(processor: HybridCtxProcessor, ids: Any) -> str:
    """The prompt with every picture written as one image token."""
    text = processor.tokenizer.decode(ids)
    while "<|image|><|image|>" in text:
        text = text.replace("<|image|><|image|>", "<|image|>")
    return text
