# SPDX-License-Identifier: Apache-2.0
"""Chats answered by a pipeline: documents are read once for all who ask about them."""

from __future__ import annotations

import time
from threading import Event
from typing import Any

import torch
from transformers import StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from ..caching.document_cache import DocumentCache
from ..caching.model_lock import model_lock
from ..caching.reading_request import ReadingRequest
from ..grounding.evidence import split_reasoning
from ..pipeline_long_doc_qa import LongDocQAPipeline
from .answerers import ChatAnswerer, what_it_rests_on
from .messages import AskedChat
from .readings import ReadingStore
from .settings import ServerSettings
from .stopping import StopsEarly
from .wire import HybridOptions


class PipelineAnswerer(ChatAnswerer):
    """
    A pipeline answers. A document is typeset, drawn and read by the model once; whoever asks about the same document,
    with the same options and system message, shares that reading.
    """

    def __init__(self, pipe: LongDocQAPipeline, settings: ServerSettings) -> None:
        super().__init__(pipe.processor, settings)
        self.pipe = pipe
        self.readings = ReadingStore(settings.memory_bytes, settings.cache_dir, settings.cache_dir_bytes)

    @property
    def kept_bytes(self) -> int:
        return self.readings.memory_bytes

    def answer(
        self,
        asked: AskedChat,
        options: HybridOptions,
        generation: dict[str, Any],
        cancelled: Event,
        streamer: BaseStreamer | None = None,
    ) -> dict[str, Any]:
        stops_early = StopsEarly(cancelled, self.settings.max_seconds)
        generation = {**generation, "stopping_criteria": StoppingCriteriaList([stops_early])}
        if streamer is not None:
            generation["streamer"] = streamer
        answered = self._answer_about if asked.documents else self._answer_without_document
        answer = answered(asked, options, generation)
        if stops_early.has_cut:
            answer["finish_reason"] = "length"
        return answer

    def _answer_about(self, asked: AskedChat, options: HybridOptions, generation: dict[str, Any]) -> dict[str, Any]:
        reading, found = self.readings.get(
            self.key(asked, options),
            lambda: self._read(asked, options),
            lambda kept: kept.attach(self.pipe.model, self.processor),
        )
        held = options.model_dump(include={"grounding", "repair", "abstain", "look_closer"}, exclude_none=True)
        answer = self.pipe(
            question=asked.question, document=reading, history=list(asked.history) or None, **held, **generation
        )
        answer["usage"]["cached_tokens"] = 0 if found == "read now" else len(reading)
        answer["hybridctx"] = what_it_rests_on(asked.question, answer, found)
        return answer

    def _read(self, asked: AskedChat, options: HybridOptions) -> DocumentCache:
        document = self.laid_out(asked.documents)
        request = ReadingRequest.of(
            self.processor,
            self.budget(options),
            self.policy(options),
            system=asked.system,
            chat_template_kwargs=options.chat_template_kwargs,
        )
        return self.pipe.engine.read(
            document,
            budget=request.budget,
            text_policy=request.text_policy,
            **{name: value for name, value in request.options.items() if name != "fusion_order"},
        )

    def _answer_without_document(
        self, asked: AskedChat, options: HybridOptions, generation: dict[str, Any]
    ) -> dict[str, Any]:
        started = time.perf_counter()
        model, tokenizer = self.pipe.model, self.processor.tokenizer
        input_ids = torch.tensor([self.conversation_ids(asked, options)], device=model.device)
        length = input_ids.shape[1]
        stops = {"tokenizer": tokenizer} if "stop_strings" in generation else {}
        with torch.no_grad(), model_lock(model):
            output = model.generate(
                input_ids=input_ids, attention_mask=torch.ones_like(input_ids), **generation, **stops
            )
        new_tokens = output[0, length:]
        reasoning, words = split_reasoning(tokenizer.decode(new_tokens, skip_special_tokens=True))
        was_cut = len(new_tokens) >= generation["max_new_tokens"]
        usage = {"prompt_tokens": length, "new_tokens": len(new_tokens), "cached_tokens": 0}
        return {
            "answer": words,
            "reasoning": reasoning,
            "finish_reason": "length" if was_cut else "stop",
            "usage": usage,
            "hybridctx": {"document": None, "seconds": {"answer": time.perf_counter() - started}},
        }


__all__ = ["PipelineAnswerer"]
