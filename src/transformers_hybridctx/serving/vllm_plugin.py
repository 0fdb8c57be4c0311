# SPDX-License-Identifier: Apache-2.0
"""What vLLM loads at its start, in each of its processes: `pip install` makes it known (`vllm.general_plugins`)."""

from __future__ import annotations

ARCHITECTURE = "HybridCtxForCausalLM"


def register() -> None:
    """Make vLLM know HybridCtx: the Auto classes, which importing this package registers, and its own class.

    May run any number of times. The class is named, not imported, so that nothing touches a device too early.
    """
    from vllm import ModelRegistry

    if ARCHITECTURE not in ModelRegistry.get_supported_archs():
        ModelRegistry.register_model(ARCHITECTURE, "transformers_hybridctx.serving.vllm_model:HybridCtxForVllm")
    _let_numba_stand_beside()


def _let_numba_stand_beside() -> None:
    """
    Keep vLLM's worker for CPUs alive where numba is loaded, which the policy `bm25` brings.

    The worker (0.32) goes through all objects of all modules and asks each for its `__dict__`. The handle of numba's
    compiler takes any name for that of a C function, and answers with one; it keeps what it has answered before.
    """
    try:
        from llvmlite.binding import ffi
    except ImportError:
        return
    answered = getattr(ffi.lib, "_fntab", None)
    if isinstance(answered, dict):
        answered["__dict__"] = {}


__all__ = ["ARCHITECTURE", "register"]
