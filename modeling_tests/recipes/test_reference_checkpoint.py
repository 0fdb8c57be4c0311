# SPDX-License-Identifier: Apache-2.0
"""The checkpoint inside the package: its size, its precision, and that it finds needles that it has never seen."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoProcessor, pipeline

import transformers_hybridctx  # noqa: F401 (registers)
from recipes.hybridctx_tiny.reference import CHAT_TEMPLATE
from transformers_hybridctx import evaluation
from transformers_hybridctx.evaluation.needles import draw_haystack, make_example
from transformers_hybridctx.pipeline_long_doc_qa import BUNDLED_CHECKPOINT

EXAMPLES = Path(__file__).parents[2] / "examples"
ANSWER_TOKENS = 64
"""Enough for a needle that is quoted and said; without needle, answers go on to the bound."""


@pytest.fixture(scope="module")
def pipe() -> Any:
    return pipeline("long-doc-qa", device="cpu")


@pytest.fixture(scope="module")
def prose() -> str:
    return (EXAMPLES / "persuasion.txt").read_text(encoding="utf-8")


def test_the_checkpoint_is_small_and_computes_in_fp32(pipe: Any) -> None:
    assert sum(file.stat().st_size for file in BUNDLED_CHECKPOINT.rglob("*") if file.is_file()) <= 16e6
    assert not list(BUNDLED_CHECKPOINT.rglob("*.bin"))
    assert pipe.model.dtype == torch.float32
    assert sum(parameter.numel() for parameter in pipe.model.parameters()) == 7_062_464  # 7.1 million, as the docs say


def test_no_output_of_a_linear_layer_is_empty(pipe: Any) -> None:
    """DoRA divides by the norm of a row."""
    linear = [module.weight for module in pipe.model.modules() if isinstance(module, torch.nn.Linear)]
    assert linear and all((weight.norm(dim=1) > 0).all() for weight in linear)


def test_auto_classes_load_it() -> None:
    assert AutoConfig.from_pretrained(BUNDLED_CHECKPOINT).model_type == "hybridctx"
    assert type(AutoModel.from_pretrained(BUNDLED_CHECKPOINT)).__name__ == "HybridCtxModel"
    assert type(AutoModelForCausalLM.from_pretrained(BUNDLED_CHECKPOINT)).__name__ == "HybridCtxForCausalLM"
    assert type(AutoProcessor.from_pretrained(BUNDLED_CHECKPOINT)).__name__ == "HybridCtxProcessor"


CHATS = [
    [("user", "Which code?"), ("assistant", "42")],
    [("system", "Be brief."), ("user", "Which code?"), ("assistant", "42"), ("user", "And now?"), ("assistant", "43")],
    [("user", "Which"), ("user", "code?"), ("assistant", "4"), ("assistant", "2"), ("system", "Hm."), ("user", "?")],
]


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("in_parts", [False, True])
def test_prompts_are_headers_and_words(pipe: Any, chat: list[tuple[str, str]], in_parts: bool) -> None:
    """What the weights have been trained with, character for character."""
    assert pipe.processor.chat_template == CHAT_TEMPLATE
    said = [(role, [{"type": "text", "text": words}] if in_parts else words) for role, words in chat]
    for count in range(1, len(chat) + 1):
        messages = [{"role": role, "content": content} for role, content in said[:count]]
        plain = "[gMASK]<sop>" + "".join(f"<|{role}|>\n{words}" for role, words in chat[:count])
        prompt = pipe.processor.apply_chat_template(messages, add_generation_prompt=True)
        assert prompt == f"{plain}<|assistant|>\n"
        ends = "<|user|>" * (chat[count - 1][0] == "assistant")  # a whole chat ends as an answer does
        assert pipe.processor.apply_chat_template(messages) == plain + ends
        assert pipe.processor.apply_chat_template(messages, continue_final_message=True) == plain


@pytest.mark.parametrize("with_document", [False, True])
def test_an_answer_and_what_ends_it_are_marked(pipe: Any, with_document: bool) -> None:
    messages = [{"role": role, "content": [{"type": "text", "text": words}]} for role, words in CHATS[1]]
    if with_document:
        messages[1]["content"].insert(0, {"type": "document", "text": "The code of room 7 is 42."})
    row = pipe.processor.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True, return_tensors="pt"
    )
    learned = row["input_ids"][row["assistant_masks"].bool()]
    assert pipe.tokenizer.decode(learned) == "42<|user|>43<|user|>"
    assert learned[-1].item() in pipe.model.generation_config.eos_token_id
    prompt = pipe.processor.apply_chat_template(messages[:-1], tokenize=True, add_generation_prompt=True)
    assert row["input_ids"][0, : len(prompt[0])].tolist() == list(prompt[0])


def test_hybrids_find_held_out_needles_at_half_the_tokens(pipe: Any) -> None:
    knobs = {"lengths": (2048,), "examples": 12, "seed": 11, "tasks": ("single_number",)}
    suite = evaluation.make_suite("needles", prose=EXAMPLES / "persuasion.txt", **knobs)
    contexts = {context.label: context for context in evaluation.make_contexts(budget_share=0.5)}
    hybrids = [contexts.pop("hybrid, bm25"), contexts.pop("hybrid, anchors")]
    rows = evaluation.run(suite, pipe, hybrids, max_new_tokens=ANSWER_TOKENS).rows
    for row in rows:
        assert row.scores["single_number"] >= 0.8, row.context
    rows += evaluation.run(suite, pipe, list(contexts.values()), max_new_tokens=1).rows  # for their prompts
    assert len(rows) == 6
    for row in rows:
        assert row.prompt_tokens is not None and row.budget == 1024
        assert row.prompt_tokens <= row.budget


def test_pages_alone_are_read_and_blank_ones_are_not(pipe: Any) -> None:
    knobs = {"lengths": (1024,), "examples": 8, "seed": 12, "tasks": ("single_number",)}
    suite = evaluation.make_suite("needles", prose=EXAMPLES / "persuasion.txt", **knobs)
    contexts = [evaluation.Context("pages", blank_pages=blank) for blank in (False, True)]
    rows = evaluation.run(suite, pipe, contexts, max_new_tokens=ANSWER_TOKENS).rows
    seen, blank = (row.scores["single_number"] for row in rows)
    assert seen >= 0.75 and blank == 0


def test_evidence_lies_on_the_needle(pipe: Any, prose: str) -> None:
    example = make_example(Random("evidence"), draw_haystack(Random(5), prose, 9000), "single_number")
    answer = pipe(question=example.question, document=example.document, return_pages=True)
    assert answer["answer"] == example.answers[0]
    (item,) = answer["evidence"]
    assert (item["start"], item["end"]) == example.answer_spans[0]
    assert answer["plan"].document.spans_in_box(item["page"], item["box"]) == [example.answer_spans[0]]
    left, top, right, bottom = map(round, item["box"])
    marked = answer["pages"][item["page"]].convert("L").crop((left, top, right, bottom))
    assert min(marked.getdata()) < 80  # ink


def test_saving_and_loading_gives_equal_logits(pipe: Any, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path)
    again = pipeline("long-doc-qa", model=str(tmp_path), device="cpu")
    inputs = pipe.processor(document="Ada has the code 4471. " * 20, question="Which code?", return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(pipe.model(**inputs).logits, again.model(**inputs).logits)
    redrawn = again.processor(document="Ada has the code 4471. " * 20, question="Which code?", return_tensors="pt")
    assert torch.equal(inputs["pixel_values"], redrawn["pixel_values"])
