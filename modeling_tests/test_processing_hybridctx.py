# SPDX-License-Identifier: Apache-2.0
"""The processor: prompts from documents, and what every GLM-4V processor does."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from prompt_samples import DOCUMENT, QUESTION, decode
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from transformers_hybridctx import (
    ContextBudget,
    ContextBudgetError,
    HybridCtxImageProcessor,
    HybridCtxProcessor,
    PageRenderer,
    RenderConfig,
)
from transformers_hybridctx.planning.policies.anchors import AnchorsPolicy


@pytest.mark.parametrize("policy", ["full", "none", "tail", "middle", "anchors", "bm25"])
@pytest.mark.parametrize("share", [None, 0.5, 1])
def test_the_promised_tokens_are_the_tokens_of_the_model(
    processor: HybridCtxProcessor, policy: str, share: float | None
) -> None:
    asked: dict[str, Any] = {"document": DOCUMENT, "question": QUESTION, "text_policy": policy}
    budget = ContextBudget(visual_share=share, max_context_tokens=900)
    features, plan = processor(**asked, budget=budget, return_tensors="pt", return_plan=True)
    assert plan == processor.plan(**asked, budget=budget)
    assert features["input_ids"].shape == (1, plan.total_tokens)
    is_page = features["input_ids"] == processor.image_token_id
    assert int(is_page.sum()) == plan.visual_tokens == int(features["image_grid_thw"].prod(1).sum()) // 4
    assert torch.equal(features["mm_token_type_ids"], is_page.long())
    assert plan.total_tokens <= 900
    assert features["pixel_values"].dtype == torch.uint8


def test_pages_stand_before_spans_and_both_before_the_question(processor: HybridCtxProcessor) -> None:
    features, plan = processor(document=DOCUMENT, question=QUESTION, return_plan=True)
    pages = "<|begin_of_image|><|image|><|end_of_image|>" * plan.num_pages
    (span,) = plan.spans
    assert decode(processor, features["input_ids"][0]) == (
        f"[gMASK]<sop><|user|>\n{pages}[page {span.page + 1}] {span.text}\n{QUESTION}<|assistant|>\n"
    )
    features = processor(document=DOCUMENT, question=QUESTION, fusion_order="tokens_first")
    assert decode(processor, features["input_ids"][0]) == (
        f"[gMASK]<sop><|user|>\n[page {span.page + 1}] {span.text}\n{pages}{QUESTION}<|assistant|>\n"
    )
    with pytest.raises(ValueError, match="'images_first'"):
        processor(document=DOCUMENT, question=QUESTION, fusion_order="images_first")


def test_a_pages_only_prompt_is_the_one_that_the_text_path_makes_of_the_same_chat(
    processor: HybridCtxProcessor,
) -> None:
    ours = processor(document=DOCUMENT, question=QUESTION, budget={"visual_share": 1}, return_tensors="pt")
    pages = PageRenderer(processor.render_config).render(DOCUMENT).pages
    content = [*({"type": "image"} for _ in pages), {"type": "text", "text": QUESTION}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    theirs = processor(text=text, images=[Image.fromarray(page) for page in pages], return_tensors="pt")
    assert set(ours) == set(theirs)
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def test_what_stands_before_the_question_is_a_prefix_that_no_question_changes(processor: HybridCtxProcessor) -> None:
    one, first = processor(document=DOCUMENT, question=QUESTION, return_plan=True)
    other, second = processor(document=DOCUMENT, question="Who came?", return_plan=True)
    bare, reading = processor(document=DOCUMENT, return_plan=True, add_generation_prompt=False)
    assert first.prefix_tokens == second.prefix_tokens == reading.prefix_tokens
    prefix = one["input_ids"][0][: first.prefix_tokens]
    assert other["input_ids"][0][: first.prefix_tokens] == bare["input_ids"][0] == prefix
    assert processor.tokenizer.decode(one["input_ids"][0][first.prefix_tokens :]).startswith(QUESTION)


def test_batches_are_padded_on_the_left_and_each_row_is_the_single_prompt(processor: HybridCtxProcessor) -> None:
    documents, questions = [DOCUMENT, "A short one, 77123."], [QUESTION, "Which?"]
    batch, plans = processor(document=documents, question=questions, return_tensors="pt", return_plan=True)
    grids = []
    for row, (document, question) in enumerate(zip(documents, questions, strict=True)):
        single = processor(document=document, question=question, return_tensors="pt")
        length = plans[row].total_tokens
        assert torch.equal(batch["input_ids"][row, -length:], single["input_ids"][0])
        assert batch["attention_mask"][row].tolist() == [0] * (batch["input_ids"].shape[1] - length) + [1] * length
        grids.append(single["image_grid_thw"])
    assert torch.equal(batch["image_grid_thw"], torch.cat(grids))


@pytest.mark.parametrize("padding", [True, "longest", None])
def test_a_batch_is_padded_whether_or_not_padding_is_asked_for(processor: HybridCtxProcessor, padding: Any) -> None:
    request: dict[str, Any] = {"document": ["a b", "a b c"], "question": "What?", "return_tensors": "pt"}
    plain, padded = processor(**request), processor(**request, padding=padding, padding_side="left", truncation=False)
    assert all(torch.equal(value, padded[name]) for name, value in plain.items())


def test_questions_one_by_one_rank_a_document_once(
    processor: HybridCtxProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranked = []
    rank = AnchorsPolicy.rank
    monkeypatch.setattr(AnchorsPolicy, "rank", lambda self, *given: ranked.append(given) or rank(self, *given))
    document = processor.read_document(DOCUMENT)
    plans = [processor.plan(document, f"Question {number}?", text_policy="anchors") for number in range(5)]
    assert len(ranked) == 1
    assert plans[4] == processor.plan(DOCUMENT, "Question 4?", text_policy="anchors")


def test_a_drawn_document_at_a_small_scale_keeps_its_budget(
    tokenizer: PreTrainedTokenizerFast, image_processor: HybridCtxImageProcessor, render_config: dict[str, Any]
) -> None:
    """Pages of different widths are alike at the scale that it was drawn at, and differ at the plan's."""
    config = RenderConfig(**{**render_config, "auto_crop_width": True, "auto_crop_last_page": True})
    processor = HybridCtxProcessor(image_processor, tokenizer, render_config=config)
    text = "\n".join("w" * (1 + number * 7 % 23) for number in range(400))
    drawn = PageRenderer(config).render(text, scale=0.05)
    for limit in range(300, 1300, 50):
        budget = {"max_context_tokens": limit, "min_scale": 0.05}
        features, plan = processor(document=drawn, question="?", budget=budget, text_policy="none", return_plan=True)
        assert len(features["input_ids"][0]) == plan.total_tokens <= limit


def test_threads_share_a_processor(processor: HybridCtxProcessor) -> None:
    document = processor.read_document(DOCUMENT)
    asked = [(policy, f"What is number {number}?") for policy in ("anchors", "bm25", "middle") for number in range(8)]

    def answer(request: tuple[str, str]) -> dict[str, Any]:
        policy, question = request
        budget = {"max_context_tokens": 700}
        return dict(processor(document=document, question=question, text_policy=policy, budget=budget))

    alone = [answer(request) for request in asked]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(answer, asked))
    finally:
        sys.setswitchinterval(before)
    for one, other in zip(alone, together, strict=True):
        assert one["input_ids"] == other["input_ids"]
        assert np.array_equal(one["pixel_values"], other["pixel_values"])


def test_one_document_may_have_many_questions_and_one_question_many_documents(processor: HybridCtxProcessor) -> None:
    assert len(processor(document=DOCUMENT, question=["One?", "Two?"])["input_ids"]) == 2
    assert len(processor(document=[DOCUMENT, "Short."], question="One?")["input_ids"]) == 2
    with pytest.raises(ValueError, match="2 documents and 3 questions"):
        processor(document=[DOCUMENT, "Short."], question=["1", "2", "3"])


def test_pages_can_be_drawn_apart_from_the_prompt(processor: HybridCtxProcessor) -> None:
    whole = processor(document=DOCUMENT, question=QUESTION, return_tensors="pt")
    prompt, plan = processor(
        document=DOCUMENT, question=QUESTION, draw_pages=False, return_plan=True, return_tensors="pt"
    )
    assert not {"pixel_values", "image_grid_thw"} & prompt.keys()
    apart = {**prompt, **processor.draw_pages(plan, return_tensors="pt")}
    assert apart.keys() == whole.keys()
    assert all(torch.equal(value, apart[name]) for name, value in whole.items())
    without = processor.plan(DOCUMENT, QUESTION, budget={"visual_share": 0})
    with pytest.raises(ValueError, match="no pages to draw"):
        processor.draw_pages(without)


def test_scanned_pages_and_rendered_documents_are_documents_and_colour_mixes_with_grey(
    processor: HybridCtxProcessor,
) -> None:
    colour = np.zeros((84, 56, 3), dtype=np.uint8)
    colour[:, :, 0] = 200
    rendered = PageRenderer(processor.render_config).render("Some rendered text.")
    features, plans = processor(
        document=[[colour, Image.new("L", (56, 84))], rendered, "plain text"],
        question="What?",
        return_tensors="pt",
        return_plan=True,
    )
    assert [plan.num_pages for plan in plans] == [2, 1, 1]
    assert plans[0].compression_ratio is None
    assert plans[0].document_tokens == 0
    assert features["pixel_values"].shape[1] == 3 * 14 * 14
    assert int(features["pixel_values"][0].float().reshape(3, -1)[0].mean()) == 200
    grey = processor(document=rendered, question="What?", return_tensors="pt")
    assert grey["pixel_values"].shape[1] == 14 * 14
    assert processor(document=colour, return_plan=True)[1].num_pages == 1


def test_scanned_pages_shrink_to_the_budget(processor: HybridCtxProcessor) -> None:
    page = Image.new("RGB", (560, 560), "white")
    features, plan = processor(document=[page], question="?", budget={"max_context_tokens": 250}, return_plan=True)
    assert plan.scale < 1
    assert len(features["input_ids"][0]) == plan.total_tokens <= 250
    with pytest.raises(ContextBudgetError) as caught:
        processor.plan([page], "?", budget={"max_context_tokens": 20})
    assert processor.plan([page], "?", budget={"max_context_tokens": caught.value.smallest}).num_pages == 1


def test_tokens_only_prompts_have_no_pixels(processor: HybridCtxProcessor) -> None:
    features = processor(document=DOCUMENT, question=QUESTION, text_policy="full", budget={"visual_share": 0})
    assert "pixel_values" not in features
    assert decode(processor, features["input_ids"][0]).count("[page ") == len(
        processor.plan(DOCUMENT, QUESTION, text_policy="full").spans
    )


def test_defaults_of_the_processor_hold_where_a_request_says_nothing(
    tokenizer: PreTrainedTokenizerFast, image_processor: HybridCtxImageProcessor, render_config: dict[str, Any]
) -> None:
    processor = HybridCtxProcessor(
        image_processor,
        tokenizer,
        render_config=RenderConfig(**render_config),
        default_budget={"max_text_tokens": 5, "min_scale": 1.0, "max_scale": 1.0},
        default_text_policy={"name": "tail", "max_chars": 40},
    )
    assert processor.plan(DOCUMENT, QUESTION).text_tokens <= 5
    assert processor.plan(DOCUMENT, QUESTION, budget={"max_text_tokens": 500}).spans[0].text == DOCUMENT[-40:]
    assert processor.plan(DOCUMENT, QUESTION, text_policy="none").spans == ()


@pytest.mark.parametrize(
    ("request_", "error", "says"),
    [
        ({"document": "", "question": "?"}, ValueError, "empty document"),
        ({"document": " \n\t", "question": "?"}, ValueError, "empty document"),
        ({"document": [], "question": "?"}, ValueError, "empty document"),
        ({"document": None, "question": "?"}, ValueError, "document is None"),
        ({"document": b"bytes", "question": "?"}, TypeError, "decode the bytes"),
        ({"document": 17, "question": "?"}, TypeError, "not int: 17"),
        ({"document": [None], "question": "?"}, TypeError, "not NoneType"),
        ({}, ValueError, "give document="),
        ({"document": "text", "text": "text"}, ValueError, "not both"),
        ({"document": "text", "images": [Image.new("L", (9, 9))]}, ValueError, "not both"),
        ({"document": "text", "question": " "}, ValueError, "empty question"),
        ({"document": "text", "question": []}, ValueError, "empty list"),
        ({"document": "text", "question": 5}, TypeError, "not int: 5"),
        (
            {"document": "text", "question": "?", "text_policy": "magic"},
            ValueError,
            "known policies: anchors, attention, auto",
        ),
        ({"document": "text", "question": "?", "budget": {"tokens": 5}}, ValueError, "unknown ContextBudget field"),
        ({"document": "text", "question": "?", "max_length": 5}, TypeError, "max_length"),
        ({"document": "text", "question": "?", "truncation": True}, ValueError, "max_context_tokens"),
        ({"document": "text", "question": "?", "padding": "max_length"}, ValueError, "padding='max_length'"),
        ({"document": "text", "question": "?", "padding": False}, ValueError, "padding=False"),
        ({"document": "text", "videos": [np.zeros((4, 9, 9, 3), np.uint8)]}, ValueError, "videos= is given"),
        ({"text": ["a"], "videos": [np.zeros((4, 9, 9, 3), np.uint8)]}, ValueError, "videos= is given"),
        ({"text": ["a"], "audio": [np.zeros(100)]}, ValueError, "audio= is given"),
        ({"document": "text", "budget": {"max_scale": 1e6}}, ValueError, "max_scale=1000000.0"),
        ({"document": [np.zeros((0, 9), np.uint8)], "question": "?"}, ValueError, "page image 1 has no pixels"),
        ({"document": [np.zeros((9, 9), np.float32)], "question": "?"}, ValueError, "float32"),
        ({"document": "text", "question": "?", "budget": {"max_context_tokens": 5}}, ContextBudgetError, "smallest"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_request_that_cannot_be_served_says_why(
    processor: HybridCtxProcessor, request_: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        processor(**request_)


def test_text_with_images_expands_placeholders(processor: HybridCtxProcessor) -> None:
    image = Image.new("RGB", (56, 84), "blue")
    features = processor(text="<|begin_of_image|><|image|><|end_of_image|>What?", images=image, return_tensors="pt")
    assert int(features["mm_token_type_ids"].sum()) == 6
    assert features["image_grid_thw"].tolist() == [[1, 6, 4]]
    assert set(features) <= set(processor.model_input_names)
    assert "token_type_ids" not in processor.model_input_names
    with pytest.raises(ValueError, match="Found total 1"):
        processor(text="<|image|>", images=[image, image])


def test_placeholder_counts_are_known_without_an_image(processor: HybridCtxProcessor) -> None:
    data = processor._get_num_multimodal_tokens(image_sizes=[(84, 56), (28, 28)])
    assert (data["num_image_tokens"], data["num_image_patches"]) == ([6, 1], [24, 4])
    assert processor.replace_image_token({"image_grid_thw": torch.tensor([[1, 4, 2]])}, 0) == "<|image|>" * 2


def test_generated_ids_become_texts(processor: HybridCtxProcessor) -> None:
    ids = processor.tokenizer("<|assistant|>4821930<|endoftext|>", return_tensors="pt")["input_ids"]
    assert processor.post_process_image_text_to_text(ids) == ["4821930"]


def test_a_tokenizer_without_an_image_token_is_refused(image_processor: HybridCtxImageProcessor) -> None:
    backend = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    with pytest.raises(ValueError, match=r"no '<\|image\|>' token"):
        HybridCtxProcessor(image_processor, PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>"))
