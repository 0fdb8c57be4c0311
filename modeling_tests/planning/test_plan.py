# SPDX-License-Identifier: Apache-2.0
"""What a plan reports."""

from __future__ import annotations

from planning_samples import PROSE, Pages, encode, plan

from transformers_hybridctx.planning.span_tokens import SpanTokens


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
        f"{made.compression_ratio:.2f} text tokens, ",
        f"{len(PROSE) / (made.visual_tokens + made.text_tokens):.2f} characters for each token spent",
        f"{len(PROSE) / made.visual_tokens:.2f} characters, ",
        f"{made.document_tokens / made.visual_tokens:.2f} text tokens a visual token",
    ):
        assert part in summary


def test_without_pages_there_is_no_density() -> None:
    made = plan(policy="full", visual_share=0)
    assert made.characters_per_visual_token is made.text_tokens_per_visual_token is None
    assert "density" not in made.summary()
