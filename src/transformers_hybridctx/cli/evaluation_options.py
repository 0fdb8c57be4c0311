# SPDX-License-Identifier: Apache-2.0
"""What the commands of `hybridctx evaluate` share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .loading import checked_model, load_pipeline


def load_model(name: str | None) -> Any:
    """A pipeline, or any other language model by its name."""
    name = checked_model(name)
    from transformers import AutoConfig

    from ..configuration_hybridctx import HybridCtxConfig
    from ..conversion.configs import FAMILIES

    family = HybridCtxConfig.model_type if name is None else AutoConfig.from_pretrained(name).model_type
    if family in FAMILIES:
        folder = f"./{Path(str(name)).name.lower()}-hybridctx"
        raise ValueError(
            f"--model {name} is of GLM-4V's family ({family}) and not converted: hybridctx convert {name} {folder}, then "
            f"--model {folder}"
        )
    return name if family != HybridCtxConfig.model_type else load_pipeline(name)


_HEEDED_BY = {
    "--policy": ("hybrid",),
    "--fusion-order": ("hybrid",),
    "--latent-share": ("pages", "bm25-only", "hybrid"),
}


def check_contexts_heed(contexts: Sequence[str], given: Mapping[str, Sequence[Any]]) -> None:
    """Refuse options that none of the contexts heeds; all of these are heeded where no context is named."""
    for option, values in given.items():
        if contexts and values and not set(contexts) & set(_HEEDED_BY[option]):
            kinds = " or ".join(_HEEDED_BY[option])
            raise ValueError(f"{option} {values[0]} is for --context {kinds}, which is not asked for")


def check_has_latents(asked: Any) -> None:
    """Refuse, before hundreds of samples fail, latents of a model that has none."""
    if getattr(getattr(asked, "processor", None), "latents", None) is None:
        raise ValueError(
            "--context latents and --latent-share are for checkpoints with a latent encoder: this has none"
        )


def numbers(option: str, words: list[str], kind: type = int) -> tuple[Any, ...]:
    """Numbers above 0 from `4096,8192`, or from an option that was given several times."""
    try:
        found = tuple(kind(number) for word in words for number in word.split(",") if number.strip())
    except ValueError as error:
        raise ValueError(f"{option} {','.join(words)} is not a list of numbers, such as 4096,8192") from error
    for number in found:
        if not 0 < number < math.inf:
            raise ValueError(f"{option} {number} should be a number above 0")
    return found


__all__ = ["check_contexts_heed", "check_has_latents", "load_model", "numbers"]
