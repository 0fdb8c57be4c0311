# SPDX-License-Identifier: Apache-2.0
"""A reading is used only by a model that computes what the one that made it computed."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from sample_questions import DOCUMENT, QUESTION, comparable
from tiny_checkpoints import converted, load_in_four_bits
from torch import nn
from transformers import PreTrainedTokenizerFast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from transformers_hybridctx import DocumentCache, HybridCtxForCausalLM, HybridCtxProcessor, LongDocQAPipeline
from transformers_hybridctx.caching.checkpoint_checksum import checkpoint_checksum, content_hash

# Changes of a model


def first_layer(pipe: LongDocQAPipeline) -> Any:
    return pipe.model.model.language_model.layers[0]


def change_a_weight(pipe: LongDocQAPipeline) -> None:
    with torch.no_grad():
        pipe.model.model.language_model.layers[1].mlp.down_proj.weight[0, 0] += 1e-3


def write_to_data(pipe: LongDocQAPipeline) -> None:
    first_layer(pipe).mlp.down_proj.weight.data[0, 0] += 1e-3


def permute_rows(pipe: LongDocQAPipeline) -> None:
    weight = pipe.model.model.language_model.embed_tokens.weight
    weight.data = weight.data.flip(0)


def swap_two_rows_in_place(pipe: LongDocQAPipeline) -> None:
    weight = pipe.model.model.visual.merger.proj.weight.data
    weight[[0, 1]] = weight[[1, 0]]


def change_a_buffer(pipe: LongDocQAPipeline) -> None:
    pipe.model.model.language_model.rotary_emb.inv_freq.data *= 1.5


def change_the_type(pipe: LongDocQAPipeline) -> None:
    pipe.model.double()


def change_a_setting(pipe: LongDocQAPipeline) -> None:
    pipe.model.config.text_config.rms_norm_eps = 1e-3


def change_the_rotation_s_base(pipe: LongDocQAPipeline) -> None:
    pipe.model.config.text_config.rope_parameters["rope_theta"] = 500.0


def add_an_adapter(pipe: LongDocQAPipeline) -> None:
    pipe.model = get_peft_model(pipe.model, LoraConfig(target_modules="all-linear"))


NUMBERS: list[Callable[[LongDocQAPipeline], None]] = [
    change_a_weight,
    write_to_data,
    permute_rows,
    swap_two_rows_in_place,
    change_a_buffer,
    change_the_type,
    change_a_setting,
    change_the_rotation_s_base,
    add_an_adapter,
]


def hook_a_layer(pipe: LongDocQAPipeline) -> None:
    first_layer(pipe).register_forward_hook(lambda module, args, output: output + 0.05)


def hook_the_tower(pipe: LongDocQAPipeline) -> None:
    pipe.model.model.visual.blocks[0].register_forward_pre_hook(lambda module, args: (args[0] + 1, *args[1:]))


def patch_a_forward(pipe: LongDocQAPipeline) -> None:
    layer = first_layer(pipe)
    forward = layer.mlp.forward
    layer.mlp.forward = lambda hidden_states: -forward(hidden_states)


def set_a_module_s_setting(pipe: LongDocQAPipeline) -> None:
    first_layer(pipe).self_attn.scaling *= 2


def replace_a_module(pipe: LongDocQAPipeline) -> None:
    first_layer(pipe).mlp.activation_fn = nn.Tanh()


def patch_a_function(pipe: LongDocQAPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    library = sys.modules[type(first_layer(pipe).self_attn).__module__]
    monkeypatch.setattr(library, "apply_rotary_pos_emb", lambda queries, keys, *_, **__: (queries, keys))


def patch_torch(pipe: LongDocQAPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    linear = nn.functional.linear
    monkeypatch.setattr(nn.functional, "linear", lambda *args: 1.1 * linear(*args))


def patch_the_attention(pipe: LongDocQAPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    attention = ALL_ATTENTION_FUNCTIONS["sdpa"]
    monkeypatch.setitem(
        ALL_ATTENTION_FUNCTIONS._global_mapping,
        "sdpa",
        lambda *args, **kwargs: (attention(*args, **kwargs)[0] + 1, None),
    )


@pytest.mark.parametrize("change", [patch_a_function, patch_torch, patch_the_attention])
def test_a_function_that_modules_call_and_that_was_patched_is_noticed(
    fresh_pipe: LongDocQAPipeline,
    change: Callable[[LongDocQAPipeline, pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = fresh_pipe.read(DOCUMENT)
    fresh_pipe(question=QUESTION, document=cache)
    with monkeypatch.context() as patch:
        change(fresh_pipe, patch)
        with pytest.raises(ValueError, match="computes something else from the same weights"):
            fresh_pipe(question=QUESTION, document=cache)
    fresh_pipe(question=QUESTION, document=cache)


def test_a_hook_that_does_something_else_by_now_is_noticed(fresh_pipe: LongDocQAPipeline) -> None:
    factor = {"is": 1.0}
    first_layer(fresh_pipe).self_attn.v_proj.register_forward_hook(lambda module, args, output: factor["is"] * output)
    cache = fresh_pipe.read(DOCUMENT)
    fresh_pipe(question=QUESTION, document=cache)
    factor["is"] = 1.5
    with pytest.raises(ValueError, match="computes something else from the same weights"):
        fresh_pipe(question=QUESTION, document=cache)


WIRING: list[Callable[[LongDocQAPipeline], None]] = [
    hook_a_layer,
    hook_the_tower,
    patch_a_forward,
    set_a_module_s_setting,
    replace_a_module,
]


@pytest.mark.parametrize("change", [*NUMBERS, *WIRING])
def test_a_model_that_was_changed_after_it_read_is_refused(
    fresh_pipe: LongDocQAPipeline, change: Callable[[LongDocQAPipeline], None], tmp_path: Path
) -> None:
    cache = fresh_pipe.read(DOCUMENT)
    fresh_pipe(question=QUESTION, document=cache)
    loaded = DocumentCache.load(cache.save(tmp_path / "read.safetensors"))
    change(fresh_pipe)
    reason = "made by another checkpoint" if change in NUMBERS else "computes something else from the same weights"
    for document in (cache, loaded):
        with pytest.raises(ValueError, match=rf"{reason} .* read the document again"):
            fresh_pipe(question=QUESTION, document=document)


def test_what_changes_nothing_is_no_reason_to_read_again(fresh_pipe: LongDocQAPipeline) -> None:
    cache = fresh_pipe.read(DOCUMENT)
    expected = comparable(fresh_pipe(question=QUESTION, document=cache))
    fresh_pipe.model.model.register_forward_hook(lambda module, args, output: None)
    assert comparable(fresh_pipe(question=QUESTION, document=cache)) == expected
    fresh_pipe.model.set_attn_implementation("eager")
    assert fresh_pipe(question=QUESTION, document=cache)["answer"] == expected["answer"]
    fresh_pipe.model.config._name_or_path = "elsewhere"
    fresh_pipe.model.config.retrieval_heads = [[0, 1]]
    assert fresh_pipe(question=QUESTION, document=cache)["answer"] == expected["answer"]


def test_inputs_for_generate_are_refused_too(fresh_pipe: LongDocQAPipeline) -> None:
    cache = fresh_pipe.read(DOCUMENT)
    cache.inputs(fresh_pipe.processor, QUESTION)
    write_to_data(fresh_pipe)
    with pytest.raises(ValueError, match="made by another checkpoint"):
        cache.inputs(fresh_pipe.processor, QUESTION)


# Adapters


def merged(model: PeftModel) -> AbstractContextManager[Any]:
    model.merge_adapter()
    return nullcontext()


def merged_and_disabled(model: PeftModel) -> AbstractContextManager[Any]:
    model.merge_adapter()
    return model.disable_adapter()


def scaled(model: PeftModel) -> AbstractContextManager[Any]:
    for module in model.modules():
        if hasattr(module, "scaling") and isinstance(module.scaling, dict):
            module.scaling["default"] *= 2
    return nullcontext()


def written_to(model: PeftModel) -> AbstractContextManager[Any]:
    next(weight for name, weight in model.named_parameters() if "lora_B" in name).data.add_(0.5)
    return nullcontext()


def switched(model: PeftModel) -> AbstractContextManager[Any]:
    model.add_adapter("other", lora())
    model.set_adapter("other")
    return nullcontext()


def lora() -> LoraConfig:
    return LoraConfig(target_modules="all-linear", init_lora_weights=False)


@pytest.fixture
def adapted(fresh_pipe: LongDocQAPipeline) -> Iterator[LongDocQAPipeline]:
    """A pipeline whose model has an adapter that changes what it says."""
    torch.manual_seed(1)
    fresh_pipe.model = get_peft_model(fresh_pipe.model, lora())
    yield fresh_pipe


@pytest.mark.parametrize(
    "change", [PeftModel.disable_adapter, merged, merged_and_disabled, scaled, written_to, switched]
)
def test_an_adapter_that_was_set_otherwise_is_noticed(
    adapted: LongDocQAPipeline, change: Callable[[PeftModel], AbstractContextManager[Any]]
) -> None:
    cache = adapted.read(DOCUMENT)
    adapted(question=QUESTION, document=cache)
    with change(adapted.model), pytest.raises(ValueError, match="made by another checkpoint"):
        adapted(question=QUESTION, document=cache)


def test_a_merged_adapter_that_is_disabled_is_not_the_merged_one(adapted: LongDocQAPipeline) -> None:
    adapted.model.merge_adapter()
    cache = adapted.read(DOCUMENT)
    with adapted.model.disable_adapter(), pytest.raises(ValueError, match="made by another checkpoint"):
        adapted(question=QUESTION, document=cache)


def test_an_adapter_that_does_not_take_part_does_not_count(fresh_pipe: LongDocQAPipeline) -> None:
    plain = fresh_pipe.read(DOCUMENT)
    fresh_pipe.model = get_peft_model(fresh_pipe.model, lora())
    with fresh_pipe.model.disable_adapter():
        fresh_pipe(question=QUESTION, document=plain)
    own = fresh_pipe.read(DOCUMENT)
    fresh_pipe.model.add_adapter("other", lora())
    fresh_pipe(question=QUESTION, document=own)


# Checksums


def test_a_four_bit_checkpoint_keeps_its_own_cache(
    tokenizer: PreTrainedTokenizerFast, render_config: dict[str, Any], tmp_path: Path
) -> None:
    folder = converted(tmp_path, tokenizer, render_config)
    processor = HybridCtxProcessor.from_pretrained(folder)
    pipes = [LongDocQAPipeline(load_in_four_bits(folder), processor, max_new_tokens=4) for _ in range(2)]
    path = pipes[0].read(DOCUMENT, text_policy="anchors").save(tmp_path / "read.safetensors")
    expected = comparable(pipes[0](question=QUESTION, document=DOCUMENT, text_policy="anchors"))
    assert comparable(pipes[1](question=QUESTION, document=DocumentCache.load(path))) == expected
    full = LongDocQAPipeline(HybridCtxForCausalLM.from_pretrained(folder), processor)
    with pytest.raises(ValueError, match="made by another checkpoint"):
        full(question=QUESTION, document=DocumentCache.load(path))


def test_the_checksum_is_that_of_the_weights_not_of_the_object(checkpoint: Path) -> None:
    one, other = (HybridCtxForCausalLM.from_pretrained(checkpoint) for _ in range(2))
    assert checkpoint_checksum(one) == checkpoint_checksum(other) == checkpoint_checksum(copy.deepcopy(one))
    other.config._name_or_path = "elsewhere"
    assert checkpoint_checksum(one) == checkpoint_checksum(other)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    other.lm_head.weight.grad = torch.ones_like(other.lm_head.weight)
    optimizer.step()
    assert checkpoint_checksum(one) != checkpoint_checksum(other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.uint8])
@pytest.mark.parametrize("shape", [(1,), (3, 5), (300, 257), (70_000, 3)])
def test_a_tensor_s_hash_is_that_of_its_content_in_its_order(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = torch.randint(-99, 99, shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    before = content_hash(tensor)
    assert content_hash(tensor.clone()) == before
    assert content_hash(tensor.t().contiguous().t() if tensor.ndim == 2 else tensor) == before
    for place in {0, tensor.numel() // 2, tensor.numel() - 1}:
        changed = tensor.clone().flatten()
        changed[place] = changed[place] == 0 if dtype == torch.bool else changed[place] + 1
        assert content_hash(changed) != before
    if len(shape) == 2:
        swapped = tensor.clone()
        swapped[[0, -1]] = tensor[[-1, 0]]
        assert (content_hash(swapped) != before) == (not torch.equal(swapped, tensor))


def test_an_identity_s_rows_swapped_have_another_hash() -> None:
    """Few bits are set in such a tensor, all of them high ones."""
    for size in (2, 16, 64, 512):
        identity = torch.eye(size)
        assert content_hash(identity[[1, 0, *range(2, size)]]) != content_hash(identity)
        negated = identity.clone()
        negated[0, 0] = -1
        assert content_hash(negated) != content_hash(identity)


def test_offloaded_weights_count_like_those_in_memory(checkpoint: Path, tmp_path: Path) -> None:
    plain = HybridCtxForCausalLM.from_pretrained(checkpoint)
    places = {"model.visual": "cpu", "model.language_model": "disk", "lm_head": "cpu"}
    spread = HybridCtxForCausalLM.from_pretrained(checkpoint, device_map=places, offload_folder=tmp_path)
    assert any(weight.is_meta for weight in spread.parameters())
    assert checkpoint_checksum(spread) == checkpoint_checksum(plain)
    with torch.no_grad():
        plain.model.language_model.layers[0].mlp.down_proj.weight[0, 0] += 1
    assert checkpoint_checksum(spread) != checkpoint_checksum(plain)
