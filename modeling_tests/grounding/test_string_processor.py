# SPDX-License-Identifier: Apache-2.0
"""Free text whose codes, numbers and identifiers are the document's or the question's."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from small_tokenizers import random_text_model, tokenizer_of
from transformers import LogitsProcessorList

from transformers_hybridctx import DocumentStringProcessor
from transformers_hybridctx.grounding.borders import word_borders
from transformers_hybridctx.grounding.exact_strings import EXACT_CHARACTER, exact_strings
from transformers_hybridctx.grounding.folding import fold

DOCUMENT = (
    "The number for green-lemur is 4821930, that for blue-fox 7 and 1,234,567. Ask KX-4471-Q or run_all at a.b@c.org, "
    "10.0.0.1; 550e8400-e29b-41d4-a716-446655440000 since ٤٢ and 48. Part x5 and 9, 8, 60, 3."
)
QUESTION = "What was it in 2024?"


def words(text: str) -> list[str]:
    bounds = np.flatnonzero(word_borders(text)).tolist()
    return [text[start:end] for start, end in pairwise(bounds)]


def wrong_strings(text: str, known: list[str], is_cut: bool) -> list[str]:
    """The plain rule: exact words that begin like one that is known, and are not one."""
    found = words(fold(text).text)
    if is_cut:
        found = found[:-2]
    wrong = []
    for word in found:
        exact = EXACT_CHARACTER.search(word)
        if exact and any(one.startswith(word[: exact.end()]) for one in known) and word not in known:
            wrong.append(word)
    return wrong


@pytest.mark.parametrize("kind", ["byte level", "sentencepiece"])
@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": True, "temperature": 3.0},
        {"num_beams": 3},
        {"do_sample": True, "num_return_sequences": 3, "top_k": 0},
    ],
    ids=["sampling", "beams", "sequences"],
)
def test_every_exact_string_is_one_of_the_documents(kind: str, options: dict[str, Any]) -> None:
    tokenizer = tokenizer_of(kind)
    known = sorted(exact_strings(fold(DOCUMENT).text) | exact_strings(QUESTION))
    processor = DocumentStringProcessor(DOCUMENT, tokenizer, question=QUESTION)
    digits = torch.tensor([any(map(str.isdigit, tokenizer.decode([index]))) for index in range(len(tokenizer))])
    inputs = tokenizer("the number", return_tensors="pt", return_token_type_ids=False)
    for seed in range(2):
        torch.manual_seed(seed)
        output = random_text_model(len(tokenizer), seed).generate(
            **inputs,
            logits_processor=LogitsProcessorList([_Likes(digits), processor]),
            max_new_tokens=60,
            **options,
        )
        for row in output[:, inputs["input_ids"].shape[1] :]:
            text = tokenizer.decode(row)
            if (
                "\ufffd" not in text
            ):  # bytes of no character: tokenizers decode the characters beside them as such, too
                assert wrong_strings(text, known, row[-1] != tokenizer.eos_token_id) == []


class _Likes(torch.nn.Module):
    """Raises the scores of some tokens, so that random text is full of them."""

    def __init__(self, liked: torch.Tensor) -> None:
        super().__init__()
        self.liked = liked

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores + 2 * self.liked


def said(tokenizer: Any, wish: str, processor: DocumentStringProcessor | None) -> str:
    """What comes of text whose writer goes for `wish` wherever it is allowed to, and for the best token else."""
    tokens: list[int] = []
    for wished in tokenizer(wish, add_special_tokens=False)["input_ids"]:
        scores = torch.zeros(1, len(tokenizer))
        scores[0, wished] = 1
        if processor is not None:
            scores = processor(torch.tensor([[5, *tokens]]), scores)
        tokens.append(int(scores[0].argmax()))
    return tokenizer.decode(tokens)


@pytest.mark.parametrize(
    "text",
    [
        "The number is 4821930. It is 1,234,567, or 10.0.0.1: ask KX-4471-Q!",
        "run_all (since 2024) at a.b@c.org; 48 of ٤٢.",
        "Words flow, and 55 is computed; x7 is new, 7 is not.",
    ],
)
def test_what_is_right_or_begins_like_nothing_flows(text: str) -> None:
    tokenizer = tokenizer_of("byte level")
    known = "Begun 5, x." if "computed" in text else ""
    document = DOCUMENT.replace("550e8400-e29b-41d4-a716-446655440000", "").replace("x5", "") if known else DOCUMENT
    processor = DocumentStringProcessor(document, tokenizer, question=QUESTION)
    assert said(tokenizer, text, processor) == text


@pytest.mark.parametrize(
    ("wish", "begins"),
    [
        ("It is 4821980", "It is 4821930"),
        ("ask KX-4472-Q", "ask KX-4471"),
        ("by run_any", "by run_al"),
        ("1,299", "1,23"),
    ],
)
def test_what_begins_like_the_documents_goes_on_so(wish: str, begins: str) -> None:
    tokenizer = tokenizer_of("byte level")
    processor = DocumentStringProcessor(DOCUMENT, tokenizer, question=QUESTION)
    assert said(tokenizer, wish, None) == wish
    assert said(tokenizer, wish, processor).startswith(begins)


def test_computed_values_need_the_processor_left_out() -> None:
    tokenizer = tokenizer_of("byte level")
    wish = "Together 4821937."
    assert said(tokenizer, wish, None) == wish
    assert said(tokenizer, wish, DocumentStringProcessor(DOCUMENT, tokenizer)) != wish


def test_a_document_without_exact_strings_leaves_everything_free() -> None:
    tokenizer = tokenizer_of("byte level")
    assert said(tokenizer, "It is 42 at a_b", DocumentStringProcessor("Only words.", tokenizer)) == "It is 42 at a_b"


def test_documents_and_questions_go_in_pairs() -> None:
    with pytest.raises(ValueError, match="1 questions for 2 documents"):
        DocumentStringProcessor(["a", "b"], tokenizer_of("byte level"), question=["one"])
