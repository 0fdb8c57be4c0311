# SPDX-License-Identifier: Apache-2.0
"""The text that latents stand for: chunks of whole sentences, labelled with their pages, at the beginning of a document.

A latent encoder forgets a text's end first (Context Cascade Compression, https://arxiv.org/abs/2511.15244, section 4), so
chunks are short, end where sentences do, and may repeat the end of the chunk before.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import accumulate
from typing import Any

from ..rendering.characters import CharRange
from .knobs import shown, whole_number
from .paged_document import PagedDocument
from .plan import LatentChunk, encodable, place_label
from .sentences import sentence_starts, word_edge

# Chunks of fewer tokens would be words, and one character may be several tokens.
LEAST_CHUNK = 16

Encoder = Callable[[list[str]], list[list[int]]]


@dataclass(frozen=True)
class LatentSettings:
    """How a processor writes latents.

    Attributes:
        num_latent_tokens: latents of a chunk; the model's own `num_latent_tokens`.
        chunk_tokens: tokens that a chunk has at most, as the latent encoder was trained.
        overlap_tokens: at most so many tokens, of whole sentences, stand both at a chunk's end and at the next one's
            beginning; at most half a chunk.
        token: stands for a latent in prompts; a special token of the tokenizer.
    """

    num_latent_tokens: int = 64
    chunk_tokens: int = 1024
    overlap_tokens: int = 64
    token: str = "<|latent|>"

    def __post_init__(self) -> None:
        whole_number("num_latent_tokens", self.num_latent_tokens, 1, "latents")
        whole_number("chunk_tokens", self.chunk_tokens, LEAST_CHUNK, "tokens")
        whole_number("overlap_tokens", self.overlap_tokens, 0, "tokens, half a chunk at most", self.chunk_tokens // 2)
        if not isinstance(self.token, str) or not self.token:
            raise ValueError(
                f"token={shown(self.token)} must be a special token of the tokenizer, such as '<|latent|>'"
            )

    @classmethod
    def of(cls, settings: LatentSettings | dict[str, Any] | None) -> LatentSettings | None:
        """Settings from themselves, or from a dict of their fields (plain JSON); None: a processor without latents."""
        if settings is None or isinstance(settings, LatentSettings):
            return settings
        if not isinstance(settings, dict):
            raise TypeError(f"latents must be LatentSettings, a dict of their fields, or None, not {shown(settings)}")
        known = {item.name for item in fields(cls)}
        for name in settings:
            if name not in known:
                raise ValueError(f"unknown field {shown(name)} of latents; known fields: {', '.join(sorted(known))}")
        return cls(**settings)


@dataclass(frozen=True)
class LatentLayout:
    """
    Which of a document's pages give way to latents.

    Attributes:
        chunks: what latents stand for, from the document's beginning on.
        first_page: the first page that the prompt may show; the number of pages where latents stand for all text.
        input_ids: what stands in the prompt: each chunk's label and latent tokens, then a label of the pages that follow.
    """

    chunks: tuple[LatentChunk, ...] = ()
    first_page: int = 0
    input_ids: tuple[int, ...] = ()

    @property
    def end(self) -> int:
        """Latents stand for all characters before this one."""
        return self.chunks[-1].end if self.chunks else 0


@dataclass(frozen=True)
class LatentText:
    """A document's chunks, and what they cost in a prompt.

    Attributes:
        document: of the text.
        chunks: all of them, in order.
        encode: token ids of plain texts, for labels.
        has_pages: whether a prompt shows pages behind the latents.
    """

    document: PagedDocument
    chunks: tuple[LatentChunk, ...]
    encode: Encoder
    has_pages: bool

    def layout(self, count: int) -> LatentLayout:
        """The first `count` chunks as latents, and the pages that show what they do not stand for.

        Raises:
            ValueError: the document has fewer chunks.
        """
        if count > len(self.chunks):
            raise ValueError(
                f"latent_chunks={count}: the document has {len(self.chunks)} chunks; name no more than that"
            )
        chunks = self.chunks[:count]
        if not chunks:
            return LatentLayout()
        ids = [token for chunk in chunks for token in chunk.prompt_ids]
        first_page = self._first_page(count)
        if self.has_pages and 0 < first_page < self.document.num_pages:
            ids += self.encode([f"{place_label(first_page, self.document.num_pages - 1).rstrip()}\n"])[0]
        return LatentLayout(chunks, first_page, tuple(ids))

    def _first_page(self, count: int) -> int:
        return (
            self.document.num_pages if count == len(self.chunks) else self.document.page_of(self.chunks[count - 1].end)
        )

    @cached_property
    def in_place_of_pages(self) -> list[int]:
        """
        Numbers of chunks with which one page more gives way, ascending. A page without text never does: latents could not
        stand for what it shows.
        """
        document = self.document
        spans = (document.page_span(page) for page in range(document.num_pages))
        most = next((page for page, (start, end) in enumerate(spans) if start >= end), document.num_pages)
        counts, before = [], 0
        for count in range(1, len(self.chunks) + 1):
            page = self._first_page(count)
            if page > most:
                break
            if page > before:
                counts.append(count)
                before = page
        return counts

    def count_within(self, tokens: int) -> int:
        """The most chunks that take no more than so many tokens of a prompt without pages."""
        return bisect_right(list(accumulate(chunk.tokens for chunk in self.chunks)), tokens)


def latent_chunks_of(
    document: PagedDocument, encode: Encoder, settings: LatentSettings, latent_token_id: int
) -> tuple[LatentChunk, ...]:
    """A document's chunks, with their tokens for the latent encoder and for the prompt."""
    ranges = chunk_ranges(document.text, encode, settings.chunk_tokens, settings.overlap_tokens)
    texts = encode([encodable(document.text[start:end]) for start, end in ranges])
    pages = [(document.page_of(start), document.page_of(end - 1)) for start, end in ranges]
    labels = encode([place_label(*page) for page in pages])
    (newline,) = encode(["\n"])
    latents = [latent_token_id] * settings.num_latent_tokens
    return tuple(
        LatentChunk(page, start, end, tuple(ids), (*label, *latents, *newline))
        for (start, end), (page, _), ids, label in zip(ranges, pages, texts, labels, strict=True)
        if ids
    )


def chunk_ranges(text: str, encode: Encoder, chunk_tokens: int, overlap_tokens: int = 0) -> list[CharRange]:
    """
    A text in chunks of at most `chunk_tokens` tokens, each of whole sentences where these are short enough. They leave
    out nothing but white space.

    Args:
        encode: token ids of plain texts.
        overlap_tokens: of whole sentences that the next chunk begins with again, at most.
    """

    def count(pieces: Sequence[CharRange]) -> list[int]:
        return [len(ids) for ids in encode([encodable(text[start:end]) for start, end in pieces])]

    starts = sentence_starts(text)
    pieces = _split(text, list(zip(starts, [*starts[1:], len(text)], strict=True)), count, chunk_tokens)
    sizes = count(pieces)
    ranges: list[CharRange] = []
    first = new = 0  # the chunk's first piece, and the first that no chunk before it has
    while new < len(pieces):
        end, total = first, 0
        while end < len(pieces) and (total + sizes[end] <= chunk_tokens or end == new):
            total += sizes[end]
            end += 1
        # what is tokenised as one may take more, and then one sentence less of what is new or of what is repeated
        while end - first > 1 and count([(pieces[first][0], pieces[end - 1][1])])[0] > chunk_tokens:
            if end - 1 > new:
                end -= 1
            else:
                first += 1
        ranges.append((pieces[first][0], pieces[end - 1][1]))
        first = new = end
        repeated = 0
        while first > 0 and (repeated := repeated + sizes[first - 1]) <= overlap_tokens and end < len(pieces):
            first -= 1
    return [(start, end) for start, end in ranges if text[start:end].strip()]


def _split(
    text: str, pieces: list[CharRange], count: Callable[[Sequence[CharRange]], list[int]], most: int
) -> list[CharRange]:
    """Pieces, those of more than `most` tokens halved, at a word's edge where there is one, until none has."""
    split: list[CharRange] = []
    for (start, end), size in zip(pieces, count(pieces), strict=True):
        if size <= most or end - start < 2:
            split.append((start, end))
            continue
        middle = word_edge(text, (start + end) // 2, end, step=1)
        middle = middle if start < middle < end else (start + end) // 2
        split += _split(text, [(start, middle), (middle, end)], count, most)
    return split


__all__ = ["LatentLayout", "LatentSettings", "LatentText", "chunk_ranges", "latent_chunks_of"]
