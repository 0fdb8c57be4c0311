# SPDX-License-Identifier: Apache-2.0
"""`HybridCtxTrainer`: transformers' Trainer with what long documents need of a loss, of learning rates and of a log."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import SequentialSampler
from transformers import Trainer

from .checkpoints import WholeCheckpoints
from .held_out import MeasuresHeldOut
from .losses import chunked_loss, label_losses

PARTS = {"vision": "model.visual.", "phi": "model.phi.", "decoder": ""}
"""Parts of a model that can be frozen or have learning rates of their own: what their parameters' names begin with."""


class HybridCtxTrainer(MeasuresHeldOut, WholeCheckpoints, Trainer):
    """
    Args:
        chunk_tokens: the loss is computed for so many labels at a time, and anew for their gradients: logits of a long
            sequence are never held whole.
        part_rates: learning rates of parts of the model (`PARTS`); what is not named has the arguments' own.
        most_weight: of a label, where batches have `short` ones ([`LongContextWeights`]).
    """

    # each label weighs the same however its batch is spread over processes and accumulated batches
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        *args: Any,
        chunk_tokens: int = 2048,
        part_rates: Mapping[str, float] | None = None,
        most_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._chunk_tokens, self._most_weight = chunk_tokens, most_weight
        self._part_rates = dict(part_rates or {})
        self._seen: Counter[str] = Counter()
        self._since: float | None = None  # when the steps that are logged next began, measuring between them left out

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if self._since is None:
            self._since = time.perf_counter()
        labels, weights, short = inputs.pop("labels"), inputs.pop("label_weights"), inputs.pop("short", None)
        self._seen["tokens"] += labels.numel()
        self._seen["pages"] += len(inputs.get("image_grid_thw", ()))
        unwrapped = self.accelerator.unwrap_model(model)
        losses = None
        if short is not None:
            losses = label_losses(unwrapped, model, short, short.pop("labels"), self._chunk_tokens)
        total = chunked_loss(unwrapped, model, inputs, labels, weights, self._chunk_tokens, losses, self._most_weight)
        if num_items_in_batch is None:
            loss = total / weights.sum().clamp(min=1e-30)
        else:  # gradients are averaged over processes
            loss = total * self.accelerator.num_processes / num_items_in_batch
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss of step {self.state.global_step + 1} is {loss.item()}: no step was taken, and what was saved "
                "before is sound. Go on from there with a smaller learning rate or max_grad_norm, in bfloat16 or float32 "
                "instead of float16, or with another seed, which leaves this batch out"
            )
        return (loss, {"loss": loss}) if return_outputs else loss

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> Tensor | None:
        """What all labels of a step weigh: over its accumulated batches, and those of other processes."""
        if not batch_samples:
            return None
        total = sum(batch["label_weights"].sum() for batch in batch_samples)
        return self.accelerator.gather(torch.as_tensor(total).to(device)).sum().clamp(min=1e-30)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        optimizer = super().create_optimizer(model)
        if not self._part_rates:
            return optimizer
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        groups = []
        for group in optimizer.param_groups:
            settings = {name: value for name, value in group.items() if name != "params"}
            by_rate: dict[float, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                rate = self._part_rates.get(part_of(names.get(id(parameter), "")), self.args.learning_rate)
                by_rate.setdefault(rate, []).append(parameter)
            groups += [{**settings, "params": found, "lr": rate} for rate, found in by_rate.items()]
        optimizer.param_groups.clear()
        for group in groups:
            optimizer.add_param_group(group)
        return optimizer

    def _get_learning_rate(self) -> float:
        """What is logged: the rate of parts that have none of their own. transformers tells that of the first group."""
        groups = self.optimizer.param_groups
        rates = [group["lr"] for group in groups if group.get("initial_lr") == self.args.learning_rate]
        return float(rates[0] if rates else super()._get_learning_rate())

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs and self._since is not None:
            seconds = max(time.perf_counter() - self._since, 1e-9)
            seen = torch.tensor([self._seen[name] for name in ("tokens", "pages")], device=self.accelerator.device)
            seen = self.accelerator.reduce(seen, reduction="sum").tolist()
            rates = (round(count / seconds, 1) for count in seen)
            logs = logs | dict(zip(("tokens_per_second", "pages_per_second"), rates, strict=True))
            self._seen.clear()
            self._since = time.perf_counter()
        super().log(logs, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        begun = time.perf_counter()
        found = super().evaluate(*args, **kwargs)
        if self._since is not None:
            self._since += time.perf_counter() - begun
        return found

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> SequentialSampler:
        # the order is the examples' own, see TrainingExamples
        return SequentialSampler(self.train_dataset)


def part_of(name: str) -> str:
    """The part of a model that a parameter belongs to, by its name; adapters belong to what they adapt."""
    name = name.removeprefix("base_model.model.")
    return next(part for part, prefix in PARTS.items() if name.startswith(prefix))


__all__ = ["PARTS", "HybridCtxTrainer", "part_of"]
