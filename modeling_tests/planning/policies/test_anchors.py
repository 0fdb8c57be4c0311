# SPDX-License-Identifier: Apache-2.0
"""What a vision encoder misreads is copied, with what makes sense of it."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from growth import check_growth
from planning_samples import Pages, page_tokens, plan, texts

from transformers_hybridctx.planning.budget import ContextBudget
from transformers_hybridctx.planning.planner import ContextPlanner
from transformers_hybridctx.planning.policies.anchors import AnchorsPolicy
from transformers_hybridctx.planning.sentences import sentence_starts


def test_anchors_bring_their_sentences_and_the_best_come_first() -> None:
    assert texts(plan(policy=AnchorsPolicy(rare_words=False), max_text_tokens=22)) == [
        "The magic number for green-lemur is 4821930."
    ]
    everything = " ".join(texts(plan(policy="anchors")))
    assert "Call 555-0199 to hear more." in everything
    assert "She met Zebulon there." in everything


@pytest.mark.parametrize(
    "anchor",
    [
        "4821930",
        "1,234,567.89",
        "2024-01-02T10:11:12",
        "3f2a9c1e-77b0-4c1d-9e55-0a1b2c3d4e5f",
        "0xDEADBEEF42",
        "maxContextTokens",
        "max_context_tokens",
        "alice.b@example.org",
        "https://example.org/a/b?c=d",
        "AB-12-XY-7",
        "٤٨٢١٩٣٠",
        "☃☃",
    ],
)
def test_strings_that_are_easily_misread_are_anchors(anchor: str) -> None:
    filler = "It was the age of wisdom and of foolishness. " * 4
    made = plan(f"{filler}And so the thing to keep is {anchor} for now. {filler}", policy="anchors")
    assert any(f"the thing to keep is {anchor} for now." in text for text in texts(made))
    assert sum(map(len, texts(made))) < 120


def test_ordinary_prose_has_no_anchors() -> None:
    assert plan("it was the best of times and it was the worst of times. " * 5, policy="anchors").spans == ()


def test_an_anchor_in_a_long_sentence_brings_words_on_both_sides_and_is_not_cut() -> None:
    words = "and so they went on and on " * 40
    code = "K9-" + "7" * 200
    made = plan(f"{words} key {code} end {words}", policy="anchors")
    (span,) = made.spans
    assert f" key {code} end " in span.text
    assert len(span.text) < 600
    assert not made.spans[0].text[0].isspace()


def test_text_that_no_font_can_draw_is_copied_sentence_by_sentence() -> None:
    text = "☃☃☃☃☃☃☃☃☃☃☃☃☃☃☃☃☃☃☃☃☃☃☃☃☃☃☃☃☃☃☃☃☃。☃☃☃☃☃☃☃☃☃☃☃☃☃☃☃☃☃☃☃☃☃☃☃☃☃☃☃☃☃☃☃ 2024 ☃。"
    ranked = AnchorsPolicy().rank(Pages(text))
    assert [text[start:end] for start, end in sorted(ranked)] == [text[:34], text[34:]]


def test_a_number_alone_on_its_line_brings_the_line_before() -> None:
    assert texts(
        plan("First things first and nothing else here.\nTotal price:\n9931\nThank you.", policy="anchors")
    ) == ["Total price:\n9931"]


def test_anchors_beyond_the_budget_are_reported() -> None:
    made = plan("☃ stands here alone, and one more. Then 482193 is here. " * 6, policy="anchors", max_text_tokens=30)
    assert any(piece.reason == "not copied" for piece in made.omitted)
    assert any(piece.reason == "undrawable" for piece in made.omitted)
    assert made.omitted_characters > 0


def test_a_rare_kind_of_code_goes_before_a_thousand_timestamps() -> None:
    lines = [
        f"2024-01-02 10:{minute % 60:02d}:{minute % 59:02d} request served in {minute} ms" for minute in range(600)
    ]
    lines.insert(300, "2024-01-02 10:00:00 the launch code is ZX-4471-QQ")
    (first, *_) = texts(plan("\n".join(lines), policy="anchors", max_text_tokens=40))
    assert "ZX-4471-QQ" in first


@pytest.mark.parametrize(
    "blob", ["." * 200_000, " " * 200_000 + "x", "a@" * 100_000, "-" * 200_000, "\n" * 50_000 + "x1234"]
)
def test_monotonous_text_is_not_scanned_again_from_each_character(blob: str) -> None:
    """With a quadratic scan this would not end."""
    assert sentence_starts(blob)[0] == 0
    ranked = AnchorsPolicy().rank(Pages(blob))
    assert all(0 <= start < end <= len(blob) for start, end in ranked)


@pytest.mark.parametrize(
    "anchor",
    ["AB\u00ad12\u200b345", unicodedata.normalize("NFD", "Zéphyrinétés2024"), "ＡＢ１２３４", "ﬁ-4711-ﬂ"],
)
def test_an_anchor_in_another_form_is_whole_and_copied_as_the_document_has_it(anchor: str) -> None:
    filler = "It was the age of wisdom and of foolishness. " * 4
    (text,) = texts(
        plan(f"{filler}Now {anchor} is the thing to be kept. {filler}", policy=AnchorsPolicy(rare_words=False))
    )
    assert text == f"Now {anchor} is the thing to be kept."


def test_a_name_that_is_written_in_two_forms_is_not_rare() -> None:
    forms = [unicodedata.normalize(form, "Zéphyrinété") for form in ("NFC", "NFD")]
    text = "".join(f"So it was that {form} went on. It was so. " for form in forms)
    assert plan(text, policy="anchors").spans == ()


NUMBERS = [
    lambda n: " ".join(map(str, range(10**6, 10**6 + n))),
    lambda n: "\n".join(map(str, range(10**6, 10**6 + n))),
    lambda n: "☃ a. " * n,
    lambda n: "Nemo " * n,
]


@pytest.mark.parametrize("make", NUMBERS)
@pytest.mark.parametrize("limit", [None, 500])
def test_a_plan_of_nothing_but_anchors_takes_time_in_proportion(make: Any, limit: int | None) -> None:
    check_growth(lambda text: plan(text, policy="anchors", max_text_tokens=limit), make, 2_000)


@pytest.mark.parametrize("gap", [" " * 40, "\n" * 40])
def test_white_space_that_costs_more_than_a_label_takes_time_in_proportion(gap: str) -> None:
    """Merged spans are then longer than their parts, and some have to be given back."""
    planner = ContextPlanner(lambda texts: [list(map(ord, text)) for text in texts], page_tokens)

    def work(text: str) -> None:
        budget = ContextBudget(max_text_tokens=len(text) // 2)
        made = planner.plan(Pages(text), None, budget, AnchorsPolicy(), lambda *_: 9, 0, 0)
        assert 0 < made.text_tokens <= len(text) // 2

    check_growth(work, lambda n: gap.join(f"4711{number}" for number in range(n)), 500)
