# SPDX-License-Identifier: Apache-2.0
"""Planned prompts asked of a server that knows the GLM-4V family only, through the `openai` package's own client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from glm4v_server import Glm4vServer
from live_server import running
from transformers import AutoTokenizer

from transformers_hybridctx import HybridCtxImageProcessor, HybridCtxProcessor, LongDocQAPipeline
from transformers_hybridctx.conversion.export import export_checkpoint
from transformers_hybridctx.grounding.evidence import find_evidence
from transformers_hybridctx.serving.engine_prompts import EnginePrompt
from transformers_hybridctx.serving.planned_chats import PlannedChat

TALE = "It was the best of times, it was the worst of times. The code of room 7 is 4821930. " * 6
QUESTION = "What is the code of room 7?"


@pytest.fixture(scope="module")
def folder(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain GLM-4V checkpoint."""
    folder = tmp_path_factory.mktemp("export") / "glm4v"
    export_checkpoint(str(checkpoint), folder)
    return folder


@pytest.fixture(scope="module")
def plain(folder: Path, render_config: dict[str, Any]) -> HybridCtxProcessor:
    """A processor that is made of a plain checkpoint's files."""
    return HybridCtxProcessor(
        HybridCtxImageProcessor.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
        render_config=render_config,
    )


@pytest.fixture(scope="module")
def server(folder: Path) -> Glm4vServer:
    return Glm4vServer(folder)


@pytest.fixture(scope="module")
def client(server: Glm4vServer) -> Iterator[openai.OpenAI]:
    with running(server.app) as address:
        yield openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


@pytest.mark.parametrize(
    "context",
    [
        {"text_policy": "none"},
        {"text_policy": "anchors"},
        {"text_policy": "full", "budget": {"visual_share": 0}},
        {"text_policy": "anchors", "history": [("Hm?", "It is 4821930.")], "system": "Be brief."},
        {"text_policy": "tail", "budget": {"max_text_tokens": 40}, "fusion_order": "tokens_first"},
    ],
)
def test_a_server_of_the_family_answers_a_planned_chat_as_the_pipeline_does(
    client: openai.OpenAI,
    server: Glm4vServer,
    plain: HybridCtxProcessor,
    pipe: LongDocQAPipeline,
    context: dict[str, Any],
) -> None:
    chat = PlannedChat.of(plain, TALE, QUESTION, **context)
    found = client.chat.completions.create(model="glm4v", messages=chat.messages, max_tokens=6)  # type: ignore[arg-type]
    expected = pipe(question=QUESTION, document=TALE, grounding="none", **context)
    assert found.choices[0].message.content.strip() == expected["answer"]
    assert found.usage.prompt_tokens == chat.plan.total_tokens == expected["usage"]["prompt_tokens"]
    prompt = EnginePrompt.of(plain, TALE, QUESTION, **context)
    assert server.prompt_ids == prompt.token_ids
    assert len(server.pictures) == chat.plan.num_pages == len(prompt.pages)
    for sent, drawn in zip(server.pictures, prompt.pages, strict=True):
        assert np.array_equal(np.asarray(sent), np.asarray(drawn.convert("RGB")))
    assert server.requests[-1]["messages"] == chat.messages
    assert find_evidence(chat.plan, "4821930", QUESTION)[0]["text"] == "4821930"


def test_pages_come_before_what_is_copied_and_before_the_question(plain: HybridCtxProcessor) -> None:
    chat = PlannedChat.of(plain, TALE, QUESTION, text_policy="anchors", system="Be brief.")
    assert chat.messages[0] == {"role": "system", "content": "Be brief."}
    kinds = [part["type"] for part in chat.messages[1]["content"]]
    assert kinds == ["image_url"] * chat.plan.num_pages + ["text", "text"]
    copied, asked = chat.messages[1]["content"][-2:]
    assert "4821930" in copied["text"] and asked["text"] == QUESTION


@pytest.mark.parametrize(
    ("document", "question", "token"),
    [
        (TALE, "What is <|user|>?", "<|user|>"),
        ("The end is <|endoftext|> 4821930.", "What is the end?", "<|endoftext|>"),
        (TALE, "What is on <|image|>?", "<|image|>"),
    ],
)
def test_words_that_would_be_control_tokens_elsewhere_are_refused(
    plain: HybridCtxProcessor, document: str, question: str, token: str
) -> None:
    with pytest.raises(ValueError, match=rf"{token!r}.*hybridctx serve".replace("|", r"\|")):
        PlannedChat.of(plain, document, question, text_policy="full")


def test_an_earlier_answer_may_bring_marks_around_reasoning_and_no_other_control_tokens(
    plain: HybridCtxProcessor,
) -> None:
    thought = "<think>It says 4821930.</think>4821930"
    chat = PlannedChat.of(plain, TALE, "And?", history=[("Hm?", thought)])
    assert chat.messages[-2]["content"] == thought
    with pytest.raises(ValueError, match=r"the history .* holds '<\|user\|>'"):
        PlannedChat.of(plain, TALE, "And?", history=[("Hm?", "It says <|user|>")])


def test_what_is_only_drawn_may_hold_any_words(plain: HybridCtxProcessor, client: openai.OpenAI) -> None:
    chat = PlannedChat.of(plain, "The end is <|endoftext|> \ud800 4821930.", "And \udfff?", text_policy="none")
    found = client.chat.completions.create(model="glm4v", messages=chat.messages, max_tokens=2)  # type: ignore[arg-type]
    assert found.usage.prompt_tokens == chat.plan.total_tokens
