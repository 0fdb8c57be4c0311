# SPDX-License-Identifier: Apache-2.0
"""What an engine in another process has to know to hold one answer to its document: plain data, there and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..grounding.grounded import Grounding
from ..grounding.quote_processor import DocumentQuoteProcessor
from ..grounding.span_index import DocumentIndex
from ..grounding.string_processor import DocumentStringProcessor

HELD_TO_DOCUMENT = "transformers_hybridctx.serving.vllm_grounding:HeldToDocument"
"""What vLLM is told in `logits_processors`."""
_KEY = "hybridctx_held"


@dataclass(frozen=True)
class HeldRequest:
    """
    An answer that is held to a document.

    Attributes:
        text: the document's.
        question: what is asked.
        grounding: how the answer is held.
        ends: ids of the tokens that end an answer; none: the tokenizer's own.
    """

    text: str
    question: str
    grounding: Grounding
    ends: tuple[int, ...] = ()

    @property
    def extra_args(self) -> dict[str, Any]:
        """For the field of this name of vLLM's `SamplingParams`."""
        how = {"mode": self.grounding.mode}
        if self.grounding.mode == "quote":
            how |= asdict(self.grounding.form)
        return {_KEY: {"text": self.text, "question": self.question, "grounding": how, "ends": list(self.ends)}}

    @classmethod
    def of(cls, extra_args: Mapping[str, Any] | None) -> HeldRequest | None:
        """
        What [`HeldRequest.extra_args`] has; None where a request is not held.

        Raises:
            ValueError: something else under its name.
        """
        given = (extra_args or {}).get(_KEY)
        match given:
            case None:
                return None
            case {"text": str(text), "question": str(question), "grounding": dict(how), "ends": list(ends)}:
                if text.strip() and all(isinstance(end, int) for end in ends):
                    try:
                        grounding = Grounding.of(how)
                    except TypeError as error:
                        raise ValueError(str(error)) from error
                    assert grounding is not None
                    return cls(text, question, grounding, tuple(ends))
        raise ValueError(f"extra_args[{_KEY!r}]={given!r:.200} is not what HeldRequest(...).extra_args gives")

    def processor(self, index: DocumentIndex, tokenizer: Any) -> DocumentQuoteProcessor | DocumentStringProcessor:
        """What holds the answer, token by token; `index` is of [`HeldRequest.text`]."""
        return self.grounding.processor_of(index, [self.question], tokenizer, self.ends)


__all__ = ["HELD_TO_DOCUMENT", "HeldRequest"]
