# SPDX-License-Identifier: Apache-2.0
"""What users write stays text."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from transformers_hybridctx import (
    ContextBudgetError,
    HybridCtxProcessor,
)
from transformers_hybridctx.prompting.encoder import PlainEncoder


@pytest.mark.parametrize("token", ["<|image|>", "<|user|>", "<|endoftext|>", "<sop>", "<|end_of_image|>"])
@pytest.mark.parametrize("policy", ["full", "anchors"])
def test_special_tokens_written_in_a_document_or_question_stay_text(
    processor: HybridCtxProcessor, token: str, policy: str
) -> None:
    clean = processor(document="Take 48219 xx and run.", question="Why xx then?", text_policy=policy)
    features = processor(document=f"Take 48219 {token} and run.", question=f"Why {token} then?", text_policy=policy)
    special = set(processor.tokenizer.all_special_ids)
    kept = [[one for one in ids["input_ids"][0] if one in special] for ids in (features, clean)]
    assert kept[0] == kept[1]
    assert processor.tokenizer.decode(features["input_ids"][0]).count(f"Why {token} then?") == 1


def test_a_tokenizer_that_makes_special_tokens_of_plain_text_is_refused(processor: HybridCtxProcessor) -> None:
    backend = Tokenizer(models.WordLevel({"<unk>": 0, "<|image|>": 1, "a": 2}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(["<|image|>"])
    with pytest.raises(ValueError, match=r"special token '<\|image\|>' out of plain text"):
        PlainEncoder(PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>"))(["a <|image|>"])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    document=st.text(min_size=1, max_size=300).filter(lambda text: any(char.isalnum() for char in text)),
    policy=st.sampled_from(["full", "anchors", "tail"]),
    limit=st.none() | st.integers(60, 400),
)
def test_any_text_makes_a_prompt_of_the_promised_length(
    processor: HybridCtxProcessor, document: str, policy: str, limit: int | None
) -> None:
    try:
        features, plan = processor(
            document=document,
            question="\ud83d?",
            text_policy=policy,
            budget={"max_context_tokens": limit},
            return_plan=True,
        )
    except ContextBudgetError as error:
        assert limit is not None and error.smallest > limit
        return
    assert len(features["input_ids"][0]) == plan.total_tokens
    assert limit is None or plan.total_tokens <= limit


def test_lone_surrogates_and_control_characters_are_copied_and_reported(processor: HybridCtxProcessor) -> None:
    features, plan = processor(document="Before \ud83d and \x00\x1b after.", question="What?", return_plan=True)
    text = processor.tokenizer.decode(features["input_ids"][0])
    assert "Before \\ud83d and \x00\x1b after." in text
    assert plan.escaped == ((7, "\ud83d"),)
    assert plan.omitted == ()
    unseen = processor.plan("Before \ud83d and \x00\x1b after.", "What?", text_policy="none")
    assert [(piece.start, piece.end, piece.reason) for piece in unseen.omitted] == [
        (7, 8, "undrawable"),
        (13, 15, "undrawable"),
    ]


def test_document_tokens_are_what_the_text_costs_however_long_it_is(processor: HybridCtxProcessor) -> None:
    text = "".join(f"line {number} of the log,\n  indented \n\nnot\n" for number in range(9000))
    assert len(processor.encoder._pieces(text)) > 1
    assert processor.encoder.count(text) == len(processor.tokenizer(text, add_special_tokens=False)["input_ids"])


def test_a_text_without_a_newline_is_looked_through_once(processor: HybridCtxProcessor) -> None:
    class Counting(str):
        looked_from: ClassVar[list[int]] = []

        def find(self, sub: str, start: Any = 0, end: Any = None) -> int:
            self.looked_from.append(start)
            return super().find(sub, start)

    for text in ("a " * 500_000, "a\n" + "b " * 500_000):
        assert len(processor.encoder._pieces(Counting(text))) == 1
    assert len(Counting.looked_from) == 2
