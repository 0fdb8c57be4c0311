# SPDX-License-Identifier: Apache-2.0
"""What a training is: one YAML file, every field of it checked before anything is read or loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from transformers import TrainingArguments
from transformers.distributed import DistributedConfig

from ..planning.budget import ContextBudget
from ..planning.policies.registry import resolve_text_policy
from .examples import CHANNELS
from .fields import check_fields, read_yaml
from .objectives import OBJECTIVES
from .readers.registry import DataSource
from .rewards import REWARDS
from .trainer import PARTS
from .trainer_fields import DECIDED, check_built, check_trainer
from .weighting import LongContextWeights, Weighting

_OF_OBJECTIVES = ("objectives", "styles", "loss_weights", "long_context_weights", "learning_rates")
"""Fields that a training with rewards does not heed."""
_DTYPES = ("float32", "bfloat16", "float16", "auto")


@dataclass(frozen=True)
class TrainingConfig:
    """
    Attributes:
        output_dir: where checkpoints, the report and the curves go.
        data: see [`DataSource`].
        model: a folder or Hub id; None: the bundled checkpoint.
        rewards: in place of objectives, GRPO by TRL: what each reward weighs, `answer`, `quote`, `place`; `trainer` then
            has the fields of TRL's `GRPOConfig`.
        objectives: weight of each objective: `answer`, `quote`, `locate`, `read_back`, `interleaved`, `chat`.
        channels: how often a document is shown as pages and tokens (`both`), as `pages`, as `tokens`.
        budget: fields of a [`ContextBudget`], of each prompt.
        text_policy: what is copied as tokens beside pages; the checkpoint's own unless given.
        max_tokens: longest example, answers included.
        styles: whether pages are drawn in styles at random.
        loss_weights: see [`WeightedPacking`].
        long_context_weights: fields of [`LongContextWeights`] (LongCE); None: none.
        chunk_tokens: labels whose logits are held at a time.
        freeze: parts that do not learn: `vision`, `phi`, `decoder`.
        learning_rates: of parts, where they are not the trainer's.
        lora: fields of a `peft.LoraConfig`; None: all weights learn.
        load_in_4bit: with `lora`, the weights beneath are 4-bit (QLoRA).
        dtype: of the weights: "float32", "bfloat16", "float16", or "auto", the checkpoint's own. None: "auto" beneath
            adapters, else "float32", for steps of small learning rates are lost in bfloat16 weights; `trainer.bf16`
            computes in bfloat16 with either.
        attn_implementation: of the model, as in `from_pretrained`; "flash_attention_2" is what packing pays with.
        distributed: fields of transformers' `DistributedConfig`, such as `fsdp_size`; None: none.
        held_out: part of the records that no step sees, from which the report's figures come.
        evaluation_examples: how many, for each channel; 0: none.
        seed: of data, styles and dropout.
        trainer: fields of transformers' `TrainingArguments`; `max_steps` is needed.
    """

    output_dir: str
    data: tuple[DataSource, ...]
    trainer: Mapping[str, Any]
    model: str | None = None
    rewards: Mapping[str, float] | None = None
    objectives: Mapping[str, float] = field(default_factory=lambda: {"answer": 1.0})
    channels: Mapping[str, float] = field(default_factory=lambda: {"both": 0.5, "pages": 0.3, "tokens": 0.2})
    budget: Mapping[str, Any] = field(default_factory=dict)
    text_policy: str | Mapping[str, Any] | None = None
    max_tokens: int = 8192
    styles: bool = False
    loss_weights: Weighting = "sequence"
    long_context_weights: Mapping[str, Any] | None = None
    chunk_tokens: int = 2048
    freeze: tuple[str, ...] = ()
    learning_rates: Mapping[str, float] = field(default_factory=dict)
    lora: Mapping[str, Any] | None = None
    load_in_4bit: bool = False
    dtype: str | None = None
    attn_implementation: str | None = None
    distributed: Mapping[str, Any] | None = None
    held_out: float = 0.02
    evaluation_examples: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        known = {"objectives": OBJECTIVES, "rewards": REWARDS, "channels": CHANNELS}
        known |= {"learning_rates": PARTS, "freeze": PARTS}
        for name, names in known.items():
            if unknown := sorted(set(getattr(self, name) or ()) - set(names)):
                raise ValueError(f"{name}: there is no {', '.join(unknown)}; there are {', '.join(names)}")
        for name in ("objectives", "channels", *(["rewards"] if self.rewards is not None else [])):
            weights = getattr(self, name).values()
            if not weights or min(weights) < 0 or not sum(weights) > 0:
                raise ValueError(f"{name}={dict(getattr(self, name))}: give weights, none below 0 and one above")
        if self.rewards is not None:
            self._check_rewarded()
        if self.loss_weights not in ("token", "sequence"):
            raise ValueError(f"loss_weights={self.loss_weights!r} is not 'token' or 'sequence'")
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out={self.held_out} is a part of the records, 0 to 1")
        if self.load_in_4bit and self.lora is None:
            raise ValueError("load_in_4bit: 4-bit weights do not learn; give lora, too")
        if set(self.freeze) >= {"vision", "decoder"} and self.lora is None:
            raise ValueError(f"freeze={list(self.freeze)} leaves nothing to learn")
        if self.dtype not in (None, *_DTYPES):
            raise ValueError(f"dtype={self.dtype!r} is not {', '.join(_DTYPES)}")
        for part, rate in self.learning_rates.items():
            if not rate > 0:
                raise ValueError(f"learning_rates: {part}={rate} has to be above 0; freeze names what does not learn")
        check_fields("long_context_weights", self.long_context_weights or {}, LongContextWeights)
        LongContextWeights(**self.long_context_weights or {})
        check_fields("distributed", self.distributed or {}, DistributedConfig)
        ContextBudget.of(dict(self.budget))
        if self.text_policy is not None:
            resolve_text_policy(self.text_policy if isinstance(self.text_policy, str) else dict(self.text_policy))
        if self.lora is not None:
            lora_config(self.lora)
        for name, least in (("max_tokens", 1), ("chunk_tokens", 1), ("evaluation_examples", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} has to be {least} or more")
        if self.distributed is not None and not self.trainer.get("save_only_model"):
            raise ValueError(
                "distributed: transformers saves no optimiser's state of a model that is spread when it is loaded, so "
                "such a run cannot go on when it stops: say trainer.save_only_model: true, or use trainer.fsdp on GPUs"
            )
        if not self.data:
            raise ValueError("data is empty: name a source")
        check_trainer(self.trainer, self.arguments_class())
        steps = self.trainer.get("max_steps", 0)
        if not isinstance(steps, int) or steps < 1:
            raise ValueError(f"trainer.max_steps={steps!r} says how long the training is: give 1 or more")

    def _check_rewarded(self) -> None:
        given = [one.name for one in fields(self) if getattr(self, one.name) != _default_of(one)]
        if unheeded := [name for name in _OF_OBJECTIVES if name in given]:
            raise ValueError(f"{', '.join(unheeded)}: a training with rewards does not heed that: leave it out")
        if weighed := [source.path for source in self.data if source.weight != 1]:
            raise ValueError(
                f"data: weight of {', '.join(weighed)}: with rewards each question is asked as often as any other: leave "
                "it out; limit says how many records a source gives"
            )

    @classmethod
    def read(cls, path: Path, with_devices: bool = True) -> TrainingConfig:
        """
        Args:
            with_devices: whether what `trainer` asks of devices, such as bfloat16, has to be there.

        Raises:
            FileNotFoundError, ValueError: no such file, or one that is no config; the message names the field.
        """
        given = read_yaml(path)
        check_fields(str(path), {**given, "data": ()}, cls, ("output_dir", "data", "trainer"))
        if "data" not in given or not isinstance(given["data"], list):
            raise ValueError(f"{path}: data is a list of sources, each with reader and path")
        for source in given["data"]:
            check_fields("data", source, DataSource, ("reader", "path"))
        sources = tuple(DataSource(**source) for source in given["data"])
        config = cls(**{**given, "data": sources, "freeze": tuple(given.get("freeze", ()))})
        if with_devices:
            config.arguments()
        return config

    def arguments(self) -> TrainingArguments:
        """
        Raises:
            ValueError: fields that do not fit each other or this machine.
        """
        values = {**DECIDED, "bf16": False, "output_dir": self.output_dir, "seed": self.seed, **self.trainer}
        made = self.arguments_class()(**values)
        check_built(made)
        return made

    def arguments_class(self) -> type[TrainingArguments]:
        """The class whose fields `trainer` has."""
        if self.rewards is None:
            return TrainingArguments
        from trl import GRPOConfig

        form: type[TrainingArguments] = GRPOConfig
        return form


def _default_of(one: Field[Any]) -> Any:
    return one.default if one.default_factory is MISSING else one.default_factory()


def lora_config(given: Mapping[str, Any]) -> Any:
    """
    The `peft.LoraConfig` of a config's `lora`, for a causal language model unless it says otherwise.

    Raises:
        ValueError: a field that it has not, or of another type; or fields that do not fit each other.
    """
    from peft import LoraConfig

    # "pissa_niter_16" is one, too
    typed = check_fields("lora", given, LoraConfig, hints={"init_lora_weights": bool | str})
    return LoraConfig(**{"task_type": "CAUSAL_LM", **typed})


__all__ = ["TrainingConfig", "lora_config"]
