# SPDX-License-Identifier: Apache-2.0
"""Prompts from any chat template: a conversation is rendered with holes, and the holes are filled with token ids.

What users write (documents, questions) never passes through the template as text that could be parsed: the template
sees a mark for each piece, unguessable and new for each prompt, and the piece's tokens take the place of its mark.
So `<|user|>` or `<|image|>` in a document stays the characters that it is, and the tokens of every piece can be
counted before the prompt exists.
"""

from __future__ import annotations

import re
import secrets
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import itemgetter
from typing import Any, Literal, NamedTuple, get_args

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from ..planning.knobs import shown
from ..planning.plan import encodable
from .conversations import Conversation, Hole

FusionOrder = Literal["pages_first", "tokens_first", "tokens_last"]
"""A document's pages, then its spans; its spans, then its pages; its pages, the question, its spans, the question."""
FUSION_ORDERS: tuple[str, ...] = get_args(FusionOrder)

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")

# transformers compiles a template once, and the compiled one notes in itself where the model's own words begin and end.
_RENDERING = threading.Lock()


@dataclass(frozen=True)
class Segment:
    """A stretch of the prompt.

    kind "template": the template's own tokens, in `ids`. "text": the `index`th user text. "spans", "latents": the copied
    spans, the latents of the `index`th document. "page": the page that the prompt shows of it after `page` others.
    "image": the `index`th picture.
    `generated`: the template marks it as what the model is to write.
    """

    kind: Literal["template", "text", "spans", "latents", "page", "image"]
    index: int = -1
    page: int = -1
    ids: tuple[int, ...] = ()
    generated: bool = False


class InPrompt(NamedTuple):
    """What a prompt has of a document: pages, copied spans, and latents before its pages from `first_page` on, if any."""

    pages: bool
    spans: bool
    first_page: int | None = None


class Written(NamedTuple):
    """What stands in a prompt's holes: users' texts, and the copied spans and the latents of each document."""

    text: Sequence[str]
    spans: Sequence[str]
    latents: Sequence[str]

    def in_place_of_marks(self, marked: Any, nonce: str) -> Any:
        """A string with the texts in place of their marks, or messages that hold such strings."""
        if isinstance(marked, str):
            mark = f"<{nonce}:(text|spans|latents):(\\d+)>"
            return re.sub(mark, lambda match: getattr(self, match[1])[int(match[2])], marked)
        if isinstance(marked, list):
            return [self.in_place_of_marks(one, nonce) for one in marked]
        if isinstance(marked, dict):
            return {key: self.in_place_of_marks(one, nonce) for key, one in marked.items()}
        return marked


@dataclass(frozen=True)
class PromptRenderer:
    """Renders conversations to segments.

    Attributes:
        tokenizer: encodes the template's own text, special tokens included.
        image_token: what the template writes for a picture, between its own markers.
        chat_template: the Jinja template.
        fusion_order: where a document's spans stand.
        template_kwargs: variables and options of the template, `add_generation_prompt` among them.
    """

    tokenizer: PreTrainedTokenizerBase
    image_token: str
    chat_template: str
    fusion_order: FusionOrder
    template_kwargs: dict[str, Any]
    _known: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False, compare=False)

    def render(self, conversation: Conversation, in_prompt: Sequence[InPrompt]) -> list[Segment]:
        """Segments of a conversation of whose documents the prompt has what `in_prompt` says."""
        nonce = secrets.token_hex(8)
        rendered, generated, images = self._render(conversation, in_prompt, nonce)
        mark = re.compile(f"{re.escape(self.image_token)}|<{nonce}:(?P<kind>text|spans|latents):(?P<index>\\d+)>")
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
        if conversation.answer_start is not None:
            segments.append(Segment("text", conversation.answer_start))
        self._check_complete(conversation, in_prompt, images, segments)
        return segments

    def text(self, conversation: Conversation, in_prompt: Sequence[InPrompt], written: Written) -> str:
        """The prompt as one string, with one unexpanded image token for each page and picture."""
        nonce = secrets.token_hex(8)
        return written.in_place_of_marks(self._render(conversation, in_prompt, nonce)[0], nonce)

    def messages(
        self, conversation: Conversation, in_prompt: Sequence[InPrompt], written: Written
    ) -> list[dict[str, Any]]:
        """What the chat template is given, with one part `{"type": "image"}` for each page and picture."""
        nonce = secrets.token_hex(8)
        return written.in_place_of_marks(self._filled(conversation, in_prompt, nonce, []), nonce)

    def _render(
        self, conversation: Conversation, in_prompt: Sequence[InPrompt], nonce: str
    ) -> tuple[str, list[tuple[int, int]], list[Segment]]:
        """(rendered string, character ranges of it that the model is to write, its pictures in order)."""
        images: list[Segment] = []
        messages = self._filled(conversation, in_prompt, nonce, images)
        try:
            with _RENDERING:
                prompts, generated = render_jinja_template(
                    conversations=[messages],
                    chat_template=self.chat_template,
                    **{**self.tokenizer.special_tokens_map, **self.template_kwargs},
                )
        except Exception as error:  # a template is a program of its own, which fails as it likes
            raise ValueError(
                f"the chat template cannot write this conversation ({type(error).__name__}: {error!s:.200}); it was "
                f"given messages of the roles {shown([message['role'] for message in messages])} and the options "
                f"{shown(self.template_kwargs)}"
            ) from error
        return prompts[0], list(generated[0]) if generated else [], images

    def _filled(
        self, conversation: Conversation, in_prompt: Sequence[InPrompt], nonce: str, images: list[Segment]
    ) -> list[dict[str, Any]]:
        """The messages as the template sees them, with a mark for each text; pictures are noted in `images`."""
        last_spans: list[Any] = []
        messages = [
            {
                key: self._fill(value, conversation, in_prompt, nonce, images, last_spans)
                for key, value in message.items()
            }
            for message in conversation.messages
        ]
        if last_spans:
            _append_to_question(messages, last_spans)
        return messages

    def _fill(
        self,
        content: Any,
        conversation: Conversation,
        in_prompt: Sequence[InPrompt],
        nonce: str,
        images: list[Segment],
        last_spans: list[Any],
    ) -> Any:
        """A message's content as the template sees it; pictures are noted in `images` as they come, and in `last_spans`
        what is to stand behind the question.
        """
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
                has_pages, has_spans, first_page = in_prompt[part.index]
                count = conversation.documents[part.index].document.num_pages - (first_page or 0) if has_pages else 0
                images += [Segment("page", part.index, page) for page in range(count)]
                pages = [{"type": "image"} for _ in range(count)]
                spans = [{"type": "text", "text": f"<{nonce}:spans:{part.index}>"}] if has_spans else []
                if first_page is not None:
                    pages = [{"type": "text", "text": f"<{nonce}:latents:{part.index}>"}, *pages]
                if self.fusion_order == "tokens_last":
                    parts += pages
                    last_spans += spans
                else:
                    parts += pages + spans if self.fusion_order == "pages_first" else spans + pages
        return parts

    def _template_segments(
        self, rendered: str, start: int, end: int, generated: list[tuple[int, int]]
    ) -> list[Segment]:
        """Template text [start, end), cut where the model's own words begin and end: these are whole tokens."""
        first = bisect_right(generated, start, key=itemgetter(1))
        last = bisect_left(generated, end, key=itemgetter(0))
        cuts = sorted({start, end, *(edge for piece in generated[first:last] for edge in piece if start < edge < end)})
        return [
            Segment("template", ids=self._encode(rendered[left:right]), generated=_inside(left, generated))
            for left, right in pairwise(cuts)
        ]

    def _encode(self, text: str) -> tuple[int, ...]:
        if text not in self._known:
            ids = self.tokenizer(encodable(text), add_special_tokens=False, split_special_tokens=False)["input_ids"]
            self._known[text] = tuple(ids)
        return self._known[text]

    def _check_complete(
        self,
        conversation: Conversation,
        in_prompt: Sequence[InPrompt],
        images: list[Segment],
        segments: list[Segment],
    ) -> None:
        wanted = [("text", index) for index in range(len(conversation.texts))]
        wanted += [("spans", index) for index, has in enumerate(in_prompt) if has.spans]
        wanted += [("latents", index) for index, has in enumerate(in_prompt) if has.first_page is not None]
        written = [segment for segment in segments if segment.kind in ("text", "spans", "latents")]
        found = sorted((segment.kind, segment.index) for segment in written)
        if self.fusion_order == "tokens_last":  # the question may stand there twice
            found = sorted(set(found))
        shown = sum(segment.kind in ("page", "image") for segment in segments)
        if found != sorted(wanted) or shown != len(images):
            raise ValueError(
                f"the chat template shows {shown} of {len(images)} pictures and {len(found)} of {len(wanted)} texts "
                "of the conversation; each must appear exactly once: use a template that writes image parts as "
                f"{self.image_token} and text parts as they are"
            )


def _append_to_question(messages: list[dict[str, Any]], spans: list[Any]) -> None:
    """
    Puts the spans behind all else that the last user message says, on lines of their own, and its words once more behind
    them: a model that was taught to answer the question that comes last finds it there.
    """
    last = max((index for index, one in enumerate(messages) if one["role"] == "user"), default=len(messages) - 1)
    content = messages[last]["content"]
    parts = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
    again = [part for part in parts if part["type"] == "text" and part["text"].strip()]
    messages[last]["content"] = [*parts, {"type": "text", "text": "\n"}, *spans, *again]


def check_generation_marks(chat_template: str) -> None:
    """
    Whether a template marks what the model is to write, as a mask of that needs.

    Raises:
        ValueError: it does not; transformers would give a mask of zeros, and a training on it would learn nothing.
    """
    if not _GENERATION.search(chat_template):
        raise ValueError(
            "return_assistant_tokens_mask: this chat template does not mark what the model writes, and the mask would "
            "be zero everywhere: pass as chat_template= one with {% generation %} before an assistant's words and "
            "{% endgeneration %} behind what ends them. `hybridctx train` needs no marks"
        )


def template_options(given: Any) -> dict[str, Any]:
    """Options of a chat template as keyword arguments; TypeError for what is no dict of them."""
    if given is None:
        return {}
    if not isinstance(given, dict) or not all(isinstance(name, str) for name in given):
        raise TypeError(f"chat_template_kwargs is a dict with strings as keys, not {shown(given)}")
    return dict(given)


def _inside(position: int, ranges: Sequence[tuple[int, int]]) -> bool:
    """Whether one of the ranges, which ascend, holds a position."""
    index = bisect_right(ranges, position, key=itemgetter(0)) - 1
    return index >= 0 and position < ranges[index][1]
