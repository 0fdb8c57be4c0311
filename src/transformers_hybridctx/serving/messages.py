# SPDX-License-Identifier: Apache-2.0
"""Chat messages of OpenAI's form, taken apart: the documents, the question, and what was said before."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..planning.plan import encodable
from .uploads import UploadedDocument

_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_SYSTEM = ("system", "developer")


@dataclass(frozen=True)
class AskedChat:
    """
    What a conversation asks.

    Attributes:
        documents: of all its messages, in order.
        question: the last thing that its user says.
        history: (question, answer) before that.
        system: the messages that came first, for the system.
    """

    documents: tuple[UploadedDocument, ...]
    question: str
    history: tuple[tuple[str, str], ...]
    system: str | None


class MessageReader:
    """
    Takes messages apart.

    A document is a part `{"type": "document", "text": ...}` or `{"type": "document", "file_id": ...}`, or OpenAI's own
    `{"type": "file", "file": {"file_id": ...}}` or `{"type": "file", "file": {"filename": ..., "file_data": ...}}` with
    base64 in a `data:` address; or a text that is longer than `draw_over` tokens. Of a message that is one such text, the
    last paragraph is the question (the first, where only that ends with a question mark) and the rest is the document.
    Nothing names a file or an address of the server's: other parts are refused.

    Args:
        uploaded: file id -> document; UnknownFileError for one that is not there.
        inline: (base64 address, file name) -> document.
        num_tokens: tokens of a text.
        draw_over: see above.
    """

    def __init__(
        self,
        uploaded: Callable[[str], UploadedDocument],
        inline: Callable[[str, str], UploadedDocument],
        num_tokens: Callable[[str], int],
        draw_over: int,
    ) -> None:
        self._uploaded = uploaded
        self._inline = inline
        self._num_tokens = num_tokens
        self._draw_over = draw_over

    def read(self, messages: list[dict[str, Any]]) -> AskedChat:
        """
        Raises:
            ValueError: messages that cannot be taken apart; the message says which.
        """
        system, rest = self._leading_system(messages)
        documents: list[UploadedDocument] = []
        turns: list[tuple[str, str]] = []  # (role, words)
        for number, message in enumerate(rest, start=len(messages) - len(rest) + 1):
            role = message.get("role")
            if role not in ("user", "assistant"):
                raise ValueError(
                    f"message {number} has the role {role!r}: system messages come first, then user and assistant"
                )
            found, words = self._content(message.get("content"), number, is_user=role == "user")
            documents += found
            if turns and turns[-1][0] == role == "user":  # a document, then the question, in two messages
                words = "\n\n".join(said for said in (turns.pop()[1], words) if said)
            turns.append((role, words))
        roles = [role for role, _ in turns]
        if roles != ["user", "assistant"] * (len(roles) // 2) + ["user"]:
            raise ValueError(
                f"user and assistant take turns, and the user has the last word; the roles are {roles!r:.200}"
            )
        for index in range(0, len(turns), 2):
            if not turns[index][1].strip():
                raise ValueError("a message of the user's holds a document and no words: ask something about it")
        history = tuple((turns[i][1], turns[i + 1][1]) for i in range(0, len(turns) - 1, 2))
        return AskedChat(tuple(documents), turns[-1][1], history, system)

    def _leading_system(self, messages: list[dict[str, Any]]) -> tuple[str | None, list[dict[str, Any]]]:
        count = next((i for i, one in enumerate(messages) if one.get("role") not in _SYSTEM), len(messages))
        if count == len(messages):
            raise ValueError("no message is the user's: there is nothing to answer")
        said = [self._content(one.get("content"), i + 1, is_user=False)[1] for i, one in enumerate(messages[:count])]
        return "\n\n".join(said) or None, messages[count:]

    def _content(self, content: Any, number: int, is_user: bool) -> tuple[list[UploadedDocument], str]:
        """(documents, words) of a message."""
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        if content is None and not is_user:
            content = []
        if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
            raise ValueError(f"message {number}: content is a string or a list of parts, not {content!r:.80}")
        documents, words = [], []
        texts = [part for part in content if part.get("type") == "text"]
        for part in content:
            kind = part.get("type")
            if kind == "text":
                text = part.get("text")
                if not isinstance(text, str):
                    raise ValueError(f"message {number}: a text part needs text, not {text!r:.80}")
                text = encodable(text)
                if is_user and self._is_long(text):
                    document, text = self._document_and_question(text, is_alone=len(texts) == 1)
                    documents += [UploadedDocument.of_text(document)] if document else []
                words.append(text)
            elif is_user and kind in ("document", "file"):
                documents.append(self._named_document(part, number))
            else:
                raise ValueError(
                    f"message {number}: a part of type {kind!r} cannot be taken here; a user's message holds parts of "
                    "'text', 'document' and 'file'"
                )
        return documents, "\n\n".join(text for text in words if text.strip())

    def _named_document(self, part: dict[str, Any], number: int) -> UploadedDocument:
        inner = part.get("file", {}) if part["type"] == "file" else part
        if not isinstance(inner, dict):
            raise ValueError(f"message {number}: file is an object with file_id, or file_data and filename")
        match inner:
            case {"file_id": str(file_id)}:
                return self._uploaded(file_id)
            case {"file_data": str(data)}:
                return self._inline(data, str(inner.get("filename") or "document.pdf"))
            case {"text": str(text)} if text.strip():
                return UploadedDocument.of_text(encodable(text), encodable(str(inner.get("name") or "")))
        raise ValueError(
            f"message {number}: a document part needs text or file_id (upload it to /v1/files first), a file part "
            "file_id or file_data; paths and addresses are not read"
        )

    def _is_long(self, text: str) -> bool:
        return len(text) > self._draw_over and self._num_tokens(text) > self._draw_over

    def _document_and_question(self, text: str, is_alone: bool) -> tuple[str, str]:
        """A long text, and what of it is the question; ("", text) where nothing of it can be told apart."""
        if not is_alone:
            return text, ""
        paragraphs = [piece for piece in _BLANK_LINE.split(text) if piece.strip()]
        if len(paragraphs) < 2:
            return "", text
        first, last = paragraphs[0], paragraphs[-1]
        if first.rstrip().endswith("?") and not last.rstrip().endswith("?") and not self._is_long(first):
            return text[text.index(first) + len(first) :].strip("\n"), first.strip()
        if self._is_long(last):
            return "", text
        return text[: text.rindex(last)].strip("\n"), last.strip()


__all__ = ["AskedChat", "MessageReader"]
