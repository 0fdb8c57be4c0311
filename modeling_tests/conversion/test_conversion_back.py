# SPDX-License-Identifier: Apache-2.0
"""The way back to GLM-4V, LoRA merged into full weights, and model cards whose figures come from files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_checkpoints import FAMILIES, IMAGE_SIZES, all_tensors, edit_json, leftovers, randomize, save_source
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoTokenizer,
    Glm4vImageProcessorPil,
    PreTrainedTokenizerFast,
)
from typer.testing import CliRunner

from transformers_hybridctx import HybridCtxForCausalLM, HybridCtxProcessor
from transformers_hybridctx.bundled_checkpoint import BUNDLED_CHECKPOINT
from transformers_hybridctx.cli.app import app
from transformers_hybridctx.conversion.convert import convert_checkpoint
from transformers_hybridctx.conversion.export import export_checkpoint
from transformers_hybridctx.conversion.merge import merge_lora
from transformers_hybridctx.conversion.model_cards import benchmark_table, fill_benchmark_card
from transformers_hybridctx.conversion.tensor_files import CheckpointError

CARDS = Path(__file__).parents[2] / "model_cards"


@pytest.fixture
def checkpoint(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A converted checkpoint in several shards."""
    save_source(tmp_path / "source", tokenizer)
    (tmp_path / "source" / "LICENSE").write_text("the licence")
    (tmp_path / "source" / "LICENSES").mkdir()
    (tmp_path / "source" / "LICENSES" / "MIT.txt").write_text("another")
    convert_checkpoint(str(tmp_path / "source"), tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


# The way back


@pytest.mark.parametrize("family", FAMILIES)
def test_there_and_back_is_the_same_checkpoint(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, family: str
) -> None:
    save_source(tmp_path / "source", tokenizer, family, torch.bfloat16)
    convert_checkpoint(str(tmp_path / "source"), tmp_path / "checkpoint")
    report = export_checkpoint(str(tmp_path / "checkpoint"), tmp_path / "back")
    assert report["model_type"] == family
    before, after = all_tensors(tmp_path / "source"), all_tensors(tmp_path / "back")
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)

    back, info = AutoModelForImageTextToText.from_pretrained(tmp_path / "back", output_loading_info=True)
    assert type(back) is FAMILIES[family][1] and back.dtype == torch.bfloat16
    assert not info["missing_keys"] and not info["unexpected_keys"]
    one, other = (AutoConfig.from_pretrained(tmp_path / name).to_dict() for name in ("source", "back"))
    assert one == other | {"_name_or_path": one["_name_or_path"]}
    settings = json.loads((tmp_path / "back" / "preprocessor_config.json").read_text())
    assert settings["image_processor_type"].endswith("ImageProcessor") and settings["size"] == IMAGE_SIZES
    reloaded = AutoTokenizer.from_pretrained(tmp_path / "back")
    assert reloaded.get_vocab() == tokenizer.get_vocab() and reloaded.chat_template == tokenizer.chat_template


def test_the_exported_checkpoint_gives_the_same_logits(checkpoint: Path, tmp_path: Path) -> None:
    export_checkpoint(str(checkpoint), tmp_path / "back")
    processor = HybridCtxProcessor.from_pretrained(checkpoint)
    page = np.random.default_rng(0).integers(0, 256, (84, 112), dtype=np.uint8)
    features = dict(processor(document=[page], question="What?", text_policy="none", return_tensors="pt"))
    with torch.no_grad():
        ours = HybridCtxForCausalLM.from_pretrained(checkpoint)(**features).logits
        cut = Glm4vImageProcessorPil.from_pretrained(tmp_path / "back")
        features |= dict(cut(images=[np.repeat(page[:, :, None], 3, 2)], return_tensors="pt"))
        theirs = AutoModelForImageTextToText.from_pretrained(tmp_path / "back")(**features).logits
    assert (ours - theirs).abs().max() < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_an_exported_config_has_what_engines_ask_for(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, family: str
) -> None:
    """
    SGLang's model and processor of the family, and vLLM's, read these fields by name. They look up how positions are
    counted by model_type, know one activation and one base of the tower's rotary embedding, and give q, k and v biases.
    """
    save_source(tmp_path / "source", tokenizer, family)
    convert_checkpoint(str(tmp_path / "source"), tmp_path / "checkpoint")
    for name, source in (("back", tmp_path / "checkpoint"), ("bundled", BUNDLED_CHECKPOINT)):
        export_checkpoint(str(source), tmp_path / name)
        config = json.loads((tmp_path / name / "config.json").read_text())
        assert config["model_type"] == (family if name == "back" else "glm4v")
        assert config["architectures"] == [FAMILIES[config["model_type"]][1].__name__]
        for place in ("image", "image_start", "image_end", "video", "video_start", "video_end"):
            assert isinstance(config[f"{place}_token_id"], int)
        text, vision = config["text_config"], config["vision_config"]
        assert text.get("tie_word_embeddings", False) == config["tie_word_embeddings"] == (name == "bundled")
        rope = text["rope_parameters"]
        head_size = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
        assert rope["rope_type"] == "default" and rope["rope_theta"] and len(rope["mrope_section"]) == 3
        assert sum(rope["mrope_section"]) == head_size * rope["partial_rotary_factor"] / 2
        assert (text["hidden_act"], vision["hidden_act"]) == ("silu", "silu")
        assert vision["rope_parameters"]["rope_theta"] == 10000.0 and vision["spatial_merge_size"] == 2
        keys = [key for key in all_tensors(tmp_path / name) if "language_model" in key and key.endswith("_proj.bias")]
        biased = {key.split(".")[-2] for key in keys}
        assert text.get("attention_bias", False) == bool(biased)
        assert biased == (set() if config["model_type"] == "glm_ocr" else {"q_proj", "k_proj", "v_proj"})
        settings = json.loads((tmp_path / name / "preprocessor_config.json").read_text())
        shape = [settings[field] for field in ("patch_size", "temporal_patch_size", "merge_size")]
        assert shape == [vision[field] for field in ("patch_size", "temporal_patch_size", "spatial_merge_size")]
        assert "image" in (tmp_path / name / "chat_template.jinja").read_text()


@pytest.mark.parametrize("sections", [[1] * 6, [2, 2, 1], [2, 4]])
def test_positions_that_engines_count_otherwise_are_not_exported(
    checkpoint: Path, tmp_path: Path, sections: list[int]
) -> None:
    text = json.loads((checkpoint / "config.json").read_text())["text_config"]
    text["rope_parameters"]["mrope_section"] = sections
    edit_json(checkpoint / "config.json", text_config=text)
    with pytest.raises(CheckpointError, match=rf"mrope_section=\[{sections[0]}.* three sections that sum to 6"):
        export_checkpoint(str(checkpoint), tmp_path / "no")


def test_a_tower_of_one_frame_is_exported_as_one_of_two(tmp_path: Path) -> None:
    """VLLM's own class counts a picture as two frames; the bundled checkpoint's tower takes it for one."""
    export_checkpoint(str(BUNDLED_CHECKPOINT), tmp_path / "back")
    ours = HybridCtxForCausalLM.from_pretrained(BUNDLED_CHECKPOINT, dtype=torch.float32)
    theirs = AutoModelForImageTextToText.from_pretrained(tmp_path / "back", dtype=torch.float32)
    frames = [model.config.vision_config.temporal_patch_size for model in (ours, theirs)]
    assert frames == [1, 2]
    processor = HybridCtxProcessor.from_pretrained(BUNDLED_CHECKPOINT)
    cut = Glm4vImageProcessorPil.from_pretrained(tmp_path / "back")
    # pages at both bounds of the size, which is one of pixels times frames
    for sides in ((48, 48), (960, 12_000)):
        page = np.random.default_rng(0).integers(0, 256, sides, dtype=np.uint8)
        features = dict(processor(document=[page], question="What?", text_policy="none", return_tensors="pt"))
        cut_there = dict(cut(images=[np.repeat(page[:, :, None], 3, 2)], return_tensors="pt"))
        assert torch.equal(features["image_grid_thw"], cut_there["image_grid_thw"])
        if sides[0] == sides[1]:
            with torch.no_grad():
                difference = ours(**features).logits - theirs(**{**features, **cut_there}).logits
            assert difference.abs().max() < 1e-4


def test_phi_that_was_not_trained_is_dropped_and_one_that_was_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="start as the identity"):
        model = HybridCtxForCausalLM.from_pretrained(checkpoint, phi="residual_adapter", modality_embedding=True)
    processor = HybridCtxProcessor.from_pretrained(checkpoint)
    for name in ("fresh", "trained phi", "trained embedding"):
        if name == "trained phi":
            torch.nn.init.constant_(model.model.phi.up.weight, 0.5)
        if name == "trained embedding":
            torch.nn.init.zeros_(model.model.phi.up.weight)
            torch.nn.init.constant_(model.model.modality_embedding.weight, -2)
        model.save_pretrained(tmp_path / name)
        processor.save_pretrained(tmp_path / name)
    report = export_checkpoint(str(tmp_path / "fresh"), tmp_path / "back")
    dropped = [one["source"] for one in report["tensors"] if one["action"] == "dropped"]
    assert dropped and all(key.startswith(("model.phi.", "model.modality_embedding.")) for key in dropped)
    assert all_tensors(tmp_path / "back").keys() == all_tensors(checkpoint).keys()
    with pytest.raises(CheckpointError, match=r"phi was trained \(model.phi.up.weight holds values up to 0.5\)"):
        export_checkpoint(str(tmp_path / "trained phi"), tmp_path / "refused")
    with pytest.raises(CheckpointError, match=r"modality_embedding was trained .* up to 2\)"):
        export_checkpoint(str(tmp_path / "trained embedding"), tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


def test_a_model_type_can_be_chosen_among_those_that_fit(checkpoint: Path, tmp_path: Path) -> None:
    report = export_checkpoint(str(checkpoint), tmp_path / "no", model_type="glm46v", dry_run=True)
    assert report["model_type"] == "glm46v"
    with pytest.raises(CheckpointError, match="model_type='glm_ocr' does not have the towers glm4v_text"):
        export_checkpoint(str(checkpoint), tmp_path / "no", model_type="glm_ocr")
    with pytest.raises(CheckpointError, match="model_type='glm4v', not 'hybridctx'"):
        export_checkpoint(str(tmp_path / "source"), tmp_path / "no")
    assert leftovers(tmp_path, "source", "checkpoint", "adapter") == []


@pytest.mark.parametrize(("asked", "loaded"), [(None, torch.float32), ("float16", torch.float16)])
def test_a_checkpoint_stored_small_is_still_loaded_as_it_asks(
    checkpoint: Path, tmp_path: Path, asked: str | None, loaded: torch.dtype
) -> None:
    for shard in checkpoint.glob("*.safetensors"):
        save_file({key: value.half() for key, value in load_file(shard).items()}, shard, metadata={"format": "pt"})
    report = export_checkpoint(str(checkpoint), tmp_path / "back", dtype=asked)
    assert all(tensor.dtype == torch.float16 for tensor in all_tensors(tmp_path / "back").values())
    assert AutoModelForImageTextToText.from_pretrained(tmp_path / "back").dtype == loaded
    assert report["num_bytes"] == 2 * report["num_parameters"]


# LoRA


@pytest.fixture
def adapter(checkpoint: Path, tmp_path: Path) -> Path:
    model = HybridCtxForCausalLM.from_pretrained(checkpoint)
    lora = LoraConfig(r=4, target_modules=["q_proj", "gate_up_proj", "qkv"], modules_to_save=["lm_head"])
    tuned = randomize(get_peft_model(model, lora), seed=1)
    tuned.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_a_merged_checkpoint_answers_as_base_and_adapter_do(checkpoint: Path, adapter: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    merge_lora(str(checkpoint), adapter, tmp_path / "merged", max_shard_size="100KB")
    assert len(list((tmp_path / "merged").glob("*.safetensors"))) > 2
    processor = HybridCtxProcessor.from_pretrained(tmp_path / "merged")
    features = processor(document="The code is 4711.", question="What?", return_tensors="pt")
    base = HybridCtxForCausalLM.from_pretrained(checkpoint)
    with torch.no_grad():
        before = base(**features).logits
        tuned = PeftModel.from_pretrained(base, adapter)(**features).logits
        merged = HybridCtxForCausalLM.from_pretrained(tmp_path / "merged")(**features).logits
    assert (tuned - merged).abs().max() < 1e-4 < (before - merged).abs().max()
    assert all_tensors(tmp_path / "merged").keys() == all_tensors(checkpoint).keys()
    assert (tmp_path / "merged" / "LICENSE").read_text() == "the licence"
    assert (tmp_path / "merged" / "LICENSES" / "MIT.txt").read_text() == "another"


@pytest.mark.parametrize("damage", ["a key gone", "an unknown key", "another width", "not finite", "no weights"])
def test_an_adapter_that_does_not_fit_is_refused(checkpoint: Path, adapter: Path, tmp_path: Path, damage: str) -> None:
    weights = adapter / "adapter_model.safetensors"
    tensors = load_file(weights)
    key = next(name for name in tensors if name.endswith("q_proj.lora_A.weight"))
    match damage:
        case "a key gone":
            tensors.pop(key)
        case "an unknown key":
            tensors[key.replace("q_proj", "r_proj")] = tensors[key].clone()
        case "another width":
            tensors[key] = torch.zeros(4, 7)
        case "not finite":
            tensors[key][0, 0] = float("nan")
    weights.unlink() if damage == "no weights" else save_file(tensors, weights)
    message = "has no adapter_model.safetensors" if damage == "no weights" else "cannot be merged into"
    with pytest.raises(CheckpointError, match=message):
        merge_lora(str(checkpoint), adapter, tmp_path / "merged")
    assert leftovers(tmp_path, "source", "checkpoint", "adapter") == []


# Cards

FIGURES: dict[str, Any] = {
    "suite": "needles",
    "metric": "exact match",
    "tasks": ["single_number", "single_uuid"],
    "rows": [
        {
            "length": 2048,
            "budget": 1024,
            "context": context,
            "scores": {"single_number": score, "single_uuid": 0.5},
            "counts": {"single_number": 50, "single_uuid": 50},
            "prompt_tokens": 1000.4,
        }
        for context, score in (("pages", 0.42), ("hybrid, bm25", 0.96))
    ],
}


def test_a_benchmark_becomes_a_table() -> None:
    assert benchmark_table(FIGURES).splitlines() == [
        "| document tokens | budget | context | single_number | single_uuid | prompt tokens |",
        "|--:|--:|---|--:|--:|--:|",
        "| 2,048 | 1,024 | pages | 42% | 50% | 1,000 |",
        "| 2,048 | 1,024 | hybrid, bm25 | 96% | 50% | 1,000 |",
        "",
        "needles, exact match; 50 samples for each task and row.",
    ]


def test_figures_are_filled_into_the_card_of_the_reference_checkpoint(tmp_path: Path) -> None:
    card, rows = tmp_path / "card.md", tmp_path / "rows.json"
    card.write_text((CARDS / "hybridctx-tiny.md").read_text())
    rows.write_text(json.dumps(FIGURES))
    result = CliRunner().invoke(app, ["fill-card", str(card), str(rows)])
    assert result.exit_code == 0, result.output
    filled = ModelCard.load(card)
    assert benchmark_table(FIGURES) in filled.text
    results = filled.data.eval_results
    tasks, values = ([one.dataset_args["task"] for one in results], [one.metric_value for one in results])
    assert list(zip(tasks, values, strict=True)) == [
        *(("single_number", 0.42), ("single_number", 0.96)),
        *(("single_uuid", 0.5), ("single_uuid", 0.5)),
    ]
    assert results[0].metric_name == "exact match, pages" and results[0].dataset_args["budget"] == 1024
    once = card.read_text()
    fill_benchmark_card(card, rows)
    assert card.read_text() == once


def test_what_is_no_card_and_no_table_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    card, rows = tmp_path / "card.md", tmp_path / "rows.json"
    card.write_bytes("# Café\n".encode("latin-1"))
    rows.write_text(json.dumps(FIGURES))
    for arguments, said in (
        ([str(card), str(rows)], "card.md is not in UTF-8, as cards are"),
        ([str(card), str(tmp_path)], "is a folder: give a file in it, such as the table.json"),
        ([str(rows), str(card)], "card.md is not a table of `hybridctx evaluate --out`"),
    ):
        result = CliRunner().invoke(app, ["fill-card", *arguments])
        assert result.exit_code == 2, result.output
        assert said in " ".join(result.stderr.split())
    assert card.read_bytes() == "# Café\n".encode("latin-1")


def test_figures_are_added_to_a_card_that_has_no_table_yet(checkpoint: Path, tmp_path: Path) -> None:
    rows, card = tmp_path / "rows.json", checkpoint / "README.md"
    rows.write_text(json.dumps(FIGURES))
    before = ModelCard.load(card)
    fill_benchmark_card(card, rows)
    filled = ModelCard.load(card)
    assert filled.text.startswith(before.text.rstrip()) and benchmark_table(FIGURES) in filled.text
    assert filled.data.model_name == "source, HybridCtx"
    fill_benchmark_card(card, rows)
    assert ModelCard.load(card).content == filled.content
    card.write_text(card.read_text().replace("<!-- benchmark table: end -->", ""))
    with pytest.raises(CheckpointError, match="has one of the lines"):
        fill_benchmark_card(card, rows)


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}', '{"tasks": [], "rows": [5]}'])
def test_a_file_that_is_no_benchmark_leaves_the_card_alone(tmp_path: Path, content: str) -> None:
    card = tmp_path / "card.md"
    card.write_text((CARDS / "hybridctx-tiny.md").read_text())
    before = card.read_text()
    (tmp_path / "rows.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"rows.json is not a table of"):
        fill_benchmark_card(card, tmp_path / "rows.json")
    assert card.read_text() == before


def test_cards_have_the_metadata_that_the_hub_asks_for(checkpoint: Path) -> None:
    for card in (ModelCard.load(CARDS / "hybridctx-tiny.md"), ModelCard.load(checkpoint / "README.md")):
        assert card.data.library_name == "transformers-hybridctx" and card.data.pipeline_tag == "image-text-to-text"
        assert "long-doc-qa" in card.data.tags
    tiny = ModelCard.load(CARDS / "hybridctx-tiny.md").data
    assert tiny.license == "apache-2.0" and tiny.language == ["en"]


def test_a_card_names_what_the_checkpoint_came_from(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """The folder of a download names its repository's commit; the source's card names its licence."""
    folder = tmp_path / "models--org--name" / "snapshots" / ("a1" * 20)
    save_source(folder, tokenizer)
    (folder / "README.md").write_text("---\nlicense: mit\nbase_model: org/base\nlanguage: [zh, en]\n---\n# X\n")
    edit_json(folder / "config.json")
    convert_checkpoint(str(folder), tmp_path / "checkpoint")
    card = ModelCard.load(tmp_path / "checkpoint" / "README.md")
    assert (card.data.license, card.data.base_model, card.data.language) == ("mit", "org/base", ["zh", "en"])
    assert "a1" * 20 in card.text and "630" in card.text and "$" not in card.text
