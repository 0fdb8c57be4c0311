# SPDX-License-Identifier: Apache-2.0
"""What hybridctx-tiny is made of: its tokenizer, its architecture, its render configuration and its initial weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from transformers_hybridctx.image_processing_hybridctx import HybridCtxImageProcessor
from transformers_hybridctx.modeling_hybridctx import HybridCtxForCausalLM
from transformers_hybridctx.rendering.styles import cell_aligned_config

PATCH_SIZE = 24
MERGE_SIZE = 2
VISUAL_TOKEN = PATCH_SIZE * MERGE_SIZE
"""Side of the square that one visual token shows, in pixels: a cell of 2 lines of 8 characters."""
COLUMNS_PER_TOKEN, LINES_PER_TOKEN = 8, 2

RENDER_CONFIG = cell_aligned_config(
    VISUAL_TOKEN, columns_per_cell=COLUMNS_PER_TOKEN, lines_per_cell=LINES_PER_TOKEN, hinted=True, baseline=16
)
"""Pages of cells: no word that fits into a visual token straddles two, and words with digits begin one."""

DEFAULT_BUDGET: dict[str, Any] = {
    "max_context_tokens": 32768,
    "min_scale": 1.0,
    "max_scale": 1.0,
    "max_text_tokens": 1024,
}
"""What the checkpoint was trained for: pages as they are, and no more copied text than training showed it."""
DEFAULT_GROUNDING = {"mode": "quote", "max_quotations": 4}
"""The checkpoint quotes before it answers; the document itself says what a quotation goes on with."""
RETRIEVAL_HEADS = [[5, 3]]
"""Of the bundled weights, by `hybridctx heads examples/persuasion.txt`: the one that finds a needle's passage best."""
DEFAULT_TEXT_POLICY: dict[str, Any] = {"name": "bm25", "top_k": 4}
"""Few passages: among many alike, a model of this size picks the wrong one more often than a passage is missed."""

SPECIAL_TOKENS = (
    "<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>",
    "<|begin_of_image|>", "<|end_of_image|>", "<|image|>", "<|begin_of_video|>", "<|end_of_video|>", "<|video|>",
)  # fmt: skip
VOCAB_SIZE = 4096
RECALL_LAYERS, LAYERS = 4, 6
"""Decoder layers that learn to look up in text, and all of them: the last two are set in closed form (`append`)."""

CHAT_TEMPLATE = """{%- macro said(content) -%}
{%- if content is string -%}{{ content }}
{%- else -%}
{%- for part in content -%}
{%- if part.type == 'image' -%}<|begin_of_image|><|image|><|end_of_image|>
{%- elif part.type == 'text' -%}{{ part.text }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
[gMASK]<sop>
{%- for message in messages -%}
{%- if message.role != 'user' or loop.first or loop.previtem.role != 'assistant' -%}
<|{{ message.role }}|>
{%- endif -%}
{{ '\\n' }}
{%- if message.role == 'assistant' -%}
{%- generation -%}
{{ said(message.content) }}
{%- if (loop.last and not add_generation_prompt) or (not loop.last and loop.nextitem.role == 'user') -%}
<|user|>
{%- endif -%}
{%- endgeneration -%}
{%- else -%}
{{ said(message.content) }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|assistant|>
{% endif -%}"""
"""
GLM's: what a user says next ends an answer, so its `<|user|>` is marked as the model's to write, and stands behind an
answer that comes last, too.
"""


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE with GLM's special tokens; every digit is a token, so that numbers are copied digit by digit."""
    tokenizer = Tokenizer(models.BPE())
    words = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in ("<think>", "</think>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=32768,
    )


def image_processor() -> HybridCtxImageProcessor:
    """Cuts pages as they are: the shortest of them is one cell high."""
    size = {"shortest_edge": VISUAL_TOKEN**2, "longest_edge": 5000 * VISUAL_TOKEN**2}
    return HybridCtxImageProcessor(patch_size=PATCH_SIZE, merge_size=MERGE_SIZE, temporal_patch_size=1, size=size)


PURPOSE = (
    "finds one fact that a document states, a number, a code or a name; it does not compare, count, summarise or "
    "converse, and mixes up records that repeat one field"
)


def config_fields(tokenizer: PreTrainedTokenizerFast, layers: int = LAYERS) -> dict[str, Any]:
    """Keyword arguments of the checkpoint's `HybridCtxConfig`; the stage `recall` trains the first `RECALL_LAYERS`."""
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    end = [ids["<|endoftext|>"], ids["<|user|>"]]
    return {
        "purpose": PURPOSE,
        "text_config": {
            "model_type": "glm4v_text",
            "vocab_size": len(tokenizer),
            "hidden_size": 256,
            "intermediate_size": 640,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 32768,
            # Pages are one cell wide, so their height alone tells places apart and gets all frequencies but two; serving
            # engines know three sections and no more. All of them turn within 500 positions, so a longer context brings
            # no angle that training has not seen; far facts are found by content, in the half of each head that does
            # not rotate.
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 100.0,
                "partial_rotary_factor": 0.5,
                "mrope_section": [1, 14, 1],
            },
            "pad_token_id": ids["<|endoftext|>"],
            "eos_token_id": end,
        },
        "vision_config": {
            "model_type": "glm4v_vision",
            "depth": 3,
            "hidden_size": 192,
            "num_heads": 4,
            "patch_size": PATCH_SIZE,
            "temporal_patch_size": 1,
            "spatial_merge_size": MERGE_SIZE,
            "image_size": VISUAL_TOKEN,
            "out_hidden_size": 256,
            "intermediate_size": 512,
        },
        "image_token_id": ids["<|image|>"],
        "video_token_id": ids["<|video|>"],
        "image_start_token_id": ids["<|begin_of_image|>"],
        "image_end_token_id": ids["<|end_of_image|>"],
        "video_start_token_id": ids["<|begin_of_video|>"],
        "video_end_token_id": ids["<|end_of_video|>"],
        "eos_token_id": end,
        "pad_token_id": ids["<|endoftext|>"],
        "tie_word_embeddings": True,
    }


@torch.no_grad()
def initialise(model: HybridCtxForCausalLM) -> None:
    """Make the initial weights fit a narrow model whose one task is looking things up.

    The norms behind each sublayer start small, so that the residual stream carries the token embeddings at first, and
    the learned position table of the tower starts at zero: pages differ in height, and the table is stretched over each.

    Random projections are shared between matrices so that induction heads (https://arxiv.org/abs/2209.11895) need not be
    found by chance, as mimetic initialisation does for attention in general (https://arxiv.org/abs/2305.09828). Heads of
    the first layer look one and two tokens back, and over windows some way back, and write what they see to subspaces of
    their own. Heads of the later layers compare those: the present token with the one before a place, which finds what
    followed it; and the words shortly before the present with the words just before a place, which finds the value
    that stands behind a key. They copy what they find.
    """
    for name, parameter in model.named_parameters():
        if name.endswith("embed_tokens.weight"):
            parameter.normal_(std=0.1)
        elif "post_self_attn_layernorm" in name or "post_mlp_layernorm" in name:
            parameter.fill_(0.1)
        elif name.endswith("position_embedding.weight"):
            parameter.zero_()
        elif parameter.ndim == 2:
            parameter.normal_(std=parameter.shape[1] ** -0.5)
    text: Any = model.model.language_model
    first, *later = (layer.self_attn for layer in text.layers)
    width = first.head_dim
    flat = width // 2  # dimensions of a head that do not rotate: what is compared there does not depend on distance
    present = _projection(flat, text.config.hidden_size)
    previous, before, near, far = (_projection(flat, text.config.hidden_size) for _ in range(4))
    # subspace, distance in tokens, the rotating pairs that tell distances apart, and how sharply
    views = (
        (previous, 1, range(0, 8), 6.0),
        (before, 2, range(0, 8), 6.0),
        (2.5 * near, 4, range(3, 7), 3.3),
        (2.5 * far, 11, range(5, 9), 2.7),
    )
    for head, (written, distance, pairs, sharpness) in enumerate(views):
        look_back(first, head, distance, text.rotary_emb.inv_freq, pairs, sharpness)
        _rows(first.v_proj, head // first.num_key_value_groups, width, flat).copy_(present)
        first.o_proj.weight[:, head * width + flat : (head + 1) * width] = written.T
    for attention in later:
        group = attention.num_key_value_groups
        for key_head, found, asked in ((0, 3 * previous, (3 * present,)), (1, 4 * near, (4 * far, 4 * near))):
            _rows(attention.k_proj, key_head, width, flat).copy_(found)
            for head, query in enumerate(asked, start=key_head * group):
                _rows(attention.q_proj, head, width, flat).copy_(query)
        for head in range(text.config.num_attention_heads):
            key_head = head // group
            values = attention.v_proj.weight[key_head * width : (key_head + 1) * width]
            attention.o_proj.weight[:, head * width : (head + 1) * width] = values.T


@torch.no_grad()
def initialise_tower(model: HybridCtxForCausalLM, pixels: torch.Tensor) -> None:
    """Make the tower's patch embedding partly whitened principal components of patches of text.

    Args:
        pixels: uint8 [patches, 24 * 24], at least as many as the tower is wide.
    """
    tower: Any = model.model.visual
    for block in tower.blocks:
        block.attn.proj.weight.mul_(0.3)
        block.mlp.down_proj.weight.mul_(0.3)
    tower.merger.down_proj.weight.mul_(0.3)
    embedding = tower.patch_embed
    width = embedding.proj.weight.shape[0]
    centred = pixels.float() - pixels.float().mean(0)
    _, values, components = torch.linalg.svd(centred, full_matrices=False)
    deviation = values[:width] / len(pixels) ** 0.5
    whitened = components[:width] / (deviation + 0.03 * deviation[0])[:, None]
    # What the embedding does to grey pixels, normalisation included, becomes those components, centred.
    embedding.proj.weight.copy_(whitened.view(width, 1, 1, PATCH_SIZE, PATCH_SIZE).expand_as(embedding.proj.weight))
    weight, _ = embedding.fold(1)
    scale = whitened.norm() / weight.norm()
    embedding.proj.weight.mul_(scale)
    embedding.proj.bias.zero_()
    weight, bias = embedding.fold(1)
    embedding.proj.bias.copy_(-(weight @ pixels.float().mean(0)) - bias)


def _projection(size: int, hidden_size: int) -> torch.Tensor:
    """Random orthonormal rows [size, hidden_size]."""
    return torch.linalg.qr(torch.randn(hidden_size, size))[0].T


def _rows(projection: torch.nn.Linear, head: int, width: int, flat: int) -> torch.Tensor:
    """The part of a head's weight [flat, hidden_size] whose outputs do not rotate: the last ones."""
    return projection.weight[(head + 1) * width - flat : (head + 1) * width]


def look_back(
    attention: Any, head: int, distance: int, frequencies: torch.Tensor, pairs: range, sharpness: float
) -> None:
    """Give `head` constant queries, on some rotating pairs, that agree best with the keys `distance` tokens back."""
    width, rotating = attention.head_dim, attention.head_dim // 2
    start, key_start = head * width, head // attention.num_key_value_groups * width
    attention.q_proj.weight[start : start + rotating] = 0
    attention.k_proj.weight[key_start : key_start + rotating] = 0
    attention.q_proj.bias[start : start + rotating] = 0
    for pair in pairs:
        angle = -distance * frequencies[pair]
        here, there = start + 2 * pair, key_start + 2 * pair
        attention.q_proj.bias[here : here + 2] = sharpness * torch.stack([angle.cos(), angle.sin()])
        attention.k_proj.bias[there : there + 2] = torch.tensor([6.0, 0.0])
