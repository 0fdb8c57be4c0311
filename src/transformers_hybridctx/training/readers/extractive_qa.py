# SPDX-License-Identifier: Apache-2.0
"""Questions whose answers stand in their context, with the place: SQuAD's schema, and HotpotQA's."""

from __future__ import annotations

from typing import Any

from ..records import TrainingRecord, TrainingTurn, UnusableRow

ABSENT = "not in the document"
"""The answer where a document has none."""


def squad_record_of(row: dict[str, Any]) -> TrainingRecord:
    """
    SQuAD 1.1 and 2.0 (https://huggingface.co/datasets/rajpurkar/squad): `{"id", "context", "question", "answers":
    {"text": [...], "answer_start": [...]}}`. Without an answer: "not in the document".
    """
    texts, starts = row["answers"]["text"], row["answers"]["answer_start"]
    if not texts:
        return TrainingRecord(row["context"], (TrainingTurn(row["question"], ABSENT),), None, row["id"])
    answer, start = texts[0], starts[0]
    if row["context"][start : start + len(answer)] != answer:
        raise UnusableRow("the answer does not stand where the row says")
    turn = TrainingTurn(row["question"], answer, ((start, start + len(answer)),))
    return TrainingRecord(row["context"], (turn,), None, row["id"])


def hotpotqa_record_of(row: dict[str, Any]) -> TrainingRecord:
    """
    HotpotQA (https://huggingface.co/datasets/hotpotqa/hotpot_qa): `{"id", "question", "answer",
    "context": {"title": [...], "sentences": [[...], ...]}, "supporting_facts": {"title": [...], "sent_id": [...]}}`.
    Supporting sentences are evidence.
    """
    facts = set(zip(row["supporting_facts"]["title"], row["supporting_facts"]["sent_id"]))
    parts, evidence, length = [], [], 0
    for title, sentences in zip(row["context"]["title"], row["context"]["sentences"]):
        heading = f"{title}\n"
        parts.append(heading)
        length += len(heading)
        for number, sentence in enumerate(sentences):
            if (title, number) in facts and sentence.strip():
                evidence.append((length + len(sentence) - len(sentence.lstrip()), length + len(sentence.rstrip())))
            parts.append(sentence)
            length += len(sentence)
        parts.append("\n\n")
        length += 2
    turn = TrainingTurn(row["question"], row["answer"], tuple(evidence))
    return TrainingRecord("".join(parts).rstrip() + "\n", (turn,), None, row["id"])
