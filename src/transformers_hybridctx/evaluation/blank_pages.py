# SPDX-License-Identifier: Apache-2.0
"""The same prompts with nothing on their pages: what a score owes to reading them is the difference."""

from __future__ import annotations

from copy import copy
from typing import Any

from transformers import BatchFeature

WHITE = 255


def with_blank_pages(pipe: Any) -> Any:
    """
    A pipeline of the same model whose pages are white; plans, copied spans and all other tokens are the same.

    Args:
        pipe ([`LongDocQAPipeline`]): stays as it is.
    """
    blind, processor = copy(pipe), copy(pipe.processor)
    drawn = pipe.processor.draw_pages

    def draw_pages(plan: Any, return_tensors: str | None = None) -> BatchFeature:
        features: BatchFeature = drawn(plan, return_tensors)
        features["pixel_values"][...] = WHITE  # uint8, as pages enter the model
        return features

    processor.draw_pages = draw_pages
    blind.processor = processor
    return blind


__all__ = ["with_blank_pages"]
