# SPDX-License-Identifier: Apache-2.0
"""The processor: a document and a question (or a chat that holds documents) become what `generate` takes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, cast

from transformers import AutoProcessor, BatchFeature, PreTrainedTokenizerBase
from transformers.processing_utils import MultiModalData, ProcessorMixin

from .configuration_hybridctx import HybridCtxConfig
from .documents.joined_document import DocumentParts, laid_out
from .documents.scans import ScannedPages, is_picture
from .image_processing_hybridctx import HybridCtxImageProcessor
from .planning.budget import ContextBudget
from .planning.knobs import shown
from .planning.latents import LatentSettings
from .planning.paged_document import PagedDocument
from .planning.plan import ContextPlan
from .planning.planner import ContextPlanner
from .planning.policies.base import TextPolicy
from .planning.policies.registry import resolve_text_policy
from .prompting.conversations import Conversation, ConversationReader, batched, check_messages
from .prompting.encoder import PlainEncoder
from .prompting.features import check_document_options, latent_features, prompt_features
from .prompting.frames import FUSION_ORDERS, FusionOrder, PromptRenderer, check_generation_marks, template_options
from .prompting.pages import PageCutter, renderer_for
from .prompting.writing import Prompt, PromptWriter
from .remote_code import TravelsWithCode
from .rendering.checkpoint_fonts import checkpoint_font_loader, portable_config, save_fonts, with_loaded_fonts
from .rendering.paged_text import PagedText
from .rendering.settings import RenderConfig


class _BringsFonts(ProcessorMixin):
    """Saving and loading of a processor whose fonts go along."""

    render_config: RenderConfig
    latents: LatentSettings | None

    def to_dict(self) -> dict[str, Any]:
        output = super().to_dict()
        output["render_config"], output["font_sha256"] = portable_config(self.render_config)
        output["latents"] = None if self.latents is None else asdict(self.latents)
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


class _Glm4vProcessor(ProcessorMixin):
    """What transformers, pipelines and vLLM ask of a processor of this family, where no document is in play."""

    return_mm_token_type_ids = True
    text_kwargs: ClassVar[Any] = {"return_token_type_ids": False}
    image_token: str

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


class _WritesPrompts(ProcessorMixin):
    """How conversations with documents become features."""

    latents: LatentSettings | None
    latent_token_id: int | None
    image_token: str
    image_token_id: int
    fusion_order: FusionOrder
    default_budget: dict[str, Any]
    default_text_policy: str | dict[str, Any]
    read_document: Any
    _encoder: PlainEncoder | None

    def _reader(self, budget: Any, text_policy: Any) -> ConversationReader:
        return ConversationReader(
            self.read_document,
            self._cutter.read,
            ContextBudget.of(self.default_budget),
            budget,
            self.default_text_policy if text_policy is None else text_policy,
        )

    @property
    def encoder(self) -> PlainEncoder:
        """Tokenises what users write, as text."""
        if self._encoder is None or not self._encoder.encodes_with(self.tokenizer):
            self._encoder = PlainEncoder(self.tokenizer)
        return self._encoder

    @property
    def _cutter(self) -> PageCutter:
        return PageCutter(self.image_processor)

    def _writer(
        self, chat_template: str | None, fusion_order: FusionOrder | None, template_kwargs: dict[str, Any]
    ) -> PromptWriter:
        order = _fusion_order(fusion_order or self.fusion_order)
        template = self._resolve_chat_template(chat_template)
        renderer = PromptRenderer(self.tokenizer, self.image_token, template, order, template_kwargs)
        planner = ContextPlanner(
            self.encoder,
            self._cutter.tokens_of_size,
            self.encoder.memory,
            self.latents,
            -1 if self.latent_token_id is None else self.latent_token_id,
        )
        return PromptWriter(renderer, self.encoder, planner, self.image_token_id)

    def write_question(
        self,
        document: Any,
        question: str,
        pictures: Sequence[Any],
        budget: Any,
        text_policy: Any,
        system: str | None = None,
        history: Sequence[tuple[str, str]] | None = None,
        answer_start: str | None = None,
        fusion_order: FusionOrder | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
    ) -> Prompt:
        """The prompt of one question, with pictures behind it, and the question once more behind these."""
        reader = self._reader(budget, text_policy)
        conversations, _ = reader.read_questions(document, question, system, history, answer_start, pictures)
        options = {"add_generation_prompt": True, **template_options(chat_template_kwargs)}
        return self._writer(None, fusion_order, options).write(conversations[0])

    def write_chat(self, messages: list[dict[str, Any]], chat_template_kwargs: dict[str, Any] | None = None) -> Prompt:
        """The prompt of a conversation: what users say in it is text, and the options are for the template alone."""
        options = {"add_generation_prompt": True, **template_options(chat_template_kwargs)}
        return self._writer(None, None, options).write(self._reader(None, None).read(messages))

    def _features(
        self,
        conversations: list[Conversation],
        prompts: list[Prompt],
        return_tensors: str | None,
        assistant_masks: bool = False,
        draw_pages: bool = True,
    ) -> BatchFeature:
        data = prompt_features(
            [prompt.input_ids for prompt in prompts],
            self.image_token_id,
            self.tokenizer.pad_token_id,
            generated=[prompt.generated for prompt in prompts] if assistant_masks else None,
            return_tensors=None,
        )
        if draw_pages and (patches := self._cutter.cut_prompts(conversations, prompts)) is not None:
            data |= vars(patches)
        data |= latent_features([plan for prompt in prompts for plan in prompt.plans], return_tensors=None)
        return BatchFeature(data, tensor_type=return_tensors)


class HybridCtxProcessor(TravelsWithCode, _BringsFonts, _WritesPrompts, _Glm4vProcessor):
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
        default_text_policy (`str` or `dict`, *optional*, defaults to `"auto"`): a text policy's name, or
            `{"name": ..., knob: value}`.
        fusion_order (`str`, *optional*): `"pages_first"` or `"tokens_first"`: which of a document's two forms comes first
            in the prompt; or `"tokens_last"`: pages, question, tokens, question again.
        default_grounding (`str` or `dict`, *optional*): the pipeline's `grounding` where a call does not say.
        latents (`dict` or [`LatentSettings`], *optional*): how text becomes latents, for a checkpoint with a latent
            encoder: `num_latent_tokens`, `chunk_tokens`, `overlap_tokens`, `token`. None: not at all.
    """

    def __init__(
        self,
        image_processor: HybridCtxImageProcessor | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        chat_template: str | dict[str, str] | None = None,
        render_config: dict[str, Any] | RenderConfig | None = None,
        default_budget: dict[str, Any] | ContextBudget | None = None,
        default_text_policy: str | dict[str, Any] = "auto",
        fusion_order: FusionOrder = "pages_first",
        default_grounding: str | dict[str, Any] | None = None,
        latents: dict[str, Any] | LatentSettings | None = None,
    ) -> None:
        if chat_template is None:
            chat_template = getattr(tokenizer, "chat_template", None)
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.image_token: str = getattr(self.tokenizer, "image_token", None) or "<|image|>"
        self.image_token_id: int = self._special_token_id(self.image_token)
        self.latents = LatentSettings.of(latents)
        self.latent_token_id = None if self.latents is None else self._special_token_id(self.latents.token)
        if not isinstance(render_config, RenderConfig):
            render_config = RenderConfig.from_dict(render_config or {})
        self.render_config = render_config
        default = ContextBudget.of(default_budget)
        self.default_budget = {name: value for name, value in vars(default).items() if value is not None}
        resolve_text_policy(default_text_policy)
        self.default_text_policy = default_text_policy
        self.fusion_order = _fusion_order(fusion_order)
        self.default_grounding = default_grounding
        self._encoder: PlainEncoder | None = None

    def _special_token_id(self, token: str) -> int:
        found = self.tokenizer.convert_tokens_to_ids(token)
        if found is None or found == self.tokenizer.unk_token_id:
            raise ValueError(f"the tokenizer has no {token!r} token; add it as a special token")
        return int(found)

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
        system: str | None = None,
        history: Sequence[tuple[str, str]] | None = None,
        answer_start: str | None = None,
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
            images, text: as in transformers' GLM-4V processors.
            videos, audio: an error, as the model has no input for them.
            document: a text; page pictures (a PIL image, a uint8 array, or a list of these); a [`TypesetDocument`] or
                [`RenderedDocument`]; or a list of any of these for a batch (a flat list of pictures is one document).
            question: one question, or one for each document; several questions may share one document. None: a prompt
                that ends with the document.
            budget: how many tokens, and what they go to; a [`ContextBudget`] or a dict of its fields.
            text_policy: what is copied as exact tokens: a policy, its name, or `{"name": ..., knob: value}`.
            fusion_order: `"pages_first"`, `"tokens_first"` or `"tokens_last"` (behind the question).
            system: a system message, which comes before the document.
            history: what was asked and answered before, (question, answer) in their order; it stands behind the document.
            answer_start: words with which the model's answer begins: they end the prompt, and what is generated goes on
                from them. They cannot write special tokens.
            add_generation_prompt, chat_template_kwargs: passed to the chat template.
            return_plan: also return the [`ContextPlan`] (a list of them for a batch).
            draw_pages: whether to draw the pages. Without, `pixel_values` and `image_grid_thw` are left out for
                [`~HybridCtxProcessor.draw_pages`] to add, once for all questions whose plans show the same pages.
            return_tensors: `"pt"`, `"np"` or None.
            kwargs: what other processors take and what is so in any case here: `padding=True`,
                `padding_side="left"`, `truncation=False`.

        Returns:
            [`BatchFeature`]: `input_ids`, `attention_mask`, `mm_token_type_ids` (1 where a page is) [batch, sequence],
            padded on the left; and where pages are in a prompt, `pixel_values` uint8 [patches, C * patch * patch] with
            C = 1 where all pages are grey and 3 otherwise, `image_grid_thw` int64 [pages, 3]; where latents are,
            `latent_input_ids` and `latent_attention_mask` [chunks, longest]. With `return_plan`, a tuple of these and
            the plan.

        Raises:
            ContextBudgetError: the budget cannot be met; its `smallest` can.
            ValueError, TypeError: an empty document, an unknown policy, something that is not a document.
        """
        for name, value in (("videos", videos), ("audio", audio)):
            if value is not None:
                raise ValueError(f"{name}= is given, which this model has no input for; leave it out")
        if document is None:
            if question is not None:
                raise ValueError(f"question={question!r} has no document: document is None; give a text or pictures")
            if text is None and images is None:
                raise ValueError("give document= (and question=), or text= (and images=)")
            return super().__call__(images=images, text=text, return_tensors=return_tensors, **kwargs)
        for name, value in (("text", text), ("images", images)):
            if value is not None:
                raise ValueError(f"give document= or {name}=, not both; the pages of a document go into document=")
        check_document_options(kwargs)
        options = {"add_generation_prompt": add_generation_prompt, **template_options(chat_template_kwargs)}
        if answer_start and not add_generation_prompt:
            raise ValueError(f"answer_start={shown(answer_start)} begins an answer: give add_generation_prompt=True")
        reader = self._reader(budget, text_policy)
        conversations, is_batch = reader.read_questions(document, question, system, history, answer_start)
        prompts = self._writer(None, fusion_order, options).write_all(conversations)
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
        system: str | None = None,
        history: Sequence[tuple[str, str]] | None = None,
        add_generation_prompt: bool = True,
        chat_template_kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """What `processor(document=..., question=...)` with the same arguments will do, without drawing a page.

        Returns:
            [`ContextPlan`], or a list of them for a batch.
        """
        options = {"add_generation_prompt": add_generation_prompt, **template_options(chat_template_kwargs)}
        conversations, is_batch = self._reader(budget, text_policy).read_questions(document, question, system, history)
        plans = [prompt.plans[0] for prompt in self._writer(None, fusion_order, options).write_all(conversations)]
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
        return BatchFeature(dict(vars(self._cutter.cut_document(plan))), tensor_type=return_tensors)

    def read_document(self, document: Any) -> PagedDocument:
        """A document laid out: text is typeset with the processor's render config, page pictures stay as they are.

        Raises:
            ValueError: an empty document, a page picture without pixels.
            TypeError: something that is not a document.
        """
        if isinstance(document, (PagedText, ScannedPages)):
            return document
        if isinstance(document, (str, DocumentParts)):
            return laid_out(document, renderer_for(self.render_config).typeset)
        if is_picture(document):
            document = [document]
        if isinstance(document, (list, tuple)) and all(is_picture(page) for page in document):
            if not document:
                raise ValueError("empty document: a list of no pages")
            return ScannedPages(document)
        raise TypeError(
            f"a document is a text, page images or a TypesetDocument, not {type(document).__name__}: {shown(document)}"
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
        conversations, is_batch = batched(conversation)
        with_documents = [check_messages(messages) for messages in conversations]
        if return_assistant_tokens_mask:
            check_generation_marks(self._resolve_chat_template(chat_template))
        if not any(with_documents):
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
        reader = self._reader(budget, text_policy)
        read = [reader.read(messages) for messages in conversations]
        prompts = writer.write_all(read)
        if not tokenize:
            texts = [prompt.text for prompt in prompts]
            return texts if is_batch else texts[0]
        wished = dict(processor_kwargs or {})
        tensors = wished.pop("return_tensors", None) if return_tensors == "auto" else return_tensors
        check_document_options(wished)
        features = self._features(read, prompts, tensors, return_assistant_tokens_mask)
        output = features if return_dict else features["input_ids"]
        if not return_plan:
            return output
        plans = [prompt.plans for prompt in prompts]
        return output, plans if is_batch else plans[0]


def _fusion_order(order: Any) -> FusionOrder:
    if order not in FUSION_ORDERS:
        raise ValueError(f"fusion_order={shown(order)} is not one of {', '.join(map(repr, FUSION_ORDERS))}")
    return cast(FusionOrder, order)


AutoProcessor.register(HybridCtxConfig, HybridCtxProcessor, exist_ok=True)

__all__ = ["HybridCtxProcessor"]
