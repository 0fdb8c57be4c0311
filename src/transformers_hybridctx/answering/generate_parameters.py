# SPDX-License-Identifier: Apache-2.0
"""Parameters of `generate`, each of its kind: what makes no sense is named before any model runs.

transformers checks some of them, and fails within its loop, with a sentence about something else, over the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

from transformers import GenerationConfig

from ..planning.knobs import shown, whole_number

# The smallest whole number that makes sense, and of what.
_WHOLE = {
    "max_new_tokens": (1, "tokens (leave it out for the pipeline's or the model's own)"),
    "min_new_tokens": (0, "tokens, or None"),
    "max_length": (1, "tokens, or None"),
    "min_length": (0, "tokens, or None"),
    "num_beams": (1, "beams (leave it out for the model's own)"),
    "num_return_sequences": (1, "sequences (leave it out for the model's own)"),
    "prefill_chunk_size": (1, "tokens, or None for all at once"),
    "prompt_lookup_num_tokens": (1, "tokens, or None for no drafts"),
    "num_assistant_tokens": (1, "drafted tokens, or None"),
    "max_matching_ngram_size": (1, "tokens, or None"),
    "no_repeat_ngram_size": (0, "tokens, or None"),
    "encoder_no_repeat_ngram_size": (0, "tokens, or None"),
    "top_k": (0, "tokens, or None for all of them"),
}
_NOT_NONE = frozenset(("max_new_tokens", "num_beams", "num_return_sequences"))
_REAL = (
    *("temperature", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff", "max_time"),
    *("repetition_penalty", "encoder_repetition_penalty", "length_penalty", "diversity_penalty", "guidance_scale"),
    "assistant_confidence_threshold",
)
_FLAGS = ("do_sample", "use_cache", "renormalize_logits", "remove_invalid_values", "token_healing", "disable_compile")
_TOKENS = ("eos_token_id", "pad_token_id", "bos_token_id", "forced_bos_token_id", "forced_eos_token_id")
_LISTS_OF_TOKENS = ("suppress_tokens", "begin_suppress_tokens")
# What the pipeline itself says to `generate`.
_OWN = ("return_dict_in_generate", "output_logits")
# What an object has to have, and what it is.
_OBJECTS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "generation_config": (lambda value: isinstance(value, GenerationConfig), "a GenerationConfig"),
    "streamer": (lambda value: hasattr(value, "put") and hasattr(value, "end"), "a streamer, such as TextStreamer"),
    "logits_processor": (lambda value: _is_list_of(value, callable), "a list of logits processors"),
    "stopping_criteria": (lambda value: _is_list_of(value, callable), "a list of stopping criteria"),
    "prefix_allowed_tokens_fn": (callable, "a function of (batch_id, input_ids)"),
    "exponential_decay_length_penalty": (
        lambda value: _is_list_of(value, lambda one: isinstance(one, Real)) and len(value) == 2,
        "a pair: from which token on, and the factor",
    ),
    "assistant_model": (lambda value: hasattr(value, "generate"), "a model that generates"),
    "stop_strings": (
        lambda value: isinstance(value, str) or _is_list_of(value, lambda stop: isinstance(stop, str)),
        "a string, or a list of strings",
    ),
}

GENERATION_FIELDS = frozenset(vars(GenerationConfig()))
"""Names of all parameters that a `GenerationConfig` has."""


def check_generate_parameters(given: Mapping[str, Any]) -> None:
    """Raises `ValueError` or `TypeError` where a parameter of `generate` makes no sense, and names it."""
    for name, value in given.items():
        _check(name, value)
    parameters = {name: value for name, value in given.items() if name in GENERATION_FIELDS}
    try:
        GenerationConfig(**parameters).validate(strict=False)
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"generation parameters {shown(parameters, 200)} cannot be used: {error}") from error


def _check(name: Any, value: Any) -> None:
    if not isinstance(name, str):
        raise TypeError(f"{shown(name)} in generate_kwargs is not the name of a parameter: names are strings")
    if value is None and name not in _NOT_NONE:
        return
    if name in _WHOLE:
        whole_number(name, value, *_WHOLE[name])
    elif name in _REAL and (isinstance(value, bool) or not isinstance(value, Real) or math.isnan(value)):
        raise ValueError(f"{name}={shown(value)} must be a number, or None")
    elif name in _FLAGS and not isinstance(value, bool):
        raise ValueError(f"{name}={shown(value)} must be True, False, or None")
    elif name in _LISTS_OF_TOKENS and not _is_list_of(value, _is_token):
        raise ValueError(f"{name}={shown(value)} must be a list of token ids")
    elif name in _TOKENS and not (_is_token(value) or _is_list_of(value, _is_token)):
        raise ValueError(f"{name}={shown(value)} must be a token id, or a list of them")
    elif name in _OWN:
        raise ValueError(f"{name}={shown(value)} is for calls of generate itself; leave it out here")
    elif name in _OBJECTS and not _OBJECTS[name][0](value):
        raise TypeError(f"{name}={shown(value)} must be {_OBJECTS[name][1]}")


def _is_token(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_list_of(value: Any, is_one: Callable[[Any], bool]) -> bool:
    return isinstance(value, list | tuple) and all(is_one(one) for one in value)


__all__ = ["GENERATION_FIELDS", "check_generate_parameters"]
