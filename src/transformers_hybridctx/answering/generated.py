# SPDX-License-Identifier: Apache-2.0
"""What `generate` returned, taken apart: each question's own tokens, how sure they are, and why they end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import PreTrainedTokenizerBase

from ..caching.prefix import not_finite_error
from .generate_options import GenerateOptions

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, eq=False)
class GeneratedRow:
    """
    Attributes:
        token_ids: int64 `[tokens]`, the one that ended the answer included.
        log_probabilities: float `[tokens]`, of each of them.
        finish_reason: "stop": the model ended the answer, or one of `stop_strings` or the caller's criteria did;
            "length": it was cut off where `max_new_tokens` (or `max_length`, `max_time`) said.
    """

    token_ids: torch.Tensor
    log_probabilities: torch.Tensor
    finish_reason: FinishReason


def generated_rows(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    output: Any,
    prompt_length: int,
    rows: int,
    options: GenerateOptions,
) -> Iterator[GeneratedRow]:
    """
    The first sequence of each prompt of a batch.

    Args:
        output: of `generate` with `return_dict_in_generate=True, output_logits=True`.
        prompt_length: tokens of the padded prompts.
        rows: prompts in the batch.

    Raises:
        ValueError: the model computes NaN.
    """
    beams = getattr(output, "beam_indices", None)
    scores = model.compute_transition_scores(output.sequences, output.logits, beams, normalize_logits=True)
    if scores.isnan().any():
        raise not_finite_error("the model computes NaN", model.dtype)
    ends = set(options.end_tokens)
    for row in range(0, len(output.sequences), len(output.sequences) // rows):
        new_tokens = output.sequences[row, prompt_length:]
        if beams is not None:  # a beam that ended before the longest one is padded
            new_tokens = new_tokens[: int((beams[row] >= 0).sum())]
        # so is a row of a batch, behind what ended it
        ended = next((place for place, token in enumerate(new_tokens.tolist(), start=1) if token in ends), None)
        stopped = _stopped_at(tokenizer, new_tokens[:ended], options.stop_strings) or ended
        length = stopped or len(new_tokens)
        by_caller = options.has_own_criteria and length < (options.get("max_new_tokens") or 0)
        yield GeneratedRow(
            new_tokens[:length], scores[row, :length], "stop" if stopped is not None or by_caller else "length"
        )


def _stopped_at(tokenizer: PreTrainedTokenizerBase, token_ids: torch.Tensor, stop_strings: list[str]) -> int | None:
    """After how many tokens the first of the strings is complete."""

    def holds_one(count: int) -> bool:
        text = tokenizer.decode(token_ids[:count], skip_special_tokens=False)
        return any(stop in text for stop in stop_strings)

    if not stop_strings or not holds_one(len(token_ids)):
        return None
    shortest, longest = 1, len(token_ids)
    while shortest < longest:
        middle = (shortest + longest) // 2
        shortest, longest = (shortest, middle) if holds_one(middle) else (middle + 1, longest)
    return longest


__all__ = ["FinishReason", "GeneratedRow", "generated_rows"]
