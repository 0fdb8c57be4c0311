# SPDX-License-Identifier: Apache-2.0
"""No weight of a loaded model is random unless somebody asked for it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file, save_file
from tiny_checkpoints import edit_json, randomize, tiny_config
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from transformers_hybridctx import HybridCtxConfig, HybridCtxForCausalLM, HybridCtxModel
from transformers_hybridctx.conversion.configs import hybridctx_config

LOST = "model.language_model.layers.1.mlp.down_proj.weight"


@pytest.fixture
def checkpoint(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    config = hybridctx_config(tiny_config("glm4v", tokenizer), {})
    randomize(HybridCtxForCausalLM(config)).save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def edit_weights(checkpoint: Path, drop: tuple[str, ...] = (), **add: torch.Tensor) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    kept = {key: value for key, value in tensors.items() if key not in drop} | add
    save_file(kept, checkpoint / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("model_class", [HybridCtxForCausalLM, HybridCtxModel, AutoModelForCausalLM])
def test_a_missing_weight_is_an_error_that_names_it(checkpoint: Path, model_class: Any) -> None:
    edit_weights(checkpoint, drop=(LOST,))
    logging.set_verbosity_error()  # which silences transformers' own report
    with pytest.raises(ValueError, match=f"lacks 1 of the weights of HybridCtx.*{LOST.removeprefix('model.')}"):
        model_class.from_pretrained(checkpoint)


def test_missing_weights_can_be_asked_for(checkpoint: Path) -> None:
    edit_weights(checkpoint, drop=(LOST,))
    with pytest.warns(UserWarning, match=f"1 weights are not in the checkpoint and are random now.*{LOST}"):
        HybridCtxForCausalLM.from_pretrained(checkpoint, allow_missing_keys=True)


def test_an_unexpected_weight_is_named(checkpoint: Path) -> None:
    edit_weights(checkpoint, **{"model.phi.up.weight": torch.ones(2, 2)})
    with pytest.warns(UserWarning, match=r"1 weights are in the checkpoint and have no place.*model\.phi\.up\.weight"):
        HybridCtxForCausalLM.from_pretrained(checkpoint)


def test_a_weight_of_another_shape_is_an_error(checkpoint: Path) -> None:
    edit_weights(checkpoint, **{LOST: torch.ones(3, 5)})
    with pytest.raises(RuntimeError):
        HybridCtxForCausalLM.from_pretrained(checkpoint)


def test_phi_may_be_added_to_a_checkpoint_and_starts_as_the_identity(checkpoint: Path) -> None:
    edit_json(checkpoint / "config.json", phi="residual_adapter", modality_embedding=True)
    with pytest.warns(UserWarning, match=r"start as the identity, to be trained: model.modality_embedding.weight, "):
        model = HybridCtxForCausalLM.from_pretrained(checkpoint)
    assert not model.model.phi.up.weight.any() and not model.model.modality_embedding.weight.any()


def test_what_fits_loads_without_a_warning(checkpoint: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model, info = HybridCtxForCausalLM.from_pretrained(checkpoint, output_loading_info=True)
        base = HybridCtxModel.from_pretrained(checkpoint)
    assert not info["missing_keys"] and isinstance(model, HybridCtxForCausalLM)
    assert torch.equal(base.state_dict()[LOST.removeprefix("model.")], model.state_dict()[LOST])


def test_pickles_are_not_read(checkpoint: Path) -> None:
    torch.save(load_file(checkpoint / "model.safetensors"), checkpoint / "pytorch_model.bin")
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        HybridCtxForCausalLM.from_pretrained(checkpoint)


def test_a_base_model_has_no_head_and_that_is_said(checkpoint: Path, tmp_path: Path) -> None:
    HybridCtxModel.from_pretrained(checkpoint).save_pretrained(tmp_path / "base")
    with pytest.raises(ValueError, match=r"lacks 1 of the weights of HybridCtxForCausalLM.*lm_head\.weight"):
        HybridCtxForCausalLM.from_pretrained(tmp_path / "base")


@pytest.mark.parametrize(
    ("tower", "field", "value", "message"),
    [
        ("text_config", "num_hidden_layers", 10**9, "text_config asks for 1000000000 layers"),
        ("vision_config", "depth", 10**9, "vision_config asks for 1000000000 layers"),
        ("text_config", "vocab_size", 2**40, "text_config.vocab_size=1099511627776 is not between"),
        ("text_config", "intermediate_size", -1, "text_config.intermediate_size=-1 is not between"),
        ("text_config", "vocab_size", 2**24, None),
    ],
)
def test_absurd_sizes_are_refused_before_memory_is_taken(
    checkpoint: Path, tower: str, field: str, value: int, message: str | None
) -> None:
    values = HybridCtxConfig.from_pretrained(checkpoint).to_dict()
    edit_json(checkpoint / "config.json", **{tower: {**values[tower], field: value}})
    if message is None:
        HybridCtxConfig.from_pretrained(checkpoint)
        return
    with pytest.raises(StrictDataclassError, match=message):
        HybridCtxForCausalLM.from_pretrained(checkpoint)


def test_sizes_that_add_up_to_the_absurd_are_refused(checkpoint: Path) -> None:
    values = HybridCtxConfig.from_pretrained(checkpoint).to_dict()
    wide = {**values["text_config"], "hidden_size": 2**20, "num_attention_heads": 2**16, "num_hidden_layers": 4096}
    vision = {**values["vision_config"], "out_hidden_size": 2**20}
    with pytest.raises(StrictDataclassError, match=r"the towers ask for about .*e\+16 parameters"):
        HybridCtxConfig(text_config=wide, vision_config=vision)
