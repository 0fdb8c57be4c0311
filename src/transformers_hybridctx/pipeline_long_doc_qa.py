# SPDX-License-Identifier: Apache-2.0
"""`pipeline("long-doc-qa")`: a document and questions in; answers out, each with the places that support it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, GenerationConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import Pipeline
from transformers.utils import logging

from .bundled_checkpoint import BUNDLED_CHECKPOINT
from .caching.attention_ranking import rank_by_attention
from .caching.document_cache import DocumentCache
from .caching.prefix import PrefixCache, common_length, empty_cache, not_finite_error
from .configuration_hybridctx import HybridCtxConfig
from .documents.files import names_a_file, read_document_file
from .grounding.evidence import find_evidence, mark_evidence, split_reasoning
from .modules.loading import loaded_with
from .modules.quantization import computes_natively
from .planning.budget import ContextBudget
from .planning.paged_document import PagedDocument
from .planning.plan import ContextPlan
from .planning.policies.attention import AttentionPolicy
from .planning.policies.base import TextPolicy
from .planning.policies.registry import resolve_text_policy
from .processing_hybridctx import HybridCtxProcessor
from .prompting.features import prompt_features
from .remote_code import TravelsWithCode

TASK = "long-doc-qa"


@dataclass(eq=False)
class _Prompt:
    """A question's prompt, and the seconds that its stages took."""

    question: str
    plan: ContextPlan
    input_ids: list[int]
    seconds: dict[str, float]


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

    A document is a text, a path (text, Markdown, HTML, PDF, picture), a list of page pictures, what
    [`LongDocQAPipeline.lay_out`] returned, or a [`DocumentCache`] from [`LongDocQAPipeline.read`]. Generation parameters,
    such as `max_new_tokens` or `num_beams`, may be given to the pipeline or to a call.

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
            processor = HybridCtxProcessor.from_pretrained(model.config._name_or_path, **loaded_with(model))
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

        Several questions share one layout of the document and, where their plans agree on the scale of its pages, one
        reading of all that their prompts begin with alike.

        Args:
            inputs: `{"question": ..., "document": ...}` instead of the two arguments, or a list of these.
            question (`str` or list of `str`): what is asked.
            document: see [`LongDocQAPipeline`].
            budget ([`ContextBudget`] or dict, *optional*): how many tokens, and what they go to.
            text_policy (`str`, dict or [`TextPolicy`], *optional*): what is copied as exact tokens.
            fusion_order (`str`, *optional*): `"pages_first"` or `"tokens_first"`.
            batch_size (`int`, *optional*): questions that are answered at a time; 1 unless given.
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
            requests = logging.tqdm(inputs, desc="requests", disable=len(inputs) < 2)
            return [self(one, question=question, document=document, **kwargs) for one in requests]
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
        batch_size = kwargs.pop("batch_size", None) or self._batch_size or 1
        preprocess, forward, postprocess = self._sanitize_parameters(**kwargs)
        preprocess = {**self._preprocess_params, **preprocess}
        forward = {**self._forward_params, **forward}
        postprocess = {**self._postprocess_params, **postprocess}

        if isinstance(document, DocumentCache):
            document.attach(self.model, self.processor)
        else:
            document = self.lay_out(document)
            if _unranked(preprocess.get("text_policy") or self.processor.default_text_policy):
                document = self.read(document, **preprocess)
        prompts = [self.preprocess({"document": document, "question": one}, **preprocess) for one in questions]
        answers = dict(self._answer(prompts, document, batch_size, forward, postprocess))
        ordered = [answers[prompt] for prompt in prompts]
        return ordered[0] if isinstance(question, str) else ordered

    def lay_out(self, document: Any) -> PagedDocument:
        """The document laid out, without a model's work: files are read and text is typeset only once."""
        if names_a_file(document):
            document = read_document_file(document)
        return self.processor.read_document(document)

    def read(self, document: Any, **options: Any) -> DocumentCache:
        """
        Let the model read the document, for any number of questions: each then costs its own tokens only.

        Args:
            document: what a call takes.
            options: `budget`, `text_policy`, `fusion_order`, `question_tokens` and `prefill_chunk_size`, as in
                [`DocumentCache.read`].
        """
        defaults = {**self._preprocess_params, "prefill_chunk_size": self._option({}, "prefill_chunk_size")}
        with torch.no_grad(), self.device_placement():
            return DocumentCache.read(self.model, self.processor, self.lay_out(document), **{**defaults, **options})

    def preprocess(self, input_: dict[str, Any], **parameters: Any) -> _Prompt:
        """The plan and the prompt; its pages are drawn when the model reads them."""
        started = time.perf_counter()
        document, question = input_["document"], input_["question"]
        seconds = {}
        if isinstance(document, DocumentCache):
            if policy := _unranked(parameters.get("text_policy") or document.text_policy):
                with self.device_placement():
                    ranked = rank_by_attention(self.model, self.processor, document, question, policy)
                parameters["text_policy"] = ranked
                seconds["attend"] = time.perf_counter() - started
                started += seconds["attend"]
            input_ids, plan = document.prompt(self.processor, question, **parameters)
        else:
            features, plan = self.processor(
                document=document, question=question, draw_pages=False, return_plan=True, **parameters
            )
            input_ids = features["input_ids"][0]
        return _Prompt(question, plan, input_ids, seconds | {"plan": time.perf_counter() - started})

    def _answer(
        self,
        prompts: list[_Prompt],
        document: Any,
        batch_size: int,
        forward: dict[str, Any],
        postprocess: dict[str, Any],
    ) -> Iterator[tuple[_Prompt, dict[str, Any]]]:
        """Each prompt and its answer, those that show the same pages after one another."""
        with logging.tqdm(desc="questions", unit="question", total=len(prompts), disable=len(prompts) < 2) as progress:
            for _, same_pages in groupby(sorted(prompts, key=_pages_of), key=_pages_of):
                group = list(same_pages)
                is_read = isinstance(document, DocumentCache)
                seen, prefix = ({}, document.prefix) if is_read else self._read_ahead(group, forward)
                step = batch_size if prefix is not None else 1
                for start in range(0, len(group), step):
                    batch = group[start : start + step]
                    inputs = {"prompts": batch, "prefix": prefix, "seen": seen}
                    for prompt, output in zip(batch, self.forward(inputs, **forward)["answers"], strict=True):
                        yield prompt, self.postprocess(output, **postprocess)
                    progress.update(len(batch))

    def _read_ahead(
        self, prompts: list[_Prompt], generate_kwargs: dict[str, Any]
    ) -> tuple[dict[str, Any], PrefixCache | None]:
        """What prompts with the same pages share: (pages as the vision tower sees them, what the decoder can keep)."""
        plan, seconds = prompts[0].plan, prompts[0].seconds
        seen: dict[str, Any] = {}
        with torch.no_grad(), self.device_placement():
            if plan.num_pages:
                started = time.perf_counter()
                pages = self.processor.draw_pages(plan, return_tensors="pt").to(self.device)
                drawn = time.perf_counter()
                grids = pages["image_grid_thw"]
                outputs = self.model.get_image_features(pages["pixel_values"], grids, return_dict=True)
                seen = {"image_grid_thw": grids, "page_embeddings": tuple(outputs.pooler_output)}
                seconds |= {"draw": drawn - started, "vision": time.perf_counter() - drawn}
            length = common_length([prompt.input_ids for prompt in prompts])
            prefix = prompts[0].input_ids[:length]
            has_pages = prefix.count(self.processor.image_token_id) == plan.visual_tokens
            if len(prompts) == 1 or not length or not has_pages or self._is_assisted(generate_kwargs):
                return seen, None
            started = time.perf_counter()
            chunk_size = self._option(generate_kwargs, "prefill_chunk_size")
            cache = PrefixCache.read(self.model, self._features(prefix, seen), chunk_size)
            seconds["read"] = time.perf_counter() - started
        return seen, cache

    def _features(self, input_ids: list[int], seen: dict[str, Any]) -> dict[str, Any]:
        """One prompt as `generate` takes it."""
        plain = prompt_features([input_ids], self.processor.image_token_id)
        features: dict[str, Any] = {name: value.to(self.device) for name, value in plain.items()}
        if seen:
            # a fresh output each time: beam search writes into it
            outputs = BaseModelOutputWithPooling(pooler_output=seen["page_embeddings"])
            features |= {"image_grid_thw": seen["image_grid_thw"], "mm_encoder_outputs": {"image": outputs}}
        return features

    def _forward(self, model_inputs: dict[str, Any], **generate_kwargs: Any) -> dict[str, Any]:
        prompts, prefix = model_inputs["prompts"], model_inputs["prefix"]
        started = time.perf_counter()
        generate_kwargs = self._prepare_generate_kwargs(generate_kwargs)
        if prefix is None:
            features = self._features(prompts[0].input_ids, model_inputs["seen"])
        else:
            rows = [prompt.input_ids for prompt in prompts]
            cache = self._cache_to_fill(max(map(len, rows)), generate_kwargs)
            sequences = [self._option(generate_kwargs, name) or 1 for name in ("num_beams", "num_return_sequences")]
            pad_token_id = self.processor.tokenizer.pad_token_id
            features = dict(prefix.features(rows, pad_token_id, cache, max(sequences)).to(self.device))
            generate_kwargs["use_cache"] = True
        if self._is_assisted(generate_kwargs) and self._option(generate_kwargs, "suppress_tokens") is None:
            # what is drafted is copied from the prompt, where a page's tokens are, too
            generate_kwargs["suppress_tokens"] = [self.processor.image_token_id]
        output = self.model.generate(**features, return_dict_in_generate=True, output_logits=True, **generate_kwargs)
        answers = self._new_tokens(output, features["input_ids"], generate_kwargs)
        seconds = (time.perf_counter() - started) / len(prompts)
        return {
            "answers": [
                {
                    "plan": prompt.plan,
                    "question": prompt.question,
                    "seconds": {**prompt.seconds, "answer": seconds},
                    "new_tokens": new_tokens,
                    "log_probabilities": log_probabilities,
                }
                for prompt, (new_tokens, log_probabilities) in zip(prompts, answers, strict=True)
            ]
        }

    def _new_tokens(
        self, output: Any, input_ids: torch.Tensor, generate_kwargs: dict[str, Any]
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The first sequence of each prompt: what was generated, and the log probability of each token."""
        beams = getattr(output, "beam_indices", None)
        scores = self.model.compute_transition_scores(output.sequences, output.logits, beams, normalize_logits=True)
        if scores.isnan().any():
            raise not_finite_error("the model computes NaN", self.model.dtype)
        ends = self._option(generate_kwargs, "eos_token_id")
        ends = torch.tensor([] if ends is None else ends, device=output.sequences.device).view(-1)
        for row in range(0, len(output.sequences), len(output.sequences) // len(input_ids)):
            new_tokens = output.sequences[row, input_ids.shape[1] :]
            if beams is not None:  # a beam that ended before the longest one is padded
                length = int((beams[row] >= 0).sum())
            else:  # so is a row of a batch
                ended = torch.isin(new_tokens, ends).nonzero()
                length = int(ended[0]) + 1 if len(ended) else len(new_tokens)
            yield new_tokens[:length], scores[row, :length]

    def _cache_to_fill(self, prompt_length: int, generate_kwargs: dict[str, Any]) -> Any:
        """The kind of cache that the caller wishes for, taken out of the keyword arguments; None: the usual one."""
        given = generate_kwargs.pop("past_key_values", None)
        implementation = self._option(generate_kwargs, "cache_implementation")
        generate_kwargs["cache_implementation"] = None  # generate() takes a kind or a cache
        if given is not None:
            return given
        options = self._option(generate_kwargs, "cache_config")
        new_tokens = self._option(generate_kwargs, "max_new_tokens") or 0
        max_length = max(prompt_length + new_tokens, self._option(generate_kwargs, "max_length") or 0)
        return empty_cache(self.model.config, implementation, options, max_length)

    def _is_assisted(self, generate_kwargs: dict[str, Any]) -> bool:
        """Whether tokens are drafted, by another model or from the prompt."""
        return bool(
            generate_kwargs.get("assistant_model") or self._option(generate_kwargs, "prompt_lookup_num_tokens")
        )

    def _option(self, generate_kwargs: dict[str, Any], name: str) -> Any:
        """A generation parameter of a call, or else of the pipeline, or else of the model."""
        given = self._prepare_generate_kwargs(generate_kwargs)
        if name in given:
            return given[name]
        config = given.get("generation_config")
        value = None if config is None else getattr(config, name)
        return getattr(self.model.generation_config, name) if value is None else value

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


def _pages_of(prompt: _Prompt) -> tuple[bool, float]:
    """Prompts of one document that agree in this show the same pages."""
    return bool(prompt.plan.num_pages), prompt.plan.scale


def _unranked(policy: str | dict[str, Any] | TextPolicy) -> AttentionPolicy | None:
    """The policy, if the model has yet to say which passages it copies."""
    policy = resolve_text_policy(policy)
    return policy if isinstance(policy, AttentionPolicy) and policy.ranking is None else None


def _computes_natively(model: Any) -> bool:
    """Whether this CPU has instructions for the model's type, or the type is not ours to change."""
    if getattr(model, "is_quantized", False) or len(getattr(model, "hf_device_map", None) or ()) > 1:
        return True  # bitsandbytes' own affair; accelerate moves parts of it about
    return computes_natively(model.dtype)


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


_HUB_ARGUMENTS = frozenset(("push_to_hub", "repo_id", "commit_message", "private", "token", "revision", "create_pr"))


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

__all__ = ["BUNDLED_CHECKPOINT", "LongDocQAPipeline"]
