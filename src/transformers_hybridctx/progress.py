# SPDX-License-Identifier: Apache-2.0
"""How far long work is, told to whoever listens around the call: a command's bar, a page in a browser.

What works says `tell(stage, done, total)`, which costs nothing to speak of where nobody listens. Neither side has to
know the layers between: the listener holds for the calling context, and so for one thread or task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

Stage = Literal[
    "pages typeset", "pages drawn", "pages read", "tokens read", "questions answered", "documents answered"
]
Listener = Callable[[Stage, int, int | None], None]
"""(stage, done, total or None where it is not known)."""

_listener: ContextVar[Listener | None] = ContextVar("hybridctx_progress", default=None)


@contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Let a listener hear what the body's calls tell. What it raises ends the work, which leaves nothing half done."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def is_heard() -> bool:
    """Whether somebody shows what is told, and no other bar is wanted."""
    return _listener.get() is not None


def tell(stage: Stage, done: int, total: int | None = None) -> None:
    """Say that so many of a stage's units are done, of so many in all."""
    if (listener := _listener.get()) is not None:
        listener(stage, done, total)
