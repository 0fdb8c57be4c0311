# SPDX-License-Identifier: Apache-2.0
"""Errors and warnings of the command line: one line each, in its own words, without a traceback."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.markup import escape

from .console import messages_console
from .options import in_options

_EXTRA_OF = {
    **dict.fromkeys(("wonderwords", "rouge", "jieba", "pyarrow", "matplotlib", "lm_eval"), "evaluate"),
    **dict.fromkeys(("accelerate", "datasets", "peft", "trl"), "train"),
    **dict.fromkeys(("cachetools", "fastapi", "multipart", "openai", "prometheus_client", "uvicorn"), "serve"),
}
"""Packages that a command may lack, and the extra of this package that brings them."""


@contextmanager
def clear_errors(extra: str | None = None, in_words: Callable[[str], str] = in_options) -> Iterator[None]:
    """What a user can put right is told in one line, on stderr; anything else keeps its traceback.

    Args:
        extra: the one that brings what the command needs, where that is not the same for all commands.
        in_words: what messages of the library are said in; those of a config keep its own names.

    Raises:
        typer.Exit: with code 2, in place of a ValueError, an OSError, or the lack of an optional package.
    """
    errors = messages_console()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: errors.print(
                f"[yellow]warning: {escape(in_words(str(message)))}[/]"
            )
            yield
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA_OF:
            raise
        command = f"pip install 'transformers-hybridctx[{extra or _EXTRA_OF[error.name]}]'"
        errors.print(f"[bold red]error: this needs the package {error.name}: {escape(command)}[/]")
        raise typer.Exit(2) from error
    except (ValueError, OSError) as error:
        errors.print(f"[bold red]error: {escape(in_words(' '.join(_told(error).split())))}[/]")
        raise typer.Exit(2) from error


def _told(error: ValueError | OSError) -> str:
    """An error's message; of the operating system's own ones, what it is about comes first, without a number."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}"
    return str(error)
