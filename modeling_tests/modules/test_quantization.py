# SPDX-License-Identifier: Apache-2.0
"""4-bit weights: which modules take them, that they compute what they say, are saved as they are and can be tuned."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from safetensors.torch import load_file, save_file
from tiny_checkpoints import FAMILIES, all_tensors, converted, edit_json, load_in_four_bits
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    BitsAndBytesConfig,
    PreTrainedTokenizerFast,
    pipeline,
)

import transformers_hybridctx.modules.quantization as quantization
from transformers_hybridctx import HybridCtxForCausalLM, HybridCtxProcessor
from transformers_hybridctx.conversion.export import export_checkpoint
from transformers_hybridctx.conversion.merge import merge_lora
from transformers_hybridctx.conversion.tensor_files import CheckpointError
from transformers_hybridctx.modules.quantization import computes_natively, four_bit_config

TAKE_FOUR_BITS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj"}


def is_four_bit(module: nn.Module) -> bool:
    return getattr(getattr(module, "weight", None), "quant_state", None) is not None


@pytest.fixture(scope="module")
def full(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast, render_config: dict[str, Any]
) -> Path:
    """A checkpoint whose decoder can take 4 bits, in float32. Not to be written to."""
    return converted(tmp_path_factory.mktemp("full"), tokenizer, render_config)


@pytest.fixture(scope="module")
def features(full: Path) -> dict[str, Any]:
    """A prompt with pages and copied text."""
    processor = HybridCtxProcessor.from_pretrained(full)
    document = "The special magic number for green-lemur is: 4821930. " * 9
    found = processor(document=document, question="What is it?", text_policy="tail", return_tensors="pt")
    assert "pixel_values" in found
    return dict(found)


def logits(model: nn.Module, features: dict[str, Any]) -> torch.Tensor:
    with torch.no_grad():
        return model(**features).logits.float()


# What takes 4 bits


@pytest.mark.parametrize("family", FAMILIES)
def test_the_decoder_takes_four_bits_and_nothing_else_does(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, render_config: dict[str, Any], family: str
) -> None:
    folder = converted(tmp_path, tokenizer, render_config, family, dtype=torch.bfloat16)
    with pytest.warns(UserWarning, match="start as the identity"):
        model = HybridCtxForCausalLM.from_pretrained(
            folder, quantization_config=four_bit_config(folder), phi="residual_adapter"
        )
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    four_bit = {name for name, module in model.named_modules() if is_four_bit(module)}
    assert {name for name in linear if name.startswith("model.language_model.")} == four_bit
    assert {name.rpartition(".")[2] for name in four_bit} == TAKE_FOUR_BITS
    assert {"lm_head", "model.phi.up", "model.visual.blocks.0.attn.qkv"} <= linear - four_bit
    assert model.model.visual.merger.down_proj.weight.dtype == model.lm_head.weight.dtype == torch.bfloat16
    base = AutoModel.from_pretrained(folder, quantization_config=four_bit_config(folder))
    assert {f"model.{name}" for name, module in base.named_modules() if is_four_bit(module)} == four_bit


def test_further_modules_stay_in_full_precision_where_asked(full: Path) -> None:
    config = four_bit_config(full, skip_modules=["model.language_model.layers.0"])
    model = HybridCtxForCausalLM.from_pretrained(full, quantization_config=config)
    layers = model.model.language_model.layers
    assert not is_four_bit(layers[0].mlp.down_proj) and is_four_bit(layers[1].mlp.down_proj)


def test_four_bits_compute_what_they_say(full: Path, features: dict[str, Any]) -> None:
    """Against a model in full precision, whose weights are the 4-bit ones expanded here, block by block."""
    model, plain = load_in_four_bits(full), HybridCtxForCausalLM.from_pretrained(full)
    for name, module in model.named_modules():
        if is_four_bit(module):
            state, codes = module.weight.quant_state, module.weight.data.view(-1)
            values = state.code[torch.stack([codes >> 4, codes & 15], 1).view(-1).long()]
            coarse = (
                state.state2.code[state.absmax.long()]
                * state.state2.absmax.repeat_interleave(256)[: len(state.absmax)]
            )
            expanded = values * (coarse + state.offset).repeat_interleave(64)
            original = plain.get_submodule(name).weight
            assert 0 < (expanded.view(state.shape) - original).norm() / original.norm() < 0.12
            original.data = expanded.view(state.shape).clone()
    assert (logits(model, features) - logits(plain, features)).abs().max() < 1e-4


# Widths


def test_layers_whose_rows_are_no_whole_blocks_stay_in_full_precision(checkpoint: Path) -> None:
    """The tests' usual checkpoint is 48 wide; only the layers that read the 64 of its MLP can take 4 bits."""
    with pytest.warns(UserWarning, match=r"10 of the decoder's 12 .*q_proj has in_features=48.*multiple of 64"):
        config = four_bit_config(checkpoint)
    model = HybridCtxForCausalLM.from_pretrained(checkpoint, quantization_config=config)
    four_bit = [name.rpartition(".")[2] for name, module in model.named_modules() if is_four_bit(module)]
    assert four_bit == ["down_proj"] * 2


def test_a_decoder_that_has_no_such_layer_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    text = json.loads((checkpoint / "config.json").read_text())["text_config"]
    (tmp_path / "config.json").write_bytes((checkpoint / "config.json").read_bytes())
    edit_json(tmp_path / "config.json", text_config=text | {"intermediate_size": 72})
    with pytest.raises(ValueError, match=r"in_features=48.*load this checkpoint without a quantization_config"):
        four_bit_config(tmp_path)


def test_a_config_that_would_compute_wrong_numbers_is_refused_before_it_does(checkpoint: Path) -> None:
    config = BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=["model.visual", "lm_head"])
    with pytest.raises(ValueError, match=r"layers.0.self_attn.q_proj has in_features=48.*llm_int8_skip_modules"):
        HybridCtxForCausalLM.from_pretrained(checkpoint, quantization_config=config)


# Devices


@pytest.mark.parametrize(
    ("instructions", "natively"), [({"avx2": True}, False), ({"amx_bf16": True}, True), ({"bf16": True}, True)]
)
def test_the_compute_dtype_is_one_that_the_device_has_instructions_for(
    full: Path, monkeypatch: pytest.MonkeyPatch, instructions: dict[str, bool], natively: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions, raising=False)
    assert computes_natively(torch.bfloat16) == natively and computes_natively(torch.float32)
    chosen = four_bit_config(full, device="cpu").bnb_4bit_compute_dtype
    assert chosen == (torch.bfloat16 if natively else torch.float32)
    assert four_bit_config(full, device="cpu", compute_dtype=torch.float16).bnb_4bit_compute_dtype == torch.float16


@pytest.mark.parametrize("natively", [False, True])
def test_a_stored_compute_dtype_gives_way_to_what_this_cpu_can(
    full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, natively: bool
) -> None:
    config = four_bit_config(full, compute_dtype=torch.bfloat16)
    HybridCtxForCausalLM.from_pretrained(full, quantization_config=config).save_pretrained(tmp_path)
    monkeypatch.setattr(quantization, "computes_natively", lambda dtype, device="cpu": natively)
    layer = HybridCtxForCausalLM.from_pretrained(tmp_path).model.language_model.layers[0].mlp.down_proj
    assert layer.compute_dtype == (torch.bfloat16 if natively else torch.float32)


# Saved and loaded


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_model_is_saved_as_it_is_also_after_it_was_used(
    full: Path, tmp_path: Path, features: dict[str, Any], dtype: torch.dtype
) -> None:
    model = load_in_four_bits(full, dtype=dtype)
    model.save_pretrained(tmp_path / "unused")
    before = logits(model, features)
    model.generate(**features, max_new_tokens=3)
    model.save_pretrained(tmp_path / "used", max_shard_size="100KB")
    one, other = all_tensors(tmp_path / "unused"), all_tensors(tmp_path / "used")
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    assert sum(tensor.nbytes for tensor in one.values()) < sum(tensor.nbytes for tensor in all_tensors(full).values())
    reloaded, info = AutoModelForImageTextToText.from_pretrained(tmp_path / "used", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert reloaded.dtype == dtype and torch.equal(logits(reloaded, features), before)
    text = AutoModel.from_pretrained(tmp_path / "used").language_model.layers[1].mlp.down_proj
    assert is_four_bit(text)


@pytest.mark.parametrize("part", ["", ".absmax", ".nested_absmax", ".nested_quant_map", ".quant_map"])
@pytest.mark.parametrize("damage", ["half", "gone"])
@pytest.mark.filterwarnings("ignore")
def test_codes_and_scales_that_do_not_belong_together_are_refused(
    full: Path, tmp_path: Path, part: str, damage: str
) -> None:
    load_in_four_bits(full).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    key = f"model.language_model.layers.1.mlp.down_proj.weight{part}"
    whole = tensors.pop(key)
    if damage == "half":
        tensors[key] = whole[: len(whole) // 2].clone()
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises((ValueError, RuntimeError), match=r"the checkpoint is damaged|conversion of the weights"):
        HybridCtxForCausalLM.from_pretrained(tmp_path)


def test_a_weight_that_is_missing_with_all_its_parts_is_refused(full: Path, tmp_path: Path) -> None:
    load_in_four_bits(full).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    kept = {key: tensor for key, tensor in tensors.items() if "layers.1.mlp.down_proj" not in key}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks weights that its config says are quantised"):
        HybridCtxForCausalLM.from_pretrained(tmp_path)


def test_the_pipeline_reads_a_four_bit_checkpoint(full: Path, tmp_path: Path) -> None:
    load_in_four_bits(full).save_pretrained(tmp_path)
    AutoProcessor.from_pretrained(full).save_pretrained(tmp_path)
    pipe = pipeline("long-doc-qa", model=str(tmp_path))
    assert pipe.model.is_loaded_in_4bit
    asked = {"question": "What is it?", "document": "The code is 4711. " * 20, "text_policy": "anchors"}
    answer = pipe(**asked, max_new_tokens=3)
    assert answer["usage"]["new_tokens"] == 3 and answer["usage"]["visual_tokens"] > 0


# Tuned


@pytest.fixture
def tuned(full: Path) -> Iterator[PeftModel]:
    """QLoRA: adapters in full precision on 4-bit weights, memory saved by checkpointing."""
    # The reentrant kind, peft's default, would leave adapters of the vision tower without gradients.
    checkpointing = {"use_reentrant": False}
    model = prepare_model_for_kbit_training(
        load_in_four_bits(full, dtype=torch.bfloat16), gradient_checkpointing_kwargs=checkpointing
    )
    torch.manual_seed(0)
    lora = LoraConfig(r=4, target_modules=["q_proj", "gate_up_proj", "qkv"], init_lora_weights=False)
    yield get_peft_model(model, lora)


def gradients(model: nn.Module, features: dict[str, Any]) -> dict[str, torch.Tensor]:
    model.train()
    model.zero_grad()
    model(**features, labels=features["input_ids"], use_cache=False).loss.backward()
    return {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


def test_qlora_trains_the_adapters_and_nothing_else(tuned: PeftModel, features: dict[str, Any]) -> None:
    found = gradients(tuned, features)
    trainable = {name for name, one in tuned.named_parameters() if one.requires_grad}
    assert found.keys() == trainable and all("lora_" in name for name in trainable)
    assert {"language_model", "visual"} == {name.split(".")[3] for name in trainable}
    assert all(gradient.isfinite().all() and gradient.abs().max() > 0 for gradient in found.values())
    weights = {name: module.weight.data.clone() for name, module in tuned.named_modules() if is_four_bit(module)}
    optimizer = torch.optim.AdamW((one for one in tuned.parameters() if one.requires_grad), lr=1e-2)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = tuned(**features, labels=features["input_ids"], use_cache=False).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.95 * losses[0]
    assert all(torch.equal(weights[name], tuned.get_submodule(name).weight.data) for name in weights)


def test_an_evaluation_before_training_changes_no_gradient(tuned: PeftModel, features: dict[str, Any]) -> None:
    before = gradients(tuned, features)
    tuned.eval()
    logits(tuned, features)
    after = gradients(tuned, features)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_an_adapter_goes_into_the_full_weights_not_into_four_bits(
    full: Path, tmp_path: Path, tuned: PeftModel
) -> None:
    tuned.save_pretrained(tmp_path / "adapter")
    load_in_four_bits(full).save_pretrained(tmp_path / "four_bit")
    AutoProcessor.from_pretrained(full).save_pretrained(tmp_path / "four_bit")
    with pytest.raises(CheckpointError, match="quantised; merge into the checkpoint that it was made from"):
        merge_lora(str(tmp_path / "four_bit"), tmp_path / "adapter", tmp_path / "merged")
    merge_lora(str(full), tmp_path / "adapter", tmp_path / "merged")
    with pytest.raises(CheckpointError, match="quantised; export the checkpoint that it was made from"):
        export_checkpoint(str(tmp_path / "four_bit"), tmp_path / "back")
