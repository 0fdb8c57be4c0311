# SPDX-License-Identifier: Apache-2.0
"""`auto`: a text that is cheaper as tokens goes as tokens; no plan is dearer than the policy that stands beside pages."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning_samples import PROSE, plan

from transformers_hybridctx import ContextBudgetError
from transformers_hybridctx.planning.policies.anchors import AnchorsPolicy
from transformers_hybridctx.planning.policies.auto import AutoPolicy
from transformers_hybridctx.planning.policies.bm25 import BM25Policy
from transformers_hybridctx.planning.policies.registry import resolve_text_policy

BESIDE_BM25 = {"name": "auto", "beside": {"name": "bm25", "passage_chars": 100, "top_k": 2}}


def test_a_short_text_goes_whole_and_a_long_one_as_pages() -> None:
    half = {"min_scale": 0.5, "max_scale": 0.5}  # a page of 100 characters takes 25 tokens
    short = plan("The code is 4821930.", "auto", **half)
    assert (short.num_pages, short.policy, short.spans[0].text) == (0, "full", "The code is 4821930.")
    long = plan("a! " * 300, "auto", **half)
    assert (long.num_pages, long.policy) == (9, "anchors")


@settings(deadline=None)
@given(
    words=st.lists(st.sampled_from(["it", "was", "best", "4821930", "a-b_c.d", "?!", "\n"]), min_size=1, max_size=300),
    beside=st.sampled_from(["anchors", "none", "tail", {"name": "bm25", "passage_chars": 100, "top_k": 2}]),
    limits=st.fixed_dictionaries(
        {}, optional={"max_context_tokens": st.integers(0, 500), "max_text_tokens": st.integers(0, 300)}
    ),
)
def test_no_plan_is_dearer_than_without_auto(words: list[str], beside: Any, limits: dict[str, int]) -> None:
    text = f"It {' '.join(words)}"

    def planned(policy: Any, **more: Any) -> Any:
        try:
            return plan(text, policy, **limits, **more)
        except ContextBudgetError as error:
            return error

    chosen = planned({"name": "auto", "beside": beside})
    others = [planned(beside), planned("full", visual_share=0)]
    possible = [found.total_tokens for found in others if not isinstance(found, ContextBudgetError)]
    if possible:
        assert chosen.total_tokens == min(possible)
    else:
        assert chosen.smallest <= max(found.smallest for found in others)
        assert plan(text, {"name": "auto", "beside": beside}, **{**limits, chosen.field: chosen.smallest})


def test_what_a_request_says_about_pages_holds() -> None:
    assert plan("The code is 4821930.", "auto", visual_share=1).num_pages == 1
    assert plan("The code is 4821930.", "auto", visual_share=0.9).num_pages == 1
    assert plan(PROSE, "auto", visual_share=0).policy == "anchors"  # and not the whole text, which is dearer


def test_before_the_question_is_known_what_may_be_copied_counts() -> None:
    text = PROSE * 2  # eight pages
    assert plan(text, BESIDE_BM25, question=None, min_scale=0.2, max_scale=0.2).num_pages == 8
    found = plan(text, BESIDE_BM25, question=None, min_scale=0.2, max_scale=0.2, max_text_tokens=300)
    assert (found.num_pages, found.policy) == (0, "full")


def test_scans_have_pages() -> None:
    assert plan("", "auto").num_pages == 1


def test_what_stands_beside_is_named_like_any_policy() -> None:
    assert resolve_text_policy("auto") == AutoPolicy(AnchorsPolicy())
    assert resolve_text_policy({"name": "auto", "beside": "bm25"}) == AutoPolicy(BM25Policy())
    assert resolve_text_policy(BESIDE_BM25) == AutoPolicy(BM25Policy(passage_chars=100, top_k=2))
    for beside in ("auto", "attention"):
        with pytest.raises(ValueError, match=f"beside='{beside}'"):
            resolve_text_policy({"name": "auto", "beside": beside})
    with pytest.raises(TypeError, match="must be a text policy"):
        AutoPolicy("bm25")
    with pytest.raises(ValueError, match="unknown text policy 'worst'"):
        resolve_text_policy({"name": "auto", "beside": "worst"})
