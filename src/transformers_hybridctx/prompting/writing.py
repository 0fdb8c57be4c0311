# SPDX-License-Identifier: Apache-2.0
"""Conversations with documents become token ids: every document is planned, then all holes are filled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..planning.budget import ContextBudget, ContextBudgetError
from ..planning.plan import ContextPlan, span_block
from ..planning.planner import ContextPlanner, TemplateTokens
from .conversations import Conversation
from .encoder import PlainEncoder
from .frames import InPrompt, PromptRenderer, Segment, Written


@dataclass(frozen=True)
class Prompt:
    """A finished prompt: its segments, the ids of each, the plan of each document in it, and what it was written from."""

    segments: list[Segment]
    ids: list[list[int]]
    plans: list[ContextPlan]
    conversation: Conversation
    renderer: PromptRenderer

    @property
    def input_ids(self) -> list[int]:
        return [token for ids in self.ids for token in ids]

    @property
    def generated(self) -> list[int]:
        """1 for each token that the template marks as the model's own words."""
        return [int(part.generated) for part, ids in zip(self.segments, self.ids, strict=True) for _ in ids]

    @property
    def text(self) -> str:
        """The prompt as one string, with one image token for each page and picture."""
        return self.renderer.text(self.conversation, [_in_prompt(plan) for plan in self.plans], self._written)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages of which a chat template of the family writes it; pages and pictures are `{"type": "image"}`."""
        return self.renderer.messages(self.conversation, [_in_prompt(plan) for plan in self.plans], self._written)

    @property
    def _written(self) -> Written:
        spans = ["".join(span_block(span.page, span.text) for span in plan.spans) for plan in self.plans]
        latents = [self.renderer.tokenizer.decode(plan.latent_ids) for plan in self.plans]
        return Written(self.conversation.texts, spans, latents)


@dataclass(frozen=True)
class PromptWriter:
    """Plans and writes conversations.

    Attributes:
        renderer: where the holes are.
        encode: token ids of what users write.
        planner: what each document becomes.
        image_token_id: stands for each visual token.
    """

    renderer: PromptRenderer
    encode: PlainEncoder
    planner: ContextPlanner
    image_token_id: int

    def write_all(self, conversations: Sequence[Conversation]) -> list[Prompt]:
        """Each conversation, planned and written."""
        return [self.write(conversation) for conversation in conversations]

    def write(self, conversation: Conversation) -> Prompt:
        """Plan the documents of a conversation one after the other, and write it."""
        texts = self.encode(conversation.texts)
        question_tokens = sum(map(len, texts))
        rendered: dict[tuple[InPrompt, ...], list[Segment]] = {}

        def segments_of(in_prompt: Sequence[InPrompt]) -> list[Segment]:
            key = tuple(in_prompt)
            if key not in rendered:
                rendered[key] = self.renderer.render(conversation, key)
            return rendered[key]

        def fixed_tokens(in_prompt: Sequence[InPrompt]) -> int:
            segments = segments_of(in_prompt)
            said = sum(len(texts[segment.index]) for segment in segments if segment.kind == "text")
            again = said - question_tokens  # what is said twice
            return sum(len(segment.ids) for segment in segments) + again + sum(conversation.image_tokens)

        in_prompt = [InPrompt(True, True)] * len(conversation.documents)
        plans: list[ContextPlan] = []
        for index in range(len(conversation.documents)):
            spent = sum(plan.document_share for plan in plans)
            before, behind = in_prompt[:index], in_prompt[index + 1 :]

            def template_tokens(
                *has: Any, before: list[InPrompt] = before, behind: list[InPrompt] = behind, spent: int = spent
            ) -> int:
                return fixed_tokens([*before, InPrompt(*has), *behind]) + spent

            plans.append(self._plan(conversation, index, template_tokens, question_tokens))
            in_prompt[index] = _in_prompt(plans[-1])
        segments = segments_of(in_prompt)
        ids = [self._ids(segment, texts, plans, conversation) for segment in segments]
        return Prompt(segments, ids, _with_totals(plans, segments, ids), conversation, self.renderer)

    def _plan(
        self,
        conversation: Conversation,
        index: int,
        template_tokens: TemplateTokens,
        question_tokens: int,
    ) -> ContextPlan:
        part, left = conversation.documents[index], len(conversation.documents) - index
        taken = template_tokens(True, True) + question_tokens
        text = part.document.text
        try:
            return self.planner.plan(
                part.document,
                conversation.question,
                _fair_share(part.budget, taken, left),
                part.policy,
                template_tokens,
                question_tokens,
                self.encode.count(text) if text else 0,
            )
        except ContextBudgetError as error:
            if len(conversation.documents) == 1 or error.field != "max_context_tokens":
                raise
            whole = taken + max(0, error.smallest - taken) * left
            message = (
                f"document {index + 1} of {len(conversation.documents)}, of its equal share: {error}; in all {whole}"
            )
            raise ContextBudgetError(message, whole) from error

    def _ids(
        self, segment: Segment, texts: list[list[int]], plans: list[ContextPlan], conversation: Conversation
    ) -> list[int]:
        match segment.kind:
            case "template":
                return list(segment.ids)
            case "text":
                return texts[segment.index]
            case "spans":
                return [token for span in plans[segment.index].spans for token in span.input_ids]
            case "latents":
                return list(plans[segment.index].latent_ids)
            case "page":
                return [self.image_token_id] * plans[segment.index].page_tokens[segment.page]
            case "image":
                return [self.image_token_id] * conversation.image_tokens[segment.index]


def _in_prompt(plan: ContextPlan) -> InPrompt:
    return InPrompt(bool(plan.num_pages), bool(plan.spans), plan.first_page if plan.latents else None)


def _fair_share(budget: ContextBudget, taken: int, documents_left: int) -> ContextBudget:
    """What the next of several documents may use of a budget: what is taken, and an equal part of the rest."""
    whole = budget.max_context_tokens
    if whole is None or documents_left == 1:
        return budget
    return replace(budget, max_context_tokens=min(whole, taken + max(0, whole - taken) // documents_left))


def _with_totals(plans: list[ContextPlan], segments: list[Segment], ids: list[list[int]]) -> list[ContextPlan]:
    """The plans, with all that is neither a plan's own document nor a question counted as template."""
    total = sum(map(len, ids))
    last = max((index for index, part in enumerate(segments) if part.kind in ("page", "spans", "latents")), default=-1)
    prefix = sum(map(len, ids[: last + 1]))
    return [
        replace(
            plan,
            template_tokens=total - plan.document_share - plan.question_tokens,
            prefix_tokens=prefix,
        )
        for plan in plans
    ]
