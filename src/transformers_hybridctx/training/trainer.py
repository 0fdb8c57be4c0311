# SPDX-License-Identifier: Apache-2.0
"""`HybridCtxTrainer`: transformers' Trainer with what long documents need of a loss, of learning rates and of a log."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import SequentialSampler
from transformers import Trainer

from .objectives import IGNORE
from .packing import DataCollatorWithPacking

Weighting = Literal["token", "sequence"]
PARTS = {"vision": "model.visual.", "phi": "model.phi.", "decoder": ""}
"""Parts of a model that can be frozen or have learning rates of their own: what their parameters' names begin with."""


class WeightedPacking:
    """
    Packs examples ([`DataCollatorWithPacking`]) and says what each label weighs, as `label_weights` float32 `[1, total]`.

    Args:
        weighting: "token": each label the same. "sequence": each example the same, however long its answers are
            (LongAlign, arXiv 2401.18058, section 3.2): labels of an example with n of them weigh 1 / n.
    """

    def __init__(self, pack: DataCollatorWithPacking, weighting: Weighting) -> None:
        self._pack, self._weighting = pack, weighting

    def __call__(self, features: list[Mapping[str, Any]]) -> dict[str, Any]:
        batch = self._pack(features)
        labels = batch["labels"][0]
        asked = labels != IGNORE
        weights = asked.float()
        if self._weighting == "sequence":
            begins = batch["position_ids"][0, 0] == 0
            example = begins.cumsum(0) - 1
            count = torch.zeros(int(example[-1]) + 1).index_add_(0, example, weights)
            weights = weights / count.clamp(min=1)[example]
        batch["label_weights"] = (weights / weights.sum().clamp(min=1e-30))[None]
        return batch


class HybridCtxTrainer(Trainer):
    """
    Args:
        chunk_tokens: the loss is computed for so many labels at a time, and anew for their gradients: logits of a long
            sequence are never held whole.
        part_rates: learning rates of parts of the model (`PARTS`); what is not named has the arguments' own.
    """

    def __init__(
        self, *args: Any, chunk_tokens: int = 2048, part_rates: Mapping[str, float] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        # the loss is a mean over its batch already, so accumulated batches are averaged
        self.model_accepts_loss_kwargs = False
        self._chunk_tokens = chunk_tokens
        self._part_rates = dict(part_rates or {})
        self._seen: Counter[str] = Counter()
        self._since = time.perf_counter()

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **_: Any) -> Any:
        labels, weights = inputs.pop("labels"), inputs.pop("label_weights")
        self._seen["tokens"] += labels.numel()
        self._seen["pages"] += len(inputs.get("image_grid_thw", ()))
        loss = chunked_loss(self.accelerator.unwrap_model(model), model, inputs, labels, weights, self._chunk_tokens)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss of step {self.state.global_step + 1} is {loss.item()}: no step was taken, and what was saved "
                "before is sound. Go on from there with a smaller learning rate or max_grad_norm, in bfloat16 or float32 "
                "instead of float16, or with another seed, which leaves this batch out"
            )
        return (loss, {"loss": loss}) if return_outputs else loss

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

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs:
            seconds = max(time.perf_counter() - self._since, 1e-9)
            logs = logs | {f"{name}_per_second": round(count / seconds, 1) for name, count in self._seen.items()}
            self._seen.clear()
            self._since = time.perf_counter()
        super().log(logs, *args, **kwargs)

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> SequentialSampler:
        # the order is the examples' own, see TrainingExamples
        return SequentialSampler(self.train_dataset)


def part_of(name: str) -> str:
    """The part of a model that a parameter belongs to, by its name; adapters belong to what they adapt."""
    name = name.removeprefix("base_model.model.")
    return next(part for part, prefix in PARTS.items() if name.startswith(prefix))


def chunked_loss(
    unwrapped: Any, model: Any, inputs: dict[str, Any], labels: Tensor, weights: Tensor, chunk_tokens: int
) -> Tensor:
    """
    The weighted sum of the labels' cross entropies, computed for `chunk_tokens` labels at a time.

    Args:
        unwrapped: the model without the wrappers of several devices, whose output layer is used.
        model: what is called.
        labels: int64 `[1, total]`, not shifted; weights: float `[1, total]`, of them.
    """
    hidden = _last_hidden_state(unwrapped, model, inputs)
    asked = (labels[:, 1:] != IGNORE)[0]
    states, targets, shares = hidden[0, :-1][asked], labels[0, 1:][asked], weights[0, 1:][asked]
    head = unwrapped.get_output_embeddings()

    def part(states: Tensor, targets: Tensor, shares: Tensor) -> Tensor:
        return (F.cross_entropy(head(states).float(), targets, reduction="none") * shares).sum()

    loss = hidden.sum() * 0.0  # so that a batch without labels has gradients, of zero
    for start in range(0, len(targets), chunk_tokens):
        pieces = (each[start : start + chunk_tokens] for each in (states, targets, shares))
        loss = loss + checkpoint(part, *pieces, use_reentrant=False)
    return loss


def _last_hidden_state(unwrapped: Any, model: Any, inputs: dict[str, Any]) -> Tensor:
    """The decoder's last hidden states, through whatever wraps the model: of its outputs, logits are the head's input."""
    kept: dict[str, Tensor] = {}
    head = unwrapped.get_output_embeddings()

    def keep(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor]:
        kept["states"] = arguments[0]
        return (arguments[0][:, -1:],)  # one token's logits are computed, and not used

    hook = head.register_forward_pre_hook(keep)
    try:
        model(**inputs)
    finally:
        hook.remove()
    return kept["states"]


def mean_loss(model: Any, batches: Sequence[dict[str, Any]], chunk_tokens: int = 2048) -> float:
    """The mean loss a label, without gradients."""
    total = count = 0.0
    model.eval()
    with torch.no_grad():
        for batch in batches:
            inputs = {
                name: value.to(model.device) if isinstance(value, Tensor) else value for name, value in batch.items()
            }
            labels, weights = inputs.pop("labels"), inputs.pop("label_weights")
            number = int((labels[:, 1:] != IGNORE).sum())
            total += chunked_loss(model, model, inputs, labels, weights, chunk_tokens).item() * number
            count += number
    return total / max(count, 1.0)


__all__ = ["PARTS", "HybridCtxTrainer", "WeightedPacking", "Weighting", "chunked_loss", "mean_loss", "part_of"]
