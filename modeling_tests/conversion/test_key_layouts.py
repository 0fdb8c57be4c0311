# SPDX-License-Identifier: Apache-2.0
"""Keys and sizes of the published checkpoints, without their weights."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from checkpoint_memory import published_configs
from tiny_checkpoints import (
    FAMILIES,
    tiny_config,
)
from transformers import (
    Glm4vConfig,
    PreTrainedTokenizerFast,
)

from transformers_hybridctx.conversion.configs import hybridctx_config, source_config
from transformers_hybridctx.conversion.key_layouts import parameter_shapes
from transformers_hybridctx.conversion.sources import Checkpoint


@pytest.mark.parametrize("family", FAMILIES)
def test_keys_are_those_of_transformers_own_classes(family: str, tokenizer: PreTrainedTokenizerFast) -> None:
    """A release of transformers that renames weights must not go unnoticed."""
    config = tiny_config(family, tokenizer)
    with torch.device("meta"):
        theirs = {key: tuple(value.shape) for key, value in FAMILIES[family][1](config).state_dict().items()}
    assert parameter_shapes(hybridctx_config(config, {})) == theirs
    assert {key.split(".")[0] for key in theirs} == {"model", "lm_head"}
    for key in (
        "model.visual.patch_embed.proj.weight",
        "model.visual.blocks.1.attn.qkv.weight",
        "model.visual.merger.proj.weight",
        "model.visual.downsample.weight",
        "model.language_model.embed_tokens.weight",
        "model.language_model.layers.1.self_attn.q_proj.weight",
        "model.language_model.layers.1.mlp.gate_up_proj.weight",
        "model.language_model.layers.1.post_mlp_layernorm.weight",
        "model.language_model.norm.weight",
        "lm_head.weight",
    ):
        assert key in theirs


@pytest.mark.parametrize(
    ("name", "num_parameters"), [("GLM-4.1V-9B, Glyph", 10_292_777_472), ("GLM-OCR", 1_107_405_824)]
)
def test_published_sizes_have_transformers_own_keys_and_counts(name: str, num_parameters: int) -> None:
    config = published_configs()[name]
    model_class = FAMILIES[config.model_type][1]
    with torch.device("meta"):
        theirs = {key: tuple(value.shape) for key, value in model_class(config).state_dict().items()}
    ours = parameter_shapes(hybridctx_config(config, {}))
    assert ours == theirs
    assert sum(map(math.prod, ours.values())) == num_parameters


def test_a_published_config_of_an_old_release_gives_the_same_model(tmp_path: Path) -> None:
    """GLM-4.1V-9B-Thinking's first config had the text tower's fields at its top."""
    old = {
        "architectures": ["Glm4vForConditionalGeneration"],
        "model_type": "glm4v",
        "hidden_size": 4096,
        "intermediate_size": 13696,
        "num_hidden_layers": 40,
        "num_attention_heads": 32,
        "num_key_value_heads": 2,
        "vocab_size": 151552,
        "partial_rotary_factor": 0.5,
        "rope_theta": 10000.0,
        "rope_scaling": {"type": "default", "mrope_section": [8, 12, 12]},
        "tie_word_embeddings": False,
        "image_token_id": 151343,
        "vision_config": {"hidden_size": 1536, "depth": 24, "num_heads": 12, "out_hidden_size": 4096},
    }
    tensors = dict.fromkeys(map(str, range(704)))
    checkpoint = Checkpoint("old", tmp_path, None, old, tensors)  # type: ignore[arg-type]
    config = hybridctx_config(source_config(checkpoint), {})
    assert parameter_shapes(config) == parameter_shapes(hybridctx_config(Glm4vConfig(), {}))
    assert config.text_config.rope_parameters["mrope_section"] == [8, 12, 12]
    assert config.text_config.rope_parameters["partial_rotary_factor"] == 0.5
