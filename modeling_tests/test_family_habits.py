# SPDX-License-Identifier: Apache-2.0
"""What the common tests of transformers check of every model, where they cannot check ours: with pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import PAGES_FIRST, VOCAB, attended, make_inputs, make_model, tower_configs

from transformers_hybridctx import HybridCtxConfig, HybridCtxForCausalLM

FAMILY = ("glm4v", "glm_ocr", "glm4v_moe")


@pytest.mark.parametrize("towers", FAMILY)
@pytest.mark.parametrize("padding", ["left", "right", "none"])
def test_attention_implementations_agree(towers: str, padding: str) -> None:
    inputs = make_inputs(PAGES_FIRST if padding != "none" else PAGES_FIRST[:1])
    if padding == "right":
        order = inputs["attention_mask"].argsort(dim=1, descending=True, stable=True)
        for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
            inputs[name] = inputs[name].gather(1, order)
    if padding == "none":
        whole = dict(inputs)
        del inputs["attention_mask"]
    model = make_model(towers)
    found = {}
    with torch.no_grad():
        for implementation in ("eager", "sdpa"):
            model.set_attn_implementation(implementation)
            logits = model(**inputs).logits
            found[implementation] = logits[0] if padding == "none" else attended(logits, inputs)
        if padding == "none":  # no mask is a mask of ones
            torch.testing.assert_close(model(**whole).logits[0], found["sdpa"])
    torch.testing.assert_close(found["eager"], found["sdpa"], atol=1e-5, rtol=1e-4)


def test_labels_that_are_shifted_already_take_the_place_of_labels() -> None:
    model, inputs = make_model(), make_inputs(PAGES_FIRST[:1])
    labels = inputs["input_ids"].masked_fill(inputs["mm_token_type_ids"].bool(), -100)
    shifted = torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], -100)], dim=1)
    with torch.no_grad():
        expected = model(**inputs, labels=labels).loss
        others = torch.full_like(labels, 7)
        torch.testing.assert_close(model(**inputs, labels=others, shift_labels=shifted).loss, expected)


def test_all_parameters_learn_from_pages_and_tokens() -> None:
    model, inputs = make_model(phi="residual_adapter", modality_embedding=True), make_inputs(PAGES_FIRST)
    model.train()
    labels = inputs["input_ids"].masked_fill(inputs["mm_token_type_ids"].bool(), -100)
    model(**inputs, labels=labels).loss.backward()
    still = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert not still


def test_weights_of_another_shape_are_new_where_that_is_asked_for(tmp_path: Path) -> None:
    model = make_model()
    model.save_pretrained(tmp_path)
    config = HybridCtxConfig.from_pretrained(tmp_path)
    config.text_config.vocab_size = VOCAB + 10
    with pytest.raises((RuntimeError, ValueError), match="ignore_mismatched_sizes"):
        HybridCtxForCausalLM.from_pretrained(tmp_path, config=config)
    loaded = HybridCtxForCausalLM.from_pretrained(tmp_path, config=config, ignore_mismatched_sizes=True)
    assert loaded.get_input_embeddings().weight.shape[0] == VOCAB + 10
    ours, theirs = loaded.state_dict(), model.state_dict()
    assert all(torch.equal(ours[name], weight) for name, weight in theirs.items() if ours[name].shape == weight.shape)
    assert all(weight.isfinite().all() for weight in ours.values() if weight.is_floating_point())


def test_a_static_cache_gives_the_same_answer() -> None:
    model, inputs = make_model(), make_inputs(PAGES_FIRST)
    answer: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    expected = model.generate(**inputs, **answer)
    assert torch.equal(
        model.generate(**inputs, **answer, cache_implementation="static", disable_compile=True), expected
    )


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "linear", "factor": 4.0},
        {"rope_type": "dynamic", "factor": 4.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    ],
)
def test_scaled_positions_are_as_the_config_says(scaling: dict[str, Any]) -> None:
    inputs = make_inputs(PAGES_FIRST)
    plain, configs = make_model(), tower_configs()
    configs["text_config"]["rope_parameters"] |= scaling
    scaled = HybridCtxForCausalLM(HybridCtxConfig(**configs)).eval()
    scaled.load_state_dict(plain.state_dict())
    with torch.no_grad():
        ours, others = scaled(**inputs).logits, plain(**inputs).logits
    assert ours.isfinite().all()
    # within its first positions, a dynamic scaling is none
    assert torch.equal(ours, others) == (scaling["rope_type"] == "dynamic")


def test_the_model_generates_and_its_base_does_not() -> None:
    model = make_model()
    assert model.can_generate() and not model.model.can_generate()
