# SPDX-License-Identifier: Apache-2.0
"""Quotations are in the document, whatever the model, the tokenizer and the way of generating."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_tokenizers import TEXTS, random_text_model, tokenizer_of
from transformers import LogitsProcessorList

from transformers_hybridctx import DocumentQuoteProcessor, DocumentStringProcessor
from transformers_hybridctx.grounding import matching
from transformers_hybridctx.grounding.borders import word_borders
from transformers_hybridctx.grounding.folding import fold
from transformers_hybridctx.grounding.matching import IndexMatcher, PlainMatcher
from transformers_hybridctx.grounding.span_index import DocumentIndex
from transformers_hybridctx.grounding.token_pieces import pieces_of

KINDS = ["byte level", "sentencepiece", "wordpiece"]
DOCUMENT = "\n".join(TEXTS) + " The number for blue-\nfox is  7; the “ﬁnal” cafe\u0301 closed. It was late."


def prompt(tokenizer: Any, *questions: str) -> dict[str, torch.Tensor]:
    tokenizer.padding_side = "left"
    return dict(tokenizer(list(questions), return_tensors="pt", padding=True, return_token_type_ids=False))


def generate(processor: DocumentQuoteProcessor, tokenizer: Any, *questions: str, seed: int = 0, **options: Any) -> Any:
    inputs = prompt(tokenizer, *questions)
    torch.manual_seed(seed)
    model = random_text_model(len(tokenizer) + 3, seed)
    output = model.generate(**inputs, logits_processor=LogitsProcessorList([processor]), **options)
    return output[:, inputs["input_ids"].shape[1] :]


def check(processor: DocumentQuoteProcessor, text: str, tokens: Any, document: int = 0) -> list[Any]:
    """Every quotation is a span of the text; complete ones end at word borders; answers are spans of quotations."""
    found = processor.quotations(tokens, document)
    assert found, "nothing was quoted"
    quoted: list[Any] = []
    borders = word_borders(text)
    for one in found:
        assert one.places and text[slice(*one.places[0])] == one.text
        shortest, *others = sorted((fold(text[start:end]).text for start, end in one.places), key=len)
        if one.is_complete:
            assert set(others) <= {shortest}
        else:  # cut off within a character, such as a ligature: then a place holds all of it
            assert all(other.startswith(shortest) for other in others)
        if one.is_complete:
            assert all(borders[start] and borders[end] for start, end in one.places)
        if one.is_answer:
            for start, end in one.places:
                assert any(a <= start and end <= b for quote in quoted for a, b in quote.places)
        else:
            quoted.append(one)
    return found


SCRIPTS = ["走进了", "مَرْحَبًا ", "שלום ", "हिन्दी ", "ไทย", "the ", "e\u0301", "a\u0323\u0307 ", "İ", "ŉ", "ﷺ", "½ "]
SIGNS = [
    "\n",
    "-\n",
    "“a” ",
    "ﬁ",
    "👍🏽",
    "👩\u200d👧",
    "🇮🇸",
    "\u00ad",
    "\u200b",
    "\ud83d",
    "\u2028",
    "A: ",
    "=",
    "\x00",
]
MIXED = st.lists(
    st.sampled_from([*SCRIPTS, *SIGNS, "3-4 ", "1,234,567 ", "<think>", "</s>", "the cat "]), min_size=1, max_size=40
).map("".join)


@settings(max_examples=8, deadline=None)
@given(
    text=MIXED,
    kind=st.sampled_from(KINDS),
    marks=st.booleans(),
    way=st.sampled_from(["greedy", "sampling", "beams", "sequences", "static cache"]),
    seed=st.integers(0, 4),
)
def test_several_quotations_are_in_any_text_and_what_was_said_tells_them(
    text: str, kind: str, marks: bool, way: str, seed: int
) -> None:
    if not fold(text).text:
        return
    tokenizer = tokenizer_of(kind, marks or kind == "wordpiece")
    processor = DocumentQuoteProcessor(text, tokenizer, max_quotations=4)
    for row in generate(processor, tokenizer, "what is it?", seed=seed, max_new_tokens=25, **WAYS[way]):
        found = processor.quotations(row)
        if found:
            check(processor, text, row)
        assert DocumentQuoteProcessor(text, tokenizer, max_quotations=4).quotations(row) == found


WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "sampling": {"do_sample": True, "temperature": 3.0, "top_k": 20},
    "beams": {"do_sample": False, "num_beams": 4},
    "sampled beams": {"do_sample": True, "num_beams": 3, "num_return_sequences": 2, "temperature": 2.0},
    "sequences": {"do_sample": True, "num_return_sequences": 3, "temperature": 2.0, "top_k": 0},
    "static cache": {"do_sample": False, "cache_implementation": "static"},
    "drafted": {"do_sample": False, "prompt_lookup_num_tokens": 3},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_generating_quotes_the_document(kind: str, way: str) -> None:
    tokenizer = tokenizer_of(kind)
    processor = DocumentQuoteProcessor(DOCUMENT, tokenizer)
    for seed in range(2):
        for row in generate(processor, tokenizer, "what is it?", seed=seed, max_new_tokens=40, **WAYS[way]):
            check(processor, DOCUMENT, row)


@pytest.mark.parametrize("kind", KINDS)
def test_each_prompt_of_a_batch_has_its_document(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    texts = [DOCUMENT, TEXTS[3], "Only this: 42."]
    processor = DocumentQuoteProcessor(texts, tokenizer)
    for options in ({"num_beams": 3}, {"do_sample": True, "num_return_sequences": 2}):
        rows = generate(processor, tokenizer, "one", "two or more", "3", max_new_tokens=30, **options)
        each = len(rows) // 3
        for index, row in enumerate(rows):
            check(processor, texts[index // each], row, index // each)


FORMS: dict[str, dict[str, Any]] = {
    "marks": {},
    "lines": {"max_quotations": 3},
    "whole answer": {"begin": None, "end": None},
    "free answer": {"answer": "free", "free_start": False},
    "free start": {"free_start": True},
    "other marks": {"begin": "[[", "end": "]]"},
    "marker": {"begin": "is", "end": None},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("marks", [True, False], ids=["tokens", "strings"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_answer_quotes_the_document(form: str, marks: bool, kind: str) -> None:
    tokenizer = tokenizer_of(kind, marks)
    if kind == "wordpiece" and (form == "other marks" or not (marks or form in ("whole answer", "marker"))):
        with pytest.raises(ValueError, match="cannot be said in this tokenizer's tokens: add it to the tokenizer"):
            DocumentQuoteProcessor(DOCUMENT, tokenizer, **FORMS[form])
        return
    processor = DocumentQuoteProcessor(DOCUMENT, tokenizer, **FORMS[form])
    quoted = 0
    for seed in range(2):
        row = generate(processor, tokenizer, "it", seed=seed, do_sample=True, temperature=2.0, max_new_tokens=60)[0]
        if processor.quotations(row):
            quoted += 1
            check(processor, DOCUMENT, row)
    assert quoted or FORMS[form].get("free_start", form == "marker")


def forced(processor: DocumentQuoteProcessor, tokenizer: Any, wish: str, size: int = 80) -> list[int]:
    """What comes of an answer whose writer goes for `wish` wherever it is allowed to, by the tokenizer's own tokens."""
    said: list[int] = []
    wishes = tokenizer(wish, add_special_tokens=False)["input_ids"]
    for step in range(size):
        scores = torch.zeros(1, len(tokenizer))
        if step < len(wishes):
            scores[0, wishes[step]] = 1
        scores = processor(torch.tensor([[5, *said]]), scores)
        said.append(int(scores[0].argmax()))
        if said[-1] == tokenizer.eos_token_id:
            break
    return said


@pytest.mark.parametrize(
    ("text", "said", "quoted"),
    [
        ("The code is 4821930, he said.", "The code is 4821930", "The code is 4821930"),
        ("It is blue-\nfox, it is.", "It is bluefox", "It is blue-\nfox"),
        ("He said:  “it was\nlate”.", '"it was late"', "“it was\nlate”"),
        ("The cafe\u0301 is naïve", "The café is", "The cafe\u0301 is"),
        ("她在二零二四年花费了", "二零二四年", "二零二四年"),
        ("العربية שלום 👩‍👩‍👧 ok", "שלום 👩‍👩‍👧", "שלום 👩‍👩‍👧"),
        ("soft\u00adhyphen ﬁne", "softhyphen fine", "soft\u00adhyphen ﬁne"),
    ],
)
def test_a_quotation_comes_out_as_the_document_has_it(text: str, said: str, quoted: str) -> None:
    tokenizer = tokenizer_of("byte level")
    processor = DocumentQuoteProcessor(text, tokenizer)
    tokens = forced(processor, tokenizer, f"<think>{said}</think>{said}</s>")
    assert tokenizer.decode(tokens) == f"<think>{said}</think>{said}</s>"
    quotation, answer = processor.quotations(tokens)
    assert quotation.text == answer.text == quoted and quotation.is_complete and answer.is_answer


TWICE = "Ada is 11, he said. Bob is 5. Later: Ada is 22, and Ada is 11 again. Ada is 22."


@pytest.mark.parametrize(
    ("text", "wish", "said"),
    [
        # another quotation is of another place
        ("Ada is 11. Bob is 5. Ada is 22.", "Ada is 11\nAda is 11", ["Ada is 11", "Ada is 22"]),
        ("Ada is 11. Bob is 5. Ada is 22.", "is 11\n11", ["is 11", ""]),
        (TWICE, "Ada is 11\nAda is 11", ["Ada is 11", "Ada is 22"]),  # all of its places
    ],
)
def test_each_of_several_quotations_is_of_its_own_place(text: str, wish: str, said: list[str]) -> None:
    tokenizer = tokenizer_of("byte level")
    processor = DocumentQuoteProcessor(text, tokenizer, max_quotations=3)
    found = [one for one in processor.quotations(forced(processor, tokenizer, f"<think>{wish}")) if not one.is_answer]
    assert found[0].text == said[0]
    assert found[1].text.startswith(said[1])
    assert not any(a <= start < b for a, b in found[0].places for start, _ in found[1].places)


def test_an_answer_may_name_a_span_of_each_quotation() -> None:
    tokenizer = tokenizer_of("byte level")
    processor = DocumentQuoteProcessor("Ada is 11. Bob is 5. Cy is 7,5.", tokenizer, max_quotations=3)
    wish = "<think>Ada is 11\nCy is 7,5</think>7,5, 11</s>"
    tokens = forced(processor, tokenizer, wish)
    assert tokenizer.decode(tokens) == wish
    found = [(one.text, one.is_answer, one.places) for one in processor.quotations(tokens)]
    assert found == [
        ("Ada is 11", False, ((0, 9),)),
        ("Cy is 7,5", False, ((21, 30),)),
        ("7,5", True, ((27, 30),)),
        ("11", True, ((7, 9),)),
    ]
    again = forced(processor, tokenizer, "<think>Ada is 11\nBob is 5</think>11, 11</s>")
    assert tokenizer.decode(again).startswith("<think>Ada is 11\nBob is 5</think>11,")
    *_, other = processor.quotations(again)
    assert other.is_answer and other.places[0][0] >= 11, "the other quotation's"


def insistent(processor: DocumentQuoteProcessor, tokenizer: Any, wish: str) -> list[Any]:
    """The quotations of a model that goes for `wish` with all its probability, and then for the closing mark."""
    wishes = [*tokenizer(wish, add_special_tokens=False)["input_ids"], tokenizer.convert_tokens_to_ids("</think>")]
    said: list[int] = []
    while len(said) < 60 and (not said or said[-1] != tokenizer.eos_token_id):
        scores = torch.full((1, len(tokenizer)), -30.0)
        scores[0, wishes[min(len(said), len(wishes) - 1)]] = 0
        said.append(int(processor(torch.tensor([[5, *said]]), scores)[0].argmax()))
    assert processor.quotations(said) == DocumentQuoteProcessor(
        processor.indexes[0], tokenizer, max_quotations=3
    ).quotations(said), "what was said tells it all"
    return processor.quotations(said)


@pytest.mark.parametrize(
    ("text", "wish", "quoted"),
    [
        # what was quoted once stands there once, and what begins like it is something else
        ("Ada is 11. Also, Adam was ill.", "Ada is 11\nAda is 11", ["Ada is 11"]),
        (
            "woe-haze is: 7768. A woman, a wood and words.",
            "woe-haze is: 7768\nwoe-haze is: 7768",
            ["woe-haze is: 7768"],
        ),
        # what is nowhere
        ("Ada is 11. Bob is 5. Bill, Ben and Bea.", "Ada is 11\nBarbara is 7", ["Ada is 11"]),
        # what the model cannot spell, at the one place that it has found
        (
            "Ada is 11. Bob is 8d49e9e4-c760. Bill.",
            "Ada is 11\nBob is 123\nBill",
            ["Ada is 11", "Bob is 8d49e9e4-c760"],
        ),
        # the addresses of other places, which have no key in common with it
        ("http://a.org/x or http://b.org or http://c.org.", "http://a.org/x\nhttp://a.org/x", ["http://a.org/x"]),
        # what it knows
        ("Ada is 11. Bob is 5. Ada is 22.", "Ada is 11\nAda is 22\nBob is 5", ["Ada is 11", "Ada is 22", "Bob is 5"]),
    ],
)
def test_a_later_quotation_that_the_model_does_not_mean_is_given_up(text: str, wish: str, quoted: list[str]) -> None:
    tokenizer = tokenizer_of("byte level")
    processor = DocumentQuoteProcessor(text, tokenizer, max_quotations=3)
    found = insistent(processor, tokenizer, f"<think>{wish}")
    assert [one.text for one in found if not one.is_answer][: len(quoted)] == quoted
    if "123" not in wish:
        assert len([one for one in found if not one.is_answer]) == len(quoted)
    assert all(one.is_complete for one in found)


def test_a_key_that_is_quoted_again_goes_on_with_another_of_its_values() -> None:
    tokenizer = tokenizer_of("byte level")
    text = "A woman, a wood. woe-haze is: 7768. Sails. woe-haze is: 9120. Words. woe-haze is: 9345. A word."
    processor = DocumentQuoteProcessor(text, tokenizer, max_quotations=3)
    found = insistent(processor, tokenizer, "<think>woe-haze is: 7768\nwoe-haze is: 7768\nwoe-haze is: 7768")
    quoted = [one for one in found if not one.is_answer]
    assert {one.text for one in quoted} == {"woe-haze is: 7768", "woe-haze is: 9120", "woe-haze is: 9345"}
    assert all(one.is_complete for one in found)


def test_no_other_span_of_an_answer_is_begun_that_the_model_does_not_mean() -> None:
    tokenizer = tokenizer_of("byte level")
    processor = DocumentQuoteProcessor("Ada is 11. Bob is 5.", tokenizer, max_quotations=2)
    found = insistent(processor, tokenizer, "<think>Ada is 11\nBob is 5</think>11, 11")
    assert [one.text for one in found if one.is_answer] == ["11"]


def test_all_places_of_an_ambiguous_quotation_are_known() -> None:
    text = "The fee is 10 EUR. The FEE is 10 USD. The\nfee is 10 EUR."
    tokenizer = tokenizer_of("byte level")
    processor = DocumentQuoteProcessor(text, tokenizer)
    quotation, answer = processor.quotations(forced(processor, tokenizer, "<think>The fee is 10</think>10</s>"))
    assert quotation.places == ((0, 13), (38, 51))
    assert answer.places == ((11, 13), (49, 51))


def test_a_quotation_cannot_stop_inside_a_number_or_begin_there() -> None:
    tokenizer = tokenizer_of("byte level")
    for text, wish in (("It is 4821930 now", "<think>It is 48</think>"), ("1,234,567 of it", "<think>34")):
        processor = DocumentQuoteProcessor(text, tokenizer)
        for one in processor.quotations(forced(processor, tokenizer, wish)):
            assert one.text.split()[-1] in text.split() and one.text.split()[0] in text.split()


@pytest.mark.parametrize(
    ("text", "quoted"),
    [("The fee: 10", "fee: 10"), ("fee = 10", "fee = 10"), ("费用：10", "费用：1"), ("The fee:", "fee:")],
)
def test_a_quotation_does_not_end_where_a_value_is_announced(text: str, quoted: str) -> None:
    tokenizer = tokenizer_of("byte level")
    processor = DocumentQuoteProcessor(text, tokenizer)
    announced = quoted.rstrip("10").rstrip()
    said = processor.quotations(forced(processor, tokenizer, f"<think>{announced}</think>"))[0].text
    assert said.startswith(quoted)


def test_where_nothing_goes_on_the_quotation_is_closed() -> None:
    tokenizer = tokenizer_of("byte level")
    processor = DocumentQuoteProcessor("x", tokenizer)
    tokens = forced(processor, tokenizer, "<think>x and more")
    assert tokenizer.decode(tokens[:3]) == "<think>x</think>"
    # even where another processor rules out all that is left
    scores = torch.zeros(1, len(tokenizer))
    scores[0, tokenizer.convert_tokens_to_ids("</think>")] = -torch.inf
    assert processor(torch.tensor([[5, *tokens[:2]]]), scores)[0].max() > -torch.inf


def test_a_document_in_letters_that_the_tokenizer_lacks_is_no_dead_end() -> None:
    tokenizer = tokenizer_of("sentencepiece")
    row = generate(
        DocumentQuoteProcessor("\u2603\u2603", tokenizer), tokenizer, "it", max_new_tokens=12, do_sample=True
    )[0]
    assert len(row)


def test_a_prompt_that_ends_with_the_mark_has_begun_the_quotation() -> None:
    tokenizer = tokenizer_of("byte level")
    for opening in ("why? <think>", "why? <think>\n"):
        ids = prompt(tokenizer, opening)["input_ids"]
        processor = DocumentQuoteProcessor("Only this.", tokenizer)
        allowed = processor(ids, torch.zeros(1, len(tokenizer)))[0].isfinite()
        assert allowed[tokenizer.encode("O", add_special_tokens=False)[0]]
        assert not allowed[tokenizer.convert_tokens_to_ids("<think>")]


def test_one_processor_serves_one_generation_after_another() -> None:
    tokenizer = tokenizer_of("byte level")
    processor = DocumentQuoteProcessor(DOCUMENT, tokenizer)
    first = generate(processor, tokenizer, "one", max_new_tokens=20)
    generate(processor, tokenizer, "one and another that is longer", max_new_tokens=9)
    assert torch.equal(generate(processor, tokenizer, "one", max_new_tokens=20), first)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": " \n"}, "has no text"),
        ({"text": []}, "names no document"),
        ({"begin": None}, "without begin"),
        ({"answer": "any"}, "answer='any'"),
        ({"max_quotations": 0}, "max_quotations=0"),
        ({"eos_token_id": ()}, "no token ends an answer"),
    ],
)
def test_what_cannot_be_is_said_before_anything_runs(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DocumentQuoteProcessor(**{"text": "a text", "tokenizer": tokenizer_of("byte level"), **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": b"bytes"}, "text= is the document's text.* not bytes"),
        ({"text": ["one", None]}, "text= is the document's text.* not NoneType"),
        ({"tokenizer": None}, "tokenizer= is the model's tokenizer, not NoneType$"),
        ({"tokenizer": SimpleNamespace(tokenizer=None)}, r"give its tokenizer \(processor.tokenizer\)"),
        ({"eos_token_id": "</s>"}, "eos_token_id='</s>' is the id of a token"),
        ({"eos_token_id": [1.5]}, r"eos_token_id=\[1.5\]"),
    ],
)
def test_what_is_of_another_type_is_said(arguments: dict[str, Any], message: str) -> None:
    for kind in (DocumentQuoteProcessor, DocumentStringProcessor):
        with pytest.raises(TypeError, match=message):
            kind(**{"text": "a text", "tokenizer": tokenizer_of("byte level"), **arguments})


def test_quotations_are_asked_of_one_answer_to_one_document() -> None:
    processor = DocumentQuoteProcessor("a text", tokenizer_of("byte level"))
    with pytest.raises(ValueError, match=r"tokens has the shape \[1, 3\], and is one answer's"):
        processor.quotations(torch.zeros(1, 3, dtype=torch.long))
    for document in (1, -1):
        with pytest.raises(ValueError, match=f"document={document} is not one of the 1"):
            processor.quotations([5], document)


def test_rows_that_are_no_multiple_of_the_documents_are_an_error() -> None:
    tokenizer = tokenizer_of("byte level")
    processor = DocumentQuoteProcessor(["one", "two"], tokenizer)
    with pytest.raises(ValueError, match="3 rows are generated for 2 documents"):
        processor(torch.zeros(3, 1, dtype=torch.long), torch.zeros(3, len(tokenizer)))


@pytest.mark.parametrize("other", ["Another text altogether.", DOCUMENT[::-1], DOCUMENT.replace("e", "o")])
def test_the_order_of_another_text_is_refused(other: str) -> None:
    order = DocumentIndex(DOCUMENT).order
    with pytest.raises(ValueError, match="the order is that of another text"):
        DocumentIndex(other, order)
    with pytest.raises(ValueError, match="the order is that of another text"):
        DocumentIndex(DOCUMENT, np.sort(order))


def test_an_index_is_kept_as_an_array() -> None:
    index = DocumentIndex(DOCUMENT)
    again = DocumentIndex(DOCUMENT, index.order)
    assert np.array_equal(again.order, index.order) and again.spans.buffer == index.spans.buffer


TEXT_PARTS = st.sampled_from(
    ["the ", "cat", " sat", "12", "3-4", "é", "e\u0301", "走进", "\n", "-\n", "“a”", "ﬁ", ". ", "👍🏽", "שלום "]
)


@pytest.mark.parametrize("few", [matching._FEW, 4], ids=["few places", "many places"])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.lists(TEXT_PARTS, min_size=1, max_size=25).map("".join),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 2**32),
)
def test_the_index_does_what_the_plain_version_defines(
    monkeypatch: pytest.MonkeyPatch, few: int, text: str, kind: str, seed: int
) -> None:
    if not fold(text).text:
        return
    for name, value in (("_FEW", few), ("_SAMPLE", 3), ("_KEPT_FROM", few)):
        monkeypatch.setattr(matching, name, value)
    pieces = pieces_of(tokenizer_of(kind))
    index = DocumentIndex(text)
    fast, plain = IndexMatcher(index.bound_to(pieces)[0]), PlainMatcher(index.folded.text, pieces)
    rng = random.Random(seed)
    one, other = fast.start(), plain.start()
    for _ in range(8):
        allowed = fast.allowed(one)
        assert np.array_equal(allowed, plain.allowed(other))
        assert fast.may_end(one) == plain.may_end(other)
        assert fast.places(one) == plain.places(other)
        assert fast.places(one, may_end=False) == plain.places(other, may_end=False)
        assert fast.count(one) == plain.count(other) or one.fresh
        starts = [start for start, _ in plain.places(other, may_end=False)][:3]
        assert set(plain.tokens_at(other, starts)) <= set(fast.tokens_at(one, starts))
        if not allowed.any():
            break
        token = rng.choice(np.flatnonzero(allowed).tolist())
        one, other = fast.extend(one, token), plain.extend(other, token)  # type: ignore[assignment]
        assert one is not None and other is not None and one.said == other.said
