# SPDX-License-Identifier: Apache-2.0
"""Latents in plans: chunks of whole sentences, budgets kept to the token, and nothing lost without a word."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from planning_samples import PROSE, QUESTION, Pages, encode, page_tokens

from transformers_hybridctx.planning.budget import ContextBudget, ContextBudgetError
from transformers_hybridctx.planning.latents import LatentSettings, chunk_ranges
from transformers_hybridctx.planning.plan import ContextPlan, encodable
from transformers_hybridctx.planning.planner import ContextPlanner
from transformers_hybridctx.planning.policies.registry import resolve_text_policy

LATENT = 12345
TEXT = PROSE * 6
SETTINGS = LatentSettings(num_latent_tokens=5, chunk_tokens=60, overlap_tokens=12)
TEXTS = st.lists(
    st.sampled_from(
        ["One two three four. ", "No 4711! ", "a" * 90, "\n\n", "Ä中☃ ", "x, y; z ", "\ud83d", "Why? ", "中。"]
    ),
    min_size=1,
    max_size=60,
).map("".join)


def template_tokens(document: Pages, pages: bool, spans: bool, first_page: int | None = None) -> int:
    """Two tokens around each page, two before latents, one before spans."""
    shown = document.num_pages - (first_page or 0) if pages else 0
    return 8 + 2 * shown + 2 * (first_page is not None) + spans


def plan(
    text: str = TEXT, latents: LatentSettings | None = SETTINGS, policy: str = "anchors", **budget: Any
) -> ContextPlan:
    document = Pages(text)
    return ContextPlanner(encode, page_tokens, latents=latents, latent_token_id=LATENT).plan(
        document,
        QUESTION,
        ContextBudget(**budget),
        resolve_text_policy(policy),
        lambda *has: template_tokens(document, *has),
        question_tokens=len(encode([QUESTION])[0]),
        document_tokens=len(encode([encodable(text)])[0]),
    )


# chunks


@settings(max_examples=80, deadline=None)
@given(text=TEXTS, chunk=st.integers(16, 70), overlap=st.integers(0, 35))
def test_chunks_are_short_and_leave_out_nothing_but_white_space(text: str, chunk: int, overlap: int) -> None:
    overlap = min(overlap, chunk // 2)
    ranges = chunk_ranges(text, encode, chunk, overlap)
    assert all(len(encode([encodable(text[start:end])])[0]) <= chunk for start, end in ranges)
    covered = {index for start, end in ranges for index in range(start, end)}
    assert all(text[index].isspace() for index in set(range(len(text))) - covered)
    for (start, end), (later, last) in pairwise(ranges):
        assert start < later and end < last, "each chunk goes on from the one before"
        assert overlap or later >= end
        assert len(encode([encodable(text[later:end])])[0]) <= overlap + 1  # cut apart, a sentence may be a token more


def test_chunks_end_with_sentences_and_repeat_them() -> None:
    ranges = chunk_ranges(TEXT, encode, 60, 24)
    assert len(ranges) > 4
    assert all(TEXT[:end].rstrip()[-1] in ".!?" for _, end in ranges)
    assert any(later < end for (_, end), (later, _) in pairwise(ranges))
    for (_, end), (later, _) in pairwise(ranges):
        assert TEXT[:later].rstrip()[-1] in ".!?" and later <= end


# plans


def test_pages_give_way_from_the_beginning_on_where_they_do_not_fit() -> None:
    whole = plan(policy="none", max_context_tokens=20_000, latent_share=0.5)
    assert whole.latents == () and whole.num_pages == Pages(TEXT).num_pages, "what fits as pages is shown as pages"
    assert whole == plan(policy="none", latents=None, max_context_tokens=20_000)
    made = plan(policy="none", max_context_tokens=400, latent_share=0.5)
    assert 0 < made.first_page < Pages(TEXT).num_pages
    assert made.num_pages == Pages(TEXT).num_pages - made.first_page
    assert made.latents[0].start == 0 and made.latents[-1].end >= Pages(TEXT).page_span(made.first_page)[0]
    assert made.omitted_characters == 0
    fewer = len(made.latents) - 1
    with pytest.raises(ContextBudgetError):
        plan(policy="none", max_context_tokens=400, latent_chunks=fewer)
    assert plan(policy="none", max_context_tokens=400, latent_chunks=len(made.latents)).latents == made.latents


def test_latents_and_the_pages_behind_them_are_labelled_with_their_place() -> None:
    made = plan(policy="none", max_context_tokens=400, latent_share=0.5)
    ids: list[int] = []
    for chunk in made.latents:
        first, last = chunk.start // 100 + 1, (chunk.end - 1) // 100 + 1
        label = f"[page {first}] " if first == last else f"[pages {first}-{last}] "
        ids += [*encode([label])[0], *[LATENT] * 5, *encode(["\n"])[0]]
        assert chunk.input_ids == tuple(encode([TEXT[chunk.start : chunk.end]])[0])
    ids += encode([f"[pages {made.first_page + 1}-{Pages(TEXT).num_pages}]\n"])[0]
    assert made.latent_ids == tuple(ids)


def test_without_pages_latents_stand_for_as_much_as_they_may() -> None:
    made = plan(policy="tail", visual_share=0, latent_share=0.3, max_context_tokens=250)
    room = 250 - template_tokens(Pages(TEXT), False, False, 0) - made.question_tokens
    assert 0 < made.latent_tokens <= 0.3 * room
    assert made.latent_tokens + made.latents[0].tokens + 2 > 0.3 * room
    assert made.text_tokens > 0 and made.total_tokens <= 250
    absent = [(piece.start, piece.end) for piece in made.omitted if piece.reason == "absent"]
    assert absent == [(made.latents[-1].end, made.spans[0].start)]
    everything = plan(policy="none", visual_share=0, latent_share=1)
    assert everything.omitted == () and everything.num_pages == 0 and everything.visual_tokens == 0


def test_undrawable_characters_in_latents_are_not_lost() -> None:
    made = plan("Snow ☃ is here. " + TEXT + "And ☃ there.", policy="none", max_context_tokens=400, latent_share=0.5)
    lost = [piece.start for piece in made.omitted if piece.reason == "undrawable"]
    assert len(lost) == 1 and lost[0] > made.latents[-1].end


@settings(max_examples=150, deadline=None)
@given(
    text=TEXTS,
    policy=st.sampled_from(["full", "none", "tail", "middle", "anchors", "bm25"]),
    visual_share=st.sampled_from([None, 0, 0.3, 1]),
    latent_share=st.sampled_from([0, 0.1, 0.5, 1]),
    limit=st.none() | st.integers(20, 700),
    sizes=st.tuples(st.integers(1, 23), st.integers(16, 61), st.integers(0, 8)),
)
def test_every_plan_keeps_its_budget_and_accounts_for_every_character(
    text: str, policy: str, visual_share: float | None, latent_share: float, limit: int | None, sizes: tuple[int, ...]
) -> None:
    assume(text.strip())
    request: dict[str, Any] = {
        "latents": LatentSettings(*sizes),
        "policy": policy,
        "visual_share": visual_share,
        "latent_share": latent_share,
    }
    document = Pages(text)
    try:
        made = plan(text, **request, max_context_tokens=limit)
    except ContextBudgetError as error:
        assert limit is not None and error.smallest > limit
        assert plan(text, **request, max_context_tokens=error.smallest).total_tokens <= error.smallest
        with pytest.raises(ContextBudgetError) as again:
            plan(text, **request, max_context_tokens=error.smallest - 1)
        assert again.value.smallest == error.smallest
        return
    except ValueError as error:
        assert latent_share == 0 and "nothing of the document" in str(error)
        return
    assert limit is None or made.total_tokens <= limit
    first_page = (made.first_page,) if made.latents else ()
    assert made.total_tokens == (
        made.visual_tokens
        + len(made.latent_ids)
        + sum(len(encode([f"[page {span.page + 1}] {encodable(span.text)}\n"])[0]) for span in made.spans)
        + made.question_tokens
        + template_tokens(document, made.num_pages > 0, bool(made.spans), *first_page)
    )
    assert made.latent_ids.count(LATENT) == sizes[0] * len(made.latents)
    if limit is not None and made.latents:
        bare = template_tokens(document, made.num_pages > 0, False, made.first_page) + made.question_tokens
        assert made.latent_tokens <= latent_share * (limit - bare) + 1e-6
    in_latents = set(range(made.latents[-1].end)) if made.latents else set()
    on_pages = set(range(document.page_span(made.first_page)[0], len(text))) if made.num_pages else set()
    copied = {index for span in made.spans for index in range(span.start, span.end)}
    absent = {i for piece in made.omitted if piece.reason == "absent" for i in range(piece.start, piece.end)}
    assert not absent & (in_latents | on_pages | copied)
    assert absent | in_latents | on_pages | copied == set(range(len(text)))
    if made.num_pages or visual_share != 0:
        assert not absent, "pages give way to latents, and to nothing else"


# what is refused


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"latent_share": 2}, "latent_share=2 must be between 0 and 1: 0 is no latents"),
        ({"latent_share": 0.0001}, r"latent_share=0.0001 must be 0 \(no latents\), or 0.001 or more"),
        ({"latent_chunks": -1}, "latent_chunks=-1 must be a whole number of chunks"),
        ({"latent_chunks": 10_000}, "latent_chunks=10000: the document has"),
        ({"latent_share": 0.2, "latents": None}, "latent_share=0.2: this checkpoint has no latent encoder"),
    ],
    ids=str,
)
def test_budgets_that_make_no_sense_are_refused(budget: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(**budget)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"chunk_tokens": 15}, ValueError, "chunk_tokens=15 must be a whole number of tokens: 16 or more"),
        ({"chunk_tokens": 20, "overlap_tokens": 11}, ValueError, "overlap_tokens=11 .* half a chunk at most: 0 to 10"),
        ({"num_latent_tokens": 0}, ValueError, "num_latent_tokens=0"),
        ({"token": ""}, ValueError, "token='' must be a special token"),
        ({"tokens": 5}, ValueError, "unknown field 'tokens' of latents"),
        ([64], TypeError, "latents must be LatentSettings"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        LatentSettings.of(given)
