# SPDX-License-Identifier: Apache-2.0
"""vLLM says token for token what transformers says, and never one document's answer to another's question."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from importlib.util import find_spec
from itertools import chain, permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import openai
import pytest
import torch
from tiny_checkpoints import randomize
from tiny_models import IMAGE_SETTINGS, tower_configs
from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline
from vllm_worker import run_in_vllm

from transformers_hybridctx import HybridCtxConfig, HybridCtxForCausalLM, HybridCtxImageProcessor, HybridCtxProcessor
from transformers_hybridctx.conversion.export import export_checkpoint
from transformers_hybridctx.grounding.grounded import Grounding
from transformers_hybridctx.pipeline_long_doc_qa import BUNDLED_CHECKPOINT
from transformers_hybridctx.serving.engine_prompts import EnginePrompt
from transformers_hybridctx.serving.held_requests import HELD_TO_DOCUMENT, HeldRequest
from transformers_hybridctx.serving.planned_chats import PlannedChat

pytestmark = pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed (docs/serving.md)")

NEW_TOKENS = 20
PLACES = ["harbour", "lantern", "meadow", "orchard", "quarry", "river", "steeple", "tunnel"]
QUESTION = "What is the special magic number for {} mentioned in the provided text?"


def document_of(shift: int) -> str:
    """Documents of one layout, whose numbers differ."""
    numbers = [1000003 * (place + 1) + 7919 * shift for place in range(len(PLACES))]
    return "\n".join(
        f"One of the special magic numbers for {place} is: {number % 10**7:07d}. The grass is green."
        for place, number in zip(PLACES, numbers)
    )


class Asked:
    """A question as vLLM takes it, and what transformers answers."""

    def __init__(
        self,
        processor: Any,
        model: Any,
        document: Any,
        question: str,
        grounding: str | dict[str, Any] | None = None,
        **context: Any,
    ) -> None:
        prompt = EnginePrompt.of(processor, document, question, **context)
        self.visual_tokens = prompt.plan.visual_tokens
        self.total_tokens = prompt.plan.total_tokens
        self.request = {"prompt": prompt.for_vllm(), "sampling": {"max_tokens": NEW_TOKENS}}
        held = []
        if (how := Grounding.of(grounding)) is not None:
            ends = model.generation_config.eos_token_id
            laid_out = prompt.plan.document
            self.request["sampling"]["extra_args"] = HeldRequest(laid_out.text, question, how, tuple(ends)).extra_args
            held = [how.processor(laid_out, [question], processor.tokenizer, ends)]
        inputs = processor(document=document, question=question, return_tensors="pt", **context)
        with torch.no_grad():
            output = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False, logits_processor=held)
        self.expected = output[0, inputs["input_ids"].shape[1] :].tolist()


@pytest.fixture(scope="module")
def asked() -> Any:
    processor = AutoProcessor.from_pretrained(BUNDLED_CHECKPOINT)
    model = AutoModelForImageTextToText.from_pretrained(BUNDLED_CHECKPOINT, dtype=torch.float32).eval()

    def ask(*args: Any, **context: Any) -> Asked:
        return Asked(processor, model, *args, **context)

    return ask


def colour_pages(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (180 + 36 * page, 288, 3), dtype=np.uint8) for page in range(2)]


def test_the_bundled_checkpoint_answers_as_in_transformers(asked: Any, tmp_path: Path) -> None:
    one, two = document_of(1), document_of(2)
    first, second = QUESTION.format("harbour"), QUESTION.format("quarry")
    kinds = [
        asked(one, first),  # grey pages, and passages by bm25
        asked(one, first, text_policy="none"),
        asked(one, first, budget={"visual_share": 0}, text_policy="full"),  # no page at all
        asked(one, second, history=[(first, "7")], system="Be brief.", text_policy="anchors"),
        asked(colour_pages(0), "What?"),
        asked([page[..., 0] for page in colour_pages(1)], "What?"),
        asked(one, second, fusion_order="tokens_first", text_policy="tail", budget={"max_text_tokens": 80}),
    ]
    again = asked(one, second)
    orders = [[asked(document, first) for document in order] for order in permutations((one, two, document_of(3)))]
    mixed = [asked(document_of(4), first), asked(colour_pages(2), "What?"), asked(document_of(5), second)]
    rounds = [[kind] for kind in kinds] + [kinds, [kinds[0]], [again], *orders, list(chain(*orders)), mixed]
    # one at a time, all at once, one again, another question, documents of equal layout in every order and at once, and
    # grey pages that are read in one batch with coloured ones
    answers = run_in_vllm(
        tmp_path,
        model=str(BUNDLED_CHECKPOINT),
        rounds=[[one.request for one in requests] for requests in rounds],
        options={"limit_mm_per_prompt": {"image": 16}},
    )
    for requests, found in zip(rounds, answers, strict=True):
        assert [one["token_ids"] for one in found] == [one.expected for one in requests]
    assert len({tuple(one.expected) for one in orders[0]}) == 3  # so that a mix-up would show
    repeated, further = answers[len(kinds) + 1][0], answers[len(kinds) + 2][0]
    block = 128
    assert repeated["cached"] >= kinds[0].total_tokens - block  # all but the last block
    assert further["cached"] >= again.visual_tokens // block * block  # the pages, whichever the question


def test_answers_are_held_to_their_documents_as_in_transformers(asked: Any, tmp_path: Path) -> None:
    documents = [document_of(shift) for shift in range(3)]
    questions = [QUESTION.format("harbour"), "Which numbers are there for lantern and for river?", "What is green?"]
    ways = [None, "quote", {"max_quotations": 4}, {"begin": None, "end": None}, "strings"]
    requests = [
        asked(documents[(number + order) % 3], questions[order], grounding=way)
        for order in range(3)
        for number, way in enumerate(ways)
    ]
    # some join while others are under way, and one comes alone: rows move in the engine's batch
    rounds = [requests, requests[:1], requests[::-1]]
    answers = run_in_vllm(
        tmp_path,
        model=str(BUNDLED_CHECKPOINT),
        rounds=[[one.request for one in some] for some in rounds],
        options={"limit_mm_per_prompt": {"image": 16}, "logits_processors": [HELD_TO_DOCUMENT], "max_num_seqs": 4},
    )
    for some, found in zip(rounds, answers, strict=True):
        assert [one["token_ids"] for one in found] == [one.expected for one in some]
    assert len({tuple(one.expected) for one in requests[:5]}) > 2  # so that holding changes what is said


def test_what_holds_answers_is_kept_within_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers_hybridctx.serving import vllm_grounding

    texts = [document_of(shift) for shift in range(5)]
    monkeypatch.setattr(vllm_grounding, "_KEPT_CHARACTERS", 2 * len(texts[0]) + 1)
    config = SimpleNamespace(tokenizer=str(BUNDLED_CHECKPOINT), tokenizer_revision=None, trust_remote_code=False)
    engine = SimpleNamespace(model_config=config, scheduler_config=SimpleNamespace(max_num_seqs=4))
    holds = vllm_grounding.HeldToDocument(engine, torch.device("cpu"), is_pin_memory=False)
    made = []
    for text in texts:
        request = HeldRequest(text, "What is green?", Grounding.of("quote"))
        processor = holds._processor(request, [1, 2])
        assert holds._processor(request, [1, 2]) is processor is not holds._processor(request, [1, 3])
        made.append(weakref.ref(processor))
    del processor
    gc.collect()
    assert [one() is None for one in made] == [True, True, True, False, False]


@pytest.mark.parametrize("towers", ["glm4v", "glm_ocr", "glm4v_moe"])
def test_any_towers_with_all_optional_parts_answer_as_in_transformers(
    processor: Any, tmp_path: Path, towers: str
) -> None:

    ids = processor.tokenizer.convert_tokens_to_ids
    configs = tower_configs(towers)
    configs["text_config"] |= {"vocab_size": len(processor.tokenizer), "hidden_size": 128, "head_dim": 32}
    configs["text_config"]["rope_parameters"] |= {"mrope_section": [4, 6, 6]}
    configs["vision_config"] |= {"out_hidden_size": 128}
    names = ("image_token_id", "image_start_token_id", "image_end_token_id")
    tokens = dict(zip(names, ids(["<|image|>", "<|begin_of_image|>", "<|end_of_image|>"]), strict=True))
    end = processor.tokenizer.eos_token_id
    configs["text_config"] |= {"pad_token_id": end, "eos_token_id": end}
    config = HybridCtxConfig(
        **{**configs, **tokens}, phi="residual_adapter", modality_embedding=True, eos_token_id=end
    )
    model = randomize(HybridCtxForCausalLM(config))
    own = HybridCtxProcessor(
        HybridCtxImageProcessor(**IMAGE_SETTINGS), processor.tokenizer, render_config=processor.render_config
    )
    folder = tmp_path / "checkpoint"
    model.save_pretrained(folder)
    own.save_pretrained(folder)
    requests = [
        Asked(own, model, "The number is 482193. Remember it. " * 3, "What is the number?", text_policy=policy)
        for policy in ("none", "anchors")
    ]
    answers = run_in_vllm(tmp_path, model=str(folder), rounds=[[one.request for one in requests]])
    assert [one["token_ids"] for one in answers[0]] == [one.expected for one in requests]


@contextmanager
def serving(module: str, *options: str, **environment: str) -> Iterator[openai.OpenAI]:
    """A server in a process of its own, and a client of it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # however slow the machine
    settings = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": "3000",
    }
    command = [sys.executable, "-m", module, *options, "--port", str(port)]
    process = subprocess.Popen(command, env={**os.environ, **settings, **environment})
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=3000)
    try:
        while process.poll() is None:
            with suppress(openai.APIConnectionError):
                client.models.list()
                break
            time.sleep(1)
        yield client
    finally:
        process.terminate()
        process.wait(60)


def serving_by_vllm() -> AbstractContextManager[openai.OpenAI]:
    """`hybridctx serve --engine vllm`."""
    given = ('dtype="float32"', "enforce_eager=true", "max_model_len=4096", 'distributed_executor_backend="uni"')
    options = [word for pair in given for word in ("--engine-option", pair)]
    return serving("transformers_hybridctx", "serve", "--engine", "vllm", *options)


@pytest.mark.skipif(find_spec("torchvision") is None, reason="vLLM's own GLM-4V class needs torchvision")
def test_vllms_own_class_answers_planned_chats_as_transformers_does(asked: Any, tmp_path: Path) -> None:
    """Its own server, to which this package is unknown, with the exported checkpoint; the client plans and draws."""
    export_checkpoint(str(BUNDLED_CHECKPOINT), tmp_path / "glm4v")
    processor = AutoProcessor.from_pretrained(BUNDLED_CHECKPOINT)
    one, two = document_of(1), document_of(2)
    question = QUESTION.format("harbour")
    cases: list[tuple[str, str, dict[str, Any]]] = [
        (one, question, {}),
        (one, QUESTION.format("quarry"), {}),
        (two, question, {}),
        (one, question, {"text_policy": "none"}),
        (two, question, {"text_policy": "none"}),
        (one, question, {"budget": {"visual_share": 0}, "text_policy": "full"}),
        (one, question, {"text_policy": "anchors", "history": [("And quarry?", "7")], "system": "Be brief."}),
        (two, question, {"text_policy": "tail", "budget": {"max_text_tokens": 80}, "fusion_order": "tokens_first"}),
    ]
    options = ["--model", str(tmp_path / "glm4v"), "--served-model-name", "glm4v", "--dtype", "float32"]
    options += ["--enforce-eager", "--max-model-len", "4096", "--limit-mm-per-prompt", '{"image": 16, "video": 0}']
    with serving("vllm.entrypoints.openai.api_server", *options, VLLM_PLUGINS="") as client:
        for document, question, context in cases:
            chat = PlannedChat.of(processor, document, question, **context)
            found = client.chat.completions.create(
                model="glm4v",
                messages=chat.messages,  # type: ignore[arg-type]
                max_tokens=NEW_TOKENS,
                temperature=0,
                extra_body={"return_token_ids": True},
            )
            assert found.choices[0].model_extra["token_ids"] == asked(document, question, **context).expected
            assert found.usage.prompt_tokens == chat.plan.total_tokens


def test_the_server_answers_by_vllm_as_the_pipeline_does() -> None:
    texts = {number: document_of(number) * 5 for number in (1, 2)}
    pipe = pipeline("long-doc-qa")
    questions = [QUESTION.format(place) for place in PLACES[:2]]
    policy = {"name": "auto", "beside": {"name": "bm25", "top_k": 4}}

    def asked(number: int, question: str, **options: Any) -> dict[str, Any]:
        content = [{"type": "document", "text": texts[number]}, {"type": "text", "text": question}]
        return {
            "model": "hybridctx-tiny",
            "messages": [{"role": "user", "content": content}],
            "max_tokens": 24,
        } | options

    with serving_by_vllm() as client:
        for number, text in texts.items():
            for order, question in enumerate(questions):
                found = client.chat.completions.create(**asked(number, question))
                expected = pipe(question=question, text=text, text_policy=policy, max_new_tokens=24)
                said, added = found.choices[0].message, found.model_extra["hybridctx"]
                assert said.content == expected["answer"]
                assert added["evidence"][0]["start"] == expected["evidence"][0]["start"]
                assert added["score"] == pytest.approx(expected["score"], rel=1e-3)
                assert found.usage.prompt_tokens == expected["usage"]["prompt_tokens"]
                assert (found.usage.prompt_tokens_details.cached_tokens > 0) == (order > 0)
        chunks = list(client.chat.completions.create(**asked(1, questions[0], stream=True)))
        pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        assert "".join(pieces) == pipe(question=questions[0], text=texts[1], text_policy=policy)["answer"]
        assert (
            client.chat.completions.create(
                model="hybridctx-tiny", messages=[{"role": "user", "content": "Good day."}], max_tokens=3
            ).usage.completion_tokens
            <= 3
        )
        for way in ("none", "quote", "strings"):
            found = client.chat.completions.create(
                **asked(2, questions[1], extra_body={"hybridctx": {"grounding": way}})
            )
            expected = pipe(question=questions[1], text=texts[2], text_policy=policy, max_new_tokens=24, grounding=way)
            assert found.choices[0].message.content == expected["answer"]
            assert len(found.model_extra["hybridctx"]["quotations"]) == len(expected["quotations"])
