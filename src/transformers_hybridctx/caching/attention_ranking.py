# SPDX-License-Identifier: Apache-2.0
"""Passages ranked by the model's own attention: from a question to the visual tokens that show them.

The question is read after the pages, from their kept keys and values, and the attention of chosen heads to each visual
token is added up. What a question that asks nothing ("N/A") attends to is taken off, as in-context re-ranking does
(https://arxiv.org/abs/2410.02642). Few heads look things up (retrieval heads, https://arxiv.org/abs/2404.15574);
`evaluation/retrieval_heads.py` measures which.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from ..modules.loading import base_model
from ..planning.passages import telling_passages
from ..planning.policies.attention import AttentionPolicy
from ..processing_hybridctx import HybridCtxProcessor
from ..rendering.characters import CharRange
from ..rendering.paged_text import PagedText
from ..rendering.visual_token_maps import Grid, visual_tokens_of_characters
from .document_cache import DocumentCache
from .model_lock import model_lock
from .prefix import PrefixCache

ASKS_NOTHING = "N/A"
_TOKENS_AT_ONCE = 32
"""Tokens of the question that attend at a time, which bounds the scores in memory: heads x these x the context."""


def rank_by_attention(
    model: Any, processor: HybridCtxProcessor, cache: DocumentCache, question: str, policy: AttentionPolicy
) -> tuple[AttentionPolicy, PrefixCache | None]:
    """
    The policy with its `ranking`: the document's passages, those first that the question attends to most.

    Args:
        model ([`HybridCtxForCausalLM`]): which has read the document; an adapter around it is as good.
        cache: the document as it was read, attached to model and processor.

    Returns:
        The policy, and what the decoder made of the question behind the document: where the passages are put behind it
        ("tokens_last"), nothing of it has to be read again. None of page pictures, which have no text to copy.

    Raises:
        ValueError: heads that the model does not have, or a document without pages in its prefix.
    """
    document = cache.plan.document
    if not isinstance(document, PagedText):
        return replace(policy, ranking=()), None
    heads = policy.heads or model.config.retrieval_heads
    to_tokens, grids, asked = _listened(model, processor, cache, question, heads)
    known = _known(cache)
    shown = known.shown
    if shown is None or shown[0] != policy.passage_chars:
        cut = telling_passages(document.text, policy.passage_chars)
        known.shown = shown = policy.passage_chars, cut, _visual_tokens(cache, cut, grids)
    _, passages, tokens = shown
    best = np.argsort(-_means(to_tokens, tokens).mean(0), kind="stable")[: policy.top_k]
    return replace(policy, ranking=tuple(passages[index] for index in best.tolist())), asked


@dataclass(eq=False)
class _Known:
    """
    What each question about a reading needs again.

    Attributes:
        nothing: the attention of a question that asks nothing, as [`read_question`] returns it.
        shown: `passage_chars`, the passages, and the visual tokens of each.
    """

    nothing: torch.Tensor | None = None
    shown: tuple[int, list[CharRange], list[list[int]]] | None = None


_KNOWN: WeakKeyDictionary[DocumentCache, _Known] = WeakKeyDictionary()
_LOCK = Lock()


def _known(cache: DocumentCache) -> _Known:
    with _LOCK:
        return _KNOWN.setdefault(cache, _Known())


def passage_scores(
    model: Any,
    processor: HybridCtxProcessor,
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
    to_tokens, grids, _ = _listened(model, processor, cache, question, heads)
    return _means(to_tokens, _visual_tokens(cache, passages, grids))


def question_attention(
    model: Any,
    processor: HybridCtxProcessor,
    cache: DocumentCache,
    question: str,
    heads: Sequence[Sequence[int]] | None,
) -> tuple[np.ndarray, list[Grid]]:
    """
    What each head attends to on the pages because of a question: more than one that asks nothing pays each visual token.

    Args:
        heads: (layer, head) of those to listen to; None: all.

    Returns:
        float64 `[heads, visual tokens]`, page after page, and each page's (rows, columns) of visual tokens.

    Raises:
        ValueError: heads that the model does not have, or a document without pages in its prefix.
    """
    return _listened(model, processor, cache, question, heads)[:2]


def _listened(
    model: Any,
    processor: HybridCtxProcessor,
    cache: DocumentCache,
    question: str,
    heads: Sequence[Sequence[int]] | None,
) -> tuple[np.ndarray, list[Grid], PrefixCache]:
    """What [`question_attention`] returns, and the question as it was read."""
    if cache.plan.latents:
        raise ValueError(
            "the policy 'attention' ranks passages by the attention to the pages that show them, and latents stand for "
            f"the first {cache.plan.latents[-1].end:,} characters; leave latent_share out, or choose 'bm25' or 'anchors'"
        )
    grids_thw = cache.prefix.image_grid_thw
    if grids_thw is None:
        raise ValueError("the document was read without pages (visual_share=0): there is nothing to attend to")

    def heard(words: str) -> tuple[torch.Tensor, PrefixCache]:
        return read_question(model, cache.prefix, cache.prompt(processor, words, text_policy="none")[0])

    known = _known(cache)
    if known.nothing is None:
        known.nothing = heard(ASKS_NOTHING)[0]
    (asked, read), nothing = heard(question), known.nothing
    to_tokens = (asked - nothing)[_indices(heads, *asked.shape[:2])].double().numpy()
    merge_size = processor.image_processor.merge_size
    return to_tokens, [(h // merge_size, w // merge_size) for _, h, w in grids_thw.tolist()], read


def read_question(model: Any, prefix: PrefixCache, input_ids: Sequence[int]) -> tuple[torch.Tensor, PrefixCache]:
    """
    How much of its attention each head pays to each visual token, averaged over what follows the prefix.

    The model runs with whatever attention it has, fused ones too, which show no weights: these are worked out again from
    the hidden states and the keys in the cache. Nothing on the model is switched, so other threads may use it meanwhile.

    Args:
        prefix: the pages, read by this model.
        input_ids: a whole prompt that begins with the prefix.

    Returns:
        float32 `[layers, heads, visual tokens]` on the CPU; and what follows the prefix, as the decoder keeps it.
    """
    ours = base_model(model)
    features = prefix.features([input_ids], None).to(ours.device)
    past = features["past_key_values"]
    length = past.get_seq_length()
    if not length:
        raise ValueError("the prompt does not begin with the pages that were read: build it with DocumentCache.prompt")
    ids, types = features["input_ids"], features["mm_token_type_ids"]
    positions, _ = ours.model.get_rope_index(ids, types, image_grid_thw=features["image_grid_thw"])
    tower = ours.model.language_model
    visual_tokens = (prefix.input_ids[:length] == prefix.image_token_id).nonzero().flatten()
    sums = [torch.zeros(0)] * len(tower.layers)
    with torch.no_grad(), model_lock(ours):
        for start in range(length, len(input_ids), _TOKENS_AT_ONCE):
            chunk = slice(start, start + _TOKENS_AT_ONCE)
            output = ours(
                input_ids=ids[:, chunk],
                position_ids=positions[..., chunk],
                past_key_values=past,
                logits_to_keep=1,
                output_hidden_states=True,
            )
            for index, layer in enumerate(tower.layers):
                rotary = tower.rotary_emb(output.hidden_states[index], position_ids=positions[..., chunk])
                weights = attention_weights(layer, output.hidden_states[index], rotary, past.layers[index].keys)
                heard = weights[0][:, :, visual_tokens.to(weights.device)].sum(1).float().cpu()
                sums[index] = heard if start == length else sums[index] + heard
    read = PrefixCache(
        torch.tensor(input_ids[length:]),
        prefix.image_token_id,
        None,
        tuple((layer.keys[..., length:, :].clone(), layer.values[..., length:, :].clone()) for layer in past.layers),
    )
    return torch.stack(sums) / (len(input_ids) - length), read


def attention_weights(
    layer: Any, hidden_states: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor], keys: torch.Tensor
) -> torch.Tensor:
    """
    The weights with which a decoder layer's heads attend, as eager attention computes them.

    Args:
        layer: of a GLM-4V-family text tower.
        hidden_states: what goes into the layer for the last `queries` tokens, `[1, queries, hidden_size]`.
        rotary: cosine and sine of their positions, as the tower's `rotary_emb` gives them.
        keys: of all tokens, these included, as the cache holds them, `[1, key heads, tokens, head_dim]`.

    Returns:
        `[1, heads, queries, tokens]`, in the type of the hidden states.
    """
    attention = layer.self_attn
    queries = attention.q_proj(layer.input_layernorm(hidden_states))
    queries = queries.view(1, hidden_states.shape[1], -1, attention.head_dim).transpose(1, 2)
    # each relative rotates in its own way, by this function of its own module
    rotate = sys.modules[type(attention).__module__].apply_rotary_pos_emb
    queries, _ = rotate(queries, queries, *(part.to(queries.device) for part in rotary))
    keys = keys.to(queries.device).repeat_interleave(attention.num_key_value_groups, dim=1)
    scores = queries @ keys.transpose(2, 3) * attention.scaling
    later = torch.ones(scores.shape[2:], dtype=torch.bool, device=scores.device).triu(
        1 + keys.shape[2] - queries.shape[2]
    )
    scores = scores.masked_fill(later, -torch.inf)
    return scores.softmax(dim=-1, dtype=torch.float32).to(hidden_states.dtype)


def _indices(heads: Sequence[Sequence[int]] | None, layers: int, per_layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Layers and heads as indices."""
    if heads is None:
        heads = [(layer, head) for layer in range(layers) for head in range(per_layer)]
    for layer, head in heads:
        if not (0 <= layer < layers and 0 <= head < per_layer):
            raise ValueError(f"the model has no head {(layer, head)}: it has {layers} layers of {per_layer} heads")
    table = torch.tensor([list(head) for head in heads])
    return table[:, 0], table[:, 1]


def _visual_tokens(cache: DocumentCache, passages: Sequence[CharRange], grids: list[Grid]) -> list[list[int]]:
    """Numbers of each passage's visual tokens among all of the prompt's; one that shows nothing counts as the first."""
    document, scale = cache.plan.document, cache.plan.scale
    firsts = np.cumsum([0, *(rows * columns for rows, columns in grids)])
    shown = (visual_tokens_of_characters(document, *passage, grids, scale) for passage in passages)
    return [[int(firsts[page]) + token for page, token in tokens] or [0] for tokens in shown]


def _means(to_tokens: np.ndarray, tokens: Sequence[list[int]]) -> np.ndarray:
    """Mean attention to the visual tokens of each passage, `[heads, passages]`, out of that to all of them."""
    return np.stack([to_tokens[:, some].mean(1) for some in tokens], axis=1)


__all__ = ["attention_weights", "passage_scores", "question_attention", "rank_by_attention", "read_question"]
