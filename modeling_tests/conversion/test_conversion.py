# SPDX-License-Identifier: Apache-2.0
"""Conversion keeps every value, accounts for every key, and leaves either a whole checkpoint or none."""

from __future__ import annotations

import errno
import json
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import (
    FAMILIES,
    all_tensors,
    convert_until_killed,
    edit_json,
    leftovers,
    rename_keys,
    save_source,
)
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    PreTrainedTokenizerFast,
)

import transformers_hybridctx.conversion.output_folders as output_folders
import transformers_hybridctx.conversion.tensor_files as tensor_files
from transformers_hybridctx import HybridCtxConfig, HybridCtxForCausalLM, RenderConfig
from transformers_hybridctx.conversion.convert import convert_checkpoint
from transformers_hybridctx.conversion.sources import open_checkpoint
from transformers_hybridctx.conversion.tensor_files import CheckpointError, read_header


def old_layout(key: str) -> str:
    """The key that transformers before 4.52 gave to the same weights."""
    return key.replace("model.visual.", "visual.").replace("model.language_model.", "model.")


# What is kept


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_value_is_kept_to_the_bit(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, family: str, dtype: torch.dtype
) -> None:
    save_source(tmp_path / "source", tokenizer, family, dtype)
    report = convert_checkpoint(str(tmp_path / "source"), tmp_path / "target")
    before, after = all_tensors(tmp_path / "source"), all_tensors(tmp_path / "target")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) and after[key].dtype == dtype for key in before)
    assert report["keys"] == {"kept": len(before), "renamed": 0, "dropped": 0}
    model, info = AutoModelForImageTextToText.from_pretrained(tmp_path / "target", output_loading_info=True)
    assert isinstance(model, HybridCtxForCausalLM) and model.dtype == dtype
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_verify_compares_logits_of_the_old_layout_with_the_converted(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    save_source(tmp_path / "source", tokenizer, "glm_ocr", torch.bfloat16)
    rename_keys(tmp_path / "source", old_layout)
    report = convert_checkpoint(str(tmp_path / "source"), tmp_path / "target", verify=True)
    assert report["keys"]["renamed"] > 50
    assert report["verification"]["max_abs_difference"] < 1e-4
    assert "largest difference of a logit" in " ".join((tmp_path / "target" / "README.md").read_text().split())


def test_a_failed_verification_leaves_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers_hybridctx.conversion import verification

    logits = iter([torch.zeros(1, 4, 9).numpy(), torch.ones(1, 4, 9).numpy()])
    monkeypatch.setattr(verification, "_apart", lambda *arguments: next(logits))
    with pytest.raises(CheckpointError, match="logits differ from the source's by 1"):
        convert_checkpoint(str(source), tmp_path / "target", verify=True)
    assert leftovers(tmp_path) == []


def test_the_processor_goes_along_with_its_font_template_and_render_config(
    source: Path, tmp_path: Path, render_config: dict[str, Any]
) -> None:
    convert_checkpoint(str(source), tmp_path / "target", render_config=RenderConfig(**render_config))
    processor = AutoProcessor.from_pretrained(tmp_path / "target")
    assert processor.render_config.page_width == render_config["page_width"]
    assert processor.render_config.font_path.startswith(str(tmp_path / "target" / "fonts"))
    features = processor(document="The code is 4711.", question="What is the code?", return_tensors="pt")
    model = HybridCtxForCausalLM.from_pretrained(tmp_path / "target")
    assert model.generate(**features, max_new_tokens=2, do_sample=False).shape[1] == features["input_ids"].shape[1] + 2


def test_old_and_new_key_layouts_become_the_same(source: Path, tmp_path: Path) -> None:
    expected = all_tensors(source)
    rename_keys(source, old_layout)
    report = convert_checkpoint(str(source), tmp_path / "target")
    after = all_tensors(tmp_path / "target")
    assert after.keys() == expected.keys() and all(torch.equal(after[key], expected[key]) for key in expected)
    assert report["keys"] == {"kept": 1, "renamed": len(expected) - 1, "dropped": 0}  # lm_head kept its name
    index = json.loads((tmp_path / "target" / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == expected.keys()


def test_a_config_with_the_text_towers_fields_at_its_top_is_read(
    source: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    config = json.loads((source / "config.json").read_text())
    text = config.pop("text_config")
    rope = text.pop("rope_parameters")
    old = {"rope_theta": rope["rope_theta"], "partial_rotary_factor": rope["partial_rotary_factor"]}
    old["rope_scaling"] = {"type": "default", "mrope_section": rope["mrope_section"]}
    (source / "config.json").write_text(json.dumps({**text, **config, **old, "model_type": "glm4v"}))
    convert_checkpoint(str(source), tmp_path / "target")
    read = HybridCtxConfig.from_pretrained(tmp_path / "target")
    assert rope.items() <= read.text_config.rope_parameters.items()
    assert read.text_config.num_key_value_heads == 2 and read.image_token_id == config["image_token_id"]


def test_the_layer_that_predicts_a_second_next_token_is_dropped_with_its_reason(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    save_source(tmp_path / "source", tokenizer, "glm_ocr", max_shard_size="10MB")
    shard = tmp_path / "source" / "model.safetensors"
    extra = {"eh_proj.weight": torch.ones(48, 96), "shared_head.norm.weight": torch.ones(48)}
    tensors = load_file(shard) | {f"model.language_model.layers.2.{key}": value for key, value in extra.items()}
    save_file(tensors, shard, metadata={"format": "pt"})
    text = json.loads((tmp_path / "source" / "config.json").read_text())["text_config"]
    edit_json(tmp_path / "source" / "config.json", text_config={**text, "num_nextn_predict_layers": 1})
    report = convert_checkpoint(str(tmp_path / "source"), tmp_path / "target")
    dropped = {entry["source"]: entry["reason"] for entry in report["tensors"] if entry["action"] == "dropped"}
    assert dropped.keys() == {f"model.language_model.layers.2.{key}" for key in extra}
    assert all("second next token" in reason for reason in dropped.values())
    edit_json(tmp_path / "source" / "config.json", text_config={**text, "num_nextn_predict_layers": 0})
    with pytest.raises(CheckpointError, match=r"no place for .*layers\.2\.eh_proj"):
        convert_checkpoint(str(tmp_path / "source"), tmp_path / "other")


def test_tied_embeddings_are_written_once_and_must_be_equal(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    save_source(tmp_path / "source", tokenizer, max_shard_size="10MB", tie_word_embeddings=True)
    shard = tmp_path / "source" / "model.safetensors"
    tensors = load_file(shard)
    embeddings = tensors["model.language_model.embed_tokens.weight"]
    assert "lm_head.weight" not in tensors
    convert_checkpoint(str(tmp_path / "source"), tmp_path / "target")
    model = HybridCtxForCausalLM.from_pretrained(tmp_path / "target")
    assert model.lm_head.weight is model.get_input_embeddings().weight

    save_file(tensors | {"lm_head.weight": embeddings.clone()}, shard, metadata={"format": "pt"})
    report = convert_checkpoint(str(tmp_path / "source"), tmp_path / "twice")
    assert report["keys"]["dropped"] == 1 and "lm_head.weight" not in all_tensors(tmp_path / "twice")

    save_file(tensors | {"lm_head.weight": embeddings + 1}, shard, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"differs from .*tie_word_embeddings"):
        convert_checkpoint(str(tmp_path / "source"), tmp_path / "other")


def test_every_key_of_the_source_is_in_the_report(source: Path, tmp_path: Path) -> None:
    report = convert_checkpoint(str(source), tmp_path / "target")
    assert json.loads((tmp_path / "target" / "conversion_report.json").read_text()) == report
    assert [entry["source"] for entry in report["tensors"]] == list(open_checkpoint(str(source)).tensors)
    assert report["sha256"].keys() == {path.name for path in (tmp_path / "target").glob("*.safetensors")}
    assert report["num_parameters"] == sum(tensor.numel() for tensor in all_tensors(source).values())
    page = report["page"]
    assert page["visual_tokens_per_page"] == (842 // 28) * (595 // 28)
    assert page["compression_ratio"] == round(page["text_tokens_per_page"] / page["visual_tokens_per_page"], 2)


def test_licences_and_generation_config_are_carried_over(source: Path, tmp_path: Path) -> None:
    (source / "LICENSE").write_text("the licence")
    (source / "LICENSES").mkdir()
    (source / "LICENSES" / "MIT.txt").write_text("another")
    (source / "generation_config.json").write_text('{"top_p": 0.25, "eos_token_id": [0, 4]}')
    (source / "README.md").write_text("---\nlicense: mit\nlanguage:\n- zh\n- en\n---\n\n# Source\n")
    convert_checkpoint(str(source), tmp_path / "target")
    assert (tmp_path / "target" / "LICENSE").read_text() == "the licence"
    assert (tmp_path / "target" / "LICENSES" / "MIT.txt").read_text() == "another"
    assert json.loads((tmp_path / "target" / "generation_config.json").read_text())["top_p"] == 0.25
    card = (tmp_path / "target" / "README.md").read_text()
    assert "license: mit" in card and "- zh" in card and "$" not in card


# Dtypes and memory


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtype_converts_as_torch_does(source: Path, tmp_path: Path, dtype: str) -> None:
    report = convert_checkpoint(str(source), tmp_path / "target", dtype=dtype)
    before, after = all_tensors(source), all_tensors(tmp_path / "target")
    assert all(torch.equal(before[key].to(getattr(torch, dtype)), after[key]) for key in before)
    assert report["dtype"] == dtype == json.loads((tmp_path / "target" / "config.json").read_text())["dtype"]


def test_a_value_that_the_dtype_cannot_hold_is_an_error_that_names_it(source: Path, tmp_path: Path) -> None:
    shard = next(source.glob("*-00001-of-*.safetensors"))
    tensors = load_file(shard)
    key = sorted(tensors)[0]
    tensors[key].view(-1)[-1] = 1e6
    save_file(tensors, shard, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"{key}.* holds 1e\+06, which F16 cannot.*65504.*bfloat16"):
        convert_checkpoint(str(source), tmp_path / "target", dtype="float16")
    assert leftovers(tmp_path) == []


def test_memory_does_not_grow_with_a_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_files, "CHUNK_BYTES", 2**18)
    save_file({"weight": torch.randn(2**22)}, tmp_path / "in.safetensors")  # 16 MiB
    (read,) = read_header(tmp_path / "in.safetensors")
    written = tensor_files.as_written(read, "weight", tmp_path / "out.safetensors", "BF16")
    tracemalloc.start()
    tensor_files.write_tensors(written.file, [(read, written)])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20
    assert torch.equal(load_file(written.file)["weight"], load_file(tmp_path / "in.safetensors")["weight"].bfloat16())


# A whole checkpoint or none


def test_dry_run_writes_nothing_and_reports_the_same(source: Path, tmp_path: Path) -> None:
    planned = convert_checkpoint(str(source), tmp_path / "target", dry_run=True)
    assert leftovers(tmp_path) == []
    done = convert_checkpoint(str(source), tmp_path / "target")
    assert {name: value for name, value in done.items() if name != "sha256"} == planned


def test_an_existing_target_is_kept_unless_asked(source: Path, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "mine").write_text("precious")
    with pytest.raises(CheckpointError, match=r"exists and is not empty; .* or replace it \(overwrite=\)"):
        convert_checkpoint(str(source), tmp_path / "target")
    assert (tmp_path / "target" / "mine").read_text() == "precious"
    convert_checkpoint(str(source), tmp_path / "target", overwrite=True)
    assert leftovers(tmp_path) == ["target"] and not (tmp_path / "target" / "mine").exists()


@pytest.mark.parametrize("target", ["source", "source/inside", "", "source/../source", "link"])
def test_a_source_is_never_written_over(source: Path, tmp_path: Path, target: str) -> None:
    (tmp_path / "link").symlink_to(source)
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    with pytest.raises(CheckpointError, match="is, holds or lies in the source"):
        convert_checkpoint(str(source), tmp_path / target, overwrite=True)
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before


def test_a_source_without_a_chat_template_is_converted_with_a_warning(source: Path, tmp_path: Path) -> None:
    (source / "chat_template.jinja").unlink()
    with pytest.warns(UserWarning, match="has no chat template, without which no prompt"):
        convert_checkpoint(str(source), tmp_path / "target")


def test_a_finished_shard_that_was_changed_since_is_written_anew(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers_hybridctx.conversion import convert

    def killed(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(convert, "write_remote_code", killed)
        with pytest.raises(KeyboardInterrupt):
            convert_checkpoint(str(source), tmp_path / "target")
    shard = next((tmp_path / ".target.partial").glob("model-00001-of-*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    convert_checkpoint(str(source), tmp_path / "target")
    before, after = all_tensors(source), all_tensors(tmp_path / "target")
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_too_small_a_disk_is_known_before(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(output_folders.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(CheckpointError, match="its disk has 1,000 free"):
        convert_checkpoint(str(source), tmp_path / "target")
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), Exception("No space left on device (os error 28)")]
)
def test_a_disk_that_fills_up_leaves_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    from transformers_hybridctx.conversion import convert

    write, calls = convert.write_tensors, []

    def full_at_second(file: Path, pairs: Any) -> str:
        calls.append(file)
        if len(calls) == 2:
            raise error
        return write(file, pairs)

    monkeypatch.setattr(convert, "write_tensors", full_at_second)
    with pytest.raises(CheckpointError, match="is full; nothing was left"):
        convert_checkpoint(str(source), tmp_path / "target")
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("changed", [False, True], ids=["same options", "another dtype"])
def test_what_was_killed_goes_on_or_starts_anew(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: bool
) -> None:
    written, again = convert_until_killed(monkeypatch, source, tmp_path / "target")
    assert leftovers(tmp_path) == [".target.partial"]
    convert_checkpoint(str(source), tmp_path / "target", dtype="bfloat16" if changed else None)
    assert bool(set(again) & set(written)) == changed
    assert leftovers(tmp_path) == ["target"]
    HybridCtxForCausalLM.from_pretrained(tmp_path / "target")
    assert not (tmp_path / "target" / ".progress.json").exists()
