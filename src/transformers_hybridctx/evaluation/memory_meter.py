# SPDX-License-Identifier: Apache-2.0
"""Memory of tensors, counted exactly and alike on every device, where a process's memory depends on its allocator."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class MemoryMeter(TorchDispatchMode):
    """
    Counts the bytes of all tensors that operators return, for as long as they live.

    ```python
    >>> with MemoryMeter() as meter:
    ...     output = model(**inputs)
    >>> meter.peak, meter.live  # bytes at the most, bytes still alive
    ```

    Tensors that were there before do not count, nor does what a kernel holds inside.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._count((args, kwargs), were_there=True)
        output = func(*args, **(kwargs or {}))
        self._count(output)
        return output

    def _count(self, tensors: Any, were_there: bool = False) -> None:
        for leaf in tree_leaves(tensors):
            if not isinstance(leaf, torch.Tensor) or (storage := leaf.untyped_storage())._cdata in self._sizes:
                continue
            self._sizes[storage._cdata] = size = 0 if were_there else storage.nbytes()
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._free, storage._cdata)

    def _free(self, storage: int) -> None:
        self.live -= self._sizes.pop(storage)
