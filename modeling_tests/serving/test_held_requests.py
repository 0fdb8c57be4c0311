# SPDX-License-Identifier: Apache-2.0
"""What tells an engine how to hold an answer, and that an engine's rows are held as `generate` holds its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from transformers_hybridctx.grounding.generated_rows import PROMPT_END, restricted
from transformers_hybridctx.grounding.grounded import Grounding
from transformers_hybridctx.grounding.span_index import DocumentIndex
from transformers_hybridctx.serving.held_requests import HeldRequest

TEXT = "The code of room 7 is 4821930. The code of room 8 is 7204-B.\nNobody knows the code of room 9."
WAYS: list[Any] = ["quote", "strings", {"max_quotations": 3}, {"begin": None, "end": None}, {"answer": "free"}]


@pytest.mark.parametrize("way", WAYS)
def test_a_request_comes_back_from_plain_data(way: Any) -> None:
    grounding = Grounding.of(way)
    assert grounding is not None
    request = HeldRequest(TEXT, "Which code?", grounding, (3, 5))
    assert HeldRequest.of({"else": 1, **request.extra_args}) == request
    assert HeldRequest.of({"else": 1}) is None and HeldRequest.of(None) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        "quote",
        {"text": " "},
        {"grounding": "quote"},
        {"ends": ["0"]},
        {"grounding": {"mode": "else"}},
        {"text": 1},
    ],
)
def test_what_is_no_request_is_refused(wrong: Any) -> None:
    grounding = Grounding.of("quote")
    assert grounding is not None
    [(key, whole)] = HeldRequest(TEXT, "?", grounding).extra_args.items()
    with pytest.raises(ValueError):
        HeldRequest.of({key: {**whole, **wrong} if wrong and isinstance(wrong, dict) else wrong})


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", range(4))
def test_a_row_is_held_as_in_generate(processor: Any, way: Any, seed: int) -> None:
    grounding, tokenizer = Grounding.of(way), processor.tokenizer
    assert grounding is not None
    end = tokenizer.eos_token_id
    request = HeldRequest(TEXT, "Which code has room 7?", grounding, (end,))
    index = DocumentIndex(TEXT)
    of_generate, of_engine = (request.processor(index, tokenizer) for _ in range(2))
    rng = np.random.default_rng(seed)
    prompt = tokenizer(request.question)["input_ids"]
    said: list[int] = []
    while len(said) < 12 and (not said or said[-1] != end):
        scores = torch.from_numpy(rng.normal(size=(1, len(tokenizer) + 5)).astype(np.float32))
        expected = of_generate(torch.tensor([prompt + said]), scores)
        mask = of_engine.mask(0, prompt[-PROMPT_END:], tuple(said), scores[0])
        assert torch.equal(restricted(scores, [mask]), expected)
        # a request that was put off comes back, and is asked again
        assert torch.equal(
            restricted(scores, [of_engine.mask(0, prompt[-PROMPT_END:], tuple(said), scores[0])]), expected
        )
        said.append(int(expected.argmax()))
