# SPDX-License-Identifier: Apache-2.0
"""What a finished run says: a page with its table, pictures, the model card's metadata; and two runs side by side."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.repocard_data import eval_results_to_model_index

from ..conversion.model_cards import evaluation_results
from .intervals import PairedDifference, paired_difference
from .plots import plot_costs, plot_depths
from .records import Record, read_records, read_settings
from .suites.registry import SUITES
from .tables import Table, table_of

TABLE = "table.json"


def table_of_run(folder: Path) -> Table:
    """
    The table of a run's folder, from its records.

    Raises:
        ValueError: no run is there, or one of a suite that is not known here.
    """
    records, settings = read_records(folder), read_settings(folder)
    if settings.get("suite") not in SUITES:
        raise ValueError(f"{folder} is a run of {settings.get('suite')!r}, which is none of {', '.join(SUITES)}")
    file = folder / TABLE
    environment = json.loads(file.read_text(encoding="utf-8"))["environment"] if file.is_file() else {}
    return table_of(SUITES[settings["suite"]](), records, list(settings["contexts"]), environment)


def write_report(folder: Path) -> list[Path]:
    """
    Write what a run says beside its records.

    Returns:
        `report.md`, `table.json` (what `hybridctx fill-card` takes), `model_index.yaml` (a model card's metadata),
        `costs.png`, and
        `heatmap.png` where needles stand at depths.
    """
    table, records, settings = table_of_run(folder), read_records(folder), read_settings(folder)
    written = [folder / name for name in ("report.md", TABLE, "model_index.yaml", "costs.png")]
    figures = table.to_dict()
    written[0].write_text(_page(table, records, settings), encoding="utf-8")
    written[1].write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    index = eval_results_to_model_index(Path(settings["model"]).name, evaluation_results(figures))
    written[2].write_text(yaml.safe_dump({"model-index": index}, sort_keys=False), encoding="utf-8")
    plot_costs(figures["rows"], table.tasks, written[3])
    if any("depth" in record.details for record in records):
        written.append(folder / "heatmap.png")
        plot_depths(records, written[-1])
    return written


def _page(table: Table, records: Sequence[Record], settings: dict[str, Any]) -> str:
    lines = [f"# {table.suite}: {Path(settings['model']).name}", "", f"Scores are {table.metric}, in percent.", ""]
    lines += [table.to_markdown(), "", "![scores against cost](costs.png)", ""]
    if any("depth" in record.details for record in records):
        lines += ["![needles by depth and length](heatmap.png)", ""]
    lines += ["## Intervals", "", "| length | context | task | score | 95% | n |", "|--:|---|---|--:|--:|--:|"]
    for row in table.rows:
        for task, score in row.scores.items():
            low, high = row.intervals[task]
            length = "" if row.length is None else f"{row.length:,}"
            lines.append(
                f"| {length} | {row.context} | {task} | {score:.1%} | {low:.1%} to {high:.1%} | {row.counts[task]} |"
            )
    lines += [
        "",
        "## Cost",
        "",
        "A prompt is all that the model is given: pages, copied text, question, template. `ratio` is what it",
    ]
    lines += [
        "would be as text for each token of it. The first token's seconds begin with the plan. Equal cost, to 5%:",
        "",
    ]
    lines += [f"- {'; '.join(group)}" for group in table.same_cost()] or ["- no two contexts"]
    errors = Counter((record.context, str(record.error)) for record in records if record.error is not None)
    lines += ["", "## Failures", "", "They count as 0.", ""]
    lines += [f"- {context}: {count} times {error}" for (context, error), count in errors.most_common()] or ["- none"]
    lines += [
        "",
        "## Run",
        "",
        "```json",
        json.dumps({**settings, "environment": table.environment}, indent=1),
        "```",
        "",
    ]
    return "\n".join(lines)


def compare_runs(
    first: Path, second: Path, first_context: str | None = None, second_context: str | None = None
) -> list[dict[str, Any]]:
    """
    Test two runs on the samples that both have, pair by pair.

    Args:
        first, second: folders; one and the same where two of its contexts are compared.
        first_context, second_context: labels; every context that both have, if not given.

    Returns:
        A row for each pair of contexts and task ("all" included): `context_a`, `context_b`, `task`, the fields of
        [`PairedDifference`], its `difference`, and `unpaired`: samples that only one of them has.

    Raises:
        ValueError: no context or no sample in common.
    """
    scores = [_scores_of(folder) for folder in (first, second)]
    pairs = [(name, name) for name in scores[0] if name in scores[1]]
    if first_context is not None or second_context is not None:
        pairs = [(first_context or second_context or "", second_context or first_context or "")]
    if not pairs:
        raise ValueError(
            f"{first} and {second} have no context in common: {', '.join(scores[0])}; {', '.join(scores[1])}; name "
            f"one of each"
        )
    rows = []
    for name_a, name_b in pairs:
        for place, name, folder in ((0, name_a, first), (1, name_b, second)):
            if name not in scores[place]:
                raise ValueError(f"{folder} has no context {name!r}; it has {', '.join(map(repr, scores[place]))}")
        a, b = scores[0][name_a], scores[1][name_b]
        both = [key for key in a if key in b]
        if not both:
            raise ValueError(f"{first} and {second} have no sample in common: they asked other questions")
        for task in ["all", *sorted({task for _, task in both})]:
            keys = [key for key in both if task in ("all", key[1])]
            found = paired_difference([a[key] for key in keys], [b[key] for key in keys])
            left = sum(task in ("all", key[1]) for key in a.keys() ^ b.keys())
            rows.append(_row(name_a, name_b, task, found, left))
    return rows


def _row(name_a: str, name_b: str, task: str, found: PairedDifference, unpaired: int) -> dict[str, Any]:
    names = {"context_a": name_a, "context_b": name_b, "task": task}
    return {**names, **vars(found), "difference": found.difference, "unpaired": unpaired}


def _scores_of(folder: Path) -> dict[str, dict[tuple[str, str], float]]:
    """{context: {(sample, task): score}}."""
    found: dict[str, dict[tuple[str, str], float]] = {}
    for record in read_records(folder):
        found.setdefault(record.context, {})[record.sample, record.task] = record.score
    return found


__all__ = ["compare_runs", "table_of_run", "write_report"]
