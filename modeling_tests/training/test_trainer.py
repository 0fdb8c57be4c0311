# SPDX-License-Identifier: Apache-2.0
"""The trainer: a loss whose logits are never held whole, weights of labels, rates of parts, and runs that go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from command_line import run
from safetensors.torch import load_file

from transformers_hybridctx import DataCollatorWithPacking, HybridCtxForCausalLM, HybridCtxProcessor
from transformers_hybridctx.training.config import TrainingConfig
from transformers_hybridctx.training.objectives import IGNORE
from transformers_hybridctx.training.readers.registry import DataSource
from transformers_hybridctx.training.run import run_training
from transformers_hybridctx.training.trainer import WeightedPacking, chunked_loss, part_of

CONTEXT = "It was the best of times. The code of room 7 is 42. It was the worst of times. "


@pytest.fixture
def fresh_model(checkpoint: Path) -> HybridCtxForCausalLM:
    return HybridCtxForCausalLM.from_pretrained(checkpoint)


def packed(
    model: Any, processor: HybridCtxProcessor, weighting: Any = "token", answers: tuple[int, ...] = (2, 6)
) -> Any:
    """Two documents; the last tokens of each are learned."""
    examples = []
    for number, count in enumerate(answers):
        features = processor(document=f"{CONTEXT}{number}", question="Which code?", return_tensors="pt")
        labels = features["input_ids"].clone()
        labels[:, :-count] = IGNORE
        examples.append({**features, "labels": labels})
    return WeightedPacking(DataCollatorWithPacking(model.config), weighting)(examples)


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_the_loss_in_chunks_is_the_loss(fresh_model: Any, processor: HybridCtxProcessor, chunk: int) -> None:
    batch = packed(fresh_model, processor)
    labels, weights = batch.pop("labels"), batch.pop("label_weights")
    expected = fresh_model(**batch, labels=labels).loss
    expected.backward()
    gradients = {name: one.grad.clone() for name, one in fresh_model.named_parameters() if one.grad is not None}
    fresh_model.zero_grad()
    loss = chunked_loss(fresh_model, fresh_model, batch, labels, weights, chunk)
    loss.backward()
    torch.testing.assert_close(loss, expected)
    for name, one in fresh_model.named_parameters():
        if one.grad is not None:
            torch.testing.assert_close(one.grad, gradients[name], rtol=1e-3, atol=1e-5)


def test_each_example_weighs_the_same(fresh_model: Any, processor: HybridCtxProcessor) -> None:
    batch = packed(fresh_model, processor, "sequence")
    weights, asked = batch["label_weights"][0], batch["labels"][0] != IGNORE
    begins = (batch["position_ids"][0, 0] == 0).cumsum(0)
    assert weights[~asked].eq(0).all()
    torch.testing.assert_close(
        torch.stack([weights[begins == 1].sum(), weights[begins == 2].sum()]), torch.ones(2) / 2
    )
    tokens = packed(fresh_model, processor, "token")["label_weights"][0]
    torch.testing.assert_close(tokens[asked], torch.full((8,), 1 / 8))
    labels = batch.pop("labels")
    shares = batch.pop("label_weights")
    logits = fresh_model(**batch).logits[0]
    losses = F.cross_entropy(logits[:-1], labels[0, 1:], reduction="none", ignore_index=IGNORE)
    expected = (losses[begins[1:] == 1].sum() / 2 + losses[begins[1:] == 2].sum() / 6) / 2
    torch.testing.assert_close(chunked_loss(fresh_model, fresh_model, batch, labels, shares, 3), expected)


def test_parts_by_their_names() -> None:
    found = ["model.visual.blocks.0.attn.qkv.weight", "model.language_model.norm.weight", "model.phi.up.weight"]
    assert [part_of(name) for name in found] == ["vision", "decoder", "phi"]
    assert part_of("base_model.model.model.visual.patch_embed.proj.weight") == "vision"


def config(tmp_path: Path, checkpoint: Path, **fields: Any) -> Path:
    data = tmp_path / "data.jsonl"
    rows = [
        {"context": f"{CONTEXT}{number}", "question": "Which code?", "answer": "42", "evidence": [[48, 50]]}
        for number in range(12)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"text": " "}]))
    trainer = {
        "max_steps": 6,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-3,
        "save_steps": 2,
        "logging_steps": 2,
        "use_cpu": True,
        "disable_tqdm": True,
        **fields.pop("trainer", {}),
    }
    given = {
        "output_dir": str(tmp_path / "out"),
        "model": str(checkpoint),
        "data": [{"reader": "json_lines", "path": str(data)}],
        "objectives": {"answer": 2, "quote": 1, "read_back": 1},
        "max_tokens": 700,
        "held_out": 0.2,
        "evaluation_examples": 2,
        "trainer": trainer,
        **fields,
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(given))
    return path


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_a_run_that_goes_on_is_the_run_that_never_stopped(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = run_training(TrainingConfig.read(config(tmp_path / "whole", checkpoint)))
    # with a schedule for all six steps, stopped after four, and gone on with by other workers
    path = config(tmp_path / "parts", checkpoint, trainer={"lr_scheduler_type": "linear"})
    settings = yaml.safe_load(path.read_text())
    stopped = TrainingConfig.read(path)
    with pytest.MonkeyPatch.context() as patch:
        from transformers import TrainerCallback

        from transformers_hybridctx.training import run as run_module

        class Stops(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                if state.global_step == 4:
                    raise KeyboardInterrupt

        original = run_module.HybridCtxTrainer

        def stopping(*args: Any, **kwargs: Any) -> Any:
            trainer = original(*args, **kwargs)
            trainer.add_callback(Stops())
            return trainer

        patch.setattr(run_module, "HybridCtxTrainer", stopping)
        with pytest.raises(KeyboardInterrupt):
            run_training(stopped)
    settings["trainer"]["dataloader_num_workers"] = 2
    path.write_text(yaml.safe_dump(settings))
    resumed = run_training(TrainingConfig.read(path))
    assert resumed.steps == whole.steps == 6
    assert resumed.loss_before == whole.loss_before and resumed.perplexity_before == whole.perplexity_before
    found, expected = weights_of(tmp_path / "parts" / "out"), weights_of(tmp_path / "whole" / "out")
    assert found.keys() == expected.keys()
    for name, one in expected.items():
        assert torch.equal(found[name], one), name


def test_the_command_trains_reports_and_leaves_a_checkpoint(tmp_path: Path, checkpoint: Path) -> None:
    path = config(tmp_path, checkpoint, freeze=["vision"], styles=True, learning_rates={"decoder": 5e-4})
    result = run("train", str(path))
    assert result.exit_code == 0, result.output
    assert "1 neither a text nor a turn" in result.output and "perplexity" in result.output
    out = tmp_path / "out"
    report = json.loads((out / "report.json").read_text())
    assert report["steps"] == 6 and report["loss_after"].keys() == {"both", "pages", "tokens"}
    assert all("tokens_per_second" in entry for entry in report["log"] if "loss" in entry)
    before, after = weights_of(checkpoint), weights_of(out)
    changed = {name for name, one in after.items() if not torch.equal(one, before[name])}
    assert changed and not any("visual" in name for name in changed)
    answer = run(
        "ask", str(tmp_path / "data.jsonl"), "-q", "Which code?", "--model", str(out), "--max-new-tokens", "3"
    )
    assert answer.exit_code == 0, answer.output
    assert run("train", str(path)).exit_code == 0  # nothing is left to do


def test_adapters(tmp_path: Path, checkpoint: Path) -> None:
    path = config(
        tmp_path, checkpoint, lora={"r": 2, "target_modules": ["q_proj", "v_proj"]}, trainer={"max_steps": 2}
    )
    assert run_training(TrainingConfig.read(path)).steps == 2
    assert (tmp_path / "out" / "adapter_model.safetensors").exists()


def test_a_loss_that_is_no_number_stops_before_the_step(tmp_path: Path, checkpoint: Path) -> None:
    path = config(tmp_path, checkpoint, trainer={"learning_rate": 1e30, "max_grad_norm": 0})
    with pytest.raises(FloatingPointError, match="smaller learning rate"):
        run_training(TrainingConfig.read(path))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"objectves": {}}, "objectves"),
        ({"objectives": {"magic": 1}}, "magic"),
        ({"objectives": {"answer": 0}}, "one above"),
        ({"channels": {"sound": 1}}, "sound"),
        ({"freeze": ["tower"]}, "tower"),
        ({"freeze": ["vision", "decoder"]}, "nothing to learn"),
        ({"load_in_4bit": True}, "lora"),
        ({"loss_weights": "page"}, "page"),
        ({"data": []}, "data is empty"),
        ({"data": [{"reader": "squad"}]}, "reader and path"),
        ({"data": [{"reader": "squad", "path": "a", "spilt": "b"}]}, "spilt"),
        ({"trainer": {"max_stebs": 3}}, "max_stebs"),
        ({"trainer": {"max_steps": 0}}, "max_steps"),
        ({"trainer": {"report_to": ["wandb"]}}, "report_to"),
        ({"held_out": 1}, "held_out"),
    ],
)
def test_configs_that_make_no_sense_are_refused_by_name(
    tmp_path: Path, checkpoint: Path, fields: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        TrainingConfig.read(config(tmp_path, checkpoint, **fields))


def test_files_that_are_no_configs(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    for text, says in (("a: [", "no YAML"), ("- 1", "no fields"), ("model: a", "lacks output_dir")):
        path.write_text(text)
        with pytest.raises(ValueError, match=says):
            TrainingConfig.read(path)


CONFIGS = sorted((Path(__file__).parents[2] / "recipes" / "training").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs_to_start_from_have_fields_that_are_known(path: Path) -> None:
    given = yaml.safe_load(path.read_text())
    given["trainer"] |= {"bf16": False, "fsdp": "", "use_cpu": True}  # which look for a GPU
    settings = TrainingConfig(**{**given, "data": tuple(DataSource(**one) for one in given["data"])})
    assert settings.arguments().max_steps == given["trainer"]["max_steps"]
    assert f"train recipes/training/{path.name}" in path.read_text()
