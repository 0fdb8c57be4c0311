# SPDX-License-Identifier: Apache-2.0
"""A closer look: what the model attends to is appended behind the question, and nothing is read twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import run
from sample_questions import DOCUMENT, QUESTION, QUESTIONS, comparable
from transformers import pipeline

from transformers_hybridctx import DocumentCache, LongDocQAPipeline
from transformers_hybridctx.answering.engine import AskedQuestion, _SharedPages, _with_question
from transformers_hybridctx.caching.larger_passages import larger_pictures
from transformers_hybridctx.planning.policies.registry import resolve_text_policy
from transformers_hybridctx.rendering.styles import cell_aligned_config
from transformers_hybridctx.rendering.typesetting import Typesetter

KNOBS = {"passage_chars": 60, "top_k": 2}
POLICY = {"name": "attention", **KNOBS}


@pytest.fixture(scope="module")
def cache(pipe: LongDocQAPipeline) -> DocumentCache:
    return pipe.read(DOCUMENT, text_policy="bm25")


def asked_closely(pipe: LongDocQAPipeline, cache: DocumentCache, question: str = QUESTION) -> AskedQuestion:
    options = {"text_policy": resolve_text_policy(POLICY), "fusion_order": "tokens_last"}
    return pipe.engine.ask(cache.attach(pipe.model, pipe.processor), question, **options)


def places_of(part: list[int], ids: list[int]) -> list[int]:
    """Where a stretch of tokens begins."""
    return [index for index in range(len(ids)) if ids[index : index + len(part)] == part]


def question_end(pipe: LongDocQAPipeline, asked: AskedQuestion) -> int:
    """Where the question, which is said again behind the spans, ends for the first time."""
    question = pipe.processor.encoder([asked.question])[0]
    first, second = places_of(question, asked.input_ids)
    assert first < second
    return first + len(question)


def test_what_is_looked_at_stands_behind_the_question(pipe: LongDocQAPipeline, cache: DocumentCache) -> None:
    asked = asked_closely(pipe, cache)
    spans = [token for span in asked.plan.spans for token in span.input_ids]
    (start,) = places_of(spans, asked.input_ids)
    assert start > question_end(pipe, asked) > len(cache)
    assert asked.plan.total_tokens == len(asked.input_ids)
    assert asked.plan.policy == "attention" and 0 < len(asked.plan.spans) <= 2


def test_logits_are_those_of_a_whole_prompt_of_the_same_composition(
    pipe: LongDocQAPipeline, cache: DocumentCache
) -> None:
    asked = asked_closely(pipe, cache)
    assert asked.read is not None
    ranked = resolve_text_policy({**POLICY, "ranking": [(span.start, span.end) for span in asked.plan.spans]})
    whole = pipe.processor(
        document=DOCUMENT, question=QUESTION, text_policy=ranked, fusion_order="tokens_last", return_tensors="pt"
    )
    assert whole["input_ids"].tolist() == [asked.input_ids]
    length = cache.prefix.shared_length(asked.input_ids)
    features = cache.prefix.extended(length, asked.read).features([asked.input_ids], None)
    assert features["past_key_values"].get_seq_length() >= question_end(pipe, asked)  # the question is not read again
    with torch.no_grad():
        expected = pipe.model(**whole).logits
        past = features["past_key_values"].get_seq_length()
        positions, _ = pipe.model.model.get_rope_index(
            features["input_ids"], features["mm_token_type_ids"], image_grid_thw=features["image_grid_thw"]
        )
        found = pipe.model(
            input_ids=features["input_ids"][:, past:],
            position_ids=positions[..., past:],
            past_key_values=features["past_key_values"],
        ).logits
    torch.testing.assert_close(found, expected[:, past:], rtol=1e-4, atol=1e-5)


def test_the_answer_is_that_of_the_whole_prompt(pipe: LongDocQAPipeline, cache: DocumentCache) -> None:
    for question in QUESTIONS:
        closer = pipe(question=question, document=cache, look_closer=KNOBS)
        ranking = [(span.start, span.end) for span in closer["plan"].spans]
        whole = pipe(
            question=question,
            document=DOCUMENT,
            text_policy={**POLICY, "ranking": ranking},
            fusion_order="tokens_last",
        )
        assert comparable(closer) == comparable(whole)
    together = pipe(question=QUESTIONS, document=cache, look_closer=KNOBS)
    assert [one["answer"] for one in together] == [
        pipe(question=question, document=cache, look_closer=KNOBS)["answer"] for question in QUESTIONS
    ]
    batched = pipe(question=QUESTIONS, document=cache, look_closer=KNOBS, batch_size=3)
    assert [one["plan"].spans for one in batched] == [one["plan"].spans for one in together]


def test_the_question_that_is_said_twice_is_counted_twice(pipe: LongDocQAPipeline) -> None:
    options: dict[str, Any] = {"document": DOCUMENT, "question": QUESTION * 3, "fusion_order": "tokens_last"}
    for limit in (300, 340, 400):
        features, plan = pipe.processor(
            **options, text_policy="middle", budget={"max_context_tokens": limit, "min_scale": 0.1}, return_plan=True
        )
        assert plan.spans and plan.total_tokens == len(features["input_ids"][0]) <= limit


def test_pages_are_seen_once(pipe: LongDocQAPipeline, cache: DocumentCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the pages were read already")

    expected = pipe(question=QUESTION, document=DOCUMENT, look_closer=KNOBS)
    monkeypatch.setattr(pipe.model, "get_image_features", refuse)
    assert comparable(pipe(question=QUESTION, document=cache, look_closer=KNOBS)) == comparable(expected)


def test_a_reading_with_spans_of_its_own_gives_its_pages(pipe: LongDocQAPipeline, cache: DocumentCache) -> None:
    with_anchors = pipe.read(DOCUMENT, text_policy="anchors")
    expected = pipe(question=QUESTION, document=cache, look_closer=KNOBS)
    assert comparable(pipe(question=QUESTION, document=with_anchors, look_closer=KNOBS)) == comparable(expected)
    last = pipe.read(DOCUMENT, text_policy="anchors", fusion_order="tokens_last")
    whole = pipe(question=QUESTION, document=DOCUMENT, text_policy="anchors", fusion_order="tokens_last")
    assert whole["plan"].spans and comparable(pipe(question=QUESTION, document=last)) == comparable(whole)


def test_it_is_off_unless_asked_for(checkpoint: Path, cache: DocumentCache) -> None:
    plain = pipeline("long-doc-qa", model=str(checkpoint), max_new_tokens=2)
    assert plain(question=QUESTION, document=DOCUMENT)["plan"].policy != "attention"
    close = pipeline("long-doc-qa", model=str(checkpoint), max_new_tokens=2, look_closer=True)
    assert close(question=QUESTION, document=DOCUMENT)["plan"].policy == "attention"
    assert close(question=QUESTION, document=close.read(DOCUMENT))["plan"].policy == "attention"
    for otherwise in ({"look_closer": False}, {"text_policy": "none"}):
        assert close(question=QUESTION, document=DOCUMENT, **otherwise)["plan"].policy != "attention"


def test_what_makes_no_sense_is_refused(pipe: LongDocQAPipeline, cache: DocumentCache) -> None:
    def ask(**options: Any) -> Any:
        return pipe(question=QUESTION, document=cache, **options)

    with pytest.raises(ValueError, match="text_policy='bm25' says otherwise: drop one of them"):
        ask(look_closer=True, text_policy="bm25")
    with pytest.raises(ValueError, match="fusion_order='pages_first' says otherwise"):
        ask(look_closer=True, fusion_order="pages_first")
    with pytest.raises(TypeError, match="look_closer is True, False or a dict of knobs of 'attention', not 3"):
        ask(look_closer=3)
    with pytest.raises((ValueError, TypeError), match="lens"):
        ask(look_closer={"lens": 2})
    with pytest.raises(ValueError, match=r"visual_share=0.* leaves nothing to read"):
        pipe(question=QUESTION, document=DOCUMENT, look_closer=True, budget={"visual_share": 0.0})
    pages = [np.full((168, 140), 255, dtype=np.uint8)] * 2
    assert pipe(question=QUESTION, document=pages, look_closer=True)["plan"].spans == ()


def whole_chat(cache: DocumentCache, asked: AskedQuestion, zoom: float) -> list[dict[str, Any]]:
    """The prompt of a larger look as anybody would write it, its pictures cut out of pages drawn for it."""
    document, scale = cache.plan.document, cache.plan.scale
    cuts = [cut for span in asked.plan.looked_at for cut in larger_pictures(document, span, scale * zoom)]
    words = {"type": "text", "text": asked.question}
    pictures = [{"type": "image", "image": cut} for cut in cuts]
    return [{"role": "user", "content": [{"type": "document", "text": DOCUMENT}, words, *pictures, words]}]


@pytest.mark.parametrize("zoom", [1.5, 3])
def test_what_is_looked_at_may_be_drawn_larger(pipe: LongDocQAPipeline, cache: DocumentCache, zoom: float) -> None:
    policy = resolve_text_policy({**POLICY, "zoom": zoom})
    attached = cache.attach(pipe.model, pipe.processor)
    asked = pipe.engine.ask(attached, QUESTION, text_policy=policy, fusion_order="tokens_last")
    tokens = asked_closely(pipe, cache)
    assert asked.plan.spans == () and asked.plan.policy == "attention"
    assert list(asked.plan.looked_at) == [(span.start, span.end) for span in tokens.plan.spans]
    assert asked.plan.total_tokens == len(asked.input_ids) and asked.pictures is not None and asked.read is not None
    whole = pipe.processor.apply_chat_template(
        whole_chat(cache, asked, zoom),
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        text_policy="none",
        budget={"min_scale": cache.plan.scale, "max_scale": cache.plan.scale},
    )
    assert whole["input_ids"].tolist() == [asked.input_ids]
    assert whole["image_grid_thw"][cache.plan.num_pages :].tolist() == asked.pictures["image_grid_thw"].tolist()
    with torch.no_grad():
        expected = pipe.model.generate(**whole, max_new_tokens=6, output_logits=True, return_dict_in_generate=True)
        options = pipe._generate_options({"max_new_tokens": 6, "grounding": None})
        found = next(
            pipe.engine._generate([asked], _with_question(_SharedPages(prefix=cache.prefix), [asked]), options)
        )
        beams = pipe._generate_options({"max_new_tokens": 6, "num_beams": 3, "grounding": None})
        searched = next(
            pipe.engine._generate([asked], _with_question(_SharedPages(prefix=cache.prefix), [asked]), beams)
        )
        best = pipe.model.generate(**whole, max_new_tokens=6, num_beams=3)
    length = whole["input_ids"].shape[1]
    assert found.token_ids.tolist() == expected.sequences[0, length:].tolist()
    scores = torch.stack(expected.logits)[:, 0].log_softmax(-1).gather(1, found.token_ids[:, None])[:, 0]
    torch.testing.assert_close(found.log_probabilities, scores, rtol=1e-4, atol=1e-5)
    assert searched.token_ids.tolist() == best[0, length:][: len(searched.token_ids)].tolist()


def test_larger_passages_answer_as_the_pipeline_does(pipe: LongDocQAPipeline, cache: DocumentCache) -> None:
    larger = {**KNOBS, "zoom": 2}
    first = pipe(question=QUESTIONS, document=cache, look_closer=larger, batch_size=3)
    assert comparable(first[1]) == comparable(pipe(question=QUESTIONS[1], document=DOCUMENT, look_closer=larger))
    assert "looked at    2 passages" in first[0]["plan"].summary()
    whole = first[0]["plan"].total_tokens
    less = pipe(question=QUESTIONS[0], document=cache, look_closer=larger, budget={"max_context_tokens": whole - 1})
    assert len(less["plan"].looked_at) == 1 and less["plan"].total_tokens < whole
    assert [piece.reason for piece in less["plan"].omitted] == ["not copied"]


def test_a_larger_look_that_cannot_be_is_refused(pipe: LongDocQAPipeline, cache: DocumentCache) -> None:
    with pytest.raises(ValueError, match=r"zoom=0\.5 must be between 1 and 8"):
        pipe(question=QUESTION, document=cache, look_closer={"zoom": 0.5})
    with pytest.raises(ValueError, match="zoom=2 draws what is looked at behind the question: give fusion_order="):
        pipe(question=QUESTION, document=cache, text_policy={**POLICY, "zoom": 2})
    with pytest.raises(
        ValueError, match="zoom=2 draws passages behind the question, which the pipeline's look_closer"
    ):
        pipe.processor(document=DOCUMENT, question=QUESTION, text_policy={**POLICY, "zoom": 2, "ranking": [(0, 9)]})
    cells = Typesetter(cell_aligned_config()).typeset(DOCUMENT)
    with pytest.raises(ValueError, match="these pages have no other scale than 1"):
        pipe(question=QUESTION, document=cells, look_closer={"zoom": 2})


def test_spans_stand_behind_the_last_thing_said(pipe: LongDocQAPipeline) -> None:
    processor = pipe.processor
    options: dict[str, Any] = {
        "text_policy": "full",
        "fusion_order": "tokens_last",
        "budget": {"max_text_tokens": 4000},
    }
    history = [("First question?", "First answer.")]
    features, plan = processor(document=DOCUMENT, question=QUESTION, history=history, return_plan=True, **options)
    said = processor.tokenizer.decode(features["input_ids"][0])
    assert plan.total_tokens == len(features["input_ids"][0])
    order = [said.index(words) for words in ("First question?", "First answer.", QUESTION, "[page 1]")]
    assert order == sorted(order)
    alone = processor(document=DOCUMENT, **options)
    assert "[page 1]" in processor.tokenizer.decode(alone["input_ids"][0])
    chat = [
        {"role": "user", "content": [{"type": "document", "text": DOCUMENT}]},
        {"role": "user", "content": QUESTION},
    ]
    written = processor.apply_chat_template(chat, **options)
    assert written.index(QUESTION) < written.index("[page 1]")


def test_the_command_takes_it(checkpoint: Path, tmp_path: Path) -> None:
    file = tmp_path / "document.txt"
    file.write_text(DOCUMENT)
    asked = ("ask", file, "-q", QUESTION, "--model", checkpoint, "--max-new-tokens", 2, "--look-closer", "tokens")
    result = run(*asked)
    assert result.exit_code == 0, result.output
    assert "by policy 'attention'" in result.stdout
    refused = run(*asked, "--text-policy", "bm25")
    assert refused.exit_code == 2 and "--look-closer copies what the model attends to" in refused.output.replace(
        "\n", " "
    )
