# SPDX-License-Identifier: Apache-2.0
"""Answers held to their documents in vLLM, request by request. Imported by vLLM alone, in the process of its model.

https://docs.vllm.ai/en/latest/features/custom_logitsprocs
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from cachetools import LRUCache
from transformers import AutoTokenizer
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

from ..grounding.generated_rows import PROMPT_END, restricted
from ..grounding.quote_processor import DocumentQuoteProcessor
from ..grounding.span_index import DocumentIndex
from ..grounding.string_processor import DocumentStringProcessor
from .held_requests import HeldRequest

_KEPT_CHARACTERS = 20_000_000
"""Of documents that are kept for the next question, with what holds the answers about them."""
_KEPT_REQUESTS = 4096
"""
What holds a request is kept, of so many about one document: a request that the engine puts off comes back, and what was
given up in it stays so.
"""


class _Document:
    """A document's index, and what holds answers to it, by request and prompt."""

    def __init__(self, text: str) -> None:
        self.index = DocumentIndex(text)
        self.processors: LRUCache[tuple[HeldRequest, bytes], Any] = LRUCache(_KEPT_REQUESTS)


class HeldToDocument(AdapterLogitsProcessor):
    """
    Holds the answers of requests whose `SamplingParams(extra_args=...)` are those of a [`HeldRequest`], and no others.

    vLLM takes it by name: `LLM(..., logits_processors=["transformers_hybridctx.serving.vllm_grounding:HeldToDocument"])`.
    Which tokens it lets through is worked out by what `generate` is held with in transformers.
    """

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        super().__init__(vllm_config, device, is_pin_memory)
        config = vllm_config.model_config
        self._tokenizer = AutoTokenizer.from_pretrained(
            config.tokenizer, revision=config.tokenizer_revision, trust_remote_code=config.trust_remote_code
        )
        self._documents: LRUCache[bytes, _Document] = LRUCache(
            _KEPT_CHARACTERS, getsizeof=lambda document: len(document.index.folded.raw)
        )

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Raises `ValueError` for what is no [`HeldRequest`]."""
        HeldRequest.of(sampling_params.extra_args)

    def is_argmax_invariant(self) -> bool:
        """False: what is likeliest may not be allowed."""
        return False

    def new_req_logits_processor(
        self, params: SamplingParams
    ) -> Callable[[list[int], list[int], torch.Tensor], torch.Tensor] | None:
        """What takes a request's prompt, what it has said, and scores `[vocabulary]`; None where it is not held."""
        request = HeldRequest.of(params.extra_args)
        if request is None:
            return None
        processor: Any = None

        def hold(prompt: list[int], said: list[int], scores: torch.Tensor) -> torch.Tensor:
            nonlocal processor
            if processor is None:
                processor = self._processor(request, prompt)
            return restricted(scores[None], [processor.mask(0, prompt[-PROMPT_END:], tuple(said), scores)])[0]

        return hold

    def _processor(self, request: HeldRequest, prompt: list[int]) -> DocumentQuoteProcessor | DocumentStringProcessor:
        """What holds this prompt's answers: others may end alike, and what is given up in one is not in another."""
        document = self._document(request.text)
        # each request brings a text of its own, which is not to be kept with it
        key = replace(request, text=""), sha256(np.asarray(prompt, dtype=np.int64).tobytes()).digest()
        processor = document.processors.get(key)
        if processor is None:
            processor = document.processors[key] = request.processor(document.index, self._tokenizer)
        return processor

    def _document(self, text: str) -> _Document:
        digest = sha256(text.encode("utf-8", "surrogatepass")).digest()
        document: _Document | None = self._documents.get(digest)
        if document is None:
            document = _Document(text)
            if len(text) <= _KEPT_CHARACTERS:
                self._documents[digest] = document
        return document


__all__ = ["HeldToDocument"]
