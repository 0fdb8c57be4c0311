# SPDX-License-Identifier: Apache-2.0
"""The trade-off: its tasks, its points and verdicts, and its command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import refused, run

from transformers_hybridctx.evaluation.suites.chains import TradeOffTasks
from transformers_hybridctx.evaluation.tradeoff import Point, tradeoff_markdown, verdicts_of

PROSE = " ".join(f"Sentence {number} tells of the weather in town." for number in range(600))


def point(context: str, tokens: float | None, score: float, share: float | None = 0.5) -> Point:
    kind = context.split(",")[0]
    return Point(1024, share, context, kind, tokens, {"all": score}, {"all": (0.0, 1.0)}, 0, 10)


def test_a_verdict_holds_the_best_hybrid_against_the_best_parent_that_costs_no_more() -> None:
    points = [
        point("pages, scale 1", 250, 0.6, None),
        point("tokens", 1100, 1.0, None),
        point("truncated", 510, 0.5),
        point("bm25-only", 200, 0.7),
        point("hybrid, bm25", 500, 0.65),
        point("hybrid, anchors", 500, 0.4),
        point("hybrid, bm25, held to quote", 500, 0.9),
        point("hybrid, bm25, blank pages", 500, 0.9),
        point("hybrid, attention", None, 0.0),
    ]
    (verdict,) = verdicts_of(points)
    assert (verdict.hybrid, verdict.parent, verdict.holds) == ("hybrid, bm25", "bm25-only", False)
    figures = {"tasks": [], "points": [], "verdicts": [vars(verdict)]}
    where = "- 1,024 tokens, budget 50%, all"
    assert tradeoff_markdown(figures).splitlines()[-1] == f"{where}: WORSE (hybrid, bm25 65%; bm25-only 70%)"
    points[3] = point("bm25-only", 600, 0.7)  # dearer than the hybrid
    (verdict,) = verdicts_of(points)
    assert (verdict.parent, verdict.holds) == ("pages, scale 1", True)


def test_the_command_runs_on_any_checkpoint_and_goes_on_where_it_was(checkpoint: Path, tmp_path: Path) -> None:
    prose = tmp_path / "prose.txt"
    prose.write_text(PROSE)
    small = ("--lengths", "160", "--budget-share", "1.5", "--examples", 1, "--policy", "bm25", "--max-new-tokens", 2)
    few = ("--task", "second_hop", "--fusion-order", "pages_first", "--grounding", "none", "--out", tmp_path / "out")
    result = run("evaluate", "tradeoff", prose, "--model", checkpoint, *small, *few)
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "out" / "tradeoff.json").read_text())
    labels = [one["context"] for one in figures["points"]]
    assert labels == ["pages, scale 1", "tokens", "truncated", "bm25-only", "hybrid, bm25, pages_first"]
    assert figures["tasks"] == ["second_hop"] and len(figures["verdicts"]) == 2
    assert (tmp_path / "out" / "tradeoff.md").read_text().strip() == tradeoff_markdown(figures)
    assert (tmp_path / "out" / "tradeoff.png").read_bytes().startswith(b"\x89PNG")
    again = run("evaluate", "tradeoff", prose, "--model", checkpoint, *small, *few)
    assert again.exit_code == 0 and again.stdout == result.stdout
    assert "is not a list of numbers" in refused("evaluate", "tradeoff", prose, "--lengths", "long")
    with pytest.raises(ValueError, match="or --prose FILE"):
        TradeOffTasks().samples(None)
