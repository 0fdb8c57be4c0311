# SPDX-License-Identifier: Apache-2.0
"""The processor: a document and a question (or a chat that holds documents) become what `generate` takes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, ClassVar, Literal

import numpy as np
from transformers import AutoProcessor, BatchFeature, PreTrainedTokenizerBase
from transformers.processing_utils import MultiModalData, ProcessorMixin

from .configuration_hybridctx import HybridCtxConfig
from .documents.scans import ScannedPages, is_picture
from .image_processing_hybridctx import HybridCtxImageProcessor
from .planning.context_planning import (
    ContextBudget,
    ContextPlan,
    ContextPlanner,
    resolve_text_policy,
)
from .planning.text_policies import PagedDocument, TextPolicy
from .prompting.frames import Conversation, DocumentPart, PlainEncoder, PromptRenderer
from .prompting.writing import Prompt, PromptWriter
from .remote_code import TravelsWithCode
from .rendering.checkpoint_fonts import checkpoint_font_loader, portable_config, save_fonts, with_loaded_fonts
from .rendering.rasterizing import PageRenderer, RenderedDocument
from .rendering.typesetting import RenderConfig, TypesetDocument

FusionOrder = Literal["pages_first", "tokens_first"]

# Pages that are drawn and cut into patches at a time.
_PAGES_AT_ONCE = 32
# The roles whose words are never parsed for special tokens.
_UNTRUSTED_ROLES = frozenset({"user", "tool", "observation"})
_DOCUMENT_KEYS = frozenset({"type", "text", "document", "budget", "text_policy"})
_IMAGE_KEYS = ("image", "url", "path", "base64")


@lru_cache(maxsize=4)
def renderer_for(config: RenderConfig) -> PageRenderer:
    """The renderer of a config, with the glyphs that it has drawn so far."""
    return PageRenderer(config)


@dataclass(frozen=True)
class _Patches:
    """Pages or pictures. pixel_values: uint8 [patches, C * patch * patch]; image_grid_thw: int64 [pages, 3]."""

    pixel_values: np.ndarray
    image_grid_thw: np.ndarray


class HybridCtxProcessor(TravelsWithCode, ProcessorMixin):
    r"""
    Renderer, tokenizer, image processor and chat template in one.

    `processor(document=..., question=...)` plans the context under a budget, draws the pages and writes the prompt;
    `processor(text=..., images=...)` is what it is in every GLM-4V processor.

    Args:
        image_processor ([`HybridCtxImageProcessor`]): cuts pages into uint8 patches.
        tokenizer ([`PreTrainedTokenizerBase`]): any GLM-family tokenizer; it must know the image token.
        chat_template (`str`, *optional*): a Jinja template of the GLM family; the tokenizer's unless given.
        render_config (`dict` or [`RenderConfig`], *optional*): how text becomes pages. Its fonts travel with
            [`~HybridCtxProcessor.save_pretrained`].
        default_budget (`dict` or [`ContextBudget`], *optional*): fields of [`ContextBudget`] that fit the checkpoint;
            a request's own fields go before them.
        default_text_policy (`str` or `dict`, *optional*, defaults to `"anchors"`): name of a text policy, or
            `{"name": ..., knob: value}`.
        fusion_order (`str`, *optional*, defaults to `"pages_first"`): `"pages_first"` or `"tokens_first"`: which of a
            document's two forms stands first in the prompt.
    """

    return_mm_token_type_ids = True
    text_kwargs: ClassVar[Any] = {"return_token_type_ids": False}

    def __init__(
        self,
        image_processor: HybridCtxImageProcessor | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        chat_template: str | dict[str, str] | None = None,
        render_config: dict[str, Any] | RenderConfig | None = None,
        default_budget: dict[str, Any] | ContextBudget | None = None,
        default_text_policy: str | dict[str, Any] = "anchors",
        fusion_order: FusionOrder = "pages_first",
    ) -> None:
        if chat_template is None:
            chat_template = getattr(tokenizer, "chat_template", None)
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.image_token: str = getattr(self.tokenizer, "image_token", None) or "<|image|>"
        self.image_token_id: int = self.tokenizer.convert_tokens_to_ids(self.image_token)
        if self.image_token_id is None or self.image_token_id == self.tokenizer.unk_token_id:
            raise ValueError(f"the tokenizer has no {self.image_token!r} token; add it as a special token")
        if not isinstance(render_config, RenderConfig):
            render_config = RenderConfig.from_dict(render_config or {})
        self.render_config = render_config
        default = ContextBudget.of(default_budget)
        self.default_budget = {name: value for name, value in vars(default).items() if value is not None}
        resolve_text_policy(default_text_policy)
        self.default_text_policy = default_text_policy
        self.fusion_order = _fusion_order(fusion_order)
        self._encoder: PlainEncoder | None = None

    # Prompts from documents

    def __call__(
        self,
        images: Any = None,
        text: Any = None,
        videos: Any = None,
        audio: Any = None,
        *,
        document: Any = None,
        question: str | Sequence[str] | None = None,
        budget: ContextBudget | dict[str, Any] | None = None,
        text_policy: str | dict[str, Any] | TextPolicy | None = None,
        fusion_order: FusionOrder | None = None,
        add_generation_prompt: bool = True,
        chat_template_kwargs: dict[str, Any] | None = None,
        return_plan: bool = False,
        draw_pages: bool = True,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """
        Inputs of the model, from a document and a question, or from a text with image tokens and its images.

        Args:
            images, text, videos, audio: as in transformers' GLM-4V processors (videos and audio are not taken).
            document: a text; page pictures (a PIL image, a uint8 array, or a list of these); a [`TypesetDocument`] or
                [`RenderedDocument`]; or a list of any of these for a batch (a flat list of pictures is one document).
            question: one question, or one for each document; several questions may share one document. None: a prompt
                that ends with the document.
            budget: how many tokens, and what they go to; a [`ContextBudget`] or a dict of its fields.
            text_policy: what is copied as exact tokens: a policy, its name, or `{"name": ..., knob: value}`.
            fusion_order: `"pages_first"` or `"tokens_first"`.
            add_generation_prompt, chat_template_kwargs: passed to the chat template.
            return_plan: also return the [`ContextPlan`] (a list of them for a batch).
            draw_pages: whether to draw the pages. Without, `pixel_values` and `image_grid_thw` are left out for
                [`~HybridCtxProcessor.draw_pages`] to add, once for all questions whose plans show the same pages.
            return_tensors: `"pt"`, `"np"` or None.

        Returns:
            [`BatchFeature`]: `input_ids`, `attention_mask`, `mm_token_type_ids` (1 where a page is) [batch, sequence],
            padded on the left; and where pages are in a prompt, `pixel_values` uint8 [patches, C * patch * patch] with
            C = 1 where all pages are grey and 3 otherwise, `image_grid_thw` int64 [pages, 3]. With `return_plan`, a
            tuple of these and the plan.

        Raises:
            ContextBudgetError: the budget cannot be met; its `smallest` can.
            ValueError, TypeError: an empty document, an unknown policy, something that is not a document.
        """
        if document is None:
            if question is not None:
                raise ValueError(
                    f"question={question!r} has no document: document is None; give a text or page images"
                )
            if text is None and images is None:
                raise ValueError("give document= (and question=), or text= (and images=)")
            return super().__call__(
                images=images, text=text, videos=videos, audio=audio, return_tensors=return_tensors, **kwargs
            )
        for name, value in (("text", text), ("images", images), ("videos", videos), ("audio", audio)):
            if value is not None:
                raise ValueError(f"give document= or {name}=, not both; the pages of a document go into document=")
        if kwargs:
            raise TypeError(f"unknown arguments for a document: {', '.join(sorted(kwargs))}")
        conversations, is_batch = self._questions(document, question, budget, text_policy)
        writer = self._writer(
            None, fusion_order, {"add_generation_prompt": add_generation_prompt, **(chat_template_kwargs or {})}
        )
        prompts = [writer.write(conversation) for conversation in conversations]
        features = self._features(conversations, prompts, return_tensors, draw_pages=draw_pages)
        if not return_plan:
            return features
        plans = [prompt.plans[0] for prompt in prompts]
        return features, plans if is_batch else plans[0]

    def plan(
        self,
        document: Any,
        question: str | Sequence[str] | None = None,
        budget: ContextBudget | dict[str, Any] | None = None,
        text_policy: str | dict[str, Any] | TextPolicy | None = None,
        fusion_order: FusionOrder | None = None,
        add_generation_prompt: bool = True,
        chat_template_kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """What `processor(document=..., question=...)` with the same arguments will do, without drawing a page.

        Returns:
            [`ContextPlan`], or a list of them for a batch.
        """
        conversations, is_batch = self._questions(document, question, budget, text_policy)
        writer = self._writer(
            None, fusion_order, {"add_generation_prompt": add_generation_prompt, **(chat_template_kwargs or {})}
        )
        plans = [writer.write(conversation).plans[0] for conversation in conversations]
        return plans if is_batch else plans[0]

    def draw_pages(self, plan: ContextPlan, return_tensors: str | None = None) -> BatchFeature:
        """
        `pixel_values` and `image_grid_thw` of a plan's pages, as `processor(document=..., question=...)` returns them.

        Plans of one document and one scale have the same pages.

        Raises:
            ValueError: a plan without pages.
        """
        if not plan.num_pages:
            raise ValueError("the plan has no pages to draw (visual_share=0)")
        patches = self._cut_document(plan.document, plan)
        data = {"pixel_values": patches.pixel_values, "image_grid_thw": patches.image_grid_thw}
        return BatchFeature(data, tensor_type=return_tensors)

    def read_document(self, document: Any) -> PagedDocument:
        """A document laid out: text is typeset with the processor's render config, page pictures stay as they are.

        Raises:
            ValueError: an empty document, a page picture without pixels.
            TypeError: something that is not a document.
        """
        if isinstance(document, (TypesetDocument, ScannedPages)):
            return document
        if isinstance(document, str):
            return renderer_for(self.render_config).typeset(document)
        if is_picture(document):
            return ScannedPages([document])
        if isinstance(document, (list, tuple)) and all(is_picture(page) for page in document):
            if not document:
                raise ValueError("empty document: a list of no pages")
            return ScannedPages(document)
        raise TypeError(
            f"a document is a text, page images or a TypesetDocument, not {type(document).__name__}: {document!r:.80}"
            + ("; decode the bytes to text first" if isinstance(document, bytes) else "")
        )

    def apply_chat_template(
        self,
        conversation: Any,
        chat_template: str | None = None,
        *,
        add_generation_prompt: bool = False,
        tokenize: bool = False,
        return_tensors: Any = "auto",
        return_dict: bool = False,
        return_assistant_tokens_mask: bool = False,
        processor_kwargs: dict[str, Any] | None = None,
        budget: ContextBudget | dict[str, Any] | None = None,
        text_policy: str | dict[str, Any] | TextPolicy | None = None,
        fusion_order: FusionOrder | None = None,
        return_plan: bool = False,
        **kwargs: Any,
    ) -> Any:
        """
        As in transformers, where a message's content may also hold document parts:
        `{"type": "document", "text": str, "budget": ..., "text_policy": ...}`, or `"document"` in place of `"text"`
        for anything that `processor(document=...)` takes; budget and policy are optional.

        In a conversation with documents, neither a document nor a user's words can write special tokens. Several
        documents of one conversation share `max_context_tokens` in equal parts; what one leaves goes to the next.

        Args:
            budget, text_policy: for the parts that do not say their own.
            return_plan: with `tokenize`, also return the plans: a list for each conversation, one plan a document.

        Returns:
            `str`, with one image token for each page; with `tokenize`, ids; with `return_dict`, [`BatchFeature`].
        """
        conversations, is_batch = _batched(conversation)
        if not any(_holds_document(messages) for messages in conversations):
            return super().apply_chat_template(
                conversation,
                chat_template,
                add_generation_prompt=add_generation_prompt,
                tokenize=tokenize,
                return_tensors=return_tensors,
                return_dict=return_dict,
                return_assistant_tokens_mask=return_assistant_tokens_mask,
                processor_kwargs=processor_kwargs,
                **kwargs,
            )
        options = {
            **kwargs,
            "add_generation_prompt": add_generation_prompt,
            "return_assistant_tokens_mask": return_assistant_tokens_mask,
        }
        writer = self._writer(chat_template, fusion_order, options)
        read = [self._read_conversation(messages, budget, text_policy) for messages in conversations]
        prompts = [writer.write(conversation) for conversation in read]
        if not tokenize:
            texts = [writer.as_text(talk, prompt.plans) for talk, prompt in zip(read, prompts, strict=True)]
            return texts if is_batch else texts[0]
        tensors = (processor_kwargs or {}).get("return_tensors") if return_tensors == "auto" else return_tensors
        features = self._features(read, prompts, tensors, return_assistant_tokens_mask)
        output = features if return_dict else features["input_ids"]
        if not return_plan:
            return output
        plans = [prompt.plans for prompt in prompts]
        return output, plans if is_batch else plans[0]

    def _questions(
        self, document: Any, question: Any, budget: Any, text_policy: Any
    ) -> tuple[list[Conversation], bool]:
        """Conversations of one user turn each, in which the document stands before the question."""
        many_documents = isinstance(document, (list, tuple)) and not all(is_picture(page) for page in document)
        many_questions = isinstance(question, (list, tuple))
        # Laid out once, however many questions there are.
        documents = [self.read_document(one) for one in (document if many_documents else [document])]
        questions = list(question) if many_questions else [question]
        if not questions:
            raise ValueError("question is an empty list; give at least one question, or None")
        if len(documents) == 1:
            documents *= len(questions)
        elif len(questions) == 1:
            questions *= len(documents)
        if len(documents) != len(questions):
            raise ValueError(f"{len(documents)} documents and {len(questions)} questions; give one question for each")
        conversations = []
        for one, asked in zip(documents, questions, strict=True):
            content: list[dict[str, Any]] = [{"type": "document", "document": one}]
            if asked is not None:
                content.append({"type": "text", "text": _checked_question(asked)})
            messages = [{"role": "user", "content": content}]
            conversations.append(self._read_conversation(messages, budget, text_policy))
        return conversations, many_documents or many_questions

    def _read_conversation(self, messages: Any, budget: Any, text_policy: Any) -> Conversation:
        """The messages with what users wrote taken out of them."""
        talk = Conversation()
        for message in messages:
            untrusted = message["role"] in _UNTRUSTED_ROLES
            content, first_text = message.get("content"), len(talk.texts)
            if isinstance(content, str) and untrusted and content:
                content = talk.add_text(content)
            elif isinstance(content, (list, tuple)):
                content = [self._read_part(part, talk, untrusted, budget, text_policy) for part in content]
            talk.messages.append({**message, "content": content})
            if message["role"] == "user" and len(talk.texts) > first_text:
                talk.question = "\n".join(talk.texts[first_text:])
        return talk

    def _read_part(self, part: Any, talk: Conversation, untrusted: bool, budget: Any, text_policy: Any) -> Any:
        kind = part.get("type")
        if kind == "document":
            unknown = sorted(set(part) - _DOCUMENT_KEYS)
            if unknown or ("text" in part) == ("document" in part):
                raise ValueError(
                    f"a document part has the keys {sorted(part)}; it takes 'text' or 'document', and may have "
                    "'budget' and 'text_policy'"
                )
            own = ContextBudget.of(part.get("budget", budget)).filled_from(ContextBudget.of(self.default_budget))
            policy = part.get("text_policy") or text_policy or self.default_text_policy
            document = self.read_document(part["text"] if "text" in part else part["document"])
            return talk.add_document(DocumentPart(document, own, resolve_text_policy(policy)))
        if kind in ("image", "image_url"):
            image = next((part[key] for key in _IMAGE_KEYS if key in part), None)
            if kind == "image_url":
                image = part["image_url"].get("url") if isinstance(part["image_url"], dict) else part["image_url"]
            if image is None:
                raise ValueError(f"an image part beside a document needs one of {', '.join(_IMAGE_KEYS)}: {part!r}")
            patches = self._cut([image])
            return talk.add_image(patches, int(self._tokens_of(patches).sum()))
        if kind == "text" and untrusted and part.get("text"):
            return talk.add_text(part["text"])
        return part

    # Planning

    @property
    def encoder(self) -> PlainEncoder:
        """Tokenises what users write, as text."""
        if self._encoder is None:
            self._encoder = PlainEncoder(self.tokenizer)
        return self._encoder

    def _writer(
        self, chat_template: str | None, fusion_order: FusionOrder | None, template_kwargs: dict[str, Any]
    ) -> PromptWriter:
        order = _fusion_order(fusion_order or self.fusion_order)
        template = self._resolve_chat_template(chat_template)
        return PromptWriter(
            PromptRenderer(self.tokenizer, self.image_token, template, order == "pages_first", template_kwargs),
            self.encoder,
            ContextPlanner(self.encoder, self._page_tokens),
            self.image_token_id,
        )

    def _page_tokens(self, height: int, width: int) -> int:
        return self.image_processor.get_number_of_image_patches(height, width) // self.image_processor.merge_size**2

    # Pixels

    def _tokens_of(self, patches: _Patches) -> np.ndarray:
        """Visual tokens of each page, int64 [pages]."""
        return patches.image_grid_thw.prod(axis=1) // self.image_processor.merge_size**2

    def _cut(self, pages: list[Any]) -> _Patches:
        features = self.image_processor(images=pages, return_tensors="np")
        return _Patches(features["pixel_values"], features["image_grid_thw"])

    def _cut_document(self, document: Any, plan: ContextPlan) -> _Patches:
        """Draw the pages a few at a time, and keep only their patches."""
        pages = iter(drawn_pages(document, plan.scale))
        groups: list[_Patches] = []
        while group := list(islice(pages, _PAGES_AT_ONCE)):
            groups.append(self._cut(group))
        patches = _joined(groups)
        if tuple(self._tokens_of(patches).tolist()) != plan.page_tokens:
            raise RuntimeError("the pages take other numbers of visual tokens than planned: page_size is wrong")
        return patches

    def _features(
        self,
        conversations: list[Conversation],
        prompts: list[Prompt],
        return_tensors: str | None,
        assistant_masks: bool = False,
        draw_pages: bool = True,
    ) -> BatchFeature:
        rows = [prompt.input_ids for prompt in prompts]
        length = max(map(len, rows))
        pad_id = self.tokenizer.pad_token_id
        if pad_id is None and any(len(row) < length for row in rows):
            raise ValueError("prompts of a batch differ in length and the tokenizer has no pad_token; set one")
        data: dict[str, Any] = {
            "input_ids": [[pad_id] * (length - len(row)) + row for row in rows],
            "attention_mask": [[0] * (length - len(row)) + [1] * len(row) for row in rows],
        }
        data["mm_token_type_ids"] = self.create_mm_token_type_ids(data["input_ids"])
        if assistant_masks:
            masks = [prompt.generated for prompt in prompts]
            data["assistant_masks"] = [[0] * (length - len(mask)) + mask for mask in masks]
        patches = list(self._patches_in_order(conversations, prompts)) if draw_pages else []
        if patches:
            joined = _joined(patches)
            data |= {"pixel_values": joined.pixel_values, "image_grid_thw": joined.image_grid_thw}
        return BatchFeature(data, tensor_type=return_tensors)

    def _patches_in_order(self, conversations: list[Conversation], prompts: list[Prompt]) -> Iterator[_Patches]:
        """Patches of all pages and pictures in the order in which the prompts show them."""
        drawn: dict[tuple[int, float], _Patches] = {}
        for talk, prompt in zip(conversations, prompts, strict=True):
            for segment in prompt.segments:
                if segment.kind == "image":
                    yield talk.images[segment.index]
                elif segment.kind == "page" and segment.page == 0:
                    # Several questions about one document share its pages.
                    document, plan = talk.documents[segment.index].document, prompt.plans[segment.index]
                    key = (id(document), plan.scale)
                    if key not in drawn:
                        drawn[key] = self._cut_document(document, plan)
                    yield drawn[key]

    # What transformers, pipelines and vLLM ask of a processor

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs: Any) -> str:
        merge_length = self.image_processor.merge_size**2
        return self.image_token * (int(image_inputs["image_grid_thw"][image_idx].prod()) // merge_length)

    def _get_num_multimodal_tokens(
        self, image_sizes: Iterable[Sequence[int]] | None = None, **kwargs: Any
    ) -> MultiModalData:
        """Placeholder tokens and patches of images of the given (height, width) in pixels."""
        if image_sizes is None:
            return MultiModalData()
        images_kwargs = self._merge_kwargs(**kwargs).get("images_kwargs", {})
        merge_size = images_kwargs.get("merge_size") or self.image_processor.merge_size
        patches = [
            self.image_processor.get_number_of_image_patches(height, width, images_kwargs)
            for height, width in image_sizes
        ]
        return MultiModalData(
            num_image_tokens=[count // merge_size**2 for count in patches], num_image_patches=patches
        )

    def post_process_image_text_to_text(
        self,
        generated_outputs: Any,
        skip_special_tokens: bool = True,
        clean_up_tokenization_spaces: bool = False,
        **kwargs: Any,
    ) -> list[str]:
        """Texts of generated ids [batch, sequence]."""
        return self.tokenizer.batch_decode(
            generated_outputs,
            skip_special_tokens=skip_special_tokens,
            clean_up_tokenization_spaces=clean_up_tokenization_spaces,
            **kwargs,
        )

    @property
    def model_input_names(self) -> list[str]:
        return [*super().model_input_names, "mm_token_type_ids"]

    @property
    def unused_input_names(self) -> list[str]:
        return ["token_type_ids"]

    # Saving and loading: the fonts go along

    def to_dict(self) -> dict[str, Any]:
        output = super().to_dict()
        output["render_config"], output["font_sha256"] = portable_config(self.render_config)
        output["image_processor"].pop("auto_map", None)  # names code that a saved processor does not bring along
        return output

    def save_pretrained(
        self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any
    ) -> list[str]:
        """As in transformers; font files are copied to `fonts/`, and the saved config names them from there."""
        save_fonts(self.render_config, save_directory)
        files = super().save_pretrained(str(save_directory))
        if push_to_hub:
            repo_id = kwargs.pop("repo_id", os.path.basename(os.path.normpath(save_directory)))
            self.push_to_hub(repo_id, **kwargs)
        return files

    @classmethod
    def get_processor_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        values, unused = super().get_processor_dict(pretrained_model_name_or_path, **kwargs)
        digests = values.pop("font_sha256", {})
        if values.get("render_config") is not None:
            load = checkpoint_font_loader(str(pretrained_model_name_or_path), digests, kwargs)
            values["render_config"] = with_loaded_fonts(values["render_config"], load)
        return values, unused


def _fusion_order(order: Any) -> FusionOrder:
    if order not in ("pages_first", "tokens_first"):
        raise ValueError(f"fusion_order={order!r} is not 'pages_first' or 'tokens_first'")
    return order


def _checked_question(question: Any) -> str:
    if not isinstance(question, str):
        raise TypeError(f"a question is a string, not {type(question).__name__}: {question!r:.80}")
    if not question.strip():
        raise ValueError(f"empty question {question!r}; give None for a prompt that ends with the document")
    return question


def _batched(conversation: Any) -> tuple[list[Any], bool]:
    """(conversations, whether there were several to begin with)."""
    is_batch = bool(conversation) and isinstance(conversation[0], (list, tuple))
    return (list(conversation) if is_batch else [conversation]), is_batch


def _holds_document(messages: Iterable[Any]) -> bool:
    contents = (message.get("content") for message in messages if isinstance(message, dict))
    return any(
        isinstance(part, dict) and part.get("type") == "document"
        for content in contents
        if isinstance(content, (list, tuple))
        for part in content
    )


def drawn_pages(document: Any, scale: float) -> Iterable[Any]:
    """Pages at a scale: those that the document has at hand, or freshly drawn ones."""
    if isinstance(document, ScannedPages):
        return document.draw_pages(scale)
    if isinstance(document, RenderedDocument) and document.scale == scale:
        return document.pages
    return renderer_for(document.config).draw_pages(document, scale)


def _joined(groups: Sequence[_Patches]) -> _Patches:
    """Patches of several calls; grey ones get three equal channels where others have colour."""
    if len(groups) == 1:
        return groups[0]
    width = max(group.pixel_values.shape[1] for group in groups)
    pixels = [np.tile(group.pixel_values, (1, width // group.pixel_values.shape[1])) for group in groups]
    return _Patches(np.concatenate(pixels), np.concatenate([group.image_grid_thw for group in groups]))


AutoProcessor.register(HybridCtxConfig, HybridCtxProcessor, exist_ok=True)

__all__ = ["HybridCtxProcessor", "drawn_pages"]
