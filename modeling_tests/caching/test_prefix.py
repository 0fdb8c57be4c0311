# SPDX-License-Identifier: Apache-2.0
"""Prefixes: the same logits after them, in the memory of any cache of transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sample_questions import DOCUMENT, QUESTION, QUESTIONS, comparable
from tiny_models import IMAGE, make_inputs, make_model
from transformers import DynamicCache, QuantizedCache, StaticCache, pipeline

from transformers_hybridctx import (
    LongDocQAPipeline,
)
from transformers_hybridctx.caching.prefix import PrefixCache, common_length

# Prefixes


@pytest.mark.parametrize("towers", ["glm4v", "glm_ocr"])
@pytest.mark.parametrize("chunk_size", [None, 7])
def test_logits_after_a_prefix_are_those_of_the_whole_prompt(towers: str, chunk_size: int | None) -> None:
    model = make_model(towers)
    inputs = make_inputs([[5, (4, 4), (6, 2), 9, (2, 8), 11]])
    whole = model(**inputs).logits
    length = int((inputs["input_ids"][0] == IMAGE).nonzero()[-1]) + 3
    begins = {
        name: value[:, :length] if value.ndim == 2 and value.shape[0] == 1 else value for name, value in inputs.items()
    }
    prefix = PrefixCache.read(model, {**begins, "pixel_values": inputs["pixel_values"]}, chunk_size)
    assert len(prefix) == length
    positions, _ = model.model.get_rope_index(
        inputs["input_ids"], inputs["mm_token_type_ids"], image_grid_thw=inputs["image_grid_thw"]
    )
    rest = model(
        input_ids=inputs["input_ids"][:, length:],
        position_ids=positions[..., length:],
        past_key_values=prefix.past_key_values(),
    ).logits
    torch.testing.assert_close(rest, whole[:, length:], rtol=0, atol=1e-5)


def test_a_prefix_s_cache_is_what_a_dynamic_cache_is() -> None:
    states = torch.randn(2, 1, 2, 100, 4)
    prefix = PrefixCache(torch.arange(100), -1, None, ((states[0], states[1]),))
    ours = prefix.past_key_values()
    theirs = DynamicCache([(states[0].expand(3, -1, -1, -1), states[1].expand(3, -1, -1, -1))])
    assert ours.get_seq_length() == 100

    def grow(tokens: int, rows: int) -> None:
        new = torch.randn(2, rows, 2, tokens, 4)
        for found, expected in zip(ours.update(*new, 0), theirs.update(*new, 0)):
            assert torch.equal(found, expected)
        assert ours.get_seq_length() == theirs.get_seq_length()

    for tokens in (5, 1, 1, 300, 1):  # more than there is room for
        grow(tokens, 3)
    for cache in (ours, theirs):
        cache.reorder_cache(torch.tensor([2, 2, 0]))
    grow(1, 3)
    for cache in (ours, theirs):
        cache.crop(-3)
    grow(2, 3)
    for cache in (ours, theirs):
        cache.batch_select_indices(torch.tensor([1, 2]))
    grow(1, 2)
    for cache in (ours, theirs):
        cache.batch_repeat_interleave(2)
    grow(1, 4)
    ours.reset()
    assert ours.get_seq_length() == 100
    assert torch.equal(ours.update(*states[:, :, :, :1], 0)[0], torch.cat([states[0], states[0, :, :, :1]], dim=2))
    assert prefix.states[0][0].data_ptr() == states[0].data_ptr()  # and it is as it was
    assert torch.equal(prefix.states[0][0], states[0])


def test_a_cache_that_cannot_be_filled_is_refused(pipe: LongDocQAPipeline) -> None:
    prefix = pipe.read(DOCUMENT).prefix
    small = StaticCache(pipe.model.config, max_cache_len=len(prefix))
    with pytest.raises(
        ValueError, match=f"holds {len(prefix)} tokens at most, and the prefix alone has {len(prefix)}"
    ):
        prefix.past_key_values(into=small)
    used = prefix.past_key_values(into=DynamicCache())
    with pytest.raises(ValueError, match=f"already holds {len(prefix)} tokens"):
        prefix.past_key_values(into=used)


def test_pages_are_shared_all_or_none() -> None:
    prefix = PrefixCache(torch.tensor([7, 9, 9, 5, 6]), 9, None, ())
    assert prefix.shared_length([7, 9, 9, 5, 6, 8]) == 5
    assert prefix.shared_length([7, 9, 9, 8, 6, 8]) == 3
    assert prefix.shared_length([7, 9, 9, 5, 6]) == 4  # one is left to go on from
    assert prefix.shared_length([7, 9, 8, 5, 6, 8]) == 0
    assert common_length([[1, 2, 3], [1, 2], [1, 2, 4]]) == 2
    assert common_length([[1, 2], [3]]) == 0


# Caches of transformers


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("implementation", ["static", "dynamic"])
def test_any_exact_cache_implementation_gives_the_same_answers(
    pipe: LongDocQAPipeline, implementation: str, batch_size: int
) -> None:
    expected = [comparable(pipe(question=one, document=DOCUMENT, text_policy="anchors")) for one in QUESTIONS]
    for document in (DOCUMENT, pipe.read(DOCUMENT, text_policy="anchors")):
        found = pipe(
            question=QUESTIONS,
            document=document,
            text_policy="anchors",
            cache_implementation=implementation,
            batch_size=batch_size,
        )
        assert [comparable(answer) for answer in found] == expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="transformers offloads caches from CUDA devices only")
@pytest.mark.parametrize("implementation", ["offloaded", "offloaded_static"])
def test_offloaded_caches_give_the_same_answers(checkpoint: Path, implementation: str) -> None:
    pipe = pipeline("long-doc-qa", model=str(checkpoint), max_new_tokens=6, device="cuda")
    expected = [pipe(question=one, document=DOCUMENT)["answer"] for one in QUESTIONS]
    found = pipe(question=QUESTIONS, document=pipe.read(DOCUMENT), cache_implementation=implementation)
    assert [answer["answer"] for answer in found] == expected


def test_a_callers_own_cache_is_filled(pipe: LongDocQAPipeline) -> None:
    cache = pipe.read(DOCUMENT)
    expected = comparable(pipe(question=QUESTION, document=DOCUMENT))
    own = StaticCache(pipe.model.config, max_cache_len=expected["plan"].total_tokens + 6)
    found = pipe(question=QUESTION, document=cache, generate_kwargs={"past_key_values": own})
    assert comparable(found) == expected
    assert int(own.get_seq_length()) == found["plan"].total_tokens + found["usage"]["new_tokens"] - 1


def test_a_quantized_cache_holds_the_prefix_quantized(pipe: LongDocQAPipeline) -> None:
    cache = pipe.read(DOCUMENT, text_policy="anchors")
    own = QuantizedCache("fp8", pipe.model.config)
    found = pipe(question=QUESTION, document=cache, generate_kwargs={"past_key_values": own})
    layer = own.layers[0]
    kept = layer._dequantize(layer._quantized_keys)[:, :, : len(cache)]
    torch.testing.assert_close(kept, cache.prefix.states[0][0], rtol=0.1, atol=0.1)
    alike = pipe(
        question=QUESTION,
        document=DOCUMENT,
        text_policy="anchors",
        cache_implementation="quantized",
        cache_config={"backend": "fp8"},
    )
    assert found["usage"]["new_tokens"] == alike["usage"]["new_tokens"]
    assert (
        len(
            pipe(question=QUESTIONS, document=cache, cache_implementation="quantized", cache_config={"backend": "fp8"})
        )
        == 3
    )


def test_a_cache_is_used_whatever_use_cache_says(pipe: LongDocQAPipeline) -> None:
    cache = pipe.read(DOCUMENT)
    expected = comparable(pipe(question=QUESTION, document=DOCUMENT))
    assert comparable(pipe(question=QUESTION, document=cache, use_cache=False)) == expected
    with pytest.raises(ValueError, match="use_cache=False contradicts past_key_values"):
        pipe.model.generate(**cache.inputs(pipe.processor, QUESTION), use_cache=False)


def test_an_answer_ends_where_the_call_says(pipe: LongDocQAPipeline) -> None:
    said = pipe.model.generate(
        **pipe.processor(document=DOCUMENT, question=QUESTION, text_policy="anchors", return_tensors="pt"),
        max_new_tokens=6,
    )[0, -6:]
    ends = {"eos_token_id": int(said[1])}
    expected = [comparable(pipe(question=one, document=DOCUMENT, text_policy="anchors", **ends)) for one in QUESTIONS]
    assert expected[0]["usage"]["new_tokens"] == 2
    found = pipe(question=QUESTIONS, document=DOCUMENT, text_policy="anchors", batch_size=3, **ends)
    assert [comparable(answer) for answer in found] == expected


def test_drafted_tokens_change_no_answer(pipe: LongDocQAPipeline) -> None:
    text = "The best age is the age of pages. " * 30
    questions = ["The best age is the", "What is the best age?"]
    expected = [comparable(pipe(question=one, document=text)) for one in questions]
    found = pipe(question=questions, document=text, prompt_lookup_num_tokens=3)
    assert [comparable(answer) for answer in found] == expected
    with pytest.raises(ValueError, match=r"assisted generation .* cannot begin from past_key_values"):
        pipe(question=questions, document=pipe.read(text), prompt_lookup_num_tokens=3)


def test_an_unknown_cache_implementation_is_named(pipe: LongDocQAPipeline) -> None:
    with pytest.raises(ValueError, match=r"cannot be used: .*cache_implementation.* \(fast\)"):
        pipe(question=QUESTION, document=pipe.read(DOCUMENT), cache_implementation="fast")
    with pytest.raises(ValueError, match="cache_implementation='hybrid' is not one of"):
        pipe(question=QUESTION, document=pipe.read(DOCUMENT), cache_implementation="hybrid")
