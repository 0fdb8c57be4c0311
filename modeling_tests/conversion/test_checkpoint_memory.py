# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of `benchmarks/checkpoint_memory.py` against the bytes of models that are loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import checkpoint_memory
import pytest
import torch
from checkpoint_memory import bytes_held, memory_of, on_gpu, published_configs, save_random_checkpoint
from tiny_checkpoints import FAMILIES, FOUR_BIT_TEXT, save_source
from transformers import PreTrainedTokenizerFast

from transformers_hybridctx import HybridCtxConfig, HybridCtxForCausalLM
from transformers_hybridctx.conversion.configs import hybridctx_config
from transformers_hybridctx.conversion.convert import convert_checkpoint
from transformers_hybridctx.modules.quantization import four_bit_config


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [False, True])
def test_arithmetic_is_what_a_loaded_model_holds(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, family: str, tied: bool
) -> None:
    kwargs: dict[str, Any] = {"text_fields": FOUR_BIT_TEXT, "tie_word_embeddings": tied}
    save_source(tmp_path / "source", tokenizer, family, torch.bfloat16, **kwargs)
    convert_checkpoint(str(tmp_path / "source"), tmp_path / "full")
    told = memory_of(HybridCtxConfig.from_pretrained(tmp_path / "full"))
    model = HybridCtxForCausalLM.from_pretrained(tmp_path / "full")
    assert told["bytes_bfloat16"] == bytes_held(model) == 2 * told["parameters"]
    output = model(input_ids=torch.ones(1, 10, dtype=torch.long), use_cache=True)
    cached = sum(layer.keys.nbytes + layer.values.nbytes for layer in output.past_key_values.layers)
    assert told["bytes_cache_1000_tokens"] == 100 * cached
    config = four_bit_config(tmp_path / "full")
    rounded = HybridCtxForCausalLM.from_pretrained(tmp_path / "full", quantization_config=config)
    assert told["bytes_4_bit"] == bytes_held(rounded) < told["bytes_bfloat16"]


def test_published_shapes_take_what_the_readme_says() -> None:
    rows = {name: memory_of(hybridctx_config(config, {})) for name, config in published_configs().items()}
    large, small = rows["GLM-4.1V-9B, Glyph"], rows["GLM-OCR"]
    assert (large["parameters"], small["parameters"]) == (10_292_777_472, 1_107_405_824)
    assert large["bytes_cache_1000_tokens"] == 40_960_000
    assert (large["bytes_4_bit"], small["bytes_4_bit"]) == (8_478_393_344, 1_486_603_264)


def test_the_random_checkpoint_is_one_that_converts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2}
    text = {**checkpoint_memory.GLM_OCR["text_config"], **small, "vocab_size": 8192, "head_dim": 128}
    vision = {"hidden_size": 32, "depth": 1, "out_hidden_size": 64, "intermediate_size": 32, "num_heads": 2}
    monkeypatch.setitem(checkpoint_memory.GLM_OCR, "text_config", text)
    monkeypatch.setitem(checkpoint_memory.GLM_OCR, "vision_config", vision)
    save_random_checkpoint(tmp_path / "source", 0.004)
    report = convert_checkpoint(str(tmp_path / "source"), tmp_path / "target", load_in_4bit=True)
    assert report["num_shards"] > 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_arithmetic_is_what_a_gpu_allocates() -> None:
    config = hybridctx_config(published_configs()["GLM-OCR"], {})
    told, found = memory_of(config), on_gpu(config)
    for name, size in found.items():
        assert size == pytest.approx(told[name], rel=0.02)
