# SPDX-License-Identifier: Apache-2.0
"""`DocumentQuoteProcessor`: generation with any model of transformers, its quotations held to a document."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from transformers import LogitsProcessor

from .generated_rows import GeneratedRows, KeptStates, Mask, end_tokens, restricted
from .matching import IndexMatcher, document_matcher
from .quoting import QuoteForm, QuoteGrammar, QuoteState
from .span_index import BoundIndex, DocumentIndex, SpanIndex, as_index, documents_of
from .token_pieces import pieces_of

GIVEN_UP_BELOW = 0.001
"""A later quotation for which a model has no more probability than this is given up, see [`DocumentQuoteProcessor`]."""
_KEPT = 2048


@dataclass(frozen=True)
class Quotation:
    """
    What an answer quotes.

    Attributes:
        text: as the document has it, at its first place.
        places: characters [start, end) of the document, of all its occurrences, in order.
        tokens: tokens [start, end) of what was generated.
        is_answer: whether it is the answer that was taken from quotations, rather than one of these.
        is_complete: whether it came to its end, which is a word's; False where generation was cut off.
    """

    text: str
    places: tuple[tuple[int, int], ...]
    tokens: tuple[int, int]
    is_answer: bool
    is_complete: bool


class DocumentQuoteProcessor(LogitsProcessor):
    """
    Holds quotations to a document, token by token: `model.generate(..., logits_processor=[processor])`.

    A quotation is a span of the document that begins and ends at word borders, whatever the model does; the answer after
    it is a span of the quotation. White space, hyphens at line breaks, ligatures, typographic quotation marks and Unicode
    forms need not be said as the document has them ([`fold`]); what [`DocumentQuoteProcessor.quotations`] returns has
    them.

    ```python
    >>> processor = DocumentQuoteProcessor(text, tokenizer)  # <think>quotation</think>answer
    >>> output = model.generate(**inputs, logits_processor=[processor])
    >>> processor.quotations(output[0, inputs["input_ids"].shape[1]:])
    [Quotation(text='Iceland - Coastline: 4,970 km', places=((71260, 71292),), ...), ...]
    ```

    Args:
        text (`str`, [`DocumentIndex`] or a list of these): the document; a list: one for each prompt of the batch. An
            index is made once for a document, for any number of processors.
        tokenizer: the model's; its tokens may be parts of characters, of words or whole.
        begin, end: the marks around a quotation, one token or several each. No `begin`: the quotation starts the answer;
            no `end`: it ends it. `begin="Answer:", end=None` holds what follows a marker.
        answer: what follows `end`: `"span"`, a span of a quotation, or `"free"`, anything, further quotations among it.
        free_start: whether anything may be said before `begin`; unless given, where there is no `end` or the answer is
            free. A prompt that ends with `begin` has begun the quotation.
        max_quotations: spans between one pair of marks, each on a line of its own. Another one is given up where several
            places go on with it, and the model has, for all that goes on there, a probability below `GIVEN_UP_BELOW`: it
            wishes to say what is not there, or what was quoted already. A line break and the closing mark then take the
            unfinished line back.
        eos_token_id: the tokens that end an answer, all that the model's generation config has; the tokenizer's own
            unless given.

    Raises:
        ValueError: a document without text, no token that ends an answer, arguments that do not go together.
        TypeError: something that is no document, no tokenizer or no token's id.
    """

    def __init__(
        self,
        text: str | DocumentIndex | Sequence[str | DocumentIndex],
        tokenizer: Any,
        *,
        begin: str | None = "<think>",
        end: str | None = "</think>",
        answer: Literal["span", "free"] = "span",
        free_start: bool | None = None,
        max_quotations: int = 1,
        eos_token_id: int | Iterable[int] | None = None,
    ) -> None:
        self._form = QuoteForm.of(begin, end, answer, free_start, max_quotations)
        documents = documents_of(text)
        self._pieces = pieces_of(tokenizer)
        self.indexes = [as_index(document) for document in documents]
        self._mark_tokens = tokenizer.added_tokens_encoder.get(begin), tokenizer.added_tokens_encoder.get(end)
        self._check_marks()
        ends = end_tokens(tokenizer, eos_token_id)
        self._grammars = [
            QuoteGrammar(
                document_matcher(index, self._pieces),
                self._matcher_of,
                self._pieces,
                self._form,
                self._mark_tokens,
                ends,
            )
            for index in self.indexes
        ]
        self._rows = GeneratedRows()
        self._states: KeptStates[QuoteState] = KeptStates()
        self._given_up: dict[tuple[int, tuple[int, ...], tuple[int, ...]], None] = {}

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Takes `input_ids` `[rows, sequence]`, `scores` `[rows, vocabulary]`; returns scores, -inf where not allowed."""
        rows = self._rows.split(input_ids, len(self.indexes))
        return restricted(scores, [self.mask(*one, row) for one, row in zip(rows, scores, strict=True)])

    def mask(self, document: int, prompt: Sequence[int], said: tuple[int, ...], scores: torch.Tensor) -> Mask:
        """
        Which tokens may come next.

        Args:
            document: which one of several documents.
            prompt: the prompt's last tokens.
            said: what was generated after it.
            scores: of the next token, `[vocabulary]`, before anything is ruled out here.
        """
        state, grammar, size = (
            self._state(document, self._is_begun(prompt), said),
            self._grammars[document],
            len(scores),
        )
        allowed = grammar.allowed(state, size)
        if self._is_given_up(state, document, prompt, said):
            allowed = grammar.closing(state, size)
        elif allowed is not None:
            others = grammar.giving_up(state, size)
            if others is not None and others.any() and _probability(scores, allowed) < GIVEN_UP_BELOW:
                self._note_given_up(document, prompt, said)
                allowed = others
        return allowed, partial(grammar.closing, state, size)

    def _note_given_up(self, document: int, prompt: Sequence[int], said: tuple[int, ...]) -> None:
        self._given_up[document, tuple(prompt), said] = None
        while len(self._given_up) > _KEPT:
            self._given_up.pop(next(iter(self._given_up)))

    def _is_given_up(self, state: QuoteState, document: int, prompt: Sequence[int], said: tuple[int, ...]) -> bool:
        """Whether the line before was given up, and the mark that closes the quotations is not whole yet."""
        has_begun = state.cursor is not None and bool(state.cursor.spoken) and not state.marked
        if not self._given_up or state.phase != "quote" or has_begun:
            return False
        prompt, longest = tuple(prompt), 1 + len((self._form.end or "").encode())
        lengths = range(max(0, len(said) - longest), len(said))
        return any((document, prompt, said[:length]) in self._given_up for length in lengths)

    def quotations(
        self, tokens: Sequence[int] | torch.Tensor, document: int = 0, prompt: Sequence[int] = ()
    ) -> list[Quotation]:
        """
        What an answer quotes, and the answer that it takes from it, in order.

        Args:
            tokens: what was generated, without the prompt.
            document: which one of several documents.
            prompt: the prompt's tokens, or its last ones, where it may have begun the quotation.

        Raises:
            ValueError: tokens of several answers, or a document that there is not.
        """
        said = torch.as_tensor(tokens)
        if said.ndim != 1:
            raise ValueError(
                f"tokens has the shape {list(said.shape)}, and is one answer's: output[0, inputs['input_ids'].shape[1]:]"
            )
        if not 0 <= document < len(self.indexes):
            raise ValueError(f"document={document} is not one of the {len(self.indexes)}, which count from 0")
        grammar, index = self._grammars[document], self.indexes[document]
        state = self._state(document, self._is_begun(prompt), tuple(said.tolist()))
        found = []
        for one in grammar.finish(state).said:
            places = dict.fromkeys(index.raw_span(*place) for place in grammar.places(one))
            start, end = next(iter(places))
            text = index.folded.raw[start:end]
            found.append(Quotation(text, tuple(places), (one.start, one.end), bool(one.quotes), one.is_complete))
        return found

    def _check_marks(self) -> None:
        """ValueError for a mark that an answer needs and the tokenizer has no tokens for."""
        needed = {"begin": None if self._form.free_start else self._form.begin, "end": self._form.end}
        for (name, mark), token in zip(needed.items(), self._mark_tokens, strict=True):
            if mark and token is None and not self._pieces.can_say(mark.encode()):
                raise ValueError(
                    f"{name}={mark!r:.80} cannot be said in this tokenizer's tokens: add it to the tokenizer as one, "
                    "take other marks, or begin=None and end=None for whole answers"
                )

    def _matcher_of(self, quoted: str) -> IndexMatcher:
        return IndexMatcher(BoundIndex(SpanIndex.of_text(quoted), self._pieces))

    def _state(self, document: int, is_begun: bool, said: tuple[int, ...]) -> QuoteState:
        grammar = self._grammars[document]
        return self._states.after((document, is_begun), said, lambda: grammar.start(is_begun), grammar.advance)

    def _is_begun(self, prompt: Sequence[int]) -> bool:
        """Whether a prompt ends with the mark that begins a quotation, and perhaps white space."""
        if not self._form.begin:
            return True
        mark, said = self._form.begin.encode(), b""
        for token in reversed(prompt):
            if not said.strip() and token == self._mark_tokens[0]:
                return True
            raw = self._pieces.raw[token] if token < len(self._pieces) else None
            said = (raw or b"") + said
            if raw is None or len(said.strip()) >= len(mark):
                break
        return self._mark_tokens[0] is None and said.rstrip().endswith(mark)


def _probability(scores: torch.Tensor, allowed: np.ndarray) -> float:
    """Of the allowed tokens (bool `[vocabulary]`) together, by scores `[vocabulary]` before anything holds them."""
    tokens = torch.from_numpy(np.flatnonzero(allowed)).to(scores.device)
    return float((scores[tokens].float().logsumexp(0) - scores.float().logsumexp(0)).exp())


__all__ = ["GIVEN_UP_BELOW", "DocumentQuoteProcessor", "Quotation"]
