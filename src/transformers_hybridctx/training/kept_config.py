# SPDX-License-Identifier: Apache-2.0
"""The config that a folder's checkpoints were made with, kept beside them: a run goes on with that one, or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from .config import TrainingConfig

_NAME = "training_config.json"
_FREE = (
    *("output_dir", "chunk_tokens", "attn_implementation"),
    # how a step is spread over devices and time: how many examples it has is compared
    *(
        "trainer.per_device_train_batch_size",
        "trainer.gradient_accumulation_steps",
        "trainer.use_cpu",
        "trainer.ddp_*",
    ),
    *("trainer.dataloader_*", "trainer.activation_checkpointing*", "trainer.gradient_checkpointing*"),
    *("trainer.torch_compile*", "trainer.torch_empty_cache_steps"),
    # when it ends, and what is seen of it
    *("trainer.max_steps", "trainer.logging_*", "trainer.log_*", "trainer.disable_tqdm", "trainer.run_name"),
    "trainer.report_to",
    *("trainer.project", "trainer.trackio_*", "trainer.num_completions_to_print", "trainer.skip_memory_metrics"),
    *("trainer.include_num_input_tokens_seen", "trainer.debug", "trainer.eval_*", "trainer.save_strategy"),
    *("trainer.save_steps", "trainer.save_total_limit", "trainer.save_on_each_node", "trainer.enable_jit_checkpoint"),
    *("trainer.push_to_hub", "trainer.hub_*"),
)
"""Fields that may change while a run goes on, as patterns of their dotted names."""


def check_goes_on(config: TrainingConfig, checkpoint: str, examples: int) -> None:
    """
    Whether a run may go on from a checkpoint: with the config that it was made with, but for `_FREE`.

    Args:
        checkpoint: the last one of `config.output_dir`.
        examples: of a step, over all processes and accumulated batches.

    Raises:
        ValueError: fields differ; they are named, with both values.
    """
    path = Path(config.output_dir) / _NAME
    if not path.exists():
        return
    before = dict(_leaves(json.loads(path.read_text(encoding="utf-8"))))
    now = dict(_leaves(_as_plain(config, examples)))
    defaults = _defaults(config)
    changed = []
    for name in sorted(before.keys() | now.keys()):
        was, is_now = (side.get(name, defaults.get(name)) for side in (before, now))
        if was != is_now and not any(fnmatchcase(name, free) for free in _FREE):
            changed.append(f"{name} was {was!r:.80} and is {is_now!r:.80}")
    if changed:
        raise ValueError(
            f"{config.output_dir} has checkpoints of another config: {'; '.join(changed)}. Take that back to go on, or "
            f"name another output_dir, and model: {checkpoint} to begin with the weights that are there"
        )


def keep_config(config: TrainingConfig, examples: int) -> None:
    """Write `training_config.json`, whole or not at all."""
    path = Path(config.output_dir) / _NAME
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(_as_plain(config, examples), indent=1) + "\n", encoding="utf-8")
    unfinished.replace(path)


def _as_plain(config: TrainingConfig, examples: int) -> Any:
    return json.loads(json.dumps({**asdict(config), "examples_per_step": examples}))  # tuples are lists in both


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of all that is no mapping, nor a list of mappings."""
    if isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, one in value.items():
        yield from _leaves(one, f"{name}.{key}" if name else str(key))


def _defaults(config: TrainingConfig) -> dict[str, Any]:
    """By dotted name: writing one out changes nothing."""
    forms: dict[str, Any] = {"": TrainingConfig, "trainer.": config.arguments_class()}
    return {
        prefix + one.name: one.default
        for prefix, form in forms.items()
        for one in fields(form)
        if one.default is not MISSING
    }


__all__ = ["check_goes_on", "keep_config"]
