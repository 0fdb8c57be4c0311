# SPDX-License-Identifier: Apache-2.0
"""Readings on disk: they answer alike, and are whole or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sample_questions import DOCUMENT, QUESTIONS, comparable
from transformers import pipeline

from transformers_hybridctx import (
    DocumentCache,
    HybridCtxProcessor,
    LongDocQAPipeline,
)
from transformers_hybridctx.caching.cache_files import read_cache_file, write_cache_file


@pytest.mark.parametrize("policy", ["anchors", {"name": "bm25", "top_k": 2}], ids=str)
def test_a_saved_cache_answers_alike(
    fresh_pipe: LongDocQAPipeline, policy: Any, checkpoint: Path, tmp_path: Path
) -> None:
    text = "\ud800 " + DOCUMENT + " שלום 你好"
    cache = fresh_pipe.read(text, text_policy=policy, budget={"max_context_tokens": 900})
    expected = [comparable(answer) for answer in fresh_pipe(question=QUESTIONS, document=cache)]
    path = cache.save(tmp_path / "read.safetensors")
    assert sorted(tmp_path.iterdir()) == [path]
    other = pipeline("long-doc-qa", model=str(checkpoint), max_new_tokens=6)
    loaded = DocumentCache.load(path)
    assert [comparable(answer) for answer in other(question=QUESTIONS, document=loaded)] == expected
    assert loaded.plan.document.text == text
    assert loaded.save(tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_another_render_config_or_tokenizer_is_refused(
    pipe: LongDocQAPipeline, processor: HybridCtxProcessor, tmp_path: Path
) -> None:
    path = pipe.read(DOCUMENT).save(tmp_path / "read.safetensors")
    larger = HybridCtxProcessor(
        processor.image_processor,
        processor.tokenizer,
        render_config={**processor.render_config.to_dict(), "font_size": 11},
    )
    with pytest.raises(ValueError, match=r"another render config \(font_size=10, here 11\)"):
        DocumentCache.load(path).attach(pipe.model, larger)
    template = HybridCtxProcessor(
        processor.image_processor,
        processor.tokenizer,
        render_config=processor.render_config,
        chat_template=processor.chat_template.replace("<|user|>", "<|system|>"),
    )
    with pytest.raises(ValueError, match="its tokenizer, chat template or image size differ"):
        DocumentCache.load(path).attach(pipe.model, template)
    with pytest.raises(ValueError, match="not laid out yet"):
        _ = DocumentCache.load(path).plan


def test_what_is_not_a_cache_is_refused(pipe: LongDocQAPipeline, tmp_path: Path) -> None:
    path = tmp_path / "read.safetensors"
    with pytest.raises(FileNotFoundError, match="no document cache at"):
        DocumentCache.load(path)
    for no_path in (5, None, b"read.safetensors"):
        with pytest.raises(TypeError, match="a document cache is read from a file's path, not from"):
            DocumentCache.load(no_path)
    for content in (b"", b"text", b"\0" * 64, b"\xff" * 64):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not a document cache, or a damaged one"):
            DocumentCache.load(path)
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="is not a document cache of this version: it states the format None"):
        DocumentCache.load(path)
    save_file({"weight": torch.zeros(2)}, path, metadata={"hybridctx": '{"format": "hybridctx document cache 1"}'})
    with pytest.raises(ValueError, match=r"states the format 'hybridctx document cache 1', not .* read the document"):
        DocumentCache.load(path)


def test_a_flipped_bit_anywhere_is_an_error_that_says_so(pipe: LongDocQAPipeline, tmp_path: Path) -> None:
    path = pipe.read("One. " * 9, text_policy="none").save(tmp_path / "read.safetensors")
    data = path.read_bytes()
    begin = int.from_bytes(data[:8], "little") + 8
    rng = np.random.default_rng(0)
    places = {*range(16), *range(16, begin, 5), *rng.integers(begin, len(data), 60).tolist(), len(data) - 1}
    for place in sorted(places):
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="not a document cache, or a damaged one"):
            DocumentCache.load(path)
    for length in {0, 7, 8, begin - 1, begin, (begin + len(data)) // 2, len(data) - 1}:
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match="not a document cache, or a damaged one"):
            DocumentCache.load(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(ValueError, match="not a document cache, or a damaged one"):
        DocumentCache.load(path)
    path.write_bytes(data)
    DocumentCache.load(path)


def test_a_text_that_looks_like_a_digest_is_none(pipe: LongDocQAPipeline, tmp_path: Path) -> None:
    system = f'"sha256": "{"0" * 64}"'
    cache = pipe.read(system, system=system)
    assert DocumentCache.load(cache.save(tmp_path / "read.safetensors"))._request.system == system


def test_a_file_of_another_make_says_what_it_lacks(pipe: LongDocQAPipeline, tmp_path: Path) -> None:
    header, tensors = read_cache_file(pipe.read("One. " * 9).save(tmp_path / "read.safetensors"))
    path = tmp_path / "other.safetensors"
    for name in header.keys() - {"format", "sha256"}:
        write_cache_file(path, {key: value for key, value in header.items() if key != name}, tensors)
        with pytest.raises(ValueError, match=f"has nothing as '{name}' in its header, .* read the document again"):
            DocumentCache.load(path)
        write_cache_file(path, {**header, name: 0.5}, tensors)
        with pytest.raises(ValueError, match=f"has 0.5 as '{name}' in its header"):
            DocumentCache.load(path)
    for name in ("input_ids", "fingerprint", "values.1"):
        write_cache_file(path, header, {key: tensor for key, tensor in tensors.items() if key != name})
        with pytest.raises(ValueError, match=f"lacks {name}; read the document again"):
            DocumentCache.load(path)


def test_what_cannot_be_written_down_is_named(pipe: LongDocQAPipeline, tmp_path: Path) -> None:
    cache = pipe.read("One. " * 9, chat_template_kwargs={"tool": b"bytes"})
    with pytest.raises(ValueError, match="cannot be saved: Object of type bytes is not JSON"):
        cache.save(tmp_path / "read.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_save_that_fails_leaves_the_old_file(
    pipe: LongDocQAPipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache = pipe.read(DOCUMENT)
    path = cache.save(tmp_path / "read.safetensors")
    before = load_file(path)

    def fail(tensors: Any, file: Path, **kwargs: Any) -> None:
        Path(file).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("transformers_hybridctx.caching.cache_files.save_file", fail)
    with pytest.raises(OSError, match="No space left"):
        cache.save(path)
    assert list(tmp_path.iterdir()) == [path]
    assert load_file(path).keys() == before.keys()
