# SPDX-License-Identifier: Apache-2.0
"""The server under load, and under requests that mean it no good."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pytest
from hypothesis import HealthCheck, assume, given, settings, strategies
from live_server import running, served

from transformers_hybridctx import LongDocQAPipeline
from transformers_hybridctx.answering.engine import AnsweringEngine
from transformers_hybridctx.caching.model_lock import model_lock
from transformers_hybridctx.grounding.evidence import split_reasoning
from transformers_hybridctx.serving.readings import ReadingStore
from transformers_hybridctx.serving.settings import ServerSettings
from transformers_hybridctx.serving.streaming import ReasoningSplitter
from transformers_hybridctx.serving.uploads import UploadedDocument

TALE = "It was the best of times, it was the worst of times. The code of room 7 is 4821930. " * 6


@pytest.fixture(scope="module")
def address(pipe: LongDocQAPipeline) -> Iterator[str]:
    limits = {"max_request_bytes": 20_000, "max_stored_bytes": 30_000, "max_document_characters": 10_000}
    with served(pipe, **limits) as address:
        yield address


def post(address: str, body: bytes, path: str = "/v1/chat/completions", **headers: str) -> tuple[int, Any]:
    request = urllib.request.Request(address + path, body, {"content-type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def answer_to(address: str, *lines: bytes) -> str:
    """What comes back for the head of a request whose body never comes."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as client:
        client.sendall(b"\r\n".join([*lines, b"Host: " + host.encode(), b"Connection: close", b"", b""]))
        return b"".join(iter(lambda: client.recv(10_000), b"")).decode()


def asks(question: str = "Which code?", **fields: Any) -> bytes:
    content = [{"type": "document", "text": TALE}, {"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}]
    return json.dumps({"model": "tiny", "messages": messages, "max_tokens": 6, **fields}).encode()


def test_sizes_are_bounded(address: str) -> None:
    status, answer = post(address, asks(user="x" * 20_000))
    assert status == 413 and "20,000 bytes" in answer["error"]["message"]
    long = {"type": "document", "text": "word " * 2_001}
    messages = [{"role": "user", "content": [long, {"type": "text", "text": "Hm?"}]}]
    status, answer = post(address, json.dumps({"model": "tiny", "messages": messages}).encode())
    assert status == 400 and "10,000" in answer["error"]["message"]
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
    client.files.create(file=("a.txt", b"word " * 3_000), purpose="user_data")
    with pytest.raises(openai.APIStatusError, match="delete some"):
        client.files.create(file=("b.txt", b"word " * 3_500), purpose="user_data")
    with pytest.raises(openai.BadRequestError, match="empty"):
        client.files.create(file=("c.txt", b""), purpose="user_data")
    with pytest.raises(openai.BadRequestError, match="purpose"):
        client.files.create(file=("c.txt", b"word"), purpose="mischief")  # type: ignore[arg-type]


JSON = strategies.recursive(
    strategies.none()
    | strategies.booleans()
    | strategies.integers()
    | strategies.floats()
    | strategies.text(max_size=9),
    lambda inner: (
        strategies.lists(inner, max_size=3) | strategies.dictionaries(strategies.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=6,
)
PARTS = strategies.fixed_dictionaries(
    {"type": strategies.sampled_from(["text", "document", "file", "image", "video"]) | JSON},
    optional={"text": JSON, "file": JSON, "file_id": JSON, "document": JSON, "budget": JSON, "name": JSON},
)
MESSAGES = strategies.fixed_dictionaries(
    {"role": strategies.sampled_from(["user", "assistant", "system", "developer"]) | JSON},
    optional={"content": JSON | strategies.lists(PARTS, max_size=3)},
)
FIELDS = ("stream", "stop", "max_tokens", "temperature", "top_p", "n", "stream_options", "tools", "hybridctx")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    messages=strategies.lists(MESSAGES, min_size=1, max_size=3) | JSON,
    fields=strategies.dictionaries(strategies.sampled_from(FIELDS), JSON, max_size=2),
)
def test_whatever_is_sent_is_answered_or_refused(address: str, messages: Any, fields: dict[str, Any]) -> None:
    fields = {name: value for name, value in fields.items() if name != "stream" or not value}
    status, answer = post(address, json.dumps({"model": "tiny", "messages": messages, **fields}).encode())
    assert status in (200, 400), answer
    assert status == 200 or answer["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b'{"model": "tiny"}', b"null", b"[" * 5000])
def test_bodies_that_are_no_requests(address: str, body: bytes) -> None:
    assert post(address, body)[0] == 400


def test_so_many_wait_and_others_come_again(fresh_pipe: LongDocQAPipeline) -> None:
    with served(fresh_pipe, concurrency=1, max_waiting=1, max_new_tokens=200) as address:
        fresh_pipe.model.generation_config.eos_token_id = None
        with ThreadPoolExecutor(6) as threads:
            found = list(threads.map(lambda _: post(address, asks(max_tokens=200))[0], range(6)))
        assert set(found) == {200, 429} and found.count(200) >= 2
        assert post(address, asks())[0] == 200


def test_files_are_taken_while_answers_are_given(fresh_pipe: LongDocQAPipeline) -> None:
    with served(fresh_pipe, concurrency=1, max_waiting=0) as address, ThreadPoolExecutor() as pool:
        with model_lock(fresh_pipe.model):
            answer = pool.submit(post, address, asks())
            while b"hybridctx_waiting 1.0" not in urllib.request.urlopen(f"{address}/metrics").read():
                time.sleep(0.01)
            client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=20)
            assert client.files.create(file=("a.txt", b"A word."), purpose="user_data").status == "processed"
        assert answer.result()[0] == 200


def test_a_client_that_hangs_up_frees_the_model(fresh_pipe: LongDocQAPipeline) -> None:
    fresh_pipe.model.generation_config.eos_token_id = None
    with served(fresh_pipe, max_new_tokens=100_000, max_context_tokens=10_000) as address:
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        stream = client.chat.completions.create(model="tiny", messages=json.loads(asks())["messages"], stream=True)
        next(iter(stream))
        stream.close()
        with pytest.raises(openai.APITimeoutError):
            client.chat.completions.create(model="tiny", messages=json.loads(asks())["messages"], timeout=0.5)
        status, answer = post(address, asks(max_tokens=3))  # neither goes on for its 100,000 tokens
        assert status == 200 and answer["usage"]["completion_tokens"] == 3


def test_who_hangs_up_before_the_turn_comes_costs_nothing(
    fresh_pipe: LongDocQAPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh_pipe.model.generation_config.eos_token_id = None
    read: list[str] = []
    whole = AnsweringEngine.read

    def noted(self: AnsweringEngine, document: Any, **more: Any) -> Any:
        read.append(document.text)
        return whole(self, document, **more)

    monkeypatch.setattr(AnsweringEngine, "read", noted)
    limits = {"concurrency": 1, "max_new_tokens": 100_000, "max_seconds": 3}
    with served(fresh_pipe, **limits) as address, ThreadPoolExecutor() as pool:
        first = pool.submit(post, address, asks(max_tokens=100_000))
        while not read:
            time.sleep(0.01)
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        content = [{"type": "document", "text": "Another tale. " * 20}, {"type": "text", "text": "Which?"}]
        for stream in (False, True):
            with pytest.raises(openai.APITimeoutError):
                client.chat.completions.create(
                    model="tiny",
                    messages=[{"role": "user", "content": content}],  # type: ignore[list-item]
                    stream=stream,
                    timeout=0.5,
                )
        assert first.result()[0] == 200 and post(address, asks(max_tokens=3))[0] == 200
    assert read == [TALE]


def test_a_key_is_asked_for_before_a_body_is_taken(pipe: LongDocQAPipeline) -> None:
    with served(pipe, api_key="secret") as address:
        assert answer_to(address, b"POST /v1/files HTTP/1.1", b"Content-Length: 60000000").startswith("HTTP/1.1 401")
        assert answer_to(address, b"GET /nothing HTTP/1.1").startswith("HTTP/1.1 401")
        assert answer_to(address, b"GET /health HTTP/1.1").startswith("HTTP/1.1 200")


def test_a_body_that_does_not_come_is_not_waited_for(pipe: LongDocQAPipeline) -> None:
    with served(pipe, max_request_seconds=0.2) as address:
        for kind in (b"application/json", b"multipart/form-data; boundary=B"):
            path = b"chat/completions" if kind.endswith(b"json") else b"files"
            answer = answer_to(
                *(address, b"POST /v1/" + path + b" HTTP/1.1", b"Content-Type: " + kind, b"Content-Length: 90")
            )
            assert answer.startswith("HTTP/1.1 408") and "0.2 seconds" in answer
        assert post(address, asks())[0] == 200


def test_connections_are_bounded_and_end_where_nothing_is_asked(pipe: LongDocQAPipeline) -> None:
    with served(pipe, max_request_seconds=0.3, max_connections=3) as address:
        host, port = address.removeprefix("http://").split(":")
        clients = [socket.create_connection((host, int(port)), timeout=30) for _ in range(4)]
        _, half, speaking, further = clients
        half.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
        speaking.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        answer = b""
        while not answer.endswith(b"ok"):
            answer += speaking.recv(10_000)
        speaking.sendall(b"G")  # what comes next never does
        for client in clients:
            with suppress(ConnectionResetError) if client is further else nullcontext():
                assert not client.recv(10_000)
            client.close()
        assert post(address, asks())[0] == 200


def test_pages_of_other_sites_may_not_ask_a_server_without_a_key(pipe: LongDocQAPipeline) -> None:
    with served(pipe, hosts=frozenset(("127.0.0.1",))) as address:
        own = {"Origin": address}
        assert post(address, asks(), **own)[0] == post(address, asks())[0] == 200
        for other in ({"Origin": "http://elsewhere.example"}, {"Origin": "null"}, {"Host": "elsewhere.example"}):
            status, answer = post(address, asks(), **other)
            assert status == 403 and next(iter(other.values())).removeprefix("http://") in answer["error"]["message"]
        for malformed in ({"Host": "["}, {"Host": "[::1"}, {"Host": "a]b"}, {"Origin": "http://["}, {"Origin": "["}):
            status, answer = post(address, asks(), **malformed)
            assert status == 403 and next(iter(malformed.values())) in answer["error"]["message"]
    with served(pipe, api_key="secret", hosts=frozenset(("127.0.0.1",))) as address:
        bearer = {"Authorization": "Bearer secret", "Host": "name.of.a.proxy", "Origin": "http://elsewhere.example"}
        assert post(address, asks(), **bearer)[0] == 200


@pytest.mark.parametrize("has_document", [False, True])
def test_options_of_the_template_are_the_templates_alone(address: str, has_document: bool) -> None:
    """Not another template, which would be a stranger's program, nor lengths that a tokenizer fills up to."""

    def asked(**options: Any) -> tuple[int, Any]:
        fields = {"hybridctx": {"chat_template_kwargs": options}}
        if has_document:
            return post(address, asks(**fields))
        body = {"model": "tiny", "messages": [{"role": "user", "content": "Hm?"}], "max_tokens": 2, **fields}
        return post(address, json.dumps(body).encode())

    status, answer = asked(
        chat_template="{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    )
    assert status == 400 and "chat_template" in answer["error"]["message"]
    plain = asked()[1]["usage"]["prompt_tokens"]
    for option in (
        {"padding": "max_length"},
        {"enable_thinking": False},
        {"tokenize": False},
        {"return_tensors": "np"},
    ):
        status, answer = asked(**option)
        assert status == 200 and answer["usage"]["prompt_tokens"] == plain


def test_words_of_a_chat_without_a_document_are_text(address: str, pipe: LongDocQAPipeline) -> None:
    for token in ("<|image|>", "<|user|>"):
        body = {"model": "tiny", "messages": [{"role": "user", "content": f"Hm {token}?"}], "max_tokens": 2}
        status, answer = post(address, json.dumps(body).encode())
        body["messages"][0]["content"] = "Hm ?"
        without = post(address, json.dumps(body).encode())[1]["usage"]["prompt_tokens"]
        assert status == 200 and answer["usage"]["prompt_tokens"] > without + 1


def test_half_characters_are_answered(address: str) -> None:
    """JSON can write them; UTF-8 cannot."""
    text = {"type": "document", "text": "The code \ud800 of room 7 is 42. " * 9, "name": "\udfff"}
    messages = [{"role": "user", "content": [text, {"type": "text", "text": "Which \ud800 code?"}]}]
    for policy in ("none", "full"):
        fields = {"hybridctx": {"text_policy": policy, "budget": {"visual_share": 0 if policy == "full" else 1}}}
        body = {"model": "tiny", "messages": messages, "max_tokens": 4, **fields}
        assert post(address, json.dumps(body).encode())[0] == 200


def test_nothing_that_a_document_names_is_read(tmp_path: Path) -> None:
    """No address is asked and no file of the server's is opened for what a client uploads."""
    asked: list[str] = []
    secret = tmp_path / "file.txt"
    secret.write_text("the server's own")

    async def note(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            asked.append(scope["path"])

    with running(note) as address:
        own, away = f"file://{secret}", f"{address}/away"
        page = f'<base href="{address}"><p>Hello<img src="/a"><img src="{own}"><iframe src="{away}"></iframe>'
        entities = f'<!DOCTYPE a [<!ENTITY x SYSTEM "{own}"><!ENTITY y SYSTEM "{away}">]><a>Hello &x;&y;</a>'
        files = {
            "a.html": page,
            "a.eml": f"Subject: s\nContent-Type: text/html\n\n{page}",
            "a.xml": f'<?xml version="1.0"?>{entities}',
            "a.svg": f'<?xml version="1.0"?>{entities}',
            "a.md": f"Hello ![]({away}) ![]({own})\n\n.. include:: {secret}",
            "a.tex": f"\\documentclass{{article}}\\begin{{document}}Hello \\input{{{secret}}}\\end{{document}}",
            "a.rtf": f"{{\\rtf1 Hello {{\\field{{\\*\\fldinst INCLUDETEXT {secret}}}{{\\fldrslt x}}}}}}",
            "a.txt": str(secret),
            "b.txt": away,
        }
        for name, text in files.items():
            assert "server's own" not in UploadedDocument.of_bytes(text.encode(), name).content
    assert not asked


def test_documents_of_other_kinds_are_other_documents() -> None:
    """Whatever name a client gives: the digest decides whose reading is shared."""
    one, other = "what comes first ", "and what comes behind it, some words more than before"
    both = f"{one}\0{other}"
    named = [("a.txt", both), (f"a.txt\0{one}", other), ("a.md", both), ("a.text", both)]
    found = {UploadedDocument.of_bytes(data.encode(), name).digest for name, data in named}
    found.add(UploadedDocument.of_text(both).digest)
    assert len(found) == 5


def test_a_reading_that_another_thread_gives_up_meanwhile_is_passed_over(tmp_path: Path) -> None:
    class Reading:
        prefix = SimpleNamespace(states=())

        def save(self, path: Path) -> None:
            path.write_bytes(b"read")

    (tmp_path / "gone.safetensors").symlink_to("nowhere")  # listed, and not there
    store = ReadingStore(0, tmp_path, 100)
    assert store.get("key", Reading, lambda kept: kept)[1] == "read now"  # type: ignore[arg-type]
    assert (tmp_path / "key.safetensors").exists()


def test_time_is_up(fresh_pipe: LongDocQAPipeline) -> None:
    fresh_pipe.model.generation_config.eos_token_id = None
    with served(fresh_pipe, max_new_tokens=100_000, max_seconds=0.3) as address:
        status, answer = post(address, asks(max_tokens=100_000))
        assert status == 200 and answer["choices"][0]["finish_reason"] == "length"


def test_what_is_counted(pipe: LongDocQAPipeline) -> None:
    with served(pipe) as address:
        post(address, asks())
        post(address, asks("What else?"))
        post(address, b"{")
        with urllib.request.urlopen(address + "/metrics") as response:
            lines = response.read().decode().splitlines()
        with urllib.request.urlopen(address + "/health") as response:
            assert response.read() == b"ok"
    assert 'hybridctx_responses_total{endpoint="/v1/chat/completions",status="200"} 2.0' in lines
    assert 'hybridctx_responses_total{endpoint="/v1/chat/completions",status="400"} 1.0' in lines
    assert 'hybridctx_readings_total{found="memory"} 1.0' in lines


def test_a_server_stops_with_requests_under_way(fresh_pipe: LongDocQAPipeline) -> None:
    fresh_pipe.model.generation_config.eos_token_id = None
    with served(fresh_pipe, max_new_tokens=100_000, max_seconds=2) as address:

        def hang() -> None:
            with suppress(OSError, ValueError):  # the server goes in the middle of it
                post(address, asks(max_tokens=100_000))

        thread = threading.Thread(target=hang, daemon=True)
        thread.start()
        time.sleep(0.5)
    thread.join(20)
    assert not thread.is_alive()


@given(
    pieces=strategies.lists(
        strategies.sampled_from(["<think>", "</think>", "<answer>", "</", "think", ">", "<", " ", "\n", "a", "b c"]),
        max_size=12,
    ),
    cuts=strategies.lists(strategies.integers(1, 5), max_size=40),
)
def test_a_stream_is_split_as_the_whole_is(pieces: list[str], cuts: list[int]) -> None:
    text = "".join(pieces)
    before = text.partition("<think>")[0]
    assume(text.count("<think>") <= 1 and text.count("</think>") <= 1)  # models say each once, in this order,
    assume(not ("</think>" in before or ("<think>" in text and before.strip())))  # and nothing before them
    splitter, said, left = ReasoningSplitter(), {"reasoning_content": "", "content": ""}, text
    for cut in [*cuts, len(text)]:
        for kind, piece in splitter.feed(left[:cut]):
            said[kind] += piece
        left = left[cut:]
    for kind, piece in splitter.finish():
        said[kind] += piece
    assert (said["reasoning_content"], said["content"]) == split_reasoning(text)


@pytest.mark.parametrize("wrong", [{"max_new_tokens": 0}, {"api_key": " "}, {"max_seconds": 0}, {"concurrency": -1}])
def test_settings_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ServerSettings(**wrong)
