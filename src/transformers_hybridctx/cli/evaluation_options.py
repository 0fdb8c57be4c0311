# SPDX-License-Identifier: Apache-2.0
"""What the commands of `hybridctx evaluate` share."""

from __future__ import annotations

from typing import Any

from .loading import load_pipeline


def load_model(name: str | None) -> Any:
    """A pipeline, or any other language model by its name."""
    from transformers import AutoConfig

    from ..configuration_hybridctx import HybridCtxConfig

    if name is not None and AutoConfig.from_pretrained(name).model_type != HybridCtxConfig.model_type:
        return name
    return load_pipeline(name)


def numbers(option: str, words: list[str], kind: type = int) -> tuple[Any, ...]:
    """Numbers from `4096,8192`, or from an option that was given several times."""
    try:
        return tuple(kind(number) for word in words for number in word.split(",") if number.strip())
    except ValueError as error:
        raise ValueError(f"{option} {','.join(words)} is not a list of numbers, such as 4096,8192") from error


__all__ = ["load_model", "numbers"]
