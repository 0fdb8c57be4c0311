# SPDX-License-Identifier: Apache-2.0
"""Warnings of a file's reading, told to whoever opened it and to nobody else.

Python's own `catch_warnings` holds for all threads at once: what is said of one session's file would be told to another.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, get_ident
from typing import Any

_one_at_a_time = Lock()


@contextmanager
def heard_notes() -> Iterator[list[str]]:
    """What this thread is warned about in the body; other threads' warnings go where they went before."""
    notes: list[str] = []
    mine = get_ident()
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)  # of every file, not of the first one alone
        shown = warnings.showwarning

        def show(message: Warning | str, *args: Any, **kwargs: Any) -> None:
            if get_ident() == mine:
                notes.append(str(message))
            else:
                shown(message, *args, **kwargs)

        warnings.showwarning = show
        yield notes


__all__ = ["heard_notes"]
