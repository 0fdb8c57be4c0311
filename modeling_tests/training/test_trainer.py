# SPDX-License-Identifier: Apache-2.0
"""The trainer: a loss whose logits are never held whole, weights of labels, rates of parts, and runs that go on."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from command_line import refused, run
from training_runs import CONTEXT, config, weights_of

from transformers_hybridctx import DataCollatorWithPacking, HybridCtxForCausalLM, HybridCtxProcessor
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


def test_the_rate_of_the_trainer_is_logged(tmp_path: Path, checkpoint: Path) -> None:
    trainer = {"max_steps": 2, "logging_steps": 1, "lr_scheduler_type": "constant"}
    path = config(tmp_path, checkpoint, learning_rates={"vision": 1e-6}, evaluation_examples=0, trainer=trainer)
    log = run_training(TrainingConfig.read(path)).log
    assert [entry["learning_rate"] for entry in log if "learning_rate" in entry] == [1e-3, 1e-3]


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
        ({"data": [{"reader": "squad"}]}, "data lacks path"),
        ({"data": [{"reader": "squad", "path": "a", "spilt": "b"}]}, "spilt"),
        ({"trainer": {"max_stebs": 3}}, "max_stebs"),
        ({"trainer": {"max_steps": 0}}, "max_steps"),
        ({"trainer": {"report_to": ["wandb"]}}, "report_to"),
        ({"held_out": 1}, "held_out"),
        ({"rewards": {"style": 1}}, "rewards: there is no style; there are answer, quote, place"),
        ({"rewards": {}}, "one above"),
        (
            {"rewards": {"answer": 1}, "trainer": {"num_generation": 4}},
            "there is no num_generation; meant may be num_generations",
        ),
        ({"max_tokens": "8k"}, "max_tokens='8k' is not of the type int"),
        ({"objectives": "answer"}, "objectives='answer' is not of the type Mapping"),
        ({"freeze": "vision"}, "freeze='vision' is not of the type tuple"),
        ({"styles": "yes please"}, "styles"),
        ({"learning_rates": {"vision": "fast"}}, "learning_rates.*fast"),
        ({"budget": {"max_contxt_tokens": 3}}, "max_contxt_tokens"),
        ({"text_policy": "magic"}, "magic.*bm25"),
        ({"lora": {"rank": 3}}, "there is no rank"),
        ({"chunk_tokens": 0}, "chunk_tokens=0"),
        ({"evaluation_examples": -1}, "evaluation_examples=-1"),
        ({"data": "squad"}, "data is a list"),
        ({"data": ["squad"]}, "give fields, not 'squad'"),
        ({"trainer": {"max_steps": "ten"}}, "max_steps='ten'"),
        ({"trainer": {"learning_rate": "fast"}}, "learning_rate='fast'"),
        ({"trainer": {"num_train_epochs": 3}}, "num_train_epochs.*max_steps"),
        ({"dtype": "int3"}, "int3"),
        ({"long_context_weights": {"window": 3}}, "window.*context_tokens"),
        ({"long_context_weights": {"stride": 0}}, "above 0"),
        ({"distributed": {"fsdp": 2}}, "there is no fsdp;.*fsdp_size"),
        ({"distributed": {"fsdp_size": 2}}, "save_only_model"),
        ({"trainer": {"fsdp": True}}, "transformer_layer_cls_to_wrap.*Glm4vTextDecoderLayer"),
        ({"trainer": {"load_best_model_at_end": True}}, "load_best_model_at_end.*eval_loss"),
        ({"trainer": {"parallelism_config": {"cp_size": 2}}}, "context parallelism.*fsdp_size.*chunk_tokens"),
        ({"trainer": {"resume_from_checkpoint": True}}, "resume_from_checkpoint.*as model"),
        ({"trainer": {"label_smoothing_factor": 0.1}}, "label_smoothing_factor"),
        ({"trainer": {"train_sampling_strategy": "group_by_length"}}, "train_sampling_strategy.*seed"),
        ({"trainer": {"per_device_eval_batch_size": 4}}, "per_device_eval_batch_size.*evaluation_examples"),
        ({"rewards": {"answer": 1}, "trainer": {"reward_weights": [1.0]}}, "reward_weights.*rewards"),
        ({"trainer": {"use_cpu": "yes please"}}, "use_cpu='yes please' is not of the type bool"),
        ({"trainer": {"optim": 3}}, "optim=3"),
        ({"trainer": {"gradient_accumulation_steps": 0}}, "gradient_accumulation_steps=0 has to be 1"),
        ({"trainer": {"dataloader_num_workers": -1}}, "dataloader_num_workers=-1 has to be 0"),
        ({"trainer": {"learning_rate": float("nan")}}, r"trainer\.learning_rate=nan has to be finite"),
        ({"channels": {"both": float("inf")}}, "channels.both=inf has to be finite"),
        ({"learning_rates": {"vision": -1e-6}}, "vision=-1e-06 has to be above 0; freeze"),
        ({"trainer": {"save_strategy": False}}, "save_strategy=False.*quotation marks"),
        ({"trainer": {"save_total_limit": [1]}}, "save_total_limit"),
        ({"trainer": {"lr_scheduler_kwargs": {"cycles": 3}}}, "lr_scheduler_kwargs.*cycles"),
        ({"trainer": {"activation_checkpointing_kwargs": {"reentrant": True}}}, "no reentrant;.*use_reentrant"),
        (
            {"trainer": {"fsdp": True, "fsdp_config": {"transformer_layer_cls_to_wrap": ["A"], "offload": True}}},
            "offload",
        ),
        ({"trainer": {"fsdp_config": {"transformer_layer_cls_to_wrap": ["A"]}}}, "fsdp: true"),
        ({"trainer": {"fsdp": True, "fsdp_config": "fsdp.json"}}, "fsdp_config='fsdp.json'"),
        ({"lora": {"lora_alpha": "much"}}, "lora_alpha='much'"),
        ({"lora": {"eva_config": {"rhoo": 2}}}, "eva_config.*no rhoo"),
        ({"distributed": {"fsdp_size": "2"}}, "fsdp_size='2'"),
        ({"text_policy": {"name": "bm25", "passagess": 2}}, "passagess"),
        ({"data": [{"reader": "squad", "path": "a", "lengthen": {"characters": 9, "piece": 2}}]}, "no piece"),
    ],
)
def test_configs_that_make_no_sense_are_refused_by_name(
    tmp_path: Path, checkpoint: Path, fields: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        TrainingConfig.read(config(tmp_path, checkpoint, **fields))


def test_numbers_are_read_as_everybody_writes_them(tmp_path: Path, checkpoint: Path) -> None:
    path = config(tmp_path, checkpoint)
    path.write_text(
        path.read_text().replace("learning_rate: 0.001", "learning_rate: 5e-6") + "learning_rates: {vision: 1E-7}\n"
    )
    read = TrainingConfig.read(path)
    assert read.arguments().learning_rate == 5e-6 and read.learning_rates == {"vision": 1e-7}


def test_files_that_are_no_configs(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    for text, says in (
        ("a: [", "no config in YAML"),
        ("trainer: {max_steps: 2, max_steps: 3}", r"max_steps stands twice[^$]*line 1"),
        ("- 1", "no fields"),
        ("model: a", "lacks output_dir"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=says):
            TrainingConfig.read(path)


CONFIGS = sorted((Path(__file__).parents[2] / "recipes" / "training").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs_to_start_from_have_fields_that_are_known(path: Path) -> None:
    given = yaml.safe_load(path.read_text())
    given["trainer"] |= {"bf16": False, "fsdp": False, "use_cpu": True}  # which look for a GPU
    settings = TrainingConfig(**{**given, "data": tuple(DataSource(**one) for one in given["data"])})
    assert settings.arguments().max_steps == given["trainer"]["max_steps"]
    assert f"train recipes/training/{path.name}" in path.read_text()
