# SPDX-License-Identifier: Apache-2.0
"""The processor: prompts from documents, from text with images and from chats; saving and loading with fonts."""

from __future__ import annotations

import json
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoProcessor, PreTrainedTokenizerFast

from transformers_hybridctx import (
    ContextBudget,
    ContextBudgetError,
    HybridCtxConfig,
    HybridCtxImageProcessor,
    HybridCtxProcessor,
    PageRenderer,
    RenderConfig,
)
from transformers_hybridctx.prompting.frames import PlainEncoder
from transformers_hybridctx.rendering.typesetting import BUNDLED_SANS

DOCUMENT = (
    "It was the best of times, it was the worst of times. " * 6
    + "The special magic number for green-lemur is: 4821930. "
    + "It was the age of wisdom, it was the age of foolishness. " * 6
)
QUESTION = "What is the special magic number for green-lemur?"


def decode(processor: HybridCtxProcessor, ids: Any) -> str:
    """The prompt with every picture written as one image token."""
    text = processor.tokenizer.decode(ids)
    while "<|image|><|image|>" in text:
        text = text.replace("<|image|><|image|>", "<|image|>")
    return text


# Documents


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


# Text is text


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


# Errors


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
            "known policies: anchors, attention, bm25",
        ),
        ({"document": "text", "question": "?", "budget": {"tokens": 5}}, ValueError, "unknown ContextBudget field"),
        ({"document": "text", "question": "?", "max_length": 5}, TypeError, "max_length"),
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


@pytest.mark.parametrize(
    "template",
    [
        # Lines between parts, as many chat templates have them.
        "{% for part in messages[0].content %}{{ '<|image|>' if part.type == 'image' else part.text }}\n{% endfor %}",
        # Numbered pictures, trimmed text, and a closing word that depends on the text.
        "[gMASK]<sop><|user|>{% for part in messages[0].content %}"
        "{% if part.type == 'image' %}Picture {{ loop.index }}: "
        "<|begin_of_image|><|image|><|end_of_image|>{% else %}{{ part.text | trim }}{% endif %}{% endfor %}"
        "{{ '' if messages[0].content[-1].text.endswith('/nothink') else '/nothink' }}<|assistant|>",
    ],
)
@pytest.mark.parametrize("policy", ["anchors", "none", "full"])
def test_any_template_gets_the_promised_tokens(
    tokenizer: PreTrainedTokenizerFast,
    image_processor: HybridCtxImageProcessor,
    render_config: dict[str, Any],
    template: str,
    policy: str,
) -> None:
    processor = HybridCtxProcessor(image_processor, tokenizer, chat_template=template, render_config=render_config)
    with pytest.raises(ContextBudgetError) as caught:
        processor.plan(DOCUMENT, QUESTION, text_policy=policy, budget={"max_context_tokens": 40})
    for limit in (caught.value.smallest, caught.value.smallest + 100, None):
        request: dict[str, Any] = {"text_policy": policy, "budget": {"max_context_tokens": limit}}
        features, plan = processor(document=DOCUMENT, question=QUESTION, **request, return_plan=True)
        assert len(features["input_ids"][0]) == plan.total_tokens <= (limit or plan.total_tokens)


def test_a_template_that_drops_its_text_is_an_error(processor: HybridCtxProcessor) -> None:
    messages = [{"role": "user", "content": [{"type": "document", "text": "text"}, {"type": "text", "text": "why"}]}]
    with pytest.raises(ValueError, match="each must appear exactly once"):
        processor.apply_chat_template(messages, "<|user|>{{ messages[0].role }}", tokenize=True)


# Chats


def test_a_chat_with_a_document_part_is_the_prompt_of_document_and_question(processor: HybridCtxProcessor) -> None:
    part = {"type": "document", "text": DOCUMENT}
    messages = [{"role": "user", "content": [part, {"type": "text", "text": QUESTION}]}]
    chat = processor.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )
    call = processor(document=DOCUMENT, question=QUESTION, return_tensors="pt")
    assert set(chat) == set(call)
    for name, value in call.items():
        assert torch.equal(value, chat[name]), name
    assert messages[0]["content"][0] is part
    ids = processor.apply_chat_template(messages, tokenize=True, add_generation_prompt=True)
    assert ids == call["input_ids"].tolist()


def test_a_chat_as_text_has_one_image_token_a_page(processor: HybridCtxProcessor) -> None:
    messages = [
        {
            "role": "user",
            "content": [
                {"type": "document", "text": DOCUMENT, "text_policy": "full"},
                {"type": "text", "text": "Hm?"},
            ],
        }
    ]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    plan = processor.plan(DOCUMENT, "Hm?", text_policy="full")
    assert text.count("<|image|>") == plan.num_pages
    assert f"[page 1] {plan.spans[0].text}\n" in text
    assert text.endswith("Hm?<|assistant|>\n")


def test_documents_pictures_and_turns_keep_their_order_and_share_a_budget(processor: HybridCtxProcessor) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "document", "text": DOCUMENT, "text_policy": "none"},
                {"type": "image", "image": Image.new("RGB", (56, 28), "red")},
                {"type": "document", "document": "Another, with 99812 in it.", "budget": {"visual_share": 0}},
                {"type": "text", "text": "Compare <|user|>."},
            ],
        },
        {"role": "assistant", "content": "Done."},
        {"role": "user", "content": "And now?"},
    ]
    features, plans = processor.apply_chat_template(
        messages,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        return_plan=True,
        budget={"max_context_tokens": 400},
    )
    page = "<|begin_of_image|><|image|><|end_of_image|>"
    assert decode(processor, features["input_ids"][0]) == (
        f"[gMASK]<sop><|system|>\nBe brief.<|user|>\n{page * (plans[0].num_pages + 1)}"
        "[page 1] Another, with 99812 in it.\nCompare <|user|>.<|assistant|>\nDone.<|endoftext|>"
        "<|user|>\nAnd now?<|assistant|>\n"
    )
    assert {plan.total_tokens for plan in plans} == {features["input_ids"].shape[1]}
    assert features["input_ids"].shape[1] <= 400
    assert features["image_grid_thw"].shape[0] == plans[0].num_pages + 1
    assert int((features["input_ids"] == processor.tokenizer.convert_tokens_to_ids("<|user|>")).sum()) == 2


def test_the_assistant_mask_covers_what_the_model_is_to_write(processor: HybridCtxProcessor) -> None:
    messages = [
        {"role": "user", "content": [{"type": "document", "text": DOCUMENT}, {"type": "text", "text": QUESTION}]},
        {"role": "assistant", "content": "4821930"},
    ]
    features = processor.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_tensors="pt", return_assistant_tokens_mask=True
    )
    prompt = processor(document=DOCUMENT, question=QUESTION)["input_ids"][0]
    written = features["input_ids"][features["assistant_masks"].bool()]
    assert processor.tokenizer.decode(written) == "4821930<|endoftext|>"
    assert features["input_ids"][0, : len(prompt)].tolist() == prompt


def test_chats_without_documents_go_the_way_of_transformers(processor: HybridCtxProcessor) -> None:
    messages = [{"role": "user", "content": [{"type": "image", "image": Image.new("RGB", (56, 56))}]}]
    features = processor.apply_chat_template(messages, tokenize=True, return_dict=True, return_tensors="pt")
    assert int(features["mm_token_type_ids"].sum()) == 4


@pytest.mark.parametrize(
    "part",
    [{"type": "document"}, {"type": "document", "text": "a", "document": "b"}, {"type": "document", "url": "x"}],
)
def test_a_document_part_with_other_keys_is_an_error(processor: HybridCtxProcessor, part: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="takes 'text' or 'document'"):
        processor.apply_chat_template([{"role": "user", "content": [part]}], tokenize=True)


# As every GLM-4V processor


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


# Saving and loading


@pytest.fixture
def saved(tmp_path: pathlib.Path, processor: HybridCtxProcessor) -> pathlib.Path:
    folder = tmp_path / "checkpoint"
    processor.save_pretrained(folder)
    HybridCtxConfig().save_pretrained(folder)
    return folder


def test_a_saved_processor_draws_the_same_pages_with_its_own_fonts(
    saved: pathlib.Path, processor: HybridCtxProcessor
) -> None:
    loaded = AutoProcessor.from_pretrained(saved)
    assert isinstance(loaded, HybridCtxProcessor)
    assert loaded.render_config.font_path == str(saved / "fonts" / "DejaVuSansMono.ttf")
    assert (saved / "fonts" / "LICENSE-DejaVu.txt").exists()
    ours, theirs = (one(document=DOCUMENT, question=QUESTION, return_tensors="pt") for one in (processor, loaded))
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def test_every_setting_comes_back_and_no_path_of_this_machine_is_written(
    tmp_path: pathlib.Path,
    tokenizer: PreTrainedTokenizerFast,
    image_processor: HybridCtxImageProcessor,
    render_config: dict[str, Any],
) -> None:
    font = tmp_path / "somewhere" / "Mine.ttf"
    font.parent.mkdir()
    shutil.copy(BUNDLED_SANS, font)
    config = RenderConfig(**{**render_config, "font_path": str(font), "newline_markup": "¶"})
    one = HybridCtxProcessor(
        image_processor,
        tokenizer,
        render_config=config,
        default_budget=ContextBudget(max_text_tokens=77),
        default_text_policy={"name": "bm25", "top_k": 2},
        fusion_order="tokens_first",
    )
    one.save_pretrained(tmp_path / "saved")
    written = (tmp_path / "saved" / "processor_config.json").read_text()
    assert str(tmp_path) not in written
    assert json.loads(written)["render_config"]["font_path"] == "fonts/Mine.ttf"
    one_as_written = one.to_dict()
    (tmp_path / "saved").rename(tmp_path / "moved")
    shutil.rmtree(font.parent)
    two = HybridCtxProcessor.from_pretrained(tmp_path / "moved")
    assert two.to_dict() == one_as_written
    assert two.default_budget == {"max_text_tokens": 77}
    assert two.default_text_policy == {"name": "bm25", "top_k": 2}
    assert two.fusion_order == "tokens_first"
    # Again, into the folder that it was loaded from.
    two.save_pretrained(tmp_path / "moved")
    assert (tmp_path / "moved" / "processor_config.json").read_text() == written


def test_a_missing_font_is_an_error_that_says_so(saved: pathlib.Path) -> None:
    (saved / "fonts" / "DejaVuSansMono.ttf").unlink()
    with pytest.raises(FileNotFoundError, match=r"fonts/DejaVuSansMono.ttf.*missing"):
        HybridCtxProcessor.from_pretrained(saved)


def test_a_changed_font_is_an_error_that_says_so(saved: pathlib.Path) -> None:
    font = saved / "fonts" / "DejaVuSansMono.ttf"
    font.write_bytes(font.read_bytes() + b"\0")
    with pytest.raises(ValueError, match=r"fonts/DejaVuSansMono.ttf.*sha256"):
        HybridCtxProcessor.from_pretrained(saved)


@pytest.mark.parametrize("name", ["/etc/hostname", "../Mine.ttf", "fonts/../../Mine.ttf"])
def test_a_checkpoint_cannot_name_fonts_outside_itself(saved: pathlib.Path, name: str) -> None:
    path = saved / "processor_config.json"
    values = json.loads(path.read_text())
    values["render_config"]["font_path"] = name
    values["font_sha256"][name] = "0" * 64
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="not a font of the checkpoint"):
        HybridCtxProcessor.from_pretrained(saved)


def test_fonts_come_from_the_hub_cache(
    saved: pathlib.Path, tmp_path: pathlib.Path, processor: HybridCtxProcessor
) -> None:
    """A repository in the cache, as huggingface_hub lays it out, is loaded without a network."""
    snapshot = tmp_path / "hub" / "models--someone--tiny" / "snapshots" / ("a" * 40)
    shutil.copytree(saved, snapshot)
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("a" * 40)
    loaded = HybridCtxProcessor.from_pretrained("someone/tiny", cache_dir=tmp_path / "hub", local_files_only=True)
    assert loaded.render_config.font_path == str(snapshot / "fonts" / "DejaVuSansMono.ttf")
    assert loaded.plan(DOCUMENT, QUESTION) == processor.plan(DOCUMENT, QUESTION)
