# SPDX-License-Identifier: Apache-2.0
"""A training's log as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .examples import CHANNELS

if TYPE_CHECKING:
    from .run import TrainingReport


def save_curves(report: TrainingReport, folder: Path) -> Path | None:
    """
    Write `curves.png`: loss (or reward), learning rate and speed by step, with losses of held-out records where they were
    measured on the way. None where matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    first = "reward" if any("reward" in entry for entry in report.log) else "loss"
    names = (first, "learning_rate", "tokens_per_second")
    figure = Figure(figsize=(9, 3), layout="constrained")
    for name, axes in zip(names, figure.subplots(1, len(names))):
        points = [(entry["step"], float(entry[name])) for entry in report.log if name in entry]
        axes.plot([step for step, _ in points], [value for _, value in points], color="#1f77b4")
        for channel in CHANNELS if name == "loss" else ():
            held = [(entry["step"], entry[key]) for entry in report.log if (key := f"eval_loss_{channel}") in entry]
            if held:
                axes.plot(*zip(*held), marker=".", label=f"held out, {channel}")
                axes.legend(fontsize="small")
        axes.set(xlabel="step", title=name.replace("_", " "))
        axes.grid(alpha=0.3)
    path = folder / "curves.png"
    figure.savefig(path, dpi=120)
    return path


__all__ = ["save_curves"]
