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
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import Pipeline
from transformers.utils import logging

from .configuration_hybridctx import HybridCtxConfig
from .context_planning import ContextBudget, ContextPlan, resolve_text_policy
from .document_files import names_a_file, read_document_file
from .processing_hybridctx import HybridCtxProcessor
from .rasterizing import PageRenderer, mark_boxes
from .remote_code import TravelsWithCode
from .sentences import RUN
from .text_policies import PagedDocument, TextPolicy
from .typesetting import TypesetDocument

TASK = "long-doc-qa"
BUNDLED_CHECKPOINT = Path(__file__).with_name("hybridctx-tiny")
_EVIDENCE_CONTEXT = 200
"""Characters before and after a place that are compared with the question."""
_MAX_PLACES = 2000
"""Places of one answer that are compared; an answer that stands in more of them ("the") says nothing by its place."""
_NATIVE_INSTRUCTIONS = {
    torch.bfloat16: ("avx512_bf16", "amx_bf16", "bf16"),
    torch.float16: ("avx512_fp16", "amx_fp16", "fp16_arith"),
}
"""What a CPU must have to compute in a type; without it PyTorch converts each number, some 200 times slower."""


class LongDocQAPipeline(TravelsWithCode, Pipeline):
    """
    Long-document question answering.

    ```python
    >>> import transformers_hybridctx
    >>> from transformers import pipeline

    >>> pipe = pipeline("long-doc-qa")  # the checkpoint inside the package; or model="org/name"
    >>> pipe(question="What is the access code?", document="report.pdf")
    {'answer': ..., 'score': ..., 'evidence': [...], 'usage': {...}, 'plan': ...}
    ```

    A document is a text, a path (text, Markdown, HTML, PDF, picture), a list of page pictures, or what
    [`LongDocQAPipeline.read`] returned. Generation parameters, such as `max_new_tokens` or `num_beams`, may be given
    to the pipeline or to a call.

    On a CPU that has no instructions for a checkpoint's half precision, the model computes in float32 unless `dtype`
    is given (`pipeline(..., dtype=torch.bfloat16)`); that holds for a model object passed with no `dtype`, too.

    Args:
        model ([`HybridCtxForCausalLM`]): the model; an adapter around it is as good.
        processor ([`HybridCtxProcessor`], *optional*): the one of the model's checkpoint unless given.
        kwargs: as in every pipeline: `device`, `dtype`, generation parameters and what `__call__` takes.
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
        if model.config.model_type != HybridCtxConfig.model_type:
            raise ValueError(
                f"{TASK} needs a HybridCtxForCausalLM, not {type(model).__name__} (model_type "
                f"{model.config.model_type!r}); convert the checkpoint first"
            )
        if processor is None:
            if not model.config._name_or_path:
                raise ValueError(
                    f"{TASK} needs a processor: the model was not loaded from a checkpoint; give processor="
                )
            processor = AutoProcessor.from_pretrained(model.config._name_or_path)
        if not isinstance(processor, HybridCtxProcessor):
            processor = _of_this_copy(processor)
        dtype_is_given = kwargs.get("dtype", kwargs.get("torch_dtype")) != "auto"  # "auto" is pipeline()'s own default
        kwargs.setdefault("tokenizer", processor.tokenizer)  # for its padding token
        # pipeline() hands the model's dtype to every loader, and a tokenizer would write it to its own file
        processor.tokenizer.init_kwargs.pop("dtype", None)
        super().__init__(model=model, processor=processor, **kwargs)
        if not dtype_is_given and self.device.type == "cpu" and not _computes_natively(self.model):
            self.model.float()

    def _sanitize_parameters(
        self,
        budget: ContextBudget | dict[str, Any] | None = None,
        text_policy: str | dict[str, Any] | TextPolicy | None = None,
        fusion_order: str | None = None,
        return_pages: bool | None = None,
        generate_kwargs: dict[str, Any] | None = None,
        **generation_parameters: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        known = vars(GenerationConfig()).keys() | {"generation_config"}
        if unknown := sorted(generation_parameters.keys() - known):
            raise TypeError(
                f"unknown arguments for {TASK}: {', '.join(unknown)}; it takes question, document, budget, "
                "text_policy, fusion_order, return_pages, generation parameters, and others for generate in "
                "generate_kwargs"
            )
        if generation_parameters.get("max_new_tokens", 1) < 1:
            raise ValueError(f"max_new_tokens={generation_parameters['max_new_tokens']} must be 1 or more")
        if text_policy is not None:
            text_policy = resolve_text_policy(text_policy)
        if budget is not None:
            budget = ContextBudget.of(budget)
        given = {"budget": budget, "text_policy": text_policy, "fusion_order": fusion_order}
        preprocess = {name: value for name, value in given.items() if value is not None}
        postprocess = {} if return_pages is None else {"return_pages": return_pages}
        return preprocess, {**generation_parameters, **(generate_kwargs or {})}, postprocess

    def __call__(self, inputs: Any = None, *, question: Any = None, document: Any = None, **kwargs: Any) -> Any:
        """
        Answer one question, or several, about a document.

        Several questions share one layout of the document, and one reading of its pages where their plans agree on the
        scale.

        Args:
            inputs: `{"question": ..., "document": ...}` instead of the two arguments, or a list of these.
            question (`str` or list of `str`): what is asked.
            document: see [`LongDocQAPipeline`].
            budget ([`ContextBudget`] or dict, *optional*): how many tokens, and what they go to.
            text_policy (`str`, dict or [`TextPolicy`], *optional*): what is copied as exact tokens.
            fusion_order (`str`, *optional*): `"pages_first"` or `"tokens_first"`.
            return_pages (`bool`, *optional*): also return pictures of the evidence's pages with it marked, as
                `"pages"` `{page: PIL.Image}`.
            generate_kwargs (`dict`, *optional*): for `generate`, beside generation parameters like `max_new_tokens`.

        Returns:
            `dict`, or for a list of questions a list of them: `answer` (`str`); `reasoning` (`str`), what the model
            said before it; `score`, the geometric mean of the probabilities of all these tokens; `evidence`, a list of
            `{"page", "start", "end", "box", "text"}`: characters [start, end) of the document, one line each, with their
            box (left, top, right, bottom) in pixels of that page (from 0) at the plan's scale; `usage`, counts of tokens
            and the seconds of each stage; `plan`, the [`ContextPlan`], whose `document.text` is the text that characters
            are counted in.

        Raises:
            ContextBudgetError, ValueError, TypeError, OSError: before the model runs, for any of the questions.
        """
        if isinstance(inputs, (list, tuple)):
            return [self(one, question=question, document=document, **kwargs) for one in _with_progress(inputs)]
        if inputs is not None:
            if not isinstance(inputs, dict) or inputs.keys() - {"question", "document"}:
                raise ValueError(
                    f'give question= and document=, or {{"question": ..., "document": ...}}, not {inputs!r:.80}'
                )
            question, document = inputs.get("question", question), inputs.get("document", document)
        for name, value in (("question", question), ("document", document)):
            if value is None:
                raise ValueError(f"{name}= is missing: give a question and a document")
        questions = _checked_questions(question)
        preprocess, forward, postprocess = self._sanitize_parameters(**kwargs)
        preprocess = {**self._preprocess_params, **preprocess}
        forward = {**self._forward_params, **forward}
        postprocess = {**self._postprocess_params, **postprocess}

        laid_out = self.read(document)
        reading = _Reading()
        prompts = [
            self.preprocess({"document": laid_out, "question": one, "reading": reading}, **preprocess)
            for one in questions
        ]
        answers = [
            self.postprocess(self.forward(prompt, **forward), **postprocess) for prompt in _with_progress(prompts)
        ]
        return answers[0] if isinstance(question, str) else answers

    def read(self, document: Any) -> PagedDocument:
        """The document laid out, for any number of questions: files are read and text is typeset only once."""
        if names_a_file(document):
            document = read_document_file(document)
        return self.processor.read_document(document)

    def preprocess(self, input_: dict[str, Any], **parameters: Any) -> dict[str, Any]:
        """The plan and the prompt; its pages are drawn when the model reads them."""
        started = time.perf_counter()
        document, question = input_["document"], input_["question"]
        features, plan = self.processor(
            document=document, question=question, draw_pages=False, return_plan=True, return_tensors="pt", **parameters
        )
        return {
            "features": dict(features),
            "plan": plan,
            "question": question,
            "reading": input_.get("reading") or _Reading(),
            "seconds": {"plan": time.perf_counter() - started},
        }

    def _forward(self, model_inputs: dict[str, Any], **generate_kwargs: Any) -> dict[str, Any]:
        plan, features, seconds = model_inputs["plan"], model_inputs["features"], dict(model_inputs["seconds"])
        if plan.num_pages:
            features |= model_inputs["reading"].of_pages(plan, self, seconds)
        started = time.perf_counter()
        generate_kwargs = self._prepare_generate_kwargs(generate_kwargs)
        output = self.model.generate(**features, return_dict_in_generate=True, output_logits=True, **generate_kwargs)
        beams = getattr(output, "beam_indices", None)
        log_probabilities = self.model.compute_transition_scores(
            output.sequences, output.logits, beams, normalize_logits=True
        )[0]
        # a beam that ended before the longest one is padded
        length = len(log_probabilities) if beams is None else int((beams[0] >= 0).sum())
        new_tokens = output.sequences[0, features["input_ids"].shape[1] :][:length]
        seconds["answer"] = time.perf_counter() - started
        return {
            "plan": plan,
            "question": model_inputs["question"],
            "seconds": seconds,
            "new_tokens": new_tokens,
            "log_probabilities": log_probabilities[:length],
        }

    def postprocess(self, model_outputs: dict[str, Any], return_pages: bool = False) -> dict[str, Any]:
        """The answer as text, and where it stands in the document."""
        started = time.perf_counter()
        plan: ContextPlan = model_outputs["plan"]
        new_tokens = model_outputs["new_tokens"]
        reasoning, answer = split_reasoning(self.processor.tokenizer.decode(new_tokens, skip_special_tokens=True))
        evidence = find_evidence(plan, answer, f"{model_outputs['question']} {reasoning}")
        result: dict[str, Any] = {
            "answer": answer,
            "reasoning": reasoning,
            "score": model_outputs["log_probabilities"].double().mean().exp().item(),
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
        result["usage"]["seconds"] = {**model_outputs["seconds"], "evidence": time.perf_counter() - started}
        return result

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Model and processor, its fonts included: a folder for `pipeline("long-doc-qa", model=save_directory)`.

        The base class would leave the processor out, and write this package's code and default model into the folder.
        """
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(
            save_directory, **{name: kwargs[name] for name in _HUB_ARGUMENTS & kwargs.keys()}
        )


def _of_this_copy(processor: Any) -> HybridCtxProcessor:
    """The same processor, of this module's classes.

    Code that travels with a local folder is imported anew for each class that is loaded from there.
    """
    if type(processor).__name__ != HybridCtxProcessor.__name__:
        raise ValueError(
            f"{TASK} needs a HybridCtxProcessor, not {type(processor).__name__}; convert the checkpoint first"
        )
    return HybridCtxProcessor(
        processor.image_processor,
        processor.tokenizer,
        chat_template=processor.chat_template,
        render_config=processor.render_config.to_dict(),
        default_budget=processor.default_budget,
        default_text_policy=processor.default_text_policy,
        fusion_order=processor.fusion_order,
    )


class _Reading:
    """A document's pages as the model saw them last, for the questions whose plans show the same pages."""

    def __init__(self) -> None:
        self.scale: float | None = None
        self.grids: Any = None
        self.embeddings: tuple[torch.Tensor, ...] = ()

    def of_pages(self, plan: ContextPlan, pipe: LongDocQAPipeline, seconds: dict[str, float]) -> dict[str, Any]:
        """What `generate` takes instead of the pages' pixels; `seconds` gets the time it took."""
        started = drawn = time.perf_counter()
        if plan.scale != self.scale:
            pages = pipe.processor.draw_pages(plan, return_tensors="pt").to(pipe.device)
            drawn = time.perf_counter()
            self.grids = pages["image_grid_thw"]
            outputs = pipe.model.get_image_features(pages["pixel_values"], self.grids, return_dict=True)
            self.embeddings, self.scale = tuple(outputs.pooler_output), plan.scale
        seconds |= {"draw": drawn - started, "vision": time.perf_counter() - drawn}
        # a fresh output each time: beam search writes into it
        outputs = BaseModelOutputWithPooling(pooler_output=self.embeddings)
        return {"image_grid_thw": self.grids, "mm_encoder_outputs": {"image": outputs}}


def split_reasoning(text: str) -> tuple[str, str]:
    """What a model says before its answer, and the answer, as GLM's thinking models mark them.

    `<think>...</think>`, then the answer, which may stand in `<answer>...</answer>` or in a box. A text that was cut
    while thinking has no answer.
    """
    reasoning, closed, answer = text.rpartition("</think>")
    if not closed and "<think>" in text:
        reasoning, answer = text, ""
    answer = re.sub(r"</?answer>|<\|(?:begin|end)_of_box\|>", "", answer)
    return reasoning.replace("<think>", "").strip(), answer.strip()


def find_evidence(plan: ContextPlan, answer: str, question: str) -> list[dict[str, Any]]:
    """Where `answer` stands in the document, or its parts (between commas and the like) where the whole does not.

    Of several places the one whose surroundings share most with the question is taken, a rare word counting for more
    than a frequent one, and one that was copied as tokens before one that was not. Nothing is returned for words that
    the document does not have, nor for page pictures, whose text is not known.
    """
    document = plan.document
    if not answer or not isinstance(document, TypesetDocument):
        return []
    evidence: list[dict[str, Any]] = []
    parts = [answer] if _places(document.text, answer) else _PARTS.split(answer)
    for part in dict.fromkeys(part.strip() for part in parts):
        bare = part.strip(_AROUND_WORDS)
        places = (part and _places(document.text, part)) or (bare and _places(document.text, bare)) or []
        if places:
            evidence += _on_lines(document, *_closest(document.text, places, question, plan), plan.scale)
    return evidence


def mark_evidence(plan: ContextPlan, evidence: Sequence[dict[str, Any]]) -> dict[int, Image.Image]:
    """{page: picture} of the pages (from 0) that hold evidence, with its boxes marked."""
    boxes: dict[int, list[tuple[float, float, float, float]]] = {}
    for item in evidence:
        boxes.setdefault(item["page"], []).append(item["box"])
    renderer = PageRenderer(plan.document.config) if boxes else None
    return {
        page: mark_boxes(renderer.draw_page(plan.document, page, plan.scale), boxes[page])
        for page in sorted(boxes)
        if renderer
    }


def _computes_natively(model: Any) -> bool:
    """Whether this CPU has instructions for the model's type, or the type is not ours to change."""
    if model.dtype not in _NATIVE_INSTRUCTIONS or getattr(model, "is_quantized", False):
        return True
    if len(getattr(model, "hf_device_map", None) or ()) > 1:  # accelerate moves parts of it about
        return True
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(capabilities.get(name) for name in _NATIVE_INSTRUCTIONS[model.dtype])


def _checked_questions(question: Any) -> list[str]:
    questions = [question] if isinstance(question, str) else question
    if not isinstance(questions, (list, tuple)):
        raise TypeError(
            f"a question is a string, or a list of strings, not {type(question).__name__}: {question!r:.80}"
        )
    if not questions:
        raise ValueError("question=[] asks nothing: give one question or more")
    for one in questions:
        if not isinstance(one, str):
            raise TypeError(f"a question is a string, not {type(one).__name__}: {one!r:.80}")
        if not one.strip():
            raise ValueError(f"empty question {one!r}: say what is to be found in the document")
    return list(questions)


def _places(text: str, part: str) -> list[tuple[int, int]]:
    """Where `part` stands in `text` as whole words: as it is, else with any white space and in any case."""
    words = r"\s+".join(map(re.escape, part.split()))
    for pattern, flags in ((re.escape(part), 0), (words, re.IGNORECASE)):
        found = []
        for match in re.finditer(pattern, text, flags):
            start, end = match.span()
            if not _is_inside_word(text, start) and not _is_inside_word(text, end):
                found.append((start, end))
                if len(found) > _MAX_PLACES:
                    return []
        if found:
            return found
    return []


def _is_inside_word(text: str, position: int) -> bool:
    """Whether the characters on both sides belong to one number, or to one word of a script that has blanks."""
    if not 0 < position < len(text):
        return False
    if RUN.fullmatch(text, position - 1, position + 1):
        return True
    around = (text[max(0, position - 2) : position + 1], text[position - 1 : position + 2])
    return any(_JOINED_DIGITS.fullmatch(piece) for piece in around)


def _closest(text: str, places: list[tuple[int, int]], question: str, plan: ContextPlan) -> tuple[int, int]:
    """The place whose surroundings share most with the question."""
    asked = {word.lower() for word in RUN.findall(question)}
    around = [
        {
            word.lower()
            for word in RUN.findall(text, max(0, start - _EVIDENCE_CONTEXT), min(len(text), end + _EVIDENCE_CONTEXT))
        }
        & asked
        for start, end in places
    ]
    frequency = Counter(word for words in around for word in words)

    def rank(index: int) -> tuple[float, bool, int]:
        start, end = places[index]
        copied = any(span.start <= start and end <= span.end for span in plan.spans)
        return -sum(1 / frequency[word] for word in around[index]), not copied, start

    return places[min(range(len(places)), key=rank)]


def _on_lines(document: TypesetDocument, start: int, end: int, scale: float) -> Iterator[dict[str, Any]]:
    """Characters [start, end), an item for each line (for each stretch of it where scripts of both directions mix)."""
    for page, box in document.boxes(start, end, scale):
        shown = [
            (max(start, first), min(end, last))
            for first, last in document.spans_in_box(page, box, scale)
            if first < end and last > start
        ]
        if shown:
            first, last = min(shown)[0], max(shown)[1]
            yield {"page": page, "start": first, "end": last, "box": box, "text": document.text[first:last]}


def _with_progress(work: Sequence[Any]) -> Iterator[Any]:
    """The same, with a bar where there are several and transformers shows progress bars."""
    if len(work) < 2:
        return iter(work)
    return iter(logging.tqdm(work, desc="questions", unit="question"))


_HUB_ARGUMENTS = frozenset(("push_to_hub", "repo_id", "commit_message", "private", "token", "revision", "create_pr"))
_PARTS = re.compile(r"[,;、，；\n]|\band\b")
_JOINED_DIGITS = re.compile(r"\d[.,:]\d")
_AROUND_WORDS = " .!?:。！？：'\"“”‘’()[]"


def _says_something(record: Any) -> bool:
    """False for transformers' advice to name a model and a revision: the package's version pins the bundled one."""
    return not record.getMessage().startswith(f"No model was supplied, defaulted to {BUNDLED_CHECKPOINT} ")


logging.get_logger("transformers.pipelines").addFilter(_says_something)
PIPELINE_REGISTRY.register_pipeline(
    TASK,
    pipeline_class=LongDocQAPipeline,
    pt_model=AutoModelForImageTextToText,
    default={"model": (str(BUNDLED_CHECKPOINT), None)},
    type="multimodal",
)

__all__ = ["LongDocQAPipeline"]
