# SPDX-License-Identifier: Apache-2.0
"""`DocumentStringProcessor`: free text whose codes, numbers and identifiers are the document's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from transformers import LogitsProcessor

from .exact_strings import ExactStrings, StringState, exact_strings
from .folding import fold
from .generated_rows import GeneratedRows, KeptStates, Mask, end_tokens, restricted
from .span_index import DocumentIndex, documents_of
from .token_pieces import TokenPieces, pieces_of


class DocumentStringProcessor(LogitsProcessor):
    """
    Holds codes, numbers and identifiers in free answers to a document, as `generate`'s `logits_processor=[processor]`.

    Words flow freely. A word is exact from its first digit, underscore or at sign on ([`EXACT_CHARACTER`]); if what is
    said of it begins a word of the document or of the question, it goes on as one of these, to its end. So a sum or a
    count that the model works out is held, too: leave the processor out where values are computed.

    Args:
        text (`str`, [`DocumentIndex`] or a list of these): the document; a list: one for each prompt of the batch.
        tokenizer: the model's.
        question (`str` or list of `str`): what is asked; its strings may be said, too.
        eos_token_id: the tokens that end an answer; the tokenizer's own unless given.

    Raises:
        ValueError: no token that ends an answer, or another number of questions than of documents.
    """

    def __init__(
        self,
        text: str | DocumentIndex | Sequence[str | DocumentIndex],
        tokenizer: Any,
        *,
        question: str | Sequence[str] = "",
        eos_token_id: int | Iterable[int] | None = None,
    ) -> None:
        documents = documents_of(text)
        questions = [question] * len(documents) if isinstance(question, str) else list(question)
        if len(questions) != len(documents):
            raise ValueError(f"{len(questions)} questions for {len(documents)} documents: give one for each")
        self._pieces = pieces_of(tokenizer)
        self._ends = end_tokens(tokenizer, eos_token_id)
        self._strings = [_strings_of(document, asked, self._pieces) for document, asked in zip(documents, questions)]
        self._rows = GeneratedRows()
        self._states: KeptStates[StringState] = KeptStates()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Takes `input_ids` `[rows, sequence]`, `scores` `[rows, vocabulary]`; returns scores, -inf where not allowed."""
        rows = self._rows.split(input_ids, len(self._strings))
        return restricted(scores, [self.mask(*one, row) for one, row in zip(rows, scores, strict=True)])

    def mask(self, document: int, prompt: Sequence[int], said: tuple[int, ...], scores: torch.Tensor) -> Mask:
        """Which tokens may come next; arguments as in [`DocumentQuoteProcessor.mask`]."""
        size = len(scores)
        closing = np.zeros(size, bool)
        closing[list(self._ends)] = True
        state = self._states.after((document,), said, StringState, partial(self._advance, document))
        allowed = self._strings[document].allowed(state)
        whole = np.zeros(size, bool)
        whole[: len(allowed)] = allowed[:size]
        return (whole if whole.any() else closing), lambda: closing

    def _advance(self, document: int, state: StringState, token: int) -> StringState:
        raw = self._pieces.raw[token] if token < len(self._pieces) else None
        return self._strings[document].advance(state, raw)


_known_strings: WeakKeyDictionary[DocumentIndex, frozenset[str]] = WeakKeyDictionary()
_known: WeakKeyDictionary[DocumentIndex, ExactStrings] = WeakKeyDictionary()


def _strings_of(document: str | DocumentIndex, question: str, pieces: TokenPieces) -> ExactStrings:
    """A document's and a question's; the document's, and the last question's, are kept with an index."""
    asked = exact_strings(fold(question).text)
    if not isinstance(document, DocumentIndex):
        return ExactStrings(exact_strings(fold(document).text) | asked, pieces)
    strings = _known_strings.get(document)
    if strings is None:
        strings = _known_strings[document] = frozenset(exact_strings(document.folded.text))
    strings |= asked
    known = _known.get(document)
    if known is None or known.pieces is not pieces or known.strings != strings:
        known = _known[document] = ExactStrings(strings, pieces)
    return known


__all__ = ["DocumentStringProcessor"]
