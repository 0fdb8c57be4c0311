# SPDX-License-Identifier: Apache-2.0
"""What hybridctx-tiny is made of: its tokenizer, its architecture, its render configuration and its initial weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PATCH_SIZE = 18
MERGE_SIZE = 2
VISUAL_TOKEN = PATCH_SIZE * MERGE_SIZE
"""Side of the square that one visual token shows, in pixels: 6 columns x 3 lines of characters."""
COLUMNS_PER_TOKEN, LINES_PER_TOKEN = 6, 3

RENDER_CONFIG: dict[str, Any] = {
    "page_width": 16 * VISUAL_TOKEN,
    "page_height": 21 * VISUAL_TOKEN,
    "margin_x": 0,
    "margin_y": 0,
    "font_size": 6 * 2048 / 1233,  # DejaVu Sans Mono advances 1233/2048 em: 6 px a character at 72 dpi
    "line_height": 12,
    "page_multiple": VISUAL_TOKEN,
    "auto_crop_last_page": True,
    "newline_markup": "¶",
}

SPECIAL_TOKENS = (
    "<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>",
    "<|begin_of_image|>", "<|end_of_image|>", "<|image|>", "<|begin_of_video|>", "<|end_of_video|>", "<|video|>",
)  # fmt: skip
VOCAB_SIZE = 4096

CHAT_TEMPLATE = """[gMASK]<sop>
{%- for message in messages -%}
<|{{ message.role }}|>
{% if message.content is string -%}
{{ message.content }}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}<|begin_of_image|><|image|><|end_of_image|>
{%- elif part.type == 'text' -%}{{ part.text }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|assistant|>
{% endif -%}"""


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


def config_fields(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Keyword arguments of the checkpoint's `HybridCtxConfig` (2.4M decoder, 1.5M tower and merger, 1M embeddings)."""
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    end = [ids["<|endoftext|>"], ids["<|user|>"]]
    return {
        "text_config": {
            "model_type": "glm4v_text",
            "vocab_size": len(tokenizer),
            "hidden_size": 256,
            "intermediate_size": 640,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 32768,
            # One frequency in turn to time, height and width: each axis has fine and coarse ones. In sections, as the
            # large models have it, the width would get only frequencies too low to tell neighbours in a small model.
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.5,
                "mrope_section": [1] * 16,
            },
            "pad_token_id": ids["<|endoftext|>"],
            "eos_token_id": end,
        },
        "vision_config": {
            "model_type": "glm4v_vision",
            "depth": 4,
            "hidden_size": 192,
            "num_heads": 4,
            "patch_size": PATCH_SIZE,
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
def initialise(model: torch.nn.Module) -> None:
    """Make the initial weights fit a narrow model.

    The norms behind each sublayer start small, so that the residual stream carries the token embeddings at first, and
    the learned position table of the tower starts at zero: pages differ in height, and the table is stretched over each.
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
