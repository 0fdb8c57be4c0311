# SPDX-License-Identifier: Apache-2.0
"""A document read once, for any number of questions, in this process or from a file.

With pages first, a document is a prefix that no question changes; the spans of a policy that does not look at the
question belong to it, too. What the decoder made of them is kept, and bound to the checkpoint and to the pages.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from typing import Any, Self
from weakref import ReferenceType, ref

import torch
from transformers import BatchFeature
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..documents.joined_document import DocumentParts, render_config_of
from ..grounding.grounded import document_index, keep_order
from ..planning.budget import ContextBudget
from ..planning.paged_document import PagedDocument
from ..planning.plan import ContextPlan
from ..planning.policies.auto import AutoPolicy
from ..planning.policies.base import TextPolicy
from ..planning.policies.registry import resolve_text_policy
from ..processing_hybridctx import FusionOrder, HybridCtxProcessor
from ..prompting.features import latent_features, prompt_features
from ..rendering.checkpoint_fonts import portable_config
from ..rendering.paged_text import PagedText
from .cache_files import field_of, read_cache_file, write_cache_file
from .document_tensors import document_of, tensors_of
from .fingerprints import ModelFingerprint
from .model_lock import model_lock
from .page_reading import page_embeddings
from .prefix import PrefixCache
from .reading_request import QUESTION_TOKENS, KeptSpans, ReadingRequest

_READ_AGAIN = "read the document again with this checkpoint"


class DocumentCache:
    """
    A document that a checkpoint has read. [`LongDocQAPipeline.read`] makes it; each question then costs its own tokens.

    Threads may share one: questions fill caches of their own, and what is read is never written to.

    Attributes:
        prefix ([`PrefixCache`]): tokens, keys and values of the prompt's beginning.
        fingerprint ([`ModelFingerprint`]): what the model computes that made them.
    """

    def __init__(
        self,
        prefix: PrefixCache,
        request: ReadingRequest,
        document: PagedDocument | DocumentParts | str,
        fingerprint: ModelFingerprint,
        render: Any,
        plan: ContextPlan | None = None,
    ) -> None:
        self.prefix = prefix
        self.fingerprint = fingerprint
        self._request = request
        self._document = document
        self._render = render
        self._plan = plan
        self._index_order: torch.Tensor | None = None  # of the text, from a file
        self._model: ReferenceType[Any] | None = None  # whose questions it answered last

    @classmethod
    def read(
        cls,
        model: Any,
        processor: HybridCtxProcessor,
        document: Any,
        *,
        budget: ContextBudget | dict[str, Any] | None = None,
        text_policy: str | dict[str, Any] | TextPolicy | None = None,
        fusion_order: FusionOrder | None = None,
        question_tokens: int = QUESTION_TOKENS,
        prefill_chunk_size: int | None = None,
        system: str | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
    ) -> Self:
        """
        Read a document.

        Args:
            model ([`HybridCtxForCausalLM`]): an adapter around it is as good.
            processor ([`HybridCtxProcessor`]): the one of the model's checkpoint.
            document: what `processor(document=...)` takes, one document.
            budget, text_policy, fusion_order: as in `processor(document=...)`; they hold for all questions, and fix the
                pages' scale. With a policy that looks at the question, the pages are read, and each question brings its
                own spans; other policies' spans are read with the pages.
            question_tokens: what to leave of `max_context_tokens` for a question and the spans copied for it.
            prefill_chunk_size: tokens that go through the decoder at a time; None: all at once.
            system, chat_template_kwargs: as in `processor(document=...)`; they hold for all questions.

        Raises:
            ContextBudgetError, ValueError: before the model runs.
        """
        request = ReadingRequest.of(
            processor, budget, text_policy, fusion_order, question_tokens, system, chat_template_kwargs
        )
        laid_out = processor.read_document(document)
        request = request.settled(processor, laid_out)
        input_ids, plan = request.plan(processor, laid_out)
        features: dict[str, Any] = prompt_features([input_ids], model.config.image_token_id)
        features |= latent_features([plan])
        features = {name: value.to(model.device) for name, value in features.items()}
        if plan.num_pages:
            pages = processor.draw_pages(plan, return_tensors="pt").to(model.device)
            outputs = BaseModelOutputWithPooling(pooler_output=page_embeddings(model, pages))
            features |= {"image_grid_thw": pages["image_grid_thw"], "mm_encoder_outputs": {"image": outputs}}
        with model_lock(model):
            prefix = PrefixCache.read(model, features, prefill_chunk_size)
            fingerprint = ModelFingerprint.of(model)
        typeset_with = render_config_of(laid_out)
        render = None if typeset_with is None else portable_config(typeset_with)
        cache = cls(prefix, request, laid_out, fingerprint, render, plan)
        cache._model = ref(model)
        return cache

    @property
    def plan(self) -> ContextPlan:
        """The plan of the document without a question."""
        if self._plan is None:
            raise ValueError("the document is not laid out yet: call attach(model, processor), as the pipeline does")
        return self._plan

    @property
    def text(self) -> str:
        """The document's text, whether it is laid out or not."""
        return self._document if isinstance(self._document, str) else self._document.text

    @property
    def text_policy(self) -> TextPolicy:
        """What is copied for a question, unless it says otherwise."""
        return self._request.text_policy

    def __len__(self) -> int:
        """Tokens that are read."""
        return len(self.prefix)

    def attach(self, model: Any, processor: HybridCtxProcessor) -> Self:
        """
        Make sure that this model made the cache, and lay the document out with this processor where that is to be done.

        Raises:
            ValueError: a model that computes something else, or another render config, font, tokenizer or chat template.
        """
        with model_lock(model):
            self.fingerprint.check(model)
            if self._plan is None:
                self._lay_out(processor)
            if len(getattr(model, "hf_device_map", None) or ()) < 2:  # else each layer's part goes where the layer is
                self.prefix = self.prefix.to(model.device)
            self._model = ref(model)
        return self

    def _lay_out(self, processor: HybridCtxProcessor) -> None:
        render = json.loads(json.dumps(portable_config(processor.render_config)))
        if self._render is not None and self._render != render:
            raise ValueError(
                f"the document cache was made with another render config ({_difference(self._render, render)}); "
                f"{_READ_AGAIN}"
            )
        document = processor.read_document(self._document)
        input_ids, plan = self._request.plan(processor, document)
        if input_ids != self.prefix.input_ids.tolist():
            raise ValueError(
                "the document cache holds other tokens than this processor writes for the document: its tokenizer, "
                f"chat template or image size differ; {_READ_AGAIN}"
            )
        if self._index_order is not None:
            keep_order(document, self._index_order.numpy())
        self._plan, self._document = plan, document

    def prompt(
        self,
        processor: HybridCtxProcessor,
        question: str,
        budget: ContextBudget | dict[str, Any] | None = None,
        text_policy: str | dict[str, Any] | TextPolicy | None = None,
        history: Sequence[tuple[str, str]] | None = None,
        answer_start: str | None = None,
        pictures: Sequence[Any] = (),
        **options: Any,
    ) -> tuple[list[int], ContextPlan]:
        """
        The whole prompt for a question, which begins with what is read, and its plan.

        Args:
            budget, text_policy: as in `processor(document=...)`, in place of the reading's.
            history, answer_start: as in `processor(document=...)`.
            pictures: stand behind the question, and the question once more behind them.
            options: `fusion_order`, `system` and `chat_template_kwargs` may only repeat what the reading was made with;
                but spans may stand behind the question (`fusion_order="tokens_last"`) of any reading with pages first.

        Raises:
            ContextBudgetError: the question does not fit; its `smallest` would.
            ValueError: a budget, a policy or an option that would change what is read.
        """
        read_with = self._request.options
        if options.get("fusion_order") == "tokens_last" and read_with["fusion_order"] == "pages_first":
            read_with = {**read_with, "fusion_order": options.pop("fusion_order")}
        for name, value in options.items():
            if value is not None and value != read_with[name]:
                raise ValueError(
                    f"the document was read with {name}={read_with[name]!r}, not {value!r}; read it with that"
                )
        asked = ContextBudget.of(budget)
        filled = asked.filled_from(self._request.budget)
        scale = self.plan.scale
        if not filled.scales[0] <= scale <= filled.scales[1]:
            raise ValueError(
                f"the document was read at scale {scale:g}, which is not within min_scale={filled.scales[0]:g} and "
                f"max_scale={filled.scales[1]:g}; read it again, or leave the scales out"
            )
        policy = self._request.text_policy if text_policy is None else resolve_text_policy(text_policy)
        if isinstance(policy, AutoPolicy):  # whether there are pages was settled when the document was read
            policy = policy.beside if self.plan.num_pages else self._request.text_policy
        as_read = policy == self._request.text_policy and self._request.reads_spans
        as_read = as_read and read_with["fusion_order"] == self._request.fusion_order
        prompt = processor.write_question(
            self.plan.document,
            question,
            pictures,
            replace(filled, min_scale=scale, max_scale=scale, latent_chunks=len(self.plan.latents)),
            KeptSpans(self.plan.spans) if as_read else policy,
            history=history,
            answer_start=answer_start,
            **read_with,
        )
        input_ids, plan = prompt.input_ids, prompt.plans[0]
        if as_read:
            plan = replace(plan, policy=self.plan.policy, omitted=self.plan.omitted)
        if not self.prefix.shared_length(input_ids):
            given = {"text_policy": None if text_policy is None else policy.name, **vars(asked)}
            told = ", ".join(f"{name}={value!r}" for name, value in given.items() if value is not None)
            raise ValueError(
                f"{told} puts something else before the pages than was read; read the document again with it"
            )
        return input_ids, plan

    def inputs(self, processor: HybridCtxProcessor, question: str | Sequence[str], **options: Any) -> BatchFeature:
        """
        What `model.generate` takes for one question or several: a row of the whole prompt for each, and
        `past_key_values`, which hold its beginning.

        Args:
            options: as in [`DocumentCache.prompt`].

        Raises:
            ValueError: the model that read the document, or that the cache was attached to last, was changed since then.
        """
        if self._model is not None and (model := self._model()) is not None:
            self.fingerprint.check(model)
        questions = [question] if isinstance(question, str) else question
        prompts = [self.prompt(processor, one, **options)[0] for one in questions]
        return self.prefix.features(prompts, processor.tokenizer.pad_token_id)

    # Files

    def save(self, path: str | os.PathLike[str]) -> Path:
        """
        Write the cache to a safetensors file: keys and values, the document (its text or its page pictures, so treat the
        file as you would the document), the sorted half of the text's index, and the checksums that bind it.

        Raises:
            ValueError: a text policy that cannot be written down.
        """
        path, policy = Path(path), self._request.text_policy
        if not is_dataclass(policy):
            raise ValueError(f"the text policy {policy!r} is not a dataclass, so its settings cannot be saved")
        tensors = {"input_ids": self.prefix.input_ids, "fingerprint": self.fingerprint.states}
        if self.prefix.image_grid_thw is not None:
            tensors["image_grid_thw"] = self.prefix.image_grid_thw
        for index, layer in enumerate(self.prefix.states):
            tensors |= {f"{name}.{index}": part for name, part in zip(("keys", "values"), layer, strict=True)}
        header = {
            "checkpoint": self.fingerprint.checksum,
            "computed": self.fingerprint.computed,
            "render": self._render,
            "image_token_id": self.prefix.image_token_id,
            "budget": vars(self._request.budget),
            "text_policy": {"name": policy.name, **asdict(policy)},
            "question_tokens": self._request.question_tokens,
            **self._request.options,
        }
        if self.prefix.latent_token_id is not None:
            header["latent_token_id"] = self.prefix.latent_token_id
        if isinstance(self._document, PagedText) and self._document.text.strip():
            tensors["index"] = torch.from_numpy(document_index(self._document).order)
        elif self._index_order is not None:
            tensors["index"] = self._index_order
        write_cache_file(path, header, tensors | tensors_of(self._document))
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """
        Read a file that `save` wrote, every bit of it as it was written. Whether it fits is seen when it is used:
        [`DocumentCache.attach`].

        Raises:
            FileNotFoundError, ValueError: no such file, or another kind of file, or a damaged one.
        """
        header, tensors = read_cache_file(path)

        def entry(name: str, *kinds: type) -> Any:
            return field_of(header, name, kinds, str(path))

        layers = sum(name.startswith("keys.") for name in tensors)
        needed = {
            "input_ids",
            "fingerprint",
            *(f"{name}.{index}" for name in ("keys", "values") for index in range(layers)),
        }
        if missing := sorted(needed - tensors.keys()):
            raise ValueError(f"the document cache {str(path)!r} lacks {', '.join(missing)}; read the document again")
        prefix = PrefixCache(
            tensors["input_ids"],
            entry("image_token_id", int),
            tensors.get("image_grid_thw"),
            tuple((tensors[f"keys.{index}"], tensors[f"values.{index}"]) for index in range(layers)),
            header.get("latent_token_id"),
        )
        request = ReadingRequest(
            ContextBudget.of(entry("budget", dict)),
            resolve_text_policy(entry("text_policy", dict)),
            entry("fusion_order", str),
            entry("question_tokens", int),
            entry("system", str, type(None)),
            entry("chat_template_kwargs", dict),
        )
        fingerprint = ModelFingerprint(entry("checkpoint", str), tensors["fingerprint"], entry("computed", str))
        cache = cls(prefix, request, document_of(tensors), fingerprint, entry("render", list, type(None)))
        cache._index_order = tensors.get("index")
        return cache


def _difference(one: Any, other: Any) -> str:
    """The first settings in which two portable configs differ, and whether it is the font files."""
    (config, fonts), (other_config, other_fonts) = one, other
    names = sorted(name for name in config.keys() | other_config if config.get(name) != other_config.get(name))
    if not names and fonts != other_fonts:
        return "other font files under the same names"
    return "; ".join(f"{name}={config.get(name)!r}, here {other_config.get(name)!r}" for name in names[:3])


__all__ = ["DocumentCache"]
