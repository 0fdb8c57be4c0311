# SPDX-License-Identifier: Apache-2.0
"""Small random checkpoints of the GLM-4V family, saved by transformers' own classes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Glm4vImageProcessorPil,
    Glm46VConfig,
    Glm46VForConditionalGeneration,
    GlmOcrConfig,
    GlmOcrForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from transformers_hybridctx import HybridCtxForCausalLM, RenderConfig, four_bit_config
from transformers_hybridctx.conversion import convert

FAMILIES: dict[str, tuple[Any, Any, str]] = {
    "glm4v": (Glm4vConfig, Glm4vForConditionalGeneration, "glm4v"),
    "glm46v": (Glm46VConfig, Glm46VForConditionalGeneration, "glm4v"),
    "glm_ocr": (GlmOcrConfig, GlmOcrForConditionalGeneration, "glm_ocr"),
}
IMAGE_SIZES = {"shortest_edge": 28**2, "longest_edge": 2 * 28**2 * 800}


TEXT_TOWER: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 1.0,
        "mrope_section": [2, 2, 2],
    },
}
VISION_TOWER: dict[str, Any] = {
    "depth": 2,
    "hidden_size": 32,
    "num_heads": 2,
    "patch_size": 14,
    "out_hidden_size": 48,
    "intermediate_size": 64,
}
FOUR_BIT_TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "head_dim": 16,
    "rope_parameters": {**TEXT_TOWER["rope_parameters"], "mrope_section": [2, 3, 3]},
}
"""What to change in the text tower so that each of its linear layers can take 4 bits."""


def tiny_config(
    family: str, tokenizer: PreTrainedTokenizerFast, text_fields: dict[str, Any] | None = None, **fields: Any
) -> Any:
    """A config of the family: two decoder layers, two vision layers, patches of 14 x 14 pixels."""
    config_class, _, towers = FAMILIES[family]
    text = {"model_type": f"{towers}_text", "vocab_size": 512, "pad_token_id": 0, **TEXT_TOWER, **(text_fields or {})}
    if towers == "glm4v":
        text["attention_bias"] = True  # published configs say so, and transformers' class takes it for granted
    vision = {
        **VISION_TOWER,
        "model_type": f"{towers}_vision",
        "image_size": 112,
        "out_hidden_size": text["hidden_size"],
    }
    ids = tokenizer.convert_tokens_to_ids(["<|image|>", "<|begin_of_image|>", "<|end_of_image|>"])
    token_ids = dict(zip(("image_token_id", "image_start_token_id", "image_end_token_id"), ids))
    return config_class(text_config=text, vision_config=vision, **token_ids, **fields)


def randomize(model: PreTrainedModel, seed: int = 0) -> PreTrainedModel:
    """Weights large enough that every part of the model shows in the logits."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.2 * noise if parameter.ndim == 1 else noise / math.sqrt(parameter[0].numel()))
    return model.eval()


def save_source(
    folder: Path,
    tokenizer: PreTrainedTokenizerFast,
    family: str = "glm4v",
    dtype: torch.dtype = torch.float32,
    max_shard_size: str = "100KB",
    **fields: Any,
) -> PreTrainedModel:
    """Save a checkpoint as transformers does, in several shards unless told otherwise."""
    model = randomize(FAMILIES[family][1](tiny_config(family, tokenizer, **fields))).to(dtype)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    tokenizer.save_pretrained(folder)
    Glm4vImageProcessorPil(size=IMAGE_SIZES, patch_size=14, merge_size=2).save_pretrained(folder)
    return model


def converted(
    folder: Path,
    tokenizer: PreTrainedTokenizerFast,
    render_config: dict[str, Any],
    family: str = "glm4v",
    **kwargs: Any,
) -> Path:
    """A checkpoint whose decoder can take 4 bits: the folder `full` in `folder`."""
    save_source(folder / "source", tokenizer, family, text_fields=FOUR_BIT_TEXT, **kwargs)
    convert.convert_checkpoint(str(folder / "source"), folder / "full", render_config=RenderConfig(**render_config))
    return folder / "full"


def load_in_four_bits(folder: Path, **kwargs: Any) -> HybridCtxForCausalLM:
    """The checkpoint in a folder with nf4 weights that compute in float32."""
    config = four_bit_config(folder, compute_dtype=torch.float32)
    return HybridCtxForCausalLM.from_pretrained(folder, quantization_config=config, **kwargs)


def edit_json(file: Path, **values: Any) -> None:
    content = json.loads(file.read_text())
    for name, value in values.items():
        content.pop(name, None) if value is None else content.update({name: value})
    file.write_text(json.dumps(content))


def rename_keys(folder: Path, rename: Any) -> None:
    """Save a folder's shards again under the keys that `rename` makes of theirs."""
    for shard in folder.glob("*.safetensors"):
        tensors = {rename(key): tensor for key, tensor in load_file(shard).items()}
        save_file(tensors, shard, metadata={"format": "pt"})
    index = folder / "model.safetensors.index.json"
    if index.exists():
        weight_map = json.loads(index.read_text())["weight_map"]
        edit_json(index, weight_map={rename(key): name for key, name in weight_map.items()})


def all_tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {key: tensor for shard in folder.glob("*.safetensors") for key, tensor in load_file(shard).items()}


def leftovers(folder: Path, *given: str) -> list[str]:
    """What lies in a folder beside what a test put there, the source unless said."""
    return sorted(path.name for path in folder.iterdir() if path.name not in (given or ("source",)))


def convert_until_killed(
    monkeypatch: pytest.MonkeyPatch, source: Path, target: Path, **options: Any
) -> tuple[list[str], list[str]]:
    """Start a conversion that is killed while it writes the third shard.

    Returns:
        Names of the shards that were written; and a list that gets those which later conversions write.
    """
    write = convert.write_tensors
    written: list[str] = []
    again: list[str] = []

    def killed_at_third(file: Path, pairs: Any) -> str:
        if len(written) == 2:
            file.write_bytes(b"half")
            raise KeyboardInterrupt
        written.append(file.name)
        return write(file, pairs)

    def noted(file: Path, pairs: Any) -> str:
        again.append(file.name)
        return write(file, pairs)

    with monkeypatch.context() as patch:
        patch.setattr(convert, "write_tensors", killed_at_third)
        with pytest.raises(KeyboardInterrupt):
            convert.convert_checkpoint(str(source), target, **options)
    monkeypatch.setattr(convert, "write_tensors", noted)
    return written, again
