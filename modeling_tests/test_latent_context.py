# SPDX-License-Identifier: Apache-2.0
"""Latents from a document to an answer: prompts as planned, readings that are kept, three channels at once."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_questions import DOCUMENT, QUESTIONS, comparable
from tiny_checkpoints import FOUR_BIT_TEXT, TEXT_TOWER, VISION_TOWER, load_in_four_bits
from tiny_models import latent_inputs, latent_options, make_model
from transformers import AutoProcessor, PreTrainedTokenizerFast, pipeline

from transformers_hybridctx import (
    ContextBudget,
    ContextBudgetError,
    DocumentCache,
    HybridCtxConfig,
    HybridCtxForCausalLM,
    HybridCtxImageProcessor,
    HybridCtxProcessor,
    LongDocQAPipeline,
    evaluation,
)
from transformers_hybridctx.conversion.convert import convert_checkpoint
from transformers_hybridctx.conversion.export import export_checkpoint
from transformers_hybridctx.conversion.tensor_files import CheckpointError
from transformers_hybridctx.evaluation.contexts import Context, make_contexts
from transformers_hybridctx.evaluation.records import read_records
from transformers_hybridctx.evaluation.samples import Sample
from transformers_hybridctx.evaluation.suites.registry import make_suite
from transformers_hybridctx.planning.policies.registry import resolve_text_policy
from transformers_hybridctx.planning.sentences import sentence_starts
from transformers_hybridctx.serving.engine_prompts import EnginePrompt
from transformers_hybridctx.training.objectives import ExampleMaker
from transformers_hybridctx.training.records import TrainingRecord, TrainingTurn

TOKEN = "<|latent|>"
LATENTS = {"num_latent_tokens": 4, "chunk_tokens": 90, "overlap_tokens": 20}
TEXT = " ".join([DOCUMENT] * 5)
# so small that not all pages fit, and half of it for latents
TIGHT = {"max_context_tokens": 540, "latent_share": 0.5, "min_scale": 1}


@pytest.fixture(scope="module")
def processor(
    tokenizer: PreTrainedTokenizerFast, image_processor: HybridCtxImageProcessor, render_config: dict[str, Any]
) -> HybridCtxProcessor:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_tokens([TOKEN], special_tokens=True)
    return HybridCtxProcessor(image_processor, tokenizer, render_config=render_config, latents=LATENTS)


@pytest.fixture(scope="module")
def folder(processor: HybridCtxProcessor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    ids = processor.tokenizer.convert_tokens_to_ids
    vocab = {"vocab_size": len(processor.tokenizer), "initializer_range": 0.5, "pad_token_id": 0, "eos_token_id": 0}
    encoder = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = HybridCtxConfig(
        text_config={**TEXT_TOWER, **vocab},
        vision_config={**VISION_TOWER, "image_size": 168, "initializer_range": 0.5},
        latent_config={"model_type": "qwen2", "num_key_value_heads": 2, **encoder, **vocab},
        num_latent_tokens=LATENTS["num_latent_tokens"],
        latent_token_id=ids(TOKEN),
        image_token_id=ids("<|image|>"),
        image_start_token_id=ids("<|begin_of_image|>"),
        image_end_token_id=ids("<|end_of_image|>"),
        pad_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("latents")
    HybridCtxForCausalLM(config).save_pretrained(path)
    processor.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def pipe(folder: Path) -> LongDocQAPipeline:
    # in double precision: what batches and readings change by rounding stays far below what is compared to
    return pipeline("long-doc-qa", model=str(folder), max_new_tokens=6, dtype=torch.float64)


# prompts


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    limit=st.integers(150, 900),
    latent_share=st.sampled_from([0.2, 0.5, 1.0]),
    visual_share=st.sampled_from([None, 0, 0.4]),
    policy=st.sampled_from(["none", "anchors", "bm25", "tail"]),
    sizes=st.tuples(st.integers(1, 13), st.integers(17, 130), st.integers(0, 8)),
    order=st.sampled_from(["pages_first", "tokens_first"]),
)
def test_prompts_are_as_long_as_planned(
    processor: HybridCtxProcessor,
    limit: int,
    latent_share: float,
    visual_share: float | None,
    policy: str,
    sizes: tuple[int, int, int],
    order: Any,
) -> None:
    num, chunk, overlap = sizes
    own = HybridCtxProcessor(
        processor.image_processor,
        processor.tokenizer,
        render_config=processor.render_config,
        latents={"num_latent_tokens": num, "chunk_tokens": chunk, "overlap_tokens": overlap},
    )
    budget = {"max_context_tokens": limit, "latent_share": latent_share, "visual_share": visual_share}
    request = {"document": DOCUMENT, "question": QUESTIONS[0], "budget": budget, "text_policy": policy}
    try:
        features, plan = own(**request, fusion_order=order, return_plan=True)
    except ContextBudgetError as error:
        assert error.smallest > limit
        budget["max_context_tokens"] = error.smallest
        features, plan = own(**request, fusion_order=order, return_plan=True)
        assert len(features["input_ids"][0]) <= error.smallest
    ids = features["input_ids"][0]
    assert len(ids) == plan.total_tokens <= budget["max_context_tokens"]
    assert ids.count(own.image_token_id) == plan.visual_tokens
    assert ids.count(own.latent_token_id) == num * len(plan.latents)
    assert len(features.get("image_grid_thw", ())) == plan.num_pages
    assert len(features.get("latent_input_ids", ())) == len(plan.latents)
    assert all(sum(mask) <= chunk for mask in features.get("latent_attention_mask", ()))


def test_a_prompt_shows_each_channel_in_its_place(processor: HybridCtxProcessor) -> None:
    features, plan = processor(
        document=TEXT, question=QUESTIONS[0], budget=TIGHT, text_policy="bm25", return_plan=True
    )
    assert plan.latents and plan.num_pages and plan.spans and plan.omitted_characters == 0
    shown = processor.tokenizer.decode(features["input_ids"][0]).replace(TOKEN * 4, "LATENTS")
    while "<|image|><|image|>" in shown:
        shown = shown.replace("<|image|><|image|>", "<|image|>")
    first, pages = plan.first_page + 1, plan.document.num_pages
    label = f"[page {first}]" if first == pages else f"[pages {first}-{pages}]"
    begin = shown.index("[page")
    assert shown[begin:].startswith(("[pages 1-", "[page 1] LATENTS\n"))
    assert (
        shown.index("LATENTS\n") < shown.index(f"{label}\n<|begin_of_image|>") < shown.rindex("<|end_of_image|>[page ")
    )
    assert shown.count("<|image|>") == plan.num_pages == pages - plan.first_page
    assert shown.count("LATENTS") == len(plan.latents)
    for chunk, ids, mask in zip(
        plan.latents, features["latent_input_ids"], features["latent_attention_mask"], strict=True
    ):
        text = processor.tokenizer.decode(ids[: sum(mask)])
        assert text == TEXT[chunk.start : chunk.end] and chunk.start in sentence_starts(TEXT)
    summary = plan.summary()
    assert f"latents      {len(plan.latents)} chunks, the first {plan.latents[-1].end:,} " in summary


def test_pages_that_are_drawn_are_those_that_the_prompt_shows(processor: HybridCtxProcessor) -> None:
    tight = processor.plan(document=TEXT, question=QUESTIONS[0], budget=TIGHT, text_policy="none")
    scales = {"min_scale": tight.scale, "max_scale": tight.scale}
    whole = processor.plan(document=TEXT, question=QUESTIONS[0], budget=scales, text_policy="none")
    shown, every = (processor.draw_pages(plan, return_tensors="pt") for plan in (tight, whole))
    patches = int(shown["image_grid_thw"].prod(-1).sum())
    assert 0 < patches < len(every["pixel_values"])
    assert torch.equal(shown["pixel_values"], every["pixel_values"][-patches:])


def test_several_documents_of_a_chat_have_their_own_latents(processor: HybridCtxProcessor) -> None:
    other = "The lamp is green. " * 200
    parts = [{"type": "document", "text": text} for text in (TEXT, other)]
    messages = [{"role": "user", "content": [*parts, {"type": "text", "text": "What is green?"}]}]
    features, plans = processor.apply_chat_template(
        messages,
        budget={**TIGHT, "max_context_tokens": 1100},
        text_policy="none",
        tokenize=True,
        return_dict=True,
        return_plan=True,
    )
    assert all(plan.latents for plan in plans)
    assert [plan.total_tokens for plan in plans] == [len(features["input_ids"][0])] * 2
    assert len(features["latent_input_ids"]) == sum(len(plan.latents) for plan in plans)
    assert features["input_ids"][0].count(processor.latent_token_id) == 4 * len(features["latent_input_ids"])


def test_settings_are_saved(folder: Path, processor: HybridCtxProcessor) -> None:
    again = AutoProcessor.from_pretrained(folder)
    assert again.latents == processor.latents and again.latent_token_id == processor.latent_token_id
    request = {"document": DOCUMENT, "question": QUESTIONS[0], "budget": TIGHT}
    assert again.plan(**request) == processor.plan(**request)


def test_a_tokenizer_without_the_token_is_refused(
    tokenizer: PreTrainedTokenizerFast, image_processor: HybridCtxImageProcessor
) -> None:
    with pytest.raises(ValueError, match=r"the tokenizer has no '<\|latent\|>' token"):
        HybridCtxProcessor(image_processor, tokenizer, latents=LATENTS)


def test_a_checkpoint_with_latents_is_written_in_other_forms_but_not_as_one_without(
    folder: Path, tmp_path: Path
) -> None:
    convert_checkpoint(str(folder), tmp_path / "again", dtype="float32")
    weights = HybridCtxForCausalLM.from_pretrained(folder).state_dict()
    again = HybridCtxForCausalLM.from_pretrained(tmp_path / "again").state_dict()
    assert weights.keys() == again.keys()
    assert all(torch.equal(again[name], weight) for name, weight in weights.items())
    assert AutoProcessor.from_pretrained(tmp_path / "again").latents == AutoProcessor.from_pretrained(folder).latents
    with pytest.raises(CheckpointError, match="has a latent encoder, which GLM-4V has no place for"):
        export_checkpoint(str(folder), tmp_path / "glm4v")


def test_only_the_decoder_takes_four_bits(tmp_path: Path) -> None:
    model = make_model(**latent_options())
    fields = {"text_config": {**model.config.text_config.to_dict(), **FOUR_BIT_TEXT}}
    vision = {**model.config.vision_config.to_dict(), "out_hidden_size": FOUR_BIT_TEXT["hidden_size"]}
    latent = {**latent_options()["latent_config"], "hidden_size": 64}
    config = HybridCtxConfig.from_dict(
        {**model.config.to_dict(), **fields, "vision_config": vision, "latent_config": latent}
    )
    HybridCtxForCausalLM(config).save_pretrained(tmp_path)
    loaded = load_in_four_bits(tmp_path)
    assert {parameter.dtype for parameter in loaded.model.latent.parameters()} == {torch.float32}
    assert torch.uint8 in {parameter.dtype for parameter in loaded.model.language_model.parameters()}
    with torch.no_grad():
        assert loaded(**latent_inputs([["c9", 2, "c5", 4]])).logits.isfinite().all()


def test_engines_and_training_refuse_what_they_would_lose(processor: HybridCtxProcessor) -> None:
    for budget in (TIGHT, {"visual_share": 0, "latent_share": 1}):
        with pytest.raises(ValueError, match="which an engine has no input for: leave latent_share out"):
            EnginePrompt.of(processor, TEXT, QUESTIONS[0], budget=budget, text_policy="none")
    maker = ExampleMaker(processor, ContextBudget.of(TIGHT), resolve_text_policy("none"), 600, 0, (6, 8))
    record = TrainingRecord(context=TEXT, turns=(TrainingTurn(QUESTIONS[0], "4821930"),))
    with pytest.raises(ValueError, match="with which no examples are made yet: leave latent_share out"):
        maker.answer(record, Random(0), None, "both")


# answers


@pytest.mark.parametrize(
    "options",
    [
        {"text_policy": "none", "budget": TIGHT},
        {"text_policy": "anchors", "budget": {**TIGHT, "max_context_tokens": 600}},
        {"text_policy": {"name": "bm25", "top_k": 1}, "budget": TIGHT},
        {"text_policy": {"name": "bm25", "top_k": 1}, "budget": {"visual_share": 0, "latent_share": 1}},
    ],
    ids=str,
)
def test_a_reading_with_latents_answers_as_without(
    pipe: LongDocQAPipeline, options: dict[str, Any], tmp_path: Path
) -> None:
    cache = pipe.read(TEXT, question_tokens=70, **options)
    assert cache.plan.latents
    pinned = {"min_scale": cache.plan.scale, "max_scale": cache.plan.scale, "latent_chunks": len(cache.plan.latents)}
    own = {**options, "budget": {**options["budget"], **pinned}}
    if options["text_policy"] == "anchors":  # spans as they were read, with less room
        own["budget"]["max_text_tokens"] = cache.plan.text_tokens
    calls: list[int] = []
    hook = pipe.model.model.latent.register_forward_pre_hook(lambda *_: calls.append(1))
    expected = [comparable(pipe(question=one, document=TEXT, **own)) for one in QUESTIONS]
    assert len(calls) == len(QUESTIONS)
    assert [comparable(one) for one in pipe(question=QUESTIONS, document=TEXT, batch_size=2, **own)] == expected
    assert len(calls) == len(QUESTIONS) + 1, "questions that share their latents have them made once"
    loaded = DocumentCache.load(cache.save(tmp_path / "read.safetensors"))
    del calls[:]
    for document in (cache, loaded):
        found = pipe(question=QUESTIONS, document=document, batch_size=2)
        assert [comparable(one) for one in found] == expected
    hook.remove()
    assert expected[0]["usage"]["latent_tokens"] == cache.plan.latent_tokens


def test_other_latents_are_another_answer(pipe: LongDocQAPipeline) -> None:
    options = {"question": QUESTIONS[0], "text_policy": "none", "budget": {"visual_share": 0, "latent_share": 1}}
    one, other = (pipe(document=text, **options) for text in (TEXT, TEXT.replace("green", "black")))
    assert one["usage"]["prompt_tokens"] == other["usage"]["prompt_tokens"]
    assert one["score"] != other["score"]


def test_passages_are_not_ranked_by_attention_to_pages_that_are_not_there(pipe: LongDocQAPipeline) -> None:
    with pytest.raises(ValueError, match="the policy 'attention' ranks passages by the attention to the pages"):
        pipe(
            question=QUESTIONS[0],
            document=TEXT,
            text_policy="attention",
            budget={**TIGHT, "max_context_tokens": 760},
        )


def test_evaluation_counts_latents_to_the_token(pipe: LongDocQAPipeline, tmp_path: Path) -> None:
    """Records say what the prompts had, whether questions share a reading or not, and the table has a column of it."""
    suite = make_suite("rows", data=str(write_rows(tmp_path / "rows.jsonl")))
    contexts = [
        Context("latents"),
        *make_contexts(["bm25-only"], budget=640, latent_shares=[0.5]),
        Context("pages", budget=640),  # which get smaller
        Context("pages", budget=640, scale=1, latent_share=0.5),  # which cannot, and give way
    ]
    table = evaluation.run(suite, pipe, contexts, out=tmp_path / "run")
    whole = pipe.processor.plan(TEXT, "?", budget={"visual_share": 0, "latent_share": 1}, text_policy="none")
    assert [record.error for record in read_records(tmp_path / "run") if record.error] == []
    records = {record.context: record.plan for record in read_records(tmp_path / "run")}
    assert list(records) == [context.label for context in contexts]
    for context in contexts:
        spent = records[context.label]
        assert spent["prompt"] == sum(spent[part] for part in ("visual", "latent", "text", "question", "template"))
        assert (spent["latent"] > 0) == context.has_latents and spent["prompt"] <= (context.budget or 10_000)
    assert records["latents"]["latent"] == whole.latent_tokens
    assert records["bm25-only, latents 0.5"]["text"] > 0 == records["bm25-only, latents 0.5"]["visual"]
    assert records["pages, scale 1, latents 0.5"]["visual"] > 0
    assert "of them latent" in table.cells()[0]
    assert [bool(row.latent_tokens) for row in table.rows] == [one.has_latents for one in contexts]


def write_rows(file: Path) -> Path:
    """Two questions on one text."""
    rows = [Sample(TEXT, question, "", ("zebra",), "rows", 3).to_row() for question in QUESTIONS[:2]]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_a_long_document_goes_through_all_three_channels(pipe: LongDocQAPipeline) -> None:
    """100,000 characters, a needle in each part."""
    filler = [f"Paragraph {number} says nothing of note, and says it at length. " for number in range(1700)]
    filler[200] = "The special magic number for green-lemur is: 4821930. "
    filler[1500] = "The special magic number for blue-heron is: 7750112. "
    document = "".join(filler)
    assert len(document) > 100_000
    budget = {"max_context_tokens": 8000, "latent_share": 0.6, "min_scale": 1}
    processor = HybridCtxProcessor(
        pipe.processor.image_processor,
        pipe.processor.tokenizer,
        render_config=pipe.processor.render_config,
        latents={**LATENTS, "chunk_tokens": 401},
    )
    with pytest.raises(ContextBudgetError):
        processor.plan(document=document, question=QUESTIONS[0], budget={**budget, "latent_share": 0})
    features, plan = processor(
        document=document,
        question=QUESTIONS[2],
        budget=budget,
        text_policy="bm25",
        return_plan=True,
        return_tensors="pt",
    )
    assert features["input_ids"].shape[1] == plan.total_tokens <= 8000
    assert plan.latents and plan.num_pages and plan.spans and plan.omitted_characters == 0
    assert plan.latents[-1].end >= plan.document.page_span(plan.first_page)[0]
    assert any("7750112" in span.text for span in plan.spans)
    sizes: list[int] = []
    hook = pipe.model.model.latent.encoder.register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(kwargs["attention_mask"].numel()), with_kwargs=True
    )
    output = pipe.model.generate(**features, max_new_tokens=2, do_sample=False)
    hook.remove()
    assert output.shape[1] - plan.total_tokens in (1, 2)
    assert sum(sizes) > pipe.model.config.latent_batch_tokens >= max(sizes), "chunks go through in bounded batches"
