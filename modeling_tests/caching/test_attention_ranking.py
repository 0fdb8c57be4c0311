# SPDX-License-Identifier: Apache-2.0
"""The policy `attention`: the attention that is listened to, the passages that it ranks, and the answer that follows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from peft import LoraConfig, get_peft_model
from sample_questions import DOCUMENT, QUESTION, QUESTIONS, comparable
from tiny_models import make_model
from transformers import pipeline

from transformers_hybridctx import DocumentCache, HybridCtxConfig, LongDocQAPipeline
from transformers_hybridctx.caching import attention_ranking
from transformers_hybridctx.caching.attention_ranking import (
    attention_weights,
    passage_scores,
    rank_by_attention,
    read_question,
)
from transformers_hybridctx.planning.passages import passages_of
from transformers_hybridctx.planning.policies.attention import AttentionPolicy
from transformers_hybridctx.planning.policies.registry import resolve_text_policy

POLICY = {"name": "attention", "passage_chars": 60, "top_k": 2}


@pytest.fixture(scope="module")
def cache(pipe: LongDocQAPipeline) -> DocumentCache:
    return pipe.read(DOCUMENT, text_policy=POLICY)


def test_what_is_listened_to_is_the_attention_of_the_whole_prompt(
    pipe: LongDocQAPipeline, cache: DocumentCache
) -> None:
    question = QUESTION * 3  # longer than what attends at a time
    ids, _ = cache.prompt(pipe.processor, question, text_policy="none")
    found, read = read_question(pipe.model, cache.prefix, ids)
    assert read.input_ids.tolist() == ids[cache.prefix.shared_length(ids) :]
    inputs = pipe.processor(document=DOCUMENT, question=question, text_policy="none", return_tensors="pt")
    assert inputs["input_ids"].tolist() == [ids]
    before = pipe.model.config.text_config._attn_implementation
    pipe.model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            attentions = pipe.model(**inputs, output_attentions=True).attentions
    finally:
        pipe.model.set_attn_implementation(before)
    visual = (inputs["input_ids"][0] == pipe.processor.image_token_id).nonzero().flatten()
    after = slice(cache.prefix.shared_length(ids), None)
    expected = torch.stack([layer[0, :, after][..., visual].mean(1) for layer in attentions])
    assert found.shape == (2, 4, cache.plan.visual_tokens)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert pipe.model.config.text_config._attn_implementation == before


@pytest.mark.parametrize("towers", ["glm4v", "glm_ocr", "glm4v_moe"])
def test_weights_are_those_of_eager_attention_in_every_family(towers: str) -> None:
    model = make_model(towers)
    model.set_attn_implementation("eager")
    ids = torch.arange(6, 17)[None]
    positions = torch.arange(11).expand(3, 1, -1)
    with torch.no_grad():
        output = model(
            input_ids=ids,
            position_ids=positions,
            use_cache=True,
            output_hidden_states=True,
            output_attentions=True,
        )
        tower = model.model.language_model
        for index, layer in enumerate(tower.layers):
            hidden_states = output.hidden_states[index][:, 7:]
            rotary = tower.rotary_emb(hidden_states, position_ids=positions[..., 7:])
            found = attention_weights(layer, hidden_states, rotary, output.past_key_values.layers[index].keys)
            torch.testing.assert_close(found, output.attentions[index][:, :, 7:], rtol=1e-4, atol=1e-6)


def test_a_passage_scores_what_its_visual_tokens_get(pipe: LongDocQAPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention to the tokens of one page only: its passages come first."""
    cache = pipe.read(DOCUMENT, text_policy=POLICY)  # of its own, as what is made of it is kept
    page_of = np.repeat(np.arange(cache.plan.num_pages), cache.plan.page_tokens)

    def attend(model: Any, prefix: Any, ids: list[int]) -> tuple[torch.Tensor, None]:
        asks = len(ids) > len(cache.prompt(pipe.processor, "N/A", text_policy="none")[0])
        return torch.from_numpy((page_of == 1).astype(np.float32) * asks).expand(2, 4, -1), None

    monkeypatch.setattr("transformers_hybridctx.caching.attention_ranking.read_question", attend)
    policy = resolve_text_policy({**POLICY, "top_k": 1})
    assert isinstance(policy, AttentionPolicy)
    ranked, _ = rank_by_attention(pipe.model, pipe.processor, cache, QUESTION, policy)
    assert ranked.ranking is not None
    document = cache.plan.document
    assert [document.page_of(start) for start, _ in ranked.ranking] == [1]
    scores = passage_scores(pipe.model, pipe.processor, cache, QUESTION, passages_of(DOCUMENT, 60), [(0, 1), (1, 3)])
    assert scores.shape == (2, len(passages_of(DOCUMENT, 60)))
    whole = [document.page_of(start) == document.page_of(end - 1) == 1 for start, end in passages_of(DOCUMENT, 60)]
    np.testing.assert_allclose(scores[0][whole], 1)


def test_the_answer_comes_from_the_pages_and_the_best_passages(pipe: LongDocQAPipeline, cache: DocumentCache) -> None:
    answers = pipe(question=QUESTIONS, document=DOCUMENT, text_policy=POLICY)
    for question, answer in zip(QUESTIONS, answers):
        policy = resolve_text_policy(POLICY)
        assert isinstance(policy, AttentionPolicy)
        ranked, _ = rank_by_attention(pipe.model, pipe.processor, cache, question, policy)
        plan = answer["plan"]
        assert plan.policy == "attention"
        copied = {(span.start, span.end) for span in plan.spans}
        assert ranked.ranking is not None
        assert all(any(start <= first and last <= end for start, end in copied) for first, last in ranked.ranking)
        expected = pipe(question=question, document=DOCUMENT, text_policy=ranked)
        assert comparable(answer) == comparable(expected)
        assert comparable(pipe(question=question, document=cache)) == comparable(expected)
        assert answer["usage"]["seconds"]["attend"] > 0


def test_what_every_question_needs_is_made_once(
    pipe: LongDocQAPipeline, cache: DocumentCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    policies = [resolve_text_policy({**POLICY, "passage_chars": size}) for size in (60, 90)]

    def rankings() -> list[Any]:
        found = (rank_by_attention(pipe.model, pipe.processor, cache, QUESTION, policy)[0] for policy in policies)  # type: ignore[arg-type]
        return [one.ranking for one in found]

    first = rankings()
    made = []
    read = attention_ranking.read_question
    monkeypatch.setattr(attention_ranking, "read_question", lambda *given: made.append("read") or read(*given))
    cut = attention_ranking.telling_passages
    monkeypatch.setattr(attention_ranking, "telling_passages", lambda *given: made.append("cut") or cut(*given))
    policies.reverse()
    assert rankings() == first[::-1]
    assert made == ["read", "read", "cut"], "but for the passages of another length"


def test_chosen_heads_are_listened_to(pipe: LongDocQAPipeline, cache: DocumentCache) -> None:
    everything = passage_scores(pipe.model, pipe.processor, cache, QUESTION, passages_of(DOCUMENT, 60), None)
    some = passage_scores(pipe.model, pipe.processor, cache, QUESTION, passages_of(DOCUMENT, 60), [(1, 2), (0, 0)])
    np.testing.assert_allclose(some, everything[[6, 0]])
    with pytest.raises(ValueError, match=r"no head \(2, 0\): it has 2 layers of 4 heads"):
        pipe(question=QUESTION, document=cache, text_policy={**POLICY, "heads": [[2, 0]]})
    with pytest.raises(
        StrictDataclassClassValidationError, match=r"retrieval_heads has \[9, 0\]: give \[layer, head\]"
    ):
        HybridCtxConfig(retrieval_heads=[[9, 0]], text_config={"num_hidden_layers": 3})


def test_an_adapter_s_attention_is_listened_to(checkpoint: Path) -> None:
    pipe = pipeline("long-doc-qa", model=str(checkpoint), max_new_tokens=2)
    pipe.model = get_peft_model(pipe.model, LoraConfig(target_modules="all-linear"))
    assert pipe(question=QUESTION, document=DOCUMENT, text_policy=POLICY)["plan"].policy == "attention"


def test_without_a_model_or_pages_there_is_no_attention(pipe: LongDocQAPipeline) -> None:
    with pytest.raises(ValueError, match="the policy 'attention' needs a model that ranks the passages"):
        pipe.processor.plan(document=DOCUMENT, question=QUESTION, text_policy="attention")
    with pytest.raises(ValueError, match=r"visual_share=0.* leaves nothing to read"):
        pipe(question=QUESTION, document=DOCUMENT, text_policy=POLICY, budget={"visual_share": 0.0})
    with pytest.raises(ValueError, match="passage_chars=0 must be a whole number of characters: 16 or more"):
        AttentionPolicy(passage_chars=0)


def test_page_pictures_have_no_text_to_copy(pipe: LongDocQAPipeline) -> None:
    pages = [np.full((168, 140), 255, dtype=np.uint8)] * 2
    expected = pipe(question=QUESTION, document=pages, text_policy="none")
    found = pipe(question=QUESTION, document=pages, text_policy=POLICY)
    assert found["answer"] == expected["answer"]
    assert found["plan"].spans == ()
