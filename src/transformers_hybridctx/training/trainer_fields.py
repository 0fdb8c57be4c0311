# SPDX-License-Identifier: Apache-2.0
"""The part `trainer` of a config: fields of `TrainingArguments`, or of TRL's `GRPOConfig`, that do something here."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import TrainingArguments, get_scheduler
from transformers.integrations import get_available_reporting_integrations

from .fields import check_fields

DECIDED: Mapping[str, Any] = {
    "remove_unused_columns": False,  # pages' fields are no columns of the model's forward
    "label_names": [],
}
"""Of `TrainingArguments`: what the kit decides."""

_ELSEWHERE = {
    **dict.fromkeys((*DECIDED, "do_train", "do_eval", "do_predict", "local_rank"), "the kit decides it"),
    **dict.fromkeys(("output_dir", "seed"), "it is a field of the config itself"),
    **dict.fromkeys(
        ("train_sampling_strategy", "data_seed", "ignore_data_skip"), "seed says which example comes when"
    ),
    **dict.fromkeys(("length_column_name", "group_by_length"), "seed says which example comes when"),
    **dict.fromkeys(
        ("per_device_eval_batch_size", "eval_accumulation_steps", "prediction_loss_only", "include_for_metrics"),
        "evaluation_examples says what is measured",
    ),
    **dict.fromkeys(
        ("batch_eval_metrics", "eval_do_concat_batches", "eval_use_gather_object", "bf16_full_eval", "fp16_full_eval"),
        "evaluation_examples says what is measured",
    ),
    **dict.fromkeys(
        ("load_best_model_at_end", "metric_for_best_model", "greater_is_better"),
        "every checkpoint is there; the log has eval_loss of each",
    ),
    "num_train_epochs": "max_steps says how long the training is",
    "resume_from_checkpoint": (
        "a training goes on from the last checkpoint in output_dir; to begin with the weights of another one, give it "
        "as model, with another output_dir"
    ),
    "label_smoothing_factor": "labels are learned as they are",
    "average_tokens_across_devices": "each label weighs the same on all devices (loss_weights)",
    "parallelism_config": (
        "context parallelism cuts a sequence in pieces of equal length, and packed documents with pages cannot be cut "
        "so. To fit longer examples: distributed: {fsdp_size: N} (or fsdp on GPUs) spreads the model over devices, "
        "activation_checkpointing keeps less of each layer, attn_implementation: flash_attention_2 holds no mask, "
        "and a smaller chunk_tokens holds fewer logits; `--memory` says what each gives"
    ),
    "deepspeed": "neither the loss nor checkpoints were tried with it: fsdp, or distributed, spreads the model",
    "auto_find_batch_size": "a step has as many examples as the config says; `--memory` says what a batch takes",
    **dict.fromkeys(
        ("use_liger_kernel", "liger_kernel_config"), "it has no kernels for this model; chunk_tokens holds few logits"
    ),
    "reward_weights": "rewards says what each weighs",
    **dict.fromkeys(("model_init_kwargs", "trust_remote_code"), "model, dtype and attn_implementation say it"),
    "max_tool_calling_iterations": "there are no tools",
    "use_vllm": "whether vLLM reads page pictures beside tokens that have their places already is not checked",
}
"""Fields that nothing would come of, and what says it instead."""

_LEAST = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 1, "dataloader_num_workers": 0}
_EVERY = {"save_steps": "save_strategy", "eval_steps": "eval_strategy", "logging_steps": "logging_strategy"}
"""Steps between two of a kind, and what says that there are none."""

# In place of hints that are narrower than what is taken.
_HINTS = {"fsdp": bool | str, "fsdp_config": dict, "scale_rewards": bool | str}


@dataclass(frozen=True)
class _FsdpConfig:
    """Keys of `fsdp_config` that transformers knows, for FSDP on GPUs; others it would take without a word."""

    transformer_layer_cls_to_wrap: list[str] | str
    version: int = 2
    reshard_after_forward: bool | str = True
    cpu_offload: bool = False
    activation_checkpointing: bool = False
    cpu_ram_efficient_loading: bool = False
    state_dict_type: str = "FULL_STATE_DICT"
    auto_wrap_policy: str = "TRANSFORMER_BASED_WRAP"
    min_num_params: int = 0


def check_trainer(given: Mapping[str, Any], form: type[TrainingArguments]) -> None:
    """
    Whether these are fields of `form` that do something here, each of its type.

    Raises:
        ValueError: the message names the field, and what to say instead.
    """
    for name in sorted(given.keys() & _ELSEWHERE.keys()):
        raise ValueError(f"trainer: {name} is not taken: {_ELSEWHERE[name]}")
    check_fields("trainer", given, form, hints=_HINTS)
    for name, least in _LEAST.items():
        if given.get(name, least) < least:
            raise ValueError(f"trainer: {name}={given[name]} has to be {least} or more")
    for name, strategy in _EVERY.items():
        every = given.get(name)
        if every is not None and not every > 0:
            raise ValueError(f'trainer: {name}={every} has to be above 0; for none, say {strategy}: "no"')
    if given.get("fsdp"):
        fsdp_config = given.get("fsdp_config") or {}
        if not fsdp_config.get("transformer_layer_cls_to_wrap"):
            raise ValueError(
                "trainer.fsdp: name what is spread, fsdp_config: {transformer_layer_cls_to_wrap: [...]}, and name the "
                "decoder's layers alone (Glm4vTextDecoderLayer, GlmOcrTextDecoderLayer): with the tower's, processes of "
                "other numbers of pages do not stay in step"
            )
        check_fields("trainer.fsdp_config", fsdp_config, _FsdpConfig)
    elif given.get("fsdp_config") and "fsdp" not in given:
        raise ValueError("trainer.fsdp_config says how fsdp is done, which is not asked for: say fsdp: true, too")


def check_built(arguments: TrainingArguments) -> None:
    """
    Whether what a trainer builds of its arguments can be built: a schedule, the calls that compute layers anew, and what
    its log is sent to.

    Raises:
        ValueError: a part that it does not have; the message names the field.
    """
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=arguments.learning_rate)
    try:
        get_scheduler(
            arguments.lr_scheduler_type,
            optimizer,
            arguments.get_warmup_steps(arguments.max_steps),
            arguments.max_steps,
            arguments.lr_scheduler_kwargs,
        )
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"trainer: lr_scheduler_type={str(arguments.lr_scheduler_type.value)!r} with lr_scheduler_kwargs="
            f"{arguments.lr_scheduler_kwargs}: {error}"
        ) from error
    known = [*inspect.signature(checkpoint).parameters, "every_n_layers", "offload"]
    given = arguments.activation_checkpointing_kwargs or {}
    if unknown := sorted(given.keys() - set(known)):
        raise ValueError(
            f"trainer: activation_checkpointing_kwargs: there is no {', '.join(unknown)}; there are "
            + ", ".join(name for name in known if name not in ("function", "args", "kwargs"))
        )
    available = get_available_reporting_integrations()
    if missing := [name for name in arguments.report_to or () if name not in available]:
        raise ValueError(
            f"trainer: report_to: {', '.join(missing)} is not installed, or nothing that transformers reports to; here "
            f"is {', '.join(available) or 'nothing (pip install tensorboard, or wandb)'}"
        )


__all__ = ["DECIDED", "check_built", "check_trainer"]
