# SPDX-License-Identifier: Apache-2.0
"""Reports of runs, two runs side by side, and the pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from command_line import refused, run

from transformers_hybridctx.evaluation.records import SETTINGS, Record, RecordFile
from transformers_hybridctx.evaluation.report import compare_runs, table_of_run, write_report

SPENT = {"document": 90, "question": 5, "template": 5, "prompt": 50, "new": 3, "visual": 40, "text": 0}


def make_run(folder: Path, scores: dict[str, list[float]]) -> Path:
    """A finished run of needles at two depths; -1 is a failure."""
    settings = {"suite": "niah", "model": "org/some-model", "contexts": {label: {} for label in scores}}
    records = RecordFile(folder, settings)
    for label, values in scores.items():
        for number, score in enumerate(values):
            error = "ContextBudgetError: too small" if score < 0 else None
            details = {"depth": float(number % 2)}
            plan = {} if error else SPENT
            records.add(
                Record(f"s{number}", label, "needle", 1024, max(0.0, score), error=error, plan=plan, details=details)
            )
    return folder


def test_a_report_is_a_page_pictures_and_a_cards_metadata(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", {"pages": [1.0, 0.0, -1, 1.0], "hybrid, bm25": [1.0] * 4})
    files = write_report(folder)
    assert [file.name for file in files] == ["report.md", "table.json", "model_index.yaml", "costs.png", "heatmap.png"]
    page = files[0].read_text()
    assert page.startswith("# niah: some-model\n") and "- pages: 1 times ContextBudgetError: too small" in page
    assert "| 1,024 | pages | needle | 50.0% | 15.0% to 85.0% | 4 |" in page and "- pages; hybrid, bm25" in page
    for name in ("costs.png", "heatmap.png"):
        assert f"]({name})" in page and (folder / name).read_bytes().startswith(b"\x89PNG")
    (index,) = yaml.safe_load(files[2].read_text())["model-index"]
    values = {one["name"]: one["value"] for result in index["results"] for one in result["metrics"]}
    assert index["name"] == "some-model" and values == {"string match, pages": 0.5, "string match, hybrid, bm25": 1.0}
    assert json.loads(files[1].read_text())["rows"][0]["effective_ratio"] == 2.0
    result = run("evaluate", "report", folder)
    assert result.exit_code == 0 and result.stdout.count(str(folder)) == 5


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    assert "holds no records.jsonl" in refused("evaluate", "report", tmp_path)
    folder = make_run(tmp_path / "run", {"pages": [1.0]})
    (folder / SETTINGS).write_text('{"suite": "mine", "contexts": {}}')
    with pytest.raises(ValueError, match="is a run of 'mine', which is none of"):
        table_of_run(folder)


def test_two_runs_are_compared_on_the_samples_that_both_have(tmp_path: Path) -> None:
    first = make_run(tmp_path / "first", {"pages": [0.0] * 12 + [1.0] * 8, "truncated": [0.0] * 20})
    second = make_run(tmp_path / "second", {"pages": [1.0] * 22})
    whole, needle = compare_runs(first, second)
    assert (whole["context_a"], whole["task"], whole["n"], whole["unpaired"]) == ("pages", "all", 20, 2)
    assert whole["difference"] == pytest.approx(0.6) and whole["p_value"] < 0.01
    assert needle["task"] == "needle" and (needle["better"], needle["worse"]) == (12, 0)
    (crossed, _) = compare_runs(first, first, "truncated", "pages")
    assert crossed["difference"] == pytest.approx(0.4)
    result = run("evaluate", "compare", first, second, "--out", tmp_path / "difference.json")
    assert result.exit_code == 0 and "+60.0%" in result.stdout
    assert len(json.loads((tmp_path / "difference.json").read_text())) == 2
    with pytest.raises(ValueError, match="has no context 'tokens'"):
        compare_runs(first, second, "tokens")
    other = make_run(tmp_path / "other", {"hybrid": [1.0]})
    with pytest.raises(ValueError, match="have no context in common: pages, truncated; hybrid"):
        compare_runs(first, other)
