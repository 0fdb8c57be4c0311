# SPDX-License-Identifier: Apache-2.0
"""Answers of the pipeline held to their document: quotations are in it whatever the model does, and what is refused."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_questions import DOCUMENT, QUESTION, QUESTIONS, comparable
from transformers import LogitsProcessor, LogitsProcessorList, TextIteratorStreamer, pipeline

from transformers_hybridctx import DocumentCache, LongDocQAPipeline, RenderConfig
from transformers_hybridctx.answering.results import LongDocAnswer
from transformers_hybridctx.grounding import span_index
from transformers_hybridctx.grounding.folding import fold
from transformers_hybridctx.grounding.grounded import Grounding, document_index, support_checker
from transformers_hybridctx.rendering.typesetting import Typesetter

WHOLE = {"begin": None, "end": None}
TYPOGRAPHY = (
    "The “ﬁnal” report says:  the code for the\ngreen-\nlemur is 4821930 — no more, no less. Cafe\u0301 10.0.0.1, "
    "€1,234,567; the code for blue-heron is 7750112. 她在二零二四年花费了。 שלום 👩‍👩‍👧 etc. The code is the code.\n"
) * 3

WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampling": {"do_sample": True, "temperature": 3.0, "top_k": 20},
    "nucleus": {"do_sample": True, "temperature": 2.0, "top_p": 0.9, "min_p": 0.01},
    "beams": {"num_beams": 3},
    "sampled beams": {"do_sample": True, "num_beams": 3, "temperature": 2.0},
    "several sequences": {"do_sample": True, "num_return_sequences": 2, "temperature": 2.0},
    "static cache": {"cache_implementation": "static"},
    "penalties": {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2, "min_new_tokens": 8},
    "stop strings": {"do_sample": True, "temperature": 2.0, "stop_strings": ["e", "4"]},
    "cut": {"do_sample": True, "temperature": 2.0, "max_new_tokens": 3},
}


class Says(LogitsProcessor):
    """Makes a model go for a text, wherever it is allowed to."""

    def __init__(self, pipe: LongDocQAPipeline, text: str) -> None:
        tokenizer = pipe.processor.tokenizer
        self.ids = [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
        self.step = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        wished = torch.zeros_like(scores)
        wished[:, self.ids[min(self.step, len(self.ids) - 1)]] = 1e4
        self.step += 1
        return wished


def says(pipe: LongDocQAPipeline, text: str, document: Any = DOCUMENT, **options: Any) -> LongDocAnswer:
    said = LogitsProcessorList([Says(pipe, text)])
    options = {"question": QUESTION, "max_new_tokens": 99, "grounding": "quote", **options}
    return pipe(document=document, logits_processor=said, **options)


def check(answer: LongDocAnswer, text: str) -> None:
    """Quotations are spans of the document, and the evidence is theirs."""
    quoted = [one for one in answer["quotations"] if not one["is_answer"]]
    for one in answer["quotations"]:
        start, end = one["places"][0]
        assert text[start:end] == one["text"]
        if one["is_complete"]:  # one that was cut may end within a ligature
            assert len({fold(text[start:end]).text for start, end in one["places"]}) == 1
        if one["is_answer"]:
            spans = [span for quote in quoted for span in quote["places"]]
            assert all(any(a <= start and end <= b for a, b in spans) for start, end in one["places"])
    said = [one for one in answer["quotations"] if one["is_answer"]] or answer["quotations"]
    allowed = {place for one in said for place in one["places"]}
    for item in answer["evidence"] if answer["quotations"] else ():
        assert any(start <= item["start"] and item["end"] <= end for start, end in allowed)
        assert text[item["start"] : item["end"]] == item["text"]
    taken = [one for one in answer["quotations"] if one["is_answer"]]
    if taken and taken[-1]["is_complete"]:
        assert answer["support"] is not None and answer["support"]["status"] == "verbatim"


@pytest.fixture(scope="module")
def documents(pipe: LongDocQAPipeline) -> list[tuple[str, Any]]:
    """Each text laid out, and read."""
    return [
        (text, given) for text in (DOCUMENT, TYPOGRAPHY) for given in (pipe.lay_out(text=text), pipe.read(text=text))
    ]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "form", ["quote", WHOLE, {"begin": "e", "end": "a"}], ids=["marks", "whole answers", "letters as marks"]
)
@pytest.mark.filterwarnings("ignore:.*was cut off after")
def test_quotations_stand_in_the_document_however_they_are_generated(
    pipe: LongDocQAPipeline, documents: list[tuple[str, Any]], way: str, form: Any
) -> None:
    options = {"max_new_tokens": 40, "grounding": form, **WAYS[way]}
    quoted = 0
    for seed, (text, document) in enumerate(documents):
        torch.manual_seed(seed)
        alone = pipe(question=QUESTION, document=document, **options)
        together = pipe(question=QUESTIONS, document=document, batch_size=3, **options)
        for answer in (alone, *together):
            check(answer, text)
            quoted += len(answer["quotations"])
    assert quoted or way in ("stop strings", "cut")  # the opening mark was not said to its end


ODD = "ab1-.,:/ \n\t“”'’ﬁfi\u00ad\u200be\u0301é漢字한שa😀🇮🇸👩\u200d👩345_@#"
FORMS = [
    WHOLE,
    "quote",
    {"max_quotations": 3},
    {"begin": "e", "end": "a"},
    {"begin": "1", "end": "2", "free_start": True},
]


def test_a_checkpoint_may_have_its_answers_held_where_nobody_says(
    pipe: LongDocQAPipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = {"question": QUESTION, "document": DOCUMENT, "max_new_tokens": 12}
    free = pipe(**asked)
    assert free["quotations"] == []
    monkeypatch.setattr(pipe.processor, "default_grounding", {"max_quotations": 2})
    held = pipe(**asked)
    assert held["quotations"]
    check(held, DOCUMENT)
    for off in (None, "none"):
        assert comparable(pipe(**asked, grounding=off)) == comparable(free)
    # the word alone is the checkpoint's own form; a dict is the form that it says
    assert comparable(pipe(**asked, grounding="quote")) == comparable(held)
    forms = {"max_quotations": 2}, "strings", None
    own = [Grounding.of("quote", form) for form in forms]
    assert [one.form.max_quotations for one in own if one] == [2, 1, 1]
    assert Grounding.of({"mode": "quote"}, forms[0]) == Grounding.of("quote")
    # where it cannot be, a default is no error
    picture = np.full((56, 56), 255, np.uint8)
    assert pipe(**{**asked, "document": [picture]})["quotations"] == []
    assert pipe(**asked, prompt_lookup_num_tokens=2)["quotations"] == []
    pipe.save_pretrained(tmp_path)
    kept = pipeline("long-doc-qa", model=str(tmp_path), device="cpu")
    assert kept.processor.default_grounding == {"max_quotations": 2}


TYPESETTER = Typesetter(RenderConfig())


def is_shown(text: str) -> bool:
    """Whether there is anything to draw: a text of joiners alone is refused as empty."""
    try:
        TYPESETTER.typeset(text)
    except ValueError:
        return False
    return bool(fold(text).text)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=(st.text(min_size=1, max_size=60) | st.text(ODD, max_size=300)).filter(is_shown),
    seed=st.integers(0, 99),
    form=st.sampled_from(FORMS),
    way=st.sampled_from(list(WAYS)),
)
@pytest.mark.filterwarnings("ignore:.*was cut off after")
def test_any_text_is_quoted_from(pipe: LongDocQAPipeline, text: str, seed: int, form: Any, way: str) -> None:
    torch.manual_seed(seed)
    options = {"max_new_tokens": 20, "grounding": form, **WAYS[way]}
    answer = pipe(question="What?", text=text, **options)
    check(answer, answer["plan"].document.text)


def test_the_answer_is_part_of_the_quotation_and_has_its_places(pipe: LongDocQAPipeline) -> None:
    answer = says(pipe, "<think>number for green-lemur is: 4821930</think>4821930", num_beams=1)
    assert (answer["reasoning"], answer["answer"]) == ("number for green-lemur is: 4821930", "4821930")
    quotation, taken = answer["quotations"]
    start = DOCUMENT.index("4821930")
    assert quotation["text"] == answer["reasoning"] and not quotation["is_answer"]
    assert taken["is_answer"] and taken["places"] == ((start, start + 7),)
    (item,) = answer["evidence"]
    assert (item["start"], item["end"], item["page"]) == (start, start + 7, answer["plan"].document.page_of(start))


def test_all_places_of_an_ambiguous_answer_are_evidence(pipe: LongDocQAPipeline) -> None:
    text = "The fee is 10 EUR. " + "Filler. " * 30 + "The fee is 10 EUR."
    answer = says(pipe, "<think>fee is 10 EUR</think>10", text)
    last = text.rindex("10")
    assert [(item["start"], item["end"]) for item in answer["evidence"]] == [(11, 13), (last, last + 2)]


def test_an_answer_of_several_spans_agrees_with_its_question_as_the_worst_of_them(pipe: LongDocQAPipeline) -> None:
    document = "The code for green-lemur is 4821930 today. " + "A sail was seen. " * 60 + "The old harbour wall."

    def agreement(said: str) -> float:
        says = LogitsProcessorList([Says(pipe, said)])
        options: dict[str, Any] = {"logits_processor": says, "max_new_tokens": 80}
        held = {"mode": "quote", "max_quotations": 2}
        answer = pipe(question="The code for green-lemur?", document=document, grounding=held, **options)
        assert answer["answer"] == said.partition("</think>")[2]
        return answer["support"]["agreement"]

    alone = agreement("<think>green-lemur is 4821930</think>4821930")
    assert alone == agreement("<think>green-lemur is 4821930\ntoday</think>4821930, today")
    assert alone > agreement("<think>green-lemur is 4821930\nharbour wall</think>4821930, wall") == 0


@pytest.mark.parametrize(
    ("form", "said", "reasoning", "answer"),
    [
        ({"begin": "[", "end": "]"}, "[green-lemur is: 4821930]4821930", "[green-lemur is: 4821930]", "4821930"),
        ({"begin": "So:", "end": None}, "I look. So: 4821930", "I look. So:", "4821930"),
        (WHOLE, "4821930", "", "4821930"),
        ({"begin": "[", "end": "]", "answer": "free"}, "It is [4821930], it is.", "", "It is [4821930], it is."),
        (
            {"max_quotations": 2},
            "<think>4821930\n7750112</think>7750112, 4821930",
            "4821930\n7750112",
            "7750112, 4821930",
        ),
        ({"max_quotations": 2}, "<think>4821930\n7750112</think>7750112", "4821930\n7750112", "7750112"),
    ],
    ids=str,
)
def test_the_form_of_an_answer_that_quotes_is_the_callers(
    pipe: LongDocQAPipeline, form: dict[str, Any], said: str, reasoning: str, answer: str
) -> None:
    found = says(pipe, said, grounding=form)
    assert (found["reasoning"], found["answer"], found["finish_reason"]) == (reasoning, answer, "stop")
    assert found["evidence"][-1]["text"] in ("4821930", "7750112")


def test_strings_are_held_and_words_are_free(pipe: LongDocQAPipeline) -> None:
    free = says(pipe, "It must be 4821931 or so", grounding=None)
    assert free["answer"] == "It must be 4821931 or so" and free["support"]["status"] == "near"
    held = says(pipe, "It must be 4821931 or so", grounding="strings")
    assert "4821930" in held["answer"] and "4821931" not in held["answer"]
    assert held["answer"].startswith("It must be") and held["quotations"] == []
    # what is computed is not in the document: leave grounding out, and it is said as it is
    assert says(pipe, "4821930 + 1 = 4821931", grounding=None)["answer"] == "4821930 + 1 = 4821931"


def test_each_question_of_a_batch_may_say_its_own_strings(pipe: LongDocQAPipeline) -> None:
    questions = ["Is it 4822222?", "Is it 4833333?"]
    answers = says(pipe, "4822222", question=questions, grounding="strings", batch_size=2)
    assert answers[0]["answer"].startswith("4822222")
    assert "4822222" not in answers[1]["answer"]


def test_grounding_of_the_pipeline_is_a_default_and_none_switches_it_off(checkpoint: Path) -> None:
    from transformers import pipeline

    pipe = pipeline("long-doc-qa", model=str(checkpoint), max_new_tokens=8, grounding=WHOLE)
    assert pipe(question=QUESTION, document=DOCUMENT)["quotations"]
    assert pipe(question=QUESTION, document=DOCUMENT, grounding=None)["quotations"] == []


def test_a_held_answer_streams_and_is_the_same_from_a_reading(pipe: LongDocQAPipeline, tmp_path: Path) -> None:
    options = {"question": QUESTION, "grounding": WHOLE, "max_new_tokens": 20}
    expected = pipe(document=DOCUMENT, **options)
    streamer = TextIteratorStreamer(pipe.processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    assert comparable(pipe(document=DOCUMENT, streamer=streamer, **options)) == comparable(expected)
    assert "".join(streamer).strip() == expected["answer"]
    pipe.read(DOCUMENT).save(tmp_path / "document.safetensors")
    loaded = DocumentCache.load(tmp_path / "document.safetensors")
    assert comparable(pipe(document=loaded, **options)) == comparable(expected)


# Checked answers


def test_an_answer_says_how_it_stands_whether_it_was_held_or_not(pipe: LongDocQAPipeline) -> None:
    near = says(pipe, "4821931", grounding=None, repair=True)
    assert (near["answer"], near["checked"], near["support"]["status"]) == ("4821931", "4821930", "near")
    assert near["support"]["whole"]["found"] == ("4821930",) and near["support"]["whole"]["distance"] == 1
    start = DOCUMENT.index("4821930")
    assert near["support"]["whole"]["places"] == ((start, start + 7),)
    assert says(pipe, "4821931", grounding=None)["checked"] == "4821931"
    absent = says(pipe, "1234567", grounding=None, abstain=True)
    assert (absent["answer"], absent["checked"], absent["support"]["status"]) == ("1234567", None, "absent")
    assert says(pipe, "1234567", grounding=None)["checked"] == "1234567"
    # a random model that is made to say something is never sure of it
    assert says(pipe, "4821930", grounding=None, abstain=0.0)["checked"] == "4821930"
    assert says(pipe, "4821930", grounding=None, abstain=1.0)["checked"] is None
    with pytest.raises(ValueError, match="abstain=2 must be between 0 and 1"):
        says(pipe, "4821930", abstain=2)


@pytest.mark.parametrize("grounding", [None, "quote"])
def test_an_answer_that_was_cut_while_thinking_is_not_called_absent(pipe: LongDocQAPipeline, grounding: Any) -> None:
    with pytest.warns(UserWarning, match="was cut off after 12 tokens, before it began"):
        cut = says(pipe, "<think>it was the best of times", grounding=grounding, max_new_tokens=12, abstain=True)
    assert (cut["answer"], cut["checked"], cut["finish_reason"]) == ("", None, "length")
    assert cut["support"]["status"] == "cut off"
    assert [one["is_complete"] for one in cut["quotations"]] == [False] * (grounding == "quote")


# Indexes


def test_a_document_is_indexed_once_and_forgotten_with_it(pipe: LongDocQAPipeline) -> None:
    document = pipe.lay_out(text=DOCUMENT)
    index = document_index(document)
    assert document_index(document) is index and support_checker(document).index is index
    assert support_checker(document) is support_checker(document)
    known = weakref.ref(index)
    del document, index
    gc.collect()
    assert known() is None


def test_a_reading_brings_the_order_of_its_index(
    pipe: LongDocQAPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = pipe.read(text=DOCUMENT)
    options = {"question": QUESTION, "grounding": WHOLE, "max_new_tokens": 20}
    expected = pipe(document=reading, **options)
    reading.save(tmp_path / "a.safetensors")
    DocumentCache.load(tmp_path / "a.safetensors").save(tmp_path / "b.safetensors")  # before anybody has asked
    monkeypatch.setattr(span_index, "divsufsort", lambda _: pytest.fail("sorted again"))
    loaded = DocumentCache.load(tmp_path / "b.safetensors")
    loaded.attach(pipe.model, pipe.processor)
    order = document_index(loaded.plan.document).order
    assert np.array_equal(order, document_index(reading.plan.document).order)
    monkeypatch.undo()  # quotations have indexes of their own
    assert comparable(pipe(document=loaded, **options)) == comparable(expected)


# What is refused


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"grounding": "quotes"}, ValueError, "grounding='quotes' is not one of 'quote', 'strings', 'none' and None"),
        ({"grounding": 1}, TypeError, "grounding= is 'quote', 'strings', a dict or None, not int: 1"),
        ({"grounding": {"mode": "strings", "begin": "["}}, ValueError, "begin are of mode 'quote'; leave them out"),
        ({"grounding": {"marks": "["}}, ValueError, "does not know marks: it has mode, begin, end, answer"),
        ({"grounding": {"begin": None}}, ValueError, "end='</think>' without begin: give both marks"),
        ({"grounding": {"begin": 7}}, TypeError, "begin=7 is no string"),
        ({"grounding": {"answer": "short"}}, ValueError, "answer='short' is not one of 'span' and 'free'"),
        ({"grounding": {"max_quotations": 0}}, ValueError, "max_quotations=0 must be a whole number of spans"),
        ({"grounding": "quote", "prompt_lookup_num_tokens": 3}, ValueError, "drop one of them"),
        ({"grounding": "strings", "assistant_model": "itself"}, ValueError, "drop one of them"),
        (
            {"grounding": "quote", "document": [np.zeros((168, 168), np.uint8)]},
            ValueError,
            "grounding='quote' holds answers to the document's text, and this document has none: page pictures need",
        ),
        (
            {"grounding": "strings", "document": [np.zeros((168, 168), np.uint8)], "text_policy": "attention"},
            ValueError,
            "this document has none",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_held_is_refused_before_the_model_runs(
    pipe: LongDocQAPipeline,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    error: type[Exception],
    reason: str,
) -> None:
    for name in ("forward", "generate", "get_image_features"):
        monkeypatch.setattr(pipe.model, name, lambda *_, **__: pytest.fail("the model ran"))
    if options.get("assistant_model"):
        options = {**options, "assistant_model": pipe.model}
    with pytest.raises(error, match=reason):
        pipe(**{"question": QUESTION, "document": DOCUMENT, **options})


def test_a_grounding_is_itself() -> None:
    grounding = Grounding.of({"begin": "<answer>", "end": "</answer>", "answer": "free"})
    assert grounding is not None and Grounding.of(grounding) is grounding
    assert grounding.form.free_start and Grounding.of("quote").form.begin == "<think>"  # type: ignore[union-attr]
