# SPDX-License-Identifier: Apache-2.0
"""Labels of a form's lines, said in running words: "the serial number: 4" quotes "Serial number: 4"."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tokenizers import tokenizer_of

from transformers_hybridctx import DocumentQuoteProcessor
from transformers_hybridctx.grounding.labels import ARTICLES, spoken_labels
from transformers_hybridctx.grounding.matching import Cursor, LabelMatcher, PlainMatcher, document_matcher
from transformers_hybridctx.grounding.span_index import DocumentIndex
from transformers_hybridctx.grounding.token_pieces import TokenPieces, pieces_of

FORM = (
    "SERVICE\n\nSerial number: TR-450\nTECHNICIAN =  Ada\n| Due  date | 5 May |\n- Phone - 7\nThe fee: 10\nFee: 20\n"
)


def insistent(text: str, wish: str, max_quotations: int = 1) -> list[Any]:
    """The quotations of a model that says `wish`, as far as it may, by the tokenizer's own tokens."""
    tokenizer = tokenizer_of("byte level")
    processor = DocumentQuoteProcessor(text, tokenizer, max_quotations=max_quotations)
    said: list[int] = []
    for token in tokenizer(wish, add_special_tokens=False)["input_ids"]:
        scores = torch.full((1, len(tokenizer)), -30.0)
        scores[0, token] = 0
        said.append(int(processor(torch.tensor([[5, *said]]), scores)[0].argmax()))
    return processor.quotations(said)


@pytest.mark.parametrize(
    ("line", "label"),
    [
        ("Serial number: TR-450", "Serial number:"),
        ("  - DUE DATE = 5 May", "DUE DATE ="),
        ("| Name | Ada |", "Name |"),
        ("Rate – 5", "Rate -"),
        ("价格：10", "价格："),
        ("http://a.org: closed", "http://a.org:"),
        ("Key:\tx", "Key:"),
    ],
)
def test_a_line_begins_with_a_label(line: str, label: str) -> None:
    spoken = spoken_labels(f"A title\n{line}\nmore words, at 10:30 or x=5")
    assert set(spoken.values()) == {label.encode()}
    lower = label.lower()
    said = {label, lower, label[0].lower() + label[1:], lower[0].upper() + lower[1:]}
    assert set(spoken) == {
        form.encode() for one in said for form in (one, *(f"{article} {one}" for article in ARTICLES)) if form != label
    }


@pytest.mark.parametrize("line", ["no label here", "at 10:30", "x=5", "-", ": 5", "a" * 70 + ": 5", "İ: 5"])
def test_other_lines_have_none_to_be_said_in_lower_case(line: str) -> None:
    assert line.split(":")[0].lower() + ":" not in {form.decode() for form in spoken_labels(line)}


@pytest.mark.parametrize(
    ("said", "quoted", "answer"),
    [
        ("The serial number: TR-450</think>TR-450</s>", "Serial number: TR-450", "TR-450"),
        (" the serial number: TR-450</think>Serial</s>", "Serial number: TR-450", "Serial"),
        ("The Technician = Ada</think>Ada</s>", "TECHNICIAN =  Ada", "Ada"),
        ("technician = Ada</think>Ada</s>", "TECHNICIAN =  Ada", "Ada"),
        ("the due date | 5 May</think>5 May</s>", "Due  date | 5 May", "5 May"),
        ("A phone - 7</think>7</s>", "Phone - 7", "7"),
        # what the document has word for word goes before
        ("The fee: 10</think>10</s>", "The fee: 10", "10"),
        ("Fee: 20</think>20</s>", "Fee: 20", "20"),
    ],
)
def test_a_label_in_running_words_quotes_the_line(said: str, quoted: str, answer: str) -> None:
    quotation, taken = insistent(FORM, f"<think>{said}")
    assert (quotation.text, taken.text) == (quoted, answer)
    assert quotation.is_complete and taken.is_complete and FORM[slice(*quotation.places[0])] == quoted


def test_of_labels_that_differ_by_case_the_one_that_is_said_is_quoted() -> None:
    text = "Ab: 1\nAB: 2\nab: 3\n"
    for said, quoted in (("Ab: 1", "Ab: 1"), ("AB: 2", "AB: 2"), ("ab: 3", "ab: 3"), ("the AB: 2", "AB: 2")):
        assert insistent(text, f"<think>{said}</think>")[0].text == quoted


def test_a_label_that_was_cut_short_is_the_beginning_of_the_documents_own() -> None:
    (quotation,) = insistent(FORM, "<think>The serial num")
    assert quotation.text == "Serial num" and not quotation.is_complete
    assert insistent(FORM, "<think>An") == []


def test_only_the_first_of_several_quotations_begins_so() -> None:
    quoted = insistent(FORM, "<think>The serial number: TR-450\nthe technician = Ada", max_quotations=2)
    assert quoted[0].text == "Serial number: TR-450"
    assert not quoted[1].text.startswith("TECHNICIAN")


def test_a_word_that_a_hyphen_has_broken_is_no_label() -> None:
    assert set(DocumentIndex("The con-\ntract: 5\nFee: 4").labels.values()) == {b"Fee:"}


class PlainLabels(PlainMatcher):
    """Labels as they may be said, looked through one by one."""

    def __init__(self, forms: list[bytes], pieces: TokenPieces) -> None:
        super().__init__("", pieces)
        self._forms = forms

    def spell(self, said: bytes) -> Cursor | None:
        return Cursor(said, False) if any(form.startswith(said) for form in self._forms) else None


PARTS = st.sampled_from(
    ["The ", "the ", "a ", "cat", "CAT", ": ", " = ", "12", "é", "É", "\n", "| ", " - ", "走进：", "ﬁ", "-\n"]
)


@settings(max_examples=40, deadline=None)
@given(
    text=st.lists(PARTS, min_size=2, max_size=25).map("".join),
    kind=st.sampled_from(["byte level", "sentencepiece"]),
    seed=st.integers(0, 2**32),
)
def test_the_index_does_what_the_plain_version_defines(text: str, kind: str, seed: int) -> None:
    if not spoken_labels(text):
        return
    pieces = pieces_of(tokenizer_of(kind))
    index = DocumentIndex(text)
    if not index.labels:
        return
    fast = document_matcher(index, pieces)
    assert isinstance(fast, LabelMatcher)
    plain = LabelMatcher(
        PlainMatcher(index.folded.text, pieces), PlainLabels(list(index.labels), pieces), index.labels
    )
    rng = random.Random(seed)
    one, other = fast.start(), plain.start()
    for _ in range(12):
        allowed = fast.allowed(one)
        assert np.array_equal(allowed, plain.allowed(other))
        assert fast.may_end(one) == plain.may_end(other)
        assert fast.places(one, may_end=False) == plain.places(other, may_end=False)
        if not allowed.any():
            break
        token = rng.choice(np.flatnonzero(allowed).tolist())
        one, other = fast.extend(one, token), plain.extend(other, token)  # type: ignore[assignment]
        assert one is not None and other is not None
        assert (one.said, one.is_label) == (other.said, other.is_label)
