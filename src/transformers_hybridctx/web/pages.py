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
    width = document.page_size(page, only or 1.0)[1]
    times = max(1, min(_MOST_LARGER, round(_READABLE / width)))
    picture = Image.fromarray(np.asarray(drawn_page(document, page, only or float(times))))
    if only is not None and times > 1:
        picture = picture.resize((picture.width * times, picture.height * times), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()


def looked_at(pipe: LongDocQAPipeline, reading: DocumentCache, question: str) -> list[dict[str, Any]]:
    """
    Where the question made the model look, page by page: `{"rows", "columns", "values"}`, a value 0 to 255 for each
    visual token, row by row; 255 is the most of all pages.

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
    return [
        {"rows": rows, "columns": columns, "values": part.tolist()}
        for (rows, columns), part in zip(grids, parts, strict=True)
    ]


__all__ = ["looked_at", "page_picture"]
