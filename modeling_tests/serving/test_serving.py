# SPDX-License-Identifier: Apache-2.0
"""The server through the `openai` package's own client."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from pathlib import Path
from typing import Any

import openai
import pytest
from live_server import served
from PIL import Image

from transformers_hybridctx import LongDocQAPipeline

TALE = "It was the best of times, it was the worst of times. The code of room 7 is 4821930. " * 6
PAGES = {
    "hybridctx": {"text_policy": "anchors"}
}  # the test checkpoint's own; named, so that pages are shown in any case
QUESTION = "What is the code of room 7?"


@pytest.fixture(scope="module")
def address(pipe: LongDocQAPipeline) -> Iterator[str]:
    with served(pipe) as address:
        yield address


@pytest.fixture(scope="module")
def client(address: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


def message(*documents: dict[str, Any], question: str = QUESTION) -> dict[str, Any]:
    return {"role": "user", "content": [*documents, {"type": "text", "text": question}]}


def text_part(text: str) -> dict[str, Any]:
    return {"type": "document", "text": text}


def ask(client: openai.OpenAI, *messages: Any, **options: Any) -> Any:
    options = {"max_tokens": 6, "extra_body": PAGES} | options
    return client.chat.completions.create(model="tiny", messages=list(messages), **options)


def test_an_answer_is_the_pipelines(client: openai.OpenAI, pipe: LongDocQAPipeline) -> None:
    completion = ask(client, message(text_part(TALE)))
    expected = pipe(question=QUESTION, document=pipe.read(text=TALE))
    assert completion.choices[0].message.content == expected["answer"]
    assert completion.choices[0].finish_reason == expected["finish_reason"]
    assert completion.usage.prompt_tokens == expected["usage"]["prompt_tokens"]
    assert completion.usage.completion_tokens == expected["usage"]["new_tokens"]
    added = completion.model_extra["hybridctx"]
    assert added["score"] == pytest.approx(expected["score"])
    assert added["plan"]["pages"] == expected["plan"].num_pages
    assert [item["page"] for item in added["evidence"]] == [item["page"] + 1 for item in expected["evidence"]]


def test_a_request_may_look_closer(client: openai.OpenAI, pipe: LongDocQAPipeline) -> None:
    for look, spans, larger in ((True, True, False), ({"zoom": 2, "top_k": 1}, False, True)):
        found = ask(client, message(text_part(TALE)), extra_body={"hybridctx": {"look_closer": look}})
        expected = pipe(question=QUESTION, document=TALE, look_closer=look)
        added = found.model_extra["hybridctx"]
        assert added["score"] == pytest.approx(expected["score"], rel=1e-4)
        assert (bool(added["passages"]), "looked_at" in added["plan"]) == (spans, larger)


def test_a_stream_says_the_same_in_pieces(client: openai.OpenAI) -> None:
    whole = ask(client, message(text_part(TALE)))
    chunks = list(ask(client, message(text_part(TALE)), stream=True, stream_options={"include_usage": True}))
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == whole.choices[0].finish_reason
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-2].model_extra["hybridctx"]["score"] == pytest.approx(whole.model_extra["hybridctx"]["score"])


def test_a_second_question_pays_for_its_own_tokens_only(client: openai.OpenAI) -> None:
    text = f"A tale of its own. {TALE}"
    first, second = (ask(client, message(text_part(text), question=asked)) for asked in (QUESTION, "Where is it?"))
    assert (first.usage.prompt_tokens_details.cached_tokens, first.model_extra["hybridctx"]["reading"]) == (
        0,
        "read now",
    )
    assert second.model_extra["hybridctx"]["reading"] == "memory"
    assert second.usage.prompt_tokens_details.cached_tokens > second.usage.prompt_tokens / 2


def test_documents_of_equal_layout_never_share_an_answer(client: openai.OpenAI, pipe: LongDocQAPipeline) -> None:
    """In any order and at once: what engines get wrong that find pages again by less than their content."""
    texts = [TALE.replace("4821930", number) for number in ("1111111", "7777777", "9999999")]
    alone = {text: pipe(question=QUESTION, document=pipe.read(text=text)) for text in texts}
    assert len({answer["score"] for answer in alone.values()}) == len(texts)
    with ThreadPoolExecutor(6) as threads:
        for order in permutations(texts):
            found = threads.map(lambda text: ask(client, message(text_part(text))), [*order, *reversed(order)])
            for text, completion in zip([*order, *reversed(order)], found, strict=True):
                assert completion.model_extra["hybridctx"]["score"] == pytest.approx(alone[text]["score"], rel=1e-5)


def test_a_long_message_is_a_document_and_its_last_paragraph_the_question(client: openai.OpenAI) -> None:
    as_part = ask(client, message(text_part(TALE.strip())))
    for text in (f"{TALE}\n\n{QUESTION}", f"{QUESTION}\n\n{TALE}"):
        completion = ask(client, {"role": "user", "content": text})
        assert completion.usage.prompt_tokens == as_part.usage.prompt_tokens
        assert completion.choices[0].message.content == as_part.choices[0].message.content
    assert ask(client, {"role": "user", "content": "Good day."}).model_extra["hybridctx"]["document"] is None


def test_a_document_that_is_no_longer_as_text_goes_as_text(client: openai.OpenAI) -> None:
    plan = ask(client, message(text_part("The code is 42.")), extra_body={}).model_extra["hybridctx"]["plan"]
    assert (plan["pages"], plan["policy"]) == (0, "full")
    options = {"hybridctx": {"budget": {"visual_share": 1}}}
    plan = ask(client, message(text_part("The code is 42.")), extra_body=options).model_extra["hybridctx"]["plan"]
    assert plan["pages"] == 1


def test_what_was_said_before_is_told(client: openai.OpenAI) -> None:
    turns = [message(text_part(TALE)), {"role": "assistant", "content": "4821930"}, message(question="And of room 8?")]
    assert ask(client, *turns).usage.prompt_tokens > ask(client, message(text_part(TALE))).usage.prompt_tokens
    system = {"role": "system", "content": "You answer in Latin."}
    assert ask(client, system, *turns).usage.prompt_tokens > ask(client, *turns).usage.prompt_tokens
    split = [{"role": "user", "content": [text_part(TALE)]}, {"role": "user", "content": QUESTION}]
    assert ask(client, *split).usage == ask(client, message(text_part(TALE))).usage


def test_files(client: openai.OpenAI) -> None:
    stored = client.files.create(file=("../../tale.txt", TALE.encode()), purpose="user_data")
    assert (stored.filename, stored.bytes) == ("tale.txt", len(TALE))
    assert client.files.retrieve(stored.id) == stored and stored in client.files.list().data
    inline = {
        "filename": "tale.txt",
        "file_data": f"data:text/plain;base64,{base64.b64encode(TALE.encode()).decode()}",
    }
    parts: list[dict[str, Any]] = [
        {"type": "document", "file_id": stored.id},
        {"type": "file", "file": {"file_id": stored.id}},
        {"type": "file", "file": inline},
    ]
    found = [ask(client, message(part)) for part in parts]
    assert len({completion.model_extra["hybridctx"]["score"] for completion in found}) == 1
    both = ask(client, message(parts[0], text_part("Another one.")))
    assert both.model_extra["hybridctx"]["plan"]["document_characters"] > 2 * len("tale.txt") + len(TALE)
    client.files.delete(stored.id)
    with pytest.raises(openai.NotFoundError, match="upload it"):
        ask(client, message(parts[0]))


def test_pictures_of_pages_are_documents(client: openai.OpenAI) -> None:
    data = io.BytesIO()
    Image.new("L", (168, 168), 255).save(data, "PNG")
    stored = client.files.create(file=("scan.png", data.getvalue()), purpose="user_data")
    completion = ask(client, message({"type": "document", "file_id": stored.id}))
    assert completion.model_extra["hybridctx"]["plan"]["pages"] == 1
    with pytest.raises(openai.BadRequestError, match="scan"):
        ask(client, message({"type": "document", "file_id": stored.id}, text_part("A text.")))


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ({"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}, "image_url"),
        ({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}, "image_url"),
        ({"type": "document", "document": "/etc/passwd"}, "paths and addresses are not read"),
        ({"type": "file", "file": {"file_url": "http://127.0.0.1/"}}, "paths and addresses are not read"),
        ({"type": "file", "file": {"file_data": "?", "filename": "a.txt"}}, "base64"),
        ({"type": "file", "file": "/etc/passwd"}, "an object"),
        ({"type": "document", "text": ["a"]}, "needs text"),
        ({"type": "document", "text": "  "}, "needs text"),
        ({"type": None}, "None"),
    ],
)
def test_nothing_of_the_servers_is_read_for_a_client(client: openai.OpenAI, part: dict[str, Any], says: str) -> None:
    with pytest.raises(openai.BadRequestError, match=says):
        ask(client, message(part))


def test_a_text_that_is_a_path_is_a_text(client: openai.OpenAI) -> None:
    plan = ask(client, message(text_part(__file__))).model_extra["hybridctx"]["plan"]
    assert plan["document_characters"] == len(__file__)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"n": 2}, "^Error code: 400 - n=2 asks for something"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"seed": 7}, "seed=7"),
        ({"temperature": 9}, "temperature: Input should be less than or equal to 2, not 9"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": ["a"] * 9}, "four"),
        ({"stop": ["a" * 101, "b" * 100]}, "200 characters in all"),
        ({"extra_body": {"hybridctx": {"budget": {"max_scale": 1e6}}}}, "max_scale"),
        ({"extra_body": {"hybridctx": {"budget": {"max_context_tokens": 5}}}}, "smallest"),
        ({"extra_body": {"hybridctx": {"text_policy": "magic"}}}, "magic"),
        ({"extra_body": {"hybridctx": {"text_policies": "magic"}}}, "text_policies"),
        ({"extra_body": {"hybridctx": {"look_closer": {"lens": 2}}}}, "lens"),
        ({"extra_body": {"hybridctx": {"look_closer": {"zoom": 99}}}}, "zoom=99"),
        ({"extra_body": {"hybridctx": {"look_closer": True, "text_policy": "bm25"}}}, "drop one of them"),
    ],
)
def test_what_cannot_be_done_is_refused(client: openai.OpenAI, options: dict[str, Any], says: str) -> None:
    with pytest.raises(openai.BadRequestError, match=says):
        ask(client, message(text_part(TALE)), **options)
    with pytest.raises(openai.BadRequestError, match=says):
        list(ask(client, message(text_part(TALE)), stream=True, **options))


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([{"role": "assistant", "content": "Hm."}], "take turns"),
        ([{"role": "system", "content": "Hm."}], "nothing to answer"),
        ([{"role": "user", "content": "Hm."}, {"role": "tool", "content": "x"}], "message 2.*'tool'"),
        ([{"role": "user", "content": 7}], "message 1"),
        ([{"role": "user", "content": [text_part(TALE)]}], "no words"),
        ([{}], "message 1"),
    ],
)
def test_messages_that_ask_nothing_are_refused(client: openai.OpenAI, messages: list[Any], says: str) -> None:
    with pytest.raises(openai.BadRequestError, match=says):
        ask(client, *messages)


@pytest.mark.parametrize(
    "option", [{"grounding": "quote"}, {"grounding": "strings"}, {"repair": True}, {"abstain": True}]
)
def test_what_is_about_a_document_needs_one(client: openai.OpenAI, option: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError, match="no message has one"):
        ask(client, {"role": "user", "content": "Good day."}, extra_body={"hybridctx": option})
    assert ask(client, {"role": "user", "content": "Good day."}, extra_body={"hybridctx": {"grounding": "none"}})


def test_other_models_and_wrong_keys(pipe: LongDocQAPipeline, client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    with pytest.raises(openai.NotFoundError, match="'tiny'"):
        client.chat.completions.create(model="gpt", messages=[{"role": "user", "content": "Hm."}])
    with served(pipe, api_key="secret") as address:
        for key in ("", "secre", "secret\N{SNOWMAN}"[:6] + "x"):
            with pytest.raises(openai.AuthenticationError):
                openai.OpenAI(base_url=f"{address}/v1", api_key=key or "none", max_retries=0).models.list()
        assert openai.OpenAI(base_url=f"{address}/v1", api_key="secret", max_retries=0).models.list().data


def test_who_asks_another_endpoint_is_told_which_there_are(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=r"no POST /v1/responses here; POST /v1/chat/completions answers"):
        client.responses.create(model="tiny", input="Hm?")


def test_readings_outlive_the_server_on_disk(pipe: LongDocQAPipeline, tmp_path: Path) -> None:
    for found in ("read now", "disk"):
        with served(pipe, cache_dir=tmp_path) as address:
            completion = ask(openai.OpenAI(base_url=f"{address}/v1", api_key="none"), message(text_part(TALE)))
            assert completion.model_extra["hybridctx"]["reading"] == found
    with served(pipe, cache_dir=tmp_path, cache_dir_bytes=0, memory_bytes=0) as address:
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none")
        assert ask(client, message(text_part(f"{TALE}!"))).model_extra["hybridctx"]["reading"] == "read now"
    assert not list(tmp_path.iterdir())
