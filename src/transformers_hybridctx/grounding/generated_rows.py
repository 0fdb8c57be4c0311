# SPDX-License-Identifier: Apache-2.0
"""What logits processors here have in common: which tokens are new, which end an answer, and how scores are masked."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import torch

PROMPT_END = 64
"""Tokens of a prompt's end that a processor may look at."""
_KEPT_STATES = 2048

State = TypeVar("State")
Mask = tuple[np.ndarray | None, Callable[[], np.ndarray]]
"""The tokens that may come next, bool `[vocabulary]`, or None for any; and what tells those that end an answer."""


class GeneratedRows:
    """
    Tells a prompt from what was generated after it.

    `generate` calls a processor with all tokens of each row: one more at each call, or fewer again where drafted tokens
    were refused. Rows of one prompt (beams, several sequences) keep their place, so other tokens in the prompt's place,
    or more than one token more than before, are another call of `generate`.
    """

    def __init__(self) -> None:
        self._prompt: torch.Tensor | None = None
        self._ends: list[list[int]] = []
        self._length = 0

    def split(self, input_ids: torch.Tensor, documents: int) -> list[tuple[int, list[int], tuple[int, ...]]]:
        """
        (which document it is about, the last tokens of its prompt, the tokens after that) for each row of `input_ids`
        `[rows, sequence]`.

        Raises:
            ValueError: rows that are no multiple of the documents.
        """
        if len(input_ids) % documents:
            raise ValueError(
                f"{len(input_ids)} rows are generated for {documents} documents: give one for each prompt"
            )
        each = len(input_ids) // documents
        length = input_ids.shape[1]
        if not self._goes_on(input_ids):
            self._prompt = input_ids
            self._ends = input_ids[:, -PROMPT_END:].tolist()
        assert self._prompt is not None
        self._length = length
        new = input_ids[:, self._prompt.shape[1] :].tolist()
        return [(row // each, self._ends[row], tuple(tokens)) for row, tokens in enumerate(new)]

    def _goes_on(self, input_ids: torch.Tensor) -> bool:
        prompt = self._prompt
        if prompt is None or prompt.device != input_ids.device or len(prompt) != len(input_ids):
            return False
        size = prompt.shape[1]
        return size < input_ids.shape[1] <= self._length + 1 and torch.equal(input_ids[:, :size], prompt)


class KeptStates(Generic[State]):
    """States after the tokens of recent rows: beams and drafted tokens come back to them."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, tuple[int, ...]], State] = {}

    def after(
        self,
        key: Any,
        tokens: tuple[int, ...],
        start: Callable[[], State],
        advance: Callable[[State, int], State],
    ) -> State:
        """The state after tokens, worked out from the longest beginning of them whose state is known."""
        length = len(tokens)
        while (state := self._known.get((key, tokens[:length]))) is None and length:
            length -= 1
        if state is None:
            state = start()
        for end in range(length, len(tokens)):
            state = self._known[key, tokens[: end + 1]] = advance(state, tokens[end])
        while len(self._known) > _KEPT_STATES:
            self._known.pop(next(iter(self._known)))
        return state


def end_tokens(tokenizer: Any, eos_token_id: int | Iterable[int] | None) -> tuple[int, ...]:
    """
    The tokens that end an answer.

    Raises:
        ValueError: none is given, and the tokenizer has none.
        TypeError: something that is no id.
    """
    given = tokenizer.eos_token_id if eos_token_id is None else eos_token_id
    ends = () if given is None else (given,) if isinstance(given, int) else tuple(given)
    if not ends:
        raise ValueError(
            "no token ends an answer: the tokenizer has no eos_token; give eos_token_id=, as in the generation config"
        )
    try:
        return tuple(operator.index(token) for token in ends)
    except TypeError as error:
        raise TypeError(f"eos_token_id={given!r:.80} is the id of a token, or a list of ids") from error


def restricted(scores: torch.Tensor, masks: Sequence[Mask]) -> torch.Tensor:
    """
    Scores `[rows, vocabulary]` with -inf for tokens that are not allowed.

    Args:
        masks: of each row; its second part is asked where another processor has ruled out all that its first allows.
    """
    held = torch.full_like(scores, -torch.inf)
    for row, (allowed, closing) in enumerate(masks):
        if allowed is None:
            held[row] = scores[row]
            continue
        # whichever are fewer are picked out of a whole vocabulary: those that are allowed, or the others
        if 2 * np.count_nonzero(allowed) < len(allowed):
            tokens = torch.from_numpy(np.flatnonzero(allowed)).to(scores.device)
            held[row, tokens] = scores[row, tokens]
        else:
            held[row] = scores[row]
            held[row, torch.from_numpy(np.flatnonzero(~allowed)).to(scores.device)] = -torch.inf
        if held[row].max() == -torch.inf:
            held[row, torch.from_numpy(closing()).to(scores.device)] = 0
    return held


__all__ = ["PROMPT_END", "GeneratedRows", "KeptStates", "Mask", "end_tokens", "restricted"]
