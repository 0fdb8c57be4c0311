# SPDX-License-Identifier: Apache-2.0
"""Bounds on what one request holds and on how long it may take to come, refused in the words of the server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_TOO_LARGE, _TOO_SLOW = 413, 408


class BodyLimit:
    """
    Middleware: Starlette's bound on bodies, whose own refusal is two words of plain text, and one on their time.

    Args:
        app: what is guarded.
        max_bytes: of one request.
        max_seconds: from its first line to the end of its body.
        refusal: a response from a status and a sentence.
    """

    def __init__(
        self, app: ASGIApp, max_bytes: int, max_seconds: float, refusal: Callable[[int, str], Response]
    ) -> None:
        self._app = RequestBodyLimitMiddleware(app, max_body_size=max_bytes)
        self._refusal, self._max_seconds = refusal, max_seconds
        self._told = {
            _TOO_LARGE: f"This is larger than the {max_bytes:,} bytes that are taken at a time.",
            _TOO_SLOW: f"This did not come within {max_seconds:g} seconds.",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        refused = 0
        is_here = is_late = False
        deadline = asyncio.get_running_loop().time() + self._max_seconds

        async def receive_in_time() -> Message:
            nonlocal is_here, is_late
            if is_here:  # what is received then is that the client hangs up
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                is_late = True
                return {"type": "http.disconnect"}
            is_here = not message.get("more_body", False)
            return message

        async def send_told(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and (is_late or message["status"] == _TOO_LARGE):
                refused = _TOO_SLOW if is_late else _TOO_LARGE
                await self._refusal(refused, self._told[refused])(scope, receive, send)
            elif not refused:
                await send(message)

        await self._app(scope, receive_in_time if scope["type"] == "http" else receive, send_told)


__all__ = ["BodyLimit"]
