# SPDX-License-Identifier: Apache-2.0
"""Budgets, plans and text policies, against a document and a tokenizer that a reader can count by hand."""

from __future__ import annotations

import logging
import pickle
import random
import re
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transformers_hybridctx.planning.context_planning import (
    TEXT_POLICIES,
    AnchorsPolicy,
    BM25Policy,
    ContextBudget,
    ContextBudgetError,
    ContextPlan,
    ContextPlanner,
    SpanTokens,
    TextPolicy,
    encodable,
    register_text_policy,
    resolve_text_policy,
)
from transformers_hybridctx.planning.ranked_policies import bm25_words
from transformers_hybridctx.planning.sentences import sentence_starts
from transformers_hybridctx.planning.text_policies import Selection, page_ranges


@dataclass
class Pages:
    """A document of pages of 100 characters, 100 x 100 pixels at scale 1, without a font for '☃'."""

    text: str
    num_pages: int = field(init=False)

    def __post_init__(self) -> None:
        self.num_pages = max(1, -(-len(self.text) // 100))

    @property
    def undrawable(self) -> list[tuple[int, str]]:
        return [(index, char) for index, char in enumerate(self.text) if char in "☃\ud83d"]

    def page_size(self, page: int, scale: float = 1.0) -> tuple[int, int]:
        return round(100 * scale), round(100 * scale)

    def page_of(self, char_index: int) -> int:
        return char_index // 100

    def page_span(self, page: int) -> tuple[int, int]:
        return page * 100, min(len(self.text), page * 100 + 100)


def encode(texts: list[str]) -> list[list[int]]:
    """Tokens of up to four letters, two signs or a run of newlines: those of parts do not add up to the whole's."""
    return [[hash(token) for token in re.findall(r"\w{1,4}|[^\w\s]{1,2}|\n+", text)] for text in texts]


def page_tokens(height: int, width: int) -> int:
    """One token for every 10 x 10 pixels."""
    return (height // 10) * (width // 10)


PLANNER = ContextPlanner(encode, page_tokens)
TEMPLATE = {(False, False): 8, (False, True): 9, (True, False): 12, (True, True): 13}
QUESTION = "Where is the green-lemur code?"

PROSE = (
    "It was the best of times, it was the worst of times, it was the age of wisdom. "
    "The magic number for green-lemur is 4821930. Nobody knew why. "
    "It was the epoch of belief, it was the epoch of incredulity, it was the season of light. "
    "Call 555-0199 to hear more. It was the season of darkness, it was the spring of hope. "
    "She met Zebulon there. We had everything before us, we had nothing before us. "
)


def plan(
    text: str = PROSE,
    policy: str | dict[str, Any] | TextPolicy = "anchors",
    question: str | None = QUESTION,
    **budget: Any,
) -> ContextPlan:
    document = Pages(text)
    return PLANNER.plan(
        document,
        question,
        ContextBudget(**budget),
        resolve_text_policy(policy),
        lambda pages, spans: TEMPLATE[pages, spans],
        question_tokens=len(encode([question or ""])[0]),
        document_tokens=len(encode([encodable(text)])[0]),
    )


def texts(made: ContextPlan) -> list[str]:
    return [span.text for span in made.spans]


# Budgets


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"max_context_tokens": -1}, "max_context_tokens=-1"),
        ({"max_text_tokens": 1.5}, "max_text_tokens=1.5"),
        ({"visual_share": 1.2}, "visual_share=1.2"),
        ({"min_scale": 0}, "min_scale=0"),
        ({"min_scale": 2.0, "max_scale": 1.0}, "min_scale=2.0"),
    ],
)
def test_a_budget_that_makes_no_sense_names_its_field(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=re.escape(named)):
        ContextBudget(**fields)


def test_a_budget_is_read_from_plain_json_and_unknown_fields_are_named() -> None:
    assert ContextBudget.of({"max_context_tokens": 9}) == ContextBudget(max_context_tokens=9)
    assert ContextBudget.of(None) == ContextBudget()
    with pytest.raises(ValueError, match=r"'max_tokens'.*max_context_tokens"):
        ContextBudget.of({"max_tokens": 9})
    with pytest.raises(TypeError, match="9"):
        ContextBudget.of(9)  # type: ignore[arg-type]


def test_a_request_fills_its_gaps_from_the_default_and_moves_a_default_scale_aside() -> None:
    default = ContextBudget(max_text_tokens=100, min_scale=1.0, max_scale=1.0)
    assert ContextBudget(max_context_tokens=5).filled_from(default) == ContextBudget(
        max_context_tokens=5, max_text_tokens=100, min_scale=1.0, max_scale=1.0
    )
    assert ContextBudget(max_scale=0.6).filled_from(default).scales == (0.6, 0.6)
    assert ContextBudget(min_scale=2.0).filled_from(default).scales == (2.0, 2.0)


def test_candidate_scales_fall_from_the_largest_to_the_smallest_in_hundredths() -> None:
    assert list(ContextBudget(min_scale=0.975, max_scale=1.0).candidate_scales()) == [1.0, 0.99, 0.98, 0.975]
    assert list(ContextBudget(min_scale=1.0, max_scale=1.0).candidate_scales()) == [1.0]


# Scale and share


def test_without_a_limit_pages_have_the_largest_scale_and_all_anchors_are_copied() -> None:
    made = plan()
    assert made.scale == 1.0
    assert made.visual_tokens == 100 * made.num_pages
    assert made.total_tokens == made.visual_tokens + made.text_tokens + made.question_tokens + TEMPLATE[True, True]
    assert "The magic number for green-lemur is 4821930." in " ".join(texts(made))


def test_the_scale_is_the_largest_whose_pages_fit() -> None:
    made = plan(policy="none", max_context_tokens=300)
    room = 300 - TEMPLATE[True, False] - made.question_tokens
    assert made.visual_tokens <= room
    larger = round(made.scale + 0.01, 2)
    assert sum(page_tokens(*Pages(PROSE).page_size(page, larger)) for page in range(made.num_pages)) > room


def test_pages_shrink_for_the_spans_wished_for_but_not_below_the_smallest_scale() -> None:
    alone = plan(policy="none", max_context_tokens=460)
    hybrid = plan(policy="anchors", max_context_tokens=460)
    assert hybrid.scale < alone.scale
    assert hybrid.text_tokens > 0
    smallest = plan(policy="anchors", max_context_tokens=460, min_scale=0.9, max_scale=0.9)
    assert smallest.scale == 0.9


def test_visual_share_bounds_what_pages_take() -> None:
    made = plan(policy="tail", visual_share=0.5, max_context_tokens=420)
    room = 420 - TEMPLATE[True, False] - made.question_tokens
    assert made.visual_tokens <= room // 2
    assert made.text_tokens > 0


def test_visual_share_of_zero_means_tokens_only_and_of_one_pages_only() -> None:
    tokens_only = plan(policy="full", visual_share=0)
    assert (tokens_only.num_pages, tokens_only.visual_tokens) == (0, 0)
    assert "".join(texts(tokens_only)) == PROSE
    pages_only = plan(policy="full", visual_share=1)
    assert pages_only.spans == ()
    assert pages_only.total_tokens == pages_only.visual_tokens + pages_only.question_tokens + TEMPLATE[True, False]


def test_max_text_tokens_bounds_the_copied_text() -> None:
    assert 0 < plan(policy="anchors", max_text_tokens=30).text_tokens <= 30


def test_a_request_for_nothing_of_the_document_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing of the document"):
        plan(policy="none", visual_share=0)


# Budgets that cannot be met

REQUESTS: list[dict[str, Any]] = [
    {"policy": "anchors"},
    {"policy": "none"},
    {"policy": "full"},
    {"policy": "full", "visual_share": 0.7},
    {"policy": "full", "visual_share": 0},
    {"policy": "tail", "visual_share": 0},
    {"policy": "middle", "visual_share": 0},
    {"policy": "anchors", "visual_share": 0},
    {"policy": "bm25", "visual_share": 0},
    {"policy": "anchors", "visual_share": 0.3},
    {"policy": "tail", "visual_share": 1},
]


@pytest.mark.parametrize("request_", REQUESTS, ids=str)
def test_the_smallest_budget_that_an_error_names_works_and_one_token_less_does_not(request_: dict[str, Any]) -> None:
    with pytest.raises(ContextBudgetError) as caught:
        plan(**request_, max_context_tokens=15)
    smallest = caught.value.smallest
    assert str(smallest) in str(caught.value)
    assert plan(**request_, max_context_tokens=smallest).total_tokens <= smallest
    with pytest.raises(ContextBudgetError) as again:
        plan(**request_, max_context_tokens=smallest - 1)
    assert again.value.smallest == smallest


def test_a_question_that_alone_exceeds_the_budget_says_so() -> None:
    with pytest.raises(ContextBudgetError, match=r"the question .* alone"):
        plan(question="why " * 100, max_context_tokens=50)


def test_text_that_must_be_copied_and_exceeds_max_text_tokens_names_that_field() -> None:
    with pytest.raises(ContextBudgetError, match="max_text_tokens=10") as caught:
        plan(policy="full", max_text_tokens=10)
    assert caught.value.field == "max_text_tokens"
    assert plan(policy="full", max_text_tokens=caught.value.smallest).text_tokens == caught.value.smallest


def test_a_budget_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(ContextBudgetError("too small", 7)))
    assert (str(error), error.smallest, error.field) == ("too small", 7, "max_context_tokens")


@settings(max_examples=60, deadline=None)
@given(
    text=st.text(alphabet="ab 1.\nÄ中☃\ud83d-", min_size=1, max_size=400).filter(str.strip),
    policy=st.sampled_from(["full", "none", "tail", "middle", "anchors"]),
    share=st.sampled_from([None, 0, 0.2, 0.5, 0.9, 1]),
    limit=st.none() | st.integers(0, 600),
    text_limit=st.none() | st.integers(0, 200),
)
def test_every_plan_keeps_its_budget_and_accounts_for_every_character(
    text: str, policy: str, share: float | None, limit: int | None, text_limit: int | None
) -> None:
    request: dict[str, Any] = {"text": text, "policy": policy, "visual_share": share, "max_text_tokens": text_limit}
    try:
        made = plan(**request, max_context_tokens=limit)
    except ContextBudgetError as error:
        field_name = error.field
        assert error.smallest > (limit if field_name == "max_context_tokens" else text_limit)  # type: ignore[operator]
        return
    except ValueError as error:
        assert "nothing of the document" in str(error)
        return
    assert limit is None or made.total_tokens <= limit
    assert text_limit is None or made.text_tokens <= text_limit
    assert made.total_tokens == (
        made.visual_tokens
        + sum(len(encode([f"[page {span.page + 1}] {encodable(span.text)}\n"])[0]) for span in made.spans)
        + made.question_tokens
        + TEMPLATE[made.num_pages > 0, bool(made.spans)]
    )
    copied = {index for span in made.spans for index in range(span.start, span.end)}
    lost = {i for piece in made.omitted if piece.reason != "not copied" for i in range(piece.start, piece.end)}
    assert not copied & lost
    assert made.omitted_characters == len(lost)
    if made.num_pages:
        assert copied | lost >= {index for index, _ in Pages(text).undrawable}
    else:
        assert copied | lost == set(range(len(text)))
    assert all(span.text == text[span.start : span.end] for span in made.spans)
    assert all(before.end <= after.start for before, after in zip(made.spans, made.spans[1:], strict=False))


# Policies


def test_known_policies_are_named_when_an_unknown_one_is_asked_for() -> None:
    with pytest.raises(ValueError, match=r"'magic'.*anchors, attention, bm25, full, middle, none, tail"):
        resolve_text_policy("magic")
    with pytest.raises(ValueError, match=r"bm25.*bottom_k"):
        resolve_text_policy({"name": "bm25", "bottom_k": 3})
    with pytest.raises(TypeError, match="7"):
        resolve_text_policy(7)  # type: ignore[arg-type]
    assert resolve_text_policy({"name": "bm25", "top_k": 3}) == BM25Policy(top_k=3)


def test_a_policy_of_ones_own_can_be_registered_by_name() -> None:
    @register_text_policy
    class FirstWord(TextPolicy):
        name = "first-word"

        def select(self, costs: Any, limit: int | None) -> Selection:
            return Selection([(0, costs.document.text.index(" "))], [])

        def smallest(self, costs: Any) -> int | None:
            return 1

    try:
        assert texts(plan(policy="first-word")) == ["It"]
    finally:
        del TEXT_POLICIES["first-word"]


def test_full_copies_every_character_page_by_page() -> None:
    made = plan(policy="full")
    assert "".join(texts(made)) == PROSE
    assert [span.page for span in made.spans] == list(range(made.num_pages))


def test_full_with_a_knob_leaves_out_the_middle_where_it_must() -> None:
    with pytest.raises(ContextBudgetError):
        plan(policy="full", visual_share=0, max_context_tokens=80)
    made = plan(policy={"name": "full", "truncate": "middle"}, visual_share=0, max_context_tokens=80)
    (gap,) = made.omitted
    assert "".join(texts(made)) == PROSE[: gap.start] + PROSE[gap.end :]
    assert gap.reason == "absent"
    with pytest.raises(ValueError, match="'start'"):
        resolve_text_policy({"name": "full", "truncate": "start"})


def test_middle_keeps_both_ends_and_uses_its_budget() -> None:
    made = plan(policy="middle", visual_share=0, max_context_tokens=100)
    assert made.spans[0].start == 0
    assert made.spans[-1].end == len(PROSE)
    assert 90 < made.total_tokens <= 100
    assert plan(policy="middle", visual_share=0, max_context_tokens=10_000).omitted == ()


def test_tail_keeps_the_end_from_a_word_boundary() -> None:
    made = plan(policy="tail", visual_share=0, max_context_tokens=60)
    assert made.spans[-1].end == len(PROSE)
    assert PROSE[made.spans[0].start - 1] == " "
    assert 54 < made.total_tokens <= 60
    assert "".join(texts(plan(policy={"name": "tail", "max_chars": 30}))) == PROSE[-30:]


def test_cut_text_without_spaces_still_fills_its_budget() -> None:
    made = plan("中" * 300, policy="tail", visual_share=0, max_context_tokens=40, question="?")
    assert 30 < made.total_tokens <= 40


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


def test_bm25_copies_the_passages_that_answer_in_document_order() -> None:
    made = plan(PROSE * 8, policy={"name": "bm25", "passage_chars": 80, "top_k": 3})
    assert len(made.spans) <= 3
    assert all("green-lemur" in text for text in texts(made))
    assert [span.page for span in made.spans] == [span.start // 100 for span in made.spans]


def test_bm25_needs_words_in_its_question() -> None:
    with pytest.raises(ValueError, match=r"bm25.*question=None"):
        plan(policy="bm25", question=None)


def test_bm25_finds_passages_in_an_unspaced_script() -> None:
    text = "她在图书馆里读书。" * 20 + "密码是蓝色大象。" + "他们走进了花园。" * 20
    made = plan(text, policy={"name": "bm25", "passage_chars": 20, "top_k": 1}, question="密码是什么？")
    assert "密码是蓝色大象" in texts(made)[0]


def test_words_joined_by_hyphens_count_whole_and_in_parts() -> None:
    assert bm25_words("Green-Lemur") == ["green-lemur", "green", "lemur"]
    assert bm25_words("图书馆") == ["图书", "书馆"]


def test_bm25_is_quiet(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        plan(policy="bm25")
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_a_line_break_inside_running_prose_ends_no_sentence() -> None:
    text = "The number for\ngreen-lemur is 5. Dr. Who came.\n\nNew paragraph\n2024 log\n2025 log"
    starts = sentence_starts(text)
    pieces = [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]
    assert pieces == [
        "The number for\ngreen-lemur is 5. ",
        "Dr. Who came.\n\n",
        "New paragraph\n",
        "2024 log\n",
        "2025 log",
    ]


def test_page_ranges_tile_what_they_are_asked_for() -> None:
    assert page_ranges(Pages("a" * 250), (50, 250)) == [(50, 100), (100, 200), (200, 250)]


# Reports


def test_a_lone_surrogate_is_copied_as_its_escape_and_reported() -> None:
    made = plan("the mark \ud83d stands here, it does.", policy="full")
    assert made.escaped == ((9, "\ud83d"),)
    costs = SpanTokens(Pages("the mark \ud83d"), None, encode)
    assert costs.block((0, 10)) == "[page 1] the mark \\ud83d\n"


def test_the_summary_says_what_a_person_wants_to_know() -> None:
    made = plan(policy="anchors", max_context_tokens=500)
    summary = made.summary()
    for part in (
        f"{len(PROSE)} characters",
        f"{made.document_tokens} tokens as text",
        f"{made.visual_tokens} visual tokens",
        f"{made.text_tokens} tokens",
        f"{made.total_tokens} tokens",
        f"scale {made.scale:g}",
        f"{made.compression_ratio:.2f}",
    ):
        assert part in summary


@pytest.mark.parametrize(
    "blob", ["." * 200_000, " " * 200_000 + "x", "a@" * 100_000, "-" * 200_000, "\n" * 50_000 + "x1234"]
)
def test_monotonous_text_is_not_scanned_again_from_each_character(blob: str) -> None:
    """With a quadratic scan this would not end."""
    assert sentence_starts(blob)[0] == 0
    ranked = AnchorsPolicy().rank(Pages(blob))
    assert all(0 <= start < end <= len(blob) for start, end in ranked)


def test_the_same_request_gives_the_same_plan() -> None:
    text = PROSE * random.Random(3).randint(3, 5)
    assert plan(text, max_context_tokens=900) == plan(text, max_context_tokens=900)


def test_bm25_copies_a_short_document_whole_though_the_question_is_in_other_words() -> None:
    text = "合同编号是 4471-88。" * 3
    ranges = resolve_text_policy("bm25").rank(Pages(text), "What is the number?")
    assert sum(end - start for start, end in ranges) == len(text)
