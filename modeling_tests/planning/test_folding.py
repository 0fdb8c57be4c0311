# SPDX-License-Identifier: Apache-2.0
"""Texts in one form: what readers take for the same is the same, and every piece knows where it comes from."""

from __future__ import annotations

import unicodedata

import pytest
from growth import check_growth
from hypothesis import given
from hypothesis import strategies as st

from transformers_hybridctx.planning.folding import FoldedText, folded


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (unicodedata.normalize("NFD", "Zéphyrinété"), "Zéphyrinété"),
        (unicodedata.normalize("NFD", "한국어"), "한국어"),
        ("re\u00adfrige\u00adrator", "refrigerator"),
        ("refri\u200bgera\ufefftor", "refrigerator"),
        ("ﬁreﬂy", "firefly"),
        ("ＡＢＣ１２３", "ABC123"),
        ("plain", "plain"),
        ("हिन्दी", "हिन्दी"),
    ],
)
def test_words_that_look_alike_are_one_word(written: str, meant: str) -> None:
    text = FoldedText(f"one {written} two")
    assert text.text == f"one {meant} two"
    assert text.original(4, 4 + len(meant)) == (4, 4 + len(written))
    assert text.original(0, 3) == (0, 3)
    assert text.original(len(text.text) - 3, len(text.text)) == (len(f"one {written} "), len(f"one {written} two"))


def test_case_and_what_groups_the_digits_of_a_number_make_no_difference() -> None:
    assert folded("STRASSE") == folded("Straße")
    assert folded("1\u202f234\u202f567") == folded("1'234'567") == "1234567"
    assert folded("it's 12'34") == "it's 12'34"


def test_signs_that_are_no_letters_stay_as_they_are() -> None:
    assert FoldedText("“…” 中，文。 \u0001\ud83d").text == "“…” 中，文。 \u0001\ud83d"


@given(st.text(alphabet="ab1ｆﬁé\u0301\u0323\u00ad\u200b ᄒ\u1161\u11ab中，", max_size=16))
def test_the_pieces_of_a_folded_text_lie_in_the_original_in_order(text: str) -> None:
    made = FoldedText(text)
    pieces = [made.original(index, index + 1) for index in range(len(made.text))]
    assert all(0 <= start < end <= len(text) for start, end in pieces)
    assert pieces == sorted(pieces)
    for (start, end), char in zip(pieces, made.text, strict=True):
        assert char in FoldedText(text[start:end]).text


@pytest.mark.parametrize("pattern", ["中，", "e\u0301", "\u0301", "ｆ", "a\u00ad", "ᄒ\u1161", "1\u202f234"])
def test_folding_takes_time_in_proportion(pattern: str) -> None:
    check_growth(folded, lambda n: pattern * n, 10_000)
