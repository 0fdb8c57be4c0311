# SPDX-License-Identifier: Apache-2.0
"""Lines by the plain rules."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from render_layouts import GRID, MARKED, WORD_MARKED, line_texts

from transformers_hybridctx.rendering.rasterizing import PageRenderer
from transformers_hybridctx.rendering.settings import BUNDLED_SANS, RenderConfig
from transformers_hybridctx.rendering.typesetting import Typesetter


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


def test_tabs_go_to_multiples_of_eight_columns():
    [(_, box)] = Typesetter(GRID).typeset("a\tb").boxes(2, 3)
    assert box[0] == pytest.approx(8 * 6)


def test_cjk_breaks_between_characters_but_not_before_closing_punctuation():
    config = replace(GRID, page_width=6 * 5)
    assert line_texts(Typesetter(config).typeset("中文中文中文中文")) == ["中文中文中", "文中文"]
    assert line_texts(Typesetter(config).typeset("中文中文中。文")) == ["中文中文", "中。文"]
    assert line_texts(Typesetter(config).typeset("中文中文「文」")) == ["中文中文", "「文」"]
    assert line_texts(Typesetter(config).typeset("中文abc文")) == ["中文abc", "文"]


# Tab stops and soft hyphens


def left_edges(text: str, wanted: str, config: RenderConfig = GRID) -> list[float]:
    document = Typesetter(config).typeset(text)
    return [document.boxes(at, at + 1)[0][1][0] for at, one in enumerate(text) if one == wanted]


def test_tabs_go_to_the_next_of_stops_that_are_eight_blanks_apart() -> None:
    assert len(set(left_edges("a\tb\nlonger\tb\n\tb", "b"))) == 1
    (first, second) = left_edges("a\tb\t\tb", "b")
    assert second - first == pytest.approx(2 * (first - left_edges("a", "a")[0]))
    assert left_edges("12345678\tb", "b") == left_edges("                b", "b")


@settings(max_examples=60)
@given(st.lists(st.lists(st.text("aiW.", max_size=9), min_size=1, max_size=4), min_size=1, max_size=4))
def test_tabs_end_at_a_stop_and_are_at_least_a_blank_wide(rows: list[list[str]]) -> None:
    config = RenderConfig(page_width=4000, font_path=BUNDLED_SANS)
    text = "\n".join("\t".join(row) for row in rows) + "."
    typesetter = Typesetter(config)
    document = typesetter.typeset(text)
    blank = typesetter.fonts.space_advance / typesetter.fonts.units * config.font_size
    for at, one in enumerate(text):
        if one == "\t" and text[at + 1] not in "\t\n":
            (_, before), (_, after) = document.boxes(at, at + 1)[0], document.boxes(at + 1, at + 2)[0]
            assert before[2] - before[0] >= blank - 1e-6
            stops = (after[0] - config.margin_x) / (8 * blank)
            assert stops == pytest.approx(round(stops), abs=1e-6)


def test_a_line_that_ends_at_a_soft_hyphen_shows_a_hyphen() -> None:
    text = "\u00ad".join(["sylla", "bles"] * 8)
    config = RenderConfig(page_width=120, font_path=BUNDLED_SANS)
    renderer = PageRenderer(config)
    document = renderer.typeset(text)
    ends = [line.end for line in document.lines]
    assert len(ends) > 2
    assert all(text[end - 1] == "\u00ad" for end in ends[:-1])
    shown = [at for at in range(len(text)) if text[at] == "\u00ad" and document.boxes(at, at + 1)]
    assert shown == [end - 1 for end in ends[:-1]]
    assert max(line.box[2] for line in document.lines) <= 120 - config.margin_x + 1e-6
    plain = "\n".join(text[line.start : line.end].replace("\u00ad", "") + "-" for line in document.lines)[:-1]
    assert np.array_equal(renderer.draw_page(document, 0), renderer.draw_page(renderer.typeset(plain), 0))


def test_soft_hyphens_inside_of_lines_are_not_seen() -> None:
    renderer = PageRenderer(RenderConfig())
    soft = renderer.draw_page(renderer.typeset("re\u00adfrige\u00adrator a\u00ad b"), 0)
    assert np.array_equal(soft, renderer.draw_page(renderer.typeset("refrigerator a b"), 0))


@settings(max_examples=80)
@given(st.text("aiW \u00ad", min_size=1, max_size=60).filter(lambda text: text.strip(" \u00ad")))
def test_hyphens_of_divided_words_stay_within_their_lines(text: str) -> None:
    config = RenderConfig(page_width=60, font_path=BUNDLED_SANS)
    document = Typesetter(config).typeset(text)
    inside = config.page_width - config.margin_x + 1e-6
    assert all(line.box[2] <= inside for line in document.lines)
    covered = "".join(text[line.start : line.end] for line in document.lines)
    assert covered.replace(" ", "") == text.replace(" ", "")
