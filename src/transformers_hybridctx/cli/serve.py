# SPDX-License-Identifier: Apache-2.0
"""`hybridctx serve`: an OpenAI-compatible server for documents and questions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from .console import Stages, messages_console
from .errors import clear_errors
from .loading import load_pipeline
from .options import Font, Model

_MIB = 2**20
_KEY = "HYBRIDCTX_API_KEY"


def serve(
    model: Model = None,
    host: Annotated[
        str, typer.Option(help="The address to listen on; 0.0.0.0 for all of this machine's.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar=_KEY, help="What clients have to send; better given in the environment.", show_default=False
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="What clients call the model; the checkpoint's name if not given.", show_default=False),
    ] = None,
    draw_over: Annotated[
        int, typer.Option(min=0, help="A text of a message with more tokens than this is a document.")
    ] = 1000,
    max_request_mib: Annotated[int, typer.Option(min=1, help="Largest request, uploads included.")] = 64,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 1024,
    max_seconds: Annotated[float, typer.Option(min=0.1, help="For one answer; it is cut off then.")] = 300.0,
    max_waiting: Annotated[int, typer.Option(min=0, help="Requests that may wait; others get status 429.")] = 64,
    memory_mib: Annotated[int, typer.Option(min=0, help="Of documents' readings, in memory.")] = 1024,
    cache_dir: Annotated[
        Path | None,
        typer.Option(help="Keep readings here, too. The files hold the documents' texts.", show_default=False),
    ] = None,
    cache_dir_mib: Annotated[int, typer.Option(min=0, help="Of the readings kept there.")] = 16_384,
    font: Font = None,
) -> None:
    """Serve questions about documents in OpenAI's protocol; each document is read once for all who ask about it."""
    with clear_errors():
        import uvicorn

        from ..serving.app import create_app
        from ..serving.settings import ServerSettings

        settings = ServerSettings(
            model_name=name or Path(model or "hybridctx-tiny").name,
            api_key=api_key,
            draw_over=draw_over,
            max_request_bytes=max_request_mib * _MIB,
            max_new_tokens=max_new_tokens,
            max_seconds=max_seconds,
            max_waiting=max_waiting,
            memory_bytes=memory_mib * _MIB,
            cache_dir=cache_dir,
            cache_dir_bytes=cache_dir_mib * _MIB,
        )
        with Stages().stage("load the model"):
            pipe = load_pipeline(model, font)
        os.environ.pop(_KEY, None)
        if api_key is None and host not in ("127.0.0.1", "::1", "localhost"):
            messages_console().print(f"[yellow]warning: everybody who reaches {host} may ask: give --api-key[/]")
        uvicorn.run(create_app(pipe, settings), host=host, port=port, timeout_graceful_shutdown=10)
