# SPDX-License-Identifier: Apache-2.0
"""How many requests wait, and errors in OpenAI's form."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import CapacityLimiter
from fastapi.exceptions import RequestValidationError
from starlette.responses import JSONResponse


class BusyError(Exception):
    """So many requests wait already that another one has to come again."""


class HungUpError(Exception):
    """A client has gone before its turn came."""


class WorkQueue:
    """
    Turns for work in threads.

    Args:
        concurrency: how many work at a time.
        max_waiting: how many may wait.
    """

    def __init__(self, concurrency: int, max_waiting: int) -> None:
        self._threads = CapacityLimiter(concurrency)
        self._most = concurrency + max_waiting
        self.size = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[CapacityLimiter]:
        """The limiter of the threads to work in.

        Raises:
            BusyError: no room to wait.
        """
        if self.size >= self._most:
            raise BusyError(f"{self.size} requests are being answered or wait; come again in a moment")
        self.size += 1
        try:
            yield self._threads
        finally:
            self.size -= 1


def error_response(status: int, message: str, kind: str = "invalid_request_error", **headers: str) -> JSONResponse:
    """An error in OpenAI's form."""
    body = {"error": {"message": message, "type": kind, "param": None, "code": None}}
    return JSONResponse(body, status, {name.replace("_", "-"): value for name, value in headers.items()})


def what_is_wrong(error: RequestValidationError) -> str:
    """The first fault of a request: the field, the rule, and what it holds in place of that."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:])
    said = first["msg"].removeprefix("Value error, ")  # which pydantic puts before words that are not its own
    if said.startswith("Input should") and isinstance(first["input"], (str, int, float)):
        said += f", not {first['input']!r:.80}"
    return f"{where}: {said}" if where else said


__all__ = ["BusyError", "HungUpError", "WorkQueue", "error_response", "what_is_wrong"]
