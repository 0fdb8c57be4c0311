# SPDX-License-Identifier: Apache-2.0
"""LongAlign-10k (https://huggingface.co/datasets/THUDM/LongAlign-10k): long document and instruction in one message."""

from __future__ import annotations

import re
from typing import Any

from ..records import TrainingRecord, TrainingTurn, UnusableRow
from .json_lines import turns_of_messages

_LEAST_CONTEXT = 2000  # characters; of 10,000 rows, those of the data set are far longer
_BORDER = re.compile(r"\n[ \t]*\n|\n")


def record_of(row: dict[str, Any]) -> TrainingRecord:
    """
    Row: `{"messages": [{"role": "user", "content": document and instruction}, {"role": "assistant", ...}]}`.

    The instruction is the shorter of the message's first and last paragraph; what is left is the document.
    """
    system, turns = turns_of_messages(row["messages"])
    document, instruction = _taken_apart(turns[0].question)
    if len(document) < _LEAST_CONTEXT:
        raise UnusableRow("no long document in the first message")
    return TrainingRecord(document, (TrainingTurn(instruction, turns[0].answer), *turns[1:]), system)


def _taken_apart(message: str) -> tuple[str, str]:
    message = message.strip()
    borders = list(_BORDER.finditer(message))
    if not borders:
        return "", message
    first, last = message[: borders[0].start()], message[borders[-1].end() :]
    if len(last) <= len(first):
        return message[: borders[-1].start()], last.strip()
    return message[borders[0].end() :], first.strip()
