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
_RULES = {"greater than or equal to": "at least", "less than or equal to": "at most", "valid integer": "whole number"}
"""Of values, in the words of pydantic and in ours."""


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
        tell_error(f"this needs the package {error.name}: {command}")
        raise typer.Exit(2) from error
    except (ValueError, OSError) as error:
        tell_error(in_words(_told(error)))
        raise typer.Exit(2) from error


def tell_error(told: str) -> None:
    """An error on stderr, in one line."""
    messages_console().print(f"[bold red]error: {escape(' '.join(told.split()))}[/]")


def usage_error(error: typer.TyperException) -> str:
    """What is wrong with a command line: of a value, the option and the value first; "" where the help was shown."""
    told = error.format_message()
    if not told:
        return ""
    found = _invalid_value(error)
    if found is not None:
        return found
    context = getattr(error, "ctx", None)
    where = "" if context is None else f" (`{context.command_path} --help` says what there is)"
    return f"{told[0].lower()}{told[1:].rstrip('.')}{where}"


def _invalid_value(error: typer.TyperException) -> str | None:
    """Such as "--budget 0 should be at least 1"; None where it is not about a value.

    The value is in the cause alone: what typer raises names the option and the rule.
    """
    option, cause = getattr(error, "param", None), error.__cause__
    if option is None or not isinstance(cause, ValueError) or not hasattr(cause, "errors"):
        return None
    first, *_ = cause.errors()
    name = max(option.opts, key=len) if option.param_type_name == "option" else option.human_readable_name
    if first["type"] == "value_error":  # of a choice, which names the value itself
        return f"{name} {first['msg'].partition(', ')[2].rstrip('.')}"
    rule = first["msg"].removeprefix("Input ").partition(", ")[0]
    for theirs, ours in _RULES.items():
        rule = rule.replace(theirs, ours)
    return f"{name} {first['input']} {rule}"


def _told(error: ValueError | OSError) -> str:
    """An error's message; of the operating system's own ones, what it is about comes first, without a number."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}"
    return str(error)
