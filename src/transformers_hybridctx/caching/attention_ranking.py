# SPDX-License-Identifier: Apache-2.0
"""Passages ranked by the model's own attention: from a question to the visual tokens that show them.

The question is read after the pages, from their kept keys and values, and the attention of chosen heads to each visual
token is added up. What a question that asks nothing ("N/A") attends to is taken off, as in-context re-ranking does
(https://arxiv.org/abs/2410.02642). Few heads look things up (retrieval heads, https://arxiv.org/abs/2404.15574);
`evaluation/retrieval_heads.py` measures which.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask
from transformers.models.glm4v.modeling_glm4v import eager_attention_forward

from ..planning.passages import passages_of
from ..planning.policies.attention import AttentionPolicy
from ..rendering.characters import CharRange
from ..rendering.paged_text import PagedText
from ..rendering.visual_token_maps import visual_tokens_of_characters
from .document_cache import DocumentCache
from .prefix import PrefixCache

ASKS_NOTHING = "N/A"
_TOKENS_AT_ONCE = 32
"""Tokens of the question that attend at a time, which bounds the scores in memory: heads x these x the context."""
_IMPLEMENTATION = "hybridctx_listening"


def rank_by_attention(
    model: Any, processor: Any, cache: DocumentCache, question: str, policy: AttentionPolicy
) -> AttentionPolicy:
    """
    The policy with its `ranking`: the document's passages, those first that the question attends to most.

    Args:
        model ([`HybridCtxForCausalLM`]): which has read the document; an adapter around it is as good.
        cache: the document as it was read, attached to model and processor.

    Raises:
        ValueError: heads that the model does not have, or a document without pages in its prefix.
    """
    document = cache.plan.document
    if not isinstance(document, PagedText):
        return replace(policy, ranking=())  # page pictures have no text to copy
    heads = policy.heads or model.config.retrieval_heads
    passages = passages_of(document.text, policy.passage_chars)
    scores = passage_scores(model, processor, cache, question, passages, heads).mean(0)
    best = np.argsort(-scores, kind="stable")[: policy.top_k]
    return replace(policy, ranking=tuple(passages[index] for index in best.tolist()))


def passage_scores(
    model: Any,
    processor: Any,
    cache: DocumentCache,
    question: str,
    passages: Sequence[CharRange],
    heads: Sequence[Sequence[int]] | None,
) -> np.ndarray:
    """
    Mean attention of each head to the visual tokens of each passage, more than a question that asks nothing pays them.

    Args:
        passages: characters [start, end) of the document's text.
        heads: (layer, head) of those to listen to; None: all.

    Returns:
        float64 `[heads, passages]`.
    """
    grids_thw = cache.prefix.image_grid_thw
    if grids_thw is None:
        raise ValueError("the document was read without pages (visual_share=0): there is nothing to attend to")
    asked, nothing = (
        attention_to_pages(model, cache.prefix, cache.prompt(processor, words, text_policy="none")[0])
        for words in (question, ASKS_NOTHING)
    )
    to_tokens = (asked - nothing)[_indices(heads, *asked.shape[:2])].double().numpy()
    document: PagedText = cache.plan.document
    merge_size = processor.image_processor.merge_size
    grids = [(h // merge_size, w // merge_size) for _, h, w in grids_thw.tolist()]
    firsts = np.cumsum([0, *(rows * columns for rows, columns in grids)])
    scores = [
        to_tokens[:, _tokens_of(document, passage, grids, firsts, cache.plan.scale)].mean(1) for passage in passages
    ]
    return np.stack(scores, axis=1)


def attention_to_pages(model: Any, prefix: PrefixCache, input_ids: Sequence[int]) -> torch.Tensor:
    """
    How much of its attention each head pays to each visual token, averaged over what follows the prefix.

    Args:
        prefix: the pages, read by this model.
        input_ids: a whole prompt that begins with the prefix.

    Returns:
        float32 `[layers, heads, visual tokens]` on the CPU.
    """
    ours = model.get_base_model() if hasattr(model, "get_base_model") else model
    features = prefix.features([input_ids], None).to(ours.device)
    past = features["past_key_values"]
    length = past.get_seq_length()
    if not length:
        raise ValueError("the prompt does not begin with the pages that were read: build it with DocumentCache.prompt")
    ids, types = features["input_ids"], features["mm_token_type_ids"]
    positions, _ = ours.model.get_rope_index(ids, types, image_grid_thw=features["image_grid_thw"])
    listener = _Listener((prefix.input_ids[:length] == prefix.image_token_id).nonzero().flatten())
    with torch.no_grad(), _listening(ours.model.language_model.config):
        for start in range(length, len(input_ids), _TOKENS_AT_ONCE):
            chunk = slice(start, start + _TOKENS_AT_ONCE)
            ours(
                input_ids=ids[:, chunk],
                position_ids=positions[..., chunk],
                past_key_values=past,
                logits_to_keep=1,
                listener=listener,
            )
    layers = [listener.mass[layer] for layer in sorted(listener.mass)]
    return torch.stack(layers) / (len(input_ids) - length)


class _Listener:
    """Adds up each layer's attention to the visual tokens: `mass[layer]` is float32 `[heads, visual tokens]`."""

    def __init__(self, visual_tokens: torch.Tensor) -> None:
        self.visual_tokens = visual_tokens
        self.mass: dict[int, torch.Tensor] = {}

    def hear(self, layer: int, weights: torch.Tensor) -> None:
        """Attention weights `[1, heads, queries, keys]`."""
        heard = weights[0][:, :, self.visual_tokens.to(weights.device)].sum(1).float().cpu()
        self.mass[layer] = self.mass[layer] + heard if layer in self.mass else heard


def _attend_and_listen(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, *, listener: _Listener, **kwargs: Any
) -> tuple[torch.Tensor, None]:
    output, weights = eager_attention_forward(module, query, key, value, attention_mask, **kwargs)
    listener.hear(module.layer_idx, weights)
    return output, None


AttentionInterface.register(_IMPLEMENTATION, _attend_and_listen)
AttentionMaskInterface.register(_IMPLEMENTATION, eager_mask)


@contextmanager
def _listening(text_config: Any) -> Iterator[None]:
    before = text_config._attn_implementation
    text_config._attn_implementation = _IMPLEMENTATION
    try:
        yield
    finally:
        text_config._attn_implementation = before


def _indices(heads: Sequence[Sequence[int]] | None, layers: int, per_layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Layers and heads as indices."""
    if heads is None:
        heads = [(layer, head) for layer in range(layers) for head in range(per_layer)]
    for layer, head in heads:
        if not (0 <= layer < layers and 0 <= head < per_layer):
            raise ValueError(f"the model has no head {(layer, head)}: it has {layers} layers of {per_layer} heads")
    table = torch.tensor([list(head) for head in heads])
    return table[:, 0], table[:, 1]


def _tokens_of(
    document: PagedText, passage: CharRange, grids: list[tuple[int, int]], firsts: np.ndarray, scale: float
) -> list[int]:
    """Numbers of a passage's visual tokens among all of the prompt's; one that shows nothing counts as the first."""
    tokens = visual_tokens_of_characters(document, *passage, grids, scale)
    return [int(firsts[page]) + token for page, token in tokens] or [0]


__all__ = ["attention_to_pages", "passage_scores", "rank_by_attention"]
