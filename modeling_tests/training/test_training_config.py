# SPDX-License-Identifier: Apache-2.0
"""Configs in YAML: what makes no sense is refused by its name before anything is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from training_runs import config

from transformers_hybridctx.training.config import TrainingConfig
from transformers_hybridctx.training.readers.registry import DataSource

ANSWERS = {"reader": "json_lines", "path": "a.jsonl"}


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
        ({"trainer": {"report_to": "wandbb"}}, "report_to: wandbb is not installed.*here is nothing"),
        ({"trainer": {"save_steps": 0}}, 'save_steps=0 has to be above 0.*save_strategy: "no"'),
        ({"trainer": {"eval_steps": -5}}, "eval_steps=-5 has to be above 0"),
        ({"trainer": {"logging_steps": 0}}, 'logging_steps=0.*logging_strategy: "no"'),
        ({"held_out": 1}, "held_out"),
        ({"rewards": {"style": 1}}, "rewards: there is no style; there are answer, quote, place"),
        ({"rewards": {}}, "one above"),
        (
            {"rewards": {"answer": 1}, "objectives": {"chat": 1}, "styles": True},
            "objectives, styles: a training with rewards does not heed",
        ),
        (
            {"rewards": {"answer": 1}, "data": [{**ANSWERS, "weight": 2}]},
            "weight of a.jsonl: with rewards",
        ),
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
        ({"trainer": {"deepspeed": "ds.json"}}, "deepspeed is not taken.*fsdp"),
        ({"trainer": {"auto_find_batch_size": True}}, "auto_find_batch_size is not taken.*--memory"),
        ({"trainer": {"use_liger_kernel": True}}, "use_liger_kernel is not taken.*chunk_tokens"),
        ({"trainer": {"label_smoothing_factor": 0.1}}, "label_smoothing_factor"),
        ({"trainer": {"train_sampling_strategy": "group_by_length"}}, "train_sampling_strategy.*seed"),
        ({"trainer": {"per_device_eval_batch_size": 4}}, "per_device_eval_batch_size.*evaluation_examples"),
        ({"rewards": {"answer": 1}, "trainer": {"reward_weights": [1.0]}}, "reward_weights.*rewards"),
        ({"rewards": {"answer": 1}, "trainer": {"use_vllm": True}}, "use_vllm.*page"),
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
