# SPDX-License-Identifier: Apache-2.0
"""A bound on what one request holds, and a refusal in the words of the server that refuses."""

from __future__ import annotations

from collections.abc import Callable

from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_TOO_LARGE = 413


class BodyLimit:
    """
    Middleware: Starlette's bound on bodies, whose own refusal is two words of plain text.

    Args:
        app: what is guarded.
        max_bytes: of one request.
        refusal: a response of status 413 from a sentence.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, refusal: Callable[[str], Response]) -> None:
        self._app = RequestBodyLimitMiddleware(app, max_body_size=max_bytes)
        self._max_bytes, self._refusal = max_bytes, refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        is_refused = False

        async def send_told(message: Message) -> None:
            nonlocal is_refused
            if message["type"] == "http.response.start" and message["status"] == _TOO_LARGE:
                is_refused = True
                told = f"This is larger than the {self._max_bytes:,} bytes that are taken at a time."
                await self._refusal(told)(scope, receive, send)
            elif not is_refused:
                await send(message)

        await self._app(scope, receive, send_told)


__all__ = ["BodyLimit"]
