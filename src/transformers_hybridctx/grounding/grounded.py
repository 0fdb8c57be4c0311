# SPDX-License-Identifier: Apache-2.0
"""What answers are held to, as a caller says it; a document's index and checker, made once for each document."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from threading import RLock
from typing import Any, Literal, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from ..planning.paged_document import PagedDocument
from .generated_rows import end_tokens
from .quote_processor import DocumentQuoteProcessor
from .quoting import QuoteForm
from .span_index import DocumentIndex
from .string_processor import DocumentStringProcessor
from .support import SupportChecker
from .token_pieces import pieces_of

GROUNDINGS = ("quote", "strings")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Grounding:
    """
    How a model's words are held to the document.

    Attributes:
        mode: `"quote"`: the quotation is a span of the document, and the answer one of the quotation
            ([`DocumentQuoteProcessor`]); `"strings"`: codes, numbers and identifiers that have begun like one of the
            document's go on as one of these ([`DocumentStringProcessor`]).
        form: of an answer that quotes; `<think>quotation</think>answer` unless given.
    """

    mode: Literal["quote", "strings"]
    form: QuoteForm = field(default_factory=QuoteForm.of)

    @classmethod
    def of(
        cls, given: str | dict[str, Any] | Grounding | None, default: str | dict[str, Any] | None = None
    ) -> Grounding | None:
        """
        `"quote"`, `"strings"`, None or `"none"`, or a dict: `mode` (`"quote"` unless given), and what [`QuoteForm.of`]
        takes.

        Args:
            default: the checkpoint's own choice. The word `"quote"` alone is the form in which it quotes, if it does.

        Raises:
            ValueError, TypeError: anything else.
        """
        if given is None or isinstance(given, Grounding):
            return given
        if given == "quote" and (own := cls.of(default)) is not None and own.mode == given:
            return own
        if given == "none":
            return None
        if not isinstance(given, (str, dict)):
            raise TypeError(
                f"grounding= is 'quote', 'strings', a dict or None, not {type(given).__name__}: {given!r:.80}"
            )
        form: dict[str, Any] = {"mode": given} if isinstance(given, str) else {"mode": "quote", **given}
        mode = form.pop("mode")
        if mode not in GROUNDINGS:
            raise ValueError(
                f"grounding={mode!r:.80} is not one of {', '.join(map(repr, GROUNDINGS))}, 'none' and None"
            )
        known = [one.name for one in fields(QuoteForm)]
        if unknown := sorted(form.keys() - set(known)):
            raise ValueError(f"grounding= does not know {', '.join(unknown)}: it has mode, {', '.join(known)}")
        if mode == "strings" and form:
            raise ValueError(f"grounding={given!r:.200}: {', '.join(form)} are of mode 'quote'; leave them out")
        return cls(mode, QuoteForm.of(**form))

    def check(self, document: PagedDocument, tokenizer: Any, ends: Iterable[int]) -> None:
        """Raises `ValueError` where [`Grounding.processor`] will, without its work."""
        if not document.text.strip():
            raise ValueError(
                f"grounding={self.mode!r} holds answers to the document's text, and this document has none: page "
                "pictures need text recognition first; leave grounding out, or give the text (text=)"
            )
        pieces_of(tokenizer)
        end_tokens(tokenizer, tuple(ends) or None)

    def processor(
        self, document: PagedDocument, questions: Sequence[str], tokenizer: Any, ends: Iterable[int]
    ) -> DocumentQuoteProcessor | DocumentStringProcessor:
        """
        What holds a batch of questions about one document.

        Args:
            ends: ids of the tokens that end an answer; none: the tokenizer's own.

        Raises:
            ValueError: a document without text.
        """
        return self.processor_of(document_index(document), questions, tokenizer, ends)

    def processor_of(
        self, index: DocumentIndex, questions: Sequence[str], tokenizer: Any, ends: Iterable[int]
    ) -> DocumentQuoteProcessor | DocumentStringProcessor:
        """The same of a document's index alone."""
        eos_token_id = tuple(ends) or None
        if self.mode == "strings":
            indexes = [index] * len(questions)
            return DocumentStringProcessor(indexes, tokenizer, question=questions, eos_token_id=eos_token_id)
        form = {one.name: getattr(self.form, one.name) for one in fields(QuoteForm)}
        return DocumentQuoteProcessor(index, tokenizer, eos_token_id=eos_token_id, **form)


@dataclass(eq=False)
class _Known:
    """What was made of one document."""

    order: np.ndarray | None = None
    index: DocumentIndex | None = None
    checker: SupportChecker | None = None
    lock: RLock = field(default_factory=RLock)


_DOCUMENTS: WeakKeyDictionary[PagedDocument, _Known] = WeakKeyDictionary()
_LOCK = RLock()


def document_index(document: PagedDocument) -> DocumentIndex:
    """
    The index of a document's text: made once, and kept as long as the document.

    Raises:
        ValueError: a document without text.
    """
    return _made(document, "index", lambda known: DocumentIndex(document.text, known.order))


def keep_order(document: PagedDocument, order: np.ndarray) -> None:
    """Half of a document's index ([`DocumentIndex.order`]), as a file has kept it: it need not be made again."""
    _known(document).order = order


def support_checker(document: PagedDocument) -> SupportChecker:
    """
    What tells how answers stand to a document: made once, and kept as long as the document.

    Raises:
        ValueError: a document without text.
    """
    return _made(document, "checker", lambda known: SupportChecker(document_index(document)))


def _known(document: PagedDocument) -> _Known:
    with _LOCK:
        return _DOCUMENTS.setdefault(document, _Known())


def _made(document: PagedDocument, name: str, make: Callable[[_Known], Made]) -> Made:
    known = _known(document)
    with known.lock:
        if getattr(known, name) is None:
            setattr(known, name, make(known))
        made: Made = getattr(known, name)
        return made


__all__ = ["GROUNDINGS", "Grounding", "document_index", "keep_order", "support_checker"]
