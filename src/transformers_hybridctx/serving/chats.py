# SPDX-License-Identifier: Apache-2.0
"""Chats answered: documents are read once for all who ask about them, and each answer says what it rests on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from threading import Event
from typing import Any

import torch
from transformers import StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from ..answering.json_answers import answer_as_json
from ..answering.results import LongDocAnswer
from ..caching.document_cache import DocumentCache
from ..caching.model_lock import model_lock
from ..caching.reading_request import ReadingRequest
from ..grounding.evidence import split_reasoning
from ..pipeline_long_doc_qa import LongDocQAPipeline
from ..planning.budget import ContextBudget, ContextBudgetError
from ..planning.paged_document import PagedDocument
from ..planning.policies.attention import AttentionPolicy
from ..planning.policies.auto import AutoPolicy
from ..planning.policies.base import TextPolicy
from ..planning.policies.registry import resolve_text_policy
from .messages import AskedChat
from .readings import Found, ReadingStore, reading_key
from .settings import ServerSettings
from .stopping import StopsEarly
from .uploads import UploadedDocument
from .wire import HybridOptions


class ChatAnswerer:
    """
    Answers chats, with and without documents, by a pipeline. Threads may share one.

    A document is typeset, drawn and read by the model once; whoever asks about the same document, with the same options
    and system message, shares that reading. A document that takes no more tokens as text than its pages and what is
    copied beside them goes as text.
    """

    def __init__(self, pipe: LongDocQAPipeline, settings: ServerSettings) -> None:
        self.pipe = pipe
        self.readings = ReadingStore(settings.memory_bytes, settings.cache_dir, settings.cache_dir_bytes)
        self._settings = settings

    def num_tokens(self, text: str) -> int:
        """Of a text, as text."""
        return self.pipe.processor.encoder.count(text)

    def answer(
        self,
        asked: AskedChat,
        options: HybridOptions,
        generation: dict[str, Any],
        cancelled: Event,
        streamer: BaseStreamer | None = None,
    ) -> dict[str, Any]:
        """
        What [`LongDocQAPipeline`] returns, `usage["cached_tokens"]` added, and `hybridctx`, which is plain JSON.

        Raises:
            ValueError: before the model generates anything, where the request cannot be met.
        """
        stops_early = StopsEarly(cancelled, self._settings.max_seconds)
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
            self._key(asked, options),
            lambda: self._read(asked, options),
            lambda kept: kept.attach(self.pipe.model, self.pipe.processor),
        )
        held: dict[str, Any] = {"repair": options.repair, "abstain": options.abstain}
        if options.grounding is not None:
            held["grounding"] = options.grounding
        answer = self.pipe(
            question=asked.question, document=reading, history=list(asked.history) or None, **held, **generation
        )
        answer["usage"]["cached_tokens"] = 0 if found == "read now" else len(reading)
        answer["hybridctx"] = _what_it_rests_on(asked.question, answer, found)
        return answer

    def _key(self, asked: AskedChat, options: HybridOptions) -> str:
        documents = [(document.digest, document.name) for document in asked.documents]
        return reading_key(documents, asked.system, options.model_dump(exclude={"grounding", "repair", "abstain"}))

    def _read(self, asked: AskedChat, options: HybridOptions) -> DocumentCache:
        processor = self.pipe.processor
        document = self._laid_out(asked.documents)
        request = ReadingRequest.of(
            processor,
            self._budget(options),
            options.text_policy or _never_losing(processor.default_text_policy),
            system=asked.system,
            chat_template_kwargs=options.chat_template_kwargs,
        )
        return self.pipe.engine.read(
            document,
            budget=request.budget,
            text_policy=request.text_policy,
            **{name: value for name, value in request.options.items() if name != "fusion_order"},
        )

    def _budget(self, options: HybridOptions) -> ContextBudget:
        budget = ContextBudget.of(options.budget).filled_from(ContextBudget.of(self.pipe.processor.default_budget))
        most = self._settings.max_context_tokens
        if most is None:
            most = self.pipe.processor.default_budget.get("max_context_tokens")
        if most is not None and (budget.max_context_tokens or most + 1) > most:
            if "max_context_tokens" in options.budget:
                raise ValueError(
                    f"max_context_tokens={budget.max_context_tokens} is more than the {most} that this server takes"
                )
            budget = replace(budget, max_context_tokens=most)
        return budget

    def _laid_out(self, documents: Sequence[UploadedDocument]) -> PagedDocument:
        contents = [document.content for document in documents]
        if len(contents) > 1 and not all(isinstance(content, str) for content in contents):
            raise ValueError(
                "several documents of one conversation are joined as text, and one of them has scanned pages: "
                "ask about one at a time"
            )
        if len(contents) > 1:
            named = [
                (document.name or f"document {number}", document.content)
                for number, document in enumerate(documents, start=1)
            ]
            contents = ["\n\n".join(f"# {name}\n\n{text}" for name, text in named)]
        content = contents[0]
        most = self._settings.max_document_characters
        if isinstance(content, str) and len(content) > most:
            raise ValueError(
                f"the documents have {len(content):,} characters, more than the {most:,} that this server reads"
            )
        laid_out = self.pipe.lay_out(text=content) if isinstance(content, str) else self.pipe.lay_out(content)
        if laid_out.num_pages > self._settings.max_pages:
            raise ValueError(
                f"the documents have {laid_out.num_pages:,} pages, more than the {self._settings.max_pages:,} that this "
                "server reads"
            )
        return laid_out

    def _answer_without_document(
        self, asked: AskedChat, options: HybridOptions, generation: dict[str, Any]
    ) -> dict[str, Any]:
        started = time.perf_counter()
        model, processor = self.pipe.model, self.pipe.processor
        turns = [part for question, answer in asked.history for part in (("user", question), ("assistant", answer))]
        turns = [*([("system", asked.system)] if asked.system else []), *turns, ("user", asked.question)]
        features = processor.apply_chat_template(
            [{"role": role, "content": [{"type": "text", "text": said}]} for role, said in turns],
            tokenize=True,
            return_dict=True,
            add_generation_prompt=True,
            return_tensors="pt",
            **options.chat_template_kwargs,
        ).to(model.device)
        length = features["input_ids"].shape[1]
        most = self._budget(options).max_context_tokens
        if most is not None and length > most:
            raise ContextBudgetError(
                f"the conversation has {length} tokens, more than max_context_tokens={most}", length
            )
        stops = {"tokenizer": processor.tokenizer} if "stop_strings" in generation else {}
        with torch.no_grad(), model_lock(model):
            output = model.generate(**features, **generation, **stops)
        new_tokens = output[0, length:]
        reasoning, words = split_reasoning(processor.tokenizer.decode(new_tokens, skip_special_tokens=True))
        was_cut = len(new_tokens) >= generation["max_new_tokens"]
        usage = {"prompt_tokens": length, "new_tokens": len(new_tokens), "cached_tokens": 0}
        return {
            "answer": words,
            "reasoning": reasoning,
            "finish_reason": "length" if was_cut else "stop",
            "usage": usage,
            "hybridctx": {"document": None, "seconds": {"answer": time.perf_counter() - started}},
        }


def _never_losing(policy: str | dict[str, Any]) -> TextPolicy:
    """A checkpoint's policy for texts that are shorter as pages; others go as text."""
    own = resolve_text_policy(policy)
    return own if isinstance(own, (AutoPolicy, AttentionPolicy)) else AutoPolicy(own)


def _what_it_rests_on(question: str, answer: LongDocAnswer, found: Found) -> dict[str, Any]:
    """What stands beside the message: all of the answer but what OpenAI's own fields say."""
    said = answer_as_json(question, answer)
    seconds = said["usage"].pop("seconds")
    for name in ("question", "answer", "reasoning", "finish_reason", "pictures"):
        del said[name]
    return {**said, "seconds": seconds, "reading": found}


__all__ = ["ChatAnswerer"]
