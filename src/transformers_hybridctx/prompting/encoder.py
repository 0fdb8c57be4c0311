# SPDX-License-Identifier: Apache-2.0
"""Token ids of what users write: text stays text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from ..planning.plan import encodable
from ..planning.span_tokens import SpanMemory

# Characters of the pieces that a long text is tokenised in, side by side.
_PIECE = 1 << 16
# Characters on either side of a seam that must tokenise alike apart and together.
_SEAM = 48


class PlainEncoder:
    """Token ids of text as text: no special token and no other added token is ever recognised in it.

    `memory`: what is known of documents' spans in these ids.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._added = frozenset(tokenizer.added_tokens_decoder)
        self._plain = _without_added_tokens(getattr(tokenizer, "backend_tokenizer", None))
        self.count = lru_cache(maxsize=4)(self._count)
        self.memory = SpanMemory()

    def __deepcopy__(self, memo: dict[int, Any]) -> PlainEncoder:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._tokenizer,)

    def encodes_with(self, tokenizer: PreTrainedTokenizerBase) -> bool:
        """Whether this is the encoder of a tokenizer."""
        return self._tokenizer is tokenizer

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
        cuts, newline = [0], -1
        for seam in range(_PIECE, len(text), _PIECE):
            if seam <= newline:
                continue  # the newline after this seam is the one found last
            if (newline := text.find("\n", seam)) < 0:
                break
            if newline + 1 < len(text) and not text[newline + 1].isspace():
                cuts.append(newline + 1)
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
