# SPDX-License-Identifier: Apache-2.0
"""Several processes draw what one draws, byte by byte and in order."""

import hashlib

import pytest

from transformers_hybridctx.rasterizing import PageRenderer
from transformers_hybridctx.typesetting import RenderConfig

CONFIG = RenderConfig(page_width=200, page_height=100, newline_markup=" \\n ", newline_color="#FF0000")
TEXTS = [f"Document {number}: naïve e\u0301 سلام \x00 中文 – {'word ' * (90 * number)}\nend\n" for number in range(7)]


def digest(pages):
    total = hashlib.sha256()
    for page in pages:
        total.update(repr((page.shape, page.dtype)).encode() + page.tobytes())
    return total.hexdigest()


def test_documents_are_the_same_with_any_number_of_workers():
    renderer = PageRenderer(CONFIG)
    alone = list(renderer.render_documents(TEXTS, 1.5))
    together = list(PageRenderer(CONFIG).render_documents(iter(TEXTS), 1.5, num_workers=2))
    assert [digest(document.pages) for document in alone] == [digest(document.pages) for document in together]
    for one, other, text in zip(alone, together, TEXTS, strict=True):
        assert other.text == text
        assert list(one.lines) == list(other.lines)
        assert one.undrawable == other.undrawable
        assert one.boxes(3, len(text)) == other.boxes(3, len(text))
        assert other.scale == 1.5


def test_pages_are_the_same_with_any_number_of_workers():
    renderer = PageRenderer(CONFIG)
    typeset = renderer.typeset("".join(TEXTS) * 2)
    assert typeset.num_pages > 16
    assert digest(renderer.draw_pages(typeset)) == digest(renderer.draw_pages(typeset, num_workers=2))


@pytest.mark.parametrize("num_workers", [0, -1, 1.5, True])
def test_a_number_of_workers_that_cannot_be_is_refused(num_workers):
    with pytest.raises(ValueError, match=r"num_workers=.* must be a whole number of at least 1"):
        next(PageRenderer(CONFIG).render_documents(TEXTS, num_workers=num_workers))


def test_a_mistake_in_one_document_reaches_the_caller():
    documents = PageRenderer(CONFIG).render_documents(["word", " "], num_workers=2)
    assert next(documents).num_pages == 1
    with pytest.raises(ValueError, match="empty document"):
        next(documents)
