# SPDX-License-Identifier: Apache-2.0
"""Pages through the vision tower, some at a time: so it can be said how far it is, and stopped on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..progress import tell
from .model_lock import model_lock

_PAGES_AT_ONCE = 4


def page_embeddings(model: Any, pages: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """
    What the decoder gets of each page, `[visual tokens, hidden_size]`.

    Args:
        model ([`HybridCtxForCausalLM`]): an adapter around it is as good.
        pages: `pixel_values` and `image_grid_thw`, as [`~HybridCtxProcessor.draw_pages`] gives them.
    """
    grids, pixels = pages["image_grid_thw"], pages["pixel_values"]
    edges = [0, *grids.prod(dim=1).cumsum(0).tolist()]
    embeddings: list[torch.Tensor] = []
    tell("pages read", 0, len(grids))
    with torch.no_grad(), model_lock(model):
        for first in range(0, len(grids), _PAGES_AT_ONCE):
            some = grids[first : first + _PAGES_AT_ONCE]
            patches = pixels[edges[first] : edges[first + len(some)]]
            embeddings += model.get_image_features(patches, some, return_dict=True).pooler_output
            tell("pages read", len(embeddings), len(grids))
    return tuple(embeddings)


__all__ = ["page_embeddings"]
