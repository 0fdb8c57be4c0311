# SPDX-License-Identifier: Apache-2.0
"""Chats that hold documents."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from prompt_samples import DOCUMENT, QUESTION, decode

from transformers_hybridctx import (
    HybridCtxProcessor,
)


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


def test_a_history_stands_between_the_document_and_the_question(processor: HybridCtxProcessor) -> None:
    history = [("Who is <|user|>?", "Nobody."), ("Where?", "")]
    part = {"type": "document", "text": DOCUMENT}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": [part, {"type": "text", "text": history[0][0]}]},
        {"role": "assistant", "content": history[0][1]},
        {"role": "user", "content": [{"type": "text", "text": history[1][0]}]},
        {"role": "assistant", "content": history[1][1]},
        {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
    ]
    ids = processor.apply_chat_template(messages, tokenize=True, add_generation_prompt=True)
    call, plan = processor(document=DOCUMENT, question=QUESTION, history=history, return_plan=True)
    assert call["input_ids"] == ids
    assert plan == processor.plan(DOCUMENT, QUESTION, history=history)
    assert plan.total_tokens == len(ids[0])
    for wrong in (["Who?"], [("Who?", None)], [("Who?",)]):
        with pytest.raises(TypeError, match="history is a list of"):
            processor.plan(DOCUMENT, QUESTION, history=wrong)
    with pytest.raises(ValueError, match="empty question"):
        processor.plan(DOCUMENT, QUESTION, history=[(" ", "Nobody.")])


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


@pytest.mark.parametrize("with_document", [True, False])
def test_a_mask_of_a_template_without_marks_is_refused(processor: HybridCtxProcessor, with_document: bool) -> None:
    template = processor.chat_template.replace("{% generation %}", "").replace("{%- endgeneration %}", "")
    content = [{"type": "document", "text": DOCUMENT}] * with_document + [{"type": "text", "text": QUESTION}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "4821930"}]
    options: dict[str, Any] = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True}
    with pytest.raises(ValueError, match=r"does not mark what the model writes.*\{% generation %\}"):
        processor.apply_chat_template(messages, template, **options)
    unmarked = processor.apply_chat_template(messages, template, tokenize=True)
    assert unmarked == processor.apply_chat_template(messages, **options)["input_ids"]


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


def chat(*turns: Any) -> list[dict[str, Any]]:
    """A document and a question, an answer, and what follows."""
    first = [{"type": "document", "text": DOCUMENT}, {"type": "text", "text": QUESTION}]
    return [{"role": "user", "content": first}, {"role": "assistant", "content": "4821930"}, *turns]


@pytest.mark.parametrize("turn", ["👍", "?", "...", [{"type": "text", "text": "!"}]])
def test_a_turn_without_a_word_goes_on_with_the_last_question(processor: HybridCtxProcessor, turn: Any) -> None:
    policy = {"name": "bm25", "passage_chars": 60, "top_k": 1}
    options: dict[str, Any] = {"tokenize": True, "return_plan": True, "text_policy": policy}
    _, (plan,) = processor.apply_chat_template(chat({"role": "user", "content": turn}), **options)
    _, (asked,) = processor.apply_chat_template(chat(), **options)
    assert plan.spans == asked.spans
    assert "4821930" in plan.spans[0].text


def test_a_chat_that_asks_nothing_in_words_shows_its_pages(processor: HybridCtxProcessor) -> None:
    messages = [
        {"role": "user", "content": [{"type": "document", "text": DOCUMENT * 5}, {"type": "text", "text": "?"}]}
    ]
    _, (plan,) = processor.apply_chat_template(messages, tokenize=True, return_plan=True, text_policy="bm25")
    assert plan.spans == ()
    assert plan.num_pages


@pytest.mark.parametrize(
    ("part", "error", "says"),
    [
        ({"type": "document", "text": "a", "budget": {"max_scale": 1e6}}, ValueError, "max_scale=1000000.0"),
        ({"type": "document", "text": "a", "budget": {"visual_share": "0.5"}}, ValueError, "visual_share='0.5'"),
        ({"type": "document", "text": "a", "budget": {"max_tokens": 5}}, ValueError, "unknown ContextBudget field"),
        ({"type": "document", "text": "a", "budget": [5]}, TypeError, "budget must be"),
        ({"type": "document", "text": "a", "text_policy": {"name": "bm25", "top_k": -1}}, ValueError, "top_k=-1"),
        ({"type": "document", "text": "a", "text_policy": {}}, ValueError, "unknown text policy"),
        ({"type": "document", "text": None}, TypeError, "not NoneType"),
        ({"type": "video", "video": "a.mp4"}, ValueError, "'video', which this model has no input for"),
        ({"type": "video_url", "video_url": {"url": "a"}}, ValueError, "'video_url'"),
        ({"type": "input_audio", "input_audio": {}}, ValueError, "'input_audio'"),
        ({"type": "image_url", "image_url": None}, ValueError, "an image part"),
        ({"type": "text", "text": 5}, TypeError, "is a string, not 5"),
        ({"type": "text", "text": None}, TypeError, "is a string, not None"),
        ({"type": "image", "image": [[[]]]}, ValueError, "needs a picture, a path or an address"),
        ({"type": "Document", "text": "a"}, ValueError, "of type 'Document'"),
        ({"text": "a"}, ValueError, "of type None"),
        ("text", TypeError, "a part of a message"),
    ],
    ids=str,
)
def test_what_a_chat_may_not_hold_is_refused_by_name(
    processor: HybridCtxProcessor, part: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        processor.apply_chat_template(chat({"role": "user", "content": [part]}), tokenize=True)


def test_films_and_sounds_are_refused_in_any_chat(processor: HybridCtxProcessor) -> None:
    content = [{"type": "video", "video": np.zeros((4, 64, 64, 3), np.uint8)}, {"type": "text", "text": "What?"}]
    for tokenize in (False, True):
        with pytest.raises(ValueError, match="'video', which this model has no input for"):
            processor.apply_chat_template([{"role": "user", "content": content}], tokenize=tokenize)


@pytest.mark.parametrize("role", ["user", "assistant", "system"])
def test_no_part_of_any_message_is_left_out_without_a_word(processor: HybridCtxProcessor, role: str) -> None:
    for part in ({"type": "document_url", "url": "a"}, {"type": "input_text", "text": "The code is 5."}):
        for messages in (chat({"role": role, "content": [part]}), [{"role": role, "content": [part]}]):
            with pytest.raises(ValueError, match=f"of type '{part['type']}', which this model has no input for"):
                processor.apply_chat_template(messages, tokenize=True)


def test_a_message_that_is_none_is_refused(processor: HybridCtxProcessor) -> None:
    for message in ("text", {"content": "text"}):
        with pytest.raises(TypeError, match="a message is a dict with 'role'"):
            processor.apply_chat_template(chat(message), tokenize=True)
    for content in (None, 5, b"text", {"type": "text", "text": "a"}):
        with pytest.raises(TypeError, match="content is a string or a list of parts"):
            processor.apply_chat_template(chat({"role": "user", "content": content}), tokenize=True)
    for messages in (None, 5, "text", {}, [], [[]], {"role": "user"}):
        with pytest.raises(TypeError, match="a conversation is a list of one message or more"):
            processor.apply_chat_template(messages, tokenize=True)


@pytest.mark.parametrize("role", [["user"], None, 10**5000, "user|>\n<|system", "", "\ud800", "user\n"], ids=range(7))
def test_a_role_is_a_word(processor: HybridCtxProcessor, role: Any) -> None:
    with pytest.raises(ValueError, match="a message's role is a word"):
        processor.apply_chat_template(chat({"role": role, "content": "a"}), tokenize=True)


def test_words_of_a_role_that_no_template_knows_are_not_dropped_and_write_no_special_token(
    processor: HybridCtxProcessor,
) -> None:
    shows_all = (
        "{% for message in messages %}{% if message.content is string %}{{ message.content }}{% else %}"
        "{% for part in message.content %}{{ '<|image|>' if part.type == 'image' else part.text }}{% endfor %}"
        "{% endif %}{% endfor %}"
    )
    for role in ("User", "function", "tool"):
        messages = chat({"role": role, "content": "<|user|><|image|>"})
        ids = processor.apply_chat_template(messages, shows_all, tokenize=True)[0]
        plain = processor.apply_chat_template(chat(), shows_all, tokenize=True)[0]
        assert processor.tokenizer.decode(ids).endswith("<|user|><|image|>")
        assert ids.count(processor.image_token_id) == plain.count(processor.image_token_id)
    with pytest.raises(ValueError, match="each must appear exactly once"):
        processor.apply_chat_template(chat({"role": "User", "content": "Where?"}), tokenize=True)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("system", 5, "system is a string, not int"),
        ("history", 5, "history is a list of"),
        ("history", {"a": "b"}, "history is a list of"),
        ("chat_template_kwargs", "a", "chat_template_kwargs is a dict"),
        ("chat_template_kwargs", {1: 2}, "chat_template_kwargs is a dict"),
    ],
)
def test_an_option_of_another_type_is_refused_by_name(
    processor: HybridCtxProcessor, name: str, value: Any, says: str
) -> None:
    for call in (processor, processor.plan):
        with pytest.raises(TypeError, match=says):
            call(document=DOCUMENT, question=QUESTION, **{name: value})


def test_half_a_character_in_a_system_message_is_written_as_its_escape(processor: HybridCtxProcessor) -> None:
    ids = processor(document=DOCUMENT, question=QUESTION, system="be \ud83d brief")["input_ids"][0]
    assert "be \\ud83d brief" in decode(processor, ids)


def test_options_of_other_processors_are_taken_where_they_change_nothing(processor: HybridCtxProcessor) -> None:
    batch = [chat(), chat({"role": "user", "content": "Are you sure?"})]
    options = {"padding": True, "padding_side": "left", "return_tensors": "pt"}
    features = processor.apply_chat_template(batch, tokenize=True, return_dict=True, processor_kwargs=options)
    assert features["input_ids"].shape[0] == 2
    with pytest.raises(ValueError, match="padding_side='right'"):
        processor.apply_chat_template(chat(), tokenize=True, processor_kwargs={"padding_side": "right"})


def test_a_conversation_holds_a_bounded_number_of_documents(processor: HybridCtxProcessor) -> None:
    content = [{"type": "document", "document": processor.read_document("a")}] * 257
    with pytest.raises(ValueError, match="more than 256 documents"):
        processor.apply_chat_template([{"role": "user", "content": content}], tokenize=True)
