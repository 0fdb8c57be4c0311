# SPDX-License-Identifier: Apache-2.0
"""Plans keep their budgets, to the token."""

from __future__ import annotations

import gc
import math
import random
import weakref
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning_samples import PLANNER, PROSE, QUESTION, TEMPLATE, Pages, encode, page_tokens, plan, texts

from transformers_hybridctx.planning.budget import ContextBudget, ContextBudgetError
from transformers_hybridctx.planning.plan import ContextPlan, encodable
from transformers_hybridctx.planning.planner import ContextPlanner
from transformers_hybridctx.planning.policies.anchors import AnchorsPolicy
from transformers_hybridctx.planning.policies.base import Selection, TextPolicy
from transformers_hybridctx.planning.policies.registry import resolve_text_policy
from transformers_hybridctx.rendering.rasterizing import PageRenderer
from transformers_hybridctx.rendering.settings import RenderConfig

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


def test_the_same_request_gives_the_same_plan() -> None:
    text = PROSE * random.Random(3).randint(3, 5)
    assert plan(text, max_context_tokens=900) == plan(text, max_context_tokens=900)


@pytest.mark.parametrize("pages", [1, 40])
def test_few_scales_are_tried_however_many_there_are(pages: int) -> None:
    tried = []

    def counted(height: int, width: int) -> int:
        tried.append((height, width))
        return page_tokens(height, width)

    budget = ContextBudget(max_context_tokens=1200 * pages, min_scale=0.01, max_scale=16.0)
    made = ContextPlanner(encode, counted).plan(
        Pages("a" * 100 * pages), None, budget, resolve_text_policy("none"), lambda *_: 0, 0, 0
    )
    assert 3 < made.scale < 4
    assert len(tried) <= 2 * math.log2(1600)


def test_ten_questions_about_one_document_rank_and_tokenise_its_spans_once() -> None:
    """The policy does not look at the question, so that a second one has nothing to find out."""
    ranked, encoded = [], []

    @dataclass(frozen=True)
    class Counted(AnchorsPolicy):
        def rank(self, document: Any, question: str | None = None) -> list[tuple[int, int]]:
            ranked.append(question)
            return super().rank(document, question)

    def counting(texts: list[str]) -> list[list[int]]:
        encoded.extend(texts)
        return encode(texts)

    planner, document = ContextPlanner(counting, page_tokens), Pages(PROSE)
    plans = [
        planner.plan(document, f"{number}?", ContextBudget(max_context_tokens=600), Counted(), lambda *_: 9, 4, 200)
        for number in range(10)
    ]
    assert all(one == plans[0] for one in plans)
    assert len(ranked) == 1
    assert len(encoded) == len(set(encoded))


def test_a_document_that_is_gone_is_forgotten() -> None:
    planner, document = ContextPlanner(encode, page_tokens), Pages(PROSE)
    gone = weakref.ref(document)
    planner.plan(document, QUESTION, ContextBudget(), resolve_text_policy("bm25"), lambda *_: 9, 4, 200)
    del document
    gc.collect()
    assert gone() is None


def test_a_policy_of_ones_own_cannot_break_a_budget_or_leave_the_document() -> None:
    @dataclass(frozen=True)
    class Greedy(TextPolicy):
        name: ClassVar[str] = "greedy"
        chosen: tuple[tuple[int, int], ...]

        def select(self, costs: Any, limit: int | None) -> Selection:
            return Selection(list(self.chosen), [])

    with pytest.raises(RuntimeError, match=r"'greedy' chose \d+ tokens where 3 are left"):
        plan(policy=Greedy(((0, 100),)), max_text_tokens=3)
    for chosen in (((5, 3),), ((0, 10), (5, 20)), ((0, 10**6),), ((-3, 4),)):
        with pytest.raises(RuntimeError, match="in order, apart"):
            plan(policy=Greedy(chosen))


@settings(max_examples=80, deadline=None)
@given(
    rendered_at=st.none() | st.sampled_from([0.3, 0.5, 0.77, 1.0, 1.5]),
    crops=st.tuples(st.booleans(), st.booleans()),
    style=st.sampled_from(["plain", "reportlab"]),
    words=st.integers(1, 120),
    policy=st.sampled_from(["full", "none", "tail", "middle", "anchors", "bm25"]),
    share=st.sampled_from([None, 0, 0.3, 0.9, 1]),
    limit=st.integers(0, 1500),
    scales=st.sampled_from([(None, None), (0.05, 3.0), (0.4, 0.4)]),
)
def test_no_plan_of_drawn_or_undrawn_pages_exceeds_its_budget(
    rendered_at: float | None,
    crops: tuple[bool, bool],
    style: Any,
    words: int,
    policy: str,
    share: float | None,
    limit: int,
    scales: tuple[float | None, float | None],
) -> None:
    config = RenderConfig(
        page_width=160,
        page_height=120,
        margin_x=8,
        margin_y=8,
        font_size=10,
        line_height=12,
        line_breaking=style,
        auto_crop_width=crops[0],
        auto_crop_last_page=crops[1],
    )
    text = "\n".join("w" * (1 + number * 7 % 19) + f" {number * 1001}" for number in range(words))
    renderer = PageRenderer(config)
    document: Any = renderer.typeset(text) if rendered_at is None else renderer.render(text, rendered_at)
    budget = ContextBudget(limit, share, *scales)
    try:
        made = PLANNER.plan(document, QUESTION, budget, resolve_text_policy(policy), lambda *_: 9, 4, 200)
    except ContextBudgetError as error:
        assert error.smallest > limit
        again = replace(budget, max_context_tokens=error.smallest)
        made = PLANNER.plan(document, QUESTION, again, resolve_text_policy(policy), lambda *_: 9, 4, 200)
        assert made.total_tokens <= error.smallest
        return
    except ValueError as error:
        assert "nothing of the document" in str(error)
        return
    assert made.total_tokens <= limit
    assert made.num_pages in (0, document.num_pages)
    drawn = [page.shape[:2] for page in renderer.draw_pages(document, made.scale)] if made.num_pages else []
    assert made.page_tokens == tuple(page_tokens(*size) for size in drawn)


def test_a_budget_that_no_size_could_meet_names_none() -> None:
    with pytest.raises(ValueError, match="nothing of the document") as caught:
        PLANNER.plan(Pages("a" * 300), None, ContextBudget(0, 0), resolve_text_policy("none"), lambda *_: 9, 4, 0)
    assert not isinstance(caught.value, ContextBudgetError)


def test_pages_of_one_scale_keep_it_or_the_request_is_refused() -> None:
    def planned(limit: int, **scales: float) -> ContextPlan:
        document = Pages("a" * 300, only_scale=1.0)
        budget = ContextBudget(max_context_tokens=limit, **scales)
        return PLANNER.plan(document, None, budget, resolve_text_policy("none"), lambda *_: 9, 0, 0)

    assert planned(400).scale == 1.0
    with pytest.raises(ContextBudgetError) as caught:
        planned(300)
    assert planned(caught.value.smallest).total_tokens == caught.value.smallest == 309
    with pytest.raises(ValueError, match=r"^max_scale=0.8 leaves out 1, .* give 1 or more"):
        planned(400, max_scale=0.8)
    with pytest.raises(ValueError, match=r"^min_scale=2 leaves out 1, .* give 1 or less"):
        planned(400, min_scale=2.0)


@pytest.mark.parametrize("share", [0.001, 0.003, 0.07, 0.1, 0.3, 0.7, 0.999])
@pytest.mark.parametrize("pages", [1, 13, 300])
def test_a_budget_one_token_below_the_smallest_is_refused(share: float, pages: int) -> None:
    def planned(limit: int) -> ContextPlan:
        budget = ContextBudget(max_context_tokens=limit, visual_share=share)
        return PLANNER.plan(Pages("a" * 100 * pages), None, budget, resolve_text_policy("none"), lambda *_: 9, 0, 0)

    with pytest.raises(ContextBudgetError) as caught:
        planned(10)
    smallest = caught.value.smallest
    assert planned(smallest).total_tokens <= smallest
    with pytest.raises(ContextBudgetError) as caught:
        planned(smallest - 1)
    assert caught.value.smallest == smallest
