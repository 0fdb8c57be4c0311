# SPDX-License-Identifier: Apache-2.0
"""`pipeline("long-doc-qa")`: what goes in, what comes out, what is refused before any model runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from document_samples import pdf_file
from PIL import Image
from sample_questions import DOCUMENT, QUESTION, QUESTIONS, comparable
from transformers import AutoModelForImageTextToText, LogitsProcessor, LogitsProcessorList, pipeline
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.utils import logging

from transformers_hybridctx import (
    ContextBudget,
    ContextBudgetError,
    HybridCtxForCausalLM,
    HybridCtxProcessor,
    LongDocQAPipeline,
    PageRenderer,
)
from transformers_hybridctx.answering.results import LongDocAnswer
from transformers_hybridctx.grounding.evidence import MAX_PLACES, find_evidence, split_reasoning
from transformers_hybridctx.modules import quantization
from transformers_hybridctx.pipeline_long_doc_qa import BUNDLED_CHECKPOINT


@pytest.fixture
def idle(pipe: LongDocQAPipeline, monkeypatch: pytest.MonkeyPatch) -> LongDocQAPipeline:
    """A pipeline whose model must not run."""

    def run(*args: Any, **kwargs: Any) -> None:
        pytest.fail("the model ran")

    for name in ("forward", "generate", "get_image_features"):
        monkeypatch.setattr(pipe.model, name, run)
    return pipe


class Says(LogitsProcessor):
    """Makes a model say a text."""

    def __init__(self, pipe: LongDocQAPipeline, text: str) -> None:
        tokenizer = pipe.processor.tokenizer
        self.ids: Iterator[int] = iter([*tokenizer.encode(text), tokenizer.eos_token_id])

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        forced = torch.full_like(scores, -torch.inf)
        forced[:, next(self.ids)] = 0
        return forced


@pytest.fixture
def say(pipe: LongDocQAPipeline) -> Callable[..., dict[str, Any]]:
    """Asks about a document, and has the model answer with the given text."""

    def answer(text: str, document: Any = DOCUMENT, question: str = QUESTION, **kwargs: Any) -> dict[str, Any]:
        said = {"logits_processor": LogitsProcessorList([Says(pipe, text)])}
        return pipe(question=question, document=document, generate_kwargs=said, max_new_tokens=99, **kwargs)

    return answer


# Answers


def test_an_answer_is_what_generate_says_to_the_processors_prompt(pipe: LongDocQAPipeline) -> None:
    answer = pipe(question=QUESTION, document=DOCUMENT)
    inputs, plan = pipe.processor(document=DOCUMENT, question=QUESTION, return_tensors="pt", return_plan=True)
    said = pipe.model.generate(**inputs, max_new_tokens=6)[0, plan.total_tokens :]
    assert answer["answer"] == pipe.processor.tokenizer.decode(said, skip_special_tokens=True).strip()
    assert answer["plan"] == plan
    assert answer.keys() == LongDocAnswer.__annotations__.keys() - {"pages"}
    assert answer["usage"].pop("seconds").keys() == {"plan", "draw", "vision", "answer", "evidence"}
    assert answer["usage"] == {
        "document_tokens": plan.document_tokens,
        "visual_tokens": plan.visual_tokens,
        "text_tokens": plan.text_tokens,
        "prompt_tokens": plan.total_tokens,
        "new_tokens": len(said),
        "compression_ratio": plan.compression_ratio,
    }


@pytest.mark.parametrize("beams", [1, 3])
def test_the_score_is_the_geometric_mean_of_the_tokens_probabilities(pipe: LongDocQAPipeline, beams: int) -> None:
    asked = {"document": "The special magic number for green-lemur is: 4821930.", "question": QUESTION}
    options = {"num_beams": beams, "early_stopping": beams > 1}
    answer = pipe(**asked, **options)
    inputs = pipe.processor(**asked, return_tensors="pt")
    length = inputs["input_ids"].shape[1]
    said = pipe.model.generate(**inputs, max_new_tokens=6, **options)
    with torch.no_grad():
        types = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, said.shape[1] - length))
        pages = {name: inputs[name] for name in ("pixel_values", "image_grid_thw")}
        logits = pipe.model(input_ids=said, mm_token_type_ids=types, **pages).logits[0, length - 1 : -1]
    chosen = logits.double().log_softmax(-1).gather(1, said[0, length:, None])
    assert answer["score"] == pytest.approx(chosen.mean().exp().item(), rel=1e-4)
    assert answer["usage"]["new_tokens"] == len(chosen)


def test_many_questions_are_answered_as_one_by_one(pipe: LongDocQAPipeline) -> None:
    together = pipe(question=QUESTIONS, document=DOCUMENT)
    apart = [pipe(question=question, document=DOCUMENT) for question in QUESTIONS]
    assert [comparable(answer) for answer in together] == [comparable(answer) for answer in apart]
    assert len({answer["answer"] for answer in together}) > 1
    assert pipe(question=QUESTIONS[:1], document=DOCUMENT)[0]["answer"] == apart[0]["answer"]


@pytest.mark.parametrize("beams", [1, 3])
def test_many_questions_share_one_layout_and_one_reading_of_the_pages(
    pipe: LongDocQAPipeline, monkeypatch: pytest.MonkeyPatch, beams: int
) -> None:
    calls: list[str] = []

    def counted(owner: Any, name: str) -> None:
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, **kwargs: calls.append(name) or original(*args, **kwargs))

    counted(PageRenderer, "typeset")
    counted(PageRenderer, "draw_pages")
    counted(pipe.model.model.visual, "forward")
    together = pipe(question=QUESTIONS, document=DOCUMENT, num_beams=beams)
    assert sorted(set(calls)) == ["draw_pages", "forward", "typeset"]
    one_document = calls.copy()
    calls.clear()
    apart = [pipe(question=question, document=DOCUMENT, num_beams=beams)["answer"] for question in QUESTIONS]
    assert [answer["answer"] for answer in together] == apart
    assert sorted(calls) == sorted(one_document * len(QUESTIONS))


def test_questions_whose_plans_draw_the_pages_at_different_scales_get_their_own(pipe: LongDocQAPipeline) -> None:
    questions = ["Which?", "Which? " * 40, "Which?"]
    half = {"min_scale": 0.5, "max_scale": 0.5}
    smallest = pipe.processor.plan(DOCUMENT, questions[1], budget=half, text_policy="none")
    options = {"budget": {"max_context_tokens": smallest.total_tokens}, "text_policy": "none"}
    together = pipe(question=questions, document=DOCUMENT, **options)
    assert together[0]["plan"].scale > together[1]["plan"].scale < together[2]["plan"].scale
    apart = [pipe(question=question, document=DOCUMENT, **options) for question in questions]
    assert [comparable(answer) for answer in together] == [comparable(answer) for answer in apart]


def test_requests_are_dicts_too_and_lists_of_them(pipe: LongDocQAPipeline) -> None:
    requests = [{"question": QUESTION, "document": DOCUMENT}, {"question": "What?", "document": "Something short."}]
    answers = pipe(requests)
    assert comparable(answers[0]) == comparable(pipe(question=QUESTION, document=DOCUMENT))
    assert comparable(answers[1]) == comparable(pipe(requests[1]))


def test_the_context_is_the_callers_choice(pipe: LongDocQAPipeline) -> None:
    budget = ContextBudget(max_context_tokens=200, visual_share=0)
    answer = pipe(question=QUESTION, document=DOCUMENT, budget=budget, text_policy="bm25", fusion_order="tokens_first")
    assert answer["plan"].policy == "bm25"
    assert answer["plan"].num_pages == answer["usage"]["visual_tokens"] == 0
    assert answer["usage"]["prompt_tokens"] <= 200
    assert "draw" not in answer["usage"]["seconds"]
    pages_only = pipe(question=QUESTION, document=DOCUMENT, budget={"visual_share": 1}, text_policy="none")
    assert pages_only["usage"]["text_tokens"] == 0 < pages_only["usage"]["visual_tokens"]


def test_options_of_a_pipeline_are_defaults_of_its_calls(checkpoint: Path) -> None:
    pipe = pipeline("long-doc-qa", model=str(checkpoint), text_policy="tail", max_new_tokens=2, return_pages=True)
    answer = pipe(question=QUESTION, document=DOCUMENT)
    assert answer["plan"].policy == "tail"
    assert answer["usage"]["new_tokens"] <= 2
    assert "pages" in answer
    answer = pipe(question=QUESTION, document=DOCUMENT, text_policy="none", max_new_tokens=1, return_pages=False)
    assert (answer["plan"].policy, answer["usage"]["new_tokens"], "pages" in answer) == ("none", 1, False)


# Documents


def test_a_document_is_a_text_a_path_or_what_lay_out_returned(pipe: LongDocQAPipeline, tmp_path: Path) -> None:
    expected = comparable(pipe(question=QUESTION, document=DOCUMENT))
    path = tmp_path / "document.txt"
    path.write_text(DOCUMENT)
    for document in (path, str(path), pipe.lay_out(path), pipe.read(DOCUMENT)):
        assert comparable(pipe(question=QUESTION, document=document)) == expected
    path.rename(tmp_path / "document.md")
    assert comparable(pipe(question=QUESTION, document=str(tmp_path / "document.md"))) == expected
    (tmp_path / "document.html").write_text(f"<html><p>{DOCUMENT}</p>")
    assert comparable(pipe(question=QUESTION, document=tmp_path / "document.html")) == expected


def test_a_strangers_text_is_never_a_file(pipe: LongDocQAPipeline, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text(DOCUMENT)
    assert pipe(question=QUESTION, document=str(secret))["plan"].document.text == DOCUMENT
    for text in (str(secret), "no such report.pdf", "https://example.org/a.pdf"):
        answers = [
            pipe(question=QUESTION, text=text),
            pipe({"question": QUESTION, "text": text}),
            *pipe([{"question": QUESTION, "text": text}]),
            pipe(question=QUESTION, document=pipe.read(text=text)),
            pipe(question=QUESTION, document=pipe.lay_out(text=text)),
        ]
        assert {answer["plan"].document.text for answer in answers} == {text}
    with pytest.raises(ValueError, match="give document= or text=, not both"):
        pipe(question=QUESTION, text="A text.", document=pipe.read("Another."))
    with pytest.raises(TypeError, match="text= is a string, not PosixPath"):
        pipe(question=QUESTION, text=secret)
    with pytest.raises(ValueError, match="empty document"):
        pipe(question=QUESTION, text="")


def test_a_pdf_with_text_is_a_text_and_a_scan_is_pictures(pipe: LongDocQAPipeline, tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf_file(["The special magic number is:\n4821930."]))
    plan = pipe(question=QUESTION, document=tmp_path / "a.pdf")["plan"]
    assert plan.document.text == "The special magic number is:\n4821930."
    scan = Image.new("L", (168, 168), 255)
    scan.save(tmp_path / "scan.pdf", save_all=True, append_images=[scan], resolution=72)
    answer = pipe(question=QUESTION, document=tmp_path / "scan.pdf", return_pages=True)
    assert answer["plan"].num_pages == 2
    assert (answer["usage"]["document_tokens"], answer["usage"]["compression_ratio"]) == (0, None)
    assert (answer["evidence"], answer["pages"]) == ([], {})


def test_pictures_are_a_document(pipe: LongDocQAPipeline, tmp_path: Path) -> None:
    page = np.random.default_rng(0).integers(0, 256, (168, 168), dtype=np.uint8)
    Image.fromarray(page).save(tmp_path / "page.png")
    one = [page], Image.fromarray(page), tmp_path / "page.png", str(tmp_path / "page.png")
    answers = [comparable(pipe(question=QUESTION, document=document)) for document in one]
    for answer in answers:
        del answer["plan"]
        assert answer == answers[0]
    assert pipe(question=QUESTION, document=[page, Image.fromarray(page)])["plan"].num_pages == 2


@pytest.mark.parametrize("document", ["她在二零二四年花费了一百二十三元。", "هذا نص قصير.", "\x00\x01\x02", "😀 ok"])
def test_any_script_is_a_document(pipe: LongDocQAPipeline, document: str) -> None:
    assert pipe(question=QUESTION, document=document)["plan"].document.text == document


# Evidence


def test_evidence_is_where_the_answer_stands(say: Callable[..., dict[str, Any]]) -> None:
    answer = say("4821930", return_pages=True)
    assert answer["answer"] == "4821930"
    start = DOCUMENT.index("4821930")
    (item,) = answer["evidence"]
    assert (item["start"], item["end"], item["text"]) == (start, start + 7, "4821930")
    laid_out, scale = answer["plan"].document, answer["plan"].scale
    assert [(item["page"], item["box"])] == laid_out.boxes(start, start + 7, scale)
    height, width = laid_out.page_size(item["page"], scale)
    assert 0 <= item["box"][0] < item["box"][2] <= width
    assert 0 <= item["box"][1] < item["box"][3] <= height
    assert answer["pages"].keys() == {item["page"]}
    marked = np.asarray(answer["pages"][item["page"]]).astype(int)
    plain = next(iter(np.asarray(page) for number, page in enumerate(pages_of(answer)) if number == item["page"]))
    changed = np.argwhere((marked != plain[:, :, None]).any(axis=2))
    left, top, right, bottom = item["box"]
    assert np.abs(changed.min(axis=0) - [top, left]).max() <= 2
    assert np.abs(changed.max(axis=0) - [bottom, right]).max() <= 2


def pages_of(answer: dict[str, Any]) -> Iterator[np.ndarray]:
    document = answer["plan"].document
    return PageRenderer(document.config).draw_pages(document, answer["plan"].scale)


def test_evidence_has_an_item_for_each_line(say: Callable[..., dict[str, Any]]) -> None:
    words = "the age of wisdom, it was the age of foolishness"
    answer = say(words)
    assert len(answer["evidence"]) > 1
    lines = answer["plan"].document.lines
    for item in answer["evidence"]:
        assert item["text"] == DOCUMENT[item["start"] : item["end"]]
        assert sum(line.start <= item["start"] and item["end"] <= line.end for line in lines) == 1
    assert " ".join(item["text"] for item in answer["evidence"]) == words


def test_what_the_model_thinks_helps_to_find_the_place(say: Callable[..., dict[str, Any]]) -> None:
    document = "The key of Ann is 77. " + "Filler. " * 60 + "The key of Bob is 77."
    answer = say("<think>Bob is asked for</think>77", document=document, question="Whose key?")
    assert (answer["reasoning"], answer["answer"]) == ("Bob is asked for", "77")
    assert answer["evidence"][0]["start"] == document.rindex("77")


def test_each_part_of_an_answer_has_its_evidence(say: Callable[..., dict[str, Any]]) -> None:
    assert [item["text"] for item in say("4821930, 7750112 and nothing")["evidence"]] == ["4821930", "7750112"]
    assert [item["text"] for item in say('"4821930".')["evidence"]] == ["4821930"]


@pytest.mark.parametrize("answer", ["1234567", "482193", "821930", "magi", ""])
def test_what_does_not_stand_in_the_document_has_no_evidence(say: Callable[..., dict[str, Any]], answer: str) -> None:
    found = say(answer, return_pages=True)
    assert (found["answer"], found["evidence"], found["pages"]) == (answer, [], {})


@pytest.mark.parametrize(
    ("text", "answer", "question", "found"),
    [
        ("The key of Ann is 77. " + "Filler. " * 99 + "The key of Bob is 77.", "77", "Key of Bob?", -3),
        ("The key of Ann is 77. " + "Filler. " * 99 + "The key of Bob is 77.", "77", "Key of Ann?", 18),
        ("A fee of 42,434 or 434.5 or of 434.", "434", "Which?", -4),
        ("Paid on time,\nIN FULL, twice.", "in full", "How?", 14),
        ("on two\n  lines", "two lines", "Where?", 3),
        ("她在二零二四年花费了一百二十三元。", "一百二十三元", "多少？", 10),
        ("رقم الغرفة هو 4821930 في المبنى", "4821930", "ما رقم الغرفة؟", 14),
    ],
    ids=["nearest", "nearest to another", "whole number", "any case", "any blanks", "chinese", "arabic"],
)
def test_evidence_is_the_whole_word_nearest_to_what_is_asked(
    processor: HybridCtxProcessor, text: str, answer: str, question: str, found: int
) -> None:
    evidence = find_evidence(processor.plan(text, question), answer, question)
    assert evidence[0]["start"] == found % len(text)
    assert "".join("".join(item["text"].lower() for item in evidence).split()) == "".join(answer.split())


def test_words_that_stand_everywhere_are_no_evidence(processor: HybridCtxProcessor) -> None:
    text = "the cat " * (MAX_PLACES + 1)
    assert find_evidence(processor.plan(text, "Which?"), "the", "Which?") == []


# Loading and saving


def test_a_saved_pipeline_loads_and_answers_alike(pipe: LongDocQAPipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path)
    again = pipeline("long-doc-qa", model=str(tmp_path), max_new_tokens=6)
    assert comparable(again(question=QUESTION, document=DOCUMENT)) == comparable(
        pipe(question=QUESTION, document=DOCUMENT)
    )
    config = json.loads((tmp_path / "config.json").read_text())
    assert "custom_pipelines" not in config
    assert not list(tmp_path.glob("*.py"))
    assert "dtype" not in json.loads((tmp_path / "tokenizer_config.json").read_text())
    for path in tmp_path.glob("*.json*"):
        for folder in (BUNDLED_CHECKPOINT.parent, pipe.model.config._name_or_path):
            assert str(folder) not in path.read_text()


def test_a_model_brings_the_processor_of_its_checkpoint(checkpoint: Path, processor: HybridCtxProcessor) -> None:
    model = AutoModelForImageTextToText.from_pretrained(checkpoint)
    pipe = LongDocQAPipeline(model)
    assert pipe.processor.render_config.page_width == processor.render_config.page_width
    assert pipeline("long-doc-qa", model=model, processor=processor).processor is processor


def test_without_a_model_the_bundled_one_is_named_as_default_without_advice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    _, task, _ = PIPELINE_REGISTRY.check_task("long-doc-qa")
    model, revision = task["default"]["model"]
    assert (model, revision) == (str(BUNDLED_CHECKPOINT), None)
    logger = logging.get_logger("transformers.pipelines")
    logger.addHandler(caplog.handler)
    try:
        logger.warning(f"No model was supplied, defaulted to {model} and revision None.")
        logger.warning("No model was supplied, defaulted to another")
    finally:
        logger.removeHandler(caplog.handler)
    assert {record.getMessage() for record in caplog.records} == {"No model was supplied, defaulted to another"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("native", [False, True])
def test_half_precision_is_computed_in_where_the_cpu_can(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, native: bool
) -> None:
    names = quantization._NATIVE_INSTRUCTIONS[dtype]
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {names[0]: native})
    pipe = pipeline("long-doc-qa", model=str(checkpoint), dtype=dtype, device="cpu")
    assert pipe.model.dtype == dtype  # as it was said
    pipe.save_pretrained(tmp_path)
    assert pipeline("long-doc-qa", model=str(tmp_path), device="cpu").model.dtype == (dtype if native else torch.float)
    assert pipeline("long-doc-qa", model=str(checkpoint), device="cpu").model.dtype == torch.float


def test_answering_warns_of_nothing(checkpoint: Path) -> None:
    code = f"""
import transformers_hybridctx
from transformers import pipeline
from transformers.utils import logging

logging.disable_progress_bar()
pipe = pipeline("long-doc-qa", model={str(checkpoint)!r}, max_new_tokens=2)
pipe(question=["What?", "Which?"], document="A short document.")
pipe(question="What?", document="A short document.", budget={{"visual_share": 0}}, text_policy="tail", num_beams=2)
"""
    result = subprocess.run([sys.executable, "-W", "default", "-c", code], capture_output=True, text=True, check=True)
    lines = [line for line in result.stderr.splitlines() if "DeprecationWarning" not in line]
    assert lines == []


# What is refused, before any model runs


@pytest.mark.parametrize(
    ("request_", "error", "reason"),
    [
        ({"question": None}, ValueError, "question= is missing"),
        ({"document": None}, ValueError, "document= is missing"),
        ({"question": ""}, ValueError, "empty question ''"),
        ({"question": " \n"}, ValueError, r"empty question ' \\n'"),
        ({"question": []}, ValueError, r"question=\[\] asks nothing"),
        ({"question": ["What?", ""]}, ValueError, "empty question ''"),
        ({"question": ["What?", None]}, TypeError, "a question is a string, not NoneType"),
        ({"question": 7}, TypeError, "a question is a string, or a list of strings, not int: 7"),
        ({"document": ""}, ValueError, "empty document"),
        ({"document": " \n\t"}, ValueError, "empty document"),
        ({"document": []}, ValueError, "empty document: a list of no pages"),
        ({"document": b"some bytes"}, TypeError, "not bytes: b'some bytes'; decode the bytes to text first"),
        ({"document": 7}, TypeError, "a document is a text, page images or .* not int: 7"),
        ({"document": "no such report.pdf"}, FileNotFoundError, "there is no file no such report.pdf"),
        ({"document": np.zeros((0, 5), np.uint8)}, ValueError, "page image 1 has no pixels: 5 x 0"),
        ({"document": [Image.new("L", (8, 8)), Image.new("L", (0, 8))]}, ValueError, "page image 2 has no pixels"),
        (
            {"text_policy": "best"},
            ValueError,
            "unknown text policy 'best'; known policies: anchors, attention, auto, bm25, full",
        ),
        (
            {"fusion_order": "shuffled"},
            ValueError,
            "fusion_order='shuffled' is not one of 'pages_first', 'tok",
        ),
        ({"budget": {"max_tokens": 7}}, ValueError, "unknown ContextBudget field 'max_tokens'; known fields: latent"),
        ({"budget": 7}, TypeError, "budget must be a ContextBudget, a dict of its fields, or None, not 7"),
        ({"budget": {"visual_share": 2}}, ValueError, "visual_share=2 must be between 0 and 1"),
        ({"max_new_tokens": 0}, ValueError, "max_new_tokens=0 must be a whole number of tokens .*: 1 or more"),
        ({"generate_kwargs": True}, TypeError, "generate_kwargs is a dict, not bool: True"),
        ({"policy": "bm25"}, TypeError, "unknown arguments for long-doc-qa: policy; it takes question, document"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(
    idle: LongDocQAPipeline, request_: dict[str, Any], error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        idle(**{"question": QUESTION, "document": DOCUMENT, **request_})


def test_a_budget_that_is_too_small_names_the_smallest_that_works(
    pipe: LongDocQAPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(ContextBudgetError, match="max_context_tokens=30") as caught:
        patch.setattr(pipe.model, "generate", lambda *args, **kwargs: pytest.fail("the model ran"))
        pipe(question=["?", QUESTION], document=DOCUMENT, budget={"max_context_tokens": 30})
    budget = {"max_context_tokens": caught.value.smallest}
    assert pipe(question="?", document=DOCUMENT, budget=budget)["usage"]["prompt_tokens"] <= caught.value.smallest


def test_no_question_is_answered_where_any_cannot_be(idle: LongDocQAPipeline) -> None:
    alone = idle.processor.plan(DOCUMENT, "?", budget={"min_scale": 0.5, "max_scale": 0.5}, text_policy="none")
    budget = {"max_context_tokens": alone.total_tokens}
    with pytest.raises(ContextBudgetError):
        idle(question=["?", "What about this longer one?"], document=DOCUMENT, budget=budget, text_policy="none")


@pytest.mark.parametrize("inputs", ["a question", {"question": "?", "documents": "x"}, 7])
def test_other_inputs_are_refused(idle: LongDocQAPipeline, inputs: Any) -> None:
    with pytest.raises(ValueError, match="give question= and document=, or"):
        idle(inputs)


def test_another_model_or_processor_is_refused(pipe: LongDocQAPipeline, checkpoint: Path) -> None:
    from transformers import Glm4vConfig, Glm4vForConditionalGeneration

    with torch.device("meta"):
        glm = Glm4vForConditionalGeneration(Glm4vConfig())
        fresh = HybridCtxForCausalLM(pipe.model.config.__class__(**pipe.model.config.to_dict()))
    fresh.config._name_or_path = ""
    with pytest.raises(ValueError, match="needs a HybridCtxForCausalLM, not Glm4vForConditionalGeneration"):
        pipeline("long-doc-qa", model=glm, processor=pipe.processor)
    with pytest.raises(ValueError, match=r"needs a HybridCtxProcessor, not .*; convert the checkpoint first"):
        pipeline("long-doc-qa", model=pipe.model, processor=pipe.processor.image_processor)
    with pytest.raises(ValueError, match=r"needs a processor: .* give processor="):
        LongDocQAPipeline(fresh)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7364829", ("", "7364829")),
        ("<think>lemur is: 7364829</think>7364829", ("lemur is: 7364829", "7364829")),
        ("<think>so</think>\n<answer>4 km</answer>", ("so", "4 km")),
        ("<think>so</think><|begin_of_box|>4 km<|end_of_box|>", ("so", "4 km")),
        ("<think>cut while thin", ("cut while thin", "")),
        ("so</think>4 km", ("so", "4 km")),
    ],
)
def test_what_a_model_thinks_is_not_its_answer(text: str, expected: tuple[str, str]) -> None:
    assert split_reasoning(text) == expected
