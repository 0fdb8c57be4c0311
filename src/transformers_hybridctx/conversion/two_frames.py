# SPDX-License-Identifier: Apache-2.0
"""A vision tower that takes a page for one frame becomes one that takes it for two equal ones, as GLM-4V's do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save

from .tensor_files import Tensor, read_chunks, read_header

_PATCHES = "model.visual.patch_embed.proj.weight"
_FRAMES = 2
Pairs = list[tuple[Tensor, Tensor]]


def with_two_frames(shards: Mapping[str, Pairs]) -> dict[str, Pairs]:
    """The shards to write, whose first layer sees two frames `[out, channels, 2, height, width]`."""
    return {
        name: [
            (read, replace(written, shape=(*read.shape[:2], _FRAMES, *read.shape[3:])))
            if written.name == _PATCHES
            else (read, written)
            for read, written in pairs
        ]
        for name, pairs in shards.items()
    }


def halved(shards: Mapping[str, Pairs], scratch: Path) -> dict[str, Pairs]:
    """
    The same with that layer's values at hand: half of them for each frame, which adds up to the same.

    Args:
        scratch: an empty folder, for as long as the shards are written.
    """
    return {
        name: [(_halved(read, scratch) if written.name == _PATCHES else read, written) for read, written in pairs]
        for name, pairs in shards.items()
    }


def _halved(read: Tensor, scratch: Path) -> Tensor:
    weight = torch.cat(list(read_chunks(read))).view(read.shape)
    file = scratch / "patches.safetensors"
    file.write_bytes(save({read.name: (weight / _FRAMES).repeat_interleave(_FRAMES, dim=2)}))
    return read_header(file)[0]
