# SPDX-License-Identifier: Apache-2.0
"""Who may come in, settled before a byte of a request's body is read."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

_OPEN = ("/health",)


class Door:
    """
    Middleware: requests without the server's key are refused; and where there is none, those that a browser sends for
    another site's page: such a page cannot read what comes back, but it could upload, and ask.

    Args:
        app: what is guarded.
        api_key: what clients have to send as a bearer token; None: nothing.
        hosts: names that clients may call the server by; None: any. A page of another site that has its name point
            here calls it by that.
        refusal: a response from a status and a sentence.
    """

    def __init__(
        self, app: ASGIApp, api_key: str | None, hosts: Collection[str] | None, refusal: Callable[[int, str], Response]
    ) -> None:
        self._app, self._key, self._hosts, self._refusal = app, api_key, hosts, refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        refused = (
            self._refused(Headers(scope=scope)) if scope["type"] == "http" and scope["path"] not in _OPEN else None
        )
        await (self._app if refused is None else self._refusal(*refused))(scope, receive, send)

    def _refused(self, headers: Headers) -> tuple[int, str] | None:
        """(status, why) of a request that may not come in."""
        if self._key is not None:
            given = headers.get("authorization", "")
            if not secrets.compare_digest(given.encode(), f"Bearer {self._key}".encode()):
                return 401, "the API key is missing or wrong: send it as `Authorization: Bearer KEY`"
            return None
        host = headers.get("host", "")
        if self._hosts is not None and _name_in(host) not in self._hosts:
            return 403, f"this server is not called {host!r:.80}; ask it by one of {', '.join(sorted(self._hosts))}"
        if (origin := foreign_origin(headers)) is not None:
            return 403, f"pages of {origin!r:.80} may not ask this server, which has no API key; start it with one"
        return None


def foreign_origin(headers: Headers) -> str | None:
    """The site whose page sends a request, as browsers tell it; None where it is the server's own, or no browser."""
    origin = headers.get("origin")
    return None if origin is None or origin.partition("://")[2] == headers.get("host") else origin


def _name_in(host: str) -> str | None:
    """A `Host` header without its port, in small letters; None where it is malformed."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:  # of brackets that hold no address
        return None


__all__ = ["Door", "foreign_origin"]
