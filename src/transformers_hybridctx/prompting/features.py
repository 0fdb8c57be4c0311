# SPDX-License-Identifier: Apache-2.0
"""Prompts as models take them: rows of equal length, with masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from transformers import BatchFeature

from ..planning.knobs import shown
from ..planning.plan import ContextPlan


def prompt_features(
    prompts: Sequence[Sequence[int]],
    image_token_id: int,
    pad_token_id: int | None = None,
    pad_at: int = 0,
    generated: Sequence[Sequence[int]] | None = None,
    return_tensors: str | None = "pt",
) -> dict[str, Any]:
    """
    Token ids as models take them: `input_ids`, `attention_mask` and `mm_token_type_ids` (1 where a page is), int64
    `[prompts, sequence]` on the CPU. Shorter prompts are padded before their token number `pad_at`.

    Args:
        generated: 1 for each token that is a model's own, to be returned as `assistant_masks`.
        return_tensors: `"pt"`, `"np"`, or None for lists.

    Raises:
        ValueError: prompts of different length and no `pad_token_id`.
    """
    longest = max(map(len, prompts))
    if pad_token_id is None and any(len(prompt) < longest for prompt in prompts):
        raise ValueError("prompts of a batch differ in length and the tokenizer has no pad_token; set one")

    def padded(row: Sequence[int], fill: Any) -> list[int]:
        return [*row[:pad_at], *[fill] * (longest - len(row)), *row[pad_at:]]

    rows = [padded(prompt, pad_token_id) for prompt in prompts]
    data = {
        "input_ids": rows,
        "attention_mask": [padded([1] * len(prompt), 0) for prompt in prompts],
        "mm_token_type_ids": [[int(token == image_token_id) for token in row] for row in rows],
    }
    if generated is not None:
        data["assistant_masks"] = [padded(mask, 0) for mask in generated]
    return dict(BatchFeature(data, tensor_type=return_tensors))


def latent_features(plans: Iterable[ContextPlan], return_tensors: str | None = "pt") -> dict[str, Any]:
    """
    The chunks that latents stand for, in the order of the plans: `latent_input_ids` and `latent_attention_mask`, int64
    `[chunks, longest]`, padded behind with 0; nothing where there are none.
    """
    chunks = [chunk.input_ids for plan in plans for chunk in plan.latents]
    if not chunks:
        return {}
    longest = max(map(len, chunks))
    data = {
        "latent_input_ids": [[*ids, *[0] * (longest - len(ids))] for ids in chunks],
        "latent_attention_mask": [[1] * len(ids) + [0] * (longest - len(ids)) for ids in chunks],
    }
    return dict(BatchFeature(data, tensor_type=return_tensors))


# What prompts with documents are in any case: options of other processors that change nothing here.
_AS_IT_IS: dict[str, tuple[Any, ...]] = {
    "padding": (True, "longest", None),
    "padding_side": ("left", None),
    "truncation": (False, "do_not_truncate", None),
    "add_special_tokens": (True, False, None),  # the chat template writes them
    "return_attention_mask": (True, None),
    "return_mm_token_type_ids": (True, None),
    "return_token_type_ids": (False, None),
}


def check_document_options(options: dict[str, Any]) -> None:
    """TypeError or ValueError for an option of a processor's call that prompts with documents do not follow."""
    for name, value in options.items():
        if name not in _AS_IT_IS:
            raise TypeError(
                f"unknown argument {name}={shown(value)} for a document; of other processors' arguments, "
                f"{', '.join(sorted(_AS_IT_IS))} are taken"
            )
        if not any(value is known or (isinstance(known, str) and value == known) for known in _AS_IT_IS[name]):
            way_out = "; bound the prompt with budget={'max_context_tokens': ...}" if name == "truncation" else ""
            raise ValueError(
                f"{name}={shown(value)}: prompts with documents are padded on the left to the longest, and nothing "
                f"is cut off{way_out}"
            )


__all__ = ["check_document_options", "latent_features", "prompt_features"]
