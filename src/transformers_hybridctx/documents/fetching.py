# SPDX-License-Identifier: Apache-2.0
"""Files from the network, for those who ask for it: nothing else in this package fetches documents."""

from __future__ import annotations

import mimetypes
import re
from pathlib import PurePosixPath
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

_WEB = ("http", "https")
_PIECE = 2**20
_SECONDS = 60.0
_ADDRESS = re.compile(r"https?://\S+", re.IGNORECASE)


def is_web_address(document: Any) -> bool:
    """Whether a document is given by an address that `fetch` takes."""
    return isinstance(document, str) and bool(_ADDRESS.fullmatch(document))


def fetch(address: str, most: int) -> tuple[bytes, str]:
    """
    (the bytes of a file, its name) from an http or https address; redirections to other protocols are not followed.

    Args:
        address: of the file.
        most: largest file that is taken, in bytes.

    Raises:
        ValueError: another kind of address, a larger file, or an address that answers with an error.
    """
    if not is_web_address(address):
        raise ValueError(f"{address} is no http or https address")
    try:
        request = Request(address, headers={"User-Agent": "transformers-hybridctx"})
        with build_opener(_WebOnly).open(request, timeout=_SECONDS) as answer:
            data = bytearray()
            while piece := answer.read(_PIECE):
                data += piece
                if len(data) > most:
                    raise ValueError(f"{address} has more than the {most:,} bytes that are read at once")
            return bytes(data), _name_of(answer.geturl(), answer.headers)
    except HTTPError as error:
        raise ValueError(f"{address} cannot be fetched: {error.code} {error.reason}") from error
    except (URLError, OSError) as error:
        raise ValueError(f"{address} cannot be fetched: {getattr(error, 'reason', error)}") from error


class _WebOnly(HTTPRedirectHandler):
    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        if urlsplit(newurl).scheme.lower() not in _WEB:
            raise URLError(f"it redirects to {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _name_of(address: str, headers: Any) -> str:
    """What the file is called, with a suffix that says its kind."""
    name = headers.get_filename() or PurePosixPath(unquote(urlsplit(address).path)).name or "page"
    name = PurePosixPath(name.replace("\\", "/")).name
    kind = headers.get_content_type()
    guessed = mimetypes.guess_extension(kind) if kind not in ("application/octet-stream", "text/plain") else None
    return name if PurePosixPath(name).suffix or guessed is None else name + guessed


__all__ = ["fetch", "is_web_address"]
