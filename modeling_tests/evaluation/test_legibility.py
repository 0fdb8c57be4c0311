# SPDX-License-Identifier: Apache-2.0
"""Legibility: random text read back, in several sizes."""

from __future__ import annotations

import json
from copy import copy
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import run

from transformers_hybridctx import LongDocQAPipeline
from transformers_hybridctx.evaluation.legibility import measure_legibility, random_text


class Reader:
    """Reads print of 8 points and more, and half of what is smaller; nothing at all below 5."""

    def __init__(self, pipe: LongDocQAPipeline) -> None:
        self.processor, self.device = copy(pipe.processor), pipe.device

    def __call__(self, text: str, **options: Any) -> dict[str, Any]:
        size = self.processor.render_config.font_size
        if size < 5:
            raise ValueError("out of memory")
        plan = SimpleNamespace(characters_per_visual_token=100 / size)
        return {"answer": text if size >= 8 else text[: len(text) // 2], "plan": plan}


def test_the_densest_print_with_few_errors_is_the_best(pipe: LongDocQAPipeline) -> None:
    reader = Reader(pipe)
    found = measure_legibility(reader, (4, 6, 8, 10), (72,), examples=2, characters=100)
    rows = {row["font_size"]: row for row in found["rows"]}
    assert [rows[size]["error_rate"] for size in (4, 6, 8, 10)] == [1.0, 0.5, 0.0, 0.0]
    assert rows[4]["failures"] == 2 and found["best"]["font_size"] == 8
    assert reader.processor.render_config == pipe.processor.render_config
    assert measure_legibility(reader, (6,), (), examples=1, characters=100)["best"] is None


def test_random_text_has_as_many_characters_as_asked_for() -> None:
    for characters in (20, 57, 200):
        text = random_text(Random(characters), characters)
        assert len(text) == characters == len(text.strip()) and text == random_text(Random(characters), characters)


def test_the_command_prints_the_errors_and_draws_the_curve(checkpoint: Path, tmp_path: Path) -> None:
    sizes = ("--font-size", "7,9", "--dpi", "72", "--examples", 1, "--characters", 20)
    result = run("legibility", "--model", checkpoint, *sizes, "--out", tmp_path / "print.json")
    assert result.exit_code == 0, result.output
    assert [row["font_size"] for row in json.loads((tmp_path / "print.json").read_text())["rows"]] == [7, 9]
    assert (tmp_path / "print.png").read_bytes().startswith(b"\x89PNG")
    assert "characters a visual token at 5% errors: none" in result.stdout


@pytest.mark.parametrize("option", ["--font-size", "--dpi"])
def test_sizes_are_numbers(option: str) -> None:
    result = run("legibility", option, "small")
    assert result.exit_code == 2 and f"{option} small is not a list of numbers" in result.stderr
