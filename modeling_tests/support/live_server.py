# SPDX-License-Identifier: Apache-2.0
"""A server on a free port of this machine, in a thread."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from transformers_hybridctx.serving.app import create_app
from transformers_hybridctx.serving.connections import bounded_connections
from transformers_hybridctx.serving.settings import ServerSettings


@contextmanager
def served(pipe: Any, **settings: Any) -> Iterator[str]:
    """The address of the OpenAI-compatible server, while it runs."""
    given = ServerSettings(**{"model_name": "tiny", "draw_over": 40} | settings)
    connections = bounded_connections(given.max_connections, given.max_request_seconds)
    with running(create_app(pipe, given), connections) as address:
        yield address


@contextmanager
def running(app: Any, http: Any = "auto") -> Iterator[str]:
    """The address of an ASGI application, while it runs."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, http=http, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
