# SPDX-License-Identifier: Apache-2.0
"""What is folded away for matching, and that every folded character knows its own."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transformers_hybridctx.grounding.borders import word_borders
from transformers_hybridctx.grounding.folding import fold, fold_piece


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("  two  blanks\n\tand\u00a0a tab \n", "two blanks and a tab"),
        ("an exam-\nple", "an example"),
        ("an exam-\r\n    ple", "an example"),
        ("well-\nknown, a well-known one", "well-known, a well-known one"),
        ("550e8400-\ne29b-41d4", "550e8400-e29b-41d4"),
        ("from 1990-\n1995", "from 1990-1995"),
        ("Anglo-\nSaxon", "Anglo-Saxon"),
        ("a dash -\nthen more", "a dash - then more"),
        ("soft\u00adhyphen and soft\u00ad\nhyphen", "softhyphen and softhyphen"),
        ("zero\u200bwidth, \u202bright to left\u202c", "zerowidth, right to left"),
        ("他们走\n进了图书馆", "他们走进了图书馆"),
        ("서울\n도쿄", "서울 도쿄"),
        ("“typographic” ‘quotes’ «and» ’tis", '"typographic" \'quotes\' "and" \'tis'),
        ("eﬃcient ﬁne ﬂow… 1990–1995", "efficient fine flow... 1990-1995"),
        ("Cafe\u0301 a\u030a\u0323", "Café ạ\u030a"),
        ("\u1112\u1161\u11ab\u1100\u1173\u11af", "한글"),
        ("\u212b e\u00ad\u0301 ﬁ\u00ad\u0301", "Å é fí"),
        ("ﻼ ﻣﺮ", "لا مر"),
        ("שׁלום \ufb4b", "שׁלום וֹ"),
        ("", ""),
        (" \n\t\u00ad", ""),
        ("\u0301x", "\u0301x"),
    ],
)
def test_what_typography_adds_is_folded_away(text: str, folded: str) -> None:
    assert fold(text).text == folded


@pytest.mark.parametrize(
    ("text", "said", "found"),
    [
        ("an exam-\nple here", "example", "exam-\nple"),
        ("one  two\n three", "two three", "two\n three"),
        ("a soft\u00adhyphen", "softhyphen", "soft\u00adhyphen"),
        ("\u202bword\u202c end", "word", "word"),
        ("Cafe\u0301s", "Cafés", "Cafe\u0301s"),
        ("the ﬁne print", "fine", "ﬁne"),
        ("he said “no”", '"no"', "“no”"),
    ],
)
def test_a_folded_span_knows_what_it_stands_for(text: str, said: str, found: str) -> None:
    folded = fold(text)
    start = folded.text.index(said)
    first, last = folded.raw_span(start, start + len(said))
    assert text[first:last] == found


PIECES = st.sampled_from(
    [*"ab12 -’“\n", "\u0301", "\u00ad", "ﬁ", "\u1112\u1161\u11ab", "走", "e", "\r\n", "\u200f", "é", "…"]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=30).map("".join))
def test_folding_keeps_order_and_loses_no_letter(text: str) -> None:
    folded = fold(text)
    assert unicodedata.is_normalized("NFC", folded.text)
    assert "  " not in folded.text and "\n" not in folded.text and folded.text == folded.text.strip()
    spans = [folded.raw_span(index, index + 1) for index in range(len(folded.text))]
    assert spans == sorted(spans)
    covered = {index for start, end in spans for index in range(start, end)}
    assert not [char for index, char in enumerate(text) if index not in covered and char.isalnum()]
    for (start, end), char in zip(spans, folded.text):
        assert char in fold_piece(text[start:end]) or char in "- "


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("green-lemur", range(1, 11)),
        ("it's 1,234 at 10:11", [1, 2, 3, 6, 7, 8, 9, 12, 15, 16, 17, 18]),
        ("one, two", [1, 2, 6, 7]),
        ("http://a.b/c?d=e", range(1, 16)),
        ("end. Next", [1, 2, 6, 7, 8]),
        ("(a)", []),
        ("图书馆 ab", [5]),
        ("हिन्दी", range(1, 6)),
        ("e\u0301a\u0301", [1, 2, 3]),
        ("👩\u200d👧 👍🏽", [1, 2, 5]),
        ("🇮🇸", [1]),
        ("سلام!", [1, 2, 3]),
        ("a", []),
        ("", []),
        ("\u0301", []),
    ],
)
def test_words_and_codes_have_no_border_inside(text: str, inside: object) -> None:
    borders = word_borders(text)
    assert [index for index in range(len(text) + 1) if not borders[index]] == list(inside)  # type: ignore[call-overload]
