# SPDX-License-Identifier: Apache-2.0
"""What is asked for when a document is read, and the plan that follows from it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

from ..planning.budget import ContextBudget, ContextBudgetError
from ..planning.knobs import whole_number
from ..planning.paged_document import PagedDocument
from ..planning.plan import ContextPlan, Span
from ..planning.policies.auto import AutoPolicy
from ..planning.policies.base import Selection, SpanCosts, TextPolicy
from ..planning.policies.full import FullPolicy
from ..planning.policies.middle import MiddlePolicy
from ..planning.policies.none import NonePolicy
from ..planning.policies.registry import resolve_text_policy
from ..processing_hybridctx import FusionOrder, HybridCtxProcessor
from ..prompting.frames import template_options

QUESTION_TOKENS = 256
"""Tokens of a budget that a reading leaves free, for the question and for spans that are copied for it."""


@dataclass(frozen=True)
class KeptSpans(TextPolicy):
    """Copies the spans that were copied when the document was read: all of them, as they are in the prefix."""

    name: ClassVar[str] = "as read"
    spans: tuple[Span, ...]

    @property
    def required(self) -> bool:
        return True

    def select(self, costs: SpanCosts, limit: int | None) -> Selection:
        return Selection([(span.start, span.end) for span in self.spans], [])

    def smallest(self, costs: SpanCosts) -> int | None:
        return sum(span.tokens for span in self.spans) or None


@dataclass(frozen=True)
class ReadingRequest:
    """All that, with the document, decides the prefix's tokens.

    Attributes:
        budget, text_policy, fusion_order: of every prompt that begins with the reading.
        question_tokens: what is left of the budget for a question and the spans copied for it.
        system: system message before the document.
        chat_template_kwargs: passed to the chat template.
    """

    budget: ContextBudget
    text_policy: TextPolicy
    fusion_order: FusionOrder
    question_tokens: int = QUESTION_TOKENS
    system: str | None = None
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        processor: HybridCtxProcessor,
        budget: ContextBudget | dict[str, Any] | None = None,
        text_policy: str | dict[str, Any] | TextPolicy | None = None,
        fusion_order: FusionOrder | None = None,
        question_tokens: int = QUESTION_TOKENS,
        system: str | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
    ) -> Self:
        """What is asked for, and the processor's own settings for what is not said."""
        whole_number("question_tokens", question_tokens, 1, "tokens, left free for a question")
        return cls(
            ContextBudget.of(budget).filled_from(ContextBudget.of(processor.default_budget)),
            resolve_text_policy(text_policy or processor.default_text_policy),
            fusion_order or processor.fusion_order,
            question_tokens,
            system,
            template_options(chat_template_kwargs),
        )

    @property
    def reads_spans(self) -> bool:
        """Whether the copied spans stand before any question, and are the same for each."""
        return not self.text_policy.looks_at_question and self.fusion_order != "tokens_last"

    @property
    def options(self) -> dict[str, Any]:
        """What `processor(document=...)` takes beside document, budget and policy."""
        return {
            "fusion_order": self.fusion_order,
            "system": self.system,
            "chat_template_kwargs": self.chat_template_kwargs,
        }

    def settled(self, processor: HybridCtxProcessor, document: PagedDocument) -> Self:
        """The same request, where the policy `auto` has found out whether this document's pages save tokens."""
        policy = self.text_policy
        if not isinstance(policy, AutoPolicy):
            return self
        plan = processor.plan(document, budget=self._without_question(), text_policy=policy, **self.options)
        is_text = plan.policy == FullPolicy.name and not plan.num_pages and not plan.latents
        if not is_text or self.fusion_order == "tokens_last":  # where the question comes before all text
            return replace(self, text_policy=policy.beside)
        budget = replace(self.budget, visual_share=0, latent_share=0)
        return replace(self, text_policy=FullPolicy(), budget=budget)

    def _without_question(self) -> ContextBudget:
        """The budget without what is left free for a question."""
        most = self.budget.max_context_tokens
        if most is None:
            return self.budget
        return replace(self.budget, max_context_tokens=max(0, most - self.question_tokens))

    def plan(self, processor: HybridCtxProcessor, document: PagedDocument) -> tuple[list[int], ContextPlan]:
        """The tokens of the prefix, and the plan of a prompt that ends with the document."""
        budget, policy = self._without_question(), self.text_policy
        options = {"document": document, **self.options}
        try:
            if not self.reads_spans:
                self._check_that_pages_lead()
                # Pages leave the room that a policy may claim, as they do for one that wants the whole text.
                found = processor.plan(**options, budget=budget, text_policy=MiddlePolicy())
                scales = {"min_scale": found.scale, "max_scale": found.scale}
                budget, policy = replace(budget, **scales, latent_chunks=len(found.latents)), NonePolicy()
            features, plan = processor(
                **options, budget=budget, text_policy=policy, draw_pages=False, return_plan=True
            )
        except ContextBudgetError as error:
            if error.field != "max_context_tokens":
                raise
            smallest, most = error.smallest + self.question_tokens, self.budget.max_context_tokens
            raise ContextBudgetError(
                f"max_context_tokens={most} is too small to read the document and keep {self.question_tokens} tokens "
                f"free for a question: the smallest that works is {smallest}",
                smallest,
            ) from error
        return features["input_ids"][0][: plan.prefix_tokens], plan

    def _check_that_pages_lead(self) -> None:
        for name, value in (("visual_share", self.budget.visual_share), ("fusion_order", self.fusion_order)):
            if name == "visual_share" and self.budget.latent_share:
                continue  # latents stand for the document
            if value in (0, "tokens_first"):
                raise ValueError(
                    f"{name}={value!r} leaves nothing to read before the question is known, as what the "
                    f"text policy {self.text_policy.name!r} copies comes with it; put pages first, or choose 'anchors', "
                    "'full' or 'none'"
                )


__all__ = ["QUESTION_TOKENS", "KeptSpans", "ReadingRequest"]
