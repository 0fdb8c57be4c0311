# SPDX-License-Identifier: Apache-2.0
"""A document read once: the same answers as without, in any cache, from a file, and never with another checkpoint."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from sample_questions import DOCUMENT, QUESTION, QUESTIONS, comparable
from tiny_checkpoints import converted, load_in_four_bits
from tiny_models import IMAGE, make_inputs, make_model
from transformers import DynamicCache, PreTrainedTokenizerFast, QuantizedCache, StaticCache, pipeline

from transformers_hybridctx import (
    ContextBudgetError,
    DocumentCache,
    HybridCtxForCausalLM,
    HybridCtxProcessor,
    LongDocQAPipeline,
)
from transformers_hybridctx.caching.document_cache import checkpoint_checksum
from transformers_hybridctx.caching.prefix import PrefixCache, common_length


@pytest.fixture(scope="module")
def pipe(checkpoint: Path) -> LongDocQAPipeline:
    return pipeline("long-doc-qa", model=str(checkpoint), max_new_tokens=6)


@pytest.fixture
def fresh_pipe(checkpoint: Path) -> LongDocQAPipeline:
    """A pipeline of its own, to be changed."""
    return pipeline("long-doc-qa", model=str(checkpoint), max_new_tokens=6)


def alone(features: dict[str, Any], row: int = 0) -> dict[str, Any]:
    """The first pages' features, as one prompt."""
    return {name: value[row : row + 1] if name != "image_grid_thw" else value for name, value in features.items()}


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


# The same answers


@pytest.mark.parametrize(
    "options",
    [
        {"text_policy": "none"},
        {"text_policy": "anchors"},
        {"text_policy": "full"},
        {"text_policy": {"name": "bm25", "top_k": 1}},
        {"text_policy": "anchors", "fusion_order": "tokens_first"},
        {"text_policy": "full", "budget": {"visual_share": 0.0}},
        {"text_policy": "bm25", "budget": {"max_context_tokens": 420}},
    ],
    ids=str,
)
def test_answers_are_those_without_a_cache(pipe: LongDocQAPipeline, options: dict[str, Any]) -> None:
    cache = pipe.read(DOCUMENT, **options)
    expected = [comparable(pipe(question=one, document=DOCUMENT, **options)) for one in QUESTIONS]
    if "budget" in options and "max_context_tokens" in options["budget"]:
        scale = {"min_scale": cache.plan.scale, "max_scale": cache.plan.scale}
        expected = [
            comparable(
                pipe(question=one, document=DOCUMENT, text_policy="bm25", budget={**options["budget"], **scale})
            )
            for one in QUESTIONS
        ]
    for batch_size in (1, 2):
        found = pipe(question=QUESTIONS, document=cache, batch_size=batch_size)
        assert [comparable(answer) for answer in found] == expected
    assert comparable(pipe(question=QUESTIONS[1], document=cache)) == expected[1]


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("generate", [{"num_beams": 3}, {"num_beams": 2, "num_return_sequences": 2}, {}], ids=str)
def test_many_questions_are_answered_as_each_alone(
    pipe: LongDocQAPipeline, generate: dict[str, Any], batch_size: int
) -> None:
    expected = [
        comparable(pipe(question=one, document=DOCUMENT, text_policy="anchors", **generate)) for one in QUESTIONS
    ]
    cache = pipe.read(DOCUMENT, text_policy="anchors")
    for document in (DOCUMENT, cache):
        found = pipe(question=QUESTIONS, document=document, text_policy="anchors", batch_size=batch_size, **generate)
        assert [comparable(answer) for answer in found] == expected


def test_questions_that_share_no_prefix_still_share_the_pages(
    pipe: LongDocQAPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spans for each question stand before the pages."""
    options: dict[str, Any] = {"text_policy": {"name": "bm25", "top_k": 1}, "fusion_order": "tokens_first"}
    expected = [comparable(pipe(question=one, document=DOCUMENT, **options)) for one in QUESTIONS]
    readings: list[int] = []
    read = pipe.model.get_image_features
    monkeypatch.setattr(
        pipe.model, "get_image_features", lambda *args, **kwargs: readings.append(1) or read(*args, **kwargs)
    )
    found = pipe(question=QUESTIONS, document=DOCUMENT, batch_size=2, **options)
    assert [comparable(answer) for answer in found] == expected
    assert len(readings) == 1


def test_a_question_costs_only_its_own_tokens(pipe: LongDocQAPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = pipe.read(DOCUMENT, text_policy="anchors")
    seen: list[int] = []
    forward = pipe.model.model.language_model.forward

    def counting(*args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs["inputs_embeds"].shape[1])
        return forward(*args, **kwargs)

    monkeypatch.setattr(pipe.model.model.language_model, "forward", counting)
    monkeypatch.setattr(
        pipe.model.model, "get_image_features", lambda *_, **__: pytest.fail("the pages were read again")
    )
    answer = pipe(question=QUESTION, document=cache)
    plan = answer["plan"]
    assert seen[0] == plan.total_tokens - len(cache) < 60
    assert set(seen[1:]) == {1}
    assert plan.visual_tokens + plan.text_tokens <= len(cache) == cache.plan.prefix_tokens


def test_generate_takes_a_cache_by_itself(pipe: LongDocQAPipeline) -> None:
    processor, model = pipe.processor, pipe.model
    cache = DocumentCache.read(model, processor, DOCUMENT, text_policy="anchors")
    expected = model.generate(
        **processor(document=DOCUMENT, question=QUESTION, text_policy="anchors", return_tensors="pt"), max_new_tokens=6
    )
    # another prompt in between must leave no trace
    model.generate(**processor(document="Another one. " * 40, question="Why?", return_tensors="pt"), max_new_tokens=2)
    found = model.generate(**cache.inputs(processor, QUESTION), max_new_tokens=6)
    assert torch.equal(found, expected)
    both = model.generate(**cache.inputs(processor, QUESTIONS[:2]), max_new_tokens=6)
    assert torch.equal(both[0, -6:], expected[0, -6:])


def test_answers_do_not_depend_on_what_was_asked_before(pipe: LongDocQAPipeline) -> None:
    cache = pipe.read(DOCUMENT)
    first = comparable(pipe(question=QUESTION, document=cache))
    pipe(question=QUESTIONS, document=cache, batch_size=2)
    pipe(question="Something else?", document="Another document. " * 30)
    assert comparable(pipe(question=QUESTION, document=cache)) == first


def test_text_alone_after_pages_has_its_own_positions(pipe: LongDocQAPipeline) -> None:
    budget = {"visual_share": 0.0}
    expected = comparable(pipe(question=QUESTION, document=DOCUMENT, budget=budget, text_policy="full"))
    cache = pipe.read(DOCUMENT, budget=budget, text_policy="full")
    pipe(question=QUESTION, document=DOCUMENT)  # its pages move later positions
    assert comparable(pipe(question=QUESTION, document=cache)) == expected


def test_reading_in_chunks_gives_the_same_answers(pipe: LongDocQAPipeline) -> None:
    cache = pipe.read(DOCUMENT, prefill_chunk_size=50)
    for (keys, values), (expected_keys, expected_values) in zip(
        cache.prefix.states, pipe.read(DOCUMENT).prefix.states
    ):
        torch.testing.assert_close(keys, expected_keys, rtol=0, atol=1e-5)
        torch.testing.assert_close(values, expected_values, rtol=0, atol=1e-5)
    expected = comparable(pipe(question=QUESTION, document=DOCUMENT))
    assert comparable(pipe(question=QUESTION, document=cache)) == expected
    assert comparable(pipe(question=QUESTION, document=cache, prefill_chunk_size=5)) == expected


def test_scans_are_read_once_too(pipe: LongDocQAPipeline, tmp_path: Path) -> None:
    pages = [np.random.default_rng(seed).integers(0, 256, (168, 140), dtype=np.uint8) for seed in range(3)]
    cache = pipe.read(pages)
    expected = comparable(pipe(question=QUESTION, document=pages))
    assert pipe(question=QUESTION, document=cache)["answer"] == expected["answer"]
    loaded = DocumentCache.load(cache.save(tmp_path / "scan.safetensors"))
    assert comparable(pipe(question=QUESTION, document=loaded)) == expected


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
    with pytest.raises(ValueError, match="cache_implementation='fast' is not one of"):
        pipe(question=QUESTION, document=pipe.read(DOCUMENT), cache_implementation="fast")


# Files


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


def change_a_weight(pipe: LongDocQAPipeline) -> None:
    with torch.no_grad():
        pipe.model.model.language_model.layers[1].mlp.down_proj.weight[0, 0] += 1e-3


def change_the_type(pipe: LongDocQAPipeline) -> None:
    pipe.model.double()


def change_a_setting(pipe: LongDocQAPipeline) -> None:
    pipe.model.config.text_config.rms_norm_eps = 1e-3


def add_an_adapter(pipe: LongDocQAPipeline) -> None:
    pipe.model = get_peft_model(pipe.model, LoraConfig(target_modules="all-linear"))


@pytest.mark.parametrize("change", [change_a_weight, change_the_type, change_a_setting, add_an_adapter])
@pytest.mark.parametrize("from_file", [False, True])
def test_another_checkpoint_is_refused(
    fresh_pipe: LongDocQAPipeline, change: Any, from_file: bool, tmp_path: Path
) -> None:
    cache = fresh_pipe.read(DOCUMENT)
    if from_file:
        cache = DocumentCache.load(cache.save(tmp_path / "read.safetensors"))
    change(fresh_pipe)
    with pytest.raises(ValueError, match=r"made by another checkpoint .* read the document again"):
        fresh_pipe(question=QUESTION, document=cache)


def test_a_four_bit_checkpoint_keeps_its_own_cache(
    tokenizer: PreTrainedTokenizerFast, render_config: dict[str, Any], tmp_path: Path
) -> None:
    folder = converted(tmp_path, tokenizer, render_config)
    processor = HybridCtxProcessor.from_pretrained(folder)
    pipes = [LongDocQAPipeline(load_in_four_bits(folder), processor, max_new_tokens=4) for _ in range(2)]
    path = pipes[0].read(DOCUMENT, text_policy="anchors").save(tmp_path / "read.safetensors")
    expected = comparable(pipes[0](question=QUESTION, document=DOCUMENT, text_policy="anchors"))
    assert comparable(pipes[1](question=QUESTION, document=DocumentCache.load(path))) == expected
    full = LongDocQAPipeline(HybridCtxForCausalLM.from_pretrained(folder), processor)
    with pytest.raises(ValueError, match="made by another checkpoint"):
        full(question=QUESTION, document=DocumentCache.load(path))


def test_the_checksum_is_that_of_the_weights_not_of_the_object(checkpoint: Path) -> None:
    one, other = (HybridCtxForCausalLM.from_pretrained(checkpoint) for _ in range(2))
    assert checkpoint_checksum(one) == checkpoint_checksum(other) == checkpoint_checksum(copy.deepcopy(one))
    other.config._name_or_path = "elsewhere"
    assert checkpoint_checksum(one) == checkpoint_checksum(other)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    other.lm_head.weight.grad = torch.ones_like(other.lm_head.weight)
    optimizer.step()
    assert checkpoint_checksum(one) != checkpoint_checksum(other)


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
    path.write_text("text")
    with pytest.raises(ValueError, match="not a safetensors file, or a damaged one"):
        DocumentCache.load(path)
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="is not a document cache of this version: it states the format None"):
        DocumentCache.load(path)
    pipe.read(DOCUMENT).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="damaged one"):
        DocumentCache.load(path)


def test_a_save_that_fails_leaves_the_old_file(
    pipe: LongDocQAPipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache = pipe.read(DOCUMENT)
    path = cache.save(tmp_path / "read.safetensors")
    before = load_file(path)

    def fail(tensors: Any, file: Path, **kwargs: Any) -> None:
        Path(file).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("transformers_hybridctx.caching.document_cache.save_file", fail)
    with pytest.raises(OSError, match="No space left"):
        cache.save(path)
    assert list(tmp_path.iterdir()) == [path]
    assert load_file(path).keys() == before.keys()


# Requests


def test_a_question_longer_than_what_is_left_is_refused(pipe: LongDocQAPipeline) -> None:
    cache = pipe.read(DOCUMENT, budget={"max_context_tokens": 700}, text_policy="anchors", question_tokens=40)
    with pytest.raises(ContextBudgetError) as error:
        pipe(question="why " * 400, document=cache)
    assert error.value.smallest > 700
    plan = pipe(question="why " * 400, document=cache, budget={"max_context_tokens": error.value.smallest})["plan"]
    assert plan.total_tokens == error.value.smallest
    assert plan.spans == cache.plan.spans


def test_a_budget_that_leaves_no_room_for_a_question_is_refused_before_reading(pipe: LongDocQAPipeline) -> None:
    with pytest.raises(ContextBudgetError, match="with question_tokens=50 kept free") as error:
        pipe.read(DOCUMENT, budget={"max_context_tokens": 60}, text_policy="none", question_tokens=50)
    budget = {"max_context_tokens": error.value.smallest}
    assert len(pipe.read(DOCUMENT, budget=budget, text_policy="none", question_tokens=50))
    with pytest.raises(ValueError, match="question_tokens=0 leaves no room"):
        pipe.read(DOCUMENT, question_tokens=0)


@pytest.mark.parametrize("options", [{"budget": {"visual_share": 0.0}}, {"fusion_order": "tokens_first"}], ids=str)
def test_what_leaves_nothing_to_read_ahead_is_refused(pipe: LongDocQAPipeline, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="leaves nothing to read before the question is known"):
        pipe.read(DOCUMENT, text_policy="bm25", **options)


def test_the_scale_is_that_of_the_reading(pipe: LongDocQAPipeline) -> None:
    cache = pipe.read(DOCUMENT, budget={"max_scale": 0.8})
    with pytest.raises(ValueError, match=r"was read at scale 0\.8, which is not within min_scale=0\.9"):
        pipe(question=QUESTION, document=cache, budget={"min_scale": 0.9, "max_scale": 1.0})
    assert pipe(question=QUESTION, document=cache, budget={"max_context_tokens": 2000})["plan"].scale == 0.8


def test_another_policy_for_a_question_reuses_the_pages(pipe: LongDocQAPipeline) -> None:
    cache = pipe.read(DOCUMENT, text_policy="none")
    for policy in ("bm25", "anchors", "tail"):
        expected = comparable(pipe(question=QUESTION, document=DOCUMENT, text_policy=policy))
        assert comparable(pipe(question=QUESTION, document=cache, text_policy=policy)) == expected
    with pytest.raises(ValueError, match=re.escape("puts something else before the pages than was read")):
        pipe(question=QUESTION, document=cache, budget={"visual_share": 0.0}, text_policy="full")


def test_weights_that_are_not_numbers_are_named(fresh_pipe: LongDocQAPipeline) -> None:
    with torch.no_grad():
        fresh_pipe.model.model.language_model.layers[0].self_attn.k_proj.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="layer 0 gives keys and values that are not finite"):
        fresh_pipe.read(DOCUMENT)
    with pytest.raises(ValueError, match="the model computes NaN"):
        fresh_pipe(question=QUESTION, document=DOCUMENT)
