# SPDX-License-Identifier: Apache-2.0
"""Which print a checkpoint can read: random text drawn in several sizes and resolutions, read back, errors counted.

Random text has no words to guess from: on prose, a language model hides what it cannot read
(FocusVTC, https://arxiv.org/abs/2609.36651, finds 2% errors on news and 65% on random text at 5 pt).
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from random import Random
from statistics import fmean
from typing import Any

from rapidfuzz.distance import Levenshtein
from transformers.utils import logging

from .intervals import interval_95
from .runner import environment

ERRORS = 0.05
"""The rate up to which a setting counts as legible."""
_LETTERS = string.ascii_letters + string.digits
QUESTION = "Write down the text of the page, character by character."


def measure_legibility(
    pipe: Any,
    font_sizes: Sequence[float],
    dpis: Sequence[float],
    examples: int = 5,
    characters: int = 200,
    seed: int = 0,
    question: str = QUESTION,
    **generation: Any,
) -> dict[str, Any]:
    """
    Errors of reading random text at each size and resolution.

    Args:
        pipe: a `LongDocQAPipeline`; stays as it is. Lines are as high as its own, in proportion to the font's size.
        font_sizes: in points; empty: the checkpoint's own.
        dpis: pixels per 72 points; empty: the checkpoint's own.
        examples: texts for each setting, the same for all.
        characters: of a text, blanks included.
        question: what asks for the text, in words that the checkpoint knows.

    Returns:
        `rows`: `font_size`, `dpi`, `characters_per_visual_token`, `error_rate` (Levenshtein's distance a character,
        1 at the
        most), its `interval`, `failures` (they count as 1); `best`: the densest row that is legible, or None;
        `environment`.

    Raises:
        ValueError: sizes that pages cannot be drawn in.
    """
    config = pipe.processor.render_config
    if config.line_breaking == "cells" and (font_sizes or dpis):
        raise ValueError(
            "this checkpoint's pages are cut into cells of visual tokens, which one size alone fits: leave "
            "--font-size and "
            "--dpi out"
        )
    texts = [random_text(Random(f"{seed} {number}"), characters) for number in range(examples)]
    generation = {"max_new_tokens": 2 * characters, **generation}
    settings = [(size, dpi) for size in font_sizes or (config.font_size,) for dpi in dpis or (config.dpi,)]
    rows = []
    for size, dpi in logging.tqdm(settings, desc="legibility", unit="setting"):
        line_height = config.line_height * size / config.font_size
        drawn = _drawn_as(pipe, replace(config, font_size=size, dpi=dpi, line_height=line_height))
        errors, densities, failures = [], [], 0
        for text in texts:
            try:
                result = drawn(
                    question=question, text=text, text_policy="none", budget={"visual_share": 1.0}, **generation
                )
            except (ValueError, RuntimeError):
                failures += 1
                errors.append(1.0)
                continue
            densities.append(result["plan"].characters_per_visual_token)
            errors.append(min(1.0, Levenshtein.distance(result["answer"], text) / len(text)))
        rows.append(
            {
                "font_size": size,
                "dpi": dpi,
                "characters_per_visual_token": fmean(densities) if densities else 0.0,
                "error_rate": fmean(errors),
                "interval": interval_95(errors),
                "failures": failures,
            }
        )
    legible = [row for row in rows if row["error_rate"] <= ERRORS]
    best = max(legible, key=lambda row: row["characters_per_visual_token"], default=None)
    return {
        "rows": rows,
        "best": best,
        "examples": examples,
        "characters": characters,
        "environment": environment(pipe),
    }


def random_text(rng: Random, characters: int) -> str:
    """Letters and digits in words of 3 to 9, exactly so many characters."""
    words = ""
    while len(words) < characters:
        words += "".join(rng.choices(_LETTERS, k=rng.randint(3, 9))) + " "
    words = words[:characters]
    return words if words[-1] != " " else words[:-1] + rng.choice(_LETTERS)


def _drawn_as(pipe: Any, config: Any) -> Any:
    """The same model with other pages."""
    other, processor = copy(pipe), copy(pipe.processor)
    processor.render_config = config
    other.processor = processor
    return other


__all__ = ["ERRORS", "QUESTION", "measure_legibility", "random_text"]
