# SPDX-License-Identifier: Apache-2.0
"""`hybridctx evaluate` and `hybridctx heads`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import TALE, run

from transformers_hybridctx.cli import evaluation


def test_evaluate_prints_and_writes_the_scores_of_each_context(
    document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers_hybridctx.evaluation import needle_benchmark

    asked = []

    def benchmark(pipe: Any, haystack: str, *options: Any, **ways: Any) -> list[dict[str, Any]]:
        asked.append((pipe, haystack, *options, ways))
        scores = dict.fromkeys(needle_benchmark.TASKS, 0.25)
        row = {"num_tokens": 64, "budget": 32, "context": "pages only", "exact_match": scores, "prompt_tokens": 30.4}
        return [{**row, "grounding": "quote", "blank_pages": True}]

    monkeypatch.setattr(needle_benchmark, "run_needle_benchmark", benchmark)
    monkeypatch.setattr(evaluation, "load_pipeline", lambda model: f"pipeline of {model}")
    out = tmp_path / "new" / "scores.json"
    result = run(
        "evaluate",
        document,
        "--model",
        "m",
        "--num-tokens",
        64,
        "--examples",
        2,
        "--out",
        out,
        "--grounding",
        "quote",
        "--blank-pages",
    )
    assert result.exit_code == 0, result.output
    ways = {"contexts": list(needle_benchmark.CONTEXTS), "groundings": ["quote"], "blank_pages": True, "num_beams": 1}
    assert asked == [("pipeline of m", TALE, [64], 0.5, 2, 0, ways)]
    assert "quote" in result.stdout and "blank" in result.stdout
    assert result.stdout.count("25%") == len(needle_benchmark.TASKS)
    assert json.loads(out.read_text())[0]["context"] == "pages only"


def test_heads_prints_and_writes_what_each_head_finds(checkpoint: Path, tmp_path: Path) -> None:
    haystack = tmp_path / "haystack.txt"
    haystack.write_text("It was the best of times, it was the worst of times. " * 40)
    out = tmp_path / "heads.json"
    result = run("heads", haystack, "--model", checkpoint, "--num-tokens", 150, "--examples", 2, "--out", out)
    assert result.exit_code == 0, result.output
    found = json.loads(out.read_text())
    assert len(found["heads"]) == 8
    assert all(0 < head["mean_reciprocal_rank"] <= 1 for head in found["heads"])
    assert found["bm25"]["hit_at_4"] == 1
    for name in ("all heads", "bm25", "chance", "layer"):
        assert name in result.stdout
