# SPDX-License-Identifier: Apache-2.0
"""The spans of one document in one prompt, each tokenised once for all questions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from ..rendering.characters import CharRange
from .latents import LatentSettings, latent_chunks_of
from .paged_document import PagedDocument
from .plan import LatentChunk, Span, span_block
from .policies.base import Ranking

# Token ids of each text, as plain text: nothing in it becomes a special token.
Encoder = Callable[[list[str]], list[list[int]]]

# Ids and pages that are kept of one document at most, beside those of the request that is being planned.
_KEPT_IDS = 4_000_000
# Rankings that are kept of one document at most.
_KEPT_WISHES = 8


@dataclass
class _Known:
    """What is known of one document in one tokenizer: ids of spans, what no question changes, pages of positions."""

    ids: dict[CharRange, tuple[int, ...]] = field(default_factory=dict)
    wishes: dict[Ranking, list[CharRange]] = field(default_factory=dict)
    pages: dict[int, int] = field(default_factory=dict)
    chunks: dict[LatentSettings, tuple[LatentChunk, ...]] = field(default_factory=dict)
    num_ids: int = 0

    @property
    def is_full(self) -> bool:
        return self.num_ids + len(self.pages) > _KEPT_IDS or len(self.wishes) > _KEPT_WISHES


class SpanMemory:
    """What was found out about documents' spans with one encoder, for as long as the documents live.

    A second question about a document costs no second ranking and no second tokenising. Threads may share it: entries
    are only added, and what is too large is left to the requests that use it and begun anew.
    """

    def __init__(self) -> None:
        self._documents: WeakKeyDictionary[PagedDocument, _Known] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def of(self, document: PagedDocument) -> _Known:
        """What is known of a document, to be added to."""
        with self._lock:
            known = self._documents.get(document)
            if known is None or known.is_full:
                known = self._documents[document] = _Known()
            return known


class SpanTokens:
    """The spans of one document in one prompt and their ids. `policies.base.SpanCosts` is its contract."""

    def __init__(
        self, document: PagedDocument, question: str | None, encode: Encoder, memory: SpanMemory | None = None
    ) -> None:
        self.document = document
        self.question = question
        self._encode = encode
        self._known = (memory or SpanMemory()).of(document)
        self._wishes: dict[Ranking, list[CharRange]] = {}

    def page_of(self, position: int) -> int:
        page = self._known.pages.get(position)
        if page is None:
            page = self._known.pages[position] = self.document.page_of(position)
        return page

    def block(self, span: CharRange) -> str:
        """What stands in the prompt for a span."""
        start, end = span
        return span_block(self.page_of(start), self.document.text[start:end])

    def ids(self, ranges: Sequence[CharRange]) -> list[tuple[int, ...]]:
        known = self._known.ids
        new = [span for span in dict.fromkeys(ranges) if span not in known]
        if new:
            encoded = self._encode([self.block(span) for span in new])
            known.update((span, tuple(ids)) for span, ids in zip(new, encoded, strict=True))
            self._known.num_ids += sum(map(len, encoded))
        return [known[span] for span in ranges]

    def tokens(self, ranges: Sequence[CharRange]) -> list[int]:
        return [len(ids) for ids in self.ids(ranges)]

    def latent_chunks(self, settings: LatentSettings, latent_token_id: int) -> tuple[LatentChunk, ...]:
        """The document's chunks; worked out once for all questions."""
        chunks = self._known.chunks.get(settings)
        if chunks is None:
            chunks = latent_chunks_of(self.document, self._encode, settings, latent_token_id)
            self._known.chunks[settings] = chunks
            self._known.num_ids += sum(len(chunk.input_ids) + chunk.tokens for chunk in chunks)
        return chunks

    def wishes(self, policy: Ranking) -> list[CharRange]:
        kept = self._wishes if policy.looks_at_question else self._known.wishes
        found = kept.get(policy)
        if found is None:
            found = kept[policy] = policy.rank(self.document, self.question)
        return found

    def spans(self, ranges: Sequence[CharRange]) -> tuple[Span, ...]:
        text = self.document.text
        return tuple(
            Span(self.page_of(start), start, end, text[start:end], len(ids), ids)
            for (start, end), ids in zip(ranges, self.ids(ranges), strict=True)
        )
