# SPDX-License-Identifier: Apache-2.0
"""One training from its config to its report."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from transformers import AutoModelForImageTextToText, TrainerCallback, set_seed
from transformers.distributed import DistributedConfig
from transformers.trainer_utils import get_last_checkpoint

from ..modules.loading import base_model
from ..modules.quantization import four_bit_config
from ..rendering.styles import StyleSampler
from .config import TrainingConfig
from .examples import TrainingExamples
from .held_out import HeldOutRecords
from .kept_config import check_goes_on, keep_config
from .objectives import ExampleMaker
from .packing import DataCollatorWithPacking
from .starting_point import (
    checkpoint_of,
    example_maker,
    learning,
    learning_on_meta,
    model_config_of,
    processor_of,
)
from .tables import record_tables, split_by_document
from .trainer import HybridCtxTrainer
from .unused import count_unused
from .weighting import LongContextWeights, WeightedPacking

_REPORT = "report.json"
_UNUSED = "unused_records.jsonl"


@dataclass
class TrainingReport:
    """
    What a training did.

    Attributes:
        data: for each source, its records, the rows that they are made of, and how many were not used, by reason.
        unused: records that turned out later not to be usable, such as those that are too long, by objective and reason;
            `unused_records.jsonl` names them.
        steps: optimiser steps, those of earlier runs included.
        loss_before, loss_after: mean loss a label of held-out examples, by channel: `both`, `pages`, `tokens`.
        perplexity_before, perplexity_after: of held-out text as tokens, without a document: whether the language is kept.
        log: what the trainer logged.
    """

    data: list[dict[str, Any]] = field(default_factory=list)
    unused: dict[str, int] = field(default_factory=dict)
    steps: int = 0
    loss_before: dict[str, float] = field(default_factory=dict)
    loss_after: dict[str, float] = field(default_factory=dict)
    perplexity_before: float | None = None
    perplexity_after: float | None = None
    log: list[dict[str, float]] = field(default_factory=list)

    def write(self, folder: Path) -> Path:
        """Write `report.json`."""
        path = folder / _REPORT
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        return unfinished.replace(path)


def run_training(config: TrainingConfig) -> TrainingReport:
    """
    Train, or go on with a training that stopped: the same config and folder give the steps that are left. Started by
    torchrun in several processes, they train together.

    The model, its processor and `report.json` are in `config.output_dir` afterwards.

    Raises:
        ValueError, OSError: data that cannot be read, or a config that does not fit the model, before a step is taken;
            or a checkpoint that cannot be written. Earlier ones are sound.
        FloatingPointError: the loss is not a number; checkpoints before that are sound.
    """
    folder = Path(config.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    arguments = config.arguments()
    last = get_last_checkpoint(str(folder))
    if last is not None and arguments.save_only_model:
        raise ValueError(
            f"{folder} has checkpoints of a run that saved its model only, which cannot go on: name another output_dir, "
            f"and model: {last} to begin with its weights"
        )
    if last is not None:
        check_goes_on(config, last, _examples_per_step(arguments))
    model_config = model_config_of(config)
    processor = processor_of(config)
    maker = example_maker(config, processor, model_config)
    learning_on_meta(config, model_config, with_devices=True)
    if arguments.process_index == 0:
        keep_config(config, _examples_per_step(arguments))
    report = TrainingReport()
    read = record_tables(config.data, folder / "data", reads=arguments.local_process_index == 0)
    tables, report.data = [table for table, _ in read], [counts for _, counts in read]
    parts = split_by_document(tables, config.held_out)
    set_seed(config.seed)
    model = _model(config)
    trains, helds = zip(*parts, strict=True)
    held_out = HeldOutRecords(
        helds,
        maker,
        config.objectives if config.rewards is None else {"quote" if "quote" in config.rewards else "answer": 1.0},
        config.evaluation_examples,
        config.seed + 1,
        DataCollatorWithPacking(base_model(model).config, config.max_tokens, needs_labels=False),
        config.chunk_tokens,
        folder / _UNUSED,
    )
    trainer = (_supervised if config.rewards is None else _reinforced)(config, arguments, model, maker, trains)
    trainer.held_out = held_out
    if last is not None and (folder / _REPORT).exists():
        earlier = json.loads((folder / _REPORT).read_text(encoding="utf-8"))
        report.loss_before, report.perplexity_before = earlier["loss_before"], earlier["perplexity_before"]
    trainer.add_callback(_MeasuresBefore(trainer, held_out, report, folder))
    trainer.train(resume_from_checkpoint=last)
    after = held_out.measure(trainer.model_wrapped, trainer.accelerator)
    report.loss_after, report.perplexity_after = dict(after.losses), after.perplexity
    report.steps, report.log = trainer.state.global_step, trainer.state.log_history
    trainer.save_whole(folder)
    if trainer.is_world_process_zero():
        processor.save_pretrained(folder)
        report.unused = count_unused(folder / _UNUSED)
        report.write(folder)
    return report


def _examples_per_step(arguments: Any) -> int:
    batches = arguments.gradient_accumulation_steps * arguments.world_size
    return int(arguments.per_device_train_batch_size * batches)


def _supervised(
    config: TrainingConfig, arguments: Any, model: Any, maker: ExampleMaker, tables: Any
) -> HybridCtxTrainer:
    examples = TrainingExamples(
        tables,
        [source.weight for source in config.data],
        maker,
        objectives=config.objectives,
        channels=config.channels,
        length=arguments.max_steps * _examples_per_step(arguments),
        seed=config.seed,
        styles=StyleSampler(base=maker.processor.render_config) if config.styles else None,
        unused_path=Path(config.output_dir) / _UNUSED,
    )
    long_context = None if config.long_context_weights is None else LongContextWeights(**config.long_context_weights)
    pack = DataCollatorWithPacking(base_model(model).config, config.max_tokens)
    return HybridCtxTrainer(
        model,
        arguments,
        train_dataset=examples,
        eval_dataset=examples,  # is asked for, and what is measured is held_out
        data_collator=WeightedPacking(pack, config.loss_weights, long_context),
        processing_class=maker.processor,
        chunk_tokens=config.chunk_tokens,
        part_rates=config.learning_rates,
        most_weight=long_context.most if long_context else 1.0,
    )


def _reinforced(config: TrainingConfig, arguments: Any, model: Any, maker: ExampleMaker, tables: Any) -> Any:
    from .reinforcement import reinforcement_trainer, reward_rows

    assert config.rewards is not None
    rows = reward_rows(tables, maker, config.rewards, config.channels, config.seed, Path(config.output_dir) / _UNUSED)
    return reinforcement_trainer(model, arguments, maker.processor, rows, config.rewards)


class _MeasuresBefore(TrainerCallback):
    """Measures the weights that a training begins with: when the trainer has spread them over its devices."""

    def __init__(self, trainer: Any, held_out: HeldOutRecords, report: TrainingReport, folder: Path) -> None:
        self._trainer, self._held_out, self._report, self._folder = trainer, held_out, report, folder

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step:
            return
        before = self._held_out.measure(self._trainer.model_wrapped, self._trainer.accelerator)
        self._report.loss_before, self._report.perplexity_before = dict(before.losses), before.perplexity
        if state.is_world_process_zero:
            self._report.write(self._folder)


def _model(config: TrainingConfig) -> Any:
    name = checkpoint_of(config)
    settings: dict[str, Any] = {"dtype": config.dtype or ("float32" if config.lora is None else "auto")}
    if config.load_in_4bit:
        settings["quantization_config"] = four_bit_config(name)
    if config.attn_implementation is not None:
        settings["attn_implementation"] = config.attn_implementation
    if config.distributed is not None:
        settings["distributed_config"] = DistributedConfig(**config.distributed)
    model = AutoModelForImageTextToText.from_pretrained(name, **settings)
    return learning(model, config)


__all__ = ["TrainingReport", "run_training"]
