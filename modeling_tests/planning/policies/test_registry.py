# SPDX-License-Identifier: Apache-2.0
"""Policies by name, and policies of one's own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from planning_samples import plan, texts

from transformers_hybridctx.planning.policies.base import Selection, TextPolicy
from transformers_hybridctx.planning.policies.bm25 import BM25Policy
from transformers_hybridctx.planning.policies.registry import register_text_policy, resolve_text_policy


def test_known_policies_are_named_when_an_unknown_one_is_asked_for() -> None:
    with pytest.raises(ValueError, match=r"'magic'.*anchors, attention, auto, bm25, full, middle, none, tail"):
        resolve_text_policy("magic")
    with pytest.raises(ValueError, match=r"bm25.*bottom_k"):
        resolve_text_policy({"name": "bm25", "bottom_k": 3})
    with pytest.raises(TypeError, match="7"):
        resolve_text_policy(7)  # type: ignore[arg-type]
    assert resolve_text_policy({"name": "bm25", "top_k": 3}) == BM25Policy(top_k=3)


@pytest.mark.usefixtures("own_text_policies")
def test_a_policy_of_ones_own_can_be_registered_by_name() -> None:
    @register_text_policy
    class FirstWord(TextPolicy):
        name = "first-word"

        def select(self, costs: Any, limit: int | None) -> Selection:
            return Selection([(0, costs.document.text.index(" "))], [])

        def smallest(self, costs: Any) -> int | None:
            return 1

    assert texts(plan(policy="first-word")) == ["It"]


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ({"name": "tail", "max_chars": -5}, "max_chars=-5"),
        ({"name": "tail", "max_chars": "9"}, "max_chars='9'"),
        ({"name": "bm25", "passage_chars": 1}, "passage_chars=1 .* 16"),
        ({"name": "bm25", "top_k": math.nan}, "top_k=nan"),
        ({"name": "bm25", "top_k": True}, "top_k=True"),
        ({"name": "anchors", "context_chars": 10**400}, "context_chars="),
        ({"name": "anchors", "rare_words": "no"}, "rare_words='no'"),
        ({"name": "attention", "heads": "abc"}, "heads='abc'"),
        ({"name": "attention", "ranking": 5}, "ranking=5"),
        ({"name": "attention", "ranking": ["a"]}, "ranking="),
        ({"name": "full", "truncate": ["middle"]}, "truncate="),
        ({"name": ["full"]}, "unknown text policy"),
        ({}, "unknown text policy None"),
    ],
    ids=str,
)
def test_knobs_that_make_no_sense_are_refused_by_name(policy: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        resolve_text_policy(policy)
    assert len(str(caught.value)) < 400


def test_a_policy_whose_instances_cannot_be_told_apart_is_refused() -> None:
    @dataclass
    class Thawed(TextPolicy):
        name: ClassVar[str] = "thawed"

    @dataclass(frozen=True)
    class Listing(TextPolicy):
        name: ClassVar[str] = "listing"
        words: Any

    with pytest.raises(TypeError, match="frozen dataclass"):
        register_text_policy(Thawed)
    with pytest.raises(TypeError, match="frozen dataclass"):
        resolve_text_policy(Thawed())
    with pytest.raises(TypeError, match="frozen dataclass"):
        resolve_text_policy(Listing(["a"]))


def test_names_of_policies_are_given_once() -> None:
    class Other(TextPolicy):
        name = "bm25"

    class Nameless(TextPolicy):
        pass

    with pytest.raises(ValueError, match="'bm25' is one of the package's own"):
        register_text_policy(Other)
    with pytest.raises(ValueError, match="Nameless has no name"):
        register_text_policy(Nameless)
    with pytest.raises(TypeError, match="give a subclass"):
        register_text_policy(dict)  # type: ignore[type-var]


def test_a_ranking_that_comes_from_json_is_copied_and_one_outside_the_document_is_refused() -> None:
    assert texts(plan(policy={"name": "attention", "ranking": [[3, 6], [0, 2]]})) == ["It was"]
    for ranking in ([[0, 5], [4, 6]], [[5, 5]], [[-1, 5]], [[0, 10**9]]):
        with pytest.raises(ValueError, match=r"ranking=.* must be passages apart"):
            plan(policy={"name": "attention", "ranking": ranking})
