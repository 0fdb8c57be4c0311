# SPDX-License-Identifier: Apache-2.0
"""Planned prompts for engines that are not transformers: tokens with one placeholder for each page, and the pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..planning.plan import ContextPlan
from ..processing_hybridctx import HybridCtxProcessor
from ..prompting.pages import drawn_pages


@dataclass(frozen=True, eq=False)
class EnginePrompt:
    """
    One question about a document, as engines take it that put pages where their placeholders are.

    Attributes:
        token_ids: the prompt, with one image token for each page.
        pages: in the order of their placeholders.
        plan: what the prompt is made of; `plan.total_tokens` is its length once pages have taken their places.
    """

    token_ids: list[int]
    pages: list[Image.Image]
    plan: ContextPlan

    @classmethod
    def of(cls, processor: HybridCtxProcessor, document: Any, question: str | None, **context: Any) -> EnginePrompt:
        """
        Plan and write a prompt, and draw its pages.

        Args:
            document, question, context: as in `processor(document=..., question=...)`.

        Raises:
            ContextBudgetError, ValueError, TypeError: as there.
        """
        features, plan = processor(document=document, question=question, draw_pages=False, return_plan=True, **context)
        return cls.planned(processor, features["input_ids"][0], plan)

    @classmethod
    def planned(cls, processor: HybridCtxProcessor, input_ids: list[int], plan: ContextPlan) -> EnginePrompt:
        """
        The same of a prompt that is written already: all its tokens, and its plan.

        Raises:
            ValueError: a plan with latents, which engines have no input for.
        """
        if plan.latents:
            raise ValueError(
                f"the plan gives {len(plan.latents)} chunks of the document to latents, which an engine has no input "
                "for: leave latent_share out"
            )
        pages = drawn_pages(plan.document, plan.scale) if plan.num_pages else ()
        token_ids = _one_a_page(input_ids, processor.image_token_id)
        found = cls(token_ids, [_picture(page) for page in pages], plan)
        if token_ids.count(processor.image_token_id) != len(found.pages):
            raise RuntimeError(f"the prompt has other places for pages than the {len(found.pages)} of its plan")
        return found

    def for_vllm(self) -> dict[str, Any]:
        """What `LLM.generate` and `AsyncLLM.generate` take as a prompt."""
        prompt: dict[str, Any] = {"prompt_token_ids": self.token_ids}
        return prompt | ({"multi_modal_data": {"image": self.pages}} if self.pages else {})


def _one_a_page(input_ids: list[int], image_token_id: int) -> list[int]:
    """The tokens with one image token in place of each page's: templates frame pages, so that no two runs touch."""
    before = [-1, *input_ids]
    return [token for token, last in zip(input_ids, before) if token != image_token_id or last != image_token_id]


def _picture(page: Any) -> Image.Image:
    return page if isinstance(page, Image.Image) else Image.fromarray(np.asarray(page))


__all__ = ["EnginePrompt"]
