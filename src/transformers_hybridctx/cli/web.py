# SPDX-License-Identifier: Apache-2.0
"""`hybridctx web`: a page in the browser, on this machine and for whoever sits at it."""

from __future__ import annotations

import warnings
import webbrowser
from pathlib import Path
from typing import Annotated, Any

import typer

from .console import Stages, print_line
from .errors import clear_errors
from .listening import listener
from .loading import check_options_apply, load_pipeline, read_checked_files
from .options import (
    Encoding,
    Fetch,
    FileOptions,
    Font,
    MaxNewTokens,
    Model,
    Ocr,
    PageLayout,
    Pages,
    Password,
    given,
)

_MIB = 2**20


def web(
    document: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DOCUMENT",
            help="Files that are open when the page comes, each a document of its own.",
            show_default=False,
        ),
    ] = None,
    model: Model = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of 127.0.0.1; 0 takes a free one.")] = 8765,
    browser: Annotated[bool, typer.Option(help="Open the page in this machine's browser.")] = True,
    history: Annotated[
        bool | None,
        typer.Option(
            help="Whether the model is told what was said before, unless the page says otherwise; not the bundled "
            "checkpoint, unless given.",
            show_default=False,
        ),
    ] = None,
    max_new_tokens: MaxNewTokens = 1024,
    max_seconds: Annotated[
        float, typer.Option(min=0.1, max=86_400, help="For one answer; it is cut off then.")
    ] = 300.0,
    max_file_mib: Annotated[int, typer.Option(min=1, help="Largest file that can be dropped.")] = 64,
    memory_mib: Annotated[int, typer.Option(min=0, help="Of documents' readings, in memory.")] = 1024,
    font: Font = None,
    pages: Pages = None,
    password: Password = None,
    encoding: Encoding = None,
    layout: PageLayout = None,
    ocr: Ocr = None,
    fetch: Fetch = False,
) -> None:
    """Open a page in the browser: drop files, see what they would cost, ask, and see where the answers stand.

    It is served on 127.0.0.1 alone, loads nothing from elsewhere, and keeps everything in memory until it is closed.
    """
    options = FileOptions(pages, password, encoding, layout, ocr, fetch)
    stages = Stages()
    with clear_errors("web"):
        import uvicorn

        from ..serving.settings import ServerSettings
        from ..web.app import create_desk
        from ..web.asking import Desk

        socket = listener(port)  # before anything takes long
        settings = ServerSettings(
            max_new_tokens=max_new_tokens or 1024,
            max_seconds=max_seconds,
            max_request_bytes=max_file_mib * _MIB,
            memory_bytes=memory_mib * _MIB,
        )
        for name in ("pages", "password"):  # the others are where the page begins, too
            if getattr(options, name) is not None and not document:
                raise ValueError(f"--{name} is of documents that are named here: give some, or leave it out")
        if document:
            check_options_apply(document, options)
        with stages.stage("read the files"):
            contents = [_with_notes(name, options) for name in document or ()]
        with stages.stage("load the model"):
            pipe = load_pipeline(model, font)
        with stages.stage("lay them out"):
            desk = Desk(pipe, settings)
            shared = [desk.laid_out(content, name, 0, True, notes) for name, content, notes in contents]
        has_history = model is not None if history is None else history
        address = f"http://127.0.0.1:{socket.getsockname()[1]}/"
        print_line(f"the page is at {address} until Ctrl-C")
        if browser:
            webbrowser.open(address)
        chosen = given(layout=layout, encoding=encoding, ocr=ocr)
        app = create_desk(pipe, settings, shared, has_history, chosen)
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)
        uvicorn.Server(config).run(sockets=[socket])


def _with_notes(name: str, options: FileOptions) -> tuple[str, Any, tuple[str, ...]]:
    """What a file is called, what it holds, and what was not read of it: told on the page, and here."""
    from ..web.file_notes import heard_notes

    with heard_notes() as notes:
        content = read_checked_files([name], options)
    for note in notes:
        warnings.warn(note, stacklevel=2)
    return ("standard input" if name == "-" else Path(name).name), content, tuple(notes)


__all__ = ["web"]
