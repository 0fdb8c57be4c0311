# SPDX-License-Identifier: Apache-2.0
"""Lines and pages as reportlab makes them."""

from dataclasses import replace

import pytest
from render_layouts import GRID, line_texts

from transformers_hybridctx.rendering.typesetting import Typesetter


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


def rows_of(config, text):
    document = Typesetter(config).typeset(text)
    top = document.line_table.tops[0]
    return [
        (
            line.page,
            round((document.line_table.tops[number] - top) / config.line_height),
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
