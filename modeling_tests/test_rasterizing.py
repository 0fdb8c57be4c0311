# SPDX-License-Identifier: Apache-2.0
"""What the rasteriser promises, page by page."""

import hashlib

from transformers_hybridctx.rasterizing import PageRenderer
from transformers_hybridctx.typesetting import RenderConfig


# The configuration that hybridctx-tiny was trained on. Its pixels and line breaks must never change.
TINY = RenderConfig(
    page_width=576,
    page_height=756,
    margin_x=0,
    margin_y=0,
    font_size=6 * 2048 / 1233,
    line_height=12,
    page_multiple=36,
    auto_crop_last_page=True,
    newline_markup="¶",
)
GUARD_TEXT = "".join(
    f"{number}. The quick brown fox – “jumps” over the lazy dog’s back; 0123456789 (a+b)*[c]={{d}} O0Il1|!?@#$%^&\n"
    f"  The special magic number for lively-okapi-{number} is: {7919 * number}. \r\n\tdef f(x): return x ** {number}   # é"
    f" {'w' * (number * 7)} 8f14e45f-ceea-467f-a0d3-{number:012d}\n\n"
    for number in range(40)
)


def digest(pages):
    total = hashlib.sha256()
    for page in pages:
        total.update(repr(page.shape).encode() + page.tobytes())
    return total.hexdigest()


def test_pixels_of_the_trained_configuration_never_change():
    document = PageRenderer(TINY).render(GUARD_TEXT)
    assert [page.shape for page in document.pages] == [(756, 576), (756, 576), (576, 576)]
    assert digest(document.pages) == "1e71542059474e580d12bf09848fab7c1b5e60c9ab366754c687646120ad7d8e"


def test_line_breaks_of_the_trained_configuration_never_change():
    lines = PageRenderer(TINY).typeset(GUARD_TEXT).lines
    spans = repr([(line.page, line.start, line.end) for line in lines])
    assert hashlib.sha256(spans.encode()).hexdigest() == "5443c372e82e20a4cd0c010ddd2d58df6f3583b7581fc7fcc37409ab3dacc522"
