# SPDX-License-Identifier: Apache-2.0
"""Parameters of `generate` that make no sense are named before any model runs; all others pass."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import GenerationConfig, LogitsProcessorList, TextStreamer

from transformers_hybridctx.answering.generate_parameters import GENERATION_FIELDS, check_generate_parameters


@pytest.mark.parametrize(
    ("given", "error", "reason"),
    [
        ({1: 2}, TypeError, "1 in generate_kwargs is not the name of a parameter"),
        ({"num_beams": None}, ValueError, "num_beams=None must be a whole number of beams .*: 1 or more"),
        ({"top_k": "x"}, ValueError, "top_k='x' must be a whole number of tokens, or None for all of them: 0 or"),
        ({"top_k": 1.5}, ValueError, "top_k=1.5 must be a whole number"),
        ({"length_penalty": "x"}, ValueError, "length_penalty='x' must be a number, or None"),
        ({"temperature": True}, ValueError, "temperature=True must be a number, or None"),
        ({"temperature": float("nan"), "do_sample": True}, ValueError, "temperature.*nan"),
        ({"do_sample": "yes"}, ValueError, "do_sample='yes' must be True, False, or None"),
        ({"suppress_tokens": ["x"]}, ValueError, r"suppress_tokens=\['x'\] must be a list of token ids"),
        ({"eos_token_id": "x"}, ValueError, "eos_token_id='x' must be a token id, or a list of them"),
        ({"generation_config": 5}, TypeError, "generation_config=5 must be a GenerationConfig"),
        ({"streamer": 5}, TypeError, "streamer=5 must be a streamer"),
        ({"stopping_criteria": [5]}, TypeError, r"stopping_criteria=\[5\] must be a list of stopping criteria"),
        ({"stop_strings": ["a", 5]}, TypeError, "must be a string, or a list of strings"),
        ({"assistant_model": "org/name"}, TypeError, "assistant_model='org/name' must be a model that generates"),
        ({"exponential_decay_length_penalty": 5}, TypeError, "penalty=5 must be a pair: from which token on"),
        ({"watermarking_config": 5}, ValueError, "generation parameters {'watermarking_config': 5} cannot be used"),
        ({"return_dict_in_generate": True}, ValueError, "return_dict_in_generate=True is for calls of generate"),
    ],
)
def test_what_makes_no_sense_is_named(given: dict[Any, Any], error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        check_generate_parameters(given)


@pytest.mark.parametrize(
    "given",
    [
        dict.fromkeys(GENERATION_FIELDS - {"max_new_tokens", "num_beams", "num_return_sequences"}),
        {"do_sample": True, "temperature": 0.7, "top_k": 50, "top_p": 1, "repetition_penalty": 1.1},
        {"eos_token_id": [0, 4], "pad_token_id": 0, "suppress_tokens": (9,), "bad_words_ids": [[5]]},
        {"num_beams": 2, "early_stopping": "never", "length_penalty": 0.5, "max_new_tokens": 4},
        {"generation_config": GenerationConfig(max_new_tokens=4), "stop_strings": "\n", "prefill_chunk_size": None},
        {"logits_processor": LogitsProcessorList(), "stopping_criteria": [lambda ids, scores: False]},
        {"exponential_decay_length_penalty": (5, 1.1), "streamer": TextStreamer(None)},
    ],
)
def test_what_generate_takes_passes(given: dict[str, Any]) -> None:
    check_generate_parameters(given)
