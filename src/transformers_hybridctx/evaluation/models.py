# SPDX-License-Identifier: Apache-2.0
"""What answers samples: a HybridCtx checkpoint in any context, or another text model, its prompt cut in the middle."""

from __future__ import annotations

import hashlib
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, pipeline
from transformers.generation.streamers import BaseStreamer

from ..caching.checkpoint_checksum import checkpoint_checksum
from ..configuration_hybridctx import HybridCtxConfig
from ..documents.files import read_document_file
from ..grounding.evidence import split_reasoning
from ..modules.quantization import computes_natively
from ..pipeline_long_doc_qa import LongDocQAPipeline
from .blank_pages import with_blank_pages
from .contexts import Context
from .samples import Sample

_PLACES = 3  # of the evidence are kept
PREFIX_PLACES = ("question", "answer")
"""Where the benchmark's own beginning of an answer may stand."""


@dataclass
class Reply:
    """What a model said to a sample, and at what cost: the fields of a [`Record`]."""

    answer: str
    reasoning: str = ""
    prompt: str = ""
    plan: dict[str, Any] = field(default_factory=dict)
    support: str | None = None
    evidence: list[Any] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory: int | None = None
    budget: int | None = None


class Model(Protocol):
    """
    What a run asks.

    `weights`: a checksum of all that it computes with: a run goes on with the same weights only, whatever their name.
    """

    name: str
    weights: str
    tokenizer: Any
    device: Any

    def answers(
        self, samples: Sequence[Sample], context: Context, prefix: str | None, **generation: Any
    ) -> Iterator[Reply | Exception]:
        """A reply, or what went wrong, for each sample in turn; all have one and the same context text."""
        ...


class HybridModel:
    """
    A HybridCtx checkpoint.

    Args:
        pipe ([`LongDocQAPipeline`]): stays as it is.
    """

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._blind = with_blank_pages(pipe)
        self.name = str(pipe.model.config._name_or_path)
        self.weights = checkpoint_checksum(pipe.model)
        self.tokenizer = pipe.processor.tokenizer
        self.device = pipe.device
        self._laid_out: tuple[str, Any] = ("", None)

    def answers(
        self, samples: Sequence[Sample], context: Context, prefix: str | None, **generation: Any
    ) -> Iterator[Reply | Exception]:
        pipe = self._blind if context.blank_pages else self._pipe
        text = samples[0].context
        read_seconds = 0.0
        try:
            if self._laid_out[0] != text:
                self._laid_out = (text, self._lay_out(samples[0]))
            document = self._laid_out[1]
            options = context.options(samples[0].length or self._pipe.processor.encoder.count(document.text))
            if len(samples) > 1 and context.can_be_read_ahead:
                started = time.perf_counter()
                reading = {name: value for name, value in options.items() if name != "grounding"}
                document = pipe.engine.read(document, **reading)
                read_seconds = time.perf_counter() - started
                options = {name: value for name, value in options.items() if name == "grounding"}
        except (ValueError, RuntimeError, OSError) as error:
            yield from [error] * len(samples)
            return
        for sample in samples:
            try:
                yield self._answer(pipe, document, sample, context, prefix, options, read_seconds, generation)
            except (ValueError, RuntimeError) as error:  # a budget that cannot be met; out of memory
                yield error
            read_seconds = 0.0  # the first question pays for it

    def _lay_out(self, sample: Sample) -> Any:
        if sample.is_file:
            return self._pipe.lay_out(Path(sample.context), file_options={"layout": "source"})
        return self._pipe.lay_out(text=sample.context)

    def _answer(
        self,
        pipe: Any,
        document: Any,
        sample: Sample,
        context: Context,
        prefix: str | None,
        options: dict[str, Any],
        read_seconds: float,
        generation: dict[str, Any],
    ) -> Reply:
        clock = _FirstToken()
        if (generation.get("num_beams") or 1) == 1:
            generation = {**generation, "streamer": clock}
        _forget_peak(self.device)
        asked, start = asked_of(sample, prefix)
        if start:
            generation = {**generation, "answer_start": start}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "the answer to .* was cut off")  # the record says so
            result = pipe(
                question=asked, document=document, **options, **{"max_new_tokens": sample.max_new_tokens, **generation}
            )
        seconds = dict(result["usage"]["seconds"])
        if read_seconds:
            seconds["read"] = seconds.get("read", 0.0) + read_seconds
        if clock.seconds is not None:
            seconds["first token"] = clock.seconds + read_seconds
        plan = result["plan"]
        shown = (
            plan.document.text,
            asked + start,
            plan.scale,
            plan.page_tokens,
            [(span.start, span.end) for span in plan.spans],
            *([plan.latent_ids] if plan.latents else []),
        )
        return Reply(
            answer=result["answer"],
            reasoning=result["reasoning"],
            prompt=_hash_of(shown, context.blank_pages),
            plan={
                "document": plan.document_tokens,
                "visual": plan.visual_tokens,
                "latent": plan.latent_tokens,
                "text": plan.text_tokens,
                "question": plan.question_tokens,
                "template": plan.template_tokens,
                "prompt": plan.total_tokens,
                "new": result["usage"]["new_tokens"],
                "pages": plan.num_pages,
                "scale": plan.scale,
                "compression": plan.compression_ratio,
            },
            support=None if result["support"] is None else result["support"]["status"],
            evidence=[
                {"page": place["page"], "start": place["start"], "end": place["end"], "box": list(place["box"])}
                for place in result["evidence"][:_PLACES]
            ],
            seconds={name: round(value, 4) for name, value in seconds.items()},
            peak_memory=_peak_memory(self.device),
            budget=context.prompt_bound(sample.length or plan.document_tokens),
        )


class TextModel:
    """
    Any other causal language model by name: the whole text as tokens, or as much of its head and tail as a budget has.

    It knows the contexts `tokens` and `truncated`; other ones are failures that say so.

    Args:
        name: folder or Hub id.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.tokenizer = AutoTokenizer.from_pretrained(name)
        self._model = AutoModelForCausalLM.from_pretrained(name, dtype="auto")
        self.device = self._model.device
        if self.device.type == "cpu" and not computes_natively(self._model.dtype):
            self._model.float()
        self.weights = checkpoint_checksum(self._model)

    def answers(
        self, samples: Sequence[Sample], context: Context, prefix: str | None, **generation: Any
    ) -> Iterator[Reply | Exception]:
        for sample in samples:
            try:
                yield self._answer(sample, context, prefix, generation)
            except (ValueError, RuntimeError) as error:
                yield error

    def _answer(self, sample: Sample, context: Context, prefix: str | None, generation: dict[str, Any]) -> Reply:
        if context.kind not in ("tokens", "truncated") or context.grounding != "none":
            raise ValueError(f"{self.name} is a text model: it knows the contexts 'tokens' and 'truncated', not held")
        asked, start = asked_of(sample, prefix)
        whole = str(read_document_file(Path(sample.context))) if sample.is_file else sample.context
        count = len(self._encode(whole))
        bound = context.prompt_bound(sample.length or count)
        prompt = self._prompt(whole, asked, start)
        around = len(prompt) - count
        if bound is not None and len(prompt) > bound:
            keep = bound - around
            if keep <= 0:
                raise ValueError(f"a budget of {bound} tokens has no room beside a question of {around}")
            ids = self._encode(whole)
            text = self.tokenizer.decode(ids[: keep - keep // 2]) + self.tokenizer.decode(ids[len(ids) - keep // 2 :])
            prompt = self._prompt(text, asked, start)
        clock = _FirstToken()
        _forget_peak(self.device)
        started = time.perf_counter()
        beams = generation.get("num_beams") or 1
        output = self._model.generate(
            torch.tensor([prompt], device=self.device),
            **{"max_new_tokens": sample.max_new_tokens, "do_sample": False, **generation},
            streamer=clock if beams == 1 else None,
        )
        said = output[0, len(prompt) :]
        seconds = {"answer": time.perf_counter() - started}
        if clock.seconds is not None:
            seconds["first token"] = clock.seconds
        reasoning, answer = split_reasoning(self.tokenizer.decode(said, skip_special_tokens=True))
        question_tokens = len(self._encode(asked))
        return Reply(
            answer=answer,
            reasoning=reasoning,
            prompt=_hash_of((prompt,), False),
            plan={
                "document": count,
                "visual": 0,
                "latent": 0,
                "text": len(prompt) - around,
                "question": question_tokens,
                "template": around - question_tokens,
                "prompt": len(prompt),
                "new": len(said),
            },
            seconds={name: round(value, 4) for name, value in seconds.items()},
            peak_memory=_peak_memory(self.device),
            budget=bound,
        )

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _prompt(self, text: str, asked: str, start: str) -> list[int]:
        words, begun = f"{text}\n{asked}", self._encode(start) if start else []
        if not self.tokenizer.chat_template:
            return [*self.tokenizer(words, verbose=False)["input_ids"], *begun]
        chat = [{"role": "user", "content": words}]
        prompt = self.tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
        return [*prompt, *begun]


def load_model(model: Any) -> Model:
    """
    What a run asks: a pipeline, a checkpoint's name (None: the bundled one), or itself.

    A name of another architecture is a [`TextModel`].
    """
    if isinstance(model, LongDocQAPipeline):
        return HybridModel(model)
    if model is not None and not isinstance(model, str):
        return model
    if model is not None and AutoConfig.from_pretrained(model).model_type != HybridCtxConfig.model_type:
        return TextModel(model)
    return HybridModel(pipeline("long-doc-qa", model=model))


def asked_of(sample: Sample, prefix: str | None) -> tuple[str, str]:
    """The question as the model gets it, and the words with which its answer begins."""
    if prefix == "question":
        return sample.question + sample.answer_prefix, ""
    return sample.question, sample.answer_prefix.lstrip() if prefix == "answer" else ""


class _FirstToken(BaseStreamer):
    """Notes when the first token of an answer came."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._has_prompt = False
        self.seconds: float | None = None

    def put(self, value: Any) -> None:
        if not self._has_prompt:
            self._has_prompt = True
        elif self.seconds is None:
            self.seconds = time.perf_counter() - self._started

    def end(self) -> None:
        pass


def _hash_of(shown: tuple[Any, ...], is_blank: bool) -> str:
    return hashlib.sha256(repr((*shown, is_blank)).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _forget_peak(device: Any) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak_memory(device: Any) -> int | None:
    """Bytes: of the accelerator for this sample; else of the process since it began."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if sys.platform == "win32":
        return None
    import resource

    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


__all__ = ["HybridModel", "Model", "Reply", "TextModel", "asked_of", "load_model"]
