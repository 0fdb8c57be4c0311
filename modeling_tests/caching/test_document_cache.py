# SPDX-License-Identifier: Apache-2.0
"""A document read once: the same answers as without, and what may be asked of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sample_questions import DOCUMENT, QUESTION, QUESTIONS, comparable

from transformers_hybridctx import (
    ContextBudgetError,
    DocumentCache,
    LongDocQAPipeline,
)

# The same answers


@pytest.mark.parametrize(
    "options",
    [
        {"text_policy": "none"},
        {"text_policy": "anchors"},
        {"text_policy": "full"},
        {"text_policy": {"name": "bm25", "top_k": 1}},
        {"text_policy": "anchors", "fusion_order": "tokens_first"},
        {"text_policy": "full", "budget": {"visual_share": 0.0}},
        {"text_policy": "bm25", "budget": {"max_context_tokens": 420}},
    ],
    ids=str,
)
def test_answers_are_those_without_a_cache(pipe: LongDocQAPipeline, options: dict[str, Any]) -> None:
    cache = pipe.read(DOCUMENT, **options)
    expected = [comparable(pipe(question=one, document=DOCUMENT, **options)) for one in QUESTIONS]
    if "budget" in options and "max_context_tokens" in options["budget"]:
        scale = {"min_scale": cache.plan.scale, "max_scale": cache.plan.scale}
        expected = [
            comparable(
                pipe(question=one, document=DOCUMENT, text_policy="bm25", budget={**options["budget"], **scale})
            )
            for one in QUESTIONS
        ]
    for batch_size in (1, 2):
        found = pipe(question=QUESTIONS, document=cache, batch_size=batch_size)
        assert [comparable(answer) for answer in found] == expected
    assert comparable(pipe(question=QUESTIONS[1], document=cache)) == expected[1]


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("generate", [{"num_beams": 3}, {"num_beams": 2, "num_return_sequences": 2}, {}], ids=str)
def test_many_questions_are_answered_as_each_alone(
    pipe: LongDocQAPipeline, generate: dict[str, Any], batch_size: int
) -> None:
    expected = [
        comparable(pipe(question=one, document=DOCUMENT, text_policy="anchors", **generate)) for one in QUESTIONS
    ]
    cache = pipe.read(DOCUMENT, text_policy="anchors")
    for document in (DOCUMENT, cache):
        found = pipe(question=QUESTIONS, document=document, text_policy="anchors", batch_size=batch_size, **generate)
        assert [comparable(answer) for answer in found] == expected


def test_questions_that_share_no_prefix_still_share_the_pages(
    pipe: LongDocQAPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spans for each question stand before the pages."""
    options: dict[str, Any] = {"text_policy": {"name": "bm25", "top_k": 1}, "fusion_order": "tokens_first"}
    expected = [comparable(pipe(question=one, document=DOCUMENT, **options)) for one in QUESTIONS]
    readings: list[int] = []
    read = pipe.model.get_image_features
    monkeypatch.setattr(
        pipe.model, "get_image_features", lambda *args, **kwargs: readings.append(1) or read(*args, **kwargs)
    )
    found = pipe(question=QUESTIONS, document=DOCUMENT, batch_size=2, **options)
    assert [comparable(answer) for answer in found] == expected
    assert len(readings) == 1


def test_a_question_costs_only_its_own_tokens(pipe: LongDocQAPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = pipe.read(DOCUMENT, text_policy="anchors")
    seen: list[int] = []
    forward = pipe.model.model.language_model.forward

    def counting(*args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs["inputs_embeds"].shape[1])
        return forward(*args, **kwargs)

    monkeypatch.setattr(pipe.model.model.language_model, "forward", counting)
    monkeypatch.setattr(
        type(cache.fingerprint), "check", lambda *_: None
    )  # its test prompt goes through what is patched
    monkeypatch.setattr(
        pipe.model.model, "get_image_features", lambda *_, **__: pytest.fail("the pages were read again")
    )
    answer = pipe(question=QUESTION, document=cache)
    plan = answer["plan"]
    assert seen[0] == plan.total_tokens - len(cache) < 60
    assert set(seen[1:]) == {1}
    assert plan.visual_tokens + plan.text_tokens <= len(cache) == cache.plan.prefix_tokens


def test_generate_takes_a_cache_by_itself(pipe: LongDocQAPipeline) -> None:
    processor, model = pipe.processor, pipe.model
    cache = DocumentCache.read(model, processor, DOCUMENT, text_policy="anchors")
    expected = model.generate(
        **processor(document=DOCUMENT, question=QUESTION, text_policy="anchors", return_tensors="pt"), max_new_tokens=6
    )
    # another prompt in between must leave no trace
    model.generate(**processor(document="Another one. " * 40, question="Why?", return_tensors="pt"), max_new_tokens=2)
    found = model.generate(**cache.inputs(processor, QUESTION), max_new_tokens=6)
    assert torch.equal(found, expected)
    both = model.generate(**cache.inputs(processor, QUESTIONS[:2]), max_new_tokens=6)
    assert torch.equal(both[0, -6:], expected[0, -6:])


def test_answers_do_not_depend_on_what_was_asked_before(pipe: LongDocQAPipeline) -> None:
    cache = pipe.read(DOCUMENT)
    first = comparable(pipe(question=QUESTION, document=cache))
    pipe(question=QUESTIONS, document=cache, batch_size=2)
    pipe(question="Something else?", document="Another document. " * 30)
    assert comparable(pipe(question=QUESTION, document=cache)) == first


def test_text_alone_after_pages_has_its_own_positions(pipe: LongDocQAPipeline) -> None:
    budget = {"visual_share": 0.0}
    expected = comparable(pipe(question=QUESTION, document=DOCUMENT, budget=budget, text_policy="full"))
    cache = pipe.read(DOCUMENT, budget=budget, text_policy="full")
    pipe(question=QUESTION, document=DOCUMENT)  # its pages move later positions
    assert comparable(pipe(question=QUESTION, document=cache)) == expected


def test_reading_in_chunks_gives_the_same_answers(pipe: LongDocQAPipeline) -> None:
    cache = pipe.read(DOCUMENT, prefill_chunk_size=50)
    for (keys, values), (expected_keys, expected_values) in zip(
        cache.prefix.states, pipe.read(DOCUMENT).prefix.states
    ):
        torch.testing.assert_close(keys, expected_keys, rtol=0, atol=1e-5)
        torch.testing.assert_close(values, expected_values, rtol=0, atol=1e-5)
    expected = comparable(pipe(question=QUESTION, document=DOCUMENT))
    assert comparable(pipe(question=QUESTION, document=cache)) == expected
    assert comparable(pipe(question=QUESTION, document=cache, prefill_chunk_size=5)) == expected


def test_scans_are_read_once_too(pipe: LongDocQAPipeline, tmp_path: Path) -> None:
    pages = [np.random.default_rng(seed).integers(0, 256, (168, 140), dtype=np.uint8) for seed in range(3)]
    cache = pipe.read(pages)
    expected = comparable(pipe(question=QUESTION, document=pages))
    assert pipe(question=QUESTION, document=cache)["answer"] == expected["answer"]
    loaded = DocumentCache.load(cache.save(tmp_path / "scan.safetensors"))
    assert comparable(pipe(question=QUESTION, document=loaded)) == expected


# Requests


def test_a_question_longer_than_what_is_left_is_refused(pipe: LongDocQAPipeline) -> None:
    cache = pipe.read(DOCUMENT, budget={"max_context_tokens": 700}, text_policy="anchors", question_tokens=40)
    with pytest.raises(ContextBudgetError) as error:
        pipe(question="why " * 400, document=cache)
    assert error.value.smallest > 700
    plan = pipe(question="why " * 400, document=cache, budget={"max_context_tokens": error.value.smallest})["plan"]
    assert plan.total_tokens == error.value.smallest
    assert plan.spans == cache.plan.spans


def test_a_budget_that_leaves_no_room_for_a_question_is_refused_before_reading(pipe: LongDocQAPipeline) -> None:
    with pytest.raises(ContextBudgetError, match=r"^max_context_tokens=60 .* keep 50 tokens free") as error:
        pipe.read(DOCUMENT, budget={"max_context_tokens": 60}, text_policy="none", question_tokens=50)
    budget = {"max_context_tokens": error.value.smallest}
    assert len(pipe.read(DOCUMENT, budget=budget, text_policy="none", question_tokens=50))
    with pytest.raises(ValueError, match="question_tokens=0 must be a whole number of tokens, left free"):
        pipe.read(DOCUMENT, question_tokens=0)


@pytest.mark.parametrize("options", [{"budget": {"visual_share": 0.0}}, {"fusion_order": "tokens_first"}], ids=str)
def test_what_leaves_nothing_to_read_ahead_is_refused(pipe: LongDocQAPipeline, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="leaves nothing to read before the question is known"):
        pipe.read(DOCUMENT, text_policy="bm25", **options)


def test_the_scale_is_that_of_the_reading(pipe: LongDocQAPipeline) -> None:
    cache = pipe.read(DOCUMENT, budget={"max_scale": 0.8})
    with pytest.raises(ValueError, match=r"was read at scale 0\.8, which is not within min_scale=0\.9"):
        pipe(question=QUESTION, document=cache, budget={"min_scale": 0.9, "max_scale": 1.0})
    assert pipe(question=QUESTION, document=cache, budget={"max_context_tokens": 2000})["plan"].scale == 0.8


def test_another_policy_for_a_question_reuses_the_pages(pipe: LongDocQAPipeline) -> None:
    cache = pipe.read(DOCUMENT, text_policy="none")
    for policy in ("bm25", "anchors", "tail"):
        expected = comparable(pipe(question=QUESTION, document=DOCUMENT, text_policy=policy))
        assert comparable(pipe(question=QUESTION, document=cache, text_policy=policy)) == expected
    with pytest.raises(ValueError, match=re.escape("puts something else before the pages than was read")) as told:
        pipe(question=QUESTION, document=cache, budget={"visual_share": 0.0}, text_policy="full")
    assert str(told.value).startswith("text_policy='full', visual_share=0.0 puts")  # what was asked for, and no more


def test_weights_that_are_not_numbers_are_named(fresh_pipe: LongDocQAPipeline) -> None:
    with torch.no_grad():
        fresh_pipe.model.model.language_model.layers[0].self_attn.k_proj.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="layer 0 gives keys and values that are not finite"):
        fresh_pipe.read(DOCUMENT)
    with pytest.raises(ValueError, match="the model computes NaN"):
        fresh_pipe(question=QUESTION, document=DOCUMENT)
