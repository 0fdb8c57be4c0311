# SPDX-License-Identifier: Apache-2.0
"""What a training begins from, checked before any data are read: the checkpoint, its processor, and what of it learns."""

from __future__ import annotations

from typing import Any

import torch

from ..bundled_checkpoint import BUNDLED_CHECKPOINT
from ..checkpoint_names import checked_name
from ..configuration_hybridctx import HybridCtxConfig
from ..modeling_hybridctx import HybridCtxForCausalLM
from ..planning.budget import ContextBudget
from ..planning.policies.registry import resolve_text_policy
from ..processing_hybridctx import HybridCtxProcessor
from .config import TrainingConfig, lora_config
from .objectives import USER, ExampleMaker
from .trainer import part_of


def checkpoint_of(config: TrainingConfig) -> str:
    """
    The folder or Hub id of the checkpoint that a training begins from.

    Raises:
        FileNotFoundError: a path to nowhere.
    """
    return str(BUNDLED_CHECKPOINT) if config.model is None else checked_name(config.model, "model:")


def model_config_of(config: TrainingConfig) -> HybridCtxConfig:
    """
    The config of the checkpoint that a training begins from.

    Raises:
        ValueError, OSError: no checkpoint of this name, or one that is not converted.
    """
    name = checkpoint_of(config)
    values, _ = HybridCtxConfig.get_config_dict(name)
    family = values.get("model_type")
    if family is None:
        raise ValueError(
            f"model: {name} has no config.json that names a model_type, so it is no whole checkpoint; of adapters, "
            "`hybridctx merge-lora` makes one"
        )
    if family != HybridCtxConfig.model_type:
        raise ValueError(
            f"model: {name} is of the type {family}, and not converted: `hybridctx convert {name} FOLDER`, and name that"
        )
    return HybridCtxConfig.from_pretrained(name)


def processor_of(config: TrainingConfig) -> HybridCtxProcessor:
    """
    The processor of the checkpoint.

    Raises:
        ValueError, OSError: there is none, or its pages cannot be drawn as the config asks.
    """
    processor: HybridCtxProcessor = HybridCtxProcessor.from_pretrained(checkpoint_of(config))
    if config.styles and processor.render_config.line_breaking == "cells":
        raise ValueError(
            "styles: this checkpoint's pages are cut into cells of visual tokens, which one style alone fits: leave "
            "styles out"
        )
    return processor


def example_maker(
    config: TrainingConfig, processor: HybridCtxProcessor, model_config: HybridCtxConfig
) -> ExampleMaker:
    """
    What makes a training's examples.

    Raises:
        ValueError: a budget that the checkpoint's pages cannot keep to, or a model whose answers nothing ends.
    """
    budget = ContextBudget.of(dict(config.budget)).filled_from(ContextBudget.of(processor.default_budget))
    budget.at_only_scale(processor.render_config.only_scale)
    if budget.latent_share:
        raise ValueError(
            f"latent_share={budget.latent_share}: no examples are made with latents yet: leave it out of the training's "
            "budget, or set it to 0 where the checkpoint's processor has it"
        )
    policy = processor.default_text_policy if config.text_policy is None else config.text_policy
    return ExampleMaker(
        processor,
        budget,
        resolve_text_policy(policy if isinstance(policy, str) else dict(policy)),
        config.max_tokens,
        _end_of_answers(processor, model_config),
        (model_config.image_start_token_id, model_config.image_end_token_id),
    )


def _end_of_answers(processor: HybridCtxProcessor, model_config: HybridCtxConfig) -> int:
    """A user's mark, which templates write behind answers, where generating ends with it; else the last that ends it."""
    ends = model_config.text_config.eos_token_id
    if ends is None:
        raise ValueError("the model's config names no eos_token_id, which ends an answer: set one")
    ends = [ends] if isinstance(ends, int) else ends
    mark: int = processor.tokenizer.convert_tokens_to_ids(USER)
    return mark if mark in ends else ends[-1]


def learning_on_meta(config: TrainingConfig, model_config: HybridCtxConfig, with_devices: bool = False) -> Any:
    """
    The model as [`learning`] makes it, without weights: what cannot be is told at once.

    Args:
        with_devices: whether the attention that is asked for has to be there, too.
    """
    asked = {"attn_implementation": config.attn_implementation} if with_devices and config.attn_implementation else {}
    with torch.device("meta"):
        model: Any = HybridCtxForCausalLM._from_config(model_config, **asked)
        model.tie_weights()
        return learning(model, config)


def learning(model: Any, config: TrainingConfig) -> Any:
    """
    The model with its adapters, where it has any; what `config.freeze` names does not learn, nor do adapters of it.

    Raises:
        ValueError: nothing is left to learn, there are learning rates of parts that do not learn, or adapters that
            these weights cannot have.
    """
    if config.lora is not None:
        from peft import get_peft_model

        model = get_peft_model(model, lora_config(config.lora))
    for name, parameter in model.named_parameters():
        if part_of(name) in config.freeze:
            parameter.requires_grad_(False)
    learned = {part_of(name) for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not learned:
        raise ValueError(f"freeze={list(config.freeze)} leaves nothing to learn")
    if idle := sorted(config.learning_rates.keys() - learned):
        raise ValueError(
            f"learning_rates: nothing learns of {', '.join(idle)}, which is frozen, has no adapters, or is not in this "
            f"model; what learns is {', '.join(sorted(learned))}"
        )
    _check_magnitudes(model)
    return model


def _check_magnitudes(model: Any) -> None:
    """DoRA divides each row of a weight by its length; rows of zeros would make every loss nan."""
    for name, parameter in model.named_parameters():
        if "lora_magnitude_vector" in name and not parameter.is_meta and (zeros := int((parameter == 0).sum())):
            layer = name.removeprefix("base_model.model.").partition(".lora_magnitude_vector")[0]
            raise ValueError(
                f"lora: use_dora divides by the length of each row, and {zeros} of {parameter.numel()} rows of {layer} "
                "are zeros: leave use_dora out, or name other target_modules"
            )


__all__ = ["checkpoint_of", "example_maker", "learning", "learning_on_meta", "model_config_of", "processor_of"]
