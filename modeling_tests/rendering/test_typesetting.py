# SPDX-License-Identifier: Apache-2.0
"""What the typesetter promises: every character keeps its place."""

import pickle
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from render_layouts import ARABIC, GRID, TYPESETTERS, WORD_MARKED, texts, typeset

from transformers_hybridctx.rendering.characters import MISSING_GLYPH, NO_GLYPH
from transformers_hybridctx.rendering.typesetting import Typesetter


def is_white(character):
    return character.isspace() and not "\x1c" <= character <= "\x1f"


@pytest.mark.parametrize("name", TYPESETTERS)
@given(text=texts)
@settings(max_examples=60, deadline=None)
def test_every_character_is_on_exactly_one_line_or_is_white_space_at_a_break(name, text):
    document = typeset(name, text)
    if document is None:
        return
    done = 0
    for line in document.lines:
        assert done <= line.start <= line.end
        assert all(is_white(character) for character in text[done : line.start])
        done = line.end
    assert all(is_white(character) for character in text[done:])
    for position, character in document.undrawable:
        assert text[position] == character
        assert any(line.start <= position < line.end for line in document.lines)


@pytest.mark.parametrize("name", TYPESETTERS)
@given(text=texts)
@settings(max_examples=40, deadline=None)
def test_pages_tile_the_text_and_hold_their_lines(name, text):
    document = typeset(name, text)
    if document is None:
        return
    spans = [document.page_span(page) for page in range(document.num_pages)]
    assert spans[0][0] == 0
    assert spans[-1][1] == len(text)
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    config = document.config
    for line in document.lines:
        if line.start < line.end:
            assert spans[line.page][0] <= line.start
            assert line.end <= spans[line.page][1]
            assert document.page_of(line.start) == document.page_of(line.end - 1) == line.page
        assert line.box[1] >= -1e-6
        assert line.box[1] <= config.page_height - config.line_height + config.font_size
    assert [line.page for line in document.lines] == sorted(line.page for line in document.lines)


@pytest.mark.parametrize("name", TYPESETTERS)
@given(text=texts, data=st.data())
@settings(max_examples=40, deadline=None)
def test_boxes_and_spans_are_inverse(name, text, data):
    document = typeset(name, text)
    if document is None:
        return
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start, len(text)))
    scale = document.config.only_scale or 1.7
    boxes = document.boxes(start, end, scale)
    shown = set()
    for page, box in boxes:
        assert 0 <= page < document.num_pages
        height, width = document.page_size(page, scale)
        assert 0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height
        for first, last in document.spans_in_box(page, box, scale):
            shown.update(range(first, last))
    for position in range(start, min(end, start + 5)):
        assert {page for page, _ in document.boxes(position, position + 1)} <= {document.page_of(position)}
    invisible = {position for position in range(start, end) if not document.boxes(position, position + 1)}
    assert set(range(start, end)) - invisible <= shown


@pytest.mark.parametrize("name", TYPESETTERS)
@given(text=texts)
@settings(max_examples=25, deadline=None)
def test_a_whole_page_shows_every_character_that_has_a_box(name, text):
    document = typeset(name, text)
    if document is None:
        return
    for page in range(document.num_pages):
        shown = set()
        for start, end in document.spans_in_box(page, (-1e9, -1e9, 1e9, 1e9)):
            assert start < end
            shown.update(range(start, end))
        first, last = document.page_span(page)
        assert shown <= set(range(first, last))
        assert {at for at in range(first, last) if document.boxes(at, at + 1)} <= shown


@pytest.mark.parametrize("name", TYPESETTERS)
@given(text=texts)
@settings(max_examples=25, deadline=None)
def test_cells_to_draw_are_those_at_which_glyphs_are(name, text):
    document = typeset(name, text)
    if document is None:
        return
    lines = 0, len(document.lines)
    every, drawn = document.cells(*lines), document.characters.cells(*lines, drawn=True)
    glyphs = (every.keys != NO_GLYPH) | np.isin(every.index, document.layout.shaped.glyph_at)
    for name in ("index", "line", "left", "keys"):
        assert np.array_equal(getattr(every, name)[glyphs], getattr(drawn, name))


def test_a_newline_is_on_the_page_that_shows_its_mark():
    typesetter = Typesetter(replace(WORD_MARKED, page_height=12, page_width=48))
    document = typesetter.typeset("abcdefg\nabcdefg\nabc\n")
    for newline in (7, 15, 19):
        [(page, _)] = document.boxes(newline, newline + 1)
        assert document.page_of(newline) == page
        assert document.page_span(page)[0] <= newline < document.page_span(page)[1]


def test_undrawable_characters_are_listed_and_take_room():
    text = "a\x00b\ud800c中d\u200be"
    document = Typesetter(GRID).typeset(text)
    assert document.undrawable == [(1, "\x00"), (3, "\ud800"), (5, "中")]
    assert document.boxes(7, 8) == []
    [(_, box)] = document.boxes(5, 6)
    assert box == pytest.approx((30, 0, 36, 12))
    assert document.fonts.keys[0] == MISSING_GLYPH


def test_a_file_of_control_characters_is_typeset():
    document = Typesetter(GRID).typeset("\x00\x01\x02\x7f" * 100)
    assert len(document.undrawable) == 400
    assert len(document.lines) == 10


@pytest.mark.parametrize("text", ["", " ", "\n\n\t ", "\u00a0 \u3000", "\ufeff", "\r\n\x0c"])
@pytest.mark.parametrize("name", TYPESETTERS)
def test_a_text_with_nothing_to_read_is_an_empty_document(name, text):
    with pytest.raises(ValueError, match=f"empty document.* {len(text)} characters"):
        TYPESETTERS[name].typeset(text)


def test_bytes_are_not_text():
    with pytest.raises(TypeError, match="bytes"):
        Typesetter(GRID).typeset(b"text")


@given(scale=st.floats(0.05, 8))
@settings(max_examples=30, deadline=None)
def test_layout_does_not_depend_on_scale(scale):
    document = TYPESETTERS["proportional"].typeset("Some words to be found at any scale. " * 20)
    at_one, at_scale = document.boxes(10, 300), document.boxes(10, 300, scale)
    assert [page for page, _ in at_one] == [page for page, _ in at_scale]
    for (_, one), (_, other) in zip(at_one, at_scale, strict=True):
        assert other == pytest.approx([scale * value for value in one])


def test_page_sizes():
    config = replace(GRID, auto_crop_last_page=True, page_multiple=36)
    document = Typesetter(config).typeset("word\n" * 14)
    assert [document.page_size(page) for page in range(2)] == [(144, 252), (72, 252)]
    assert document.page_size(1, scale=0.5) == (36, 126)
    narrow = Typesetter(replace(GRID, auto_crop_width=True, margin_x=4)).typeset("iiii")
    height, width = narrow.page_size(0)
    assert height == 120
    assert 4 + 3 * 6 + 4 < width <= 4 + 4 * 6 + 4
    wide = Typesetter(replace(GRID, horizontal_scale=1.5)).typeset("word")
    assert wide.page_size(0) == (120, 360)
    assert wide.boxes(1, 2)[0][1] == pytest.approx((9, 0, 18, 12))


def test_questions_outside_the_text_are_refused():
    document = Typesetter(GRID).typeset("text")
    with pytest.raises(ValueError, match=r"\[2, 9\) is not within the text's 4 characters"):
        document.boxes(2, 9)
    with pytest.raises(IndexError, match="character 4 does not exist"):
        document.page_of(4)
    with pytest.raises(IndexError, match="page 1 does not exist"):
        document.page_size(1)
    with pytest.raises(ValueError, match="scale=0 must be"):
        document.boxes(0, 1, scale=0)
    assert document.boxes(2, 2) == []


def test_lines_are_a_sequence():
    lines = Typesetter(GRID).typeset("a\nb\nc").lines
    assert len(lines) == 3
    assert lines[-1] == list(lines)[2] == lines[1:][1]
    with pytest.raises(IndexError):
        lines[3]


def test_documents_can_be_pickled():
    document = Typesetter(GRID).typeset(ARABIC + " and more")
    again = pickle.loads(pickle.dumps(document))
    assert again.boxes(3, 30) == document.boxes(3, 30)
    assert list(again.lines) == list(document.lines)


def test_long_lines_and_logs_are_fast_enough_to_test():
    for text in ("x" * 1_000_000, "word " * 200_000, "\n" * 200_000 + "x", "log line 42\r\n" * 80_000):
        for name in ("grid", "marked", "glyph"):
            document = TYPESETTERS[name].typeset(text)
            assert document.page_span(document.num_pages - 1)[1] == len(text)
