# SPDX-License-Identifier: Apache-2.0
"""Figures of records that no step sees: how well they are answered in each form, and whether the language is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .examples import CHANNELS, TrainingExamples
from .losses import label_losses
from .objectives import IGNORE, Example, ExampleMaker

_LANGUAGE_TEXTS = 32
_LEAST_TOKENS = 16


@dataclass(frozen=True)
class HeldOutFigures:
    """
    Attributes:
        losses: mean cross entropy a label, by channel: `both`, `pages`, `tokens`.
        perplexity: of texts as tokens, without a document; None where no record has a text of some words.
    """

    losses: Mapping[str, float] = field(default_factory=dict)
    perplexity: float | None = None


@dataclass(frozen=True)
class HeldOutRecords:
    """
    Attributes:
        sources: the records of each source, as [`TrainingRecord.as_row`] makes them.
        maker, objectives, seed: as in [`TrainingExamples`].
        number: of examples, for each channel.
        pack: makes a batch of examples.
        chunk_tokens: labels whose logits are held at a time.
        unused_path: as in [`TrainingExamples`].
    """

    sources: Sequence[Sequence[Mapping[str, Any]]]
    maker: ExampleMaker
    objectives: Mapping[str, float]
    number: int
    seed: int
    pack: Callable[[list[Any]], dict[str, Any]]
    chunk_tokens: int
    unused_path: Path

    def measure(self, model: Any, accelerator: Any) -> HeldOutFigures:
        """
        Measure a model, which all processes do together, each a part of the examples.

        Args:
            model: as it is called in training, in the wrappers of several devices.
        """
        if not any(map(len, self.sources)) or not self.number:
            return HeldOutFigures()
        was_training = model.training
        model.eval()
        try:
            losses = {}
            for channel in CHANNELS:
                examples = TrainingExamples(
                    self.sources,
                    [1.0] * len(self.sources),
                    self.maker,
                    objectives=self.objectives,
                    channels={channel: 1.0},
                    length=self.number,
                    seed=self.seed,
                    unused_path=self.unused_path,
                )
                loss = self._mean_loss(model, accelerator, self.number, examples.__getitem__)
                if loss is not None:
                    losses[channel] = loss
            texts = self._texts()
            language = self._mean_loss(model, accelerator, len(texts), lambda index: texts[index])
        finally:
            model.train(was_training)
        return HeldOutFigures(losses, None if language is None else math.exp(language))

    def _texts(self) -> list[Example]:
        """Some texts of each source, as tokens alone."""
        found, each = [], -(-_LANGUAGE_TEXTS // len(self.sources))
        for row in (row for source in self.sources for row in islice(source, each)):
            text = row["context"] or " ".join(turn["answer"] for turn in row["turns"])
            ids = self.maker.processor.encoder([text[: 4 * self.maker.max_tokens]])[0][: self.maker.max_tokens]
            if len(ids) >= _LEAST_TOKENS:
                found.append({"input_ids": ids, "labels": ids})
        return found

    def _mean_loss(self, model: Any, accelerator: Any, number: int, example: Callable[[int], Example]) -> float | None:
        """
        The mean over all processes. Each calls the model equally often, for one that is spread over them computes nothing
        unless all call it.
        """
        processes, rank = accelerator.num_processes, accelerator.process_index
        unwrapped = accelerator.unwrap_model(model)
        total = torch.zeros(2, dtype=torch.float64)
        for index in range(rank, -(-number // processes) * processes, processes):
            try:
                made = example(index) if index < number else self._stand_in()
            except ValueError:  # no record of those that were tried can be used for this
                made = self._stand_in()
            batch = self.pack([made])
            inputs = {
                name: value.to(accelerator.device) if isinstance(value, Tensor) else value
                for name, value in batch.items()
            }
            labels = inputs.pop("labels")
            losses = label_losses(unwrapped, model, inputs, labels, self.chunk_tokens)
            total += torch.tensor([float(losses.double().sum()), len(losses)], dtype=torch.float64)
        total = accelerator.reduce(total.to(accelerator.device), reduction="sum").cpu()
        return float(total[0] / total[1]) if total[1] else None

    def _stand_in(self) -> Example:
        return {"input_ids": [self.maker.end_token_id], "labels": [IGNORE]}


class MeasuresHeldOut:
    """
    Before a `Trainer` among the bases: `evaluate` measures records that no step sees.

    Attributes:
        held_out: these records; None: nothing is measured.
    """

    held_out: HeldOutRecords | None = None
    args: Any
    state: Any
    control: Any
    accelerator: Any
    model_wrapped: Any
    callback_handler: Any

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Figures of the records that are held out, logged: `eval_loss` by channel and their mean, `eval_perplexity`."""
        held = self.held_out
        figures = HeldOutFigures() if held is None else held.measure(self.model_wrapped, self.accelerator)
        found = {f"{metric_key_prefix}_loss_{channel}": loss for channel, loss in figures.losses.items()}
        if found:
            found[f"{metric_key_prefix}_loss"] = sum(found.values()) / len(found)
        if figures.perplexity is not None:
            found[f"{metric_key_prefix}_perplexity"] = figures.perplexity
        self.log(dict(found))  # type: ignore[attr-defined]
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        return found


__all__ = ["HeldOutFigures", "HeldOutRecords", "MeasuresHeldOut"]
