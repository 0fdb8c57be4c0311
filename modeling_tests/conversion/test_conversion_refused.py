# SPDX-License-Identifier: Apache-2.0
"""What conversion refuses before it writes anything, by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import (
    all_tensors,
    edit_json,
    leftovers,
    rename_keys,
)

from transformers_hybridctx.conversion.convert import convert_checkpoint
from transformers_hybridctx.conversion.tensor_files import CheckpointError

# What is refused


def cut_short(folder: Path) -> None:
    shard = next(folder.glob("*-00002-of-*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-10])


def cut_in_the_header(folder: Path) -> None:
    shard = next(folder.glob("*-00002-of-*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:100])


def odd_offsets(folder: Path) -> None:
    shard = next(folder.glob("*-00001-of-*.safetensors"))
    data = shard.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header[max(header)]["data_offsets"] = []
    changed = json.dumps(header).encode()
    shard.write_bytes(len(changed).to_bytes(8, "little") + changed + data[8 + length :])


def not_safetensors(folder: Path) -> None:
    next(folder.glob("*-00001-of-*.safetensors")).write_bytes(b"<html>Too many requests</html>")


def empty_file(folder: Path) -> None:
    next(folder.glob("*-00001-of-*.safetensors")).write_bytes(b"")


def shard_gone(folder: Path) -> None:
    next(folder.glob("*-00002-of-*.safetensors")).unlink()


def key_gone(folder: Path) -> None:
    shard = next(folder.glob("*-00001-of-*.safetensors"))
    tensors = load_file(shard)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, shard)


def key_gone_from_the_index_too(folder: Path) -> None:
    key_gone(folder)
    there = all_tensors(folder)
    index = folder / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    edit_json(index, weight_map={key: name for key, name in weight_map.items() if key in there})


def wrong_shape(folder: Path) -> None:
    shard = next(folder.glob("*-00001-of-*.safetensors"))
    tensors = load_file(shard)
    key = sorted(tensors)[0]
    save_file(tensors | {key: torch.zeros(3, 5)}, shard)


def unknown_key(folder: Path) -> None:
    rename_keys(folder, lambda key: key.replace("lm_head.weight", "score.weight"))


def unknown_part(folder: Path) -> None:
    rename_keys(folder, lambda key: key.replace("model.visual.merger", "model.visual.resampler"))


def pickles_only(folder: Path) -> None:
    for file in folder.glob("*safetensors*"):
        file.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80")


def escaping_index(folder: Path) -> None:
    weight_map = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    edit_json(
        folder / "model.safetensors.index.json", weight_map=dict.fromkeys(weight_map, "../../secret.safetensors")
    )


def absurd_depth(folder: Path) -> None:
    text = json.loads((folder / "config.json").read_text())["text_config"]
    edit_json(folder / "config.json", text_config={**text, "num_hidden_layers": 10**9})


def absurd_width(folder: Path) -> None:
    text = json.loads((folder / "config.json").read_text())["text_config"]
    edit_json(folder / "config.json", text_config={**text, "vocab_size": 2**62})


def other_family(folder: Path) -> None:
    edit_json(folder / "config.json", model_type="qwen2_vl")


def latents_without_pages(folder: Path) -> None:
    edit_json(folder / "config.json", model_type="C3", latent_token_len=32, contexts_compression_llm_hidden_size=1536)


def quantised(folder: Path) -> None:
    edit_json(folder / "config.json", quantization_config={"quant_method": "fp8"})


def other_tokenizer(folder: Path) -> None:
    edit_json(folder / "config.json", image_token_id=11)


def other_patches(folder: Path) -> None:
    edit_json(folder / "preprocessor_config.json", patch_size=16)


def mixture_of_experts(folder: Path) -> None:
    edit_json(folder / "config.json", model_type="glm4v_moe")


def experts_in_the_text_tower(folder: Path) -> None:
    text = json.loads((folder / "config.json").read_text())["text_config"]
    edit_json(folder / "config.json", text_config={**text, "model_type": "glm4v_moe_text"})


def towers_that_are_no_objects(folder: Path) -> None:
    edit_json(folder / "config.json", vision_config="large")


def unknown_positions(folder: Path) -> None:
    text = json.loads((folder / "config.json").read_text())["text_config"]
    rope = {**text["rope_parameters"], "rope_type": "spiral"}
    edit_json(folder / "config.json", text_config={**text, "rope_parameters": rope})


def no_window(folder: Path) -> None:
    text = json.loads((folder / "config.json").read_text())["text_config"]
    edit_json(folder / "config.json", text_config={**text, "max_position_embeddings": -1})


def broken_tokenizer(folder: Path) -> None:
    edit_json(folder / "tokenizer.json", model=[1, 2])


def broken_image_sizes(folder: Path) -> None:
    edit_json(folder / "preprocessor_config.json", size=7)


def broken_generation_config(folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"top_p": ')


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": ')


REFUSED: dict[Callable[[Path], None], str] = {
    cut_short: r"model-00002-of-.* promises .*cut short",
    cut_in_the_header: r"model-00002-of-.*not a whole safetensors file",
    odd_offsets: r"header of .*model-00001-of-.* cannot be read",
    not_safetensors: r"model-00001-of-.*not a whole safetensors file",
    empty_file: r"model-00001-of-.*\(0 bytes\) is not a whole",
    shard_gone: r"model-00002-of-.* is missing",
    key_gone: r"model-00001-of-.* lacks 1 tensors that .*index.json promises",
    key_gone_from_the_index_too: r"the checkpoint lacks (model|lm_head)",
    wrong_shape: r"wrong shapes: .*\[3, 5\] where config.json asks for",
    unknown_key: r"'score.weight' is a key of no known layout",
    unknown_part: r"no place for .*model.visual.resampler",
    pickles_only: r"pickled weights only \(pytorch_model.bin\).*safetensors",
    escaping_index: r"'../../secret.safetensors', which is not a shard's file name",
    absurd_depth: r"num_hidden_layers=1000000000, but the checkpoint has \d+ tensors",
    absurd_width: r"vocab_size=4611686018427387904 is not between",
    other_family: r"model_type='qwen2_vl'; these can be converted: glm4v",
    latents_without_pages: r"layout of Context Cascade Compression \(.*latent_token_len=32\).* it has no vision tower"
    r".* its Qwen2 decoder is no text tower .* put the weights of llm1, Q and .*mm_projector into it",
    quantised: r"is quantised",
    other_tokenizer: r"config has image_token_id=11",
    other_patches: r"patch_size=16, but its vision tower has patch_size=14",
    mixture_of_experts: r"model_type='glm4v_moe', a mixture of experts, which cannot .* these can be converted: glm4v",
    experts_in_the_text_tower: r"text tower of model_type='glm4v_moe_text'.*a mixture of experts cannot",
    towers_that_are_no_objects: r"config.json of .* cannot be used",
    unknown_positions: r"config.json of .* cannot be used .*spiral",
    no_window: r"max_position_embeddings=-1, which leaves no room",
    broken_tokenizer: r"the tokenizer of .* cannot be used",
    broken_image_sizes: r"the tokenizer or the image processor of .* cannot be used",
    broken_generation_config: r"generation_config.json is not JSON",
    no_config: r"has no config.json",
    broken_config: r"config.json is not JSON",
}


@pytest.mark.parametrize("damage", REFUSED, ids=lambda damage: damage.__name__)
def test_a_damaged_source_is_refused_before_anything_is_written(
    source: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    damage(source)
    with pytest.raises(CheckpointError, match=REFUSED[damage]):
        convert_checkpoint(str(source), tmp_path / "target")
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("{folder}/nowhere", "there is no such folder here"),
        ("nowhere", "checkpoint nowhere: there is no such folder here; an id on the Hub is owner/name"),
        ("./no/where", "there is no such folder here"),
        ("{folder}/config.json", "is a file: name the folder"),
        ("odd/name with spaces", "neither a folder on this machine nor a Hub id"),
    ],
)
def test_something_that_is_neither_a_folder_nor_a_hub_id(name: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=says):
        convert_checkpoint(name.format(folder=tmp_path), tmp_path / "target")


def test_code_in_the_sources_folder_is_not_run(source: Path, tmp_path: Path) -> None:
    (source / "tokenization_evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    edit_json(source / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_evil.Evil", None]})
    edit_json(source / "config.json", auto_map={"AutoConfig": "tokenization_evil.Evil"})
    convert_checkpoint(str(source), tmp_path / "target")
    assert not (tmp_path / "ran").exists()
