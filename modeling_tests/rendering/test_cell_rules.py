# SPDX-License-Identifier: Apache-2.0
"""Pages of cells: each visual token shows contiguous text, and no word that fits into one straddles two."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from transformers_hybridctx.planning.budget import ContextBudget
from transformers_hybridctx.rendering.rasterizing import PageRenderer
from transformers_hybridctx.rendering.settings import BUNDLED_MONO, BUNDLED_SANS, RenderConfig
from transformers_hybridctx.rendering.styles import cell_aligned_config
from transformers_hybridctx.rendering.typeset_document import TypesetDocument
from transformers_hybridctx.rendering.typesetting import Typesetter
from transformers_hybridctx.rendering.visual_token_maps import characters_of_visual_token, visual_tokens_of_characters

SIDE, COLUMNS, LINES = 48, 8, 2
CONFIG = cell_aligned_config()
TEXT = (
    "The special magic number for lively-okapi is: 7654321, she said; but 8f14e45f-ceea-467f-a0d3-000000000007\n"
    "is a code, and incomprehensibilities-are-long (well-known).\r\n\n  Tabs\tand   spaces.  4 a 55,000.25 b\n"
)


def cells_of(text: str, size: int = COLUMNS * LINES, number: int = COLUMNS) -> list[str]:
    """The definition, word by word: what each cell shows."""
    cells: list[str] = []
    present = ""
    for word in re.sub("\r\n|\n", " ¶ ", text).split():
        numeric = re.search(r"\d", word) is not None
        limit = number if numeric else size
        if numeric and present:
            cells, present = [*cells, present], ""
        parts = [word] if len(word) <= limit else re.findall("-*[^-]+|-+", word)
        pieces = [part[at : at + limit] for part in parts for at in range(0, len(part), limit)]
        for nth, piece in enumerate(pieces):
            glue, room = (" ", size) if nth == 0 else ("", limit)
            if present and len(present + glue + piece) > room:
                cells, present = [*cells, present], ""
            present += (glue if present else "") + piece
    return [*cells, present] if present else cells


def shown_by_cells(document: TypesetDocument, cells_high: int = 64) -> list[str]:
    """What each visual token shows, read off the map of characters: its two lines put together."""
    table, shown = document.line_table, {}
    for number in range(len(table)):
        cells = document.cells(number, number + 1)
        letters = "".join(document.display[at] for at in cells.index[cells.width > 0])
        place = int(table.pages[number]), int(table.columns[number]), int(table.tops[number]) // SIDE
        shown.setdefault(place, []).append(re.sub(r"\s", " ", letters))
    assert all(len(line) == COLUMNS for lines in shown.values() for line in lines[:-1])
    return ["".join(lines) for _, lines in sorted(shown.items())]


words = st.sampled_from(
    ["a", "the", "lively-okapi", "7654321,", "it's", "x" * 17, "--", "a-b-c", "12-34-56-78-90", "\n"]
)
alphabet = st.text(st.sampled_from("ab1-. \n\t"), min_size=1, max_size=120)


@given(st.one_of(st.lists(words, min_size=1, max_size=60).map(" ".join), alphabet))
@settings(max_examples=120, deadline=None)
def test_cells_are_those_of_the_definition(text: str) -> None:
    if text.strip(" \n\t"):
        assert shown_by_cells(Typesetter(CONFIG).typeset(text)) == cells_of(text)


@pytest.mark.parametrize("number_lines", [None, 1, 2])
def test_what_a_number_may_take(number_lines: int | None) -> None:
    document = Typesetter(cell_aligned_config(number_lines=number_lines)).typeset(TEXT)
    assert shown_by_cells(document) == cells_of(TEXT, number=COLUMNS * (number_lines or LINES))


def test_a_page_is_a_column_of_cells_and_ends_behind_the_last() -> None:
    document = Typesetter(CONFIG).typeset("fifteen letters " * 100)
    assert [document.page_size(page) for page in range(document.num_pages)] == [(64 * SIDE, SIDE), (36 * SIDE, SIDE)]
    wide = Typesetter(cell_aligned_config(cells_high=10, columns=4)).typeset("fifteen letters " * 100)
    sizes = [wide.page_size(page) for page in range(wide.num_pages)]
    assert sizes == [(10 * SIDE, 4 * SIDE)] * 3
    assert shown_by_cells(wide) == ["fifteen letters"] * 100


def test_visual_tokens_and_cells_are_one() -> None:
    document = Typesetter(cell_aligned_config(cells_high=8, columns=2)).typeset(TEXT)
    cells, found = cells_of(TEXT), []
    grids = [tuple(side // SIDE for side in document.page_size(page)) for page in range(document.num_pages)]
    for page, (rows, columns) in enumerate(grids):
        for token in [row * columns + column for column in range(columns) for row in range(rows)]:
            spans = characters_of_visual_token(document, page, token, (rows, columns))
            found.append(" ".join(TEXT[spans[0][0] : spans[-1][1]].split()) if spans else "")
            for start, end in spans:
                assert visual_tokens_of_characters(document, start, end, grids) == [(page, token)]
    expected = [" ".join(cell.replace("¶", " ").split()) for cell in cells]
    assert [cell for cell in found if cell] == [cell for cell in expected if cell]


def test_a_newline_begins_a_cell_where_it_is_not_drawn_and_a_form_feed_a_page() -> None:
    document = Typesetter(cell_aligned_config(newline_markup=None, cells_high=3)).typeset("a b\nc\n\nd\x0ce")
    places = [
        (line.page, line.box[1] // SIDE, TEXT and document.text[line.start : line.end]) for line in document.lines
    ]
    assert places == [(0, 0, "a b"), (0, 1, "c"), (0, 2, ""), (1, 0, "d"), (2, 0, "e")]


def drawn_by_freetype(cells: list[str]) -> np.ndarray:
    """Cells below each other, glyph by glyph: the letters hinted, the baseline in row 16 of 24."""
    font = ImageFont.truetype(BUNDLED_MONO, 6 * 2048 / 1233, layout_engine=ImageFont.Layout.BASIC)
    page = Image.new("L", (SIDE, SIDE * len(cells)), 255)
    for number, cell in enumerate(cells):
        for place, letter in enumerate(cell):
            at = 6 * (place % COLUMNS), SIDE * number + 24 * (place // COLUMNS) + 16
            ImageDraw.Draw(page).text(at, letter, font=font, fill=0, anchor="ls")
    return np.asarray(page)


@pytest.mark.parametrize("hinted", [True, False])
def test_pages_are_drawn_cell_by_cell(hinted: bool) -> None:
    config = cell_aligned_config(hinted=hinted, baseline=16)
    [page] = PageRenderer(config).render(TEXT).pages
    cells = cells_of(TEXT)
    assert page.shape == (SIDE * len(cells), SIDE)
    if hinted:
        assert np.array_equal(page, drawn_by_freetype(cells))
        return
    letters = PageRenderer(
        RenderConfig(
            page_width=12,
            page_height=24,
            margin_x=0,
            margin_y=0,
            font_size=config.font_size,
            line_height=24,
            baseline=16,
        )
    )
    for number, cell in enumerate(cells):
        for place, letter in enumerate(cell):
            top, left = SIDE * number + 24 * (place // COLUMNS), 6 * (place % COLUMNS)
            if letter != " ":
                assert np.array_equal(page[top : top + 24, left : left + 6], letters.render(letter).pages[0][:, :6])


def test_cells_have_one_scale() -> None:
    renderer = PageRenderer(CONFIG)
    typeset = renderer.typeset(TEXT)
    assert (CONFIG.only_scale, RenderConfig().only_scale) == (1.0, None)
    for ask in (
        lambda: renderer.render(TEXT, 0.5),
        lambda: typeset.page_size(0, 2.0),
        lambda: typeset.boxes(0, 3, 0.9),
        lambda: typeset.spans_in_box(0, (0, 0, 9, 9), 0.9),
    ):
        with pytest.raises(ValueError, match="would take the cells apart"):
            ask()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alignment": "JUSTIFY"}, "alignment='JUSTIFY' would move text out of its cell"),
        ({"space_after": 2}, "space_after=2 would move text"),
        ({"number_lines": 3}, "number_lines=3 is more than the cell_lines=2"),
        ({"cell_lines": 0}, "cell_lines=0 must be a whole number"),
        ({"cell_lines": 999}, "cell_lines * line_height=23976 does not fit"),
        ({"line_breaking": "plain"}, "cell_lines=2 and number_lines=1 are for line_breaking='cells', not 'plain'"),
        ({"hinted": True, "horizontal_scale": 2}, "hinted letters cannot be drawn"),
        ({"baseline": 0}, "baseline=0 must be greater than 0"),
    ],
)
def test_what_cells_cannot_be_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        replace(CONFIG, **change)  # type: ignore[arg-type]


def test_cells_need_a_monospaced_font_but_take_any_text() -> None:
    with pytest.raises(ValueError, match="is not monospaced"):
        cell_aligned_config(font_path=BUNDLED_SANS)
    text = "naïve e\u0301e\u0301 سلام 中文中文中文中文 👍🏽 \x00 हिन्दी " + "x" * 40 + "\u0301" * 30
    document = Typesetter(CONFIG).typeset(text)
    assert document.lines[-1].end == len(text)
    for line in document.lines:
        assert line.box[2] - line.box[0] <= SIDE + 1e-6


def test_the_config_goes_to_json_and_back() -> None:
    assert RenderConfig.from_dict(CONFIG.to_dict()) == CONFIG


def test_a_budget_plans_cells_at_their_one_scale() -> None:
    document = Typesetter(CONFIG).typeset(TEXT * 20)
    for budget in (ContextBudget(), ContextBudget(min_scale=0.5), ContextBudget(max_scale=2)):
        assert budget.at_only_scale(document.only_scale).candidate_scales() == [1.0]
    with pytest.raises(ValueError, match=r"max_scale=0\.5 leaves out 1, the only scale"):
        ContextBudget(max_scale=0.5).at_only_scale(document.only_scale)
    assert ContextBudget(max_scale=0.5).at_only_scale(None) == ContextBudget(max_scale=0.5)
