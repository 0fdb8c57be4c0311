# SPDX-License-Identifier: Apache-2.0
"""An answer that begins with given words: they end the prompt, to the token, and the model goes on from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sample_questions import DOCUMENT, QUESTION, comparable
from transformers import LlamaConfig, LlamaForCausalLM

from transformers_hybridctx import ContextBudgetError, LongDocQAPipeline, evaluation
from transformers_hybridctx.evaluation.contexts import Context
from transformers_hybridctx.evaluation.models import HybridModel, Reply, TextModel
from transformers_hybridctx.evaluation.samples import Sample

START = "The special magic number is"


def test_the_prompt_ends_with_the_words_and_the_plan_counts_them(pipe: LongDocQAPipeline) -> None:
    processor = pipe.processor
    plain, before = processor(document=DOCUMENT, question=QUESTION, return_plan=True)
    begun, plan = processor(document=DOCUMENT, question=QUESTION, answer_start=START, return_plan=True)
    words = processor.encoder([START])[0]
    assert begun["input_ids"][0] == plain["input_ids"][0] + words
    assert plan.total_tokens == before.total_tokens + len(words) == len(begun["input_ids"][0])
    special, _ = processor(document=DOCUMENT, question=QUESTION, answer_start="<|user|>", return_plan=True)
    ids = special["input_ids"][0]
    assert ids.count(processor.tokenizer.convert_tokens_to_ids("<|user|>")) == 1  # written as text
    budget = {"max_context_tokens": before.total_tokens}
    with pytest.raises(ContextBudgetError):
        processor(document=DOCUMENT, question=QUESTION, answer_start=START * 99, budget=budget, text_policy="full")


def test_the_answer_is_what_goes_on(pipe: LongDocQAPipeline) -> None:
    ids = pipe.processor(document=DOCUMENT, question=QUESTION, answer_start=START, return_tensors="pt")
    output = pipe.model.generate(**ids, max_new_tokens=6, do_sample=False)
    said = output[0, ids["input_ids"].shape[1] :]
    expected = pipe.processor.tokenizer.decode(said, skip_special_tokens=True).strip()
    answer = pipe(question=QUESTION, document=DOCUMENT, answer_start=START, max_new_tokens=6)
    assert (answer["reasoning"] + answer["answer"]).strip() == expected
    reading = pipe.read(DOCUMENT)
    assert comparable(pipe(question=QUESTION, document=reading, answer_start=START, max_new_tokens=6)) == comparable(
        answer
    )
    closer = pipe(question=QUESTION, document=reading, answer_start=START, look_closer=True, max_new_tokens=2)
    assert closer["plan"].policy == "attention"


def test_what_makes_no_sense_is_refused(pipe: LongDocQAPipeline) -> None:
    processor = pipe.processor
    with pytest.raises(ValueError, match="begins an answer, and question=None asks for none"):
        processor(document=DOCUMENT, answer_start=START)
    with pytest.raises(ValueError, match="give add_generation_prompt=True"):
        processor(document=DOCUMENT, question=QUESTION, answer_start=START, add_generation_prompt=False)
    with pytest.raises(TypeError, match="answer_start is a str, not int"):
        pipe(question=QUESTION, document=DOCUMENT, answer_start=3)
    with pytest.raises(TypeError, match="answer_start is a string, not int"):
        processor(document=DOCUMENT, question=QUESTION, answer_start=3)


def test_a_benchmark_s_beginning_stands_where_it_is_asked_for(
    pipe: LongDocQAPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = Sample(DOCUMENT, QUESTION, "\nAnswer:", ("a",), "first", 2)
    asked: list[Any] = []
    called = LongDocQAPipeline.__call__

    def note(self: Any, *args: Any, **options: Any) -> Any:
        asked.append((options["question"], options.get("answer_start")))
        return called(self, *args, **options)

    monkeypatch.setattr(LongDocQAPipeline, "__call__", note)
    replies = []
    for place in (None, "question", "answer"):
        replies += HybridModel(pipe).answers([sample], Context("pages"), place)
    assert asked == [(QUESTION, None), (QUESTION + "\nAnswer:", None), (QUESTION, "Answer:")]
    assert all(isinstance(reply, Reply) for reply in replies)
    assert len({reply.prompt for reply in replies}) == 3
    with pytest.raises(ValueError, match="answer_prefix='end' is not one of 'question', 'answer' and None"):
        evaluation.run("needles", pipe, answer_prefix="end")
    tokenizer = pipe.processor.tokenizer
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    text = TextModel(str(tmp_path))
    (plain,), (begun,) = (text.answers([sample], Context("tokens"), place) for place in (None, "answer"))
    assert isinstance(plain, Reply) and isinstance(begun, Reply)
    words = len(tokenizer("Answer:", add_special_tokens=False)["input_ids"])
    assert begun.plan["prompt"] == plain.plan["prompt"] + words
