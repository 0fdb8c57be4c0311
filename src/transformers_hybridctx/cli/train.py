# SPDX-License-Identifier: Apache-2.0
"""`hybridctx train`: one YAML file, one training."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Annotated

import typer

from .console import Stages, answers_console, in_seconds, print_rows
from .errors import clear_errors


def train(
    config: Annotated[
        Path, typer.Argument(help="A YAML file; docs/training.md says what stands in it.", exists=True, dir_okay=False)
    ],
    memory: Annotated[
        bool,
        typer.Option("--memory", help="Say what it takes in memory, by arithmetic: no weights, no data are read."),
    ] = False,
    processes: Annotated[int, typer.Option(min=1, help="With --memory: how many processes torchrun will start.")] = 1,
) -> None:
    """Train a checkpoint on long documents; the same command goes on with a training that stopped."""
    stages = Stages()
    with clear_errors("train", in_words=str):  # the config's names, which no options have
        from ..training.config import TrainingConfig

        if memory:
            from ..training.memory import memory_of_training

            settings = TrainingConfig.read(config, with_devices=False)
            found = memory_of_training(settings, processes)
            for given in settings.data:
                try:
                    given.located()
                except FileNotFoundError as error:
                    warnings.warn(f"{error}, where a training would stop", stacklevel=2)
            print_rows(answers_console(), found.rows())
            return
        from ..training.curves import save_curves
        from ..training.run import run_training

        settings = TrainingConfig.read(config)
        with stages.stage("train", has_bars=True):
            report = run_training(settings)
        if int(os.environ.get("RANK", "0")):
            return  # of the processes that torchrun starts, one tells
        picture = save_curves(report, Path(settings.output_dir))
    rows = []
    for source in report.data:
        unused = ", ".join(f"{count:,} {reason}" for reason, count in source["unused"].items())
        made_of = f", of {source['used']:,} rows" if source["used"] != source["records"] else ""
        rows.append(
            (
                "records",
                f"{source['records']:,} of {source['source']['path']}{made_of}"
                + f"; not used: {unused}" * bool(unused),
            )
        )
    rows += [("not used", f"{count:,} for {reason}") for reason, count in report.unused.items()]
    rows.append(("steps", f"{report.steps:,}"))
    for channel, loss in report.loss_after.items():
        before = report.loss_before.get(channel)
        rows.append((f"loss, {channel}", f"{loss:.3f}" + (f", before {before:.3f}" if before is not None else "")))
    if report.perplexity_after is not None:
        before = report.perplexity_before
        rows.append(("perplexity", f"{report.perplexity_after:.2f}" + (f", before {before:.2f}" if before else "")))
    rows += [("written to", settings.output_dir), ("curves", str(picture or "none: pip install matplotlib"))]
    print_rows(answers_console(), [*rows, ("in all", in_seconds(stages.seconds))])
