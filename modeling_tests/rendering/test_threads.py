# SPDX-License-Identifier: Apache-2.0
"""One renderer may be shared by threads: what each gets is what it would have got alone."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier
from typing import TypeVar

import pytest

from transformers_hybridctx.rendering.rasterizing import PageRenderer
from transformers_hybridctx.rendering.settings import BUNDLED_SANS, RenderConfig

Result = TypeVar("Result")
THREADS = 6
CONFIG = RenderConfig(page_width=200, page_height=100, newline_markup=" \\n ")
GLYPH = replace(CONFIG, line_breaking="reportlab", font_path=BUNDLED_SANS, auto_crop_width=True)
ENGLISH = [f"Text {number}: the quick brown fox jumps; {7919 * number} (a+b) " * 6 for number in range(THREADS)]
# Every thread meets characters that no other has met: tables and the atlas grow in all of them at once.
MIXED = [
    "".join(chr(first + number * 5 + at) for first in (0x41, 0x3A3, 0x416, 0x5D0, 0x627, 0x905) for at in range(8))
    + f" e\u0301 (שלום) مُحَمَّد 👍🏽 \x00 {chr(0x4E00 + number)} {chr(0x1F600 + number)}\n"
    for number in range(THREADS)
]


@pytest.fixture(autouse=True)
def threads_switch_all_the_time() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def at_once(work: Callable[[int], Result]) -> list[Result]:
    """What `work(number)` gives in so many threads that start together."""
    start = Barrier(THREADS)

    def run(number: int) -> Result:
        start.wait()
        return work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(THREADS)))


def drawn(renderer: PageRenderer, text: str, scale: float) -> tuple[str, list[tuple[int, int]], list[tuple[int, str]]]:
    document = renderer.render(text, scale)
    total = hashlib.sha256()
    for page in document.pages:
        total.update(repr(page.shape).encode() + page.tobytes())
    return total.hexdigest(), [(line.start, line.end) for line in document.lines], document.undrawable


@pytest.mark.parametrize("config", [CONFIG, GLYPH], ids=["plain", "reportlab"])
@pytest.mark.parametrize("texts", [ENGLISH, MIXED], ids=["english", "mixed"])
def test_pages_and_lines_are_those_of_one_thread(config: RenderConfig, texts: list[str]) -> None:
    alone = [drawn(PageRenderer(config), text, 1.0) for text in texts]
    for _ in range(3):
        shared = PageRenderer(config)
        assert at_once(lambda number, shared=shared: drawn(shared, texts[number], 1.0)) == alone


def test_more_scales_than_a_renderer_keeps_at_a_time() -> None:
    scales = [0.5 + number / 4 for number in range(THREADS + 4)]
    alone = {scale: drawn(PageRenderer(CONFIG), MIXED[0], scale) for scale in scales}
    shared = PageRenderer(CONFIG)

    def work(number: int) -> bool:
        mine = scales[number:] + scales[:number]
        return all(drawn(shared, MIXED[0], scale) == alone[scale] for scale in mine)

    assert all(at_once(work))


def test_one_document_drawn_and_asked_by_many_threads() -> None:
    text = "".join(MIXED + ENGLISH)
    renderer = PageRenderer(CONFIG)
    document = renderer.typeset(text)
    boxes = document.boxes(0, len(text))
    pages = [page.tobytes() for page in renderer.draw_pages(document)]
    shared = PageRenderer(CONFIG)
    again = shared.typeset(text)

    def work(number: int) -> bool:
        others = drawn(shared, MIXED[number][::-1], 1.0)  # the tables grow meanwhile
        same = [page.tobytes() for page in shared.draw_pages(again)] == pages
        return same and again.boxes(0, len(text)) == boxes and bool(others)

    assert all(at_once(work))
