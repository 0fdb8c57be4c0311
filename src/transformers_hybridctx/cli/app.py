# SPDX-License-Identifier: Apache-2.0
"""The `hybridctx` command: what people do with documents first, then what they do with checkpoints."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .. import __version__
from .ask import ask, read
from .batch import batch
from .chat import chat
from .checkpoints import convert, export, fill_card, merge_lora
from .console import accept_any_character
from .errors import tell_error, usage_error
from .evaluation import evaluate, heads
from .evaluation_results import legibility
from .plan import plan
from .render import render
from .serve import serve
from .train import train
from .web import web


class _InOneLine(TyperGroup):
    """What is wrong with a command line is told as all other errors are."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command line, and end the process with its exit code unless it is not `standalone_mode`."""
        try:
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except typer.TyperException as error:
            if not standalone_mode:
                raise
            if told := usage_error(error):
                tell_error(told)
            code = error.exit_code
        if not standalone_mode:
            return code
        sys.exit(code or 0)


# Torch and transformers are imported by the commands that need them, so that --help and mistyped names are quick.
app = typer.Typer(
    cls=_InOneLine,
    help="Ask long documents: pages as pictures, exact words as tokens, the evidence with every answer.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Documents": (ask, read, plan, render, chat, web),
    "Many documents": (batch, serve),
    "Checkpoints": (convert, export, merge_lora, fill_card, train, heads, legibility),
}
for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.add_typer(evaluate, name="evaluate", rich_help_panel="Checkpoints")


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"hybridctx {__version__}")
        raise typer.Exit


@app.callback()
def common_options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """What stands before a command's name."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line; the process's own arguments if None."""
    accept_any_character()
    app(None if arguments is None else list(arguments))
