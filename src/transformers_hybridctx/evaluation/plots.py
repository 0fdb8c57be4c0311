# SPDX-License-Identifier: Apache-2.0
"""Pictures of figures: scores against cost, the heat map of needles, the legibility curve."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .records import Record

_HELD = re.compile(", held to [a-z]+")
_MARKERS = {"pages": "s", "truncated": "v", "bm25-only": "^", "tokens": "D", "hybrid": "o"}


def plot_costs(points: Sequence[Mapping[str, Any]], tasks: Sequence[str], file: Path) -> None:
    """
    Scores over prompt tokens, a row of panels for each task and a column for each length. What is held to the document
    has the colour of what is free, hollow and dashed.

    Args:
        points: `length`, `context`, `prompt_tokens`, `scores` and `intervals` {task: ...}; those without tokens are
            left out.
        tasks: the rows.
        file: a PNG or SVG.
    """
    plt = _pyplot()
    shown = [point for point in points if point["prompt_tokens"]]
    lengths = list(dict.fromkeys(point["length"] for point in shown)) or [None]
    labels = list(dict.fromkeys(point["context"] for point in shown))
    size = (4.2 * len(lengths) + 2.5, 3.0 * len(tasks))
    figure, panels = plt.subplots(len(tasks), len(lengths), figsize=size, squeeze=False, sharey=True)
    free = list(dict.fromkeys(_HELD.sub("", label) for label in labels))
    # the ten dark colours first, then the light ones
    colours = {label: plt.cm.tab20(free.index(_HELD.sub("", label)) * 2 % 19) for label in labels}
    for row, task in enumerate(tasks):
        for column, length in enumerate(lengths):
            panel = panels[row][column]
            for label in labels:
                line = sorted(
                    (
                        one
                        for one in shown
                        if one["context"] == label and one["length"] == length and task in one["scores"]
                    ),
                    key=lambda one: one["prompt_tokens"],
                )
                if not line:
                    continue
                scores = [one["scores"][task] for one in line]
                bars = [[max(0.0, one["scores"][task] - one["intervals"][task][0]) for one in line]]
                bars += [[max(0.0, one["intervals"][task][1] - one["scores"][task]) for one in line]]
                marker = _MARKERS.get(label.split(",")[0], "o")
                is_held = _HELD.search(label) is not None
                spent = [one["prompt_tokens"] for one in line]
                panel.errorbar(
                    spent,
                    scores,
                    bars,
                    label=label,
                    marker=marker,
                    color=colours[label],
                    markerfacecolor="white" if is_held else colours[label],
                    linestyle="--" if is_held else "-",
                    capsize=2,
                    linewidth=1,
                    alpha=0.85,
                )
            panel.set(ylim=(-0.04, 1.04), title=f"{task}" + ("" if length is None else f", {length:,} tokens"))
            panel.grid(alpha=0.3)
            if row == len(tasks) - 1:
                panel.set_xlabel("context tokens")
    names: dict[str, Any] = {}
    for panel in panels.flat:
        names |= dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    figure.legend(names.values(), names.keys(), loc="center right", fontsize="x-small")
    figure.tight_layout(rect=(0, 0, 1 - 2.3 / size[0], 1))
    _save(plt, figure, file)


def plot_depths(records: Sequence[Record], file: Path) -> None:
    """The heat map of needles: depth down, length across, a panel for each context; grey is a failure or not measured."""
    plt = _pyplot()
    contexts = list(dict.fromkeys(record.context for record in records))
    lengths = sorted({record.length or 0 for record in records})
    depths = sorted({record.details["depth"] for record in records})
    figure, panels = plt.subplots(1, len(contexts), figsize=(3.2 * len(contexts) + 1, 3.6), squeeze=False)
    colours = plt.cm.RdYlGn.with_extremes(bad="#bbbbbb")
    for panel, context in zip(panels[0], contexts, strict=True):
        cells = np.full((len(depths), len(lengths)), np.nan)
        for row, depth in enumerate(depths):
            for column, length in enumerate(lengths):
                scores = [
                    one.score
                    for one in records
                    if (one.context, one.length, one.details["depth"]) == (context, length, depth)
                    and one.error is None
                ]
                if scores:
                    cells[row, column] = np.mean(scores)
        image = panel.imshow(cells, cmap=colours, vmin=0, vmax=1, aspect="auto")
        panel.set_xticks(range(len(lengths)), [f"{length:,}" for length in lengths], rotation=45)
        panel.set_yticks(range(len(depths)), [f"{depth:.0%}" for depth in depths], fontsize="x-small")
        panel.set(title=context, xlabel="tokens")
        panel.title.set_fontsize("small")
    panels[0][0].set_ylabel("depth of the needle")
    figure.tight_layout()
    figure.colorbar(image, ax=list(panels[0]), label="score")
    _save(plt, figure, file)


def plot_legibility(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Errors over density, a line for each kind of setting, with the bound of 5%."""
    plt = _pyplot()
    figure, panel = plt.subplots(figsize=(6, 4))
    for dpi in dict.fromkeys(row["dpi"] for row in rows):
        line = sorted((row for row in rows if row["dpi"] == dpi), key=lambda row: row["characters_per_visual_token"])
        density, errors = ([row[name] for row in line] for name in ("characters_per_visual_token", "error_rate"))
        panel.plot(density, errors, marker="o", label=f"{dpi:g} dpi")
        for row in line:
            panel.annotate(
                f"{row['font_size']:g} pt", (row["characters_per_visual_token"], row["error_rate"]), fontsize=7
            )
    panel.axhline(0.05, color="black", linewidth=0.8, linestyle="--")
    panel.set(xlabel="characters a visual token", ylabel="character error rate, random text", ylim=(0, None))
    panel.legend()
    figure.tight_layout()
    _save(plt, figure, file)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _save(plt: Any, figure: Any, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    plt.close(figure)


__all__ = ["plot_costs", "plot_depths", "plot_legibility"]
