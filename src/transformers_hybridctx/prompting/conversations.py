# SPDX-License-Identifier: Apache-2.0
"""Conversations: messages with what users wrote taken out of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..documents.scans import is_picture
from ..planning.budget import ContextBudget
from ..planning.knobs import shown
from ..planning.paged_document import PagedDocument
from ..planning.policies.base import TextPolicy
from ..planning.policies.registry import resolve_text_policy

# What was asked, and what was answered.
Turn = tuple[str, str]
# The roles whose words may write special tokens; those of all others, whatever they are called, stay text.
_TRUSTED_ROLES = frozenset({"system", "developer", "assistant"})
_ROLE = re.compile(r"[\w-]{1,64}")
_KINDS = ("text", "document", "image", "image_url")
_DOCUMENT_KEYS = frozenset({"type", "text", "document", "budget", "text_policy"})
_IMAGE_KEYS = ("image", "url", "path", "base64")
# Each document is planned, and the template rendered anew for it.
_MOST_DOCUMENTS = 256


@dataclass(frozen=True)
class DocumentPart:
    """A document in a conversation, laid out, with the budget and the policy that it is planned with."""

    document: PagedDocument
    budget: ContextBudget
    policy: TextPolicy


@dataclass
class Conversation:
    """Messages whose user text, documents and pictures are taken out and stand as `Hole`s in them.

    `image_tokens`: visual tokens of each picture. `question`: what the last user message that holds a word says.
    `answer_start`: the number of the text with which the model's answer begins.
    """

    messages: list[dict[str, Any]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    documents: list[DocumentPart] = field(default_factory=list)
    images: list[Any] = field(default_factory=list)
    image_tokens: list[int] = field(default_factory=list)
    question: str | None = None
    answer_start: int | None = None

    def add_text(self, text: str) -> Hole:
        self.texts.append(text)
        return Hole("text", len(self.texts) - 1)

    def add_document(self, part: DocumentPart) -> Hole:
        self.documents.append(part)
        return Hole("document", len(self.documents) - 1)

    def add_image(self, image: Any, tokens: int) -> Hole:
        self.images.append(image)
        self.image_tokens.append(tokens)
        return Hole("image", len(self.images) - 1)


@dataclass(frozen=True)
class Hole:
    """The place of the `index`th text, document or picture of a conversation."""

    kind: Literal["text", "document", "image"]
    index: int


@dataclass(frozen=True)
class ConversationReader:
    """Takes out of messages what users wrote.

    Attributes:
        read_document: lays a document out.
        read_image: a picture to its patches, and how many visual tokens these take.
        default_budget: what fills the gaps of a budget.
        budget, text_policy: for the documents that do not say their own.
    """

    read_document: Callable[[Any], PagedDocument]
    read_image: Callable[[Any], tuple[Any, int]]
    default_budget: ContextBudget
    budget: ContextBudget | dict[str, Any] | None
    text_policy: str | dict[str, Any] | TextPolicy

    def read(self, messages: Sequence[dict[str, Any]]) -> Conversation:
        """The messages, which `check_messages` has seen, with what users wrote taken out of them.

        Raises:
            ValueError, TypeError: a message or a part of one that a model of this family has no input for.
        """
        conversation = Conversation()
        for message in messages:
            untrusted = message["role"] not in _TRUSTED_ROLES
            content, first_text = message.get("content"), len(conversation.texts)
            if isinstance(content, str) and untrusted and content:
                content = conversation.add_text(content)
            elif isinstance(content, (list, tuple)):
                content = [self._read_part(part, conversation, untrusted) for part in content]
            conversation.messages.append({**message, "content": content})
            if message["role"] == "user" and len(conversation.texts) > first_text:
                asked = "\n".join(conversation.texts[first_text:])
                # A turn such as a thumb or a question mark asks on.
                if conversation.question is None or any(map(str.isalnum, asked)):
                    conversation.question = asked
        return conversation

    def read_questions(
        self,
        document: Any,
        question: Any,
        system: str | None = None,
        history: Sequence[Turn] | None = None,
        answer_start: str | None = None,
        pictures: Sequence[Any] = (),
    ) -> tuple[list[Conversation], bool]:
        """Conversations that end with a question, in which the document stands before all that is said.

        Args:
            document, question, system, history, answer_start: as `processor(document=..., question=...)` takes them.
            pictures: stand behind the question, and the question once more behind them.

        Returns:
            The conversations, and whether there were several documents or questions to begin with.
        """
        if system is not None and not isinstance(system, str):
            raise TypeError(f"system is a string, not {type(system).__name__}: {shown(system)}")
        if answer_start is not None and not isinstance(answer_start, str):
            raise TypeError(f"answer_start is a string, not {type(answer_start).__name__}: {shown(answer_start)}")
        if answer_start and question is None:
            raise ValueError(f"answer_start={shown(answer_start)} begins an answer, and question=None asks for none")
        turns = _checked_history(history)
        many_documents = isinstance(document, (list, tuple)) and not all(is_picture(page) for page in document)
        many_questions = isinstance(question, (list, tuple))
        # Laid out once, however many questions there are.
        documents = [self.read_document(one) for one in (document if many_documents else [document])]
        questions = list(question) if many_questions else [question]
        if not questions:
            raise ValueError("question is an empty list; give at least one question, or None")
        if len(documents) == 1:
            documents *= len(questions)
        elif len(questions) == 1:
            questions *= len(documents)
        if len(documents) != len(questions):
            raise ValueError(f"{len(documents)} documents and {len(questions)} questions; give one question for each")
        conversations = []
        instructions = [] if system is None else [{"role": "system", "content": system}]
        for one, asked in zip(documents, questions, strict=True):
            said: list[tuple[str, str | None]] = [*turns]
            if asked is not None:
                said.append((_checked_question(asked), None))
            content: list[dict[str, Any]] = [{"type": "document", "document": one}]
            messages: list[dict[str, Any]] = [*instructions, {"role": "user", "content": content}]
            for number, (words, answer) in enumerate(said):
                if number:
                    content = []
                    messages.append({"role": "user", "content": content})
                content.append({"type": "text", "text": words})
                if answer is None and pictures:
                    content += [{"type": "image", "image": picture} for picture in pictures]
                    content.append({"type": "text", "text": words})
                if answer is not None:
                    messages.append({"role": "assistant", "content": answer})
            conversation = self.read(messages)
            if answer_start:
                conversation.answer_start = conversation.add_text(answer_start).index
            conversations.append(conversation)
        return conversations, many_documents or many_questions

    def _read_part(self, part: dict[str, Any], conversation: Conversation, untrusted: bool) -> Any:
        kind = part["type"]
        if kind == "document":
            if len(conversation.documents) == _MOST_DOCUMENTS:
                raise ValueError(
                    f"a conversation holds more than {_MOST_DOCUMENTS} documents: join their texts, or ask about fewer"
                )
            return conversation.add_document(self._document_part(part))
        if kind in ("image", "image_url"):
            return conversation.add_image(*self.read_image(_picture_of(part)))
        if kind == "text" and untrusted and part["text"]:
            return conversation.add_text(part["text"])
        return part

    def _document_part(self, part: dict[str, Any]) -> DocumentPart:
        unknown = sorted(map(str, set(part) - _DOCUMENT_KEYS))
        if unknown or ("text" in part) == ("document" in part):
            raise ValueError(
                f"a document part has the keys {sorted(map(str, part))}; it takes 'text' or 'document', and may have "
                "'budget' and 'text_policy'"
            )
        own = part.get("budget")
        budget = ContextBudget.of(self.budget if own is None else own).filled_from(self.default_budget)
        policy = part.get("text_policy")
        policy = resolve_text_policy(self.text_policy if policy is None else policy)
        return DocumentPart(self.read_document(part["text"] if "text" in part else part["document"]), budget, policy)


def check_messages(messages: Any) -> bool:
    """
    Whether messages hold a document.

    Raises:
        TypeError, ValueError: something that is no message; a role that is no word; a part that no template of this
            family writes, which would be left out without a word.
    """
    if not isinstance(messages, (list, tuple)) or not messages:
        raise TypeError(f"a conversation is a list of one message or more, not {shown(messages)}")
    return sum(map(_check_message, messages)) > 0  # all of them are checked


def _check_message(message: Any) -> bool:
    """Whether a message holds a document."""
    if not isinstance(message, dict) or "role" not in message:
        raise TypeError(f"a message is a dict with 'role' and 'content', not {shown(message)}")
    role, content = message["role"], message.get("content")
    if not isinstance(role, str) or not _ROLE.fullmatch(role):
        raise ValueError(f"a message's role is a word, such as 'user', not {shown(role)}")
    if isinstance(content, str) or (content is None and role == "assistant"):  # one that only calls tools
        return False
    if not isinstance(content, (list, tuple)):
        raise TypeError(f"a message's content is a string or a list of parts, not {shown(content)}")
    return "document" in [_check_part(part) for part in content]


def _check_part(part: Any) -> str:
    """A part's type."""
    if not isinstance(part, dict):
        raise TypeError(f"a part of a message is a dict with 'type', not {shown(part)}")
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError(
            f"a message holds a part of type {shown(kind)}, which this model has no input for; it takes "
            f"{', '.join(map(repr, _KINDS))}"
        )
    if kind == "text" and not isinstance(part.get("text"), str):
        raise TypeError(f"a text part's 'text' is a string, not {shown(part.get('text'))}")
    return kind


def _picture_of(part: dict[str, Any]) -> Any:
    """What an image part names: a picture, path or URL."""
    image = next((part[key] for key in _IMAGE_KEYS if key in part), None)
    if part["type"] == "image_url":
        named = part.get("image_url")
        image = named.get("url") if isinstance(named, dict) else named
    if not isinstance(image, str) and not is_picture(image):
        raise ValueError(
            f"an image part beside a document needs a picture, a path or an address as one of {', '.join(_IMAGE_KEYS)}: "
            f"{shown(part)}"
        )
    return image


def _checked_history(history: Any) -> list[Turn]:
    turns = [] if history is None else history
    if not isinstance(turns, (list, tuple)):
        raise TypeError(f"history is a list of (question, answer), not {type(turns).__name__}: {shown(turns)}")
    for turn in turns:
        if not (isinstance(turn, (list, tuple)) and len(turn) == 2 and all(isinstance(said, str) for said in turn)):
            raise TypeError(f"history is a list of (question, answer), both strings; it holds {shown(turn)}")
    return [(_checked_question(question), answer) for question, answer in turns]


def _checked_question(question: Any) -> str:
    if not isinstance(question, str):
        raise TypeError(f"a question is a string, not {type(question).__name__}: {shown(question)}")
    if not question.strip():
        raise ValueError(f"empty question {question!r}; give None for a prompt that ends with the document")
    return question


def batched(conversation: Any) -> tuple[list[Any], bool]:
    """(conversations, whether there were several to begin with)."""
    is_batch = isinstance(conversation, (list, tuple)) and any(isinstance(one, (list, tuple)) for one in conversation)
    return (list(conversation) if is_batch else [conversation]), is_batch
