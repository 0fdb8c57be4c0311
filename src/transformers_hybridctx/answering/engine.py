# SPDX-License-Identifier: Apache-2.0
"""The answering engine: a model, a processor and questions about one document, with all that they share done once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from transformers import LogitsProcessorList
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import logging

from ..caching.attention_ranking import rank_by_attention
from ..caching.document_cache import DocumentCache
from ..caching.larger_passages import check_zoom, prompt_with_larger_passages
from ..caching.model_lock import model_lock
from ..caching.page_reading import page_embeddings
from ..caching.prefix import PrefixCache, common_length
from ..grounding.grounded import Grounding
from ..grounding.quote_processor import DocumentQuoteProcessor, Quotation
from ..grounding.string_processor import DocumentStringProcessor
from ..planning.paged_document import PagedDocument
from ..planning.plan import ContextPlan
from ..planning.policies.attention import AttentionPolicy
from ..planning.policies.base import TextPolicy
from ..planning.policies.registry import resolve_text_policy
from ..processing_hybridctx import HybridCtxProcessor
from ..progress import is_heard, tell
from ..prompting.features import latent_features, prompt_features
from .generate_options import GenerateOptions
from .generated import FinishReason, generated_rows


@dataclass(eq=False)
class AskedQuestion:
    """
    A question's prompt, and the seconds that its stages took.

    `read`: what stands in the prompt behind the document's reading, as far as the model has read it, too.
    `pictures`: `pixel_values` and `image_grid_thw` of what stands behind that, drawn larger.
    """

    question: str
    plan: ContextPlan
    input_ids: list[int]
    seconds: dict[str, float]
    read: PrefixCache | None = None
    pictures: Mapping[str, torch.Tensor] | None = None


@dataclass(frozen=True, eq=False)
class GeneratedAnswer:
    """
    What a model said to a question.

    Attributes:
        question, plan: what was asked, and of what context.
        token_ids: int64 `[tokens]`, see [`GeneratedRow`].
        log_probabilities: float `[tokens]`.
        finish_reason: "stop" or "length" (cut off).
        seconds: of each stage: plan, attend, draw, vision, read, answer.
        grounding: how the answer was held to the document.
        quotations: what it quotes, where it was held to quotations.
    """

    question: str
    plan: ContextPlan
    token_ids: torch.Tensor
    log_probabilities: torch.Tensor
    finish_reason: FinishReason
    seconds: dict[str, float]
    grounding: Grounding | None = None
    quotations: tuple[Quotation, ...] = ()

    @property
    def score(self) -> float:
        """Geometric mean of the probabilities of the tokens."""
        return self.log_probabilities.double().mean().exp().item()


@dataclass(frozen=True, eq=False)
class _SharedPages:
    """What prompts with the same pages and latents share: what encoders make of them, and what the decoder keeps."""

    image_grid_thw: torch.Tensor | None = None
    page_embeddings: tuple[torch.Tensor, ...] = ()
    latents: tuple[torch.Tensor, ...] = ()
    prefix: PrefixCache | None = None


@dataclass(frozen=True)
class AnsweringEngine:
    """
    Answers questions about documents: what `pipeline("long-doc-qa")` does with a document that is at hand.

    Several questions share one layout of the document and, where their plans agree on the scale of its pages, one
    reading of all that their prompts begin with alike. Threads may share an engine, its model and its processor: the
    model works for one of them at a time ([`model_lock`]), and answers are those of one thread.

    Attributes:
        model ([`HybridCtxForCausalLM`]): an adapter around it is as good.
        processor ([`HybridCtxProcessor`]): the one of the model's checkpoint.
    """

    model: Any
    processor: HybridCtxProcessor

    def read(self, document: Any, **options: Any) -> DocumentCache:
        """The document as the model has read it; options as in [`DocumentCache.read`]."""
        return DocumentCache.read(self.model, self.processor, document, **options)

    def answer(
        self, document: Any, questions: Sequence[str], options: GenerateOptions, **context: Any
    ) -> list[GeneratedAnswer]:
        """
        Answers, in the order of the questions.

        Args:
            document: what `processor(document=...)` takes, one document; or a [`DocumentCache`].
            questions: what is asked about it.
            options: how to generate.
            context: `budget`, `text_policy`, `fusion_order`, `system`, `history`, `answer_start` and
                `chat_template_kwargs`, as in `processor(document=...)`.

        Raises:
            ContextBudgetError, ValueError, TypeError: before anything is generated, for any of the questions.
        """
        document = self._opened(document, options, context)
        asked = [self.ask(document, question, **context) for question in questions]
        answers = dict(self._answers(asked, document, options))
        return [answers[one] for one in asked]

    def ask(self, document: PagedDocument | DocumentCache, question: str, **context: Any) -> AskedQuestion:
        """The plan and the prompt; its pages are drawn when the model reads them."""
        started = time.perf_counter()
        seconds = {}
        read = pictures = None
        if isinstance(document, DocumentCache):
            if policy := _unranked(context.get("text_policy") or document.text_policy):
                ranked, read = rank_by_attention(self.model, self.processor, document, question, policy)
                context["text_policy"] = ranked
                seconds["attend"] = time.perf_counter() - started
                started += seconds["attend"]
            policy = context.get("text_policy")
            if isinstance(policy, AttentionPolicy) and policy.zoom is not None:
                del context["text_policy"]
                input_ids, plan, pictures = prompt_with_larger_passages(
                    document, self.processor, question, policy, **context
                )
            else:
                input_ids, plan = document.prompt(self.processor, question, **context)
        else:
            features, plan = self.processor(
                document=document, question=question, draw_pages=False, return_plan=True, **context
            )
            input_ids = features["input_ids"][0]
        seconds["plan"] = time.perf_counter() - started
        return AskedQuestion(question, plan, input_ids, seconds, read, pictures)

    def _opened(
        self, document: Any, options: GenerateOptions, context: dict[str, Any]
    ) -> PagedDocument | DocumentCache:
        """The document laid out; and read, where the text policy has the model say what is copied."""
        if isinstance(document, DocumentCache):
            cache = document.attach(self.model, self.processor)
            self._check_grounding(cache.plan.document, options)
            if policy := _unranked(context.get("text_policy") or cache.text_policy):
                check_zoom(cache.plan.document, policy, context.get("fusion_order"))
            return cache
        document = self.processor.read_document(document)
        self._check_grounding(document, options)
        if policy := _unranked(context.get("text_policy") or self.processor.default_text_policy):
            check_zoom(document, policy, context.get("fusion_order"))
            read_with = {name: value for name, value in context.items() if name not in ("history", "answer_start")}
            return self.read(document, prefill_chunk_size=options.get("prefill_chunk_size"), **read_with)
        return document

    def _check_grounding(self, document: PagedDocument, options: GenerateOptions) -> None:
        if (grounding := options.grounding_in(document)) is not None:
            grounding.check(document, self.processor.tokenizer, options.end_tokens)

    def _answers(
        self, asked: list[AskedQuestion], document: PagedDocument | DocumentCache, options: GenerateOptions
    ) -> Iterator[tuple[AskedQuestion, GeneratedAnswer]]:
        """Each question and its answer, those that show the same pages after one another."""
        answered = 0
        with logging.tqdm(
            desc="questions", unit="question", total=len(asked), disable=len(asked) < 2 or is_heard()
        ) as progress:
            for _, same_pages in groupby(sorted(asked, key=_pages_of), key=_pages_of):
                group = list(same_pages)
                if isinstance(document, DocumentCache):
                    shared = _SharedPages(prefix=document.prefix)
                else:
                    shared = self._read_ahead(group, options)
                alone = shared.prefix is None or options.has_own_criteria or any(one.pictures for one in group)
                step = 1 if alone else options.batch_size
                for start in range(0, len(group), step):
                    batch = group[start : start + step]
                    known = _with_question(shared, batch)
                    yield from zip(batch, self._generate(batch, known, options), strict=True)
                    progress.update(len(batch))
                    answered += len(batch)
                    tell("questions answered", answered, len(asked))

    def _read_ahead(self, asked: list[AskedQuestion], options: GenerateOptions) -> _SharedPages:
        plan, seconds = asked[0].plan, asked[0].seconds
        shared = _SharedPages()
        if plan.num_pages:
            started = time.perf_counter()
            pages = self.processor.draw_pages(plan, return_tensors="pt").to(self.model.device)
            drawn = time.perf_counter()
            grids = pages["image_grid_thw"]
            shared = _SharedPages(grids, page_embeddings(self.model, pages))
            seconds |= {"draw": drawn - started, "vision": time.perf_counter() - drawn}
        if plan.latents:
            started = time.perf_counter()
            chunks = {name: ids.to(self.model.device) for name, ids in latent_features([plan]).items()}
            with torch.no_grad(), model_lock(self.model):
                shared = replace(shared, latents=tuple(self.model.get_latent_features(**chunks).pooler_output))
            seconds["latents"] = time.perf_counter() - started
        length = common_length([one.input_ids for one in asked])
        prefix = asked[0].input_ids[:length]
        is_whole = prefix.count(self.processor.image_token_id) == plan.visual_tokens
        if plan.latents:
            is_whole &= prefix.count(self.model.config.latent_token_id) == sum(map(len, shared.latents))
        if len(asked) == 1 or not length or not is_whole or options.is_assisted:
            return shared
        started = time.perf_counter()
        features = self._features(prefix, shared)
        shared = replace(shared, prefix=PrefixCache.read(self.model, features, options.get("prefill_chunk_size")))
        seconds["read"] = time.perf_counter() - started
        return shared

    def _features(self, input_ids: list[int], shared: _SharedPages) -> dict[str, Any]:
        """One prompt as `generate` takes it."""
        plain = prompt_features([input_ids], self.processor.image_token_id)
        features: dict[str, Any] = {name: value.to(self.model.device) for name, value in plain.items()}
        # fresh outputs each time: beam search writes into them
        made = {"image": shared.page_embeddings, "latent": shared.latents}
        outputs = {name: BaseModelOutputWithPooling(pooler_output=embeds) for name, embeds in made.items() if embeds}
        if shared.page_embeddings:
            features["image_grid_thw"] = shared.image_grid_thw
        return features | ({"mm_encoder_outputs": outputs} if outputs else {})

    def _generate(
        self, asked: list[AskedQuestion], shared: _SharedPages, options: GenerateOptions
    ) -> Iterator[GeneratedAnswer]:
        """Answers of one batch."""
        started = time.perf_counter()
        keywords = options.keywords(self.processor.tokenizer, self.model.config.placeholder_token_ids)
        held = self._held(asked, options)
        if held is not None:
            keywords["logits_processor"] = LogitsProcessorList([*(keywords.get("logits_processor") or ()), held])
        if shared.prefix is None:
            features = self._features(asked[0].input_ids, shared)
            tell("tokens read", 0, len(asked[0].input_ids))
        else:
            prompts = [one.input_ids for one in asked]
            cache = options.cache_to_fill(max(map(len, prompts)), keywords)
            pad_token_id = self.processor.tokenizer.pad_token_id
            features = dict(
                shared.prefix.features(prompts, pad_token_id, cache, options.sequences).to(self.model.device)
            )
            keywords["use_cache"] = True
            if (pictures := asked[0].pictures) is not None:
                features |= self._seen_closely(features["image_grid_thw"], pictures)
        with torch.no_grad(), model_lock(self.model):
            output = self.model.generate(**features, return_dict_in_generate=True, output_logits=True, **keywords)
        length = features["input_ids"].shape[1]
        rows = list(generated_rows(self.model, self.processor.tokenizer, output, length, len(asked), options))
        seconds = (time.perf_counter() - started) / len(asked)
        for one, row in zip(asked, rows, strict=True):
            quotations = []
            if isinstance(held, DocumentQuoteProcessor):
                quotations = held.quotations(row.token_ids, prompt=one.input_ids)
            yield GeneratedAnswer(
                one.question,
                one.plan,
                row.token_ids,
                row.log_probabilities,
                row.finish_reason,
                {**one.seconds, "answer": seconds},
                options.grounding_in(one.plan.document),
                tuple(quotations),
            )

    def _seen_closely(self, grids: torch.Tensor, pictures: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """What `generate` takes for pictures behind pages that were read."""
        own = {name: value.to(self.model.device) for name, value in pictures.items()}
        embeddings = page_embeddings(self.model, own)
        return {
            "image_grid_thw": torch.cat((grids, own["image_grid_thw"])),
            "mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=embeddings)},
        }

    def _held(
        self, asked: list[AskedQuestion], options: GenerateOptions
    ) -> DocumentQuoteProcessor | DocumentStringProcessor | None:
        """What holds a batch to its document."""
        document, tokenizer = asked[0].plan.document, self.processor.tokenizer
        grounding = options.grounding_in(document)
        if grounding is None:
            return None
        return grounding.processor(document, [one.question for one in asked], tokenizer, options.end_tokens)


def _with_question(shared: _SharedPages, asked: list[AskedQuestion]) -> _SharedPages:
    """Of a question that was read already, that too; rows of a batch share the document only."""
    one, prefix = asked[0], shared.prefix
    if prefix is None or one.read is None or len(asked) > 1:
        return shared
    length = prefix.shared_length(one.input_ids)
    if not common_length([one.read.input_ids.numpy(), one.input_ids[length:]]):  # the passages stand before it
        return shared
    return replace(shared, prefix=prefix.extended(length, one.read))


def _pages_of(asked: AskedQuestion) -> tuple[int, float, int]:
    """Prompts of one document that agree in this show the same pages, and the same latents."""
    return asked.plan.num_pages, asked.plan.scale, len(asked.plan.latents)


def _unranked(policy: str | dict[str, Any] | TextPolicy) -> AttentionPolicy | None:
    """The policy, if the model has yet to say which passages it copies."""
    policy = resolve_text_policy(policy)
    return policy if isinstance(policy, AttentionPolicy) and policy.ranking is None else None


__all__ = ["AnsweringEngine", "AskedQuestion", "GeneratedAnswer"]
