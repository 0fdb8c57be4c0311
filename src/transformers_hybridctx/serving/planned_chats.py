# SPDX-License-Identifier: Apache-2.0
"""Planned prompts as messages of OpenAI's form, for servers that know the GLM-4V family and nothing of this package."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ..planning.plan import ContextPlan, encodable
from ..processing_hybridctx import HybridCtxProcessor
from .engine_prompts import EnginePrompt

_REASONING = frozenset(("<think>", "</think>"))
"""Marks that an earlier answer may bring along."""


@dataclass(frozen=True, eq=False)
class PlannedChat:
    """
    One question about a document, for `client.chat.completions.create(model=..., messages=chat.messages)`.

    The server writes the prompt with its own chat template and tokenizer, so that it is the planned one where these are
    the processor's.

    Attributes:
        messages: the pages as `image_url` parts with a PNG in a `data:` address, and all texts, in the planned order.
        plan: what they are made of; `find_evidence(chat.plan, answer, question)` finds an answer in it.
    """

    messages: list[dict[str, Any]]
    plan: ContextPlan

    @classmethod
    def of(
        cls,
        processor: HybridCtxProcessor,
        document: Any,
        question: str,
        budget: Any = None,
        text_policy: Any = None,
        **context: Any,
    ) -> PlannedChat:
        """
        Plan and write a question, and draw its pages.

        Args:
            processor: what plans and draws: a checkpoint's, or one made of the tokenizer and the image processor of a
                plain GLM-4V checkpoint.
            document, question, budget, text_policy: as in `processor(document=..., question=...)`.
            context: its `system`, `history`, `fusion_order` and `chat_template_kwargs`; these last ones only count what
                the server's template writes, and have to be sent to it, too.

        Raises:
            ValueError: as there, and for words that a server would take for control tokens, or for latents.
            ContextBudgetError, TypeError: as there.
        """
        prompt = processor.write_question(document, question, (), budget, text_policy, **context)
        drawn = EnginePrompt.planned(processor, prompt.input_ids, prompt.plans[0])
        pages = iter(drawn.pages)
        controls = {str(token) for token in processor.tokenizer.added_tokens_decoder.values()}
        refused = {"user": controls, "assistant": controls - _REASONING}  # a system message is the caller's own
        messages = [
            {**message, "content": _sent(message["content"], pages, refused.get(message["role"], ()))}
            for message in prompt.messages
        ]
        return cls(messages, drawn.plan)


def _sent(content: Any, pages: Iterator[Image.Image], controls: Collection[str]) -> Any:
    """A message's content as it goes over the wire."""
    if isinstance(content, str):
        return _checked(content, controls)
    return [
        {"type": "image_url", "image_url": {"url": _address(next(pages))}}
        if part["type"] == "image"
        else {"type": "text", "text": _checked(part["text"], controls)}
        for part in content
    ]


def _checked(text: str, controls: Collection[str]) -> str:
    """The text as JSON can hold it; ValueError where a server's tokenizer would not take it for text."""
    text = encodable(text)
    if found := [token for token in controls if token in text]:
        raise ValueError(
            f"the question, the history or what is copied of the document holds {min(found)!r}, which another "
            "server's tokenizer takes for a control token: ask `hybridctx serve`, for which it is text, or copy "
            "nothing with text_policy='none'"
        )
    return text


def _address(page: Image.Image) -> str:
    file = io.BytesIO()
    page.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


__all__ = ["PlannedChat"]
