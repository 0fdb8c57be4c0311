# SPDX-License-Identifier: Apache-2.0
"""One model, one thread at a time.

`generate` keeps state on the model between its steps (GLM-4V's `rope_deltas`), and accelerate's offloading moves the
weights themselves. Whatever runs the model in this package does so under its lock; all that runs before and after, such
as planning, drawing and finding evidence, does not wait for it.
"""

from __future__ import annotations

from threading import Lock, RLock
from typing import Any
from weakref import WeakKeyDictionary

from ..modules.loading import base_model

_locks: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
_creation = Lock()


def model_lock(model: Any) -> Any:
    """
    A reentrant lock, the same for every pipeline, cache and thread that uses these weights.

    ```python
    with model_lock(model):
        model.generate(**inputs)
    ```
    """
    with _creation:
        return _locks.setdefault(base_model(model), RLock())


__all__ = ["model_lock"]
