# SPDX-License-Identifier: Apache-2.0
"""Bounds on connections, which are there before an application hears of a request."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


def bounded_connections(most: int, seconds: float) -> type[asyncio.Protocol]:
    """
    What uvicorn takes as `http`: its own protocol, for so many connections at a time, each of which is closed where no
    request has begun. uvicorn's `limit_concurrency` answers everybody with 503 while so many are open, and closes none.

    Args:
        most: connections that are open at a time; further ones are closed at once.
        seconds: from the connection, or the last answer, until the head of the next request has come.
    """

    class BoundedConnection(H11Protocol):
        _patience: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait_after(None)
            if len(self.connections) > most:
                transport.abort()

        def on_response_complete(self) -> None:
            last = self.cycle  # the next one may begin below
            super().on_response_complete()
            self._wait_after(last)

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._end_wait()

        def _wait_after(self, last: Any) -> None:
            self._end_wait()
            self._patience = self.loop.call_later(seconds, self._close_after, last)

        def _close_after(self, last: Any) -> None:
            if self.cycle is last:
                self.transport.close()

        def _end_wait(self) -> None:
            if self._patience is not None:
                self._patience.cancel()

    return BoundedConnection


__all__ = ["bounded_connections"]
