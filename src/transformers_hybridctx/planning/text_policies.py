# SPDX-License-Identifier: Apache-2.0
"""Text policies: which characters of a document are worth copying into the prompt as exact tokens.

A policy is a small frozen dataclass whose documented fields are its knobs. It sees a document, the question and what
each span costs (a `SpanCosts`), and never a page's pixels or a model. Policies that do not look at the question give
the same spans for every question, so that a reading of the document can be kept and asked many times.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

from ..rendering.characters import CharRange


class PagedDocument(Protocol):
    """What planning asks of a document; `TypesetDocument` is one, a stack of scanned pages (no text) another."""

    text: str
    num_pages: int

    @property
    def undrawable(self) -> Sequence[tuple[int, str]]: ...

    def page_size(self, page: int, scale: float = 1.0) -> tuple[int, int]:
        """(height, width) in pixels; pages of one size at scale 1 are of one size at every scale."""
        ...

    def page_of(self, char_index: int) -> int: ...

    def page_span(self, page: int) -> CharRange: ...


class SpanCosts(Protocol):
    """The document and the price of its spans; `context_planning.SpanTokens` is the one that counts tokens."""

    @property
    def document(self) -> PagedDocument: ...

    @property
    def question(self) -> str | None: ...

    def tokens(self, ranges: Sequence[CharRange]) -> list[int]:
        """Tokens that each span adds to the prompt, its page label included."""
        ...

    def wishes(self, policy: RankedPolicy) -> list[CharRange]:
        """What the policy would copy, best first; worked out once."""
        ...


class Selection(NamedTuple):
    """What a policy copies (`chosen`, in document order, never overlapping) and what it would have copied as well."""

    chosen: list[CharRange]
    missed: list[CharRange]


class TextPolicy:
    """Base of all text policies: `select` what fits into `limit` tokens (None: no limit).

    A policy that sets `looks_at_question` may copy other spans for another question.
    """

    name: ClassVar[str]
    looks_at_question: ClassVar[bool] = False

    @property
    def required(self) -> bool:
        """Whether the policy takes all it wishes or nothing: a budget that is too small is then an error."""
        return False

    def select(self, costs: SpanCosts, limit: int | None) -> Selection:
        raise NotImplementedError(f"{type(self).__name__} must say what it selects")

    def smallest(self, costs: SpanCosts) -> int | None:
        """Fewest tokens with which `select` copies anything at all; None when it wishes for nothing."""
        raise NotImplementedError(f"{type(self).__name__} must say what its smallest selection costs")


@dataclass(frozen=True)
class NonePolicy(TextPolicy):
    """Copies nothing: the pages alone."""

    name: ClassVar[str] = "none"

    def select(self, costs: SpanCosts, limit: int | None) -> Selection:
        return Selection([], [])

    def smallest(self, costs: SpanCosts) -> int | None:
        return None


class _ElasticPolicy(TextPolicy):
    """A policy whose wish is the whole text and which can be cut at any character."""

    def smallest(self, costs: SpanCosts) -> int | None:
        end = len(costs.document.text)
        return costs.tokens([(end - 1, end)])[0] if end else None


@dataclass(frozen=True)
class TailPolicy(_ElasticPolicy):
    """Copies the last part of the text that fits, from a word boundary where there is one.

    Attributes:
        max_chars: copy at most this many characters, however large the budget is (None: no limit).
    """

    name: ClassVar[str] = "tail"
    max_chars: int | None = None

    def select(self, costs: SpanCosts, limit: int | None) -> Selection:
        end = len(costs.document.text)
        start = 0 if self.max_chars is None else max(0, end - self.max_chars)
        chosen, _ = _fill(costs, (start, end), limit, from_end=True)
        kept = chosen[0][0] if chosen else end
        return Selection(chosen, [(start, kept)] if kept > start else [])


@dataclass(frozen=True)
class MiddlePolicy(_ElasticPolicy):
    """Copies head and tail of the text, half of the limit each, and leaves out the middle (as LongBench does)."""

    name: ClassVar[str] = "middle"

    def select(self, costs: SpanCosts, limit: int | None) -> Selection:
        whole = (0, len(costs.document.text))
        everything, used = _fill(costs, whole, limit, from_end=False)
        if limit is None or (everything and everything[-1][1] == whole[1]):
            return Selection(everything, [])
        head, used = _fill(costs, whole, limit - limit // 2, from_end=False)
        cut_start = head[-1][1] if head else 0
        tail, _ = _fill(costs, (cut_start, whole[1]), limit - used, from_end=True)
        cut_end = tail[0][0] if tail else whole[1]
        return Selection(head + tail, [(cut_start, cut_end)] if cut_end > cut_start else [])


@dataclass(frozen=True)
class FullPolicy(TextPolicy):
    """Copies the whole text, one span for each page.

    Attributes:
        truncate: None: a budget that cannot hold the text is an error; "middle": the middle is left out instead.
    """

    name: ClassVar[str] = "full"
    truncate: Literal["middle"] | None = None

    def __post_init__(self) -> None:
        if self.truncate not in (None, "middle"):
            raise ValueError(f"truncate={self.truncate!r} is not a way to truncate; give None or 'middle'")

    @property
    def required(self) -> bool:
        return self.truncate is None

    def select(self, costs: SpanCosts, limit: int | None) -> Selection:
        if self.truncate is not None:
            return MiddlePolicy().select(costs, limit)
        return Selection(page_ranges(costs.document, (0, len(costs.document.text))), [])

    def smallest(self, costs: SpanCosts) -> int | None:
        if self.truncate is not None:
            return MiddlePolicy().smallest(costs)
        chosen = self.select(costs, None).chosen
        return sum(costs.tokens(chosen)) if chosen else None


class RankedPolicy(TextPolicy):
    """A policy that ranks disjoint spans: the best are copied first, and all of them in document order."""

    def rank(self, document: PagedDocument, question: str | None) -> list[CharRange]:
        """Disjoint spans, best first."""
        raise NotImplementedError(f"{type(self).__name__} must rank its spans")

    def select(self, costs: SpanCosts, limit: int | None) -> Selection:
        wishes = costs.wishes(self)
        if limit is None:
            return Selection(merge_touching(costs.document, wishes), [])
        taken: list[CharRange] = []
        refused: list[CharRange] = []
        left, room = wishes, limit
        while left and room > 0:
            more, left = _take_best(costs, left, room, give_up=bool(taken))
            if not more:
                break
            taken += more
            # Spans that touch share one page label, which as a rule makes room for more.
            while (used := sum(costs.tokens(merge_touching(costs.document, taken)))) > limit:
                refused.append(taken.pop())
            room = limit - used
        return Selection(merge_touching(costs.document, taken), merge_touching(costs.document, [*refused, *left]))

    def smallest(self, costs: SpanCosts) -> int | None:
        return min(costs.tokens(costs.wishes(self)), default=None)


# After this many spans in a row that did not fit, a budget that holds any span counts as used up.
_PATIENCE = 64


def _take_best(
    costs: SpanCosts, ranked: list[CharRange], room: int, give_up: bool
) -> tuple[list[CharRange], list[CharRange]]:
    """Take spans best first while they fit into `room` tokens: (taken, left), both best first.

    `give_up`: stop after some that did not fit even if none did, because others have been taken before.
    """
    taken: list[CharRange] = []
    left: list[CharRange] = []
    misses = 0
    for first in range(0, len(ranked), _PATIENCE):
        batch = ranked[first : first + _PATIENCE]
        for wish, cost in zip(batch, costs.tokens(batch), strict=True):
            if cost <= room:
                taken.append(wish)
                room -= cost
                misses = 0
            else:
                left.append(wish)
                misses += 1
        if (taken or give_up) and misses >= _PATIENCE:
            return taken, left + ranked[first + _PATIENCE :]
    return taken, left


def merge_touching(document: PagedDocument, ranges: Iterable[CharRange]) -> list[CharRange]:
    """Ranges in document order; those of one page with nothing but white space between them become one."""
    merged: list[CharRange] = []
    for start, end in sorted(ranges):
        if merged:
            before, touch = merged[-1]
            gap = document.text[touch:start]
            if (not gap or gap.isspace()) and document.page_of(before) == document.page_of(start):
                merged[-1] = (before, max(touch, end))
                continue
        merged.append((start, end))
    return merged


def page_ranges(document: PagedDocument, within: CharRange) -> list[CharRange]:
    """The characters of `within`, page by page and without a gap: white space at a page's end belongs to that page."""
    first = document.page_of(within[0])
    starts = [within[0]]
    for page in range(first + 1, document.num_pages):
        start = document.page_span(page)[0]
        if start >= within[1]:
            break
        if start > starts[-1]:
            starts.append(start)
    return [piece for piece in zip(starts, [*starts[1:], within[1]], strict=True) if piece[0] < piece[1]]


def _fill(costs: SpanCosts, within: CharRange, limit: int | None, from_end: bool) -> tuple[list[CharRange], int]:
    """Pages of `within` from one end on while they fit, then a part of the next: (ranges in order, tokens)."""
    pages = page_ranges(costs.document, within) if within[0] < within[1] else []
    if limit is None:
        return pages, sum(costs.tokens(pages))
    chosen: list[CharRange] = []
    room = limit
    for page in reversed(pages) if from_end else pages:
        cost = costs.tokens([page])[0]
        piece: CharRange | None = page
        if cost > room:
            piece, cost = _longest_piece(costs, page, room, from_end)
        if piece is not None:
            chosen.append(piece)
            room -= cost
        if piece != page:
            break
    return sorted(chosen), limit - room


def _longest_piece(costs: SpanCosts, page: CharRange, room: int, from_end: bool) -> tuple[CharRange | None, int]:
    """The longest head (or tail) of a page's characters that costs at most `room` tokens."""

    def piece(length: int) -> CharRange:
        return (page[1] - length, page[1]) if from_end else (page[0], page[0] + length)

    fits, too_long = 0, page[1] - page[0] + 1
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if costs.tokens([piece(middle)])[0] <= room:
            fits = middle
        else:
            too_long = middle
    if not fits:
        return None, 0
    whole_words = piece(_at_word_boundary(costs.document.text, piece(fits), from_end))
    if whole_words[0] < whole_words[1] and (cost := costs.tokens([whole_words])[0]) <= room:
        return whole_words, cost
    return piece(fits), costs.tokens([piece(fits)])[0]


def _at_word_boundary(text: str, kept: CharRange, from_end: bool, reach: int = 48) -> int:
    """How many characters of `kept` remain when its cut end moves to the nearest white space, at most `reach` away."""
    start, end = kept
    if from_end:
        if start == 0 or text[start - 1].isspace():
            return end - start
        found = re.search(r"\s", text[start : min(end, start + reach)])
        return end - start - found.end() if found else end - start
    if end == len(text) or text[end].isspace():
        return end - start
    window = max(start, end - reach)
    found_end = max((match.start() for match in re.finditer(r"\s", text[window:end])), default=None)
    return window + found_end - start if found_end is not None else end - start


TEXT_POLICIES: dict[str, type[TextPolicy]] = {}


def register_text_policy(policy_class: type[TextPolicy]) -> type[TextPolicy]:
    """Make a policy known by its `name`; also usable as a class decorator."""
    TEXT_POLICIES[policy_class.name] = policy_class
    return policy_class


for _policy in (FullPolicy, NonePolicy, TailPolicy, MiddlePolicy):
    register_text_policy(_policy)


def resolve_text_policy(policy: str | dict[str, Any] | TextPolicy) -> TextPolicy:
    """A policy from its name, from `{"name": ..., knob: value}`, or itself.

    Raises:
        ValueError: an unknown name (the known ones are named) or knob.
        TypeError: something else.
    """
    if isinstance(policy, TextPolicy):
        return policy
    if not isinstance(policy, (str, dict)):
        raise TypeError(f"text_policy must be a name, a dict with a name, or a TextPolicy, not {policy!r}")
    knobs = {"name": policy} if isinstance(policy, str) else dict(policy)
    name = knobs.pop("name", None)
    if name not in TEXT_POLICIES:
        raise ValueError(f"unknown text policy {name!r}; known policies: {', '.join(sorted(TEXT_POLICIES))}")
    make: Callable[..., TextPolicy] = TEXT_POLICIES[name]
    try:
        return make(**knobs)
    except TypeError as error:
        raise ValueError(f"text policy {name!r} does not take {sorted(knobs)}: {error}") from error
