# SPDX-License-Identifier: Apache-2.0
"""Parameters of `generate`: a call's own before the model's, checked before any model runs."""

from __future__ import annotations

import inspect
from typing import Any

from transformers.generation.utils import GenerationMixin

from ..caching.prefix import empty_cache
from ..grounding.grounded import Grounding
from ..modules.loading import base_model
from ..planning.knobs import whole_number
from ..planning.paged_document import PagedDocument
from .generate_parameters import GENERATION_FIELDS, check_generate_parameters

GENERATE_ARGUMENTS = GENERATION_FIELDS | {
    *("generation_config", "streamer", "logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn"),
    *("assistant_model", "assistant_tokenizer"),
}
"""What a call takes beside the context's own options; the rest of `generate`'s arguments is for experts."""


class GenerateOptions:
    """
    What `generate` is to do for each question.

    Args:
        model: whose generation config holds for what is not given.
        given: keyword arguments of `generate`.
        batch_size: questions that are answered at a time.
        grounding: how answers are held to the document, see [`Grounding.of`].
        grounding_is_default: nobody asked for it: where it cannot be (drafted tokens, a document without text), there is
            none.

    Raises:
        ValueError, TypeError: a value that makes no sense, or an argument that `generate` does not know.
    """

    def __init__(
        self,
        model: Any,
        given: dict[str, Any],
        batch_size: int = 1,
        grounding: str | dict[str, Any] | Grounding | None = None,
        grounding_is_default: bool = False,
    ) -> None:
        self._model = model
        self._given = given
        self.grounding = Grounding.of(grounding)
        self._grounding_is_default = grounding_is_default
        self.batch_size = whole_number("batch_size", batch_size, 1, "questions at a time")
        check_generate_parameters(given)
        known = GENERATION_FIELDS | inspect.signature(GenerationMixin.generate).parameters.keys()
        known |= inspect.signature(base_model(model).forward).parameters.keys() | {"tokenizer", "assistant_tokenizer"}
        if unknown := sorted(given.keys() - known):
            raise TypeError(f"generate does not know {', '.join(unknown)}: take it out of generate_kwargs")
        if given.get("streamer") is not None:
            for name, value in (("batch_size", self.batch_size), ("num_beams", self.get("num_beams") or 1)):
                if value > 1:
                    raise ValueError(f"streamer= shows one answer as it grows, so {name}={value} must be 1")
        if grounding_is_default and self.is_assisted:
            self.grounding = None
        if self.grounding is not None and self.is_assisted:
            raise ValueError(
                f"grounding={self.grounding.mode!r} holds each token as it is chosen, and drafted ones (assistant_model, "
                "prompt_lookup_num_tokens) are chosen several at a time: drop one of them"
            )

    def grounding_in(self, document: PagedDocument) -> Grounding | None:
        """How an answer about a document is held to it."""
        return None if self._grounding_is_default and not document.text.strip() else self.grounding

    def get(self, name: str) -> Any:
        """A parameter of the call, or else of the model."""
        if name in self._given:
            return self._given[name]
        config = self._given.get("generation_config")
        value = None if config is None else getattr(config, name)
        return getattr(self._model.generation_config, name) if value is None else value

    @property
    def sequences(self) -> int:
        """What `generate` makes of each prompt: beams, or sequences to return."""
        return max(self.get(name) or 1 for name in ("num_beams", "num_return_sequences"))

    @property
    def is_assisted(self) -> bool:
        """Whether tokens are drafted, by another model or from the prompt."""
        return bool(self._given.get("assistant_model") or self.get("prompt_lookup_num_tokens"))

    @property
    def end_tokens(self) -> list[int]:
        """Tokens that end an answer."""
        ends = self.get("eos_token_id")
        return [] if ends is None else [int(end) for end in (ends if hasattr(ends, "__iter__") else [ends])]

    @property
    def stop_strings(self) -> list[str]:
        """Strings that end an answer."""
        stops = self.get("stop_strings") or []
        return [stops] if isinstance(stops, str) else list(stops)

    @property
    def has_own_criteria(self) -> bool:
        """Whether the caller's own criteria end answers: where each row of a batch ended cannot be told then."""
        return bool(self._given.get("stopping_criteria"))

    def keywords(self, tokenizer: Any, placeholder_token_ids: list[int]) -> dict[str, Any]:
        """Keyword arguments of `generate`, beside the prompt's."""
        keywords = dict(self._given)
        if self.stop_strings:
            keywords.setdefault("tokenizer", tokenizer)
        if self.is_assisted and self.get("suppress_tokens") is None:
            # what is drafted is copied from the prompt, where a page's tokens are, too, and latents'
            keywords["suppress_tokens"] = list(placeholder_token_ids)
        return keywords

    def cache_to_fill(self, prompt_length: int, keywords: dict[str, Any]) -> Any:
        """The kind of cache that the caller wishes for, taken out of the keyword arguments; None: the usual one."""
        given = keywords.pop("past_key_values", None)
        implementation = self.get("cache_implementation")
        keywords["cache_implementation"] = None  # generate() takes a kind or a cache
        if given is not None:
            return given
        new_tokens = self.get("max_new_tokens") or 0
        max_length = max(prompt_length + new_tokens, self.get("max_length") or 0)
        return empty_cache(self._model.config, implementation, self.get("cache_config"), max_length)


__all__ = ["GENERATE_ARGUMENTS", "GenerateOptions"]
