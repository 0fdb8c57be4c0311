# SPDX-License-Identifier: Apache-2.0
"""Errors and warnings of the command line: one line each, in its own words, without a traceback."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import typer
from rich.markup import escape

from .console import messages_console
from .options import in_options

EXTRAS_OF: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("datasets", "matplotlib", "wonderwords"), ("evaluate", "train")),
    **dict.fromkeys(("jieba", "lm_eval", "rouge"), ("evaluate",)),
    **dict.fromkeys(("peft", "pydantic", "trl"), ("train",)),
    **dict.fromkeys(("filelock", "prometheus_client", "python_multipart"), ("serve",)),
    **dict.fromkeys(("cachetools", "fastapi", "uvicorn"), ("serve", "web")),
    "accelerate": ("quantize", "train"),
    "bitsandbytes": ("quantize",),
    "openai": ("serve", "evaluate"),
    "pyarrow": ("evaluate", "train"),  # of datasets
    "ray": ("ray",),
}
"""Packages that a command may lack, as they are imported, and the extras of this package that bring them."""
_RULES = {"greater than or equal to": "at least", "less than or equal to": "at most", "valid integer": "whole number"}
"""Of values, in the words of pydantic and in ours."""


@contextmanager
def clear_errors(extra: str | None = None, in_words: Callable[[str], str] = in_options) -> Iterator[None]:
    """What a user can put right is told in one line, on stderr; anything else keeps its traceback.

    Args:
        extra: the command's own, where another brings the package, too.
        in_words: what messages of the library are said in; those of a config keep its own names.

    Raises:
        typer.Exit: with code 2, in place of a ValueError, an OSError, or the lack of a package that can be installed.
    """
    errors = messages_console()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: errors.print(
                f"[yellow]warning: {escape(in_words(str(message)))}[/]"
            )
            yield
    except ImportError as error:
        tell_error(_lacking(error, extra))
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


def _lacking(error: ImportError, extra: str | None) -> str:
    """
    What to install.

    Raises:
        ImportError: a module that is part of no extra, which is a fault of the installation or of this package.
    """
    if not isinstance(error, ModuleNotFoundError) and error.name is None:
        return str(error)  # a library's own words on what it needs
    first: BaseException = error
    while isinstance(first, ModuleNotFoundError) and first.name is None and first.__cause__ is not None:
        first = first.__cause__  # transformers tells of its own module that could not be imported
    package = (first.name or "").partition(".")[0] if isinstance(first, ModuleNotFoundError) else ""
    if package not in EXTRAS_OF:
        raise error
    brings = EXTRAS_OF[package]
    named = extra if extra in brings else brings[0]
    return f"this needs the package {package}: pip install 'transformers-hybridctx[{named}]'"


def _told(error: ValueError | OSError) -> str:
    """An error's message; of the operating system's own ones, what it is about comes first, without a number."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}"
    return str(error)
