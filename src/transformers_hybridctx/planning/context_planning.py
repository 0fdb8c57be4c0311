# SPDX-License-Identifier: Apache-2.0
"""Planning: a document, a question and a budget become a scale and the spans to copy, with exact token counts.

Every token of a prompt is one of four kinds, and a plan counts each: visual tokens of the pages, tokens of copied
spans (with their page labels), tokens of the question, tokens of the chat template around them. The prompt's segments
are tokenised one by one and joined as ids, so that the plan's total is the length of `input_ids` for any tokenizer.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Literal, NoReturn

from .ranked_policies import AnchorsPolicy, AttentionPolicy, BM25Policy
from .text_policies import (
    TEXT_POLICIES,
    CharRange,
    FullPolicy,
    MiddlePolicy,
    NonePolicy,
    PagedDocument,
    RankedPolicy,
    Selection,
    TailPolicy,
    TextPolicy,
    register_text_policy,
    resolve_text_policy,
)

# Scales are tried in steps of this size, from the largest down.
SCALE_STEP = 0.01
# Without a visual_share, copied text may claim up to this part of what the prompt leaves before pages shrink no more.
TEXT_SHARE_BEFORE_SCALE = 0.25
_DEFAULT_MIN_SCALE = 0.5
_DEFAULT_MAX_SCALE = 1.0

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

# Token ids of each text, as plain text: nothing in it becomes a special token.
Encoder = Callable[[list[str]], list[list[int]]]
# Visual tokens of a page of (height, width) pixels.
PageTokens = Callable[[int, int], int]
# Tokens of the chat template (and of all that is neither question nor this document), with or without pages and spans.
TemplateTokens = Callable[[bool, bool], int]


def encodable(text: str) -> str:
    r"""The text with every lone surrogate written as its escape, such as \ud83d: no tokenizer takes it bare."""
    return _LONE_SURROGATE.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def span_block(page: int, text: str) -> str:
    """What stands in the prompt for a span: its page, counted from 1, and its text."""
    return f"[page {page + 1}] {encodable(text)}\n"


def lone_surrogates(text: str, within: CharRange) -> list[tuple[int, str]]:
    """(position, character) of each lone surrogate of `text` in `within`."""
    start, end = within
    return [(match.start(), match.group()) for match in _LONE_SURROGATE.finditer(text, start, end)]


@dataclass(frozen=True)
class ContextBudget:
    """How many tokens a prompt may take, and how pages and copied text share them. None: the processor's default.

    Attributes:
        max_context_tokens: bound on the whole prompt, in tokens. None everywhere: no bound.
        visual_share: part of what template and question leave that pages may take, 0 to 1. 0: tokens only; 1: pages
            only. None: pages take the largest scale that leaves room for the spans that the text policy wishes for,
            where these may claim at most a quarter of what template and question leave (all of it under a policy that
            must have everything); copied text then gets what the pages leave.
        min_scale: pages are never drawn smaller than this (1: the render config's dpi). 0.5 unless said.
        max_scale: pages are never drawn larger than this. 1.0 unless said.
        max_text_tokens: bound on copied text, page labels included, in tokens.
    """

    max_context_tokens: int | None = None
    visual_share: float | None = None
    min_scale: float | None = None
    max_scale: float | None = None
    max_text_tokens: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_context_tokens", "max_text_tokens"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
                raise ValueError(f"{name}={value!r} must be a number of tokens, 0 or more, or None")
        for name in ("min_scale", "max_scale"):
            value = getattr(self, name)
            if value is not None and not (0 < value < math.inf):
                raise ValueError(f"{name}={value!r} must be above 0, where 1 is the render config's own dpi")
        if self.visual_share is not None and not 0 <= self.visual_share <= 1:
            raise ValueError(f"visual_share={self.visual_share!r} must be between 0 (no pages) and 1 (pages only)")
        if self.min_scale is not None and self.max_scale is not None and self.min_scale > self.max_scale:
            raise ValueError(f"min_scale={self.min_scale} is above max_scale={self.max_scale}")

    @classmethod
    def of(cls, budget: ContextBudget | dict[str, Any] | None) -> ContextBudget:
        """A budget from itself, from a dict of its fields (plain JSON), or the default one from None."""
        if isinstance(budget, ContextBudget):
            return budget
        if budget is not None and not isinstance(budget, dict):
            raise TypeError(f"budget must be a ContextBudget, a dict of its fields, or None, not {budget!r}")
        known = {item.name for item in fields(cls)}
        for key in budget or {}:
            if key not in known:
                raise ValueError(f"unknown ContextBudget field {key!r}; known fields: {', '.join(sorted(known))}")
        return cls(**(budget or {}))

    def filled_from(self, default: ContextBudget) -> ContextBudget:
        """This budget, its fields that are None taken from `default`; a scale that is set moves a default aside."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        for name, value in values.items():
            if value is None:
                values[name] = getattr(default, name)
        low, high = values["min_scale"], values["max_scale"]
        if low is not None and high is not None and low > high:
            values["min_scale"] = values["max_scale"] = low if self.max_scale is None else high
        return ContextBudget(**values)

    @property
    def scales(self) -> tuple[float, float]:
        """(smallest, largest) scale allowed."""
        low, high = self.min_scale, self.max_scale
        high = max(_DEFAULT_MAX_SCALE, low or 0) if high is None else high
        return (min(_DEFAULT_MIN_SCALE, high) if low is None else low), high

    def candidate_scales(self) -> Iterator[float]:
        """All scales that may be used, largest first."""
        low, high = self.scales
        steps = int((high - low) / SCALE_STEP + 1e-9)
        yield from (high if step == 0 else round(high - step * SCALE_STEP, 6) for step in range(steps + 1))
        if high - steps * SCALE_STEP - low > 1e-9:
            yield low


class ContextBudgetError(ValueError):
    """A budget that cannot be met.

    Attributes:
        smallest: the smallest value of `field` with which the same request works.
        field: the budget's field that is too small, "max_context_tokens" or "max_text_tokens".
    """

    def __init__(self, message: str, smallest: int, field: str = "max_context_tokens") -> None:
        super().__init__(message)
        self.smallest = smallest
        self.field = field

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.smallest, self.field)


@dataclass(frozen=True)
class Span:
    """Characters [start, end) of the document, copied as tokens. `page` counts from 0; the prompt's label from 1."""

    page: int
    start: int
    end: int
    text: str
    tokens: int
    input_ids: tuple[int, ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True)
class Omission:
    """Characters [start, end) that the model does not get as asked.

    reason: "absent": on no page of the prompt and in no copied span; "undrawable": the page shows a replacement box
    and no copied span has them; "not copied": on a page, but the text policy's wish to copy them did not fit.
    """

    start: int
    end: int
    reason: Literal["absent", "undrawable", "not copied"]


@dataclass(frozen=True)
class ContextPlan:
    r"""What one document becomes in one prompt. All counts are in tokens unless said.

    Attributes:
        policy: name of the text policy.
        scale: scale of the pages, where 1 is the render config's dpi.
        page_tokens: visual tokens of each page in the prompt; empty when there are no pages.
        spans: what is copied, in document order.
        omitted: what is left out, in document order.
        escaped: (position, character) of lone surrogates in copied spans; they are written as escapes such as \ud83d.
        document_tokens: what the text alone would have cost; 0 for scanned pages, whose text is not known.
        document_characters: length of the text.
        question_tokens: the question, or all user text of a conversation.
        template_tokens: everything else: chat template, page markers, other turns and pictures.
        prefix_tokens: leading tokens that stay the same for another question (where the policy ignores the question).
        document: the document that was planned for, laid out.
    """

    policy: str
    scale: float
    page_tokens: tuple[int, ...] = field(repr=False)
    spans: tuple[Span, ...] = field(repr=False)
    omitted: tuple[Omission, ...] = field(repr=False)
    escaped: tuple[tuple[int, str], ...] = field(repr=False)
    document_tokens: int
    document_characters: int
    question_tokens: int
    template_tokens: int
    prefix_tokens: int | None = None
    document: Any = field(default=None, repr=False, compare=False)

    @property
    def num_pages(self) -> int:
        """Pages in the prompt."""
        return len(self.page_tokens)

    @property
    def visual_tokens(self) -> int:
        """Tokens of the pages."""
        return sum(self.page_tokens)

    @property
    def text_tokens(self) -> int:
        """Tokens of the copied spans, page labels included."""
        return sum(span.tokens for span in self.spans)

    @property
    def total_tokens(self) -> int:
        """Length of the prompt: exactly the number of `input_ids` that the model gets."""
        return self.visual_tokens + self.text_tokens + self.question_tokens + self.template_tokens

    @property
    def compression_ratio(self) -> float | None:
        """How many tokens of text each token that stands for the document replaces; None without text."""
        spent = self.visual_tokens + self.text_tokens
        return self.document_tokens / spent if self.document_tokens and spent else None

    @property
    def omitted_characters(self) -> int:
        """Characters that the model gets in no form at all."""
        return sum(piece.end - piece.start for piece in self.omitted if piece.reason != "not copied")

    @property
    def copied_characters(self) -> int:
        """Characters that the model gets as tokens."""
        return sum(span.end - span.start for span in self.spans)

    def summary(self) -> str:
        """What a person wants to know, in a few aligned lines."""
        ratio = self.compression_ratio
        missed = sum(1 for piece in self.omitted if piece.reason == "not copied")
        rows = [
            ("document", f"{self.document_characters:,} characters, {self.document_tokens:,} tokens as text"),
            ("pages", f"{self.num_pages:,} at scale {self.scale:g}, {self.visual_tokens:,} visual tokens"),
            ("copied", f"{len(self.spans):,} spans by policy {self.policy!r}, {self.text_tokens:,} tokens"),
            (
                "prompt",
                f"{self.total_tokens:,} tokens ({self.question_tokens:,} question, {self.template_tokens:,} template)",
            ),
            ("compression", "unknown (no text)" if ratio is None else f"{ratio:.2f} text tokens for each token spent"),
            ("left out", f"{self.omitted_characters:,} characters, {missed:,} spans wished for did not fit"),
        ]
        if self.escaped:
            rows.append(("escaped", f"{len(self.escaped):,} lone surrogates copied as escapes"))
        return "\n".join(f"{name:<12} {value}" for name, value in rows)


class SpanTokens:
    """The spans of one document in one prompt: their ids, counted once. `text_policies.SpanCosts` is its contract."""

    def __init__(self, document: PagedDocument, question: str | None, encode: Encoder) -> None:
        self.document = document
        self.question = question
        self._encode = encode
        self._ids: dict[CharRange, tuple[int, ...]] = {}
        self._wishes: dict[RankedPolicy, list[CharRange]] = {}

    def block(self, span: CharRange) -> str:
        """What stands in the prompt for a span."""
        start, end = span
        return span_block(self.document.page_of(start), self.document.text[start:end])

    def ids(self, ranges: Sequence[CharRange]) -> list[tuple[int, ...]]:
        new = [span for span in dict.fromkeys(ranges) if span not in self._ids]
        if new:
            encoded = self._encode([self.block(span) for span in new])
            self._ids.update((span, tuple(ids)) for span, ids in zip(new, encoded, strict=True))
        return [self._ids[span] for span in ranges]

    def tokens(self, ranges: Sequence[CharRange]) -> list[int]:
        return [len(ids) for ids in self.ids(ranges)]

    def wishes(self, policy: RankedPolicy) -> list[CharRange]:
        if policy not in self._wishes:
            self._wishes[policy] = policy.rank(self.document, self.question)
        return self._wishes[policy]

    def spans(self, ranges: Sequence[CharRange]) -> tuple[Span, ...]:
        text, page_of = self.document.text, self.document.page_of
        return tuple(
            Span(page_of(start), start, end, text[start:end], len(ids), ids)
            for (start, end), ids in zip(ranges, self.ids(ranges), strict=True)
        )


@dataclass(frozen=True)
class ContextPlanner:
    """Turns documents into plans.

    Attributes:
        encode: token ids of plain texts.
        page_tokens: (height, width) in pixels -> visual tokens.
    """

    encode: Encoder
    page_tokens: PageTokens

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
            omitted=tuple(_omissions(document, selection, request.has_pages)),
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
        self.budget = budget
        self.costs = SpanTokens(document, question, planner.encode)
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
        """(one page, how many pages are of its size) for each size that the document has."""
        sizes = [self.document.page_size(page) for page in range(self.document.num_pages)]
        return [(sizes.index(size), count) for size, count in Counter(sizes).items()]

    def visual_tokens(self, scale: float) -> int:
        """Visual tokens of all pages."""
        if scale not in self._visual:
            self._visual[scale] = sum(
                self._tokens_of_size(self.document.page_size(page, scale)) * count for page, count in self._kinds
            )
        return self._visual[scale]

    def choose_scale(self) -> float:
        """The largest scale whose pages fit. Without pages: the largest there is, which then has no meaning."""
        largest = self.budget.scales[1]
        limit = self.budget.max_context_tokens
        if limit is None:
            return largest
        if not self.has_pages:
            if limit < (self.with_spans + self.required_tokens if self.required_tokens else self.bare):
                self._refuse()
            return largest
        ceiling = self._page_ceiling(limit)
        wanted = ceiling - self._wished_tokens(limit) if self.budget.visual_share is None else ceiling
        for bound in dict.fromkeys((wanted, ceiling)):
            for scale in self.budget.candidate_scales():
                if self.visual_tokens(scale) <= bound:
                    return scale if bound == wanted else self._smallest_scale()
        self._refuse()

    def _smallest_scale(self) -> float:
        """The scale that costs least (the largest of these)."""
        return min(self.budget.candidate_scales(), key=self.visual_tokens)

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
        if not self.has_pages and not selection.chosen:
            self._nothing_left()
        return selection

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
        pages = min(self.visual_tokens(scale) for scale in self.budget.candidate_scales())
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


def _omissions(document: PagedDocument, selection: Selection, has_pages: bool) -> list[Omission]:
    not_copied = _gaps(selection.chosen, len(document.text))
    if not has_pages:
        return [Omission(start, end, "absent") for start, end in not_copied]
    boxes = _joined((position, position + 1) for position, _ in document.undrawable)
    lost = [Omission(start, end, "undrawable") for start, end in _common(boxes, not_copied)]
    missed = [Omission(start, end, "not copied") for start, end in selection.missed]
    return sorted([*lost, *missed], key=lambda piece: (piece.start, piece.end))


def _joined(ranges: Iterable[CharRange]) -> list[CharRange]:
    """Sorted ranges, those that touch as one."""
    joined: list[CharRange] = []
    for start, end in ranges:
        if joined and joined[-1][1] >= start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def _gaps(ranges: Sequence[CharRange], length: int) -> list[CharRange]:
    """What sorted disjoint ranges leave of [0, length)."""
    edges = [0, *(edge for span in ranges for edge in span), length]
    return [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if start < end]


def _common(one: Sequence[CharRange], other: Sequence[CharRange]) -> list[CharRange]:
    """What two lists of sorted disjoint ranges have in common."""
    common: list[CharRange] = []
    first = second = 0
    while first < len(one) and second < len(other):
        start, end = max(one[first][0], other[second][0]), min(one[first][1], other[second][1])
        if start < end:
            common.append((start, end))
        if one[first][1] <= other[second][1]:
            first += 1
        else:
            second += 1
    return common


__all__ = [
    "TEXT_POLICIES",
    "AnchorsPolicy",
    "AttentionPolicy",
    "BM25Policy",
    "ContextBudget",
    "ContextBudgetError",
    "ContextPlan",
    "ContextPlanner",
    "FullPolicy",
    "MiddlePolicy",
    "NonePolicy",
    "Omission",
    "PagedDocument",
    "Span",
    "TailPolicy",
    "TextPolicy",
    "encodable",
    "register_text_policy",
    "resolve_text_policy",
]
