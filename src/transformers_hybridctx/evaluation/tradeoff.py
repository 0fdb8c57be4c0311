# SPDX-License-Identifier: Apache-2.0
"""Accuracy against what a context costs: pages at each density, tokens, and both, of the same weights and questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .contexts import HYBRID_POLICIES, Context, make_contexts
from .models import load_model
from .runner import environment, run
from .suites.base import Suite

ORDERS = ("pages_first", "tokens_first")
_PARENTS = ("pages", "truncated", "bm25-only")


@dataclass(frozen=True)
class Point:
    """
    One context at one length and budget.

    Attributes:
        length: tokens of the documents.
        share: the budget as a part of them; None where it has none: pages at a scale, the whole text.
        context, kind: the context's label and kind.
        prompt_tokens: mean tokens of the prompts that were answered; None where none was.
        scores, intervals: {task: ...}, and "all".
        failures: samples without an answer; they count as 0.
        n: samples.
    """

    length: int | None
    share: float | None
    context: str
    kind: str
    prompt_tokens: float | None
    scores: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    failures: int
    n: int


def measure_tradeoff(
    suite: Suite,
    model: Any = None,
    *,
    shares: Sequence[float] = (0.25, 0.5),
    scales: Sequence[float] = (1.0,),
    policies: Sequence[str] = HYBRID_POLICIES,
    orders: Sequence[str] = ORDERS,
    groundings: Sequence[str] = ("none",),
    blank_pages: bool = False,
    out: Path | None = None,
    **generation: Any,
) -> dict[str, Any]:
    """
    The experiment that the method is about.

    Args:
        suite: what is asked, at its lengths; [`TradeOffTasks`] has a task whose passage no search by words finds.
        model: what [`run`] takes.
        shares: budgets, as parts of the documents' tokens; truncated text, passages alone and hybrids are measured
            at each.
        scales: densities of pages without text: 1 is the checkpoint's own. A checkpoint whose pages have one scale only
            fails at the others, and its table says so.
        policies, orders: of the hybrids.
        groundings: each context free ("none") or held ("quote", "strings").
        blank_pages: pages and hybrids once more with nothing on their pages.
        out: a folder that keeps the samples: a run that was stopped goes on.

    Returns:
        `points` (fields of [`Point`]), `verdicts` (fields of [`Verdict`]), `tasks`, `environment`.
    """
    asked = load_model(model)
    pages = [one for scale in scales for one in make_contexts(["pages"], (), groundings, (), blank_pages, scale=scale)]
    pages += make_contexts(["tokens"], (), groundings)
    points = _points(suite, asked, pages, None, None if out is None else out / "whole", generation)
    for share in shares:
        kinds = ["truncated", "bm25-only", "hybrid"]
        bounded = make_contexts(kinds, policies, groundings, orders, blank_pages, budget_share=share)
        points += _points(suite, asked, bounded, share, None if out is None else out / f"share-{share:g}", generation)
    return {
        "tasks": list(suite.chosen_tasks),
        "points": [vars(point) for point in points],
        "verdicts": [vars(verdict) for verdict in verdicts_of(points)],
        "environment": environment(asked),
    }


def _points(
    suite: Suite,
    model: Any,
    contexts: Sequence[Context],
    share: float | None,
    out: Path | None,
    generation: dict[str, Any],
) -> list[Point]:
    kinds = {context.label: context.kind for context in contexts}
    points = []
    for row in run(suite, model, contexts, out=out, **generation).rows:
        n = sum(row.counts.values())
        everything = sum(score * row.counts[task] for task, score in row.scores.items()) / n
        scores = {**row.scores, "all": everything}
        kind, cost = kinds[row.context], row.prompt_tokens
        points.append(Point(row.length, share, row.context, kind, cost, scores, dict(row.intervals), row.failures, n))
    return points


@dataclass(frozen=True)
class Verdict:
    """
    The best free hybrid at a length and budget, and the best of its parents that costs no more.

    Attributes:
        length, share, task: where; `task` may be "all".
        hybrid, hybrid_score: the hybrid with the best score.
        parent, parent_score: pages, truncated text or passages alone, whichever is best at no greater cost than the
        hybrid
            (5% more count as the same); None where none is as cheap.
        holds: the hybrid is at least as good.
    """

    length: int | None
    share: float | None
    task: str
    hybrid: str
    hybrid_score: float
    parent: str | None
    parent_score: float | None
    holds: bool


def verdicts_of(points: Sequence[Point]) -> list[Verdict]:
    """Whether the claim holds, at each length, budget and task: a hybrid is at least as good as either parent."""
    free = [one for one in points if "held to" not in one.context and "blank" not in one.context]
    verdicts = []
    for length, share in dict.fromkeys((one.length, one.share) for one in free if one.kind == "hybrid"):
        for task in next(one.scores for one in free if one.length == length):
            here = [one for one in free if one.length == length and one.share in (share, None) and one.prompt_tokens]
            hybrids = [one for one in here if one.kind == "hybrid"]
            if not hybrids:
                continue
            best = max(hybrids, key=lambda one: one.scores.get(task, 0.0))
            bound = 1.05 * (best.prompt_tokens or 0.0)
            parents = [one for one in here if one.kind in _PARENTS and (one.prompt_tokens or 0.0) <= bound]
            parent = max(parents, key=lambda one: one.scores.get(task, 0.0), default=None)
            score = best.scores.get(task, 0.0)
            other = None if parent is None else parent.scores.get(task, 0.0)
            name = None if parent is None else parent.context
            holds = other is None or score >= other
            verdicts.append(Verdict(length, share, task, best.context, score, name, other, holds))
    return verdicts


def tradeoff_markdown(figures: dict[str, Any]) -> str:
    """The table of all points, and the verdicts."""
    tasks = [*figures["tasks"], "all"]
    heading = ["length", "budget", "context", "prompt tokens", *tasks, "95% of all", "failed", "n"]
    lines = [
        "| " + " | ".join(heading) + " |",
        "|" + "|".join("---" if one == "context" else "--:" for one in heading) + "|",
    ]
    for point in figures["points"]:
        low, high = point["intervals"]["all"]
        spent = "" if point["prompt_tokens"] is None else f"{point['prompt_tokens']:,.0f}"
        share = "" if point["share"] is None else f"{point['share']:.0%}"
        scores = " | ".join(f"{point['scores'][task]:.0%}" if task in point["scores"] else "" for task in tasks)
        failed = f"{point['failures']} | {point['n']}"
        lines.append(
            f"| {point['length']:,} | {share} | {point['context']} | {spent} | {scores} | {low:.0%} to {high:.0%} | "
            f"{failed} |"
        )
    lines += ["", "The best hybrid beside the best parent that costs no more:", ""]
    for one in figures["verdicts"]:
        parent, answer = "no parent is as cheap", "better"
        if one["parent"] is not None:
            parent = f"{one['parent']} {one['parent_score']:.0%}"
            gap = one["hybrid_score"] - one["parent_score"]
            answer = "better" if gap > 0 else "equal" if gap == 0 else "WORSE"
        where = f"{one['length']:,} tokens, budget {one['share']:.0%}, {one['task']}"
        lines.append(f"- {where}: {answer} ({one['hybrid']} {one['hybrid_score']:.0%}; {parent})")
    return "\n".join(lines)


__all__ = ["ORDERS", "Point", "Verdict", "measure_tradeoff", "tradeoff_markdown", "verdicts_of"]
