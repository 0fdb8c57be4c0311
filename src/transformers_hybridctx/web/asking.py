# SPDX-License-Identifier: Apache-2.0
"""Documents laid out, planned for, read once and asked about, for the page: what of it takes long says how far it is, and
can be stopped.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Event
from typing import Any, Literal

from transformers import StoppingCriteriaList, TextStreamer

from ..answering.results import LongDocAnswer
from ..caching.document_cache import DocumentCache
from ..caching.reading_request import ReadingRequest
from ..cli.options import TOKENS_AT_ONCE
from ..pipeline_long_doc_qa import LongDocQAPipeline
from ..planning.budget import ContextBudget, ContextBudgetError
from ..planning.plan import ContextPlan
from ..planning.policies.attention import AttentionPolicy
from ..planning.policies.base import TextPolicy
from ..planning.policies.registry import TEXT_POLICIES, resolve_text_policy
from ..progress import heard_by
from ..serving.readings import ReadingStore, reading_key
from ..serving.settings import ServerSettings
from ..serving.stopping import StopsEarly
from ..serving.streaming import ReasoningSplitter
from ..serving.uploads import UploadedDocument
from .sessions import OpenDocument

Context = Literal["hybrid", "pages", "passages", "tokens"]
Emit = Callable[[dict[str, Any]], None]

_SECONDS_BETWEEN = 0.1  # two words on how far it is


class StoppedError(Exception):
    """Nobody waits for the answer any more."""


@dataclass(frozen=True)
class Question:
    """
    What is asked, and of what context.

    Attributes:
        words: the question.
        context: both pages and what a policy copies; pages only; what the policy copies only; or the text, cut in the
            middle, at what the first would cost.
        budget: longest prompt in tokens; None: the checkpoint's own, or what the document's pages need beyond it.
        policy: what is copied; None: the checkpoint's own choice.
        history: what was asked and answered before.
        held: `grounding`, `repair` and `abstain`, as the pipeline takes them.
    """

    words: str
    context: Context = "hybrid"
    budget: int | None = None
    policy: str | None = None
    history: tuple[tuple[str, str], ...] = ()
    held: tuple[tuple[str, Any], ...] = ()


class Desk:
    """
    What the page asks of a pipeline. Threads may share one.

    Args:
        pipe: answers.
        settings: bounds.
    """

    def __init__(self, pipe: LongDocQAPipeline, settings: ServerSettings) -> None:
        self.pipe = pipe
        self.settings = settings
        self._readings = ReadingStore(settings.memory_bytes)

    def opened(self, data: bytes, name: str, **file_options: Any) -> OpenDocument:
        """A file, laid out. ValueError: it cannot be read, or is too long; the message says what can be done."""
        document = UploadedDocument.of_bytes(data, name, **file_options)
        return self.laid_out(document.content, document.name, len(data))

    def laid_out(
        self, content: Any, name: str, num_bytes: int, is_shared: bool = False, notes: tuple[str, ...] = ()
    ) -> OpenDocument:
        """What `documents.files` read, on pages. ValueError where that is too long."""
        most = self.settings.max_document_characters
        if isinstance(content, str) and len(content) > most:
            raise ValueError(f"{name} has {len(content):,} characters, more than the {most:,} that are read here")
        laid_out = self.pipe.processor.read_document(content)
        if laid_out.num_pages > self.settings.max_pages:
            raise ValueError(
                f"{name} has {laid_out.num_pages:,} pages, more than the {self.settings.max_pages:,} that are read here"
            )
        num_tokens = self.pipe.processor.encoder.count(laid_out.text) if laid_out.text else 0
        return OpenDocument(name, num_bytes, num_tokens, laid_out, notes, is_shared)

    def plans(
        self, document: OpenDocument, question: Question
    ) -> tuple[int | None, dict[str, ContextPlan | ValueError]]:
        """
        The longest prompt, and what each text policy would cost, or why it cannot be met.

        Of one that looks at the question, what is known before: the pages, until there is a question; and always, where
        the model itself says what is copied.
        """
        question = self._bounded(document, question)
        found: dict[str, ContextPlan | ValueError] = {}
        for policy, kind in TEXT_POLICIES.items():
            is_open = kind.looks_at_question and (not question.words or policy == AttentionPolicy.name)
            is_open = is_open and question.context != "passages"
            try:
                found[policy] = self.plan(document, replace(question, policy="none" if is_open else policy))
            except ValueError as error:
                found[policy] = error
        return question.budget, found

    def plan(self, document: OpenDocument, question: Question) -> ContextPlan:
        """What a question would cost. ContextBudgetError, ValueError: it cannot be met."""
        budget, policy = self._limits(document, question)
        planned: ContextPlan = self.pipe.processor.plan(
            document.laid_out,
            question.words or None,
            budget=budget,
            text_policy=policy,
            history=list(question.history) or None,
        )
        return planned

    def answer(
        self, document: OpenDocument, question: Question, cancelled: Event, emit: Emit
    ) -> tuple[LongDocAnswer, DocumentCache | None]:
        """
        The answer, and the reading that it was given from.

        Args:
            cancelled: set when nobody waits any more; the work then ends with a StoppedError.
            emit: is given what happens meanwhile, from this thread: `{"event": "progress", "stage", "done", "total"}` and
                `{"event": "said", "kind", "text"}`.

        Raises:
            ContextBudgetError, ValueError: before the model generates anything, where the question cannot be met.
        """
        told, question = _Told(cancelled, emit), self._bounded(document, question)
        with heard_by(told):
            budget, policy = self._limits(document, question)
            reading = self._reading(document, question)
            stops_early = StopsEarly(cancelled, self.settings.max_seconds)
            answer = self.pipe(
                question=question.words,
                document=document.laid_out if reading is None else reading,
                budget=budget,
                text_policy=policy,
                history=list(question.history) or None,
                stopping_criteria=StoppingCriteriaList([stops_early]),
                max_new_tokens=self.settings.max_new_tokens,
                **self._streamed(emit),
                **dict(question.held),
            )
        if cancelled.is_set():
            raise StoppedError
        if stops_early.has_cut:
            answer["finish_reason"] = "length"
        return answer, reading

    def _limits(self, document: OpenDocument, question: Question) -> tuple[ContextBudget, TextPolicy]:
        """Budget and policy of a question's context."""
        processor = self.pipe.processor
        budget = ContextBudget(max_context_tokens=question.budget).filled_from(
            ContextBudget.of(processor.default_budget)
        )
        policy = resolve_text_policy(question.policy or processor.default_text_policy)
        if policy.name == "full":
            budget = replace(budget, max_text_tokens=sys.maxsize)
        if question.context == "pages":
            return replace(budget, visual_share=1.0), resolve_text_policy("none")
        if question.context == "tokens":
            try:
                cost = self.plan(document, replace(question, context="hybrid")).total_tokens
            except ContextBudgetError:  # pages do not fit, and the text that does is what is asked for
                cost = budget.max_context_tokens or sys.maxsize
            budget = replace(budget, visual_share=0, max_context_tokens=cost, max_text_tokens=cost)
            return budget, resolve_text_policy("middle")
        if question.context == "passages":
            return replace(budget, visual_share=0), policy
        return budget, policy

    def _bounded(self, document: OpenDocument, question: Question) -> Question:
        """The question with a budget: the checkpoint's own; where pages do not fit, one for them and what is copied."""
        processor = self.pipe.processor
        own = ContextBudget.of(processor.default_budget)
        if question.budget is not None or own.max_context_tokens is None:
            return question
        most = own.max_context_tokens
        try:
            processor.plan(
                document.laid_out,
                question.words or None,
                budget=own,
                text_policy="none",
                history=list(question.history) or None,
            )
        except ContextBudgetError as error:
            if question.context != "passages":
                most = error.smallest + (own.max_text_tokens or 0)
        return replace(question, budget=most)

    def _reading(self, document: OpenDocument, question: Question) -> DocumentCache | None:
        """The document as the model has read it; None where nothing can be read before the question is known."""
        budget, policy = self._limits(document, question)
        processor = self.pipe.processor
        if budget.visual_share == 0 and policy.looks_at_question:
            return None
        kind = policy.name
        if policy.looks_at_question or policy.name == "none":
            # the pages alone, at the scale of this question's plan: they are the same for every such policy
            if isinstance(policy, AttentionPolicy):  # whose plan the model has to be asked for
                scale = ReadingRequest.of(processor, budget, policy).plan(processor, document.laid_out)[1].scale
            else:
                scale = self.plan(document, question).scale
            budget = replace(budget, max_context_tokens=None, min_scale=scale, max_scale=scale)
            kind, policy = "pages", resolve_text_policy("none")
        try:
            prefix, planned = ReadingRequest.of(processor, budget, policy).plan(processor, document.laid_out)
        except ContextBudgetError:
            return None  # with room kept for any question it does not fit; with this one it may
        key = reading_key(document.id, kind, planned.scale, hashlib.sha256(repr(prefix).encode()).hexdigest())

        def read() -> DocumentCache:
            return self.pipe.engine.read(
                document.laid_out, budget=budget, text_policy=policy, prefill_chunk_size=TOKENS_AT_ONCE
            )

        return self._readings.get(key, read, lambda kept: kept)[0]

    def _streamed(self, emit: Emit) -> dict[str, Any]:
        """Generation parameters that emit the answer as it is said; none under beam search, which knows its end last."""
        if (self.pipe.model.generation_config.num_beams or 1) > 1:
            return {}
        return {"streamer": _Said(self.pipe.processor.tokenizer, emit)}


class _Told:
    """How far the work is, as events: not more often than somebody could read."""

    def __init__(self, cancelled: Event, emit: Emit) -> None:
        self._cancelled, self._emit = cancelled, emit
        self._last: tuple[str, float] = "", 0.0
        self._totals: dict[str, int] = {}

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        if self._cancelled.is_set():
            raise StoppedError
        if total is not None:
            self._totals[stage] = total
        total, now = self._totals.get(stage), time.monotonic()
        if total is not None and done > total:
            return  # the question's own tokens, behind the document's
        if stage == self._last[0] and done != total and now - self._last[1] < _SECONDS_BETWEEN:
            return
        self._last = stage, now
        self._emit({"event": "progress", "stage": stage, "done": done, "total": total})


class _Said(TextStreamer):
    """An answer's words as events."""

    def __init__(self, tokenizer: Any, emit: Emit) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._emit, self._splitter = emit, ReasoningSplitter()

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Tell what is certain."""
        for kind, said in [*self._splitter.feed(text), *(self._splitter.finish() if stream_end else ())]:
            self._emit(
                {"event": "said", "kind": "reasoning" if kind == "reasoning_content" else "answer", "text": said}
            )


__all__ = ["Context", "Desk", "Question", "StoppedError"]
