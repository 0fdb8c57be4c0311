# SPDX-License-Identifier: Apache-2.0
"""Pages as a person reads them, and where on them a question made the model look."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from ..caching.attention_ranking import question_attention
from ..caching.document_cache import DocumentCache
from ..pipeline_long_doc_qa import LongDocQAPipeline
from ..planning.paged_document import PagedDocument
from ..prompting.pages import drawn_page
from ..rendering.paged_text import Box
from ..rendering.rasterizing import strip_columns, unroll_strip

_READABLE = 1100  # pixels across, at least
_MOST_LARGER = 4


def page_picture(document: PagedDocument, page: int) -> bytes:
    """A page large enough to read, as PNG: drawn so where its letters are drawn, else enlarged. `page` counts from 0.

    Raises:
        IndexError: there is no such page.
    """
    if not 0 <= page < document.num_pages:
        raise IndexError(f"there is no page {page + 1}: the document has {document.num_pages:,}")
    only = document.only_scale
    height, width = document.page_size(page, only or 1.0)
    is_strip = strip_columns(height, width) is not None
    times = 1 if is_strip else max(1, min(_MOST_LARGER, round(_READABLE / width)))
    picture = Image.fromarray(np.asarray(drawn_page(document, page, only or float(times))))
    if is_strip:
        picture = unroll_strip(picture)
    elif times > 1 and picture.width == width:  # drawn at its only scale
        picture = picture.resize((picture.width * times, picture.height * times), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()


def looked_at(pipe: LongDocQAPipeline, reading: DocumentCache, question: str) -> list[dict[str, Any]]:
    """
    Where the question made the model look, page by page, to lie over its picture: `{"rows", "columns", "values"}`, a
    value 0 to 255 for each visual token, row by row; 255 is the most of all pages.

    It is the attention that the question pays each visual token more than one that asks nothing, averaged over the heads
    that the checkpoint names as those that look things up, or over all.

    Raises:
        ValueError: the document was read without pages.
    """
    heads = pipe.model.config.retrieval_heads
    attention, grids = question_attention(pipe.model, pipe.processor, reading, question, heads)
    heat = attention.mean(axis=0).clip(min=0)
    levels = np.rint(255 * heat / max(heat.max(), np.finfo(heat.dtype).tiny)).astype(int)
    parts = np.split(levels, np.cumsum([rows * columns for rows, columns in grids])[:-1])
    document = reading.plan.document
    shown = [
        as_shown(part.reshape(grid), *document.page_size(page, reading.plan.scale))
        for page, (part, grid) in enumerate(zip(parts, grids, strict=True))
    ]
    return [{"rows": len(table), "columns": len(table[0]), "values": table.ravel().tolist()} for table in shown]


def place_on_picture(box: Box, height: int, width: int) -> list[float]:
    """
    Where `page_picture` shows a box, as parts of the picture: `[left, top, right, bottom]`, 0 to 1.

    Args:
        box: in pixels of a page of this height and width.
    """
    left, top, right, bottom = box
    if (found := strip_columns(height, width)) is not None:
        rows, columns, gap = found
        column = int(top // (rows * width))
        aside, up = column * (width + gap), column * rows * width
        left, top, right, bottom = left + aside, top - up, right + aside, bottom - up
        height, width = rows * width, columns * (width + gap) - gap
    return [left / width, top / height, right / width, bottom / height]


def as_shown(table: np.ndarray, height: int, width: int) -> np.ndarray:
    """A page's table of visual tokens as `page_picture` shows the page: of a strip, as columns with gaps between."""
    if (found := strip_columns(height, width)) is None:
        return table
    rows, columns, _ = found
    across = table.shape[1]
    whole = np.zeros((rows * columns * across, across), table.dtype)
    whole[: len(table)] = table
    pieces = []
    for piece in np.split(whole, columns):
        pieces += [np.repeat(piece, 4, axis=1), np.zeros((len(piece), across), table.dtype)]  # a gap is a quarter
    return np.concatenate(pieces[:-1], axis=1)


__all__ = ["as_shown", "looked_at", "page_picture", "place_on_picture"]
