# SPDX-License-Identifier: Apache-2.0
"""One training from its config to its report."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from transformers import AutoModelForImageTextToText, set_seed
from transformers.trainer_utils import get_last_checkpoint

from ..bundled_checkpoint import BUNDLED_CHECKPOINT
from ..caching.model_lock import base_model
from ..modules.quantization import four_bit_config
from ..planning.budget import ContextBudget
from ..planning.policies.registry import resolve_text_policy
from ..processing_hybridctx import HybridCtxProcessor
from ..rendering.styles import StyleSampler
from .config import TrainingConfig
from .examples import CHANNELS, TrainingExamples
from .objectives import Example, ExampleMaker
from .packing import DataCollatorWithPacking
from .readers.registry import DataSource
from .records import ReadCount
from .trainer import HybridCtxTrainer, WeightedPacking, mean_loss, part_of

_LANGUAGE_TEXTS = 32
_REPORT = "report.json"


@dataclass
class TrainingReport:
    """
    What a training did.

    Attributes:
        data: for each source, records used, and how many were not, by reason.
        steps: optimiser steps, those of earlier runs included.
        loss_before, loss_after: mean loss a label of held-out examples, by channel: `both`, `pages`, `tokens`.
        perplexity_before, perplexity_after: of held-out text as tokens, without a document: whether the language is kept.
        log: what the trainer logged.
    """

    data: list[dict[str, Any]] = field(default_factory=list)
    steps: int = 0
    loss_before: dict[str, float] = field(default_factory=dict)
    loss_after: dict[str, float] = field(default_factory=dict)
    perplexity_before: float | None = None
    perplexity_after: float | None = None
    log: list[dict[str, float]] = field(default_factory=list)

    def write(self, folder: Path) -> Path:
        """Write `report.json`."""
        path = folder / _REPORT
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        return path


def run_training(config: TrainingConfig) -> TrainingReport:
    """
    Train, or go on with a training that stopped: the same config and folder give the steps that are left.

    The model, its processor and `report.json` are in `config.output_dir` afterwards.

    Raises:
        ValueError, OSError: data that cannot be read, or a config that does not fit the model, before a step is taken.
        FloatingPointError: the loss is not a number; checkpoints before that are sound.
    """
    set_seed(config.seed)
    folder = Path(config.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    arguments = config.arguments()
    report = TrainingReport()
    tables = [_table(source, folder / "data" / f"{number}", report) for number, source in enumerate(config.data)]
    parts = [_split(table, config) for table in tables]
    processor = HybridCtxProcessor.from_pretrained(config.model or BUNDLED_CHECKPOINT)
    model = _model(config)
    maker = _maker(config, processor, model)
    batch = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    examples = TrainingExamples(
        [train for train, _ in parts],
        [source.weight for source in config.data],
        maker,
        objectives=config.objectives,
        channels=config.channels,
        length=arguments.max_steps * batch,
        seed=config.seed,
        styles=StyleSampler(base=processor.render_config) if config.styles else None,
        unused_path=folder / "unused_records.jsonl",
    )
    pack = WeightedPacking(DataCollatorWithPacking(base_model(model).config, config.max_tokens), config.loss_weights)
    trainer = HybridCtxTrainer(
        model,
        arguments,
        train_dataset=examples,
        data_collator=pack,
        processing_class=processor,
        chunk_tokens=config.chunk_tokens,
        part_rates=config.learning_rates,
    )
    held_out = [row for _, held in parts for row in held]
    last = get_last_checkpoint(str(folder))
    if last is None:
        report.loss_before, report.perplexity_before = _figures(config, model, maker, pack, held_out)
        report.write(folder)
    else:
        earlier = json.loads((folder / _REPORT).read_text(encoding="utf-8")) if (folder / _REPORT).exists() else {}
        report.loss_before = earlier.get("loss_before", {})
        report.perplexity_before = earlier.get("perplexity_before")
    trainer.train(resume_from_checkpoint=last)
    report.loss_after, report.perplexity_after = _figures(config, model, maker, pack, held_out)
    report.steps, report.log = trainer.state.global_step, trainer.state.log_history
    if trainer.is_world_process_zero():
        trainer.save_model(str(folder))
        processor.save_pretrained(folder)
        report.write(folder)
    return report


def _table(source: DataSource, folder: Path, report: TrainingReport) -> Any:
    """A source's records as a table on disk, read once: any of them can be looked up by number from then on."""
    from datasets import Dataset, load_from_disk

    counts = folder.with_suffix(".json")
    if not counts.exists():
        count = ReadCount()

        def rows() -> Iterator[dict[str, Any]]:
            yield from (record.as_row() for record in source.records(count))

        table = Dataset.from_generator(rows, cache_dir=str(folder / "cache"), fingerprint=f"records-{folder.name}")
        table.save_to_disk(str(folder))
        # written last: a reading that stopped is begun anew
        counts.write_text(json.dumps({"source": asdict(source), "used": count.used, "unused": dict(count.unused)}))
    found = json.loads(counts.read_text())
    if found["source"] != asdict(source):
        raise ValueError(
            f"{folder} holds the records of {found['source']}, not of {asdict(source)}: name another output_dir"
        )
    report.data.append(found)
    return load_from_disk(str(folder))


def _split(table: Any, config: TrainingConfig) -> tuple[Any, Any]:
    """(for training, held out); all that is made of one document is on one side."""
    numbers = list(range(len(table)))
    border = len(table) - round(len(table) * config.held_out)
    return table.select(numbers[:border]), table.select(numbers[border:])


def _model(config: TrainingConfig) -> Any:
    quantized = (
        {"quantization_config": four_bit_config(config.model or BUNDLED_CHECKPOINT)} if config.load_in_4bit else {}
    )
    model = AutoModelForImageTextToText.from_pretrained(config.model or BUNDLED_CHECKPOINT, **quantized)
    for name, parameter in model.named_parameters():
        if part_of(name) in config.freeze:
            parameter.requires_grad_(False)
    if config.lora is None:
        return model
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(**{"task_type": "CAUSAL_LM", **config.lora}))


def _maker(config: TrainingConfig, processor: HybridCtxProcessor, model: Any) -> ExampleMaker:
    settings = base_model(model).config
    budget = ContextBudget.of(dict(config.budget)).filled_from(ContextBudget.of(processor.default_budget))
    policy = processor.default_text_policy if config.text_policy is None else config.text_policy
    ends = settings.text_config.eos_token_id
    end = ends if isinstance(ends, int) else ends[-1]
    if end is None:
        raise ValueError("the model's config names no eos_token_id, which ends an answer: set one")
    borders = settings.image_start_token_id, settings.image_end_token_id
    return ExampleMaker(
        processor,
        budget,
        resolve_text_policy(policy if isinstance(policy, str) else dict(policy)),
        config.max_tokens,
        end,
        borders,
    )


def _figures(
    config: TrainingConfig, model: Any, maker: ExampleMaker, pack: WeightedPacking, rows: Sequence[Any]
) -> tuple[dict[str, float], float | None]:
    """(mean loss a label by channel, perplexity of text) of held-out records."""
    if not rows or not config.evaluation_examples:
        return {}, None
    losses = {}
    for channel in CHANNELS:
        found = TrainingExamples(
            [rows],
            [1.0],
            maker,
            objectives=config.objectives,
            channels={channel: 1.0},
            length=config.evaluation_examples,
            seed=config.seed + 1,
        )
        batches = [pack([example]) for example in _tried(found)]
        if batches:
            losses[channel] = mean_loss(model, batches, config.chunk_tokens)
    texts = [text for row in rows if (text := row["context"] or " ".join(turn["answer"] for turn in row["turns"]))]
    encode, least = maker.processor.encoder, 16
    pieces = [encode([text[: 4 * config.max_tokens]])[0][: config.max_tokens] for text in texts[:_LANGUAGE_TEXTS]]
    packed = [pack([{"input_ids": ids, "labels": ids}]) for ids in pieces if len(ids) >= least]
    return losses, math.exp(mean_loss(model, packed, config.chunk_tokens)) if packed else None


def _tried(examples: TrainingExamples) -> Iterator[Example]:
    for index in range(len(examples)):
        try:
            yield examples[index]
        except ValueError:
            return  # none of the held-out records can be used for this


__all__ = ["TrainingReport", "run_training"]
