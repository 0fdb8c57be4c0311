# SPDX-License-Identifier: Apache-2.0
"""What the typesetter promises: every character keeps its place."""

import json
import pickle
import re
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transformers_hybridctx.rendering.typesetting import (
    BUNDLED_MONO,
    BUNDLED_SANS,
    MISSING_GLYPH,
    NO_GLYPH,
    FontChain,
    RenderConfig,
    Typesetter,
    bidi_levels,
)

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


def is_white(character):
    return character.isspace() and not "\x1c" <= character <= "\x1f"


def typeset(name, text):
    """The document, or None where the text holds nothing to read."""
    try:
        return TYPESETTERS[name].typeset(text)
    except ValueError as error:
        assert "empty document" in str(error)
        return None


def line_texts(document):
    return [document.text[line.start : line.end] for line in document.lines]


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
    boxes = document.boxes(start, end, scale=1.7)
    shown = set()
    for page, box in boxes:
        assert 0 <= page < document.num_pages
        height, width = document.page_size(page, 1.7)
        assert 0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height
        for first, last in document.spans_in_box(page, box, scale=1.7):
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
    every, drawn = document.cells(*lines), document.cells(*lines, drawn=True)
    glyphs = (every.keys != NO_GLYPH) | np.isin(every.index, document.shaped.glyph_at)
    for name in ("index", "line", "left", "keys"):
        assert np.array_equal(getattr(every, name)[glyphs], getattr(drawn, name))


def test_a_newline_is_on_the_page_that_shows_its_mark():
    typesetter = Typesetter(replace(WORD_MARKED, page_height=12, page_width=48))
    document = typesetter.typeset("abcdefg\nabcdefg\nabc\n")
    for newline in (7, 15, 19):
        [(page, _)] = document.boxes(newline, newline + 1)
        assert document.page_of(newline) == page
        assert document.page_span(page)[0] <= newline < document.page_span(page)[1]


def greedy_lines(text, columns):
    """The definition of plain breaking on a grid: one character after the other."""
    lines = []
    for paragraph in text.split("\n"):
        line, rest = "", paragraph
        while True:
            spaces = len(rest) - len(rest.lstrip(" "))
            word = rest[spaces:].split(" ", 1)[0]
            if not word:
                break
            if len(line) + spaces + len(word) <= columns:
                line += rest[: spaces + len(word)]
                rest = rest[spaces + len(word) :]
            elif line:
                lines.append(line)
                line, rest = "", rest[spaces:]
            elif spaces:
                rest = rest[spaces:]
            else:
                lines.append(word[:columns])
                rest = rest[columns:]
        lines.append(line)
    return lines[:-1] if text.endswith("\n") else lines


@given(st.text(st.sampled_from("aab.  \n"), min_size=1, max_size=400), st.integers(3, 60))
@settings(max_examples=150, deadline=None)
def test_fast_line_breaking_is_the_plain_greedy_one(text, columns):
    if not text.strip():
        return
    config = replace(GRID, page_width=6 * columns)
    document = Typesetter(config).typeset(text)
    expected = greedy_lines(text, columns)
    found = line_texts(document)
    # A paragraph of white space alone is an empty line.
    assert [line.rstrip(" ") if line.isspace() else line for line in found] == expected


def test_the_grid_is_exact():
    document = Typesetter(GRID).typeset("x" * 400 + " " + "y" * 50)
    assert [line.end - line.start for line in document.lines] == [40] * 11 + [10]
    assert document.num_pages == 2
    for column in range(40):
        [(page, box)] = document.boxes(40 + column, 41 + column)
        assert page == 0
        assert box == pytest.approx((6 * column, 12, 6 * column + 6, 24), abs=1e-6)


def test_spaces_are_dropped_at_a_break_and_kept_in_a_line():
    document = Typesetter(GRID).typeset("  in" + " " * 10 + "side " + "w" * 21 + "   next line")
    assert line_texts(document) == ["  in" + " " * 10 + "side " + "w" * 21, "next line"]
    assert document.boxes(40, 43) == []


def test_newlines_of_every_kind_end_a_line_once():
    document = Typesetter(GRID).typeset("a\nb\r\nc\rd\x0be\u2028f\u2029g\x85h\n\ni\n")
    assert line_texts(document) == ["a", "b", "c", "d", "e", "f", "g", "h", "", "i"]


def test_a_form_feed_ends_the_page():
    document = Typesetter(GRID).typeset("one\x0ctwo\nthree\x0cfour")
    assert [line.page for line in document.lines] == [0, 1, 1, 2]
    assert document.page_of(4) == 1


def test_a_newline_mark_is_one_character_and_a_line_may_break_after_it():
    text = "x" * 38 + "\r\n" + "y" * 10 + "\n" + "z" * 3
    document = Typesetter(MARKED).typeset(text)
    assert line_texts(document) == ["x" * 38 + "\r\n", "y" * 10 + "\n" + "zzz"]
    [(page, box)] = document.boxes(38, 40)
    assert (page, box) == (0, pytest.approx((38 * 6, 0, 39 * 6, 12)))
    assert document.boxes(38, 39) == document.boxes(39, 40) == [(page, box)]


def test_a_mark_of_several_characters_keeps_positions_of_the_text():
    text = "one\ntwo\r\nthree"
    document = Typesetter(WORD_MARKED).typeset(text)
    assert document.display == "one \\n two \\n three"
    assert [(line.start, line.end) for line in document.lines] == [(0, len(text))]
    [(_, box)] = document.boxes(9, 14)
    assert box == pytest.approx((14 * 6, 0, 19 * 6, 12))
    assert document.spans_in_box(0, (0, 0, 18, 12)) == [(0, 3)]
    assert document.spans_in_box(0, box) == [(9, 14)]


def test_tabs_are_four_spaces_wide():
    [(_, box)] = Typesetter(GRID).typeset("a\tb").boxes(2, 3)
    assert box[0] == pytest.approx(5 * 6)


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


def test_cjk_breaks_between_characters_but_not_before_closing_punctuation():
    config = replace(GRID, page_width=6 * 5)
    assert line_texts(Typesetter(config).typeset("中文中文中文中文")) == ["中文中文中", "文中文"]
    assert line_texts(Typesetter(config).typeset("中文中文中。文")) == ["中文中文", "中。文"]
    assert line_texts(Typesetter(config).typeset("中文中文「文」")) == ["中文中文", "「文」"]
    assert line_texts(Typesetter(config).typeset("中文abc文")) == ["中文abc", "文"]


def test_arabic_is_joined_and_runs_right_to_left():
    document = Typesetter(GRID).typeset("سلام")
    lefts = [document.boxes(at, at + 1)[0][1][0] for at in range(4)]
    assert lefts[0] > lefts[1] == lefts[2] > lefts[3], "lam and alef are one ligature, left of seen"
    isolated = FontChain(GRID)
    isolated.learn(np.array([ord("س")], dtype=np.uint32))
    assert document.shaped.keys[0] != isolated.keys[ord("س")], "an initial form differs from the isolated one"
    assert document.boxes(0, 4)[0][1][2] == pytest.approx(240), "a right-to-left paragraph starts at the right"


def test_words_of_another_direction_are_separate_boxes():
    text = "abc سلام def"
    document = Typesetter(GRID).typeset(text)
    first, arabic, last = (document.boxes(*found.span())[0][1] for found in re.finditer(r"\w+", text))
    assert first[2] < arabic[0] < arabic[2] < last[0]
    text = "שלום abc עולם"
    document = Typesetter(GRID).typeset(text)
    first, latin, last = (document.boxes(*found.span())[0][1] for found in re.finditer(r"\w+", text))
    assert last[2] < latin[0] < latin[2] < first[0]


@pytest.mark.parametrize(
    ("text", "base", "levels"),
    [
        ("ab cd", 0, "00000"),
        ("אב גד", 0, "11111"),
        ("אב 12", 1, "11122"),
        ("a אב 12", 0, "0011122"),
        ("אב (cd) 1", 1, "111122111"[:4] + "22112"),
        ("אב a-b.", 1, "1112221"),
        ("سل 1,2", 1, "111222"),
        ("ab ", 1, "221"),
    ],
)
def test_directions_follow_the_unicode_bidirectional_algorithm(text, base, levels):
    assert bidi_levels([ord(character) for character in text], base) == [int(level) for level in levels]


def test_clusters_are_never_parted():
    text = "e\u0301" * 100
    document = Typesetter(GRID).typeset(text)
    assert [line.end - line.start for line in document.lines] == [80, 80, 40]
    assert document.boxes(0, 1) == document.boxes(1, 2) == document.boxes(0, 2)
    assert document.boxes(2, 3)[0][1] == pytest.approx((6, 0, 12, 12))


def test_fallback_fonts_are_asked_in_turn():
    chain = FontChain(replace(GRID, fallback_font_paths=(BUNDLED_SANS,)))
    assert [face.path for face in chain.faces] == [BUNDLED_MONO, BUNDLED_SANS]
    assert chain.find(ord("a"))[0] == 0
    assert chain.find(0x1F600)[0] == 1
    assert chain.find(ord("中")) is None


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


def test_reportlab_lines_run_over_by_a_twentieth_of_their_spaces():
    # Ten words of three figures and nine spaces: 39 columns; the spaces may give up 0.45 of a column.
    for columns, lines in ((39, 1), (38.6, 1), (38.5, 2)):
        config = replace(GRID, page_width=6 * columns, line_breaking="reportlab")
        document = Typesetter(config).typeset(" ".join(["123"] * 10))
        assert len(document.lines) == lines
        assert document.lines[0].box[2] <= 6 * columns + 1e-6
    assert len(Typesetter(replace(GRID, page_width=6 * 38.6)).typeset(" ".join(["123"] * 10)).lines) == 2


def test_reportlab_drops_leading_spaces_and_never_breaks_runs_of_spaces():
    config = replace(GRID, page_width=6 * 10, line_breaking="reportlab")
    document = Typesetter(config).typeset(" ab\ncd efg  hij")
    assert line_texts(document) == ["ab", "cd", "efg  hij"]


def test_reportlab_begins_a_long_word_on_the_line_before():
    config = replace(GRID, page_width=6 * 10, line_breaking="reportlab")
    assert line_texts(Typesetter(config).typeset("ab " + "x" * 18)) == ["ab xxxxxxx", "x" * 10, "x"]
    plain = Typesetter(replace(config, line_breaking="plain")).typeset("ab " + "x" * 18)
    assert line_texts(plain) == ["ab", "x" * 10, "x" * 8]


def test_one_cjk_character_switches_reportlab_to_breaking_by_characters():
    config = replace(GRID, page_width=6 * 10, line_breaking="reportlab")
    assert line_texts(Typesetter(config).typeset("ab cdef  ghi jk")) == ["ab", "cdef  ghi", "jk"]
    assert line_texts(Typesetter(config).typeset("ab cdef ghi jk\n中")) == ["ab cdef ", "ghi jk", "中"]
    assert line_texts(Typesetter(config).typeset("中" * 10 + "。" + "中")) == ["中" * 10 + "。", "中"]


GLYPH_JSON = {
    "page-size": "595,842",
    "dpi": 72,
    "margin-x": 10,
    "margin-y": 10,
    "font-path": "fonts/Own.ttf",
    "font-size": 9,
    "line-height": 10,
    "font-color": "#000000",
    "alignment": "LEFT",
    "horizontal-scale": 1.0,
    "first-line-indent": 0,
    "left-indent": 0,
    "right-indent": 0,
    "space-after": 0,
    "space-before": 0,
    "border-width": 0,
    "border-padding": 0,
    "page-bg-color": "#FFFFFF",
    "para-bg-color": "#FFFFFF",
    "auto-crop-width": True,
    "auto-crop-last-page": True,
}


def test_glyph_settings_are_read(tmp_path):
    (tmp_path / "fonts").mkdir()
    (tmp_path / "fonts" / "Own.ttf").write_bytes(Path(BUNDLED_SANS).read_bytes())
    path = tmp_path / "config.json"
    path.write_text(json.dumps(GLYPH_JSON))
    config = RenderConfig.from_glyph(path)
    assert config.font_path == str(tmp_path / "fonts" / "Own.ttf")
    assert (config.page_width, config.page_height, config.text_width) == (595, 842, 563)
    assert config.auto_crop_width and config.auto_crop_last_page
    document = Typesetter(config).typeset("word\n" * 82)
    assert document.page_lines(0) == (0, 81)
    baseline = document.line_tops[0] + document.fonts.ascent
    assert baseline == pytest.approx(25)
    assert document.lines[0].box[0] == 16


def test_glyph_defaults_and_newline_marks():
    config = RenderConfig.from_glyph({"font-size": 10})
    assert (config.alignment, config.line_height, config.margin_x) == ("JUSTIFY", 11, 20)
    assert (config.page_width, config.page_height) == pytest.approx((595.2756, 841.8898), abs=1e-3)
    assert config.newline_markup is None
    assert RenderConfig.from_glyph({"newline-markup": "<br/>"}).newline_markup is None
    marked = RenderConfig.from_glyph({"newline-markup": '<font color="#FF0000"> \\n </font>'})
    assert (marked.newline_markup, marked.newline_color) == (" \\n ", "#FF0000")
    document = Typesetter(marked).typeset("\n".join(["ab"] * 31))
    assert document.display.count("\\n") == 29, "every thirtieth newline ends a paragraph instead"
    assert len({int(paragraph) for paragraph in document.line_paragraphs}) == 2


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"font-szie": 9}, "unknown Glyph setting 'font-szie'"),
        ({"page-size": "595"}, "page-size='595'"),
        ({"newline-markup": "<b>x</b>"}, "newline-markup='<b>x</b>'"),
    ],
)
def test_glyph_mistakes_are_named(source, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        RenderConfig.from_glyph(source)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"page_width": 0}, "page_width=0 must be greater than 0"),
        ({"dpi": float("nan")}, "dpi=nan is not a finite number"),
        ({"margin_x": -1}, "margin_x=-1 must not be negative"),
        ({"font_size": "9"}, "font_size='9' is not a finite number"),
        ({"margin_x": 119}, "font_size=9.9659"),
        ({"margin_y": 55}, "line_height=12 does not fit the 10 points"),
        ({"font_color": "red"}, "font_color='red' is not a colour"),
        ({"alignment": "left"}, "alignment='left' is unknown; choose one of LEFT"),
        ({"line_breaking": "tex"}, "line_breaking='tex' is unknown"),
        ({"page_multiple": 0}, "page_multiple=0 must be a whole number of at least 1"),
        ({"lines_per_paragraph": 1.5}, "lines_per_paragraph=1.5"),
        ({"newline_markup": " "}, "newline_markup=' ' must be visible text"),
        ({"newline_markup": "a\nb"}, "must be visible text on one line"),
        ({"dpi": 72000}, "page_width=240 at dpi=72000 makes 240000 pixels"),
        ({"fallback_font_paths": "a.ttf"}, "fallback_font_paths='a.ttf' is one path"),
    ],
)
def test_config_mistakes_are_named(change, message):
    with pytest.raises(ValueError, match=re.escape(message[:40])):
        replace(GRID, **change)


def test_fonts_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no/such\.ttf.*font_path=None"):
        Typesetter(replace(GRID, font_path="no/such.ttf"))
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"not a font")
    with pytest.raises(ValueError, match=r"broken\.ttf.*no glyph outlines"):
        Typesetter(replace(GRID, font_path=str(broken)))


def test_config_goes_to_json_and_back():
    config = replace(GLYPH_MARKED, fallback_font_paths=[BUNDLED_SANS])
    assert RenderConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert set(config.to_dict()) == {field.name for field in fields(RenderConfig)}
    with pytest.raises(ValueError, match="unknown RenderConfig key 'font-size'"):
        RenderConfig.from_dict({"font-size": 9})


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


def rows_of(config, text):
    document = Typesetter(config).typeset(text)
    top = document.line_tops[0]
    return [
        (
            line.page,
            round((document.line_tops[number] - top) / config.line_height),
            document.text[line.start : line.end],
        )
        for number, line in enumerate(document.lines)
    ]


# Five rows a page, paragraphs of four lines; what follows was read off pages that reportlab made.
ROWS = replace(GRID, page_height=60, line_breaking="reportlab", lines_per_paragraph=4)


def test_reportlab_begins_a_page_with_an_empty_row_where_it_parts_a_paragraph_at_a_newline():
    rows = rows_of(ROWS, "\n".join("abcdefgh"))
    assert rows == [(0, n, "abcd"[n]) for n in range(4)] + [(1, n, "efgh"[n]) for n in range(4)]
    rows = rows_of(ROWS, "\n".join("abcdefgh") + "\n")
    assert rows[4] == (1, 0, "e"), "a paragraph's first line does not stay alone at the foot"
    tall = replace(ROWS, page_height=72)
    assert rows_of(tall, "\n".join("abcdefgh"))[5:8] == [(0, 5, "f"), (1, 1, "g"), (1, 2, "h")]
    wrapped = "a\nb\nc\nd\ne\n" + "x" * 39 + " y\ng\nh"
    assert rows_of(tall, wrapped)[5:8] == [(0, 5, "x" * 39), (1, 0, "y"), (1, 1, "g")], "not where it parts a line"


def test_reportlab_draws_no_empty_line_at_a_paragraphs_end():
    assert [row for _, row, _ in rows_of(replace(ROWS, page_height=120), "a\n\nc\n\ne\nf")] == [0, 1, 2, 3, 4]
    assert [text for _, _, text in rows_of(ROWS, "a\n\nc\n\ne\nf")] == ["a", "", "c", "e", "f"]


def test_reportlab_makes_one_space_of_tabs_and_single_spaces():
    config = replace(GRID, line_breaking="reportlab")
    document = Typesetter(config).typeset("\ta \t b\t\tc")
    assert [document.boxes(at, at + 1)[0][1][0] for at in (1, 5, 8)] == pytest.approx([0, 12, 24])
    assert document.boxes(3, 4) == []
