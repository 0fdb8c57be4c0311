# SPDX-License-Identifier: Apache-2.0
"""The answering engine: what it shares between questions, how answers end, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from sample_questions import DOCUMENT, QUESTION, QUESTIONS, comparable
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    MaxLengthCriteria,
    StoppingCriteriaList,
    TextIteratorStreamer,
)

from transformers_hybridctx import HybridCtxProcessor, LongDocQAPipeline
from transformers_hybridctx.answering.generate_options import GenerateOptions
from transformers_hybridctx.prompting.encoder import PlainEncoder


class Says(LogitsProcessor):
    """Makes each row of a batch say its own text, and then the same token until it is stopped."""

    def __init__(self, pipe: LongDocQAPipeline, *texts: str) -> None:
        tokenizer = pipe.processor.tokenizer
        self.rows = [tokenizer.encode(text) for text in texts]
        self.filler = tokenizer.encode("z")[-1]
        self.step = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        forced = torch.full_like(scores, -torch.inf)
        for row, ids in enumerate(self.rows):
            forced[row, ids[self.step] if self.step < len(ids) else self.filler] = 0
        self.step += 1
        return forced


def saying(pipe: LongDocQAPipeline, *texts: str) -> LogitsProcessorList:
    return LogitsProcessorList([Says(pipe, *texts)])


def test_the_engine_answers_without_the_pipeline(pipe: LongDocQAPipeline) -> None:
    options = GenerateOptions(pipe.model, {"max_new_tokens": 6}, batch_size=2)
    found = pipe.engine.answer(DOCUMENT, QUESTIONS, options, text_policy="anchors")
    expected = pipe(question=QUESTIONS, document=DOCUMENT, text_policy="anchors")
    assert [answer.question for answer in found] == QUESTIONS
    for answer, pipes in zip(found, expected):
        assert (answer.plan, len(answer.token_ids)) == (pipes["plan"], pipes["usage"]["new_tokens"])
        assert answer.score == pytest.approx(pipes["score"], abs=1e-6)
        assert answer.finish_reason == pipes["finish_reason"]


@pytest.mark.parametrize("policy", ["anchors", "bm25", "attention"])
def test_a_history_is_part_of_the_prompt_read_or_not(pipe: LongDocQAPipeline, policy: str) -> None:
    history = [("Which one?", "The first."), ("And then?", "The second.")]
    options = {"question": QUESTION, "text_policy": policy, "history": history}
    expected = pipe(document=DOCUMENT, **options)
    found = pipe(document=pipe.read(DOCUMENT, text_policy=policy), **options)
    assert comparable(found) == comparable(expected)
    alone = pipe(document=DOCUMENT, question=QUESTION, text_policy=policy)
    assert expected["usage"]["prompt_tokens"] > alone["usage"]["prompt_tokens"]


# How answers end


def test_an_answer_that_was_cut_off_says_so(pipe: LongDocQAPipeline) -> None:
    end = pipe.processor.tokenizer.eos_token
    cut = pipe(question=QUESTION, document=DOCUMENT, logits_processor=saying(pipe, "4821930"), max_new_tokens=4)
    assert (cut["answer"], cut["finish_reason"]) == ("4821", "length")
    whole = pipe(question=QUESTION, document=DOCUMENT, logits_processor=saying(pipe, f"48{end}"), max_new_tokens=3)
    assert (whole["answer"], whole["finish_reason"], whole["usage"]["new_tokens"]) == ("48", "stop", 3)


def test_an_answer_that_was_cut_while_thinking_says_so_and_the_way_out(pipe: LongDocQAPipeline) -> None:
    with pytest.warns(UserWarning, match=r"was cut off after 9 tokens, before it began: raise max_new_tokens"):
        cut = pipe(
            question=QUESTION, document=DOCUMENT, logits_processor=saying(pipe, "<think>so it is"), max_new_tokens=9
        )
    assert (cut["answer"], cut["finish_reason"]) == ("", "length")
    assert cut["reasoning"]


@pytest.mark.parametrize("batch_size", [1, 2])
def test_stop_strings_end_each_answer_of_a_batch_where_they_stand(pipe: LongDocQAPipeline, batch_size: int) -> None:
    texts = ["it was 4821930. The", "best of times. It was the worst"]
    stops = ["930. The", "times. "]
    found = [
        answer
        for start in range(0, 2, batch_size)
        for answer in pipe(
            question=QUESTIONS[start : start + batch_size],
            document=DOCUMENT,
            stop_strings=stops,
            batch_size=batch_size,
            logits_processor=saying(pipe, *texts[start : start + batch_size]),
            max_new_tokens=30,
        )
    ]
    assert [answer["answer"] for answer in found] == ["it was 4821930. The", "best of times."]
    assert [answer["finish_reason"] for answer in found] == ["stop", "stop"]
    assert [answer["score"] for answer in found] == [pytest.approx(answer["score"]) for answer in found]
    assert pipe(question=QUESTION, document=DOCUMENT, stop_strings="no such")["finish_reason"] == "length"


def test_a_criterion_of_the_caller_ends_each_answer_of_a_batch_at_its_own_place(pipe: LongDocQAPipeline) -> None:
    plans = [pipe.processor.plan(DOCUMENT, one) for one in QUESTIONS]
    criteria = StoppingCriteriaList([MaxLengthCriteria(max(plan.total_tokens for plan in plans) + 2)])
    options = {"document": DOCUMENT, "stopping_criteria": criteria, "max_new_tokens": 200}
    apart = [comparable(pipe(question=one, **options)) for one in QUESTIONS]
    assert [comparable(answer) for answer in pipe(question=QUESTIONS, batch_size=3, **options)] == apart
    assert {answer["finish_reason"] for answer in apart} == {"stop"}


def test_an_answer_streams_as_it_grows(pipe: LongDocQAPipeline) -> None:
    streamer = TextIteratorStreamer(pipe.processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    for document in (DOCUMENT, pipe.read(DOCUMENT)):
        answer = pipe(question=QUESTION, document=document, streamer=streamer)
        assert "".join(streamer).strip() == answer["answer"]
    for name, value in (("batch_size", 2), ("num_beams", 3)):
        with pytest.raises(ValueError, match=rf"streamer= shows one answer .* {name}={value} must be 1"):
            pipe(question=QUESTIONS, document=DOCUMENT, streamer=streamer, **{name: value})


# What stands around the document


def test_a_system_message_and_the_template_s_own_options_are_in_the_prompt(
    pipe: LongDocQAPipeline, processor: HybridCtxProcessor
) -> None:
    template = processor.chat_template + "{%- if enable_thinking is false %}<think></think>{% endif %}"
    thinking = HybridCtxProcessor(
        processor.image_processor, processor.tokenizer, template, render_config=processor.render_config
    )
    pipe = LongDocQAPipeline(pipe.model, thinking, max_new_tokens=6)
    around = {"system": "Answer in one word.", "chat_template_kwargs": {"enable_thinking": False}}
    expected = comparable(pipe(question=QUESTION, document=DOCUMENT, **around))
    ids = thinking(document=DOCUMENT, question=QUESTION, **around)["input_ids"][0]
    assert thinking.tokenizer.decode(ids).endswith("<think></think>")
    assert "<|system|>\nAnswer in one word.<|user|>" in thinking.tokenizer.decode(ids)
    assert expected["usage"]["prompt_tokens"] == len(ids)
    cache = pipe.read(DOCUMENT, **around)
    assert comparable(pipe(question=QUESTION, document=cache)) == expected
    assert comparable(pipe(question=QUESTION, document=cache, **around)) == expected
    with pytest.raises(ValueError, match=r"was read with system='Answer in one word\.', not 'Shout\.'; read it with"):
        pipe(question=QUESTION, document=cache, system="Shout.")
    with pytest.warns(UserWarning, match="chat template does not know 'tone'"):
        pipe(question=QUESTION, document=DOCUMENT, chat_template_kwargs={"tone": "dry"})
    with pytest.raises(TypeError, match="system is a str, not int: 7"):
        pipe(question=QUESTION, document=DOCUMENT, system=7)


# Work that is shared


@pytest.mark.parametrize("policy", ["none", "anchors", {"name": "bm25", "top_k": 1}], ids=str)
def test_more_questions_are_no_more_work_on_the_document(
    pipe: LongDocQAPipeline, monkeypatch: pytest.MonkeyPatch, policy: Any
) -> None:
    calls: dict[str, int] = {}

    def counted(owner: Any, name: str, size: Callable[..., int] = lambda *_, **__: 1) -> None:
        original = getattr(owner, name)

        def counting(*args: Any, **kwargs: Any) -> Any:
            calls[name] = calls.get(name, 0) + size(*args, **kwargs)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, counting)

    counted(pipe.processor, "draw_pages")
    counted(pipe.processor, "read_document")
    counted(pipe.model, "get_image_features")
    counted(PlainEncoder, "_encode", lambda encoder, texts: sum(map(len, texts)))
    work = []
    for number in (2, 8):
        calls.clear()
        pipe(question=[f"{QUESTION} {index}" for index in range(number)], document=DOCUMENT, text_policy=policy)
        work.append(dict(calls))
    assert work[0]["draw_pages"] == work[1]["draw_pages"] == 1
    assert work[0]["get_image_features"] == work[1]["get_image_features"] == 1
    characters = [one["_encode"] for one in work]
    assert characters[1] - characters[0] < 6 * len(DOCUMENT) / 4  # six questions, and not six times the document


# What is refused


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"batch_size": -1}, "batch_size=-1 must be a whole number of questions at a time: 1 or more"),
        ({"batch_size": 0}, "batch_size=0 must be"),
        ({"batch_size": True}, "batch_size=True must be"),
        ({"batch_size": 2.0}, r"batch_size=2\.0 must be"),
        ({"batch_size": "2"}, "batch_size='2' must be"),
        ({"max_new_tokens": None}, "max_new_tokens=None must be a whole number of tokens \\(leave it out"),
        ({"max_new_tokens": True}, "max_new_tokens=True must be"),
        ({"max_new_tokens": 2.5}, "max_new_tokens=2.5 must be"),
        ({"max_new_tokens": "9"}, "max_new_tokens='9' must be"),
        ({"generate_kwargs": {"max_new_tokens": -3}}, "max_new_tokens=-3 must be"),
        ({"num_beams": 0}, "num_beams=0 must be"),
        ({"num_return_sequences": -1}, "num_return_sequences=-1 must be"),
        ({"num_return_sequences": 3}, "num_return_sequences"),
        ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences"),
        ({"prefill_chunk_size": 0}, "prefill_chunk_size=0 must be"),
        ({"prompt_lookup_num_tokens": -1}, "prompt_lookup_num_tokens=-1 must be"),
        ({"early_stopping": "often"}, "cannot be used: `early_stopping` must be"),
        ({"pad_token_id": "x"}, "pad_token_id='x' must be a token id"),
    ],
    ids=str,
)
def test_a_value_that_makes_no_sense_is_named_before_the_model_runs(
    pipe: LongDocQAPipeline, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], reason: str
) -> None:
    for name in ("forward", "generate", "get_image_features"):
        monkeypatch.setattr(pipe.model, name, lambda *_, **__: pytest.fail("the model ran"))
    with pytest.raises(ValueError, match=reason):
        pipe(question=QUESTIONS, document=DOCUMENT, **given)


def test_what_generate_does_not_know_is_named_before_the_model_runs(pipe: LongDocQAPipeline) -> None:
    with pytest.raises(TypeError, match="generate does not know depth, width: take it out of generate_kwargs"):
        pipe(question=QUESTION, document=DOCUMENT, generate_kwargs={"width": 1, "depth": 2})


def test_a_generation_config_is_as_good_as_its_parameters(pipe: LongDocQAPipeline) -> None:
    config = GenerationConfig(max_new_tokens=2, eos_token_id=pipe.processor.tokenizer.eos_token_id)
    answer = pipe(question=QUESTION, document=DOCUMENT, generation_config=config)
    assert answer["usage"]["new_tokens"] <= 2
