# SPDX-License-Identifier: Apache-2.0
"""Planning: a document, a question and a budget become a scale and the spans to copy, with exact token counts.

Every token of a prompt is one of four kinds, and a plan counts each: visual tokens of the pages, tokens of copied
spans (with their page labels), tokens of the question, tokens of the chat template around them. The prompt's segments
are tokenised one by one and joined as ids, so that the plan's total is the length of `input_ids` for any tokenizer.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NoReturn

from .budget import ContextBudget, ContextBudgetError
from .omissions import omissions_of
from .paged_document import PagedDocument
from .plan import ContextPlan, lone_surrogates
from .policies.base import Selection, TextPolicy
from .policies.none import NonePolicy
from .span_tokens import Encoder, SpanMemory, SpanTokens

# Without a visual_share, copied text may claim up to this part of what the prompt leaves before pages shrink no more.
TEXT_SHARE_BEFORE_SCALE = 0.25

# Visual tokens of a page of (height, width) pixels.
PageTokens = Callable[[int, int], int]
# Tokens of the chat template (and of all that is neither question nor this document), with or without pages and spans.
TemplateTokens = Callable[[bool, bool], int]


@dataclass(frozen=True)
class ContextPlanner:
    """Turns documents into plans.

    Attributes:
        encode: token ids of plain texts.
        page_tokens: (height, width) in pixels -> visual tokens.
        memory: what is known of documents' spans in the ids of `encode`.
    """

    encode: Encoder
    page_tokens: PageTokens
    memory: SpanMemory = field(default_factory=SpanMemory, repr=False)

    def plan(
        self,
        document: PagedDocument,
        question: str | None,
        budget: ContextBudget,
        policy: TextPolicy,
        template_tokens: TemplateTokens,
        question_tokens: int,
        document_tokens: int,
    ) -> ContextPlan:
        """Choose the scale and the spans.

        Args:
            question: what query-aware policies look at.
            template_tokens: (pages in the prompt, spans in the prompt) -> tokens of all that is not this document.
            question_tokens, document_tokens: as in `ContextPlan`.

        Raises:
            ContextBudgetError: the budget cannot be met; its `smallest` can.
            ValueError: a request that leaves nothing of the document in the prompt.
        """
        request = _Request(self, document, question, budget, policy, template_tokens, question_tokens)
        scale = request.choose_scale()
        selection = request.select(scale)
        page_tokens = request.tokens_of_pages(scale) if request.has_pages else ()
        spans = request.costs.spans(selection.chosen)
        return ContextPlan(
            policy=request.policy.name,
            scale=scale,
            page_tokens=page_tokens,
            spans=spans,
            omitted=tuple(omissions_of(document, selection, request.has_pages)),
            escaped=tuple(found for span in selection.chosen for found in lone_surrogates(document.text, span)),
            document_tokens=document_tokens,
            document_characters=len(document.text),
            question_tokens=question_tokens,
            template_tokens=template_tokens(request.has_pages, bool(spans)),
            document=document,
        )


class _Request:
    """One call of `ContextPlanner.plan`, and the arithmetic of its budget."""

    def __init__(
        self,
        planner: ContextPlanner,
        document: PagedDocument,
        question: str | None,
        budget: ContextBudget,
        policy: TextPolicy,
        template_tokens: TemplateTokens,
        question_tokens: int,
    ) -> None:
        self.document = document
        self.budget = budget = budget.at_only_scale(document.only_scale)
        self.costs = SpanTokens(document, question, planner.encode, planner.memory)
        self.has_pages = budget.visual_share != 0
        if not self.has_pages and not document.text:
            raise ValueError("visual_share=0 leaves nothing of scanned pages: their text is not known")
        # Pages only, and pages without text, copy nothing whatever the policy is.
        self.policy = policy if document.text and budget.visual_share != 1 else NonePolicy()
        self.bare = template_tokens(self.has_pages, False) + question_tokens
        self.with_spans = template_tokens(self.has_pages, True) + question_tokens
        self.question_tokens = question_tokens
        self._page_tokens = planner.page_tokens
        self._known_sizes: dict[tuple[int, int], int] = {}
        self._visual: dict[float, int] = {}
        self.required_tokens = self._required_tokens()

    def _required_tokens(self) -> int:
        """What a policy that takes all or nothing needs; 0 for the others."""
        needed = (self.policy.smallest(self.costs) or 0) if self.policy.required else 0
        most = self.budget.max_text_tokens
        if most is not None and needed > most:
            raise ContextBudgetError(
                f"the text policy {self.policy.name!r} copies {needed} tokens, max_text_tokens={most}; "
                f"the smallest that works is {needed}, or choose a policy that can be cut, such as 'middle' or 'tail'",
                needed,
                "max_text_tokens",
            )
        return needed

    def tokens_of_pages(self, scale: float) -> tuple[int, ...]:
        """Visual tokens of each page."""
        return tuple(
            self._tokens_of_size(self.document.page_size(page, scale)) for page in range(self.document.num_pages)
        )

    def _tokens_of_size(self, size: tuple[int, int]) -> int:
        if size not in self._known_sizes:
            self._known_sizes[size] = self._page_tokens(*size)
        return self._known_sizes[size]

    @cached_property
    def _kinds(self) -> list[tuple[int, int]]:
        """(one page, how many pages are of its size) for each size that the document has at scale 1.

        A drawn document's own scale may be a small one, at which pages of different sizes are alike. Parts of a document
        may keep to one scale, so that their pages and others are alike at this one only.
        """
        only = self.document.only_scale
        scales = (1.0, 0.5) if only is None else (only,)
        pages: dict[tuple[tuple[int, int], ...], list[int]] = {}
        for page in range(self.document.num_pages):
            pages.setdefault(tuple(self.document.page_size(page, scale) for scale in scales), []).append(page)
        return [(alike[0], len(alike)) for alike in pages.values()]

    def visual_tokens(self, scale: float) -> int:
        """Visual tokens of all pages."""
        if scale not in self._visual:
            self._visual[scale] = sum(
                self._tokens_of_size(self.document.page_size(page, scale)) * count for page, count in self._kinds
            )
        return self._visual[scale]

    def choose_scale(self) -> float:
        """The largest scale whose pages fit. Without pages: the largest there is, which then has no meaning."""
        limit, largest = (
            self.budget.max_context_tokens,
            (self._scales if self.has_pages else self.budget.scales[::-1])[0],
        )
        if limit is None:
            return largest
        if not self.has_pages:
            if limit < (self.with_spans + self.required_tokens if self.required_tokens else self.bare):
                self._nothing_left()
            return largest
        ceiling = self._page_ceiling(limit)
        wanted = ceiling - self._wished_tokens(limit) if self.budget.visual_share is None else ceiling
        for bound in (wanted, ceiling):
            if (scale := self._largest_scale(bound)) is not None:
                return scale if bound == wanted else self._smallest_scale()
        self._refuse()

    def _largest_scale(self, bound: int) -> float | None:
        """The largest scale at which pages cost no more than `bound`; None where the smallest costs more.

        Found by bisection, as pages grow with the scale. (Those smaller than the image processor's smallest page, or
        larger than its largest, are resized and all cost about the same: there it may be another that fits, too.)
        """
        scales = self._scales
        first = bisect_left(range(len(scales)), True, key=lambda step: self.visual_tokens(scales[step]) <= bound)
        return scales[first] if first < len(scales) else None

    @cached_property
    def _scales(self) -> list[float]:
        """The scales that the pages may have, largest first."""
        return self.budget.candidate_scales()

    def _smallest_scale(self) -> float:
        """The largest scale that costs no more than the smallest does."""
        return self._largest_scale(self.visual_tokens(self._scales[-1])) or self._scales[-1]

    def _page_ceiling(self, limit: int) -> int:
        """What pages may cost at most."""
        room = limit - (self.with_spans + self.required_tokens if self.required_tokens else self.bare)
        share = self.budget.visual_share
        return room if share is None else min(room, _share_of(limit - self.bare, share))

    def _wished_tokens(self, limit: int) -> int:
        """What the text policy wishes for, up to its claim on the room before pages shrink no more for it."""
        if self.required_tokens:
            return 0
        claim = max(0, _share_of(limit - self.with_spans, TEXT_SHARE_BEFORE_SCALE))
        if self.budget.max_text_tokens is not None:
            claim = min(claim, self.budget.max_text_tokens)
        chosen = self.policy.select(self.costs, claim).chosen
        return sum(self.costs.tokens(chosen)) + (self.with_spans - self.bare if chosen else 0)

    def select(self, scale: float) -> Selection:
        """The spans that the pages leave room for."""
        room = self.budget.max_text_tokens
        if self.budget.max_context_tokens is not None:
            left = self.budget.max_context_tokens - self.with_spans
            left -= self.visual_tokens(scale) if self.has_pages else 0
            room = max(0, left if room is None else min(room, left))
        selection = self.policy.select(self.costs, room)
        self._check(selection, room)
        if not self.has_pages and not selection.chosen:
            self._nothing_left()
        return selection

    def _check(self, selection: Selection, room: int | None) -> None:
        """RuntimeError for what no text policy may do; a policy may be a user's own."""
        last = 0
        for start, end in selection.chosen:
            if not last <= start < end <= len(self.document.text):
                raise RuntimeError(
                    f"the text policy {self.policy.name!r} chose characters [{start}, {end}): spans must be in order, "
                    f"apart, not empty and within the {len(self.document.text)} characters of the document"
                )
            last = end
        used = sum(self.costs.tokens(selection.chosen))
        if room is not None and used > room:
            raise RuntimeError(f"the text policy {self.policy.name!r} chose {used} tokens where {room} are left")

    def _nothing_left(self) -> NoReturn:
        least = self.policy.smallest(self.costs)
        if least is None:
            raise ValueError(
                f"visual_share=0 leaves out the pages and the text policy {self.policy.name!r} found nothing to copy: "
                "the prompt would hold nothing of the document; raise visual_share or choose another policy"
            )
        most = self.budget.max_text_tokens
        if most is not None and most < least:
            raise ContextBudgetError(
                f"max_text_tokens={most} holds no span of the text policy {self.policy.name!r} and visual_share=0 "
                f"leaves out the pages; the smallest that works is {least}",
                least,
                "max_text_tokens",
            )
        self._refuse()

    def smallest_budget(self) -> int:
        """The smallest `max_context_tokens` with which this request works."""
        text = self.required_tokens
        if not self.has_pages:
            return self.with_spans + (text or self.policy.smallest(self.costs) or 0)
        pages = self.visual_tokens(self._scales[-1])
        smallest = pages + (self.with_spans + text if text else self.bare)
        share = self.budget.visual_share
        if share:
            smallest = max(smallest, self.bare + math.ceil(pages / share) - 1)
            while _share_of(smallest - self.bare, share) < pages:
                smallest += 1
        return smallest

    def _refuse(self) -> NoReturn:
        limit, smallest = self.budget.max_context_tokens, self.smallest_budget()
        if limit is not None and limit < self.bare:
            cause = f"the question ({self.question_tokens} tokens) and the chat template alone take {self.bare} tokens"
        elif self.has_pages:
            scale = self._smallest_scale()
            cause = (
                f"{self.document.num_pages} pages take {self.visual_tokens(scale)} tokens at scale {scale:g} "
                f"(min_scale={self.budget.scales[0]:g}, visual_share={self.budget.visual_share}), question and chat "
                f"template {self.bare}, text that must be copied {self.required_tokens}; "
                "visual_share=0 does without pages"
            )
        else:
            cause = f"the text policy {self.policy.name!r} needs more than the question and the template leave"
        raise ContextBudgetError(
            f"max_context_tokens={limit} is too small: {cause}; the smallest that works is {smallest}", smallest
        )


def _share_of(room: int, share: float) -> int:
    """Whole tokens in a share of the room; the small addend keeps 0.1 * 30 at 3."""
    return int(room * share + 1e-9)
