# SPDX-License-Identifier: Apache-2.0
"""A typeset document with its pages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .paged_text import Box, Line, PagedText
from .typeset_document import TypesetDocument


class RenderedDocument(PagedText):
    """A typeset document with its pages drawn at one scale; boxes and sizes are in these pages' pixels.

    Attributes beside those of `PagedText`:
        typeset: the document.
        scale: what the pages were drawn at.
        pages: list of uint8 arrays, [height, width] where all colours of the config are grey, else [height, width, 3].
    """

    def __init__(self, typeset: TypesetDocument, scale: float, pages: list[np.ndarray]) -> None:
        self.typeset, self.scale, self.pages = typeset, scale, pages
        self.text, self.config = typeset.text, typeset.config
        self.num_pages, self.undrawable = typeset.num_pages, typeset.undrawable

    @property
    def lines(self) -> Sequence[Line]:
        return self.typeset.lines

    def page_size(self, page: int, scale: float | None = None) -> tuple[int, int]:
        return self.typeset.page_size(page, self.scale if scale is None else scale)

    def page_of(self, char_index: int) -> int:
        return self.typeset.page_of(char_index)

    def page_span(self, page: int) -> tuple[int, int]:
        return self.typeset.page_span(page)

    def boxes(self, start: int, end: int, scale: float | None = None) -> list[tuple[int, Box]]:
        return self.typeset.boxes(start, end, self.scale if scale is None else scale)

    def spans_in_box(self, page: int, box: Box, scale: float | None = None) -> list[tuple[int, int]]:
        return self.typeset.spans_in_box(page, box, self.scale if scale is None else scale)
