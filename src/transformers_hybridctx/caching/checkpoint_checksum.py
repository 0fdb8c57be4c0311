# SPDX-License-Identifier: Apache-2.0
"""A checksum of all numbers that a model computes with: weights, buffers, adapters as they are set, config.

It reads every number each time, as `.data` writes and in-place merges leave no trace that could be looked at instead.
That costs about what one new token costs, which reads every weight, too: 0.4 s a GB on one CPU core.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import torch

# Entries of a config that change nothing in what a model computes.
_INCIDENTAL = frozenset(
    (
        "_name_or_path",
        "transformers_version",
        "dtype",
        "architectures",
        "auto_map",
        "custom_pipelines",
        "vision_batch_bytes",
        "latent_batch_tokens",
        "retrieval_heads",
        "purpose",
    )
)
_BLOCK = 2**16
"""Lanes that are weighted alike; a hash of the blocks' hashes follows."""
_BLOCKS_AT_ONCE = {"cpu": 4}  # what a core's own cache holds
_BLOCKS_AT_ONCE_ELSEWHERE = 256
# What PEFT puts into the names of what it wraps.
_WRAPPERS = ("base_model.model.", "base_layer.", "original_module.")


def checkpoint_checksum(model: Any) -> str:
    """
    A checksum that is the same for the same numbers, on every device, and another one otherwise.

    It covers the config; each parameter and buffer by name, type, shape and content, place by place, also where
    accelerate has offloaded it; and for adapters (PEFT) which are active, with what scaling, and whether they are merged.
    An adapter that is loaded and not active, or disabled, does not count.
    """
    digest = hashlib.sha256(json.dumps(_without_incidentals(model.config.to_dict()), sort_keys=True).encode())
    modules = dict(model.named_modules())
    adapters, idle = _adapters(modules)
    for line in adapters:
        digest.update(line.encode())
    hashes: dict[Any, int] = {}
    for name, tensor in sorted(_tensors(model), key=lambda item: _bare(item[0])):
        if any(f".{name}.".startswith(prefix) for prefix in idle):
            continue
        if not isinstance(tensor, torch.Tensor):
            digest.update(f"\n{_bare(name)}".encode())
            continue
        tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor  # of several processes, this one's part
        line = f"\n{_bare(name)} {tensor.dtype} {list(tensor.shape)}"
        if tensor.is_meta:
            tensor = _offloaded(modules, name)
        if tensor is not None:
            place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())  # tied weights are read once
            if place not in hashes:
                hashes[place] = content_hash(tensor)
            line += f" {hashes[place]:016x}"
        digest.update(line.encode())
    return digest.hexdigest()


def content_hash(tensor: torch.Tensor) -> int:
    """
    64 bits of a tensor's content, each place weighted by its own odd number: exact, so the same on every device.

    The numbers' bits are taken as lanes of 4 bytes (of 1, where they do not divide), and summed modulo 2**64 block by
    block with 64-bit weights. A change in one lane always changes the sum; any other, two lanes changing places
    included, goes unnoticed with a probability of 2**-31 or less.
    """
    lanes = tensor.detach().contiguous().view(-1).view(torch.uint8)
    while True:
        lanes = lanes.view(torch.int32) if len(lanes) % 4 == 0 else lanes
        weights = _weights(str(lanes.device))
        whole = len(lanes) // _BLOCK * _BLOCK
        at_once = _BLOCKS_AT_ONCE.get(lanes.device.type, _BLOCKS_AT_ONCE_ELSEWHERE)
        sums = [
            _weighted_sums(blocks, weights) for blocks in lanes[:whole].view(-1, _BLOCK).split(at_once) if len(blocks)
        ]
        if whole < len(lanes):
            rest = lanes[whole:]
            sums.append(_weighted_sums(rest.view(1, -1), weights[: len(rest)]))
        found = torch.cat(sums) if sums else torch.zeros(1, dtype=torch.int64)
        if len(found) == 1:
            return int(found) % 2**64
        lanes = found.view(torch.uint8)


def _weighted_sums(blocks: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Of each row, modulo 2**64."""
    if blocks.device.type == "cpu":
        return torch.mv(blocks.long(), weights)
    return (blocks * weights).sum(1)  # there is no such product of integers on other devices


@lru_cache(maxsize=8)
def _weights(device: str) -> torch.Tensor:
    """Odd 64-bit numbers, by splitmix64 (https://doi.org/10.1145/2714064.2660195)."""
    with np.errstate(over="ignore"):
        mixed = np.arange(1, _BLOCK + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed = (mixed ^ (mixed >> np.uint64(31))) | np.uint64(1)
    return torch.from_numpy(mixed.view(np.int64)).to(device)


def _tensors(model: Any) -> Iterator[tuple[str, Any]]:
    """What a checkpoint holds, quantisation included, and the buffers that it does not hold."""
    saved = model.state_dict()
    yield from saved.items()
    yield from ((name, buffer) for name, buffer in model.named_buffers() if name not in saved)


def _offloaded(modules: dict[str, Any], name: str) -> torch.Tensor | None:
    """A tensor that accelerate keeps elsewhere and brings in when its module runs."""
    owner, _, rest = name.rpartition(".")
    while True:
        hook = getattr(modules.get(owner), "_hf_hook", None)
        for one in getattr(hook, "hooks", (hook,)):
            kept = getattr(one, "weights_map", None)
            if kept is not None and rest in kept:
                return kept[rest]
        if not owner:
            return None
        owner, _, last = owner.rpartition(".")
        rest = f"{last}.{rest}"


def _adapters(modules: dict[str, Any]) -> tuple[list[str], list[str]]:
    """(how the adapters that take part are set, beginnings of the names of those that do not) with dots around."""
    lines, idle = [], []
    for name, module in sorted(modules.items()):
        if not hasattr(module, "adapter_layer_names") or not hasattr(module, "active_adapters"):
            continue
        disabled = bool(getattr(module, "disable_adapters", False))
        merged = list(getattr(module, "merged_adapters", ()))
        active = [] if disabled else [one for one in module.active_adapters if one not in merged]
        if merged and (disabled or set(merged) != set(module.active_adapters)):
            lines.append(f"\n{_bare(name)} takes {merged} out again when it runs")
        for adapter in active:
            settings = {
                key: value[adapter]
                for key, value in vars(module).items()
                if isinstance(value, dict) and isinstance(value.get(adapter), (bool, int, float, str))
            }
            if any(adapter in getattr(module, layers, ()) for layers in module.adapter_layer_names):
                lines.append(f"\n{_bare(name)} {type(module).__name__} {adapter} {sorted(settings.items())}")
        for layers in module.adapter_layer_names:
            kept: Any = getattr(module, layers, None)
            names = kept.keys() if hasattr(kept, "keys") else ()
            idle += [f".{name}.{layers}.{adapter}." for adapter in names if adapter not in active]
    return lines, idle


def _bare(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def _without_incidentals(values: Any) -> Any:
    if isinstance(values, dict):
        return {str(key): _without_incidentals(value) for key, value in values.items() if key not in _INCIDENTAL}
    if isinstance(values, (list, tuple)):
        return [_without_incidentals(value) for value in values]
    return values if isinstance(values, (int, float, str, bool, type(None))) else str(values)


__all__ = ["checkpoint_checksum", "content_hash"]
