# SPDX-License-Identifier: Apache-2.0
"""A reading under `auto` settles once whether the document has pages; its answers are those without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from transformers_hybridctx import DocumentCache, LongDocQAPipeline

SHORT = "The code of room 7 is 4821930."
LONG = "It was the best of times, it was the worst of times. " * 40
AUTO = {"name": "auto", "beside": {"name": "bm25", "top_k": 2}}
DENSE = {"min_scale": 0.5, "max_scale": 0.5, "max_text_tokens": 100}


@pytest.mark.parametrize(("text", "has_pages"), [(SHORT, False), (LONG, True)])
@pytest.mark.parametrize("policy", ["auto", AUTO])
def test_a_reading_under_auto(
    pipe: LongDocQAPipeline, tmp_path: Path, text: str, has_pages: bool, policy: str | dict[str, Any]
) -> None:
    asked: dict[str, Any] = {"question": "What is the code of room 7?", "max_new_tokens": 4}
    read = pipe.read(text=text, text_policy=policy, budget=DENSE)
    assert bool(read.plan.num_pages) == has_pages
    without = pipe(**asked, text=text, text_policy=policy, budget=DENSE)
    for reading in (read, DocumentCache.load(read.save(tmp_path / "read.safetensors"))):
        for again in ({}, {"text_policy": policy}):
            found = pipe(**asked, document=reading, **again)
            assert (found["answer"], found["plan"].policy) == (without["answer"], without["plan"].policy)
            assert found["usage"]["prompt_tokens"] == without["usage"]["prompt_tokens"]
