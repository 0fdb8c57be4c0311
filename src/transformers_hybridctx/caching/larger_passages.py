# SPDX-License-Identifier: Apache-2.0
"""A closer look at pages: passages cut out of them, drawn larger, to stand behind the question."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..planning.budget import ContextBudgetError
from ..planning.plan import ContextPlan, Omission
from ..planning.policies.attention import AttentionPolicy
from ..processing_hybridctx import HybridCtxProcessor
from ..prompting.pages import drawn_page
from ..rendering.characters import CharRange
from .document_cache import DocumentCache

_MARGIN = 2
"""Pixels around what is cut out, at scale 1."""


def check_zoom(document: Any, policy: AttentionPolicy, fusion_order: str | None) -> None:
    """
    Raises:
        ValueError: passages cannot be drawn larger behind the question, as the policy's `zoom` asks.
    """
    if policy.zoom is None:
        return
    if fusion_order != "tokens_last":
        raise ValueError(
            f"zoom={policy.zoom:g} draws what is looked at behind the question: give fusion_order='tokens_last', as "
            "look_closer does"
        )
    if document.only_scale is not None:
        raise ValueError(
            f"zoom={policy.zoom:g} draws passages larger, and these pages have no other scale than "
            f"{document.only_scale:g} (their characters fill cells): look closer at tokens instead"
        )


def larger_pictures(document: Any, passage: CharRange, scale: float) -> list[np.ndarray]:
    """A passage as its pages show it at a scale: uint8 `[height, width]` or `[height, width, 3]`, a picture a page."""
    boxes: dict[int, list[Any]] = {}
    for page, box in document.boxes(*passage, scale):
        boxes.setdefault(page, []).append(box)
    pictures, margin = [], _MARGIN * scale
    for page, on_page in boxes.items():
        lefts, tops, rights, bottoms = zip(*on_page, strict=True)
        rows = slice(max(0, math.floor(min(tops) - margin)), math.ceil(max(bottoms) + margin))
        columns = slice(max(0, math.floor(min(lefts) - margin)), math.ceil(max(rights) + margin))
        pictures.append(np.ascontiguousarray(drawn_page(document, page, scale)[rows, columns]))
    return pictures


def prompt_with_larger_passages(
    cache: DocumentCache, processor: HybridCtxProcessor, question: str, policy: AttentionPolicy, **context: Any
) -> tuple[list[int], ContextPlan, Mapping[str, Any] | None]:
    """
    A prompt in which the best passages stand behind the question, `policy.zoom` times larger, and the question again.

    Of passages for which the budget has no room the worst are left out, as the plan says.

    Args:
        policy: ranked.
        context: as in [`DocumentCache.prompt`], but for its `text_policy`.

    Returns:
        Token ids; the plan; and `pixel_values` and `image_grid_thw` of the pictures, None where there are none.

    Raises:
        ContextBudgetError, ValueError: as [`DocumentCache.prompt`] and [`check_zoom`].
    """
    check_zoom(cache.plan.document, policy, context.pop("fusion_order", None))
    assert policy.zoom is not None
    document, ranking = cache.plan.document, list(policy.ranking or ())
    scale = cache.plan.scale * policy.zoom
    drawn = {passage: larger_pictures(document, passage, scale) for passage in ranking}
    for count in range(len(ranking), -1, -1):
        looked_at = sorted(ranking[:count])
        pictures = [picture for passage in looked_at for picture in drawn[passage]]
        try:
            input_ids, plan = cache.prompt(processor, question, text_policy="none", pictures=pictures, **context)
            break
        except ContextBudgetError:
            if not count:
                raise
    missed = tuple(Omission(*passage, "not copied") for passage in sorted(ranking[count:]))
    plan = replace(plan, policy=policy.name, looked_at=tuple(looked_at), omitted=(*plan.omitted, *missed))
    return input_ids, plan, processor.image_processor(images=pictures, return_tensors="pt") if pictures else None


__all__ = ["check_zoom", "larger_pictures", "prompt_with_larger_passages"]
