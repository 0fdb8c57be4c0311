# SPDX-License-Identifier: Apache-2.0
"""Visual tokens of a page, by its size alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

_MOST_OBLONG = 200  # as transformers has it


@dataclass(frozen=True)
class PageTokens:
    """
    (height, width) in pixels -> visual tokens: the arithmetic of `smart_resize` in transformers' GLM-4V image processors,
    without the imports of an image processor, for what only plans.

    Attributes:
        patch_size: side of a patch in pixels.
        merge_size: patches of a visual token in each direction.
        temporal_patch_size: equal frames that a page counts as.
        shortest_edge, longest_edge: fewest and most pixels of all these frames together (the names are transformers').
    """

    patch_size: int
    merge_size: int
    temporal_patch_size: int
    shortest_edge: int
    longest_edge: int

    @classmethod
    def of(cls, settings: dict[str, Any]) -> PageTokens:
        """From the `image_processor` of a processor's saved config."""
        names = ("patch_size", "merge_size", "temporal_patch_size")
        return cls(**{name: settings[name] for name in names}, **settings["size"])

    def __call__(self, height: int, width: int) -> int:
        side, frames = self.patch_size * self.merge_size, self.temporal_patch_size
        if height < side or width < side:
            scale = max(side / height, side / width)
            height, width = int(height * scale), int(width * scale)
        if max(height, width) / min(height, width) > _MOST_OBLONG:
            raise ValueError(f"a page of {height} x {width} pixels is too oblong: crop or split it")
        rows, columns = round(height / side), round(width / side)
        pixels = frames * rows * columns * side**2
        if pixels > self.longest_edge:
            shrink = math.sqrt(frames * height * width / self.longest_edge)
            rows, columns = (max(1, math.floor(edge / shrink / side)) for edge in (height, width))
        elif pixels < self.shortest_edge:
            grow = math.sqrt(self.shortest_edge / (frames * height * width))
            rows, columns = (math.ceil(edge * grow / side) for edge in (height, width))
        return rows * columns


__all__ = ["PageTokens"]
