# SPDX-License-Identifier: Apache-2.0
"""The trainer: a loss whose logits are never held whole, weights of labels, rates of parts, and runs that go on."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from command_line import refused, run
from safetensors import SafetensorError
from training_runs import CONTEXT, config, weights_of
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from transformers_hybridctx import DataCollatorWithPacking, HybridCtxForCausalLM, HybridCtxProcessor
from transformers_hybridctx.training import trainer_fields
from transformers_hybridctx.training.checkpoints import WholeCheckpoints
from transformers_hybridctx.training.config import TrainingConfig
from transformers_hybridctx.training.kept_config import check_goes_on, keep_config
from transformers_hybridctx.training.losses import chunked_loss, label_losses
from transformers_hybridctx.training.objectives import IGNORE
from transformers_hybridctx.training.readers.registry import DataSource
from transformers_hybridctx.training.run import run_training
from transformers_hybridctx.training.starting_point import learning, learning_on_meta, model_config_of
from transformers_hybridctx.training.tables import record_table, split_by_document
from transformers_hybridctx.training.trainer import part_of
from transformers_hybridctx.training.weighting import LongContextWeights, WeightedPacking


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
    loss = chunked_loss(fresh_model, fresh_model, batch, labels, weights, chunk) / weights.sum()
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
    torch.testing.assert_close(torch.stack([weights[begins == 1].sum(), weights[begins == 2].sum()]), torch.ones(2))
    tokens = packed(fresh_model, processor, "token")["label_weights"][0]
    torch.testing.assert_close(tokens[asked], torch.ones(8))
    labels = batch.pop("labels")
    shares = batch.pop("label_weights")
    logits = fresh_model(**batch).logits[0]
    losses = F.cross_entropy(logits[:-1], labels[0, 1:], reduction="none", ignore_index=IGNORE)
    expected = losses[begins[1:] == 1].sum() / 2 + losses[begins[1:] == 2].sum() / 6
    torch.testing.assert_close(chunked_loss(fresh_model, fresh_model, batch, labels, shares, 3), expected)


def test_labels_that_the_long_context_makes_likelier_weigh_more(
    fresh_model: Any, processor: HybridCtxProcessor
) -> None:
    """The formula of LongCE, one label after the other: probable behind all of it, over behind little text."""
    context, most = 5, 1.2
    settings = LongContextWeights(context_tokens=context, stride=3, most=most)
    features = processor(document=CONTEXT, question="Which code?", return_tensors="pt")
    labels = features["input_ids"].clone()
    labels[:, :-8] = IGNORE
    labels[:, -4] = IGNORE
    example = {**features, "labels": labels}
    pack = DataCollatorWithPacking(fresh_model.config)
    batch = WeightedPacking(pack, "token", settings)([example, example])
    short = batch.pop("short")
    asked = [int(label) for label in labels[0] if label != IGNORE] * 2
    assert [int(label) for label in short["labels"][0] if label != IGNORE] == asked
    assert "pixel_values" not in short and fresh_model.config.image_token_id not in short["input_ids"]
    found = label_losses(fresh_model, fresh_model, short, short.pop("labels"), 2)
    text = [int(token) for token in features["input_ids"][0] if token != fresh_model.config.image_token_id]
    with torch.no_grad():
        weighed = []
        logits = fresh_model(**pack([example])).logits[0]
        for place in range(1, 9):
            if place == 4:
                continue
            target = text[-place]
            long = F.cross_entropy(logits[-place - 1], torch.tensor(target))
            # windows begin at the first label, and anew at the first one three tokens or more later
            start = next(first for first in (2, 5, 8) if place <= first)
            window = torch.tensor([text[len(text) - start - context : len(text) - place]])
            alone = fresh_model(input_ids=window).logits[0, -1]
            less = F.cross_entropy(alone, torch.tensor(target))
            torch.testing.assert_close(found[len(asked) // 2 - len(weighed) - 1], less, rtol=1e-4, atol=1e-4)
            weighed.append(min(float((less - long).exp()), most) * float(long))
    labels, weights = batch.pop("labels"), batch.pop("label_weights")
    loss = chunked_loss(fresh_model, fresh_model, batch, labels, weights, 3, found, most)
    assert loss.item() == pytest.approx(2 * sum(weighed), rel=1e-4)


def test_parts_by_their_names() -> None:
    found = ["model.visual.blocks.0.attn.qkv.weight", "model.language_model.norm.weight", "model.phi.up.weight"]
    assert [part_of(name) for name in found] == ["vision", "decoder", "phi"]
    assert part_of("base_model.model.model.visual.patch_embed.proj.weight") == "vision"


def test_a_run_that_goes_on_is_the_run_that_never_stopped(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = run_training(TrainingConfig.read(config(tmp_path / "whole", checkpoint)))
    # with a schedule for all six steps, stopped after four, and gone on with by other workers
    path = config(tmp_path / "parts", checkpoint, trainer={"lr_scheduler_type": "linear"})
    settings = yaml.safe_load(path.read_text())
    stopped = TrainingConfig.read(path)
    with pytest.MonkeyPatch.context() as patch:
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


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (
            {"objectives": {"answer": 2, "quote": 1, "chat": 1}},
            "objectives.chat was None and is 1;.*objectives.read_back",
        ),
        ({"trainer": {"learning_rate": 1e-4}}, "trainer.learning_rate was 0.001 and is 0.0001"),
        ({"trainer": {"weight_decay": 0.1}}, "trainer.weight_decay was 0.0 and is 0.1"),
        ({"trainer": {"gradient_accumulation_steps": 3}}, "examples_per_step was 2 and is 6"),
        ({"freeze": ["vision"]}, "freeze was .* and is .*vision"),
        ({"lora": {"r": 2}}, "lora.r was None and is 2"),
        ({"data": [{"reader": "json_lines", "path": "b", "weight": 2}]}, "data.0.path was .*data.0.weight was 1.0"),
    ],
)
def test_a_changed_config_does_not_go_on(tmp_path: Path, checkpoint: Path, fields: Any, says: str) -> None:
    keep_config(TrainingConfig.read(config(tmp_path / "a", checkpoint, output_dir=str(tmp_path))), 2)
    now = TrainingConfig.read(config(tmp_path / "a", checkpoint, output_dir=str(tmp_path), **fields))
    batch = now.arguments().gradient_accumulation_steps * 2
    with pytest.raises(ValueError, match=f"{says}.*another output_dir, and model: last-one"):
        check_goes_on(now, "last-one", batch)


def test_what_a_run_is_seen_and_spread_by_may_change(tmp_path: Path, checkpoint: Path) -> None:
    keep_config(TrainingConfig.read(config(tmp_path / "a", checkpoint, output_dir=str(tmp_path))), 2)
    trainer = {"max_steps": 9, "save_steps": 1, "logging_steps": 1, "eval_strategy": "steps", "eval_steps": 2}
    trainer |= {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2, "dataloader_num_workers": 2}
    trainer |= {"weight_decay": 0.0, "save_total_limit": 3}  # the first is what it is without being said
    path = config(tmp_path / "a", checkpoint, output_dir=str(tmp_path), trainer=trainer, chunk_tokens=7, styles=False)
    check_goes_on(TrainingConfig.read(path), "last-one", 2)


def test_a_changed_config_is_refused_before_data_are_read(tmp_path: Path, checkpoint: Path) -> None:
    path = config(tmp_path, checkpoint, trainer={"max_steps": 1, "save_steps": 1})
    assert run_training(TrainingConfig.read(path)).steps == 1
    (tmp_path / "data.jsonl").unlink()
    given = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**given, "seed": 3}))
    assert re.search("seed was 0 and is 3.*checkpoint-1 to begin", refused("train", path))
    path.write_text(yaml.safe_dump(given))
    assert run_training(TrainingConfig.read(path)).steps == 1


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"model": None, "styles": True}, "styles.*cells of visual tokens.*leave styles out"),
        ({"model": None, "budget": {"max_scale": 0.8}}, "max_scale=0.8 leaves out 1"),
        ({"budget": {"latent_share": 0.5}}, "latent_share=0.5.*leave it out"),
        ({"learning_rates": {"phi": 1e-3}}, "nothing learns of phi.*decoder, vision"),
        ({"learning_rates": {"vision": 1e-3}, "freeze": ["vision"]}, "nothing learns of vision"),
        ({"lora": {"target_modules": ["qqq"]}}, "qqq.*not found"),
        ({"attn_implementation": "flash_attention_9"}, "flash_attention_9.* is not supported"),
        ({"model": "./nowhere"}, "model: ./nowhere: there is no such folder.*owner/name"),
        ({"model": "nowhere"}, "model: nowhere: there is no such folder"),
        ({"model": "a/b/c"}, "model: a/b/c: there is no such folder"),
        ({"model": "/nowhere"}, "model: /nowhere: there is no such folder"),
    ],
)
def test_what_a_checkpoint_cannot_do_is_told_before_data_are_read(
    tmp_path: Path, checkpoint: Path, fields: Any, says: str
) -> None:
    path = config(tmp_path, checkpoint, data=[{"reader": "texts", "path": str(tmp_path / "nowhere")}], **fields)
    assert re.search(says, refused("train", path))
    if fields.get("model"):
        assert re.search(says, refused("train", path, "--memory"))


def test_models_that_are_none_are_told_at_once(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, values in (("empty", None), ("glm", {"model_type": "glm4v"}), ("lora", {})):
        (tmp_path / name).mkdir()
        if values is not None:
            (tmp_path / name / "config.json").write_text(json.dumps(values))
    (tmp_path / "file").write_text("")
    for name, says in (
        ("empty", "no whole checkpoint"),
        ("glm", "of the type glm4v, and not converted: .hybridctx convert"),
        ("lora", "merge-lora"),
        ("file", "file is a file"),
        ("glm/nothing", "there is no such folder"),  # a folder that is here, and not one that the Hub could have
    ):
        path = config(tmp_path, checkpoint, model=name)
        for options in ([], ["--memory"]):
            assert re.search(says, refused("train", path, *options)), name


def test_adapters_of_a_frozen_part_do_not_learn(checkpoint: Path) -> None:
    given = TrainingConfig.read(
        config(checkpoint.parent / "frozen", checkpoint, freeze=["vision"], lora={"target_modules": "all-linear"})
    )
    model = learning(HybridCtxForCausalLM.from_pretrained(checkpoint), given)
    learned = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learned and not any("visual" in name for name in learned)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"learning_rates": {"vision": 1e-3}}, "nothing learns of vision.*what learns is decoder"),
        ({"freeze": ["decoder"]}, "nothing to learn"),
    ],
)
def test_parts_without_adapters_do_not_learn(tmp_path: Path, checkpoint: Path, fields: Any, says: str) -> None:
    given = TrainingConfig.read(config(tmp_path, checkpoint, lora={"target_modules": ["q_proj"]}, **fields))
    with pytest.raises(ValueError, match=says):
        learning_on_meta(given, model_config_of(given))


def test_rows_of_zeros_and_dora(tmp_path: Path, checkpoint: Path, fresh_model: Any) -> None:
    lora = {"r": 2, "target_modules": ["q_proj"], "use_dora": True}
    given = TrainingConfig.read(config(tmp_path, checkpoint, lora=lora))
    layer = fresh_model.model.language_model.layers[0].self_attn.q_proj
    with torch.no_grad():
        layer.weight[3:5] = 0
    with pytest.raises(
        ValueError, match=r"2 of \d+ rows of .*layers.0.self_attn.q_proj are zeros: leave use_dora out"
    ):
        learning(fresh_model, given)


def test_all_of_a_document_is_on_one_side(checkpoint: Path, tmp_path: Path) -> None:
    files = []
    for number in range(2):
        rows = [{"context": f"Text {place // 2}.", "question": f"{place}?", "answer": "a"} for place in range(10)]
        rows = rows[4:] + rows[:4] if number else [row for row in rows if row["question"] != "1?"]
        files.append(tmp_path / f"{number}.jsonl")
        files[-1].write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = [DataSource("json_lines", str(file)) for file in files]
    tables = [record_table(source, tmp_path / f"table-{number}")[0] for number, source in enumerate(sources)]
    parts = split_by_document(tables, 0.2)
    held = [{row["context"] for row in part} for _, part in parts]
    # the last of each file, and the same text wherever else it is
    assert held == [{"Text 4.", "Text 1."}, {"Text 4.", "Text 1."}]
    for train, part in parts:
        assert {row["context"] for row in train} == {"Text 0.", "Text 2.", "Text 3."}
        assert len(train) + len(part) == 5
    assert [len(part) for _, part in split_by_document(tables, 0.0)] == [0, 0]
    assert [len(part) for _, part in split_by_document(tables, 0.01)] == [2, 2]  # one of each, for the report


def test_a_document_among_others_is_on_the_side_that_it_is_on_alone(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    asked = [
        {"context": f"Text {place}. " * 9, "question": f"{place}?", "answer": "a", "evidence": [[0, 6]]}
        for place in range(10)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in asked))
    sources = [DataSource("json_lines", str(file)), DataSource("json_lines", str(file), lengthen={"characters": 300})]
    tables = [record_table(source, tmp_path / f"table-{number}")[0] for number, source in enumerate(sources)]
    assert len(tables[1][0]["context"]) > 200
    held = [{row["turns"][0]["question"] for row in part} for _, part in split_by_document(tables, 0.2)]
    assert held == [{"8?", "9?"}, {"8?", "9?"}]


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


def test_the_rate_of_the_trainer_is_logged(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reported = []

    class Tracker(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            reported.append(logs.get("learning_rate"))

    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "wandb", Tracker)
    monkeypatch.setattr(trainer_fields, "get_available_reporting_integrations", lambda: ["wandb"])
    trainer = {"max_steps": 2, "logging_steps": 1, "lr_scheduler_type": "constant", "report_to": "wandb"}
    path = config(tmp_path, checkpoint, learning_rates={"vision": 1e-6}, evaluation_examples=0, trainer=trainer)
    log = run_training(TrainingConfig.read(path)).log
    assert [entry["learning_rate"] for entry in log if "learning_rate" in entry] == [1e-3, 1e-3]
    assert reported[:2] == [1e-3, 1e-3]


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


def test_a_full_disk_leaves_the_model_that_was_there(tmp_path: Path) -> None:
    class Saver(WholeCheckpoints):
        args = SimpleNamespace(should_save=True)
        accelerator = SimpleNamespace(wait_for_everyone=lambda: None)

        def save_model(self, folder: str) -> None:
            Path(folder).mkdir()
            (Path(folder) / "model.safetensors").write_text("new")
            if full:
                raise SafetensorError("No space left on device")

    (tmp_path / "checkpoint-4").mkdir()
    (tmp_path / "model.safetensors").write_text("old")
    for full, there in ((True, "old"), (False, "new")):
        says = r"the model could not be .*No space.*checkpoint-4 is sound"
        with pytest.raises(OSError, match=says) if full else nullcontext():
            Saver().save_whole(tmp_path)
        assert (tmp_path / "model.safetensors").read_text() == there
        assert {one.name for one in tmp_path.iterdir()} == {"checkpoint-4", "model.safetensors"}
