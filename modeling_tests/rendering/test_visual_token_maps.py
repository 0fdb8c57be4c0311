# SPDX-License-Identifier: Apache-2.0
"""Visual tokens and characters find each other at every scale, crop and column layout."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transformers_hybridctx.rendering.settings import BUNDLED_SANS, RenderConfig
from transformers_hybridctx.rendering.styles import patch_aligned_config
from transformers_hybridctx.rendering.typesetting import Typesetter
from transformers_hybridctx.rendering.visual_token_maps import (
    characters_of_visual_token,
    visual_token_box,
    visual_tokens_of_characters,
)

SMALL = RenderConfig(page_width=240, page_height=90, margin_x=6, margin_y=5, font_path=BUNDLED_SANS)
LAYOUTS = {
    "plain": SMALL,
    "columns": replace(SMALL, columns=2, column_gap=9),
    "cropped": replace(SMALL, auto_crop_width=True, auto_crop_last_page=True, page_multiple=28),
    "cropped-columns": replace(SMALL, columns=3, column_gap=5, auto_crop_last_page=True, alignment="JUSTIFY"),
    "glyph-columns": replace(SMALL, line_breaking="reportlab", columns=2, lines_per_paragraph=4, frame_padding=6),
    "marked": replace(SMALL, newline_markup=" \\n ", columns=2, alignment="RIGHT", dpi=120),
    "wide": replace(SMALL, horizontal_scale=1.4, space_before=3, columns=2),
}
TYPESETTERS = {name: Typesetter(config) for name, config in LAYOUTS.items()}
PIECES = [
    "word ",
    "naïve e\u0301 ",
    "سلام 42 ",
    "שלום",
    "中文。",
    "👍🏽",
    "\n",
    "\r\n",
    "\t",
    "\x00",
    "\u200b",
    "x" * 50,
    "हिन्दी ",
]
texts = st.one_of(
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=80).map("".join),
    st.text(st.characters(exclude_categories=()), min_size=1, max_size=150),
)


@pytest.mark.parametrize("name", LAYOUTS)
@given(text=texts, scale=st.floats(0.3, 3), data=st.data())
@settings(max_examples=40, deadline=None)
def test_tokens_of_characters_and_characters_of_tokens_agree(name, text, scale, data):
    try:
        document = TYPESETTERS[name].typeset(text)
    except ValueError as error:
        assert "empty document" in str(error)
        return
    grids = [
        (max(1, round(height / 28)), max(1, round(width / 28)))
        for height, width in (document.page_size(page, scale) for page in range(document.num_pages))
    ]
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    tokens = visual_tokens_of_characters(document, start, end, grids, scale)
    shown = set()
    for page, token in tokens:
        spans = characters_of_visual_token(document, page, token, grids[page], scale)
        assert any(first < end and last > start for first, last in spans)
        shown.update(*(range(first, last) for first, last in spans))
    on_page = {at for at in range(start, end) if document.boxes(at, at + 1)}
    cropped = {
        at
        for at in on_page
        for page, box in document.boxes(at, at + 1, scale)
        if box[0] >= document.page_size(page, scale)[1] or box[1] >= document.page_size(page, scale)[0]
    }
    assert on_page - shown <= cropped
    # Whatever ink there is lies on its page, whole: crops take nothing but blanks.
    assert all(text[at].isspace() for at in cropped)


@pytest.mark.parametrize("name", LAYOUTS)
@given(text=texts)
@settings(max_examples=25, deadline=None)
def test_every_layout_keeps_every_character_on_one_line(name, text):
    try:
        document = TYPESETTERS[name].typeset(text)
    except ValueError:
        return
    done = 0
    for line in document.lines:
        assert done <= line.start <= line.end
        assert all(character.isspace() for character in text[done : line.start])
        done = line.end
    assert all(character.isspace() for character in text[done:])
    columns = [
        (line.page, int(column)) for line, column in zip(document.lines, document.line_table.columns, strict=True)
    ]
    assert columns == sorted(columns)


def test_a_token_of_the_reference_page_shows_three_lines_of_six_characters():
    document = Typesetter(patch_aligned_config()).typeset("abcdef" * 96)
    assert characters_of_visual_token(document, 0, 1, (21, 16)) == [(6, 12), (102, 108), (198, 204)]
    assert visual_token_box(document, 0, 17, (21, 16)) == (36, 36, 72, 72)
    assert visual_tokens_of_characters(document, 102, 109, [(21, 16)]) == [(0, 1), (0, 2)]


def test_tokens_off_the_grid_are_refused():
    document = Typesetter(SMALL).typeset("word")
    with pytest.raises(IndexError, match="visual token 6 does not exist; the page has tokens 0 to 5"):
        visual_token_box(document, 0, 6, (2, 3))
