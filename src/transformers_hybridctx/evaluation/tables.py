# SPDX-License-Identifier: Apache-2.0
"""Records as tables: a row for each length and context, a column for each task, and the cost beside every score."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from .intervals import interval_95
from .records import Record
from .suites.base import Suite


@dataclass(frozen=True)
class Row:
    """
    One context at one length.

    Attributes:
        length: nominal tokens of the context; None where the suite has no nominal lengths.
        context: its label.
        scores: {task: mean of 0 to 1}.
        intervals: {task: (low, high)}, of 95%; and of all samples together, under "all".
        counts: {task: samples}.
        summary: the figures that are quoted of the suite.
        failures: samples without an answer; they count as 0.
        first_failure: what the first of them says.
        budget: longest prompt allowed; None: the checkpoint's own bound, or as each sample has it.
        prompt_tokens, new_tokens: means over the samples that were answered.
        latent_tokens: the same of the prompts' latents, labels included; 0 where there are none.
        effective_ratio: text tokens for each prompt token, over all of these.
        seconds: means of "first token", of the same without drawing and the vision tower ("without vision"), of "all".
        peak_memory: bytes at the most.
    """

    length: int | None
    context: str
    scores: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    counts: dict[str, int]
    summary: dict[str, float]
    failures: int
    first_failure: str | None
    budget: int | None
    prompt_tokens: float | None
    new_tokens: float | None
    effective_ratio: float | None
    seconds: dict[str, float]
    peak_memory: int | None
    latent_tokens: float = 0.0

    @property
    def is_unmeasured(self) -> bool:
        """Whether no sample has an answer: its scores of 0 say nothing of the model."""
        return self.failures == sum(self.counts.values())


@dataclass(frozen=True)
class Table:
    """The figures of a run; `rows` as the run has them, `environment` what they were measured with."""

    suite: str
    metric: str
    tasks: tuple[str, ...]
    rows: tuple[Row, ...]
    environment: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "suite": self.suite,
            "metric": self.metric,
            "tasks": list(self.tasks),
            "rows": [vars(row) for row in self.rows],
            "environment": self.environment,
        }

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Heading and rows in words."""
        quoted = list(dict.fromkeys(name for row in self.rows for name in row.summary))
        heading = ["length", "budget", "context", *self.tasks, *quoted, "95% of all", "n", "failed"]
        has_latents = any(row.latent_tokens for row in self.rows)
        heading += [
            "prompt tokens",
            *(["of them latent"] if has_latents else []),
            "ratio",
            "first token, s",
            "without vision, s",
            "peak memory, MB",
        ]
        return heading, [self._cells_of(row, quoted, has_latents) for row in self.rows]

    def _cells_of(self, row: Row, quoted: Sequence[str], has_latents: bool) -> list[str]:
        low, high = row.intervals["all"]

        def percent(scores: dict[str, float], name: str) -> str:
            return "" if name not in scores else "–" if row.is_unmeasured else f"{scores[name]:.1%}"

        return [
            _number(row.length),
            _number(row.budget),
            row.context,
            *(percent(row.scores, task) for task in self.tasks),
            *(percent(row.summary, name) for name in quoted),
            "–" if row.is_unmeasured else f"{low:.0%} to {high:.0%}",
            _number(sum(row.counts.values())),
            _number(row.failures),
            _number(row.prompt_tokens),
            *([_number(row.latent_tokens)] if has_latents else []),
            "" if row.effective_ratio is None else f"{row.effective_ratio:.2f}",
            *(f"{row.seconds[name]:.2f}" if name in row.seconds else "" for name in ("first token", "without vision")),
            _number(None if row.peak_memory is None else row.peak_memory / 1e6),
        ]

    def to_markdown(self) -> str:
        heading, rows = self.cells()
        ruler = ["---" if name == "context" else "--:" for name in heading]
        lines = ["| " + " | ".join(cells) + " |" for cells in (heading, ruler, *rows)]
        return "\n".join(lines)

    def same_cost(self, within: float = 0.05) -> list[tuple[str, ...]]:
        """Contexts of one length whose prompts are equally long, but for this share: their scores may be compared."""
        groups = []
        for length in dict.fromkeys(row.length for row in self.rows):
            left = sorted(
                (row for row in self.rows if row.length == length and row.prompt_tokens),
                key=lambda row: row.prompt_tokens or 0.0,
            )
            while left:
                first = left[0].prompt_tokens or 1.0
                same = [row for row in left if (row.prompt_tokens or 0) <= first * (1 + within)]
                left = left[len(same) :]
                if len(same) > 1:
                    groups.append(tuple(row.context for row in same))
        return groups


def table_of(suite: Suite, records: Iterable[Record], contexts: Sequence[str], environment: dict[str, Any]) -> Table:
    """The table of a run's records, which it does not change."""
    records = list(records)
    tasks = [task for task in suite.chosen_tasks if any(record.task == task for record in records)]
    tasks += sorted({record.task for record in records} - {*tasks})
    rows = []
    for length in sorted({record.length for record in records}, key=lambda one: -1 if one is None else one):
        for context in contexts:
            found = [one for one in records if one.length == length and one.context == context]
            if found:
                rows.append(_row_of(suite, found, tasks))
    return Table(suite.name, suite.metric, tuple(tasks), tuple(rows), environment)


def _row_of(suite: Suite, records: Sequence[Record], tasks: Sequence[str]) -> Row:
    scores = {task: [one.score for one in records if one.task == task] for task in tasks}
    scores = {task: values for task, values in scores.items() if values}
    means = {task: fmean(values) for task, values in scores.items()}
    answered = [one for one in records if one.error is None]
    budgets = {one.budget for one in (answered or records)}
    spent = sum(one.plan["prompt"] for one in answered)
    as_text = sum(one.plan["document"] + one.plan["question"] + one.plan["template"] for one in answered)
    return Row(
        length=records[0].length,
        context=records[0].context,
        scores=means,
        intervals={task: interval_95(values) for task, values in scores.items()}
        | {"all": interval_95([one.score for one in records])},
        counts={task: len(values) for task, values in scores.items()},
        summary=suite.summary(means) | suite.figures(records),
        failures=len(records) - len(answered),
        first_failure=next((one.error for one in records if one.error is not None), None),
        budget=budgets.pop() if len(budgets) == 1 else None,
        prompt_tokens=spent / len(answered) if answered else None,
        new_tokens=fmean(one.plan["new"] for one in answered) if answered else None,
        effective_ratio=as_text / spent if spent else None,
        seconds=_seconds_of(answered),
        peak_memory=max((one.peak_memory for one in answered if one.peak_memory is not None), default=None),
        # records that were written before there were latents say nothing of them
        latent_tokens=fmean(one.plan.get("latent", 0) for one in answered) if answered else 0.0,
    )


def _seconds_of(records: Sequence[Record]) -> dict[str, float]:
    if not records:
        return {}
    means = {
        "all": fmean(sum(value for name, value in one.seconds.items() if name != "first token") for one in records)
    }
    timed = [one.seconds for one in records if "first token" in one.seconds]
    if timed:
        means["first token"] = fmean(one["first token"] for one in timed)
        means["without vision"] = fmean(
            max(0.0, one["first token"] - one.get("vision", 0.0) - one.get("draw", 0.0)) for one in timed
        )
    return means


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


__all__ = ["Row", "Table", "table_of"]
