# SPDX-License-Identifier: Apache-2.0
"""What a text policy is: it picks the characters of a document that are worth copying as exact tokens.

A policy is a small frozen dataclass whose documented fields are its knobs. It sees a document, the question and what
each span costs (a `SpanCosts`), and never a page's pixels or a model. Policies that do not look at the question give
the same spans for every question, so that a reading of the document can be kept and asked many times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple, Protocol

from ...rendering.characters import CharRange
from ..paged_document import PagedDocument


class Ranking(Protocol):
    """What ranks spans; a `RankedPolicy` is one. It is hashable, and what it ranks without a question is kept."""

    looks_at_question: ClassVar[bool]

    def rank(self, document: PagedDocument, question: str | None) -> list[CharRange]: ...


class SpanCosts(Protocol):
    """The document and the price of its spans; `span_tokens.SpanTokens` is the one that counts tokens."""

    @property
    def document(self) -> PagedDocument: ...

    @property
    def question(self) -> str | None: ...

    def page_of(self, position: int) -> int:
        """The page of a character, counted from 0."""
        ...

    def tokens(self, ranges: Sequence[CharRange]) -> list[int]:
        """Tokens that each span adds to the prompt, its page label included."""
        ...

    def wishes(self, policy: Ranking) -> list[CharRange]:
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
