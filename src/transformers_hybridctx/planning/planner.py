# SPDX-License-Identifier: Apache-2.0
"""Planning: a document, a question and a budget become a scale and the spans to copy, with exact token counts.

Every token of a prompt is one of five kinds, and a plan counts each: visual tokens of the pages, tokens of latents and
of copied spans (with their labels), tokens of the question, tokens of the chat template around them. The prompt's
segments are tokenised one by one and joined as ids, so that the plan's total is the length of `input_ids` for any
tokenizer.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NoReturn, Protocol

from .budget import ContextBudget, ContextBudgetError
from .latents import LatentLayout, LatentSettings, LatentText
from .omissions import omissions_of, why_undrawn
from .paged_document import PagedDocument
from .plan import ContextPlan, lone_surrogates
from .policies.auto import AutoPolicy
from .policies.base import Selection, TextPolicy
from .policies.none import NonePolicy
from .span_tokens import Encoder, SpanMemory, SpanTokens

# Without a visual_share, copied text may claim up to this part of what the prompt leaves before pages shrink no more.
TEXT_SHARE_BEFORE_SCALE = 0.25

# Visual tokens of a page of (height, width) pixels.
PageTokens = Callable[[int, int], int]


class TemplateTokens(Protocol):
    """
    Tokens of the chat template (and of all that is neither question nor this document), with or without pages and spans;
    and with latents before the pages from `first_page` on, where that is given.
    """

    def __call__(self, has_pages: bool, has_spans: bool, first_page: int = ..., /) -> int: ...


@dataclass(frozen=True)
class ContextPlanner:
    """Turns documents into plans.

    Attributes:
        encode: token ids of plain texts.
        page_tokens: (height, width) in pixels -> visual tokens.
        memory: what is known of documents' spans in the ids of `encode`.
        latents: how latents are written; None: not at all.
        latent_token_id: stands for a latent.
    """

    encode: Encoder
    page_tokens: PageTokens
    memory: SpanMemory = field(default_factory=SpanMemory, repr=False)
    latents: LatentSettings | None = None
    latent_token_id: int = -1

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
        """Choose the scale, the spans, and what gives way to latents.

        Args:
            question: what query-aware policies look at.
            template_tokens: (pages in the prompt, spans in the prompt) -> tokens of all that is not this document.
            question_tokens, document_tokens: as in `ContextPlan`.

        Raises:
            ContextBudgetError: the budget cannot be met; its `smallest` can.
            ValueError: a request that leaves nothing of the document in the prompt.
        """
        if isinstance(policy, AutoPolicy):

            def planned(budget: ContextBudget, policy: TextPolicy) -> ContextPlan:
                return self.plan(document, question, budget, policy, template_tokens, question_tokens, document_tokens)

            return policy.plan(document, question, budget, planned)
        costs = SpanTokens(document, question, self.encode, self.memory)
        budget = budget.at_only_scale(document.only_scale)

        def request_with(layout: LatentLayout) -> _Request:
            return _Request(self.page_tokens, costs, budget, policy, template_tokens, question_tokens, layout)

        text = self._latent_text(costs, budget)
        request = request_with(LatentLayout()) if text is None else _with_latents(request_with, text, budget)
        layout = request.layout
        scale = request.choose_scale()
        selection = request.select(scale)
        page_tokens = request.tokens_of_pages(scale) if request.has_pages else ()
        spans = request.costs.spans(selection.chosen)
        return ContextPlan(
            policy=request.policy.name,
            scale=scale,
            page_tokens=page_tokens,
            spans=spans,
            omitted=tuple(omissions_of(document, selection, request.has_pages, layout.end)),
            undrawn=why_undrawn(document) if request.has_pages else "",
            escaped=tuple(found for span in selection.chosen for found in lone_surrogates(document.text, span)),
            document_tokens=document_tokens,
            document_characters=len(document.text),
            question_tokens=question_tokens,
            template_tokens=request.template_tokens(bool(spans)),
            document=document,
            latents=layout.chunks,
            latent_ids=layout.input_ids,
            first_page=layout.first_page,
        )

    def _latent_text(self, costs: SpanTokens, budget: ContextBudget) -> LatentText | None:
        """The chunks that may become latents; None where none may."""
        if not (budget.latent_share if budget.latent_chunks is None else budget.latent_chunks):
            return None
        if self.latents is None:
            name = "latent_share" if budget.latent_chunks is None else "latent_chunks"
            raise ValueError(
                f"{name}={getattr(budget, name):g}: this checkpoint has no latent encoder, as far as its processor says "
                "(latents is not set); leave it out, or take a checkpoint that has one"
            )
        if not costs.document.text.strip():
            return None  # page pictures have no text that latents could stand for
        chunks = costs.latent_chunks(self.latents, self.latent_token_id)
        return LatentText(costs.document, chunks, self.encode, budget.visual_share != 0)


def _with_latents(
    request_with: Callable[[LatentLayout], _Request], text: LatentText, budget: ContextBudget
) -> _Request:
    """The request in which no more of the document gives way to latents than has to, and that can be met if any can."""
    if budget.latent_chunks is not None:
        return request_with(text.layout(budget.latent_chunks))
    plain, limit = request_with(LatentLayout()), budget.max_context_tokens
    if not plain.has_pages:
        return _as_much_as_fits(request_with, text, plain)
    if limit is None or plain.smallest_budget() <= limit or not text.in_place_of_pages:
        return plain
    requests = [lambda count=count: request_with(text.layout(count)) for count in text.in_place_of_pages]
    # The more gives way, the shorter the prompt, as latents are there to be shorter than pages; up to where it is their
    # share that bounds it.
    turn = bisect_left(requests, True, key=lambda request: request().is_bound_by_latents)
    last = min(
        range(max(0, turn - 1), min(turn + 1, len(requests))), key=lambda index: requests[index]().smallest_budget()
    )
    least = requests[last]()
    for wished in (_Request.wished_tokens, lambda request, limit: 0):

        def fits(request: _Request, wished: Callable[[_Request, int], int] = wished) -> bool:
            return request.smallest_budget() + wished(request, limit) <= limit

        if fits(least):
            return requests[bisect_left(requests[:last], True, key=lambda request: fits(request()))]()
    return min(plain, least, key=_Request.smallest_budget)


def _as_much_as_fits(request_with: Callable[[LatentLayout], _Request], text: LatentText, plain: _Request) -> _Request:
    """Without pages, latents stand for the beginning of the document as far as they may."""
    limit, share = plain.budget.max_context_tokens, plain.budget.latent_share or 0
    if limit is None:
        return request_with(text.layout(len(text.chunks)))
    one = request_with(text.layout(1))
    room = limit - (one.with_spans + one.required_tokens if one.required_tokens else one.bare)
    count = text.count_within(max(0, min(room, share_of(limit - one.bare, share))))
    if count:
        return request_with(text.layout(count))
    return min([one, plain] if plain.can_copy else [one], key=_Request.smallest_budget)


class _Request:
    """One call of `ContextPlanner.plan` with what gives way to latents, and the arithmetic of its budget."""

    def __init__(
        self,
        page_tokens: PageTokens,
        costs: SpanTokens,
        budget: ContextBudget,
        policy: TextPolicy,
        template_tokens: TemplateTokens,
        question_tokens: int,
        layout: LatentLayout,
    ) -> None:
        self.document = document = costs.document
        self.budget = budget
        self.costs = costs
        self.layout = layout
        self.latent_tokens = len(layout.input_ids)
        self.has_pages = budget.visual_share != 0 and layout.first_page < document.num_pages
        if not self.has_pages and not document.text:
            raise ValueError("visual_share=0 leaves nothing of scanned pages: their text is not known")
        # Pages only, and pages without text, copy nothing whatever the policy is.
        self.policy = policy if document.text and budget.visual_share != 1 else NonePolicy()
        self._template_tokens = template_tokens
        self.bare = self.template_tokens(False) + question_tokens
        self.with_spans = self.template_tokens(True) + question_tokens
        self.question_tokens = question_tokens
        self._page_tokens = page_tokens
        self._known_sizes: dict[tuple[int, int], int] = {}
        self._visual: dict[float, int] = {}
        self.required_tokens = self._required_tokens()

    def template_tokens(self, has_spans: bool) -> int:
        """Tokens of all that is neither question nor document."""
        latents = (self.layout.first_page,) if self.layout.chunks else ()
        return self._template_tokens(self.has_pages, has_spans, *latents)

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
        return tuple(self._tokens_of_size(self.document.page_size(page, scale)) for page in self._pages)

    @property
    def _pages(self) -> range:
        """The pages that latents leave."""
        return range(self.layout.first_page, self.document.num_pages)

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
        for page in self._pages:
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
            fixed = self.with_spans + self.required_tokens if self.required_tokens else self.bare
            if limit < fixed + self.latent_tokens or limit < self._least_for_share(
                self.latent_tokens, self.latent_share
            ):
                self._nothing_left()
            return largest
        ceiling = self._page_ceiling(limit)
        wanted = ceiling - self.wished_tokens(limit) if self.budget.visual_share is None else ceiling
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
        if limit < self._least_for_share(self.latent_tokens, self.latent_share):
            return -1
        room = limit - self.latent_tokens
        room -= self.with_spans + self.required_tokens if self.required_tokens else self.bare
        share = self.budget.visual_share
        return room if share is None else min(room, share_of(limit - self.bare, share))

    def wished_tokens(self, limit: int) -> int:
        """What the text policy wishes for, up to its claim on the room before pages shrink no more for it."""
        if self.required_tokens:
            return 0
        claim = max(0, share_of(limit - self.with_spans, TEXT_SHARE_BEFORE_SCALE))
        if self.budget.max_text_tokens is not None:
            claim = min(claim, self.budget.max_text_tokens)
        chosen = self.policy.select(self.costs, claim).chosen
        return sum(self.costs.tokens(chosen)) + (self.with_spans - self.bare if chosen else 0)

    def select(self, scale: float) -> Selection:
        """The spans that the pages leave room for."""
        room = self.budget.max_text_tokens
        if self.budget.max_context_tokens is not None:
            left = self.budget.max_context_tokens - self.with_spans - self.latent_tokens
            left -= self.visual_tokens(scale) if self.has_pages else 0
            room = max(0, left if room is None else min(room, left))
        selection = self.policy.select(self.costs, room)
        self._check(selection, room)
        if not self.has_pages and not selection.chosen and not self.layout.chunks:
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
        if self.layout.chunks:
            self._refuse()
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

    @property
    def can_copy(self) -> bool:
        """Whether the text policy copies anything at all, if the prompt is long enough."""
        least, most = self.policy.smallest(self.costs), self.budget.max_text_tokens
        return least is not None and (most is None or least <= most)

    @property
    def latent_share(self) -> float | None:
        """The share that bounds latents; none where the caller has said how many."""
        return self.budget.latent_share if self.budget.latent_chunks is None else None

    def smallest_budget(self) -> int:
        """The smallest `max_context_tokens` with which this request works."""
        text, latents = self.required_tokens, self.latent_tokens
        pages = self.visual_tokens(self._scales[-1]) if self.has_pages else 0
        if not self.has_pages and not latents:
            return self.with_spans + (text or self.policy.smallest(self.costs) or 0)
        smallest = pages + latents + (self.with_spans + text if text else self.bare)
        smallest = max(smallest, self._least_for_share(latents, self.latent_share))
        return max(smallest, self._least_for_share(pages, self.budget.visual_share))

    @property
    def is_bound_by_latents(self) -> bool:
        """Whether it is the share of latents that asks for a prompt of `smallest_budget`."""
        return self._least_for_share(self.latent_tokens, self.latent_share) >= self.smallest_budget()

    def _least_for_share(self, tokens: int, share: float | None) -> int:
        """The smallest prompt of which so many tokens are no more than their share."""
        if not share or not tokens:
            return 0
        least = self.bare + math.ceil(tokens / share) - 1
        while share_of(least - self.bare, share) < tokens:
            least += 1
        return least

    def _refuse(self) -> NoReturn:
        limit, smallest = self.budget.max_context_tokens, self.smallest_budget()
        if limit is not None and limit < self.bare:
            cause = f"the question ({self.question_tokens} tokens) and the chat template alone take {self.bare} tokens"
        elif self.layout.chunks:
            cause = (
                f"{len(self.layout.chunks)} chunks as latents take {self.latent_tokens} tokens "
                f"(latent_share={self.budget.latent_share}), pages beside them "
                f"{self.visual_tokens(self._smallest_scale()) if self.has_pages else 0}, question and chat template "
                f"{self.bare}, text that must be copied {self.required_tokens}"
            )
        elif self.has_pages:
            scale, share = self._smallest_scale(), self.budget.visual_share
            of_share = "" if share is None else f", visual_share={share:g}"
            cause = (
                f"{self.document.num_pages} pages take {self.visual_tokens(scale)} tokens at scale {scale:g} "
                f"(min_scale={self.budget.scales[0]:g}{of_share}), question and chat "
                f"template {self.bare}, text that must be copied {self.required_tokens}; "
                "visual_share=0 does without pages"
            )
        else:
            cause = f"the text policy {self.policy.name!r} needs more than the question and the template leave"
        raise ContextBudgetError(
            f"max_context_tokens={limit} is too small: {cause}; the smallest that works is {smallest}", smallest
        )


def share_of(room: int, share: float) -> int:
    """Whole tokens in a share of the room; the small addend keeps 0.1 * 30 at 3."""
    return int(room * share + 1e-9)
