# SPDX-License-Identifier: Apache-2.0
"""Prompts from any chat template: a conversation is rendered with holes, and the holes are filled with token ids.

What users write (documents, questions) never passes through the template as text that could be parsed: the template
sees a mark for each piece, unguessable and new for each prompt, and the piece's tokens take the place of its mark.
So `<|user|>` or `<|image|>` in a document stays the characters that it is, and the tokens of every piece can be
counted before the prompt exists.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from ..planning.context_planning import ContextBudget, encodable
from ..planning.text_policies import PagedDocument, TextPolicy

# Characters of the pieces that a long text is tokenised in, side by side.
_PIECE = 1 << 16
# Characters on either side of a seam that must tokenise alike apart and together.
_SEAM = 48


class PlainEncoder:
    """Token ids of text as text: no special token and no other added token is ever recognised in it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._added = frozenset(tokenizer.added_tokens_decoder)
        self._plain = _without_added_tokens(getattr(tokenizer, "backend_tokenizer", None))
        self.count = lru_cache(maxsize=4)(self._count)

    def __deepcopy__(self, memo: dict[int, Any]) -> PlainEncoder:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._tokenizer,)

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text; lone surrogates are written as escapes."""
        ids = self._encode([encodable(text) for text in texts])
        for text, found in zip(texts, ids, strict=True):
            if not self._added.isdisjoint(found):
                token = self._tokenizer.convert_ids_to_tokens(min(self._added.intersection(found)))
                raise ValueError(f"the tokenizer makes its special token {token!r} out of plain text: {text[:80]!r}")
        return ids

    def _encode(self, texts: list[str]) -> list[list[int]]:
        if self._plain is None:
            return [self._tokenizer._encode_without_added_tokens(text) for text in texts]
        return [encoding.ids for encoding in self._plain.encode_batch_fast(texts, add_special_tokens=False)]

    def _count(self, text: str) -> int:
        """How many tokens a text of any length has; long ones are counted in pieces where that changes nothing."""
        text = encodable(text)
        pieces = self._pieces(text)
        return sum(len(ids) for ids in self._encode(pieces))

    def _pieces(self, text: str) -> list[str]:
        cuts = [0]
        for seam in range(_PIECE, len(text), _PIECE):
            cut = text.find("\n", seam) + 1
            if cuts[-1] < cut < len(text) and not text[cut].isspace():
                cuts.append(cut)
        seams = [(text[max(0, cut - _SEAM) : cut], text[cut : cut + _SEAM]) for cut in cuts[1:]]
        together = self._encode([left + right for left, right in seams])
        left_ids, right_ids = self._encode([left for left, _ in seams]), self._encode([right for _, right in seams])
        if any(a + b != c for a, b, c in zip(left_ids, right_ids, together, strict=True)):
            return [text]
        return [text[start:end] for start, end in zip(cuts, [*cuts[1:], len(text)], strict=True)]


def _without_added_tokens(backend: Tokenizer | None) -> Tokenizer | None:
    if backend is None:
        return None
    settings = json.loads(backend.to_str())
    settings.update(added_tokens=[], post_processor=None, truncation=None, padding=None)
    return Tokenizer.from_str(json.dumps(settings))


@dataclass(frozen=True)
class DocumentPart:
    """A document in a conversation, laid out, with the budget and the policy that it is planned with."""

    document: PagedDocument
    budget: ContextBudget
    policy: TextPolicy


@dataclass
class Conversation:
    """Messages whose user text, documents and pictures are taken out and stand as `Hole`s in them.

    `image_tokens`: visual tokens of each picture. `question`: what the last user message says.
    """

    messages: list[dict[str, Any]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    documents: list[DocumentPart] = field(default_factory=list)
    images: list[Any] = field(default_factory=list)
    image_tokens: list[int] = field(default_factory=list)
    question: str | None = None

    def add_text(self, text: str) -> Hole:
        self.texts.append(text)
        return Hole("text", len(self.texts) - 1)

    def add_document(self, part: DocumentPart) -> Hole:
        self.documents.append(part)
        return Hole("document", len(self.documents) - 1)

    def add_image(self, image: Any, tokens: int) -> Hole:
        self.images.append(image)
        self.image_tokens.append(tokens)
        return Hole("image", len(self.images) - 1)


@dataclass(frozen=True)
class Hole:
    """The place of the `index`th text, document or picture of a conversation."""

    kind: Literal["text", "document", "image"]
    index: int


@dataclass(frozen=True)
class Segment:
    """A stretch of the prompt.

    kind "template": the template's own tokens, in `ids`. "text": the `index`th user text. "spans": the copied spans of
    the `index`th document. "page": page `page` of the `index`th document. "image": the `index`th picture.
    `generated`: the template marks it as what the model is to write.
    """

    kind: Literal["template", "text", "spans", "page", "image"]
    index: int = -1
    page: int = -1
    ids: tuple[int, ...] = ()
    generated: bool = False


@dataclass(frozen=True)
class PromptRenderer:
    """Renders conversations to segments.

    Attributes:
        tokenizer: encodes the template's own text, special tokens included.
        image_token: what the template writes for a picture, between its own markers.
        chat_template: the Jinja template.
        pages_first: whether a document's pages stand before its spans.
        template_kwargs: variables and options of the template, `add_generation_prompt` among them.
    """

    tokenizer: PreTrainedTokenizerBase
    image_token: str
    chat_template: str
    pages_first: bool
    template_kwargs: dict[str, Any]
    _known: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False, compare=False)

    def render(self, conversation: Conversation, in_prompt: Sequence[tuple[bool, bool]]) -> list[Segment]:
        """Segments of a conversation whose documents have (pages, spans) in the prompt as `in_prompt` says."""
        nonce = secrets.token_hex(8)
        rendered, generated, images = self._render(conversation, in_prompt, nonce)
        mark = re.compile(f"{re.escape(self.image_token)}|<{nonce}:(?P<kind>text|spans):(?P<index>\\d+)>")
        segments: list[Segment] = []
        fillings = iter(images)
        position = 0
        for match in mark.finditer(rendered):
            segments += self._template_segments(rendered, position, match.start(), generated)
            position = match.end()
            if match["kind"]:
                kind: Any = match["kind"]
                segments.append(Segment(kind, int(match["index"]), generated=_inside(match.start(), generated)))
            else:
                filling = next(fillings, None)
                if filling is None:
                    raise ValueError(
                        f"the prompt holds more {self.image_token} than the {len(images)} pictures of the "
                        "conversation; a system or assistant message must not contain it as text"
                    )
                segments.append(filling)
        segments += self._template_segments(rendered, position, len(rendered), generated)
        self._check_complete(conversation, in_prompt, images, segments)
        return segments

    def text(self, conversation: Conversation, in_prompt: Sequence[tuple[bool, bool]], spans: Sequence[str]) -> str:
        """The prompt as one string, with one unexpanded image token for each page and picture."""
        nonce = secrets.token_hex(8)
        rendered, _, _ = self._render(conversation, in_prompt, nonce)
        pieces = {"text": conversation.texts, "spans": spans}
        return re.sub(f"<{nonce}:(text|spans):(\\d+)>", lambda match: pieces[match[1]][int(match[2])], rendered)

    def _render(
        self, conversation: Conversation, in_prompt: Sequence[tuple[bool, bool]], nonce: str
    ) -> tuple[str, list[tuple[int, int]], list[Segment]]:
        """(rendered string, character ranges of it that the model is to write, its pictures in order)."""
        images: list[Segment] = []
        messages = [
            {key: self._fill(value, conversation, in_prompt, nonce, images) for key, value in message.items()}
            for message in conversation.messages
        ]
        prompts, generated = render_jinja_template(
            conversations=[messages],
            chat_template=self.chat_template,
            **{**self.tokenizer.special_tokens_map, **self.template_kwargs},
        )
        return prompts[0], list(generated[0]) if generated else [], images

    def _fill(
        self,
        content: Any,
        conversation: Conversation,
        in_prompt: Sequence[tuple[bool, bool]],
        nonce: str,
        images: list[Segment],
    ) -> Any:
        """A message's content as the template sees it; pictures are noted in `images` as they come."""
        if isinstance(content, Hole):
            return f"<{nonce}:text:{content.index}>"
        if not isinstance(content, list):
            return content
        parts: list[Any] = []
        for part in content:
            if not isinstance(part, Hole):
                parts.append(part)
            elif part.kind == "text":
                parts.append({"type": "text", "text": f"<{nonce}:text:{part.index}>"})
            elif part.kind == "image":
                images.append(Segment("image", part.index))
                parts.append({"type": "image"})
            else:
                has_pages, has_spans = in_prompt[part.index]
                count = conversation.documents[part.index].document.num_pages if has_pages else 0
                images += [Segment("page", part.index, page) for page in range(count)]
                pages = [{"type": "image"} for _ in range(count)]
                spans = [{"type": "text", "text": f"<{nonce}:spans:{part.index}>"}] if has_spans else []
                parts += pages + spans if self.pages_first else spans + pages
        return parts

    def _template_segments(
        self, rendered: str, start: int, end: int, generated: list[tuple[int, int]]
    ) -> list[Segment]:
        """Template text [start, end), cut where the model's own words begin and end: these are whole tokens."""
        cuts = sorted({start, end, *(edge for piece in generated for edge in piece if start < edge < end)})
        return [
            Segment("template", ids=self._encode(rendered[left:right]), generated=_inside(left, generated))
            for left, right in pairwise(cuts)
        ]

    def _encode(self, text: str) -> tuple[int, ...]:
        if text not in self._known:
            ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=False)["input_ids"]
            self._known[text] = tuple(ids)
        return self._known[text]

    def _check_complete(
        self,
        conversation: Conversation,
        in_prompt: Sequence[tuple[bool, bool]],
        images: list[Segment],
        segments: list[Segment],
    ) -> None:
        wanted = [("text", index) for index in range(len(conversation.texts))]
        wanted += [("spans", index) for index, (_, has_spans) in enumerate(in_prompt) if has_spans]
        found = sorted((segment.kind, segment.index) for segment in segments if segment.kind in ("text", "spans"))
        shown = sum(segment.kind in ("page", "image") for segment in segments)
        if found != sorted(wanted) or shown != len(images):
            raise ValueError(
                f"the chat template shows {shown} of {len(images)} pictures and {len(found)} of {len(wanted)} texts "
                "of the conversation; each must appear exactly once: use a template that writes image parts as "
                f"{self.image_token} and text parts as they are"
            )


def _inside(position: int, ranges: Iterable[tuple[int, int]]) -> bool:
    return any(start <= position < end for start, end in ranges)
