# SPDX-License-Identifier: Apache-2.0
"""`hybridctx serve`: an OpenAI-compatible server for documents and questions."""

from __future__ import annotations

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..bundled_checkpoint import BUNDLED_CHECKPOINT
from .console import Stages, messages_console
from .errors import clear_errors
from .listening import listener
from .loading import load_pipeline, load_processor
from .options import Font, Model

if TYPE_CHECKING:
    from ..serving.settings import ServerSettings  # which the command imports when it runs

_MIB = 2**20
_KEY = "HYBRIDCTX_API_KEY"
_THIS_MACHINE = frozenset(("127.0.0.1", "::1", "localhost"))


class Engine(StrEnum):
    """What generates."""

    TRANSFORMERS = "transformers"
    VLLM = "vllm"


# the model of transformers works for one request while others are laid out and planned; vLLM's for as many as it is given
_AT_A_TIME = {Engine.TRANSFORMERS: 4, Engine.VLLM: 64}


def serve(
    model: Model = None,
    engine: Annotated[Engine, typer.Option(help="What generates: this package's own, or vLLM where it is.")] = (
        Engine.TRANSFORMERS
    ),
    engine_option: Annotated[
        list[str] | None,
        typer.Option(help="With vllm: NAME=JSON of its engine arguments; several times for each.", show_default=False),
    ] = None,
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
    max_seconds: Annotated[
        float, typer.Option(min=0.1, max=86_400, help="For one answer; it is cut off then.")
    ] = 300.0,
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, max=4096, help="Requests worked on at a time: 4, with vllm 64.", show_default=False),
    ] = None,
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
    with clear_errors("serve"):
        import python_multipart  # noqa: F401  (fastapi tells of it when the model is loaded, in words of its own)
        import uvicorn

        from ..serving.app import create_app
        from ..serving.connections import bounded_connections
        from ..serving.settings import ServerSettings

        settings = ServerSettings(
            model_name=name or Path(model or "hybridctx-tiny").name,
            api_key=api_key,
            hosts=_THIS_MACHINE if host in _THIS_MACHINE else None,
            draw_over=draw_over,
            max_request_bytes=max_request_mib * _MIB,
            max_new_tokens=max_new_tokens,
            max_seconds=max_seconds,
            concurrency=concurrency or _AT_A_TIME[engine],
            max_waiting=max_waiting,
            memory_bytes=memory_mib * _MIB,
            cache_dir=cache_dir,
            cache_dir_bytes=cache_dir_mib * _MIB,
        )
        listener(port, host).close()  # before anything takes long
        with Stages().stage("load the model"):
            answering = _loaded(engine, model, font, settings, _given(engine, engine_option or []))
        os.environ.pop(_KEY, None)
        if api_key is None and host not in _THIS_MACHINE:
            messages_console().print(f"[yellow]warning: everybody who reaches {host} may ask: give --api-key[/]")
        connections = bounded_connections(settings.max_connections, settings.max_request_seconds)
        app = create_app(answering, settings)
        uvicorn.run(app, host=host, port=port, http=connections, timeout_graceful_shutdown=10)


def _given(engine: Engine, pairs: list[str]) -> dict[str, Any]:
    """Engine arguments, each `NAME=JSON`."""
    if pairs and engine is not Engine.VLLM:
        raise ValueError("--engine-option is for --engine vllm")
    given = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            given[name.replace("-", "_")] = json.loads(value)
        except ValueError as error:
            raise ValueError(f"--engine-option {pair!r:.80} is not NAME=JSON, such as max_num_seqs=8") from error
    return given


def _loaded(
    engine: Engine, model: str | None, font: str | None, settings: ServerSettings, options: dict[str, Any]
) -> Any:
    if engine is Engine.TRANSFORMERS:
        return load_pipeline(model, font)
    from ..serving.vllm_chats import VllmAnswerer

    return VllmAnswerer(model or str(BUNDLED_CHECKPOINT), load_processor(model, font), settings, **options)
