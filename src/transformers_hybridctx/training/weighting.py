# SPDX-License-Identifier: Apache-2.0
"""What each label of a packed batch weighs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from .objectives import IGNORE
from .packing import DataCollatorWithPacking

Weighting = Literal["token", "sequence"]


@dataclass(frozen=True)
class LongContextWeights:
    """
    Labels that the whole context makes likelier than a short one weigh more (LongCE, arXiv 2410.23771): the short one is
    the last tokens of text before a label, without pages.

    Attributes:
        context_tokens: how many at least, where there are so many.
        stride: labels within so many tokens share one short context, so that it costs less.
        most: weight of a label at most; 1 is what every label weighs otherwise.
    """

    context_tokens: int = 4096
    stride: int = 1024
    most: float = 5.0

    def __post_init__(self) -> None:
        if self.context_tokens < 1 or self.stride < 1 or not self.most > 0:
            raise ValueError(f"long_context_weights: {self} has to be of numbers above 0")


class WeightedPacking:
    """
    Packs examples ([`DataCollatorWithPacking`]) and says what each label weighs, as `label_weights` float32 `[1, total]`.

    Args:
        weighting: "token": each label 1. "sequence": each example 1, however long its answers are (LongAlign, arXiv
            2401.18058, section 3.2): labels of an example with n of them weigh 1 / n.
        long_context: adds `short`, a second batch: each label once more, in the same order, behind its short context.
    """

    def __init__(
        self, pack: DataCollatorWithPacking, weighting: Weighting, long_context: LongContextWeights | None = None
    ) -> None:
        self._pack, self._weighting, self._long_context = pack, weighting, long_context

    def __call__(self, features: list[Mapping[str, Any]]) -> dict[str, Any]:
        batch = self._pack(features)
        labels = batch["labels"][0]
        weights = (labels != IGNORE).float()
        if self._weighting == "sequence":
            begins = batch["position_ids"][0, 0] == 0
            example = begins.cumsum(0) - 1
            count = torch.zeros(int(example[-1]) + 1).index_add_(0, example, weights)
            weights = weights / count.clamp(min=1)[example]
        batch["label_weights"] = weights[None]
        if self._long_context is not None:
            batch["short"] = self._pack([window for feature in features for window in self._windows(feature)])
        return batch

    def _windows(self, feature: Mapping[str, Any]) -> Iterator[dict[str, list[int]]]:
        """Pieces of an example's text, which have each label once, behind at least the short context."""
        assert self._long_context is not None
        settings, image = self._long_context, self._pack.config.image_token_id
        ids, labels = (torch.as_tensor(feature[name]).flatten().tolist() for name in ("input_ids", "labels"))
        labels[0] = IGNORE  # nothing of its own comes before it
        text = [pair for pair in zip(ids, labels, strict=True) if pair[0] != image]
        start = _next_label(text, 0)
        if start == len(text):  # nothing is learned, and every process has something to compute
            yield {"input_ids": [text[0][0]], "labels": [IGNORE]}
        while start < len(text):
            before, stop = max(0, start - settings.context_tokens), start + settings.stride
            window = text[before:stop]
            kept = [label if before + place >= start else IGNORE for place, (_, label) in enumerate(window)]
            yield {"input_ids": [token for token, _ in window], "labels": kept}
            start = _next_label(text, stop)


def _next_label(text: list[tuple[int, int]], start: int) -> int:
    return next((place for place in range(start, len(text)) if text[place][1] != IGNORE), len(text))


__all__ = ["LongContextWeights", "WeightedPacking", "Weighting"]
