# SPDX-License-Identifier: Apache-2.0
"""Pages only where they save tokens."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import ClassVar

from ..budget import ContextBudget, ContextBudgetError
from ..paged_document import PagedDocument
from ..plan import ContextPlan
from .anchors import AnchorsPolicy
from .attention import AttentionPolicy
from .base import TextPolicy
from .full import FullPolicy
from .none import NonePolicy


@dataclass(frozen=True)
class AutoPolicy(TextPolicy):
    """A plan that never loses: a text that costs no more tokens whole than its pages and what is copied beside them goes
    whole, without a page (as `full` does); any other goes as pages, and `beside` says what is copied.

    Documents without text have pages, and so have requests that say how much pages may take (`visual_share`). Before
    the question is known, a policy that looks at it is taken to copy all that the budget lets it.

    Attributes:
        beside: the policy where there are pages: one, its name, or `{"name": ..., knob: value}`.
    """

    name: ClassVar[str] = "auto"
    looks_at_question: ClassVar[bool] = True
    beside: TextPolicy = field(default_factory=AnchorsPolicy)

    def __post_init__(self) -> None:
        if not isinstance(self.beside, TextPolicy):
            raise TypeError(f"beside={self.beside!r:.80} must be a text policy")
        if isinstance(self.beside, (AutoPolicy, AttentionPolicy)):
            raise ValueError(
                f"beside={self.beside.name!r}: 'auto' itself cannot stand beside pages, nor can a policy for which a "
                "model has to have read them; take another, such as 'bm25'"
            )

    def plan(
        self,
        document: PagedDocument,
        question: str | None,
        budget: ContextBudget,
        planned: Callable[[ContextBudget, TextPolicy], ContextPlan],
    ) -> ContextPlan:
        """
        The plan that takes fewer tokens.

        Args:
            planned: the plan of a budget and a policy.

        Raises:
            ContextBudgetError: neither the text nor the pages fit.
        """
        beside, may_copy = self.beside, 0
        if beside.looks_at_question and question is None:
            beside, may_copy = NonePolicy(), budget.max_text_tokens or 0

        def whole() -> ContextPlan:
            return planned(replace(budget, visual_share=0, latent_share=0, latent_chunks=None), FullPolicy())

        is_free = bool(document.text) and budget.visual_share is None and not budget.latent_chunks
        try:
            paged = planned(budget, beside)
        except ContextBudgetError as error:
            if not is_free:
                raise
            try:
                return whole()
            except ContextBudgetError as as_text:
                if as_text.field == error.field and as_text.smallest < error.smallest:
                    raise
                raise error from as_text
        # a text that is dearer by itself already is not planned: its page labels only add to it
        if is_free and paged.document_tokens <= paged.total_tokens + may_copy:
            with suppress(ContextBudgetError):
                found = whole()
                if found.total_tokens <= paged.total_tokens + min(may_copy, found.text_tokens):
                    return found
        return paged


__all__ = ["AutoPolicy"]
