# SPDX-License-Identifier: Apache-2.0
"""Policies whose wish is the whole text: full, middle, tail."""

from __future__ import annotations

import pytest
from planning_samples import PROSE, Pages, plan, texts

from transformers_hybridctx.planning.budget import ContextBudgetError
from transformers_hybridctx.planning.policies.base import page_ranges
from transformers_hybridctx.planning.policies.registry import resolve_text_policy


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


def test_page_ranges_tile_what_they_are_asked_for() -> None:
    assert page_ranges(Pages("a" * 250), (50, 250)) == [(50, 100), (100, 200), (200, 250)]
