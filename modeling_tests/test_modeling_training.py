# SPDX-License-Identifier: Apache-2.0
"""Gradients are the family's, with and without checkpointing and adapters."""

import math

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tiny_models import (
    IMAGE_SETTINGS,
    PAGES_FIRST,
    TOKENS_FIRST,
    make_inputs,
    make_model,
    make_pages,
    randomize,
    tower_configs,
)
from transformers import (
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Glm4vImageProcessorPil,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)

from transformers_hybridctx.configuration_hybridctx import HybridCtxConfig
from transformers_hybridctx.modeling_hybridctx import HybridCtxForCausalLM

# training


def gradients(model: PreTrainedModel, inputs: dict) -> dict[str, torch.Tensor]:
    model.zero_grad()
    labels = inputs["input_ids"].masked_fill(inputs["mm_token_type_ids"] == 1, -100)
    model(**inputs, labels=labels).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("towers", ["glm4v", "glm_ocr"])
def test_gradient_checkpointing_gives_the_same_gradients(towers):
    ours = make_model(towers, phi="residual_adapter", modality_embedding=True).train()
    inputs = make_inputs(TOKENS_FIRST)
    plain = gradients(ours, inputs)
    assert {name for name, _ in ours.named_parameters()} == set(plain)
    ours.activation_checkpointing_enable()
    checkpointed = gradients(ours, inputs)
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, rtol=1e-4, atol=1e-5)


def test_gradients_equal_the_family_s():
    reference = randomize(Glm4vForConditionalGeneration(Glm4vConfig(**tower_configs())))
    ours = HybridCtxForCausalLM(HybridCtxConfig(**tower_configs()))
    ours.load_state_dict(reference.state_dict())
    pages = make_pages([part for row in PAGES_FIRST for part in row if isinstance(part, tuple)])
    rgb = [np.repeat(page[..., None], 3, axis=-1) for page in pages]
    floats = Glm4vImageProcessorPil(**IMAGE_SETTINGS)(rgb, return_tensors="pt")
    expected = gradients(reference, make_inputs(PAGES_FIRST, floats))
    found = gradients(ours, make_inputs(PAGES_FIRST))
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-6, name


@pytest.mark.parametrize("targets", [["q_proj", "v_proj", "qkv"], ["patch_embed.proj"]], ids=["linear", "patch_embed"])
def test_lora_trains_one_step_and_comes_back_from_disk(targets, tmp_path):
    ours = get_peft_model(make_model(), LoraConfig(r=2, target_modules=targets))
    ours.enable_input_require_grads()
    ours.activation_checkpointing_enable()
    inputs = make_inputs(PAGES_FIRST)
    with torch.no_grad():
        before = ours.eval()(**inputs).logits
    optimizer = torch.optim.SGD([p for p in ours.parameters() if p.requires_grad], lr=0.1)
    ours.train()
    for _ in range(2):  # LoRA's B is zero at first, so the second step is the first to move A
        assert all("lora" in name for name in gradients(ours, inputs))
        optimizer.step()
    with torch.no_grad():
        after = ours.eval()(**inputs).logits
    assert (after - before).abs().max() > 1e-3
    ours.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(make_model(), tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(**inputs).logits, after, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_adapters_in_the_tower_learn_under_gradient_checkpointing(use_reentrant):
    ours = get_peft_model(make_model(), LoraConfig(target_modules=["qkv", "q_proj"]))
    ours.train()
    inputs = make_inputs(PAGES_FIRST)
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)

    def gradients_of_adapters():
        ours.zero_grad()
        ours(**inputs, labels=labels).loss.backward()
        return {name: p.grad.clone() for name, p in ours.named_parameters() if p.requires_grad}

    expected = gradients_of_adapters()
    ours.activation_checkpointing_enable({"use_reentrant": use_reentrant})
    ours.enable_input_require_grads()
    found = gradients_of_adapters()
    assert any("visual" in name for name in found)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


def test_trainer_takes_one_step(tmp_path):
    ours = make_model()
    before = {name: parameter.clone() for name, parameter in ours.named_parameters()}
    inputs = make_inputs(PAGES_FIRST)
    arguments = TrainingArguments(
        tmp_path,
        max_steps=1,
        learning_rate=1e-2,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    batch = inputs | {"labels": inputs["input_ids"]}
    trainer = Trainer(ours, arguments, train_dataset=[0, 1], data_collator=lambda _: batch)
    assert math.isfinite(trainer.train().training_loss)
    assert all(not torch.equal(parameter, before[name]) for name, parameter in ours.named_parameters())


def test_blank_and_black_pages_give_finite_logits(model):
    inputs = make_inputs(PAGES_FIRST)
    for value in (0, 255):
        inputs["pixel_values"] = torch.full_like(inputs["pixel_values"], value)
        with torch.no_grad():
            assert model(**inputs).logits.isfinite().all()
