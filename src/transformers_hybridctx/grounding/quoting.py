# SPDX-License-Identifier: Apache-2.0
"""The form of an answer that quotes: what may precede a quotation, its marks and lines, the answer from it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from types import NoneType
from typing import Literal, NamedTuple

import numpy as np

from ..planning.knobs import whole_number
from .matching import Cursor, Matcher
from .token_pieces import TokenPieces

_ANNOUNCING = (b":", b"=", "：".encode())
"""What no quotation ends with while the text goes on: the value comes behind it."""
_KEY = re.compile(rb".*?(?:[:=](?=\s)|" + "：".encode() + rb")", re.DOTALL)
"""What announces a value, as in "key: value"; not the colon of an address."""
_FEW_PLACES = 64
"""A quotation that stands at more places than these says nothing of where; it may be said again."""


@dataclass(frozen=True)
class QuoteForm:
    """
    Which part of an answer is a quotation.

    Attributes:
        begin, end: the marks around it; no `begin`: from the answer's first token; no `end`: to its last.
        answer: what follows `end`: `"span"`, a span of a quotation, or spans of several of them, parted by commas; or
            `"free"`, anything, more quotations among it.
        free_start: whether anything may be said before `begin`.
        max_quotations: quotations in one pair of marks, each on a line of its own and of a place of its own.
    """

    begin: str | None
    end: str | None
    answer: Literal["span", "free"]
    free_start: bool
    max_quotations: int

    def __post_init__(self) -> None:
        for name in ("begin", "end"):
            if not isinstance(getattr(self, name), (str, NoneType)):
                raise TypeError(f"{name}={getattr(self, name)!r:.80} is no string: a mark is text, or None")
        if self.answer not in ("span", "free"):
            raise ValueError(f"answer={self.answer!r} is not one of 'span' and 'free'")
        if self.end is not None and not self.begin:
            raise ValueError(
                f"end={self.end!r} without begin: give both marks, or begin=None and end=None for whole answers"
            )
        whole_number("max_quotations", self.max_quotations, 1, "spans between one pair of marks")

    @classmethod
    def of(
        cls,
        begin: str | None = "<think>",
        end: str | None = "</think>",
        answer: Literal["span", "free"] = "span",
        free_start: bool | None = None,
        max_quotations: int = 1,
    ) -> QuoteForm:
        """The form with what is not given filled in: a free start where there is no `end` or the answer is free."""
        free = end is None or answer == "free" if free_start is None else free_start
        return cls(begin or None, end, answer, free, max_quotations)


class Said(NamedTuple):
    """
    A quotation, or the answer after quotations, as it was said.

    Attributes:
        start, end: tokens [start, end) of what was generated.
        cursor: where it stands in the document, or in `quotes`.
        quotes: of an answer, the quotations that it is taken from; of a quotation, none.
        is_complete: whether it came to its end, and a word's.
    """

    start: int
    end: int
    cursor: Cursor
    quotes: tuple[Cursor, ...]
    is_complete: bool


@dataclass(frozen=True)
class QuoteState:
    """
    How far an answer has come.

    Attributes:
        phase: before a quotation, in the mark that opens it, in it, in the answer after it, or behind all.
        length: tokens that were said.
        start: the token at which the quotation or the answer began.
        cursor: what is being quoted or answered; None where only the mark that has begun can go on.
        marked: bytes of the mark that are said, in several tokens; `unmarked`: the cursor, and the tokens, before these.
        tail: before a quotation, the end of what was said, in which the opening mark may have begun.
        quotes: the quotations since the opening mark.
        left: of an answer, the quotations that its next span may be of.
        said: all quotations and answers that have ended.
    """

    phase: Literal["before", "opening", "quote", "answer", "done"]
    length: int = 0
    start: int = 0
    cursor: Cursor | None = None
    marked: int = 0
    unmarked: tuple[Cursor, int] | None = None
    tail: bytes = b""
    quotes: tuple[Cursor, ...] = ()
    left: tuple[Cursor, ...] = ()
    said: tuple[Said, ...] = ()

    @property
    def is_later(self) -> bool:
        """Whether what has begun is not the first: another quotation, or an answer's span of another one."""
        return bool(self.quotes) and (self.phase == "quote" or len(self.left) < len(self.quotes))


class QuoteGrammar:
    """
    Takes an answer's tokens one by one and says which may come next.

    Args:
        document: matches the document's spans.
        matcher_of: makes a matcher of a folded text, for answers that are spans of quotations.
        pieces: the vocabulary.
        form: see [`QuoteForm`].
        mark_tokens: the one token that is the mark, for `form.begin` and `form.end`; None where it is said in several.
        ends: ids of the tokens that end an answer.
    """

    def __init__(
        self,
        document: Matcher,
        matcher_of: Callable[[str], Matcher],
        pieces: TokenPieces,
        form: QuoteForm,
        mark_tokens: tuple[int | None, int | None],
        ends: tuple[int, ...],
    ) -> None:
        self._document = document
        self._answer_matcher = lru_cache(maxsize=64)(lambda quotes: matcher_of(answer_source(quotes)))
        self._pieces = pieces
        self._form = form
        self._ends = ends
        self._begin, self._end = ((mark or "").encode() for mark in (form.begin, form.end))
        self._begin_token, self._end_token = mark_tokens

    def start(self, begun: bool) -> QuoteState:
        """The state before an answer's first token; `begun`: the prompt ends with the mark that opens a quotation."""
        if begun or not self._begin:
            return QuoteState("quote", cursor=self._document.start())
        return QuoteState("before" if self._form.free_start else "opening")

    def matcher(self, state: QuoteState) -> Matcher:
        """Of what is being quoted, or answered."""
        return self._answer_matcher(state.left) if state.phase == "answer" else self._document

    def places(self, said: Said) -> list[tuple[int, int]]:
        """Bytes [start, end) of the folded document that a quotation or an answer may stand for, in order."""
        if not said.quotes:
            return self._document.places(said.cursor, said.is_complete)
        found = set()
        for quote, start, end in self._sources(said.quotes, said.cursor, said.is_complete):
            # a quotation that was closed against the rules ends at none of its places
            places = self._document.places(quote) or self._document.places(quote, may_end=False)
            found |= {(place + start, place + end) for place, _ in places}
        return sorted(found)

    def _sources(self, quotes: tuple[Cursor, ...], cursor: Cursor, may_end: bool) -> Iterator[tuple[Cursor, int, int]]:
        """The quotations that a span of an answer may be of, and its bytes [start, end) in each."""
        for start, end in self._answer_matcher(quotes).places(cursor, may_end):
            offset = 0
            for quote in quotes:
                size = len(whole_characters(quote.spoken))
                if offset <= start and end <= offset + size:
                    yield quote, start - offset, end - offset
                offset += size + 1

    # What may come next

    def allowed(self, state: QuoteState, size: int) -> np.ndarray | None:
        """Tokens that may come next, bool `[size]`; None: any. If nothing goes on, what ends the answer may come."""
        if state.phase == "done":
            return None
        if state.phase == "before":
            forbidden = self._beyond_mark(state.tail)
            allowed = np.ones(size, bool)
            allowed[forbidden] = False
            return allowed if forbidden else None
        allowed = np.zeros(size, bool)
        if state.phase == "opening":
            self._allow_mark(allowed, self._begin[state.marked :], self._begin_token)
        elif state.cursor is not None:
            self._allow_span(allowed, state, state.cursor)
        if state.phase == "quote" and state.marked:
            self._allow_mark(allowed, self._end[state.marked :], self._end_token)
        return allowed if allowed.any() else self.closing(state, size)

    def closing(self, state: QuoteState, size: int) -> np.ndarray:
        """The tokens that end what cannot go on, bool `[size]`."""
        allowed = np.zeros(size, bool)
        if state.phase == "opening":
            self._allow_mark(allowed, self._begin[state.marked :], self._begin_token)
        elif state.phase == "quote" and self._end:
            self._allow_mark(allowed, self._end[state.marked :], self._end_token)
        if not allowed.any():
            allowed[list(self._ends)] = True
        return allowed

    def giving_up(self, state: QuoteState, size: int) -> np.ndarray | None:
        """
        The tokens that give up a later quotation, bool `[size]`; None where it stands at one place, which was chosen, or
        begins with an earlier one's key, which other values follow elsewhere. An empty line and the closing mark take the
        line before back; an answer's span, which nothing does, is not begun.
        """
        cursor = state.cursor
        if not state.is_later or cursor is None or bool(cursor.spoken) != (state.phase == "quote"):
            return None
        if self.matcher(state).count(cursor) < 2 or _repeats_key(state, cursor):
            return None
        if state.phase == "answer":
            return self.closing(state, size)
        return np.resize(np.append(self._is_line_break, np.zeros(size, bool)), size)

    def _allow_span(self, allowed: np.ndarray, state: QuoteState, cursor: Cursor) -> None:
        matcher = self.matcher(state)
        tokens = matcher.allowed(cursor)[: len(allowed)]
        allowed[: len(tokens)] = tokens & ~self._breaks_line[: len(tokens)] if self._has_lines(state) else tokens
        taken = self._taken(state)
        for token in matcher.tokens_at(cursor, sorted(taken)) if taken else ():
            after = matcher.extend(cursor, token)
            if after is not None and token < len(allowed) and self._is_taken(after, taken, may_end=False):
                allowed[token] = False
        goes_on = cursor.spoken.endswith(_ANNOUNCING) and bool(tokens.any())
        if matcher.may_end(cursor) and not goes_on and not self._is_taken(cursor, taken, may_end=True):
            if state.phase == "answer" or not self._end:
                allowed[list(self._ends)] = True
            else:
                self._allow_mark(allowed, self._end, self._end_token)
            if self._may_add(state):
                allowed[: len(tokens)] |= self._is_line_break[: len(tokens)]
            if state.phase == "answer" and len(state.left) > 1:
                allowed[: len(tokens)] |= self._is_comma[: len(tokens)]

    def _taken(self, state: QuoteState) -> frozenset[int]:
        """Bytes of the document that were quoted since the opening mark: another quotation begins at none of them."""
        if not self._has_lines(state):
            return frozenset()
        rare = (quote for quote in state.quotes if self._document.count(quote) <= _FEW_PLACES)
        places = (place for quote in rare for place in self._document.places(quote, may_end=False))
        return frozenset(byte for start, end in places for byte in range(start, end))

    def _is_taken(self, cursor: Cursor, taken: frozenset[int], may_end: bool) -> bool:
        """Whether a span begins at taken places alone."""
        if not taken or self._document.count(cursor) > len(taken):
            return False
        return all(start in taken for start, _ in self._document.places(cursor, may_end))

    def _allow_mark(self, allowed: np.ndarray, rest: bytes, token: int | None) -> None:
        allowed[self._pieces.tokens_towards(rest) if token is None else token] = True

    def _beyond_mark(self, tail: bytes) -> list[int]:
        """Tokens in which the opening mark would end, and what is quoted begin."""
        if self._begin_token is not None:
            return []
        sizes = [size for size in range(len(self._begin)) if tail.endswith(self._begin[:size])]
        return [token for size in sizes for token in self._pieces.tokens_beyond(self._begin[size:])]

    def _has_lines(self, state: QuoteState) -> bool:
        return state.phase == "quote" and self._form.max_quotations > 1

    def _may_add(self, state: QuoteState) -> bool:
        return self._has_lines(state) and len(state.quotes) + 1 < self._form.max_quotations

    @cached_property
    def _breaks_line(self) -> np.ndarray:
        """Bool `[vocabulary]`: tokens with a line break, which parts quotations."""
        return np.array([b"\n" in (raw or b"") for raw in self._pieces.raw])

    @cached_property
    def _is_line_break(self) -> np.ndarray:
        """Bool `[vocabulary]`: tokens of nothing but a line break and other white space."""
        return np.array([b"\n" in (raw or b"") and not (raw or b"").strip() for raw in self._pieces.raw])

    @cached_property
    def _is_comma(self) -> np.ndarray:
        """Bool `[vocabulary]`: tokens of nothing but a comma and white space behind it."""
        return np.array([(raw or b"").rstrip() == b"," for raw in self._pieces.raw])

    # What came

    def advance(self, state: QuoteState, token: int) -> QuoteState:
        """The state after a token. One that was not allowed ends what it is in: `is_complete` is False then."""
        if state.phase == "done":
            return replace(state, length=state.length + 1)
        if token in self._ends:
            return self._finished(state)
        raw = (self._pieces.raw[token] if token < len(self._pieces) else None) or b""
        if state.phase == "before":
            return self._before(state, token, raw)
        if state.phase == "opening":
            marked = _marked(self._begin, state.marked, self._begin_token, token, raw)
            if marked == len(self._begin):
                return self._opened(state)
            return replace(state, length=state.length + 1, marked=marked, phase="opening" if marked else "done")
        return self._in_span(state, token, raw)

    def finish(self, state: QuoteState) -> QuoteState:
        """The state after an answer's last token, with what was cut off."""
        if state.phase in ("quote", "answer") and (state.cursor or state.unmarked):
            return self._noted(state, state.cursor or state.unmarked[0], state.length, is_complete=False)  # type: ignore[index]
        return state

    def _before(self, state: QuoteState, token: int, raw: bytes) -> QuoteState:
        said = state.tail + raw
        if token == self._begin_token or (self._begin_token is None and self._begin in said):
            return self._opened(state)
        return replace(state, length=state.length + 1, tail=said[-len(self._begin) :])

    def _in_span(self, state: QuoteState, token: int, raw: bytes) -> QuoteState:
        marked = 0
        cursor, length = state.cursor, state.length
        if state.phase == "quote" and self._end:
            marked = _marked(self._end, state.marked, self._end_token, token, raw)
            if marked and not state.marked and cursor is not None and self._goes_on_only(cursor, token):
                marked = 0
            if marked == len(self._end):
                return self._closed(state)
        if cursor is not None and self._has_lines(state) and token < len(self._pieces) and self._is_line_break[token]:
            noted = self._noted(state, cursor, length, is_complete=self._document.may_end(cursor))
            following = self._document.start()._replace(label=None) if self._may_add(state) else None
            return replace(noted, length=length + 1, start=length + 1, cursor=following)
        following = None
        if cursor is not None and not (self._has_lines(state) and b"\n" in raw):
            following = self.matcher(state).extend(cursor, token)
        if following is None and cursor is not None and self._parts(state, cursor, token):
            return self._next_part(state, cursor)
        if following is None and not marked:
            ended = self.finish(state)
            return replace(ended, phase="done", length=length + 1)
        unmarked = state.unmarked if marked else None
        if marked and not state.marked and cursor is not None:
            unmarked = cursor, length
        return replace(state, length=length + 1, cursor=following, marked=marked, unmarked=unmarked)

    def _parts(self, state: QuoteState, cursor: Cursor, token: int) -> bool:
        """Whether a token parts the spans of an answer."""
        may_part = state.phase == "answer" and len(state.left) > 1 and token < len(self._pieces)
        return bool(may_part and self._is_comma[token] and self.matcher(state).may_end(cursor))

    def _next_part(self, state: QuoteState, cursor: Cursor) -> QuoteState:
        """The state after a comma: what follows is of the other quotations."""
        used = next(quote for quote, _, _ in self._sources(state.left, cursor, True))
        left = list(state.left)
        left.remove(used)
        length = state.length + 1
        noted = self._noted(state, cursor, state.length, self._are_complete(state))
        state = replace(noted, length=length, start=length, left=tuple(left))
        return replace(state, cursor=self.matcher(state).start())

    @staticmethod
    def _are_complete(state: QuoteState) -> bool:
        """Whether the quotations of an answer are: what was cut short has no end at which a span of it may end."""
        quotations = [one for one in state.said if not one.quotes]
        return all(one.is_complete for one in quotations[-len(state.quotes) :])

    def _goes_on_only(self, cursor: Cursor, token: int) -> bool:
        """Whether a token that begins like the closing mark is the document's: it cannot end here, and goes on so."""
        return not self._document.may_end(cursor) and self._document.extend(cursor, token) is not None

    def _opened(self, state: QuoteState) -> QuoteState:
        length = state.length + 1
        return replace(
            state,
            phase="quote",
            length=length,
            start=length,
            cursor=self._document.start(),
            marked=0,
            tail=b"",
            quotes=(),
        )

    def _closed(self, state: QuoteState) -> QuoteState:
        """The state after the mark that closes a quotation."""
        cursor, end = state.unmarked or (state.cursor, state.length)
        if cursor is not None and cursor.spoken:
            state = self._noted(state, cursor, end, is_complete=self._document.may_end(cursor))
        elif len(state.quotes) > 1:  # the line before was given up
            state = replace(state, said=state.said[:-1], quotes=state.quotes[:-1])
        length = state.length + 1
        state = replace(state, length=length, start=length, cursor=None, marked=0, unmarked=None, tail=b"")
        if self._form.answer == "free":
            return replace(state, phase="before")
        if not state.quotes:
            return replace(state, phase="done")
        state = replace(state, phase="answer", left=state.quotes)
        return replace(state, cursor=self.matcher(state).start())

    def _finished(self, state: QuoteState) -> QuoteState:
        """The state after a token that ends the answer."""
        cursor = state.cursor
        if state.phase in ("quote", "answer") and cursor is not None:
            ends_here = state.phase == "answer" or not self._end
            is_complete = ends_here and self.matcher(state).may_end(cursor)
            if state.phase == "answer":
                is_complete &= self._are_complete(state)
            state = self._noted(state, cursor, state.length, is_complete)
        return replace(state, phase="done", length=state.length + 1)

    def _noted(self, state: QuoteState, cursor: Cursor, end: int, is_complete: bool) -> QuoteState:
        if not cursor.spoken:
            return state
        quotes = state.left if state.phase == "answer" else ()
        said = (*state.said, Said(state.start, end, cursor, quotes, is_complete))
        return replace(state, said=said, quotes=state.quotes if quotes else (*state.quotes, cursor))


def _repeats_key(state: QuoteState, cursor: Cursor) -> bool:
    """Whether a later quotation begins with the key of an earlier one: it is of another of that key's values."""
    keys = (found[0] for quote in state.quotes if (found := _KEY.match(quote.spoken)))
    return state.phase == "quote" and any(cursor.spoken.startswith(key) for key in keys)


def _marked(mark: bytes, marked: int, mark_token: int | None, token: int, raw: bytes) -> int:
    """How many bytes of a mark are said after a token; 0 where it is none of the mark's."""
    if mark_token is not None:
        return len(mark) if token == mark_token else 0
    return marked + len(raw) if raw and mark[marked:].startswith(raw) else 0


def answer_source(quotes: tuple[Cursor, ...]) -> str:
    """The folded text that an answer is a span of: its quotations, parted by what no folded text has."""
    return b"\n".join(whole_characters(quote.spoken) for quote in quotes).decode("utf-8", "surrogatepass")


def whole_characters(said: bytes) -> bytes:
    """UTF-8 without a character at its end that is not complete, as where a quotation was cut short."""
    for length in range(1, min(4, len(said)) + 1):
        lead = said[-length]
        if lead & 0xC0 != 0x80:
            needed = 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
            return said if length >= needed else said[:-length]
    return said


__all__ = ["QuoteForm", "QuoteGrammar", "QuoteState", "Said", "answer_source", "whole_characters"]
