# SPDX-License-Identifier: Apache-2.0
"""Scripts that are joined, stacked, or run from right to left."""

import re
from dataclasses import replace

import numpy as np
import pytest
from render_layouts import GRID

from transformers_hybridctx.rendering.bidirectional import bidi_levels
from transformers_hybridctx.rendering.fonts import FontChain
from transformers_hybridctx.rendering.settings import BUNDLED_MONO, BUNDLED_SANS
from transformers_hybridctx.rendering.typesetting import Typesetter


def test_arabic_is_joined_and_runs_right_to_left():
    document = Typesetter(GRID).typeset("سلام")
    lefts = [document.boxes(at, at + 1)[0][1][0] for at in range(4)]
    assert lefts[0] > lefts[1] == lefts[2] > lefts[3], "lam and alef are one ligature, left of seen"
    isolated = FontChain(GRID)
    isolated.learn(np.array([ord("س")], dtype=np.uint32))
    assert document.layout.shaped.keys[0] != isolated.keys[ord("س")], "an initial form differs from the isolated one"
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


WORDS = "and then some more English words follow it, to the end of the line and beyond "


@pytest.mark.parametrize("mark", [None, "¶", " ¶ "])
@pytest.mark.parametrize(
    ("text", "turned"),
    [
        ("سلام is a greeting. " + WORDS * 3, set()),  # the first letter alone does not decide
        (WORDS + "سلام " + WORDS + "سلام " + WORDS, set()),  # nor does the first of a line
        (WORDS * 2 + "\n" + "שלום עולם " * 20 + "\n" + WORDS * 2, {"ש", "ע"}),
        ("Python שלום עולם שלום עולם", {"P"}),
        ("abc שלו", set()),  # as many letters of both: the first one decides
        ("שלו abc", {"ש"}),
        ("שלום עולם " * 8 + "1234 5678 " * 8, {"ש", "ע", "1", "5"}),  # figures go with their paragraph
    ],
)
def test_a_paragraph_runs_in_the_direction_of_most_of_its_letters(text, turned, mark):
    document = Typesetter(replace(GRID, newline_markup=mark)).typeset(text)
    ways = zip(document.lines, document.line_table.directions.tolist(), strict=True)
    for line, way in ways:
        drawn_with_others = mark is not None and "\n" in text[max(line.start - 1, 0) : line.end]
        assert (way == 2) == (text[line.start] in turned) or drawn_with_others


def test_unpaired_brackets_keep_the_direction_of_their_line():
    deep = "a" + "(" * 70 + "א" + ")" * 70
    levels = bidi_levels([ord(character) for character in deep], 0)
    assert len(levels) == len(deep)
    assert levels[0] == 0
