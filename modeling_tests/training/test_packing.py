# SPDX-License-Identifier: Apache-2.0
"""Documents packed into one sequence: each gives the logits, the loss and the gradients that it gives alone."""

from __future__ import annotations

import copy
import importlib.util
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_models import IMAGE, PACKED_ROWS, PATCH, make_examples, make_inputs, make_model, tower_configs
from torch import nn
from transformers import AttentionInterface, Trainer, TrainingArguments

from transformers_hybridctx import HybridCtxConfig, HybridCtxForCausalLM
from transformers_hybridctx.training.packing import DataCollatorWithPacking

varlen_calls: list[tuple[bool, list[int]]] = []
"""Of each call of `flash_by_lengths`: whether it was causal, and the lengths that it was given."""


def attend_by_lengths(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    cu_seq_lens_q: torch.Tensor,
    cu_seq_lens_k: torch.Tensor,
    max_length_q: int,
    max_length_k: int,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """What a variable-length flash kernel computes, as transformers calls it."""
    assert attention_mask is None and torch.equal(cu_seq_lens_q, cu_seq_lens_k)
    assert cu_seq_lens_q.dtype == torch.int32 and cu_seq_lens_q[-1] == query.shape[2]
    lengths = cu_seq_lens_q.diff().tolist()
    assert max_length_q == max_length_k == max(lengths)
    causal = module.is_causal if is_causal is None else is_causal
    varlen_calls.append((causal, lengths))
    parts = zip(*(states.split(lengths, dim=2) for states in (query, key, value)))
    attend = nn.functional.scaled_dot_product_attention
    outputs = [attend(*part, scale=scaling, is_causal=causal, enable_gqa=True) for part in parts]
    return torch.cat(outputs, dim=2).transpose(1, 2), None


AttentionInterface.register("flash_by_lengths", attend_by_lengths)


def in_attention(model: HybridCtxForCausalLM, text: str, vision: str | None = None) -> HybridCtxForCausalLM:
    model.config.text_config._attn_implementation = text
    model.config.vision_config._attn_implementation = vision or text
    return model


def gradients(model: HybridCtxForCausalLM, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def separately(model: HybridCtxForCausalLM, examples: list[dict[str, torch.Tensor]]) -> tuple[Any, torch.Tensor]:
    """Logits of each example alone, one after another, and the mean loss over all labelled tokens."""
    logits, losses, counts = [], [], []
    for example in examples:
        output = model(**example)
        logits.append(output.logits[0])
        count = int((example["labels"][:, 1:] != -100).sum())
        if count:  # the mean over no token is not a number
            losses.append(output.loss * count)
            counts.append(count)
    return torch.cat(logits), torch.stack(losses).sum() / sum(counts)


# packed and separate


@pytest.mark.parametrize("attention", ["sdpa", "eager", "flash_by_lengths"])
@pytest.mark.parametrize("towers", ["glm4v", "glm_ocr", "glm4v_moe"])
def test_packed_examples_give_the_logits_loss_and_gradients_that_they_give_alone(towers, attention):
    model = make_model(towers, phi="residual_adapter", modality_embedding=True)
    examples = make_examples()
    expected, expected_loss = separately(model, examples)
    expected_gradients = gradients(model, expected_loss)

    in_attention(model, attention)
    varlen_calls.clear()
    batch = DataCollatorWithPacking(model.config)(examples)
    assert batch["input_ids"].shape == (1, len(expected))
    output = model(**batch)
    if attention == "flash_by_lengths":
        pages = [(False, lengths) for lengths in ([24, 24], [8], [24], [16])]  # pages of one grid share a call
        calls = [*pages, (True, [example["input_ids"].shape[1] for example in examples])]
        assert varlen_calls == [call for call in calls for _ in range(2)]  # layers
    found_gradients = gradients(model, output.loss)
    torch.testing.assert_close(output.logits[0], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(output.loss, expected_loss, rtol=1e-5, atol=1e-5)
    assert found_gradients.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        assert (found_gradients[name] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-6, name


@pytest.mark.parametrize("attention", ["sdpa", "eager", "flash_by_lengths"])
def test_gradient_checkpointing_packs_alike(attention):
    model = make_model().train()
    examples = make_examples()
    _, loss = separately(model, examples)
    expected = gradients(model, loss)
    in_attention(model, attention).activation_checkpointing_enable()
    found = gradients(model, model(**DataCollatorWithPacking(model.config)(examples)).loss)
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-6, name


@pytest.mark.parametrize(
    ("text", "vision"), [("flash_by_lengths", "sdpa"), ("eager", "flash_by_lengths"), ("sdpa", "eager")]
)
def test_each_tower_s_own_attention_packs_alike(text, vision):
    model = make_model()
    examples = make_examples()
    with torch.no_grad():
        expected, _ = separately(model, examples)
        in_attention(model, text, vision)
        batch = DataCollatorWithPacking(model.config)(examples)
        assert ("cu_seq_lens_q" in batch) == (text == "flash_by_lengths")
        torch.testing.assert_close(model(**batch).logits[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager", "flash_by_lengths"])
def test_nothing_of_one_document_reaches_another(attention):
    """Everything of the first document changes; the others' logits stay what they are, to the bit."""
    model = in_attention(make_model(), attention)
    collate = DataCollatorWithPacking(model.config)
    examples = make_examples()
    other = make_inputs([PACKED_ROWS[0]], seed=99)
    length = other["input_ids"].shape[1]
    with torch.no_grad():
        before = model(**collate(examples)).logits[0]
        after = model(**collate([other | {"labels": examples[0]["labels"]}, *examples[1:]])).logits[0]
    assert not torch.equal(after[:length], before[:length])
    assert torch.equal(after[length:], before[length:])


def test_the_batch_asks_for_no_cache_as_packing_is_not_seen_beside_one():
    model = make_model()
    batch = DataCollatorWithPacking(model.config)(make_examples())
    with torch.no_grad():
        assert model(**batch).past_key_values is None
        cached = model(**batch | {"use_cache": True})
        expected = model(**batch).logits
    # why: with a cache, transformers does not look for packed documents
    assert cached.past_key_values is not None and not torch.allclose(cached.logits, expected, atol=1e-2)


# what the batch holds


def test_positions_restart_with_each_example_and_are_those_of_the_example_alone():
    model = make_model()
    examples = make_examples()
    positions = DataCollatorWithPacking(model.config)(examples)["position_ids"]
    assert positions.dtype == torch.int64
    start = 0
    for example in examples:
        length = example["input_ids"].shape[1]
        arguments = {key: example.get(key) for key in ("input_ids", "mm_token_type_ids", "image_grid_thw")}
        alone, _ = model.model.get_rope_index(**arguments)
        assert positions[0, 0, start : start + length].tolist() == list(range(length))
        assert torch.equal(positions[1:, :, start : start + length], alone)
        start += length
    assert positions.shape == (4, 1, start)


def test_an_example_s_first_token_carries_no_loss():
    collate = DataCollatorWithPacking(HybridCtxConfig(**tower_configs()))
    features = [{"input_ids": [7, 8, 9], "labels": [7, -100, 9]}, {"input_ids": [6, 7], "labels": [6, 7]}]
    assert collate(features)["labels"].tolist() == [[-100, -100, 9, -100, 7]]
    assert features[0]["labels"] == [7, -100, 9]


def test_without_labels_all_tokens_are_learned_but_those_of_pages():
    examples = [{k: v for k, v in example.items() if k != "labels"} for example in make_examples([[2, (1, 2), 2]])]
    batch = DataCollatorWithPacking(HybridCtxConfig(**tower_configs()))(examples)
    ids = batch["input_ids"][0].tolist()
    assert batch["labels"][0].tolist() == [-100] + [-100 if token == IMAGE else token for token in ids[1:]]
    own = [example | {"labels": example["input_ids"]} for example in examples]
    assert torch.equal(DataCollatorWithPacking(HybridCtxConfig(**tower_configs()))(own)["labels"], batch["labels"])


def test_grey_pages_stay_one_byte_a_pixel_unless_there_is_colour():
    collate = DataCollatorWithPacking(HybridCtxConfig(**tower_configs()))
    grey, mixed = collate(make_examples(colour=())), collate(make_examples())
    assert (grey["pixel_values"].shape, mixed["pixel_values"].shape) == ((96, PATCH**2), (96, 3 * PATCH**2))
    assert grey["pixel_values"].dtype == mixed["pixel_values"].dtype == torch.uint8


def test_one_example_is_packed_as_it_is():
    model = make_model()
    example = make_examples()[0]
    batch = DataCollatorWithPacking(model.config)([example])
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).logits, model(**example).logits, rtol=1e-5, atol=1e-5)
    for key in ("input_ids", "mm_token_type_ids", "pixel_values", "image_grid_thw"):
        assert torch.equal(batch[key], example[key]), key


def test_examples_without_pages_make_a_batch_without_pixels(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    batch = DataCollatorWithPacking(HybridCtxConfig(**tower_configs()))(make_examples([[4], [6]]))
    assert batch.keys() == {"input_ids", "labels", "mm_token_type_ids", "position_ids", "use_cache"}


@pytest.mark.parametrize("attention", ["sdpa", "eager", "flash_by_lengths"])
def test_a_blank_page_lets_the_tower_take_part_and_teaches_nothing(attention):
    """With several processes, a tower that only some of them run would have them wait for one another for ever."""
    model = make_model(phi="residual_adapter", modality_embedding=True)
    examples = make_examples([[7], [5]])
    expected, expected_loss = separately(model, examples)
    expected_gradients = gradients(model, expected_loss)
    assert not any("visual" in name for name in expected_gradients)

    in_attention(model, attention)
    batch = DataCollatorWithPacking(model.config, blank_page=True)(examples)
    assert batch["input_ids"][0, -1] == IMAGE and batch["labels"][0, -1] == -100
    assert batch["image_grid_thw"].tolist() == [[1, 2, 2]]
    output = model(**batch)
    found = gradients(model, output.loss)
    torch.testing.assert_close(output.logits[0, :-1], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(output.loss, expected_loss, rtol=1e-5, atol=1e-5)
    assert found.keys() == {name for name, _ in model.named_parameters()}
    for name, gradient in found.items():
        if "visual" in name or "phi" in name:
            assert not gradient.any(), name
        else:
            torch.testing.assert_close(gradient, expected_gradients[name], rtol=1e-4, atol=1e-5, msg=name)


def test_a_blank_page_is_for_several_processes_and_for_batches_without_pages(monkeypatch):
    config = HybridCtxConfig(**tower_configs())
    without_pages, with_pages = make_examples([[4], [6]]), make_examples([[4], [(1, 2), 6]])
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert "pixel_values" not in DataCollatorWithPacking(config)(without_pages)
    monkeypatch.setenv("WORLD_SIZE", "2")
    collate = DataCollatorWithPacking(config)
    assert len(collate(without_pages)["image_grid_thw"]) == len(collate(with_pages)["image_grid_thw"]) == 1
    assert collate(with_pages)["image_grid_thw"].tolist() == [[1, 2, 4]]
    assert "pixel_values" not in DataCollatorWithPacking(config, blank_page=False)(without_pages)


def test_lists_arrays_and_padded_rows_make_the_same_batch():
    collate = DataCollatorWithPacking(HybridCtxConfig(**tower_configs()))
    examples = make_examples()
    expected = collate(examples)
    lists = [{key: value.tolist() for key, value in example.items()} for example in examples]
    flat = [
        {k: v.numpy() if k in ("pixel_values", "image_grid_thw") else v[0].numpy() for k, v in example.items()}
        for example in examples
    ]
    bare = [{k: v for k, v in example.items() if k != "mm_token_type_ids"} for example in examples]
    padded = copy.copy(examples)
    padding = {"input_ids": 0, "attention_mask": 0, "mm_token_type_ids": 0, "labels": -100}
    padded[0] = examples[0] | {
        key: nn.functional.pad(examples[0][key], (3, 2), value=value) for key, value in padding.items()
    }
    for features in (lists, flat, bare, padded):
        found = collate(features)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert np.array_equal(found[key], value), key
    assert collate(lists)["pixel_values"].dtype == torch.uint8


def test_the_collator_goes_to_worker_processes_without_the_model_s_weights():
    model = make_model()
    collate = DataCollatorWithPacking(model.config)
    data = pickle.dumps(collate)
    assert len(data) < sum(parameter.nbytes for parameter in model.parameters()) / 2
    batch, expected = pickle.loads(data)(make_examples()), collate(make_examples())
    assert torch.equal(batch["position_ids"], expected["position_ids"])


# training


@pytest.mark.parametrize("gradient_checkpointing", [False, True], ids=["", "gradient_checkpointing"])
def test_trainer_learns_from_packed_documents_what_it_learns_from_separate_ones(gradient_checkpointing, tmp_path):
    model = make_model()
    examples = make_examples()
    expected = copy.deepcopy(model)
    _, loss = separately(expected, examples)
    loss.backward()
    with torch.no_grad():
        for parameter in expected.parameters():
            parameter -= 0.1 * parameter.grad
    arguments = TrainingArguments(
        tmp_path,
        max_steps=1,
        per_device_train_batch_size=len(examples),
        learning_rate=0.1,
        optim="sgd",
        lr_scheduler_type="constant",
        max_grad_norm=0,
        activation_checkpointing=gradient_checkpointing,
        dataloader_num_workers=1,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    collate = DataCollatorWithPacking(model.config)
    trainer = Trainer(model, arguments, train_dataset=examples, eval_dataset=examples, data_collator=collate)
    assert trainer.train().training_loss == pytest.approx(loss.item(), abs=1e-5)
    for (name, parameter), other in zip(model.named_parameters(), expected.parameters()):
        torch.testing.assert_close(parameter, other, rtol=1e-5, atol=1e-5, msg=name)
    _, loss = separately(expected.eval(), examples)
    arguments.per_device_eval_batch_size = len(examples)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(loss.item(), abs=1e-4)


def test_lora_takes_a_packed_batch():
    model = get_peft_model(make_model(), LoraConfig(r=2, target_modules=["q_proj", "qkv"]))
    examples = make_examples()
    with torch.no_grad():
        expected, _ = separately(model, examples)
        found = model(**DataCollatorWithPacking(model.config)(examples)).logits[0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


# errors


def without(key: str) -> Any:
    return lambda example: example.pop(key)


def set_to(key: str, change: Any) -> Any:
    return lambda example: example.update({key: change(example[key])})


MISTAKES = {
    "too_long": (lambda e: None, "example 1 of 3 .* 25 tokens, more than max_length=24: .*ContextBudget"),
    "empty": (lambda e: [e.update({k: e[k][:, :0]}) for k in e if e[k].shape[0] == 1], "example 1 .* no tokens"),
    "no_input_ids": (without("input_ids"), "example 1 .*pass input_ids"),
    "short_labels": (set_to("labels", lambda x: x[:, 1:]), "example 1 .*'labels': 24.*one value for each token"),
    "two_rows": (set_to("input_ids", lambda x: x.repeat(2, 1)), r"example 1 .*\[2, 25\].*one example at a time"),
    "no_pages": (without("pixel_values"), "example 1 .*10 image tokens .*no pages came with it"),
    "no_grids": (without("image_grid_thw"), "example 1 .*without image_grid_thw"),
    "no_image_tokens": (set_to("input_ids", lambda x: x.masked_fill(x == IMAGE, 9)), "example 1 .*has 0 image tokens"),
    "fewer_patches": (set_to("pixel_values", lambda x: x[1:]), r"example 1 .*\[39, 108\].*40 patches"),
    "pixels_below_zero": (set_to("pixel_values", lambda x: x.long() - 9), "example 1 .*torch.int64.*uint8"),
    "some_without_labels": (without("labels"), "some examples have labels and some have not"),
    "floats_and_bytes": (
        set_to("pixel_values", lambda x: torch.zeros(len(x), 6 * PATCH**2)),
        "mix pixel_values of .*torch.float32.*torch.uint8.*one image processor",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_name_the_example(mistake):
    examples = make_examples()[:3]
    change, message = MISTAKES[mistake]
    change(examples[1])
    collate = DataCollatorWithPacking(HybridCtxConfig(**tower_configs()), 24 if mistake == "too_long" else None)
    with pytest.raises(ValueError, match=message):
        collate(examples)


def test_a_page_too_many_in_one_example_and_too_few_in_the_next_do_not_make_up_for_each_other():
    first, second = make_examples([[(2, 2), (2, 2), 3], [(2, 2), 4]], colour=())
    page = {"pixel_values": 16, "image_grid_thw": 1}
    for key, count in page.items():
        second[key] = torch.cat([second[key], first[key][:count]])
        first[key] = first[key][count:]
    with pytest.raises(ValueError, match=r"example 0 of 2 .*8 image tokens .*4 visual embeddings"):
        DataCollatorWithPacking(HybridCtxConfig(**tower_configs()))([first, second])


def test_no_examples_and_no_length_are_refused():
    config = HybridCtxConfig(**tower_configs())
    with pytest.raises(ValueError, match="no examples"):
        DataCollatorWithPacking(config)([])
    with pytest.raises(ValueError, match=r"max_length is 0: .*at least 1"):
        DataCollatorWithPacking(config, max_length=0)


def test_a_batch_of_which_nothing_is_learned_is_refused():
    config = HybridCtxConfig(**tower_configs())
    examples = [{"input_ids": [4, 5], "labels": [-100, -100]}, {"input_ids": [4, 5], "labels": [4, -100]}]
    with pytest.raises(ValueError, match=r"nothing is learned of a batch of 2 examples.*chat template"):
        DataCollatorWithPacking(config, blank_page=True)(examples)
    assert (DataCollatorWithPacking(config, needs_labels=False)(examples)["labels"] == -100).all()
    examples.append({"input_ids": [4, 5], "labels": [-100, 5]})
    assert DataCollatorWithPacking(config)(examples)["labels"].max() == 5


# attention choices


@pytest.mark.parametrize("towers", ["glm4v", "glm_ocr"])
def test_every_choice_of_attention_gives_the_same_logits(towers, tmp_path):
    model = make_model(towers)
    model.save_pretrained(tmp_path)
    inputs = make_inputs([PACKED_ROWS[0], PACKED_ROWS[3]])
    choices = ["eager", "sdpa", {"text_config": "eager", "vision_config": "sdpa"}, {"vision_config": "eager"}]
    with torch.no_grad():
        expected = model(**inputs).logits
        for choice in choices:
            loaded = HybridCtxForCausalLM.from_pretrained(tmp_path, attn_implementation=choice).eval()
            asked = {"text_config": "sdpa", "vision_config": "sdpa"}
            asked |= choice if isinstance(choice, dict) else dict.fromkeys(asked, choice)
            for tower, used in (("text_config", loaded.model.language_model), ("vision_config", loaded.model.visual)):
                attention = {m.config._attn_implementation for m in used.modules() if hasattr(m, "is_causal")}
                assert attention == {asked[tower]}
            attended = inputs["attention_mask"].bool()
            torch.testing.assert_close(loaded(**inputs).logits[attended], expected[attended], rtol=1e-5, atol=1e-5)
            loaded.set_attn_implementation({"text_config": "sdpa", "vision_config": "eager"})
            assert loaded.config.text_config._attn_implementation == "sdpa"
            assert loaded.config.vision_config._attn_implementation == "eager"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU may have flash attention")
@pytest.mark.parametrize(
    "choice",
    ["flash_attention_2", {"text_config": "flash_attention_2"}, {"vision_config": "flash_attention_2"}],
    ids=["both", "text", "vision"],
)
def test_flash_attention_on_a_cpu_is_an_error_for_either_tower(choice, tmp_path):
    make_model().save_pretrained(tmp_path)
    with pytest.raises((ImportError, ValueError), match=r"(?i)flash.?attention"):
        HybridCtxForCausalLM.from_pretrained(tmp_path, attn_implementation=choice)
    with pytest.raises((ImportError, ValueError), match=r"(?i)flash.?attention"):
        make_model().set_attn_implementation(choice)


def test_an_attention_that_nobody_knows_is_an_error(tmp_path):
    make_model().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no_such_attention"):
        HybridCtxForCausalLM.from_pretrained(tmp_path, attn_implementation="no_such_attention")


# GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.skipif(importlib.util.find_spec("flash_attn") is None, reason="flash-attn is not installed")
@pytest.mark.parametrize("towers", ["glm4v", "glm_ocr"])
def test_flash_attention_packs_alike_on_a_gpu(towers: str, tmp_path: Path) -> None:
    """Packed against separate, and the tower's one varlen call against sdpa's, in bf16 and with the real kernels.

    No run on a GPU is recorded yet; `benchmarks/results/` is where the last one belongs, with device and versions.
    """
    configs = tower_configs(towers)
    configs["vision_config"] |= {"hidden_size": 128, "out_hidden_size": 128}  # head sizes that flash kernels know
    configs["text_config"] |= {"hidden_size": 128, "head_dim": 32}
    configs["text_config"]["rope_parameters"] |= {"mrope_section": [4, 6, 6]}
    torch.manual_seed(0)
    HybridCtxForCausalLM(HybridCtxConfig(**configs)).save_pretrained(tmp_path)
    load = {"dtype": torch.bfloat16, "device_map": "cuda"}
    flash = HybridCtxForCausalLM.from_pretrained(tmp_path, attn_implementation="flash_attention_2", **load).eval()
    sdpa = HybridCtxForCausalLM.from_pretrained(tmp_path, attn_implementation="sdpa", **load).eval()
    examples = [{key: value.cuda() for key, value in example.items()} for example in make_examples(colour=())]
    packed = DataCollatorWithPacking(flash.config)(make_examples(colour=()))
    assert "cu_seq_lens_q" in packed
    packed = {key: value.cuda() if isinstance(value, torch.Tensor) else value for key, value in packed.items()}
    pages = (packed["pixel_values"], packed["image_grid_thw"])
    with torch.no_grad():
        expected, expected_loss = separately(sdpa, examples)
        found = flash(**packed)
        read = [torch.cat(model.get_image_features(*pages).pooler_output).float() for model in (flash, sdpa)]
        tower = flash.model.visual(pages[0], grid_thw=pages[1]).pooler_output.float()  # pages of all sizes at once
    assert (read[0] - read[1]).norm() < 0.02 * read[1].norm()
    assert (tower - read[1]).norm() < 0.02 * read[1].norm()
    assert (found.logits[0] - expected).float().norm() < 0.03 * expected.float().norm()
    assert abs(found.loss - expected_loss) < 0.02
