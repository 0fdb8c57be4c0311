# SPDX-License-Identifier: Apache-2.0
"""The configs to start from: what they take in memory, and a step of each on a scaled-down twin of its model and data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from checkpoint_memory import published_configs
from command_line import run
from safetensors import safe_open
from tiny_checkpoints import FOUR_BIT_TEXT, save_source
from tiny_models import make_model
from training_runs import CONTEXT

from transformers_hybridctx.conversion.configs import hybridctx_config
from transformers_hybridctx.conversion.convert import convert_checkpoint
from transformers_hybridctx.training.config import TrainingConfig
from transformers_hybridctx.training.memory import memory_of_training
from transformers_hybridctx.training.packing import DataCollatorWithPacking
from transformers_hybridctx.training.readers.registry import DataSource
from transformers_hybridctx.training.run import run_training

RECIPES = Path(__file__).parents[2] / "recipes" / "training"
LABS = [
    "glyph_continued_pretraining",
    "glyph_instruction_tuning",
    "glyph_rewards",
    "glyph_qlora_one_gpu",
    "glm_ocr_one_gpu",
]
LONG = f"{CONTEXT}\n" * 40
ANSWERED = {"role": "assistant", "content": "42"}
SAID = [{"role": "user", "content": "What is a page?"}, {"role": "assistant", "content": "A side of a leaf."}]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with configs of the published shapes, under the names that the recipes have; no weights."""
    folder = tmp_path_factory.mktemp("published")
    configs = published_configs()
    for name in ("glyph-hybridctx", "runs/glyph-cpt", "runs/glyph-sft", "glm-ocr-hybridctx"):
        source = configs["GLM-OCR" if "ocr" in name else "GLM-4.1V-9B, Glyph"]
        config = hybridctx_config(source, {})
        config.dtype = "bfloat16"
        config.save_pretrained(folder / name)
    return folder


@pytest.mark.parametrize(
    ("name", "processes", "gigabytes"),
    [
        ("glyph_continued_pretraining", 8, (80, 60.35)),
        ("glyph_instruction_tuning", 8, (80, 60.35)),
        ("glyph_rewards", 8, (80, 52.87)),
        ("glyph_qlora_one_gpu", 1, (24, 17.12)),
        ("glm_ocr_one_gpu", 1, (40, 28.53)),
        ("tiny_on_a_cpu", 1, (2, 1.07)),
        ("tiny_rewards_on_a_cpu", 1, (16, 7.33)),
    ],
)
def test_the_configs_fit_the_devices_that_they_name(
    published: Path, monkeypatch: pytest.MonkeyPatch, name: str, processes: int, gigabytes: tuple[float, float]
) -> None:
    monkeypatch.chdir(published)
    room, told = gigabytes
    result = run("train", RECIPES / f"{name}.yaml", "--memory", "--processes", processes)
    assert result.exit_code == 0, result.output
    assert f"in all       {told:.2f} GB in each process" in result.stdout  # as docs/training.md has it
    assert told < 0.9 * room
    missing = [source["path"] for source in yaml.safe_load((RECIPES / f"{name}.yaml").read_text())["data"]]
    for path in missing:  # of this machine, for the Hub is not asked
        is_here = path.startswith("./") or path.endswith(".jsonl")
        assert (f"warning: data: there is no file or folder {path}" in result.stderr) == is_here


def test_what_the_configs_name_is_not_sought_on_the_hub() -> None:
    """A missing `runs/x` would be."""
    for file in RECIPES.glob("*.yaml"):
        given = yaml.safe_load(file.read_text())
        assert given["output_dir"].startswith("./")
        assert given.get("model", "./").startswith("./") or "/" not in given["model"]
        for path in (source["path"] for source in given["data"] if "split" not in source):
            assert path.startswith("./") or "/" not in path


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_arithmetic_is_what_a_training_holds(
    tmp_path: Path, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, gradients and the optimiser's state to the byte; what is kept for the gradients within a factor of two."""
    model = make_model("glm4v", phi="residual_adapter")
    model.save_pretrained(tmp_path / "model")
    length = 256
    config = TrainingConfig(
        output_dir="out",
        data=(DataSource("json_lines", "x"),),
        trainer={"max_steps": 1, "per_device_train_batch_size": 1, "activation_checkpointing": checkpointing},
        model=str(tmp_path / "model"),
        channels={"tokens": 1.0},
        max_tokens=length,
        chunk_tokens=1,
        attn_implementation="flash_attention_2",
        freeze=("vision",),
    )
    told = memory_of_training(config)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("visual" not in name)
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert told.weights == sum(parameter.nbytes for parameter in model.parameters())
    assert (told.parameters, told.trainable) == (
        sum(p.numel() for p in model.parameters()),
        sum(p.numel() for p in learned),
    )
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    batch = DataCollatorWithPacking(model.config)(
        [{"input_ids": torch.ones(length).long(), "labels": torch.ones(length)}]
    )
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = {parameter.data_ptr() for parameter in model.parameters()}
    batch.pop("labels")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.train()
        loss = model.model(**batch).last_hidden_state.sum()
    if checkpointing:  # and one layer at a time on the way back
        assert sum(kept.values()) < told.activations
    else:
        assert told.activations / 2 < sum(kept.values()) < 2 * told.activations
    loss.backward()
    optimizer = torch.optim.AdamW(learned)
    for parameter in learned:
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    optimizer.step()
    assert told.gradients == sum(parameter.grad.nbytes for parameter in learned if parameter.grad is not None)
    states = [value for state in optimizer.state.values() for name, value in state.items() if name != "step"]
    assert told.optimizer == sum(value.nbytes for value in states)


def qasper_answer(number: int) -> dict[str, Any]:
    said = f"The code is {number}."
    answer = {"unanswerable": False, "extractive_spans": [f"{number}"], "yes_no": None, "free_form_answer": ""}
    return answer | {"evidence": [said], "highlighted_evidence": [said]}


def made_up_data(folder: Path, tokenizer: Any) -> dict[str, str]:
    """A file for each reader that the recipes use, in the published schema."""
    ids = tokenizer.encode(LONG, add_special_tokens=False)
    start = CONTEXT.index("42")
    rows: dict[str, list[dict[str, Any]]] = {
        "prolong": [{"input_ids": ids, "domain": "book", "length": len(ids)}] * 4,
        "longalign": [
            {"messages": [{"role": "user", "content": f"{LONG}{number}\n\nWhich code?"}, ANSWERED]}
            for number in range(6)
        ],
        "ultrachat": [
            {"prompt": "What is a page?", "prompt_id": f"{number}", "messages": SAID} for number in range(6)
        ],
        "squad": [
            {
                "id": f"{number}",
                "context": f"{CONTEXT}{number}",
                "question": "Which code?",
                "answers": {"text": ["42"], "answer_start": [start]},
            }
            for number in range(6)
        ],
        "hotpotqa": [
            {
                "id": f"{number}",
                "question": "Which code?",
                "answer": "42",
                "context": {"title": ["Room", f"{number}"], "sentences": [["The code is 42."], ["It was May."]]},
                "supporting_facts": {"title": ["Room"], "sent_id": [0]},
            }
            for number in range(6)
        ],
        "qasper": [
            {
                "id": f"{number}",
                "title": "Rooms",
                "abstract": CONTEXT,
                "full_text": {"section_name": ["Codes"], "paragraphs": [[f"The code is {number}."]]},
                "qas": {"question": ["Which code?"], "answers": [{"answer": [qasper_answer(number)]}]},
            }
            for number in range(6)
        ],
        "json_lines": [
            {"context": f"{CONTEXT}{number}", "question": "Which?", "answer": "42", "evidence": [[start, start + 2]]}
            for number in range(6)
        ],
    }
    paths = {}
    for name, some in rows.items():
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in some))
        paths[name] = str(path)
    return paths


@pytest.mark.parametrize("name", LABS)
def test_a_step_of_each_config_on_a_scaled_down_twin(
    tmp_path: Path, tokenizer: Any, render_config: Any, name: str
) -> None:
    """All that the config says, but for sizes and what needs a GPU: its towers' kinds, readers, objectives and rates."""
    family = "glm_ocr" if "ocr" in name else "glm4v"
    text = {**FOUR_BIT_TEXT, "eos_token_id": tokenizer.eos_token_id, "dtype": "bfloat16"}
    save_source(tmp_path / "source", tokenizer, family, torch.bfloat16, text_fields=text)
    convert_checkpoint(str(tmp_path / "source"), tmp_path / "model", render_config=render_config)
    given = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    data = made_up_data(tmp_path, tokenizer)
    for source in given["data"]:
        source["path"] = data[source["reader"]]
        source |= {"tokenizer": str(tmp_path / "model")} if "tokenizer" in source else {}
        source |= {"lengthen": {"characters": 300}} if "lengthen" in source else {}
        for field in ("split", "config", "revision"):
            source.pop(field, None)
    given |= {"output_dir": str(tmp_path / "out"), "model": str(tmp_path / "model"), "evaluation_examples": 1}
    given |= {"max_tokens": 6000, "attn_implementation": None, "held_out": 0.2}
    given["budget"] = {}
    given["trainer"] |= {"max_steps": 1, "gradient_accumulation_steps": 2, "use_cpu": True, "disable_tqdm": True}
    for field in ("fsdp", "fsdp_config"):
        given["trainer"].pop(field, None)
    given["trainer"]["dataloader_num_workers"] = 0  # a run with others is in test_trainer
    if "rewards" in given:
        given["trainer"] |= {"num_generations": 2, "max_completion_length": 4}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(given))
    report = run_training(TrainingConfig.read(path))
    assert report.steps == 1 and report.perplexity_before and report.perplexity_after
    entry = next(entry for entry in report.log if "grad_norm" in entry or "train_loss" in entry)
    assert "rewards" in given or entry.get("train_loss", 1) > 0
    weights = tmp_path / "out" / ("adapter_model.safetensors" if "lora" in given else "model.safetensors")
    with safe_open(weights, "pt") as file:
        dtypes = {file.get_tensor(key).dtype for key in file.keys()}  # noqa: SIM118
    assert dtypes == {torch.float32}  # small steps are lost in bfloat16
