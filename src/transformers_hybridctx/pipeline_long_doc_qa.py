# SPDX-License-Identifier: Apache-2.0
"""`pipeline("long-doc-qa")`: a document and questions in; answers out, each with the places that support it."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import Pipeline
from transformers.utils import logging

from .context_planning import ContextBudget, ContextPlan
from .document_files import read_document_file
from .processing_hybridctx import HybridCtxProcessor, drawn_pages
from .rasterizing import mark_boxes
from .sentences import RUN
from .text_policies import PagedDocument, TextPolicy
from .typesetting import TypesetDocument

logger = logging.get_logger(__name__)

TASK = "long-doc-qa"
BUNDLED_CHECKPOINT = Path(__file__).with_name("hybridctx-tiny")
_EVIDENCE_CONTEXT = 200
"""Characters before and after a place that are compared with the question."""
_MAX_PLACES = 2000
"""Places of one answer that are compared; an answer that stands in more of them ("the") says nothing by its place."""


class LongDocQAPipeline(Pipeline):
    """
    Long-document question answering.

    ```python
    >>> import transformers_hybridctx
    >>> from transformers import pipeline

    >>> pipe = pipeline("long-doc-qa")  # the checkpoint inside the package; or model="org/name"
    >>> pipe(question="What is the access code?", document="report.pdf")
    {'answer': ..., 'score': ..., 'evidence': [...], 'usage': {...}}
    ```

    A document is a text, a path (text, Markdown, HTML, PDF, picture), a list of page pictures, or what
    [`LongDocQAPipeline.read`] returned.
    """

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_feature_extractor = False
    _load_video_processor = False
    _pipeline_calls_generate = True
    _default_generation_config = GenerationConfig(max_new_tokens=256)

    processor: HybridCtxProcessor

    def __init__(self, model: Any, processor: Any = None, **kwargs: Any) -> None:
        if processor is None:
            processor = AutoProcessor.from_pretrained(model.config._name_or_path)
        if not isinstance(processor, HybridCtxProcessor):
            raise ValueError(
                f"{TASK} needs a HybridCtxProcessor, not {type(processor).__name__}: convert the checkpoint first"
            )
        super().__init__(model=model, processor=processor, **kwargs)

    def _sanitize_parameters(
        self,
        budget: ContextBudget | dict[str, Any] | None = None,
        text_policy: str | dict[str, Any] | TextPolicy | None = None,
        fusion_order: str | None = None,
        return_pages: bool | None = None,
        max_new_tokens: int | None = None,
        generate_kwargs: dict[str, Any] | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        given = {"budget": budget, "text_policy": text_policy, "fusion_order": fusion_order}
        preprocess = {name: value for name, value in given.items() if value is not None}
        forward = dict(generate_kwargs or {})
        if max_new_tokens is not None:
            if max_new_tokens < 1:
                raise ValueError(f"max_new_tokens={max_new_tokens} must be 1 or more")
            forward["max_new_tokens"] = max_new_tokens
        postprocess = {} if return_pages is None else {"return_pages": return_pages}
        return preprocess, forward, postprocess

    def __call__(self, inputs: Any = None, *, question: Any = None, document: Any = None, **kwargs: Any) -> Any:
        """
        Answer one question, or several, about a document.

        Args:
            inputs: `{"question": ..., "document": ...}` instead of the two arguments.
            question (`str` or list of `str`): what is asked.
            document: see [`LongDocQAPipeline`].
            budget ([`ContextBudget`] or dict, *optional*): how many tokens, and what they go to.
            text_policy (`str`, dict or [`TextPolicy`], *optional*): what is copied as exact tokens.
            fusion_order (`str`, *optional*): `"pages_first"` or `"tokens_first"`.
            return_pages (`bool`, *optional*): also return pictures of the evidence's pages with it marked, as `"pages"`
                `{page: PIL.Image}`.
            max_new_tokens (`int`, *optional*): longest answer, in tokens.
            generate_kwargs (`dict`, *optional*): anything else for `generate`.

        Returns:
            `dict`, or for a list of questions a list of them: `answer` (`str`); `score`, the geometric mean of the
            probabilities of its tokens; `evidence`, a list of `{"page", "start", "end", "box", "text"}`: characters
            [start, end) of the document, one line each, with their box (left, top, right, bottom) in pixels of that page
            (from 0) at the plan's scale; `usage`, token counts and seconds; `plan`, the [`ContextPlan`].

        Raises:
            ContextBudgetError, ValueError, TypeError, FileNotFoundError: before the model runs.
        """
        if inputs is not None:
            if not isinstance(inputs, dict) or not {"question", "document"} >= inputs.keys():
                raise ValueError(f'give question= and document=, or {{"question": ..., "document": ...}}, not {inputs!r:.80}')
            question, document = inputs.get("question", question), inputs.get("document", document)
        if question is None or document is None:
            raise ValueError(f"{'question' if question is None else 'document'}= is missing: give both")
        questions = [question] if isinstance(question, str) else list(question)
        if not questions:
            raise ValueError("question=[] asks nothing: give one question or more")
        read = self.read(document)
        answers = [
            super(LongDocQAPipeline, self).__call__({"document": read, "question": one}, **kwargs)
            for one in _with_progress(questions)
        ]
        return answers[0] if isinstance(question, str) else answers

    def read(self, document: Any) -> PagedDocument:
        """The document laid out, for any number of questions: files are read and text is typeset only once."""
        if isinstance(document, os.PathLike) or (isinstance(document, str) and _looks_like_a_path(document)):
            document = read_document_file(document)
        return self.processor.read_document(document)

    def preprocess(self, input_: dict[str, Any], **parameters: Any) -> dict[str, Any]:
        started = time.perf_counter()
        features, plan = self.processor(**input_, return_plan=True, return_tensors="pt", **parameters)
        seconds = {"prepare": time.perf_counter() - started}
        return {"features": dict(features), "plan": plan, "question": input_["question"], "seconds": seconds}

    def _forward(self, model_inputs: dict[str, Any], **generate_kwargs: Any) -> dict[str, Any]:
        started = time.perf_counter()
        features = model_inputs["features"]
        generate_kwargs.setdefault("generation_config", self.generation_config)
        output = self.model.generate(**features, return_dict_in_generate=True, output_logits=True, **generate_kwargs)
        new_tokens = output.sequences[0, features["input_ids"].shape[1] :]
        scores = self.model.compute_transition_scores(
            output.sequences, output.logits, getattr(output, "beam_indices", None), normalize_logits=True
        )[0]
        model_inputs["seconds"]["answer"] = time.perf_counter() - started
        return model_inputs | {"features": None, "new_tokens": new_tokens, "scores": scores}

    def postprocess(self, model_outputs: dict[str, Any], return_pages: bool = False) -> dict[str, Any]:
        started = time.perf_counter()
        plan: ContextPlan = model_outputs["plan"]
        new_tokens, seconds = model_outputs["new_tokens"], model_outputs["seconds"]
        answer = self.processor.tokenizer.decode(new_tokens, skip_special_tokens=True).strip()
        evidence = find_evidence(plan, answer, model_outputs["question"])
        result: dict[str, Any] = {
            "answer": answer,
            "score": torch.as_tensor(model_outputs["scores"]).double().mean().exp().item(),
            "evidence": evidence,
            "usage": {
                "document_tokens": plan.document_tokens,
                "visual_tokens": plan.visual_tokens,
                "text_tokens": plan.text_tokens,
                "prompt_tokens": plan.total_tokens,
                "new_tokens": len(new_tokens),
                "compression_ratio": plan.compression_ratio,
            },
            "plan": plan,
        }
        if return_pages:
            result["pages"] = mark_evidence(plan, evidence)
        result["usage"]["seconds"] = seconds | {"evidence": time.perf_counter() - started}
        return result

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Model and processor, its fonts included. The base class would leave the processor out."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory)


def find_evidence(plan: ContextPlan, answer: str, question: str, per_part: int = 1) -> list[dict[str, Any]]:
    """Where the parts of `answer` (between commas, where the whole does not stand there) stand in the document.

    Of several places the one whose surroundings share most with the question is taken, a rare word counting for more
    than a frequent one, and one that was copied as tokens before one that was not. Nothing is returned for words that
    the document does not have, nor for page pictures, whose text is not known.
    """
    document = plan.document
    if not answer or not isinstance(document, TypesetDocument):
        return []
    evidence: list[dict[str, Any]] = []
    parts = [answer] if _places(document.text, answer) else [part.strip() for part in answer.split(",")]
    for part in dict.fromkeys(part for part in parts if part):
        places = _places(document.text, part)
        for start, end in _closest(document.text, places, question, plan)[:per_part]:
            evidence += _on_lines(document, start, end, plan.scale)
    return evidence


def mark_evidence(plan: ContextPlan, evidence: Sequence[dict[str, Any]]) -> dict[int, Any]:
    """{page: PIL.Image} of the pages (from 0) that hold evidence, with its boxes marked."""
    boxes: dict[int, list[tuple[float, float, float, float]]] = {}
    for item in evidence:
        boxes.setdefault(item["page"], []).append(item["box"])
    pages = enumerate(drawn_pages(plan.document, plan.scale)) if boxes else ()
    marked = {}
    for number, page in pages:
        if number in boxes:
            marked[number] = mark_boxes(page, boxes[number])
        if len(marked) == len(boxes):
            break
    return marked


def _places(text: str, part: str) -> list[tuple[int, int]]:
    """Where `part` stands in `text` as whole words: as it is, else with any white space and in any case."""
    edges = (r"(?<!\w)" if part[0].isalnum() else "", r"(?!\w)" if part[-1].isalnum() else "")
    words = r"\s+".join(map(re.escape, part.split()))
    for pattern, flags in ((re.escape(part), 0), (words, re.IGNORECASE)):
        found = [m.span() for _, m in zip(range(_MAX_PLACES), re.finditer(f"{edges[0]}{pattern}{edges[1]}", text, flags))]
        if found:
            return found
    return []


def _closest(text: str, places: list[tuple[int, int]], question: str, plan: ContextPlan) -> list[tuple[int, int]]:
    """`places`, those first whose surroundings share most with the question."""
    if len(places) < 2:
        return places
    asked = {word.lower() for word in RUN.findall(question)}
    around = [
        {word.lower() for word in RUN.findall(text, max(0, start - _EVIDENCE_CONTEXT), min(len(text), end + _EVIDENCE_CONTEXT))}
        & asked
        for start, end in places
    ]
    frequency = Counter(word for words in around for word in words)

    def rank(index: int) -> tuple[float, bool, int]:
        start, end = places[index]
        copied = any(span.start <= start and end <= span.end for span in plan.spans)
        return -sum(1 / frequency[word] for word in around[index]), not copied, start

    return [places[index] for index in sorted(range(len(places)), key=rank)]


def _on_lines(document: TypesetDocument, start: int, end: int, scale: float) -> Iterator[dict[str, Any]]:
    for page, box in document.boxes(start, end, scale):
        shown = [
            (max(start, first), min(end, last))
            for first, last in document.spans_in_box(page, box, scale)
            if first < end and last > start
        ]
        if shown:
            first, last = min(shown)[0], max(shown)[1]
            yield {"page": page, "start": first, "end": last, "box": box, "text": document.text[first:last]}


def _looks_like_a_path(text: str) -> bool:
    """A text of one short line that names an existing file, or that can only be meant as a file's name."""
    if len(text) > 1024 or "\n" in text or "\0" in text or not text.strip():
        return False
    try:
        if Path(text).exists():
            return True
    except OSError:
        return False
    return bool(re.fullmatch(r"\S+\.(txt|md|html?|pdf|log|png|jpe?g|webp|tiff?)", text, re.IGNORECASE))


def _with_progress(questions: list[str]) -> Iterator[str]:
    """The questions, with a bar where there are several and transformers shows progress bars."""
    if len(questions) < 2:
        return iter(questions)
    return iter(logging.tqdm(questions, desc="questions", unit="question"))


PIPELINE_REGISTRY.register_pipeline(
    TASK,
    pipeline_class=LongDocQAPipeline,
    pt_model=AutoModelForImageTextToText,
    default={"model": (str(BUNDLED_CHECKPOINT), None)},
    type="multimodal",
)

__all__ = ["LongDocQAPipeline"]
