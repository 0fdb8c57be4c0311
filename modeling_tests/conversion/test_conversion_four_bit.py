# SPDX-License-Identifier: Apache-2.0
"""Checkpoints written in 4 bits, and HybridCtx checkpoints written in another form, without what adds nothing."""

from __future__ import annotations

import json
import math
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import (
    FAMILIES,
    FOUR_BIT_TEXT,
    all_tensors,
    convert_until_killed,
    leftovers,
    rename_keys,
    save_source,
)
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedTokenizerFast
from typer.testing import CliRunner

import transformers_hybridctx.conversion.four_bit as four_bit
import transformers_hybridctx.conversion.tensor_files as tensor_files
import transformers_hybridctx.conversion.verification as verification
from transformers_hybridctx import HybridCtxConfig, HybridCtxForCausalLM, HybridCtxProcessor, RenderConfig
from transformers_hybridctx.cli.app import app
from transformers_hybridctx.conversion.convert import convert_checkpoint
from transformers_hybridctx.conversion.export import export_checkpoint
from transformers_hybridctx.conversion.four_bit import four_bit_bytes, in_four_bits
from transformers_hybridctx.conversion.tensor_files import CheckpointError, as_written, read_header
from transformers_hybridctx.modules.quantization import four_bit_config


def old_layout(key: str) -> str:
    return key.replace("model.visual.", "visual.").replace("model.language_model.", "model.")


@pytest.fixture
def source(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A glm4v checkpoint in several shards, whose decoder can take 4 bits."""
    save_source(tmp_path / "source", tokenizer, dtype=torch.bfloat16, text_fields=FOUR_BIT_TEXT)
    return tmp_path / "source"


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verification without processes of its own, which take seconds to start; test_conversion.py has a test with them."""
    monkeypatch.setattr(verification, "_apart", lambda function, *arguments: function(*arguments))


# In 4 bits


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [None, "float32", "float16"])
def test_four_bits_are_those_of_loading_in_four_bits_to_the_bit(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, family: str, dtype: str | None
) -> None:
    save_source(tmp_path / "source", tokenizer, family, torch.bfloat16, text_fields=FOUR_BIT_TEXT)
    report = convert_checkpoint(str(tmp_path / "source"), tmp_path / "target", dtype=dtype, load_in_4bit=True)
    convert_checkpoint(str(tmp_path / "source"), tmp_path / "full", dtype=dtype)
    compute_dtype = torch.float16 if dtype == "float16" else torch.bfloat16
    quantization = four_bit_config(tmp_path / "full", compute_dtype=compute_dtype)
    model = HybridCtxForCausalLM.from_pretrained(tmp_path / "full", quantization_config=quantization)
    model.save_pretrained(tmp_path / "saved")
    ours, theirs = all_tensors(tmp_path / "target"), all_tensors(tmp_path / "saved")
    assert ours.keys() == theirs.keys() and len(ours) > len(all_tensors(tmp_path / "full"))
    assert all(torch.equal(ours[key], theirs[key]) and ours[key].dtype == theirs[key].dtype for key in ours)
    mine, saved = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("target", "saved"))
    assert mine["quantization_config"] == saved["quantization_config"] and mine["dtype"] == saved["dtype"]
    loaded, info = AutoModelForImageTextToText.from_pretrained(tmp_path / "target", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert loaded.is_loaded_in_4bit and loaded.dtype == model.dtype
    assert report["num_bytes"] == sum(tensor.nbytes for tensor in ours.values())
    index = json.loads((tmp_path / "target" / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == ours.keys()
    assert index["metadata"]["total_size"] == report["num_bytes"]


def test_chunks_of_a_weight_give_the_codes_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bitsandbytes.functional import quantize_4bit

    monkeypatch.setattr(tensor_files, "CHUNK_BYTES", 2**12)
    weight = torch.randn(70, 192) * torch.linspace(0.01, 9, 70)[:, None]
    save_file({"w": weight}, tmp_path / "in.safetensors")
    (read,) = read_header(tmp_path / "in.safetensors")
    written = as_written(read, "w", tmp_path / "out.safetensors", "BF16")
    pairs = in_four_bits([(read, written)], {"w"}, tmp_path)
    found = {one.name: load_file(one.file)[one.name] for one, _ in pairs}
    codes, state = quantize_4bit(weight.bfloat16(), compress_statistics=True, quant_type="nf4")
    expected = {"w": codes} | {f"w.{name}": part for name, part in state.as_dict(packed=True).items()}
    assert found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)


def test_memory_of_four_bits_stays_below_the_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_files, "CHUNK_BYTES", 2**18)
    save_file({"w": torch.randn(2**12, 2**10)}, tmp_path / "in.safetensors")  # 16 MiB
    (read,) = read_header(tmp_path / "in.safetensors")
    tracemalloc.start()
    pairs = in_four_bits([(read, as_written(read, "w", tmp_path / "out", None))], {"w"}, tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**22  # of Python's own; the codes, 2 MiB, are torch's
    assert 0 <= four_bit_bytes(read) - sum(one.num_bytes for one, _ in pairs) < 64


def test_a_dry_run_counts_the_bytes(source: Path, tmp_path: Path) -> None:
    planned = convert_checkpoint(str(source), tmp_path / "target", load_in_4bit=True, dry_run=True)
    assert leftovers(tmp_path) == []
    done = convert_checkpoint(str(source), tmp_path / "target", load_in_4bit=True)
    num_weights = planned["quantization"]["num_weights"]
    assert num_weights == 2 * 6 and 0 <= planned["num_bytes"] - done["num_bytes"] < 64 * num_weights
    same = planned.keys() - {"num_bytes"}
    assert all(planned[name] == done[name] for name in same) and done.keys() - planned.keys() == {"sha256"}
    quantised = [one["target"] for one in done["tensors"] if one.get("quantised") == "nf4"]
    assert len(quantised) == num_weights and all(".layers." in key for key in quantised)


@pytest.mark.parametrize("family", ["glm4v", "glm_ocr"])
@pytest.mark.parametrize("dtype", [None, "float16"])
def test_verify_compares_with_the_source_in_the_same_four_bits(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, one_process: None, family: str, dtype: str | None
) -> None:
    save_source(tmp_path / "source", tokenizer, family, torch.bfloat16, text_fields=FOUR_BIT_TEXT)
    rename_keys(tmp_path / "source", old_layout)
    report = convert_checkpoint(
        str(tmp_path / "source"), tmp_path / "target", dtype=dtype, load_in_4bit=True, verify=True
    )
    found = report["verification"]
    assert found["compared_with"] == "the source in the same 4 bits"
    assert found["max_abs_difference"] < 1e-4 < found["tolerance"] < 0.01
    assert found["distance_to_full_precision"]["max_abs_difference"] > 0.1
    card = " ".join((tmp_path / "target" / "README.md").read_text().split())
    assert "12 linear layers are in 4 bits" in card and "Full precision is" in card and "$" not in card


def test_a_weight_in_four_bits_that_differs_fails_the_verification(
    source: Path, tmp_path: Path, one_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:

    quantised = four_bit._quantised

    def one_code_wrong(*arguments: Any) -> dict[str, torch.Tensor]:
        tensors = quantised(*arguments)
        tensors[arguments[1].name][:64] ^= 255
        return tensors

    monkeypatch.setattr(four_bit, "_quantised", one_code_wrong)
    with pytest.raises(CheckpointError, match="logits differ from the source's"):
        convert_checkpoint(str(source), tmp_path / "target", load_in_4bit=True, verify=True)
    assert leftovers(tmp_path) == []


def test_weights_that_are_not_finite_are_refused(source: Path, tmp_path: Path) -> None:
    shard = next(file for file in source.glob("*.safetensors") if "layers.0.mlp" in " ".join(load_file(file)))
    tensors = load_file(shard)
    key = next(key for key in tensors if "layers.0.mlp" in key and "language_model" in key)
    tensors[key][3, 5] = float("nan")
    save_file(tensors, shard, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"{key}.* not finite"):
        convert_checkpoint(str(source), tmp_path / "target", load_in_4bit=True)
    assert leftovers(tmp_path) == []


def test_a_decoder_that_cannot_take_four_bits_is_told_before_anything_is_written(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    save_source(tmp_path / "source", tokenizer, text_fields={"intermediate_size": 72})
    with pytest.raises(CheckpointError, match=r"q_proj has in_features=48.*multiple of 64"):
        convert_checkpoint(str(tmp_path / "source"), tmp_path / "target", load_in_4bit=True)
    assert leftovers(tmp_path) == []


def test_without_bitsandbytes_it_is_told_what_to_install(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(CheckpointError, match=r"bitsandbytes: pip install 'transformers-hybridctx\[quantize\]'"):
        convert_checkpoint(str(source), tmp_path / "target", load_in_4bit=True)
    assert leftovers(tmp_path) == []


def test_what_was_killed_goes_on_in_four_bits_and_starts_anew_without(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, again = convert_until_killed(monkeypatch, source, tmp_path / "target", load_in_4bit=True)
    done = convert_checkpoint(str(source), tmp_path / "target", load_in_4bit=True)
    assert len(again) == done["num_shards"] - 2 and leftovers(tmp_path) == ["target"]
    assert not (tmp_path / "target" / ".scratch").exists()
    clean = convert_checkpoint(str(source), tmp_path / "clean", load_in_4bit=True)
    assert clean["sha256"] == done["sha256"]


# From HybridCtx to HybridCtx


@pytest.fixture
def fused(source: Path, tmp_path: Path) -> Path:
    """A HybridCtx checkpoint with a phi and a modality embedding that nobody has trained."""
    convert_checkpoint(str(source), tmp_path / "full")
    with pytest.warns(UserWarning, match="start as the identity"):
        model = HybridCtxForCausalLM.from_pretrained(
            tmp_path / "full", phi="residual_adapter", modality_embedding=True
        )
    model.save_pretrained(tmp_path / "fused", max_shard_size="100KB")
    processor = HybridCtxProcessor.from_pretrained(tmp_path / "full")
    processor.default_budget = {"max_context_tokens": 1000}
    processor.save_pretrained(tmp_path / "fused")
    return tmp_path / "fused"


def test_phi_that_adds_nothing_is_folded(
    fused: Path, tmp_path: Path, one_process: None, render_config: dict[str, Any]
) -> None:
    report = convert_checkpoint(
        str(fused), tmp_path / "folded", fold_phi=True, render_config=RenderConfig(**render_config), verify=True
    )
    before, after = all_tensors(tmp_path / "full"), all_tensors(tmp_path / "folded")
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    config = HybridCtxConfig.from_pretrained(tmp_path / "folded")
    assert config.phi == "identity" and not config.modality_embedding
    assert report["keys"]["dropped"] == len(all_tensors(fused)) - len(before) == 4
    assert report["verification"]["max_abs_difference"] < 1e-5
    processor = AutoProcessor.from_pretrained(tmp_path / "folded")
    assert processor.default_budget["max_context_tokens"] == 1000 and processor.render_config.page_width == 168


def test_without_folding_phi_is_kept(fused: Path, tmp_path: Path, one_process: None) -> None:
    convert_checkpoint(str(fused), tmp_path / "kept", load_in_4bit=True, verify=True)
    after = all_tensors(tmp_path / "kept")
    assert {"model.phi.up.weight", "model.modality_embedding.weight"} <= after.keys()
    assert after["model.phi.up.weight"].dtype == torch.bfloat16
    model = HybridCtxForCausalLM.from_pretrained(tmp_path / "kept")
    assert model.config.phi == "residual_adapter" and model.is_loaded_in_4bit


@pytest.mark.parametrize("part", ["model.phi.up.weight", "model.modality_embedding.weight"])
def test_what_was_trained_cannot_be_folded(fused: Path, tmp_path: Path, part: str) -> None:
    shard = next(file for file in fused.glob("*.safetensors") if part in load_file(file))
    tensors = load_file(shard)
    save_file(tensors | {part: torch.full_like(tensors[part], 0.5)}, shard, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"was trained .*up to 0.5.*convert it without folding phi"):
        convert_checkpoint(str(fused), tmp_path / "folded", fold_phi=True)
    assert not (tmp_path / "folded").exists()


def test_the_family_is_remembered_however_often_a_checkpoint_is_converted(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    save_source(tmp_path / "source", tokenizer, "glm46v")
    convert_checkpoint(str(tmp_path / "source"), tmp_path / "once")
    convert_checkpoint(str(tmp_path / "once"), tmp_path / "twice", dtype="bfloat16", fold_phi=True)
    assert export_checkpoint(str(tmp_path / "twice"), tmp_path / "back")["model_type"] == "glm46v"


# Context arithmetic


@pytest.mark.parametrize(("window", "budget"), [(131072, 122880), (65536, 57344), (4096, 3584)])
def test_a_prompt_leaves_room_for_its_answer(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, window: int, budget: int
) -> None:
    save_source(tmp_path / "source", tokenizer, text_fields={"max_position_embeddings": window})
    report = convert_checkpoint(str(tmp_path / "source"), tmp_path / "target")
    assert report["context"] == {"max_position_embeddings": window, "max_context_tokens": budget}
    processor = AutoProcessor.from_pretrained(tmp_path / "target")
    assert processor.default_budget == {"max_context_tokens": budget}
    assert processor.plan("A word. " * 9, "Which?").total_tokens < budget
    card = (tmp_path / "target" / "README.md").read_text()
    pages = math.floor(budget / report["page"]["visual_tokens_per_page"])
    assert f"at most {budget:,} tokens, so that {window - budget:,} are left" in card and f"{pages:,} pages" in card


def test_the_command_tells_what_it_did(source: Path, tmp_path: Path, one_process: None) -> None:
    arguments = ["convert", str(source), str(tmp_path / "a b"), "--load-in-4bit", "--verify"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "12 weights in 4 bits" in result.output and "full precision is" in result.output
    folded = CliRunner().invoke(app, ["convert", str(tmp_path / "a b"), str(tmp_path / "c"), "--fold-phi"])
    assert folded.exit_code == 2 and "is quantised; convert the checkpoint that it was made from" in folded.output
