# SPDX-License-Identifier: Apache-2.0
"""Small layouts of every kind, and texts that are awkward to lay out."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from transformers_hybridctx.rendering.settings import BUNDLED_SANS, RenderConfig
from transformers_hybridctx.rendering.typeset_document import TypesetDocument
from transformers_hybridctx.rendering.typesetting import Typesetter

# A grid of 6 x 12 pixels: 40 columns, 10 lines a page.
GRID = RenderConfig(page_width=240, page_height=120, margin_x=0, margin_y=0, font_size=6 * 2048 / 1233, line_height=12)
MARKED = replace(GRID, newline_markup="¶")
WORD_MARKED = replace(GRID, newline_markup=" \\n ", newline_color="#FF0000")
PROPORTIONAL = replace(GRID, font_path=BUNDLED_SANS, margin_x=5, margin_y=7)
GLYPH = replace(
    PROPORTIONAL, line_breaking="reportlab", frame_padding=6, lines_per_paragraph=3, space_before=2, font_size=9
)
GLYPH_MARKED = replace(GLYPH, newline_markup=" \\n ", alignment="JUSTIFY", lines_per_paragraph=4)
CROPPED = replace(GLYPH, auto_crop_width=True, auto_crop_last_page=True, margin_x=0, margin_y=0, line_height=20)
# Cells of 48 x 24 pixels, two lines of eight characters, five to a column and two columns to a page.
CELLS = replace(
    GRID,
    page_width=96,
    columns=2,
    column_gap=0,
    line_breaking="cells",
    cell_lines=2,
    number_lines=1,
    newline_markup=" ¶ ",
    page_multiple=24,
    auto_crop_last_page=True,
)
LINED_CELLS = replace(CELLS, newline_markup=None, font_path=BUNDLED_SANS, cell_lines=3, number_lines=None, columns=1)
INDENTED = replace(PROPORTIONAL, first_line_indent=12, left_indent=6, alignment="RIGHT", space_after=3)
TYPESETTERS = {
    name: Typesetter(config)
    for name, config in {
        "grid": GRID,
        "marked": MARKED,
        "word-marked": WORD_MARKED,
        "proportional": PROPORTIONAL,
        "glyph": GLYPH,
        "glyph-marked": GLYPH_MARKED,
        "indented": INDENTED,
        "cropped": CROPPED,
        "cells": CELLS,
        "lined-cells": LINED_CELLS,
    }.items()
}

ARABIC = "السلام عليكم، رقم الغرفة 42 (مكتب) مُحَمَّدٌ"
AWKWARD = [
    *[" ", "  ", "\n", "\r\n", "\r", "\t", "\x0c", "\x0b", "\u2028", "\u00a0", "\u3000", "\u200b", "\u200d", "\ufeff"],
    *["\x00", "\x1b", "\x1c", "\ud800", "\udc00", "\ufffe", "\u00ad", "\u202e", "\ufe0f", "\u0301", "\u064b"],
    *["word", "x" * 45, "a", "é", "e\u0301", "Größe", "7,654,321", "(a+b)", "中文", "。", "「", "日本", "한국어"],
    *["سلام", "لا", "שלום", "٤٢", "हिन्दी", "क्ष", "ไทย", "👍🏽", "👨\u200d👩\u200d👧", "🇩🇪", "😀", "¶", "\\n"],
]
awkward_text = st.lists(st.sampled_from(AWKWARD), min_size=1, max_size=60).map("".join)
any_text = st.text(st.characters(exclude_categories=()), min_size=1, max_size=120)
texts = st.one_of(awkward_text, any_text)


def typeset(name: str, text: str) -> TypesetDocument | None:
    """The document, or None where the text holds nothing to read."""
    try:
        return TYPESETTERS[name].typeset(text)
    except ValueError as error:
        assert "empty document" in str(error)
        return None


def line_texts(document: TypesetDocument) -> list[str]:
    return [document.text[line.start : line.end] for line in document.lines]
