# SPDX-License-Identifier: Apache-2.0
"""The loss of packed examples, computed for some labels at a time: logits of a long sequence are never held whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .objectives import IGNORE

Head = Callable[[Tensor], Tensor]


def chunked_loss(
    unwrapped: Any,
    model: Any,
    inputs: dict[str, Any],
    labels: Tensor,
    weights: Tensor,
    chunk_tokens: int,
    short: Tensor | None = None,
    most: float = 1.0,
) -> Tensor:
    """
    The weighted sum of the labels' cross entropies, computed for `chunk_tokens` labels at a time.

    Args:
        unwrapped: the model without the wrappers of several devices, whose output layer is used.
        model: what is called.
        labels: int64 `[1, total]`, not shifted; weights: float `[1, total]`, of them.
        short: float `[labelled]`, what each label's cross entropy is where only a short context is seen
            ([`label_losses`]). A label then weighs how much likelier the whole context makes it, up to `most` (LongCE,
            arXiv 2410.23771, equation 8).
    """
    asked = (labels[:, 1:] != IGNORE)[0]
    targets, shares = labels[0, 1:][asked], weights[0, 1:][asked]

    def compute(head: Head, hidden: Tensor) -> Tensor:
        def part(states: Tensor, targets: Tensor, shares: Tensor, short: Tensor | None) -> Tensor:
            losses = F.cross_entropy(head(states).float(), targets, reduction="none")
            if short is not None:
                shares = shares * (short - losses.detach()).exp().clamp(max=most)
            return (losses * shares).sum()

        states = hidden[0, :-1][asked]
        loss = hidden.sum() * 0.0  # so that a batch without labels has gradients, of zero
        for start in range(0, len(targets), chunk_tokens):
            stop = start + chunk_tokens
            pieces = (states[start:stop], targets[start:stop], shares[start:stop])
            few = None if short is None else short[start:stop]
            loss = loss + checkpoint(part, *pieces, few, use_reentrant=False)
        return loss

    return _at_the_head(unwrapped, model, inputs, compute)


def label_losses(unwrapped: Any, model: Any, inputs: dict[str, Any], labels: Tensor, chunk_tokens: int) -> Tensor:
    """The cross entropy of each label, in their order, float `[labelled]`; without gradients."""
    asked = (labels[:, 1:] != IGNORE)[0]
    targets = labels[0, 1:][asked]

    def compute(head: Head, hidden: Tensor) -> Tensor:
        pieces = zip(hidden[0, :-1][asked].split(chunk_tokens), targets.split(chunk_tokens))
        found = [F.cross_entropy(head(states).float(), right, reduction="none") for states, right in pieces]
        return torch.cat([hidden.new_zeros(0).float(), *found])

    with torch.no_grad():
        return _at_the_head(unwrapped, model, inputs, compute)


def _at_the_head(
    unwrapped: Any, model: Any, inputs: dict[str, Any], compute: Callable[[Head, Tensor], Tensor]
) -> Tensor:
    """
    Call the model, and in place of its output layer `compute`, which is given that layer and the decoder's last hidden
    states `[1, total, width]`: within the call, for a layer that is spread over processes is whole only there.
    """
    head = unwrapped.get_output_embeddings()
    original, was_set = head.forward, "forward" in vars(head)
    head.forward = lambda hidden: compute(original, hidden)
    try:
        return model(**inputs).logits
    finally:
        if was_set:
            head.forward = original
        else:
            del head.forward


__all__ = ["chunked_loss", "label_losses"]
