# SPDX-License-Identifier: Apache-2.0
"""Drawing by several processes: the same bytes as by one, in the same order.

Processes are started afresh (nothing is forked, so threads of the caller do no harm), which takes each about as long as
drawing a few hundred pages: worth it for batches of documents and for books. Pages come back in files of the temporary
folder, which the caller maps into its memory: copying them would make its one core the bottleneck.
"""

from __future__ import annotations

import math
import mmap
import multiprocessing
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, TypeVar

import numpy as np

from .character_classes import code_points
from .typeset_document import TypesetDocument

# Tasks under way for each process: one that it works on and one that waits.
_AHEAD = 2
_PAGES_A_TASK = 16

_Task = TypeVar("_Task")

# What a process holds: the renderer, and the document where all tasks are pages of one.
_held: dict[str, Any] = {}


def check_workers(num_workers: int) -> None:
    """ValueError unless num_workers is a whole number of at least 1."""
    if isinstance(num_workers, bool) or not isinstance(num_workers, int) or num_workers < 1:
        raise ValueError(
            f"num_workers={num_workers!r} must be a whole number of at least 1; "
            f"1 draws in this process, {os.cpu_count()} uses every core of this machine"
        )


def draw_pages_in_parallel(
    renderer: Any, document: TypesetDocument, pages: range, scale: float, num_workers: int
) -> Iterator[np.ndarray]:
    """The document's pages in order: uint8 [H, W] or [H, W, 3]. renderer: a `PageRenderer` of the same config."""
    tasks = [(pages[first : first + _PAGES_A_TASK], scale) for first in range(0, len(pages), _PAGES_A_TASK)]
    for shapes, path in _in_order(_draw_range, tasks, num_workers, (renderer, document)):
        yield from _read_pages(shapes, path)


def render_in_parallel(
    renderer: Any, texts: Iterable[str], scale: float, num_workers: int
) -> Iterator[tuple[TypesetDocument, list[np.ndarray]]]:
    """(typeset document, its pages) of each text in order."""
    waiting: deque[str] = deque()

    def tasks() -> Iterator[tuple[str, float]]:
        for text in texts:
            waiting.append(text)
            yield text, scale

    for state, shapes, path in _in_order(_render_text, tasks(), num_workers, (renderer, None)):
        text, fonts = waiting.popleft(), renderer.typesetter.fonts
        document = TypesetDocument.__new__(TypesetDocument)
        document.__dict__.update({"text": text, "display": text, **state, "fonts": fonts, "config": fonts.config})
        fonts.learn(code_points(document.display))
        yield document, list(_read_pages(shapes, path))


def _in_order(
    work: Callable[[str, _Task], Any], tasks: Iterable[_Task], num_workers: int, held: tuple[Any, Any]
) -> Iterator[Any]:
    """Results in the order of the tasks, with no more of these under way than the processes need."""
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(prefix="pages-") as folder,
        ProcessPoolExecutor(num_workers, mp_context=context, initializer=_hold, initargs=held) as pool,
    ):
        under_way: deque[Future[Any]] = deque()
        try:
            for task in tasks:
                under_way.append(pool.submit(work, folder, task))
                if len(under_way) >= _AHEAD * num_workers:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()


def _hold(renderer: Any, document: TypesetDocument | None) -> None:
    _held.update(renderer=renderer, document=document)


def _draw_range(folder: str, task: tuple[range, float]) -> tuple[list[tuple[int, ...]], str]:
    pages, scale = task
    return _write_pages(folder, _held["renderer"].draw_pages(_held["document"], scale, pages=pages))


def _render_text(folder: str, task: tuple[str, float]) -> tuple[dict[str, Any], list[tuple[int, ...]], str]:
    text, scale = task
    renderer = _held["renderer"]
    document = renderer.typeset(text)
    shapes, path = _write_pages(folder, renderer.draw_pages(document, scale))
    # What the caller has already, or has cheaper, stays here.
    left_out = {"text", "fonts", "config"} | ({"display"} if document.display == text else set())
    return {name: value for name, value in document.__dict__.items() if name not in left_out}, shapes, path


def _write_pages(folder: str, pages: Iterable[np.ndarray]) -> tuple[list[tuple[int, ...]], str]:
    shapes = []
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
        for page in pages:
            shapes.append(page.shape)
            file.write(page.data)
    return shapes, file.name


def _read_pages(shapes: list[tuple[int, ...]], path: str) -> Iterator[np.ndarray]:
    """Pages that lie in the file's own memory, which lives as long as one of them."""
    with open(path, "rb") as file:
        # A mapped file cannot be removed on Windows.
        data = bytearray(file.read()) if os.name == "nt" else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    os.unlink(path)
    offset = 0
    for shape in shapes:
        size = math.prod(shape)
        yield np.frombuffer(data, dtype=np.uint8, count=size, offset=offset).reshape(shape)
        offset += size
