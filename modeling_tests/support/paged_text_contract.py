# SPDX-License-Identifier: Apache-2.0
"""What holds of every text on pages, whether it was typeset or its pages are shown as they are."""

from __future__ import annotations

from transformers_hybridctx.rendering.paged_text import PagedText
from transformers_hybridctx.rendering.visual_token_maps import (
    characters_of_visual_token,
    visual_tokens_of_characters,
)

_TOKEN = 28  # pixels


def check_paged_text(document: PagedText, scale: float, start: int, end: int) -> None:
    """The contract of `PagedText`, looked at for the whole document and for its characters [start, end)."""
    scale = document.only_scale or scale
    _check_spans(document)
    _check_lines(document)
    _check_boxes(document, scale, start, end)
    _check_visual_tokens(document, scale, start, end)


def _check_spans(document: PagedText) -> None:
    spans = [document.page_span(page) for page in range(document.num_pages)]
    edges = [0, *(edge for span in spans for edge in span), len(document.text)]
    assert edges[::2] == edges[1::2], "the spans of all pages tile the text"
    for page, (first, last) in enumerate(spans):
        for position in {first, (first + last) // 2, last - 1}:
            if first <= position < last:
                assert document.page_of(position) == page


def _check_lines(document: PagedText) -> None:
    done = 0
    for line in document.lines:
        assert done <= line.start <= line.end
        assert all(one.isspace() or not document.boxes(at, at + 1) for at, one in _within(document, done, line.start))
        done = line.end
    assert all(one.isspace() or not document.boxes(at, at + 1) for at, one in _within(document, done, None))


def _within(document: PagedText, start: int, end: int | None) -> list[tuple[int, str]]:
    return [(start + offset, one) for offset, one in enumerate(document.text[start:end])]


def _check_boxes(document: PagedText, scale: float, start: int, end: int) -> None:
    for page, (left, top, right, bottom) in document.boxes(start, end, scale):
        height, width = document.page_size(page, scale)
        assert 0 <= left < right <= width + 1e-6
        assert 0 <= top < bottom <= height + 1e-6
        first, last = document.page_span(page)
        assert first < end and last > start


def _check_visual_tokens(document: PagedText, scale: float, start: int, end: int) -> None:
    sizes = [document.page_size(page, scale) for page in range(document.num_pages)]
    grids = [(max(1, round(height / _TOKEN)), max(1, round(width / _TOKEN))) for height, width in sizes]
    shown: set[int] = set()
    for page, token in visual_tokens_of_characters(document, start, end, grids, scale):
        spans = characters_of_visual_token(document, page, token, grids[page], scale)
        assert any(first < end and last > start for first, last in spans), "a token shows what is said to lie on it"
        shown.update(*(range(first, last) for first, last in spans))
    for position in range(start, end):
        boxes = document.boxes(position, position + 1, scale)
        assert not boxes or position in shown, "what has a box is shown by one of the tokens that are said to show it"
