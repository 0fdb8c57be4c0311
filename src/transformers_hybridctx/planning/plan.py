# SPDX-License-Identifier: Apache-2.0
"""Plans: what one document becomes in one prompt, every token counted."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from ..rendering.characters import CharRange

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def encodable(text: str) -> str:
    r"""The text with every lone surrogate written as its escape, such as \ud83d: no tokenizer takes it bare."""
    return _LONE_SURROGATE.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def place_label(first_page: int, last_page: int) -> str:
    """What stands in the prompt before what is of these pages, which the label counts from 1."""
    return f"[page {first_page + 1}] " if first_page == last_page else f"[pages {first_page + 1}-{last_page + 1}] "


def span_block(page: int, text: str) -> str:
    """What stands in the prompt for a span: its page, counted from 1, and its text."""
    return f"{place_label(page, page)}{encodable(text)}\n"


def lone_surrogates(text: str, within: CharRange) -> list[tuple[int, str]]:
    """(position, character) of each lone surrogate of `text` in `within`."""
    start, end = within
    return [(match.start(), match.group()) for match in _LONE_SURROGATE.finditer(text, start, end)]


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
class LatentChunk:
    """
    Characters [start, end) of the document, which latents stand for. `page`, where they begin, counts from 0.

    Attributes:
        input_ids: the text's tokens, for the latent encoder.
        prompt_ids: what stands in the prompt: the label of the chunk's pages, its latent tokens, a newline.
    """

    page: int
    start: int
    end: int
    input_ids: tuple[int, ...] = field(repr=False, compare=False)
    prompt_ids: tuple[int, ...] = field(repr=False, compare=False)

    @property
    def tokens(self) -> int:
        """What it costs in the prompt, its label included."""
        return len(self.prompt_ids)


@dataclass(frozen=True)
class Omission:
    """Characters [start, end) that the model does not get as asked.

    reason: "absent": on no page of the prompt, in no latents and in no copied span; "undrawable": the page shows a
    replacement box, and no copied span and no latents have them; "not copied": on a page or in latents, but the text
    policy's wish to copy them did not fit.
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
        page_tokens: visual tokens of each page in the prompt, which are the document's last ones where latents stand for
            its beginning; empty when there are no pages.
        spans: what is copied, in document order.
        omitted: what is left out, in document order.
        escaped: (position, character) of lone surrogates in copied spans; they are written as escapes such as \ud83d.
        document_tokens: what the text alone would have cost; 0 for scanned pages, whose text is not known.
        document_characters: length of the text.
        question_tokens: the question, or all user text of a conversation.
        template_tokens: everything else: chat template, page markers, other turns and pictures.
        prefix_tokens: leading tokens that stay the same for another question (where the policy ignores the question).
        document: the document that was planned for, laid out.
        latents: chunks from the document's beginning on that latents stand for.
        latent_ids: what stands in the prompt for all of them, labels included.
        first_page: the first page that the prompt shows, where it shows any.
        looked_at: characters [start, end) that stand behind the question once more, drawn larger; these pictures count as
            template.
        undrawn: which of its characters no font has, by script; "" where all are drawn.
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
    latents: tuple[LatentChunk, ...] = field(default=(), repr=False)
    latent_ids: tuple[int, ...] = field(default=(), repr=False)
    first_page: int = 0
    undrawn: str = ""
    looked_at: tuple[CharRange, ...] = ()

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
    def latent_tokens(self) -> int:
        """Tokens of the latents, labels of their chunks, and of the pages that follow, included."""
        return len(self.latent_ids)

    @property
    def document_share(self) -> int:
        """Tokens of the prompt that stand for the document."""
        return self.visual_tokens + self.latent_tokens + self.text_tokens

    @property
    def total_tokens(self) -> int:
        """Length of the prompt: exactly the number of `input_ids` that the model gets."""
        return self.document_share + self.question_tokens + self.template_tokens

    @property
    def compression_ratio(self) -> float | None:
        """How many tokens of text each token that stands for the document replaces; None without text."""
        spent = self.document_share
        return self.document_tokens / spent if self.document_tokens and spent else None

    @property
    def characters_per_token(self) -> float | None:
        """The same in characters, which no tokenizer flatters; None without text."""
        spent = self.document_share
        return self.document_characters / spent if self.document_characters and spent else None

    @property
    def characters_per_visual_token(self) -> float | None:
        """
        How densely the pages are written: characters of the text for each visual token; None without text or pages, or
        where pages show a part of it.
        """
        visual = 0 if self.latents else self.visual_tokens
        return self.document_characters / visual if self.document_characters and visual else None

    @property
    def text_tokens_per_visual_token(self) -> float | None:
        """How densely the pages are written: tokens of the text for each visual token; None as of the characters."""
        visual = 0 if self.latents else self.visual_tokens
        return self.document_tokens / visual if self.document_tokens and visual else None

    @property
    def omitted_characters(self) -> int:
        """Characters that the model gets in no form at all."""
        return sum(piece.end - piece.start for piece in self.omitted if piece.reason != "not copied")

    def summary(self) -> str:
        """What a person wants to know, in a few aligned lines."""
        missed = sum(1 for piece in self.omitted if piece.reason == "not copied")
        rows = [
            ("document", f"{self.document_characters:,} characters, {self.document_tokens:,} tokens as text"),
            ("pages", f"{self.num_pages:,} at scale {self.scale:g}, {self.visual_tokens:,} visual tokens"),
            *self._density(),
            ("copied", f"{len(self.spans):,} spans by policy {self.policy!r}, {self.text_tokens:,} tokens"),
            (
                "prompt",
                f"{self.total_tokens:,} tokens ({self.question_tokens:,} question, {self.template_tokens:,} template)",
            ),
            ("compression", self._compression()),
            ("left out", f"{self.omitted_characters:,} characters, {missed:,} spans wished for did not fit"),
        ]
        if self.latents:
            chars = f"the first {self.latents[-1].end:,} characters"
            rows.insert(1, ("latents", f"{len(self.latents):,} chunks, {chars}, {self.latent_tokens:,} tokens"))
        if note := getattr(self.document, "layout_note", ""):
            rows.insert(2, ("layout", note))
        if self.looked_at:
            rows.append(("looked at", f"{len(self.looked_at):,} passages, drawn larger behind the question"))
        if self.undrawn:
            rows.append(("no font", self.undrawn))
        if self.escaped:
            rows.append(("escaped", f"{len(self.escaped):,} lone surrogates copied as escapes"))
        return "\n".join(f"{name:<12} {value}" for name, value in rows)

    def _compression(self) -> str:
        tokens, characters = self.compression_ratio, self.characters_per_token
        if tokens is None or characters is None:
            return "unknown (no text)"
        return f"{tokens:.2f} text tokens, {characters:.2f} characters for each token spent"

    def _density(self) -> list[tuple[str, str]]:
        characters, tokens = self.characters_per_visual_token, self.text_tokens_per_visual_token
        if characters is None or tokens is None:
            return []
        return [("density", f"{characters:.2f} characters, {tokens:.2f} text tokens a visual token")]
