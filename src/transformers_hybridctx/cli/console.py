# SPDX-License-Identifier: Apache-2.0
"""What commands print, on a console of any encoding: rows of labels and values, and the stages of long work."""

from __future__ import annotations

import codecs
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..progress import Stage, heard_by

LABEL_WIDTH = 12  # that of ContextPlan.summary
_WHOLE_LINES = 1000  # columns of a file or pipe, where lines are not folded
_PLAINER = {"─": "-", "–": "-", "—": "-", "…": "...", "“": '"', "”": '"', "‘": "'", "’": "'", "×": "x", "\xa0": " "}


def _plainer(error: UnicodeError) -> tuple[str, int]:
    """Characters that a console's encoding lacks: a plainer one where there is one, else an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    shown = (_PLAINER.get(character) or ascii(character)[1:-1] for character in missing)
    return "".join(shown), error.end


def accept_any_character() -> None:
    """Let stdout and stderr print every character, whatever their encoding (cp1252, ascii, ...)."""
    codecs.register_error("plainer", _plainer)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="plainer")


def answers_console() -> Console:
    """For stdout. Lines are folded at a terminal's width; in a file or pipe they stay whole."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _WHOLE_LINES)


def messages_console() -> Console:
    """For stderr: progress, warnings, errors."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def print_line(text: str) -> None:
    """One line to stdout, as it is."""
    answers_console().print(text, markup=False, soft_wrap=True)


def print_rule(console: Console) -> None:
    console.print("─" * min(console.width, 100), style="dim")


def print_rows(console: Console, rows: Sequence[tuple[str, Any]]) -> None:
    """Labels and values (strings are printed as they are, without markup) in two columns."""
    cells = [(label, Text(value) if isinstance(value, str) else value) for label, value in rows]
    if not console.is_terminal:
        for label, value in cells:
            console.print(f"{label:<{LABEL_WIDTH}} {value.plain}", markup=False, soft_wrap=True)
        return
    table = Table.grid(padding=(0, 1))
    table.add_column(width=LABEL_WIDTH, style="dim")
    table.add_column(overflow="fold")
    for label, value in cells:
        table.add_row(label, value)
    console.print(table)


def rows_of(summary: str) -> list[tuple[str, str]]:
    """The lines of a `ContextPlan.summary` as rows."""
    return [(line[:LABEL_WIDTH].strip(), line[LABEL_WIDTH:].strip()) for line in summary.splitlines()]


def in_seconds(seconds: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in seconds.items())


class Pace:
    """How far work is, in words, with a rate and what is left at that rate."""

    def __init__(self) -> None:
        self._begun: dict[str, tuple[float, int]] = {}
        self._totals: dict[str, int] = {}
        self._around: dict[str, str] = {}  # of work that other work is part of

    def words(self, stage: Stage, done: int, total: int | None) -> str:
        """Such as "pages read: 12 of 29, 1.4 a second, 12 s left"."""
        now = time.monotonic()
        if total is not None:
            self._totals[stage] = total
        known = self._totals.get(stage)
        total = (
            known if known is not None and done <= known else None
        )  # a question's own tokens are beyond the document's
        began, first = self._begun.setdefault(stage, (now, done))
        if done < first or done == 0:  # of the next document
            self._begun[stage] = began, first = now, done
        far = f"{stage}: {done:,}" + ("" if total is None else f" of {total:,}")
        if done > first and total is not None and done < total and now > began:
            rate = (done - first) / (now - began)
            left = max(1, round((total - done) / rate))
            far += f", {rate:,.1f} a second, " + (f"{left} s left" if left < 90 else f"{round(left / 60):,} min left")
        if stage in ("questions answered", "documents answered"):
            self._around[stage] = far
        others = [words for name, words in self._around.items() if name != stage]
        return "; ".join([*others, far])


class Stages:
    """What a command does one after the other, shown on stderr while it lasts if that is a terminal.

    Attributes:
        seconds: of each stage that is done.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._console = messages_console()

    @contextmanager
    def stage(self, name: str, has_bars: bool = False) -> Iterator[Callable[[str], None]]:
        """Time a stage; what the body calls with some words shows them behind the stage's name.

        Args:
            has_bars: the stage draws progress bars of its own; else what it tells of its progress is shown.
        """
        started = time.perf_counter()
        status = self._console.status(f"{name} ...", spinner="line")

        def show(words: str) -> None:
            status.update(Text(f"{name} ... {words}", no_wrap=True, overflow="ellipsis"))

        pace = Pace()
        is_shown = self._console.is_terminal and not has_bars
        told = heard_by(lambda *progress: show(pace.words(*progress))) if is_shown else nullcontext()
        with nullcontext() if has_bars else status, told:
            yield show
        self.seconds[name] = time.perf_counter() - started
