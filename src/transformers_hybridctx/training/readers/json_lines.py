# SPDX-License-Identifier: Apache-2.0
"""This package's own schema: `{"context", "question", "answer"}` or `{"context", "turns": [...]}`, a row of JSON each."""

from __future__ import annotations

from typing import Any

from ..records import TrainingRecord, TrainingTurn, UnusableRow


def record_of(row: dict[str, Any]) -> TrainingRecord:
    """
    Args:
        row: `context` (or `text`), and one of: `question`, `answer` and, optional, `evidence`, characters
            [[start, end], ...] of the context; `turns`, a list of these; `messages` of OpenAI's form; nothing, for text
            alone. `system` is optional.
    """
    given = {name: value for name, value in row.items() if value is not None}
    context = given["context"] if "context" in given else given.get("text", "")
    if "messages" in given:
        system, turns = turns_of_messages(given["messages"])
        return TrainingRecord(context, turns, given.get("system", system))
    turns = tuple(map(_turn_of, given.get("turns", [given] if "question" in given else [])))
    return TrainingRecord(context, turns, given.get("system"))


def _turn_of(given: dict[str, Any]) -> TrainingTurn:
    answer = given["answer"]
    if isinstance(answer, list):
        answer = ", ".join(answer)
    return TrainingTurn(given["question"], answer, tuple((int(a), int(b)) for a, b in given.get("evidence") or ()))


def turns_of_messages(messages: list[dict[str, str]]) -> tuple[str | None, tuple[TrainingTurn, ...]]:
    """(system message, turns) of messages that begin with a system's, or a user's, and then take turns."""
    said = [(message["role"], message["content"]) for message in messages]
    system = said.pop(0)[1] if said and said[0][0] == "system" else None
    if said and said[-1][0] == "user":
        said.pop()  # asked, and not answered
    if not said or [role for role, _ in said] != ["user", "assistant"] * (len(said) // 2):
        raise UnusableRow("messages that do not take turns")
    pairs = zip(said[::2], said[1::2])
    return system, tuple(TrainingTurn(question, answer) for (_, question), (_, answer) in pairs)


__all__ = ["record_of", "turns_of_messages"]
