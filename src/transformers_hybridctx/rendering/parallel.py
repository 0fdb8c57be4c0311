# SPDX-License-Identifier: Apache-2.0
"""Drawing by several processes: the same bytes as by one, in the same order.

The caller's process is one of them, so that the first pages come while the others start; it draws whenever it would have
to wait. Processes are started afresh (nothing is forked, so threads of the caller do no harm), which takes each about as
long as drawing two hundred pages: worth it for batches of documents and for books. Pages come back in files of the
temporary folder, which the caller maps into its memory: copying them would make its one core the bottleneck.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, TypeVar

import numpy as np

from .characters import code_points
from .typeset_document import Layout, TypesetDocument

# Tasks for each process: one that it works on and one that waits; and how many may be done before their turn.
_AHEAD = 2
_EARLY = 4
_PAGES_A_TASK = 16

_Task = TypeVar("_Task")
_Drawn = TypeVar("_Drawn")


class _DrawingProcess(SpawnProcess):
    """A process whose name says what it is for, which is known in it before anything is imported: the package then leaves
    out what drawing does not need, torch above all. (A variable of the environment would be seen by other processes
    that other threads start meanwhile.)
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.name = f"hybridctx-drawing-{self.name}"


class _DrawingContext(SpawnContext):
    Process = _DrawingProcess


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

    def draw(part: range) -> list[np.ndarray]:
        return list(renderer.draw_pages(document, scale, pages=part))

    def fetch(part: range, sent: tuple[list[tuple[int, ...]], str]) -> list[np.ndarray]:
        return list(_read_pages(*sent))

    parts = (pages[first : first + _PAGES_A_TASK] for first in range(0, len(pages), _PAGES_A_TASK))
    for drawn in _in_order(parts, draw, _draw_range, fetch, num_workers, (renderer, document, scale)):
        yield from drawn


def render_in_parallel(
    renderer: Any, texts: Iterable[str], scale: float, num_workers: int
) -> Iterator[tuple[TypesetDocument, list[np.ndarray]]]:
    """(typeset document, its pages) of each text in order."""

    def draw(text: str) -> tuple[TypesetDocument, list[np.ndarray]]:
        document = renderer.typeset(text)
        return document, list(renderer.draw_pages(document, scale))

    def fetch(text: str, sent: tuple[Layout, list[tuple[int, ...]], str]) -> Any:
        layout, shapes, path = sent
        document = TypesetDocument(text, renderer.typesetter.fonts, layout)
        document.fonts.learn(code_points(document.display))
        return document, list(_read_pages(shapes, path))

    return _in_order(texts, draw, _render_text, fetch, num_workers, (renderer, None, scale))


def _in_order(
    tasks: Iterable[_Task],
    draw: Callable[[_Task], _Drawn],
    work: Callable[[str, _Task], Any],
    fetch: Callable[[_Task, Any], _Drawn],
    num_workers: int,
    held: tuple[Any, TypesetDocument | None, float],
) -> Iterator[_Drawn]:
    """What becomes of each task, in order: it is drawn here, or another process works on it and that is fetched."""
    tasks, others = iter(tasks), num_workers - 1
    waiting: deque[tuple[Future[Any], Callable[[Any], _Drawn]]] = deque()

    def send_out() -> None:
        under_way = sum(not future.done() for future, _ in waiting)
        for task in islice(tasks, max(_AHEAD * others - under_way, 0)):
            waiting.append((pool.submit(work, folder, task), partial(fetch, task)))

    with (
        tempfile.TemporaryDirectory(prefix="pages-") as folder,
        ProcessPoolExecutor(others, _DrawingContext(), _hold, held) as pool,
    ):
        try:
            for task in islice(tasks, 1):
                send_out()
                yield draw(task)
            while True:
                send_out()
                late = bool(waiting) and not waiting[0][0].done() and len(waiting) < _EARLY * num_workers
                if late and (here := list(islice(tasks, 1))):
                    waiting.append((_settled(draw, here[0]), lambda drawn: drawn))
                elif waiting:
                    future, finish = waiting.popleft()
                    yield finish(future.result())
                else:
                    return
        except BrokenProcessPool as error:
            raise RuntimeError(
                f"a process that draws did not start or was ended (num_workers={num_workers}); a script that draws "
                "with several needs the guard if __name__ == '__main__', and num_workers=1 needs none"
            ) from error
        finally:
            for future, _ in waiting:
                future.cancel()


def _settled(draw: Callable[[_Task], _Drawn], task: _Task) -> Future[_Drawn]:
    """What comes of the task, to be given or raised when it is its turn."""
    future: Future[_Drawn] = Future()
    try:
        future.set_result(draw(task))
    except Exception as error:
        future.set_exception(error)
    return future


def _hold(renderer: Any, document: TypesetDocument | None, scale: float) -> None:
    _held.update(renderer=renderer, document=document, scale=scale)


def _draw_range(folder: str, part: range) -> tuple[list[tuple[int, ...]], str]:
    return _write_pages(folder, _held["renderer"].draw_pages(_held["document"], _held["scale"], pages=part))


def _render_text(folder: str, text: str) -> tuple[Layout, list[tuple[int, ...]], str]:
    renderer = _held["renderer"]
    document = renderer.typeset(text)
    shapes, path = _write_pages(folder, renderer.draw_pages(document, _held["scale"]))
    return document.layout, shapes, path


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
