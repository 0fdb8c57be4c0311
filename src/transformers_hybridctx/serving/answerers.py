# SPDX-License-Identifier: Apache-2.0
"""What answers chats, whichever engine generates: documents laid out, budgets bounded, prompts of plain conversations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from threading import Event
from typing import Any

from transformers.generation.streamers import BaseStreamer

from ..answering.json_answers import answer_as_json
from ..answering.results import LongDocAnswer
from ..planning.budget import ContextBudget, ContextBudgetError
from ..planning.paged_document import PagedDocument
from ..planning.policies.attention import AttentionPolicy
from ..planning.policies.auto import AutoPolicy
from ..planning.policies.base import TextPolicy
from ..planning.policies.registry import resolve_text_policy
from ..processing_hybridctx import HybridCtxProcessor
from .messages import AskedChat
from .readings import reading_key
from .settings import ServerSettings
from .uploads import UploadedDocument
from .wire import HybridOptions


class ChatAnswerer(ABC):
    """
    Answers chats, with and without documents. Threads may share one.

    A document that takes no more tokens as text than its pages and what is copied beside them goes as text.
    """

    def __init__(self, processor: HybridCtxProcessor, settings: ServerSettings) -> None:
        self.processor = processor
        self.settings = settings

    @abstractmethod
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

    @property
    @abstractmethod
    def kept_bytes(self) -> int:
        """Of what is kept of documents in memory."""

    def num_tokens(self, text: str) -> int:
        """Of a text, as text."""
        return self.processor.encoder.count(text)

    def key(self, asked: AskedChat, options: HybridOptions) -> str:
        """One key for all that decides what the engine reads before the question."""
        documents = [(document.digest, document.name) for document in asked.documents]
        decisive = options.model_dump(exclude={"grounding", "repair", "abstain", "look_closer"})
        return reading_key(documents, asked.system, decisive, options.look_closer is not False)

    def policy(self, options: HybridOptions) -> TextPolicy:
        """The request's, or the checkpoint's for texts that are shorter as pages, where others go as text."""
        if options.look_closer is not False:
            if options.text_policy is not None:
                raise ValueError(
                    "look_closer copies what the model attends to, and text_policy says otherwise: drop one of them"
                )
            return AttentionPolicy()
        if options.text_policy is not None:
            return resolve_text_policy(options.text_policy)
        own = resolve_text_policy(self.processor.default_text_policy)
        return own if isinstance(own, (AutoPolicy, AttentionPolicy)) else AutoPolicy(own)

    def budget(self, options: HybridOptions) -> ContextBudget:
        """The request's, within the server's."""
        budget = ContextBudget.of(options.budget).filled_from(ContextBudget.of(self.processor.default_budget))
        most = self.settings.max_context_tokens
        if most is None:
            most = self.processor.default_budget.get("max_context_tokens")
        asked = budget.max_context_tokens
        if most is not None and (asked is None or asked > most):
            if "max_context_tokens" in options.budget:
                raise ValueError(f"max_context_tokens={asked} is more than the {most} that this server takes")
            budget = replace(budget, max_context_tokens=most)
        return budget

    def laid_out(self, documents: Sequence[UploadedDocument]) -> PagedDocument:
        """All documents of a conversation as one; ValueError for more than the server reads."""
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
        most = self.settings.max_document_characters
        if isinstance(content, str) and len(content) > most:
            raise ValueError(
                f"the documents have {len(content):,} characters, more than the {most:,} that this server reads"
            )
        laid_out = self.processor.read_document(content)
        if laid_out.num_pages > self.settings.max_pages:
            raise ValueError(
                f"the documents have {laid_out.num_pages:,} pages, more than the {self.settings.max_pages:,} that this "
                "server reads"
            )
        return laid_out

    def conversation_ids(self, asked: AskedChat, options: HybridOptions) -> list[int]:
        """
        Tokens of a chat without documents.

        Raises:
            ContextBudgetError: more than the server takes.
            ValueError: an option that is about a document.
        """
        nothing = (None, "none", False)
        for name in ("grounding", "repair", "abstain", "look_closer"):
            if (given := getattr(options, name)) not in nothing:
                raise ValueError(
                    f"{name}={given!r} is about a document, and no message has one (a text of up to "
                    f"{self.settings.draw_over} tokens is none): send it as a part of type 'document', or "
                    f"leave {name} out"
                )
        turns = [part for question, answer in asked.history for part in (("user", question), ("assistant", answer))]
        turns = [*([("system", asked.system)] if asked.system else []), *turns, ("user", asked.question)]
        messages = [{"role": role, "content": said} for role, said in turns]
        token_ids = self.processor.write_chat(messages, options.chat_template_kwargs).input_ids
        most = self.budget(options).max_context_tokens
        if most is not None and len(token_ids) > most:
            raise ContextBudgetError(
                f"the conversation has {len(token_ids)} tokens, more than max_context_tokens={most}", len(token_ids)
            )
        return token_ids


def what_it_rests_on(question: str, answer: LongDocAnswer, found: str) -> dict[str, Any]:
    """What stands beside the message: all of the answer but what OpenAI's own fields say."""
    said = answer_as_json(question, answer)
    seconds = said["usage"].pop("seconds")
    for name in ("question", "answer", "reasoning", "finish_reason", "pictures"):
        del said[name]
    return {**said, "seconds": seconds, "reading": found}


__all__ = ["ChatAnswerer", "what_it_rests_on"]
