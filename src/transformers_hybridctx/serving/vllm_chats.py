# SPDX-License-Identifier: Apache-2.0
"""Chats answered by vLLM: this package plans and draws, vLLM's scheduler, prefix cache and kernels do the rest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from threading import Event, Lock, Thread
from typing import Any
from uuid import uuid4

import torch
from cachetools import LRUCache
from transformers import GenerationConfig
from transformers.generation.streamers import BaseStreamer

from ..answering.engine import AskedQuestion, GeneratedAnswer
from ..answering.results import result_of
from ..grounding.evidence import split_reasoning
from ..grounding.grounded import Grounding, document_index
from ..grounding.quote_processor import DocumentQuoteProcessor, Quotation
from ..planning.paged_document import PagedDocument
from ..processing_hybridctx import HybridCtxProcessor
from .answerers import ChatAnswerer, what_it_rests_on
from .engine_prompts import EnginePrompt
from .held_requests import HELD_TO_DOCUMENT, HeldRequest
from .messages import AskedChat
from .settings import ServerSettings
from .wire import HybridOptions

_BYTES_A_CHARACTER = 64
"""About what a laid-out text takes for each character: itself, its lines, and its spans' tokens."""


class _Said:
    """An answer as it grows: tokens, log-probabilities, and whether it was cut off."""

    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self.log_probabilities: list[float] = []
        self.cached_tokens = 0
        self.is_cut = True


class VllmAnswerer(ChatAnswerer):
    """
    vLLM answers, as many chats at a time as it has room for. Documents that are laid out are kept for the next question;
    their pages are found again in vLLM's prefix cache, by what they show.

    Args:
        model: a folder or a Hub id, which vLLM loads.
        engine_options: fields of vLLM's `AsyncEngineArgs`.
    """

    def __init__(
        self, model: str, processor: HybridCtxProcessor, settings: ServerSettings, **engine_options: Any
    ) -> None:
        super().__init__(processor, settings)
        self._documents: LRUCache[str, PagedDocument] = LRUCache(settings.memory_bytes, getsizeof=_bytes_of)
        self._lock = Lock()
        self._ends = _ends_of(model)
        self._loop = asyncio.new_event_loop()
        Thread(target=self._loop.run_forever, name="vllm", daemon=True).start()
        self._engine = self._in_loop(_started(model, engine_options))

    @property
    def kept_bytes(self) -> int:
        return int(self._documents.currsize)

    def close(self) -> None:
        """Stop vLLM."""
        self._loop.call_soon_threadsafe(self._engine.shutdown)

    def answer(
        self,
        asked: AskedChat,
        options: HybridOptions,
        generation: dict[str, Any],
        cancelled: Event,
        streamer: BaseStreamer | None = None,
    ) -> dict[str, Any]:
        if options.look_closer is not False:
            raise ValueError(
                f"look_closer={options.look_closer!r:.80} is not done by this server's engine, vLLM: leave it out, or "
                "ask a server with --engine transformers"
            )
        if not asked.documents:
            return self._answer_without_document(asked, options, generation, cancelled, streamer)
        started = time.perf_counter()
        document, found = self._document(asked, options)
        grounding = self._grounding(document, options)
        features, plan = self.processor(
            document=document,
            question=asked.question,
            budget=self.budget(options),
            text_policy=self.policy(options),
            system=asked.system,
            history=list(asked.history) or None,
            chat_template_kwargs=options.chat_template_kwargs,
            draw_pages=False,
            return_plan=True,
        )
        prompt = AskedQuestion(asked.question, plan, features["input_ids"][0], {"plan": time.perf_counter() - started})
        drawn = EnginePrompt.planned(self.processor, prompt.input_ids, plan)
        prompt.seconds["draw"] = time.perf_counter() - started - prompt.seconds["plan"]
        held = None
        if grounding is not None:
            held = HeldRequest(document.text, asked.question, grounding, self._ends)
        said, seconds = self._say(drawn.for_vllm(), prompt.input_ids, generation, cancelled, streamer, held)
        quotations: list[Quotation] = []
        if held is not None:
            holds = held.processor(document_index(document), self.processor.tokenizer)
            if isinstance(holds, DocumentQuoteProcessor):
                quotations = holds.quotations(said.token_ids, prompt=prompt.input_ids)
        generated = GeneratedAnswer(
            asked.question,
            plan,
            torch.tensor(said.token_ids, dtype=torch.long),
            torch.tensor(said.log_probabilities),
            "length" if said.is_cut else "stop",
            {**prompt.seconds, "answer": seconds},
            grounding,
            tuple(quotations),
        )
        answer: dict[str, Any] = {
            **result_of(generated, self.processor.tokenizer, repair=options.repair, abstain=options.abstain)
        }
        answer["usage"]["cached_tokens"] = said.cached_tokens
        answer["hybridctx"] = what_it_rests_on(asked.question, answer, found)  # type: ignore[arg-type]
        return answer

    def _grounding(self, document: PagedDocument, options: HybridOptions) -> Grounding | None:
        """How an answer is held; ValueError where the request asks for it and the document has no text."""
        if options.grounding is None:  # the checkpoint's own choice, where it can be
            return Grounding.of(self.processor.default_grounding) if document.text.strip() else None
        grounding = Grounding.of(options.grounding, self.processor.default_grounding)
        if grounding is not None:
            grounding.check(document, self.processor.tokenizer, self._ends)
        return grounding

    def _document(self, asked: AskedChat, options: HybridOptions) -> tuple[PagedDocument, str]:
        key = self.key(asked, options)
        with self._lock:
            if (kept := self._documents.get(key)) is not None:
                return kept, "memory"
        laid_out = self.laid_out(asked.documents)
        with self._lock:
            if _bytes_of(laid_out) <= self._documents.maxsize:
                self._documents[key] = laid_out
        return laid_out, "read now"

    def _answer_without_document(
        self,
        asked: AskedChat,
        options: HybridOptions,
        generation: dict[str, Any],
        cancelled: Event,
        streamer: BaseStreamer | None,
    ) -> dict[str, Any]:
        token_ids = self.conversation_ids(asked, options)
        said, seconds = self._say({"prompt_token_ids": token_ids}, token_ids, generation, cancelled, streamer)
        words = self.processor.tokenizer.decode(said.token_ids, skip_special_tokens=True)
        reasoning, answer = split_reasoning(words)
        usage = {
            "prompt_tokens": len(token_ids),
            "new_tokens": len(said.token_ids),
            "cached_tokens": said.cached_tokens,
        }
        return {
            "answer": answer,
            "reasoning": reasoning,
            "finish_reason": "length" if said.is_cut else "stop",
            "usage": usage,
            "hybridctx": {"document": None, "seconds": {"answer": seconds}},
        }

    def _say(
        self,
        prompt: dict[str, Any],
        input_ids: Sequence[int],
        generation: dict[str, Any],
        cancelled: Event,
        streamer: BaseStreamer | None,
        held: HeldRequest | None = None,
    ) -> tuple[_Said, float]:
        """What the engine says to a prompt, and how long that took."""
        started = time.perf_counter()
        deadline = time.monotonic() + self.settings.max_seconds
        said = _Said()

        async def listen() -> None:
            if streamer is not None:
                streamer.put(torch.tensor(input_ids))
            answers = self._engine.generate(prompt, _sampling(generation, held), request_id=uuid4().hex)
            try:
                async for output in answers:
                    if output.num_cached_tokens is not None:
                        said.cached_tokens = output.num_cached_tokens
                    piece = output.outputs[0]
                    new = list(piece.token_ids)[len(said.token_ids) :]
                    for token in new:
                        place = len(said.token_ids)
                        said.token_ids.append(token)
                        said.log_probabilities.append(piece.logprobs[place][token].logprob)
                        if streamer is not None:
                            streamer.put(torch.tensor([token]))
                    said.is_cut = piece.finish_reason != "stop"
                    if cancelled.is_set() or time.monotonic() > deadline:
                        break
            finally:
                await answers.aclose()  # which ends the request in the engine
            if streamer is not None:
                streamer.end()

        self._in_loop(listen())
        return said, time.perf_counter() - started

    def _in_loop(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def _started(model: str, engine_options: dict[str, Any]) -> Any:
    try:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM
    except ImportError as error:
        raise ImportError("--engine vllm needs vllm (docs/serving.md); or leave --engine out") from error
    options = {"model": model, "disable_log_stats": True, "limit_mm_per_prompt": {"image": 10_000}, **engine_options}
    options["logits_processors"] = [*(engine_options.get("logits_processors") or ()), HELD_TO_DOCUMENT]
    return AsyncLLM.from_engine_args(AsyncEngineArgs(**options))


def _ends_of(model: str) -> tuple[int, ...]:
    """Ids of the tokens that end an answer, as vLLM finds them; none: the tokenizer's own."""
    try:
        ends = GenerationConfig.from_pretrained(model).eos_token_id
    except OSError:
        return ()
    return () if ends is None else (ends,) if isinstance(ends, int) else tuple(ends)


def _sampling(generation: dict[str, Any], held: HeldRequest | None) -> Any:
    """VLLM's parameters for what a request asks of `generate`."""
    from vllm import SamplingParams

    # sampled only where a temperature above 0 is asked for, as the checkpoints' own configs have it
    temperature = generation.get("temperature", 0.0) if generation.get("do_sample") else 0.0
    return SamplingParams(
        max_tokens=generation["max_new_tokens"],
        temperature=temperature,
        top_p=generation.get("top_p", 1.0),
        stop=generation.get("stop_strings"),
        include_stop_str_in_output=True,
        logprobs=0,
        extra_args=None if held is None else held.extra_args,
    )


def _bytes_of(document: PagedDocument) -> int:
    return _BYTES_A_CHARACTER * (1 + len(document.text))


__all__ = ["VllmAnswerer"]
