# SPDX-License-Identifier: Apache-2.0
"""Who looks at the page: each browser's own documents and chats, which no other one sees."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from weakref import ReferenceType

from ..answering.results import LongDocAnswer
from ..caching.document_cache import DocumentCache
from ..planning.paged_document import PagedDocument
from ..serving.uploads import StorageFullError

_MAX_SESSIONS = 64
_MAX_ANSWERS = 200  # of a session


class NotHereError(Exception):
    """What a session does not have: never there, removed, or another session's."""


def new_id() -> str:
    """A name that cannot be guessed."""
    return secrets.token_urlsafe(16)


@dataclass(eq=False)
class OpenDocument:
    """
    Attributes:
        name: as the reader calls it.
        num_bytes: of the file.
        num_tokens: of its text, as text.
        laid_out: on pages.
        notes: what was not read of the file, or was read by a guess.
        is_shared: named on the command line, and so there for every session.
        id: nobody else's.
    """

    name: str
    num_bytes: int
    num_tokens: int
    laid_out: PagedDocument
    notes: tuple[str, ...] = ()
    is_shared: bool = False
    id: str = field(default_factory=new_id)


@dataclass(frozen=True, eq=False)
class GivenAnswer:
    """
    Attributes:
        document, question: what was asked.
        answer: in full.
        shown: the same for the page, in plain JSON.
        reading: of the document, while it is kept.
    """

    document: OpenDocument
    question: str
    answer: LongDocAnswer
    shown: dict[str, Any]
    reading: ReferenceType[DocumentCache] | None


@dataclass(eq=False)
class Session:
    """
    One browser's desk.

    Attributes:
        documents: by id, those of the command line first.
        answers: by id, oldest first.
    """

    documents: dict[str, OpenDocument] = field(default_factory=dict)
    answers: OrderedDict[str, GivenAnswer] = field(default_factory=OrderedDict)

    def document(self, document_id: str) -> OpenDocument:
        """NotHereError for one that this session does not have."""
        if (found := self.documents.get(document_id)) is None:
            raise NotHereError("this document is not on your desk any more: open it again")
        return found

    def answer(self, answer_id: str) -> GivenAnswer:
        """NotHereError for one that this session does not have."""
        if (found := self.answers.get(answer_id)) is None:
            raise NotHereError("this answer is not on your desk any more: ask again")
        return found

    def keep(self, given: GivenAnswer) -> None:
        """Keep an answer, and let the oldest go where there are too many."""
        self.answers[given.shown["id"]] = given
        while len(self.answers) > _MAX_ANSWERS:
            self.answers.popitem(last=False)

    def remove(self, document_id: str) -> None:
        """Take a document from the desk, and the answers about it. NotHereError where it is not there."""
        del self.documents[self.document(document_id).id]
        for answer_id in [key for key, given in self.answers.items() if given.document.id == document_id]:
            del self.answers[answer_id]


class SessionStore:
    """
    Sessions by the secret that a browser's cookie holds; of too many, the one that was used least recently goes.

    Args:
        max_bytes, max_files: of the files of all sessions together; the next one is refused.
        shared: documents that every session begins with.
    """

    def __init__(self, max_bytes: int, max_files: int, shared: Iterable[OpenDocument] = ()) -> None:
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._max_bytes, self._max_files = max_bytes, max_files
        self._shared = tuple(shared)

    def of(self, secret: str | None) -> tuple[str, Session]:
        """The session of a secret, or a new one with a new secret."""
        if secret is None or secret not in self._sessions:
            secret = secrets.token_urlsafe(32)
            self._sessions[secret] = Session({document.id: document for document in self._shared})
            while len(self._sessions) > _MAX_SESSIONS:
                self._sessions.popitem(last=False)
        self._sessions.move_to_end(secret)
        return secret, self._sessions[secret]

    def check_room(self, num_bytes: int) -> None:
        """StorageFullError where a file of that size finds no room."""
        kept = [one for session in self._sessions.values() for one in session.documents.values() if not one.is_shared]
        used = sum(one.num_bytes for one in kept)
        if used + num_bytes > self._max_bytes or len(kept) >= self._max_files:
            raise StorageFullError(
                f"a file of {num_bytes:,} bytes finds no room beside those that are open ({self._max_bytes:,} bytes and "
                f"{self._max_files:,} files in all): close some documents"
            )


__all__ = ["GivenAnswer", "NotHereError", "OpenDocument", "Session", "SessionStore", "new_id"]
