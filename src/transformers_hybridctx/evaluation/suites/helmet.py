# SPDX-License-Identifier: Apache-2.0
"""HELMET (princeton-nlp/HELMET): recall, RAG, re-ranking, ICL, and by a judge LongQA and summaries; no demonstrations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from random import Random
from typing import Any, ClassVar

from transformers.utils import logging

from ..metrics.helmet import exact_match, ndcg, parse_output, parse_ranking, substring_exact_match
from ..metrics.helmet_judged import answer_grade, summary_grade
from ..samples import Sample
from .base import Suite
from .helmet_rows import judged_samples
from .sources import Row, parts_of, read_rows

logger = logging.get_logger(__name__)

_RAG = ("nq", "triviaqa", "hotpotqa", "popqa")
_ICL = {
    "trec_coarse": ("text", "coarse_label"),
    "trec_fine": ("text", "fine_label"),
    "banking77": ("text", "label"),
    "clinic150": ("text", "intent"),
    "nlu": ("text", "label"),
}
_MOST_SHOTS = 400
_JUDGED = {"narrativeqa": "narrativeqa", "infbench_sum": "longbook_sum_eng", "multi_lexsum": "multi_lexsum_val"}
"""Tasks whose scores a judge gives, and the files of their rows."""


@dataclass(frozen=True)
class Helmet(Suite):
    """
    HELMET, from the files of its tar.

    A task is a file of that name: `json_kv.jsonl` (context, question, answer), `nq.jsonl` and the other three of RAG
    (question,
    answers, ctxs of title and text), `msmarco_rerank.jsonl` (query, qid, ctxs of id, text, label),
    `trec_coarse_train.jsonl`
    and `trec_coarse_test.jsonl` and so on (text, label).

    With a judge also `narrativeqa.jsonl` (document, question, answers, as the Hub has them), `longbook_sum_eng.jsonl`
    (id, context, answer) with `longbook_sum_eng_keypoints.jsonl` (id, keypoints), and `multi_lexsum_val.jsonl` (id,
    sources, summary/long, summary/short_keypoints). Citations are not here, and its recall tasks in RULER's form are the
    suite `ruler`.

    Attributes:
        data: that folder.
        judge: a model at an OpenAI-compatible endpoint ([`judge_json`]); without one its tasks are left out, with a
            warning.
        shots: demonstrations of ICL, balanced over the labels; at most what the data has.
    """

    name: ClassVar[str] = "helmet"
    metric: ClassVar[str] = "HELMET score"
    task_names: ClassVar[tuple[str, ...]] = ("json_kv", *_RAG, "msmarco_rerank", *_ICL, *_JUDGED)

    data: str = ""
    shots: int = _MOST_SHOTS
    judge: str | None = None

    def samples(self, tokenizer: Any) -> list[Sample]:
        if not self.data:
            raise ValueError("helmet reads the files of HELMET's tar: give --data FOLDER")
        files = {self._file_of(task): task for task in self.chosen_tasks}
        there = list(files) if self.tasks else parts_of(self.data, list(files))
        if not there:
            raise ValueError(f"{self.data} has none of {', '.join(files)}")
        tasks = [files[name] for name in there]
        if self.judge is None and (judged := [task for task in tasks if task in _JUDGED]):
            missing = f"the score of {', '.join(judged)} is a judge's: give --judge MODEL"
            if self.tasks or len(judged) == len(tasks):
                raise ValueError(missing)
            logger.warning(f"LEFT OUT: {missing}")
            tasks = [task for task in tasks if task not in _JUDGED]
        found: list[Sample] = []
        for task in tasks:
            found += self._demonstrated(task) if task in _ICL else self._from_rows(task)
        return self._first(found)

    @staticmethod
    def _file_of(task: str) -> str:
        return f"{task}_test" if task in _ICL else _JUDGED.get(task, task)

    def _from_rows(self, task: str) -> list[Sample]:
        if task == "json_kv":
            rows = read_rows(self.data, task, None, ("context", "question", "answer"))
            return [_json_kv(row) for row in rows]
        if task in _JUDGED:
            return judged_samples(self.data, task, _JUDGED[task])
        if task in _RAG:
            return [_rag(task, row) for row in read_rows(self.data, task, None, ("question", "answers", "ctxs"))]
        return [_rerank(row) for row in read_rows(self.data, task, None, ("query", "qid", "ctxs"))]

    def _demonstrated(self, task: str) -> list[Sample]:
        text, label = _ICL[task]
        train, test = (read_rows(self.data, f"{task}_{part}", None, (text, label)) for part in ("train", "test"))
        labels = sorted({int(row[label]) for row in train})
        samples = []
        for row in test:
            seed = (int(sha256(row[text].encode("utf-8")).hexdigest(), 16) + self.seed) % 2**31
            numbers = list(range(max(labels) + 1))
            Random(seed).shuffle(numbers)
            shown = _balanced(train, label, self.shots, seed)
            context = "\n\n".join(f"{one[text]}\nlabel: {numbers[int(one[label])]}" for one in shown)
            question = (
                "Use the provided mapping from the text to label to assign a label to the text. Only output "
                f'"label: {{label}}" and nothing else. \n\n{row[text]}'
            )
            samples.append(Sample(context, question, "\nlabel:", (str(numbers[int(row[label])]),), task, 20))
        return samples

    def score(self, sample: Sample, answer: str) -> float:
        if sample.task in _ICL:
            return exact_match(parse_output(answer, "label:"), sample.answer)
        if sample.task == "msmarco_rerank":
            return ndcg(parse_ranking(answer), sample.details["relevance"])
        prefix = "corresponding value:" if sample.task == "json_kv" else "Answer:"
        return max(substring_exact_match(said, sample.answer) for said in (answer, parse_output(answer, prefix)))

    def grade(self, sample: Sample, answer: str) -> tuple[float, dict[str, Any]]:
        if sample.task not in _JUDGED or self.judge is None:
            return super().grade(sample, answer)
        details = sample.details
        if sample.task == "narrativeqa":
            return answer_grade(self.judge, details["question"], sample.answer, parse_output(answer, "Answer:"))
        return summary_grade(self.judge, answer, details["keypoints"], sample.answer[0])

    def summary(self, means: Mapping[str, float]) -> dict[str, float]:
        """The means of the categories, and of these."""
        groups = {"recall": ("json_kv",), "RAG": _RAG, "re-rank": ("msmarco_rerank",), "ICL": tuple(_ICL)}
        groups |= {"LongQA": ("narrativeqa",), "summaries": ("infbench_sum", "multi_lexsum")}
        found = {}
        for name, tasks in groups.items():
            if had := [means[task] for task in tasks if task in means]:
                found[name] = sum(had) / len(had)
        return found | ({"mean": sum(found.values()) / len(found)} if len(found) > 1 else {})


def _json_kv(row: Row) -> Sample:
    question = (
        f"Extract the value corresponding to the specified key in the JSON object below.\n\nKey: {row['question']}"
    )
    return Sample(row["context"], question, "\nCorresponding value:", _answers(row["answer"]), "json_kv", 100)


def _rag(task: str, row: Row) -> Sample:
    context = "\n\n".join(f"Document (Title: {one['title']}): {one['text']}" for one in row["ctxs"])
    question = (
        "Use the given documents to write a concise and short answer to the question. Write your answer in the following "
        f"format:\nAnswer: [answer]\n\nQuestion: {row['question']}"
    )
    return Sample(context, question, "\nAnswer:", _answers(row["answers"]), task, 20)


def _rerank(row: Row) -> Sample:
    passages = []
    for one in row["ctxs"]:
        title = f" (Title: {one['title']})" if "title" in row["ctxs"][0] else ""
        passages.append(f"[ID: {one['id']}] Document{title}: {one['text']}")
    question = (
        "You are provided with a list of documents, each indicated by their ID. Rank each document based on their "
        "relevance to "
        "the question in descending order from most relelvant to least relevant texts. Include all documents in the "
        "rankings. "
        f"Write your answer using the unique IDs, with the following format:\nRanking: ID3 > ID1 > ID2\n\nQuery: "
        f"{row['query']}"
    )
    best = sorted(row["ctxs"], key=lambda one: int(one["label"]), reverse=True)
    details = {"relevance": {str(one["id"]): int(one["label"]) for one in row["ctxs"]}}
    gold = " > ".join(str(one["id"]) for one in best)
    return Sample("\n\n".join(passages), question, "\nRanking:", (gold,), "msmarco_rerank", 200, details=details)


def _answers(answer: Any) -> tuple[str, ...]:
    """A string, a list, or a list of lists of aliases."""
    if isinstance(answer, str):
        return (answer,)
    return tuple(str(one) for part in answer for one in (part if isinstance(part, list) else [part]))


def _balanced(rows: list[dict[str, Any]], label: str, shots: int, seed: int) -> list[dict[str, Any]]:
    """Demonstrations in rounds of every label once, each round in an order of its own."""
    rng = Random(seed)
    by_label: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        by_label.setdefault(int(row[label]), []).append(row)
    count = math.ceil(min(shots, len(rows)) / len(by_label))
    rounds: list[list[dict[str, Any]]] = [[] for _ in range(count)]
    for same in by_label.values():
        indices = rng.sample(range(len(same)), count % len(same))
        while len(indices) < count:
            indices += rng.sample(range(len(same)), min(count - len(indices), len(same)))
        for number, index in enumerate(indices):
            rounds[number].append(same[index])
    for one in rounds:
        rng.shuffle(one)
    return [row for one in rounds for row in one][:shots]


__all__ = ["Helmet"]
