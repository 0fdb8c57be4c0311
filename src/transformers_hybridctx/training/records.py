# SPDX-License-Identifier: Apache-2.0
"""What every data set becomes: a text, what is asked about it, and where the answers stand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any


@dataclass(frozen=True)
class TrainingTurn:
    """
    Attributes:
        question, answer: as a user and a model say them.
        evidence: characters [start, end) of the context that the answer rests on; () where that is not known.
    """

    question: str
    answer: str
    evidence: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class TrainingRecord:
    """
    Attributes:
        context: a document's text. "" in a conversation without a document.
        turns: what is said about it, in order. () for text to read or to go on with.
        system: a system message, or None.
        source: which data set's which row, for messages.
        document: what tells this document from others, where the context holds more than it. "": the context does.
    """

    context: str
    turns: tuple[TrainingTurn, ...] = ()
    system: str | None = None
    source: str = ""
    document: str = ""

    def __post_init__(self) -> None:
        if not self.context.strip() and not self.turns:
            raise UnusableRow("neither a text nor a turn")
        for turn in self.turns:
            if not turn.question.strip() or not turn.answer.strip():
                raise UnusableRow("a turn without words")
            for start, end in turn.evidence:
                if not 0 <= start < end <= len(self.context):
                    raise UnusableRow("evidence outside of the context")

    def as_row(self) -> dict[str, Any]:
        """A row of an Arrow table."""
        turns = [
            {"question": turn.question, "answer": turn.answer, "evidence": [list(span) for span in turn.evidence]}
            for turn in self.turns
        ]
        texts = {"system": self.system or "", "source": self.source, "document": self.document}
        return {"context": self.context, "turns": turns, **texts}

    @classmethod
    def of_row(cls, row: dict[str, Any]) -> TrainingRecord:
        turns = tuple(
            TrainingTurn(turn["question"], turn["answer"], tuple((start, end) for start, end in turn["evidence"]))
            for turn in row["turns"]
        )
        return cls(row["context"], turns, row["system"] or None, row["source"], row["document"])

    @property
    def named(self) -> str:
        """What tells its document from others; a dialogue without one is known by its first question."""
        told = self.context if self.context.strip() else self.turns[0].question
        return self.document or blake2b(told.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class UnusableRow(ValueError):  # noqa: N818  (a finding, counted by its words)
    """A row that cannot be trained on; its message is a reason without particulars, so that reasons can be counted."""


@dataclass
class ReadCount:
    """How many rows of a data set became records, and why the others did not."""

    used: int = 0
    unused: Counter[str] = field(default_factory=Counter)


def usable(
    rows: Iterable[Any], record_of: Callable[[Any], TrainingRecord], name: str, count: ReadCount
) -> Iterator[TrainingRecord]:
    """
    The records of rows; what is not usable is counted by its reason, never dropped silently.

    Raises:
        ValueError: a row of another form before any that can be used: the reader is that of other data.
    """
    for number, row in enumerate(rows, start=1):
        try:
            record = record_of(row)
        except UnusableRow as reason:
            count.unused[str(reason)] += 1
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            what = f"{type(error).__name__}: {error}"
            if count.used:  # a row among many, where the reader is the right one
                count.unused[f"another form than the reader's ({what})"] += 1
                continue
            raise ValueError(
                f"row {number} of {name} has not the form that its reader reads ({what}); its fields are "
                + (", ".join(sorted(row)) if isinstance(row, dict) else type(row).__name__)
            ) from error
        else:
            count.used += 1
            yield record


def joined(records: Iterable[TrainingRecord]) -> Iterator[TrainingRecord]:
    """Neighbours about the same document become one record with all their turns: several answers are learned at once."""
    held: TrainingRecord | None = None
    for record in records:
        if held is not None and _are_of_one_document(held, record):
            held = replace(held, turns=(*held.turns, *record.turns))
            continue
        if held is not None:
            yield held
        held = record
    if held is not None:
        yield held


def _are_of_one_document(one: TrainingRecord, other: TrainingRecord) -> bool:
    has_questions = bool(one.context.strip() and one.turns and other.turns)
    return has_questions and one.context == other.context and one.system == other.system


__all__ = ["ReadCount", "TrainingRecord", "TrainingTurn", "UnusableRow", "joined", "usable"]
