# SPDX-License-Identifier: Apache-2.0
"""Whether work grows with its input or with the input's square."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

# Four times the input may take this many times as long: a square takes 16 times.
_MOST = 10.0
# CPU seconds below which a clock says little.
_NOISE = 0.02


def check_growth(work: Callable[[Any], Any], make: Callable[[int], Any], n: int) -> None:
    """AssertionError where `work(make(4 * n))` takes far more than four times the CPU time of `work(make(n))`."""
    small, large = make(n), make(4 * n)
    for _ in range(3):  # another process may disturb one try
        first, second = _seconds(work, small), _seconds(work, large)
        if second <= _MOST * max(first, _NOISE):
            return
    raise AssertionError(
        f"{first:.3f} s of CPU for {n}, {second:.3f} s for {4 * n}: {second / first:.1f} times as long"
    )


def _seconds(work: Callable[[Any], Any], given: Any) -> float:
    started = time.process_time()
    work(given)
    return time.process_time() - started
