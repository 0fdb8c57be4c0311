# SPDX-License-Identifier: Apache-2.0
"""More than one device: two real processes on the CPU, weights spread and offloaded, and what serving engines ask for."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed_worker import CHECKS, answer, train
from PIL import Image
from tiny_models import IMAGE, MERGE, PAGES_FIRST, PATCH, make_examples, make_inputs, make_model, tower_configs
from torch import nn
from transformers import AttentionInterface, AutoModel

from transformers_hybridctx import (
    DataCollatorWithPacking,
    HybridCtxConfig,
    HybridCtxForCausalLM,
    HybridCtxModel,
    HybridCtxProcessor,
)

SECONDS = 900
"""How long the two processes may take in all, on a busy machine, before they are ended."""

ROWS: list[list[Any]] = [[(2, 3), 8], [(1, 2), (2, 2), 9], [(3, 2), 5], [6, (2, 2), 7]]


def labelled(rows: list[list[Any]]) -> list[dict[str, torch.Tensor]]:
    """Examples that each have four labels, so that the mean of the processes' losses is the mean of all tokens'."""
    examples = make_examples(rows)
    for example in examples:
        example["labels"] = example["input_ids"].clone()
        example["labels"][:, :-4] = -100
    return examples


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint with all optional parts, inputs with pages, and examples for one global batch."""
    folder = tmp_path_factory.mktemp("devices")
    make_model(phi="residual_adapter", modality_embedding=True).save_pretrained(folder / "checkpoint")
    data = {
        "inputs": make_inputs(PAGES_FIRST),
        "examples": labelled(ROWS),
        # one process in two has no page in its batch, whatever the order
        "few_pages": labelled([[(2, 3), (1, 2), 8], [9], [12], [7]]),
    }
    torch.save(data, folder / "data.pt")
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> HybridCtxForCausalLM:
    """The checkpoint in this process alone. Tests must leave it as it is."""
    return HybridCtxForCausalLM.from_pretrained(folder / "checkpoint").eval()


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, dict[str, Any]]:
    """What two processes found, by check. All checks share one start of the processes."""
    script = Path(__file__).parent / "support" / "distributed_worker.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    command += ["--nproc-per-node", "2"]
    with open(folder / "output.txt", "w+") as output:
        process = subprocess.Popen([*command, str(script), str(folder)], stdout=output, stderr=subprocess.STDOUT)
        try:
            code: int | str = process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.terminate()  # and not killed: torchrun then ends its workers
            process.wait(30)
            code = f"still running after {SECONDS} seconds"
        output.seek(0)
        if code != 0:
            pytest.fail(f"{' '.join(command)} ... ended with {code}:\n{output.read()[-6000:]}", pytrace=False)
    return {check.__name__: torch.load(folder / f"{check.__name__}.pt") for check in CHECKS}


# two processes


def test_tensor_parallel_gives_the_logits_and_answers_of_one_process(found, model):
    inputs = make_inputs(PAGES_FIRST)
    alone, two = answer(model, inputs), found["tensor_parallel"]
    attended = inputs["attention_mask"].bool()
    torch.testing.assert_close(two["logits"][attended], alone["logits"][attended], rtol=1e-5, atol=1e-5)
    assert torch.equal(two["generated"], alone["generated"])
    parameters = dict(model.named_parameters())
    layer = "model.language_model.layers.0."
    for name, dim in (
        ("self_attn.q_proj.weight", 0),
        ("self_attn.k_proj.weight", 0),
        ("self_attn.o_proj.weight", 1),
        ("mlp.gate_up_proj.weight", 0),
        ("mlp.down_proj.weight", 1),
    ):
        halved = list(parameters[layer + name].shape)
        halved[dim] //= 2
        assert list(two["shares"][layer + name]) == halved
    assert not any("visual" in name or "phi" in name for name in two["shares"])  # whole in each process


@pytest.mark.parametrize(
    ("check", "data", "wrapped"),
    [
        ("ddp", "examples", "DistributedDataParallel"),
        ("ddp_with_gradient_checkpointing", "few_pages", "DistributedDataParallel"),
        ("fsdp", "examples", "FSDPHybridCtxForCausalLM"),
        ("fsdp_with_few_pages", "few_pages", "FSDPHybridCtxForCausalLM"),
    ],
)
def test_two_processes_learn_what_one_learns_from_the_same_global_batch(found, folder, tmp_path, check, data, wrapped):
    two = found[check]
    assert (two["wrapped"], two["processes"], two["batch_size"]) == (wrapped, 2, 2)  # what ran, not what was asked for
    start = HybridCtxForCausalLM.from_pretrained(folder / "checkpoint")
    before = {name: parameter.detach().clone() for name, parameter in start.named_parameters()}
    alone = train(start, torch.load(folder / "data.pt")[data], tmp_path, batch_size=4)
    assert alone["processes"] == 1
    assert two["losses"] == pytest.approx(alone["losses"], abs=1e-5)
    assert alone["losses"][1] < alone["losses"][0]
    assert two["weights"].keys() == alone["weights"].keys() == before.keys()
    for name, weight in alone["weights"].items():
        assert not torch.equal(weight, before[name]), name
        torch.testing.assert_close(two["weights"][name], weight, rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("check", ["fsdp", "fsdp_with_few_pages"])
def test_fsdp_gives_each_process_half_of_every_parameter(found, model, check):
    parameters = dict(model.named_parameters())
    assert found[check]["shares"].keys() == parameters.keys()
    for name, shape in found[check]["shares"].items():
        whole = parameters[name].shape
        assert shape == (-(-whole[0] // 2), *whole[1:]), name  # the first process has the larger half


def test_the_loss_in_chunks_of_a_model_that_is_whole_only_while_it_is_called(found, folder):
    alone = HybridCtxForCausalLM.from_pretrained(folder / "checkpoint").train()
    batch = DataCollatorWithPacking(alone.config)(torch.load(folder / "data.pt")["examples"])
    loss = alone(**batch).loss * int((batch["labels"] != -100).sum())
    loss.backward()
    two = found["loss_in_chunks"]
    torch.testing.assert_close(two["loss"], loss.detach())
    for name, parameter in alone.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(two["gradients"][name], parameter.grad, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("check", ["ddp", "fsdp"])
def test_what_two_processes_save_is_whole(found, folder, check):
    loaded = HybridCtxForCausalLM.from_pretrained(folder / check)
    for name, parameter in loaded.named_parameters():
        assert torch.equal(parameter, found[check]["weights"][name]), name


# one process, several places


def test_device_map_auto_gives_the_same_answers(folder, model):
    inputs = make_inputs(PAGES_FIRST)
    spread = HybridCtxForCausalLM.from_pretrained(folder / "checkpoint", device_map="auto")
    expected, given = answer(model, inputs), answer(spread, {k: v.to(spread.device) for k, v in inputs.items()})
    attended = inputs["attention_mask"].bool()
    torch.testing.assert_close(given["logits"].cpu()[attended], expected["logits"][attended], rtol=1e-5, atol=1e-5)
    assert torch.equal(given["generated"].cpu(), expected["generated"])


PARTS = ("model.visual", "model.phi", "model.modality_embedding", "model.language_model", "lm_head")
OFFLOADED = {
    "tower": dict.fromkeys(PARTS, "cpu") | {"model.visual": "disk"},
    "decoder": dict.fromkeys(PARTS, "cpu") | {"model.language_model": "disk", "lm_head": "disk"},
    "what_is_ours": dict.fromkeys(PARTS, "cpu") | {"model.phi": "disk", "model.modality_embedding": "disk"},
    "all": dict.fromkeys(PARTS, "disk"),
}


# Not GLM-4V's tower: transformers reads the weight of its position embeddings where no hook brings it back.
@pytest.mark.parametrize(
    ("towers", "place"),
    [*(("glm_ocr", place) for place in OFFLOADED), *(("glm4v", place) for place in ("decoder", "what_is_ours"))],
)
def test_weights_offloaded_to_disk_give_the_same_answers(towers, place, tmp_path):
    model = make_model(towers, phi="residual_adapter", modality_embedding=True)
    model.save_pretrained(tmp_path / "checkpoint")
    spread = HybridCtxForCausalLM.from_pretrained(
        tmp_path / "checkpoint", device_map=OFFLOADED[place], offload_folder=tmp_path / "offloaded"
    )
    assert any(parameter.is_meta for parameter in spread.parameters())
    inputs = make_inputs(PAGES_FIRST)
    expected, given = answer(model, inputs), answer(spread, inputs)
    attended = inputs["attention_mask"].bool()
    torch.testing.assert_close(given["logits"][attended], expected["logits"][attended], rtol=1e-5, atol=1e-5)
    assert torch.equal(given["generated"], expected["generated"])


def test_what_does_not_fit_goes_to_disk_in_whole_layers(tmp_path):
    configs = tower_configs()
    configs["text_config"]["num_hidden_layers"] = 8
    model = HybridCtxForCausalLM(HybridCtxConfig(**configs)).eval()
    model.save_pretrained(tmp_path / "checkpoint")
    spread = HybridCtxForCausalLM.from_pretrained(
        tmp_path / "checkpoint",
        device_map="auto",
        max_memory={"cpu": sum(parameter.nbytes for parameter in model.parameters()) * 2 // 3},
        offload_folder=tmp_path / "offloaded",
    )
    layers = {name: place for name, place in spread.hf_device_map.items() if ".layers." in name}
    assert set(layers.values()) == {"cpu", "disk"}
    # no layer is cut in two: within one, the residual would have to move between devices
    assert all(name.removeprefix("model.language_model.layers.").isdecimal() for name in layers)
    inputs = make_inputs(PAGES_FIRST)
    expected, given = answer(model, inputs), answer(spread, inputs)
    attended = inputs["attention_mask"].bool()
    torch.testing.assert_close(given["logits"][attended], expected["logits"][attended], rtol=1e-5, atol=1e-5)
    assert torch.equal(given["generated"], expected["generated"])


# what vLLM's Transformers backend asks for


class EngineAttention:
    """Stands for an engine's own attention: found by layer in what `forward` is given, and it keeps no cache."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
        self.calls += 1
        attend = nn.functional.scaled_dot_product_attention
        return attend(query, key, value, is_causal=True, scale=scale, enable_gqa=True)


def engine_attention(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float, **kwargs: Any
) -> tuple[torch.Tensor, None]:
    assert attention_mask is None
    layer = kwargs["attention_instances"][module.layer_idx]
    return layer(query, key, value, scaling).transpose(1, 2), None


AttentionInterface.register("engine", engine_attention)


@pytest.mark.parametrize("towers", ["glm4v", "glm_ocr", "glm4v_moe"])
def test_an_engine_runs_the_decoder_with_its_own_attention(towers):
    reference = make_model(towers, phi="residual_adapter", modality_embedding=True).model
    config = HybridCtxConfig(**tower_configs(towers), phi="residual_adapter", modality_embedding=True)
    text_config = config.get_text_config()
    text_config._attn_implementation = "engine"
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    assert type(model) is HybridCtxModel and model.is_backend_compatible()
    assert type(model.get_decoder()) is type(model.language_model)
    assert type(model.get_encoder(modality="image")) is type(model.visual)
    assert model.get_input_embeddings() is model.language_model.embed_tokens
    model = model.to_empty(device="cpu").eval()
    model.load_state_dict(reference.state_dict())
    for name, buffer in reference.named_buffers():
        model.get_buffer(name).copy_(buffer)

    inputs = make_inputs([PAGES_FIRST[0]])
    pixels, grids = inputs["pixel_values"], inputs["image_grid_thw"]
    engine = {layer: EngineAttention() for layer in range(text_config.num_hidden_layers)}
    with torch.no_grad():
        features = model.get_image_features(pixels, image_grid_thw=grids).pooler_output
        again = model.get_image_features(pixels, image_grid_thw=grids, return_dict=True).pooler_output
        assert [len(page) for page in features] == (grids.prod(-1) // MERGE**2).tolist()
        assert all(torch.equal(page, other) for page, other in zip(features, again))
        # every argument by name, those too that a page model has no use for
        positions, delta = model.get_rope_index(
            input_ids=inputs["input_ids"],
            image_grid_thw=grids,
            video_grid_thw=None,
            second_per_grid_ts=None,
            mm_token_type_ids=inputs["mm_token_type_ids"],
        )
        assert positions.shape == (3, *inputs["input_ids"].shape) and delta[0].numel() == 1
        embeds = model.get_input_embeddings()(inputs["input_ids"])
        embeds[inputs["input_ids"] == IMAGE] = torch.cat(list(features))
        hidden = model(
            input_ids=None,
            inputs_embeds=embeds,
            use_cache=False,
            position_ids=positions,
            attention_instances=engine,
            return_dict=False,
        )[0]
        expected = reference(**inputs).last_hidden_state
    assert [layer.calls for layer in engine.values()] == [1] * text_config.num_hidden_layers
    torch.testing.assert_close(hidden, expected, rtol=1e-4, atol=1e-4)


def test_an_engine_s_own_convolution_reads_pages_too():
    """An engine puts its own layers in place of torch's, with the same weights."""

    class EngineConvolution(nn.Module):
        def __init__(self, proj: nn.Conv3d) -> None:
            super().__init__()
            self.weight, self.bias, self.stride = proj.weight, proj.bias, proj.stride

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return nn.functional.conv3d(pixels, self.weight, self.bias, self.stride)

    model = make_model().model
    inputs = make_inputs(PAGES_FIRST)
    with torch.no_grad():
        expected = model(**inputs).last_hidden_state
        model.visual.patch_embed.proj = EngineConvolution(model.visual.patch_embed.proj)
        found = model(**inputs).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_an_engine_finds_each_page_s_place_and_patches_through_the_processor(processor: HybridCtxProcessor):
    sizes = [(84, 56), (28, 140)]
    images = [Image.new("RGB", (width, height), "blue") for height, width in sizes]
    counted = processor._get_num_multimodal_tokens(image_sizes=sizes)
    data = processor(
        text=processor.image_token * 2,
        images=images,
        return_text_replacement_offsets=True,
        return_mm_token_type_ids=True,
        truncation=False,
        add_special_tokens=False,
        return_tensors="pt",
    )
    (offsets,) = data["text_replacement_offsets"]
    assert [entry["type"] for entry in offsets] == ["image", "image"]
    assert [entry["replacement"] for entry in offsets] == [
        processor.replace_image_token({"image_grid_thw": data["image_grid_thw"]}, page) for page in range(2)
    ]
    assert [entry["replacement"].count(processor.image_token) for entry in offsets] == counted["num_image_tokens"]
    assert data["image_grid_thw"].prod(-1).tolist() == counted["num_image_patches"]
    assert len(data["pixel_values"]) == sum(counted["num_image_patches"])
    assert int((data["mm_token_type_ids"] == 1).sum()) == sum(counted["num_image_tokens"])
    assert (data["input_ids"] == processor.image_token_id).sum() == sum(counted["num_image_tokens"])
    assert {"pixel_values", "image_grid_thw"} <= set(processor.image_processor.model_input_names)
    # an engine reserves memory for the largest page by asking for one that is far too large
    most = processor._get_num_multimodal_tokens(image_sizes=([10_000, 10_000],))["num_image_tokens"][0]
    assert 0 < most <= processor.image_processor.size["longest_edge"] // (28 * 28)


def test_signatures_that_engines_call_are_kept():
    def names(function: Any) -> list[str]:
        return list(inspect.signature(function).parameters)

    assert names(HybridCtxModel.get_image_features)[1:3] == ["pixel_values", "image_grid_thw"]
    rope = names(HybridCtxModel.get_rope_index)
    assert rope[1] == "input_ids" and {"mm_token_type_ids", "image_grid_thw", "video_grid_thw", "kwargs"} <= set(rope)
    assert {"image_sizes", "kwargs"} <= set(names(HybridCtxProcessor._get_num_multimodal_tokens))
    assert names(HybridCtxProcessor.replace_image_token)[1:3] == ["image_inputs", "image_idx"]
    config = HybridCtxConfig(**tower_configs())
    assert config.get_text_config() is config.text_config
    assert (config.vision_config.patch_size, config.vision_config.spatial_merge_size) == (PATCH, MERGE)
    assert config.image_token_id == IMAGE
