# SPDX-License-Identifier: Apache-2.0
"""`hybridctx evaluate` and `hybridctx heads`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import refused, run


@pytest.fixture(scope="module")
def haystack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("prose") / "haystack.txt"
    file.write_text("It was the best of times, it was the worst of times. " * 40)
    return file


SMALL = ("--num-tokens", 120, "--examples", 1, "--task", "single_number", "--max-new-tokens", 2, "--budget-share", 2)


def test_a_text_file_is_a_haystack_and_the_table_goes_where_it_is_asked_for(
    checkpoint: Path, haystack: Path, tmp_path: Path
) -> None:
    contexts = ("--context", "pages", "--context", "hybrid", "--policy", "bm25", "--blank-pages")
    common = (haystack, "--model", checkpoint, *SMALL, *contexts)
    alone = run("evaluate", *common, "--out", tmp_path / "new" / "table.json")
    assert alone.exit_code == 0, alone.output
    figures = json.loads((tmp_path / "new" / "table.json").read_text())
    labels = ["pages", "pages, blank pages", "hybrid, bm25", "hybrid, bm25, blank pages"]
    assert [row["context"] for row in figures["rows"]] == labels
    for label in labels:
        assert label in alone.stdout
    named = run("evaluate", "needles", "--prose", *common, "--out", tmp_path / "run")
    assert named.exit_code == 0, named.output
    assert json.loads((tmp_path / "run" / "table.json").read_text())["tasks"] == ["single_number"]
    assert len((tmp_path / "run" / "records.jsonl").read_text().splitlines()) == 4
    assert (tmp_path / "run" / "table.md").read_text().startswith("| length | budget | context | single_number |")


def test_evaluate_says_what_is_wrong_in_one_line(checkpoint: Path, haystack: Path, tmp_path: Path) -> None:
    assert "unknown suite 'rular'" in refused("evaluate", "rular")
    assert "--lengths 4k is not a list of numbers" in refused("evaluate", haystack, "--lengths", "4k")
    assert "context 'page' is not one of" in refused("evaluate", haystack, "--context", "page")
    assert "needles has no task 'single'" in refused("evaluate", haystack, "--task", "single")
    assert "has no data" in refused("evaluate", haystack, "--data", tmp_path)
    assert "give --prose FILE" in refused("evaluate", "ruler", "--model", checkpoint, "--task", "niah_single_2")


def test_heads_prints_and_writes_what_each_head_finds(checkpoint: Path, haystack: Path, tmp_path: Path) -> None:
    out = tmp_path / "heads.json"
    result = run("heads", haystack, "--model", checkpoint, "--num-tokens", 150, "--examples", 2, "--out", out)
    assert result.exit_code == 0, result.output
    found = json.loads(out.read_text())
    assert len(found["heads"]) == 8
    assert all(0 < head["mean_reciprocal_rank"] <= 1 for head in found["heads"])
    assert found["bm25"]["hit_at_4"] == 1
    for name in ("all heads", "bm25", "chance", "layer"):
        assert name in result.stdout
