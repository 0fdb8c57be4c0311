# SPDX-License-Identifier: Apache-2.0
"""Threads share a pipeline, its readings and its model: answers are those of one thread."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from sample_questions import DOCUMENT, QUESTION, QUESTIONS, comparable

from transformers_hybridctx import DocumentCache, LongDocQAPipeline

THREADS = 6
POLICIES: list[Any] = [
    "none",
    "anchors",
    {"name": "bm25", "top_k": 1},
    {"name": "attention", "passage_chars": 60, "top_k": 2},
]


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def at_once(jobs: list[Callable[[], Any]]) -> list[Any]:
    """Results of jobs that all begin at the same time, each in its own thread."""
    barrier = Barrier(len(jobs))

    def run(job: Callable[[], Any]) -> Any:
        barrier.wait()
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(run, jobs))


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.usefixtures("hasty")
def test_answers_are_those_of_one_thread(pipe: LongDocQAPipeline, policy: Any, tmp_path: Path) -> None:
    cache = pipe.read(DOCUMENT, text_policy=policy)
    path = cache.save(tmp_path / "read.safetensors")
    expected = [comparable(pipe(question=one, document=DOCUMENT, text_policy=policy)) for one in QUESTIONS]
    loaded = DocumentCache.load(path)  # laid out by the first thread that uses it
    jobs: list[Callable[[], Any]] = [
        lambda one=question, document=document: pipe(question=one, document=document, text_policy=policy)
        for document in (cache, loaded, DOCUMENT)
        for question in QUESTIONS[:2]
    ]
    assert len(jobs) == THREADS
    found = at_once(jobs)
    assert [comparable(answer) for answer in found] == expected[:2] * 3
    together = at_once([lambda: pipe(question=QUESTIONS, document=cache, batch_size=2, text_policy=policy)] * 2)
    assert [[comparable(answer) for answer in answers] for answers in together] == [expected] * 2


@pytest.mark.usefixtures("hasty")
def test_different_requests_at_once_do_not_mix(pipe: LongDocQAPipeline) -> None:
    """Long and short, with pages and without, ranked by attention and not, with beams: each its own positions."""
    requests: list[dict[str, Any]] = [
        {"document": DOCUMENT, "text_policy": POLICIES[3]},
        {"document": "The code is 7. " * 90, "text_policy": "none"},
        {"document": DOCUMENT, "budget": {"visual_share": 0.0}, "text_policy": "full"},
        {"document": DOCUMENT, "text_policy": "anchors", "num_beams": 2},
        {"document": DOCUMENT, "text_policy": POLICIES[3], "max_new_tokens": 3},
        {"document": "A short one.", "fusion_order": "tokens_first"},
    ]
    expected = [comparable(pipe(question=QUESTION, **request)) for request in requests]
    found = at_once([lambda request=request: pipe(question=QUESTION, **request) for request in requests])
    assert [comparable(answer) for answer in found] == expected


@pytest.mark.usefixtures("hasty")
def test_a_request_that_fails_leaves_the_model_as_it_was(
    pipe: LongDocQAPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = pipe.read(DOCUMENT, text_policy=POLICIES[3])
    expected = comparable(pipe(question=QUESTION, document=cache))
    config = pipe.model.config.text_config

    def fail(*args: Any, **kwargs: Any) -> None:
        raise MemoryError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(pipe.model.lm_head, "forward", fail)
        for document in (cache, DOCUMENT):
            with pytest.raises(MemoryError):
                pipe(question=QUESTION, document=document, text_policy=POLICIES[3])
    assert config._attn_implementation == "sdpa"
    found = at_once([lambda: pipe(question=QUESTION, document=cache)] * 2)
    assert [comparable(answer) for answer in found] == [expected] * 2


@pytest.mark.usefixtures("hasty")
def test_the_model_s_attention_is_never_switched(pipe: LongDocQAPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever calls the model without a pipeline must not meet another implementation than the config names."""
    cache = pipe.read(DOCUMENT, text_policy=POLICIES[3])
    seen: list[str] = []
    tower = pipe.model.model.language_model
    forward = tower.forward

    def watching(*args: Any, **kwargs: Any) -> Any:
        seen.append(tower.config._attn_implementation)
        return forward(*args, **kwargs)

    monkeypatch.setattr(tower, "forward", watching)
    pipe(question=QUESTION, document=cache)
    assert set(seen) == {"sdpa"}
