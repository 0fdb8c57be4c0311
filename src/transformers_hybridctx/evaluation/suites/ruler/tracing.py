# SPDX-License-Identifier: Apache-2.0
"""RULER's variable tracking: a chain of assignments in noise, and which variables have its value."""

from __future__ import annotations

import string
from collections.abc import Callable
from itertools import pairwise
from random import Random

import numpy as np

from ...token_counts import TokenCounter
from .draws import NOISE, SHORT, Drawn, Form, drawn_to_fit, fitting_size

_HOPS = 4
_EXAMPLE_TOKENS = 500

FORM = Form(
    "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n{context}\nQuestion: "
    "Find all "
    "variables that are assigned the value {query} in the text above.",
    " Answer: According to the chain(s) of variable assignment in the text above, {num_v} variables are assigned "
    "the value "
    "{query}, they are: ",
    "Question: Find all variables",
    30,
)


def draw_tracing(rng: Random, seed: int, count: TokenCounter, length: int) -> Drawn:
    """Prompts without end, each after a solved example of its own."""
    numbers = np.random.RandomState(seed)
    size = fitting_size(lambda one: _prompt(rng, numbers, one, True)[0], count, _EXAMPLE_TOKENS, 0, 5)
    prompt, names = drawn_to_fit(_maker(rng, numbers, True), count, _EXAMPLE_TOKENS, 0, size, 5)
    example = f"{prompt} {' '.join(names)}\n"
    step = 5 if length < SHORT else 10
    reserved = FORM.max_new_tokens + count(example)
    size = fitting_size(lambda one: _prompt(rng, numbers, one, False)[0], count, length, reserved, step)

    def make(one: int) -> tuple[str, list[str]]:
        prompt, names = _prompt(rng, numbers, one, False)
        return f"{_with_new_names(rng, numbers, example)}\n{prompt}", names

    while True:
        yield drawn_to_fit(make, count, length, FORM.max_new_tokens, size, step)


def _maker(rng: Random, numbers: np.random.RandomState, is_example: bool) -> Callable[[int], tuple[str, list[str]]]:
    return lambda size: _prompt(rng, numbers, size, is_example)


def _prompt(rng: Random, numbers: np.random.RandomState, size: int, is_example: bool) -> tuple[str, list[str]]:
    letters = 3 if is_example else 5
    names = [_name(rng, letters) for _ in range(_HOPS + 1)]
    while len(set(names)) < _HOPS + 1:  # a name that came twice stays, as in the original
        names.append(_name(rng, letters))
    names = names[: _HOPS + 1]
    value = "12345" if is_example else str(numbers.randint(10000, 99999))
    chain = [f"VAR {names[0]} = {value}"]
    chain += [f"VAR {later} = VAR {earlier} " for earlier, later in pairwise(names)]
    lines = [NOISE] * size
    for index, place in enumerate(sorted(rng.sample(range(size), len(chain)))):
        lines.insert(place + index, chain[index])
    context = "\n".join(lines).replace(". \n", ".\n")
    return FORM.whole.format(context=context, query=value, num_v=_HOPS + 1), names


def _name(rng: Random, letters: int) -> str:
    return "".join(rng.choices(string.ascii_uppercase, k=letters))


def _with_new_names(rng: Random, numbers: np.random.RandomState, example: str) -> str:
    for name in example.split()[-_HOPS - 1 :]:
        example = example.replace(name, _name(rng, len(name)))
    return example.replace("12345", str(numbers.randint(10000, 99999)))


__all__ = ["FORM", "draw_tracing"]
