# SPDX-License-Identifier: Apache-2.0
"""Many documents with their questions, from one file of JSON lines to another: each document is read once, and a run that
stops goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

_FIELDS = frozenset(("id", "text", "file", "question", "questions"))


@dataclass(frozen=True)
class Job:
    """
    One line of the input.

    Attributes:
        id: its own, or the number of its line.
        document: a text, or the path of a file.
        questions: what is asked about it.
        error: what is wrong with the line; then there is nothing else.
    """

    id: str
    document: str | Path | None = None
    questions: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class DocumentJob:
    """
    All that is asked about one document by neighbouring lines.

    Attributes:
        document: a text, or the path of a file; None for lines that are no jobs.
        asked: (id of the job, number of its question, question).
        num_jobs: how many lines that were.
    """

    document: str | Path | None
    asked: tuple[tuple[str, int, str], ...]
    num_jobs: int = 1


Answers = Callable[[str | Path, Sequence[str]], Sequence[dict[str, Any]]]
"""(document, questions) -> an answer in plain JSON for each."""
AnswerLine = tuple[str, int, dict[str, Any]]
"""Id of the job, number of its question, and the answer or the error."""


def read_jobs(path: Path) -> Iterator[Job]:
    """
    The lines of a file of jobs: `{"id", "text" or "file", "question" or "questions"}`; the id is optional, files are
    found from the folder of this file.

    A line that is no job becomes one with an `error`.
    """
    seen: set[str] = set()
    with path.open(encoding="utf-8", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                job = _job_of(line, number, path.parent)
                if job.id in seen:
                    raise ValueError(f"the id {job.id!r:.80} stands on an earlier line, too")
            except ValueError as error:
                job = Job(f"line {number}", error=f"line {number} of {path.name}: {error}")
            seen.add(job.id)
            yield job


def _job_of(line: str, number: int, folder: Path) -> Job:
    given = json.loads(line)
    if not isinstance(given, dict):
        raise ValueError(f"a job is an object, not {line.strip()!r:.80}")
    if unknown := sorted(given.keys() - _FIELDS):
        raise ValueError(f"unknown fields: {', '.join(unknown)}; a job has {', '.join(sorted(_FIELDS))}")
    if ("text" in given) == ("file" in given) or ("question" in given) == ("questions" in given):
        raise ValueError("a job has one of text and file, and one of question and questions")
    questions = given["questions"] if "questions" in given else [given["question"]]
    document = given.get("text", given.get("file"))
    if not isinstance(document, str) or not isinstance(questions, list) or not questions:
        raise ValueError("text, file and question are strings, and questions is a list of them")
    if not all(isinstance(question, str) and question.strip() for question in questions):
        raise ValueError(f"every question is a string with words: {questions!r:.80}")
    found = folder / document if "file" in given else document
    return Job(str(given.get("id", f"line {number}")), found, tuple(questions))


class AnswerFile:
    """
    The file of answers, a line each: `{"id", "index", "question", "answer", ...}`, or `{"id", "index", "error"}`.

    One process at a time; a line that an earlier one was killed over is dropped.

    Args:
        retry_errors: whether what failed before is tried again.

    Raises:
        ValueError: another process writes to it, or it holds something else.
    """

    def __init__(self, path: Path, retry_errors: bool = False) -> None:
        self._path = path
        self._lock = FileLock(f"{path}.lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise ValueError(f"another process writes to {path}; wait for it, or name another file") from error
        self.done = self._done(retry_errors)
        self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> AnswerFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)

    def write(self, job_id: str, index: int, answer: dict[str, Any]) -> bool:
        """Add a line, whole or not at all; whether it was not there before: then it is left as it is."""
        if (job_id, index) in self.done:
            return False
        self._file.write(json.dumps({"id": job_id, "index": index, **answer}) + "\n")
        self._file.flush()
        self.done.add((job_id, index))
        return True

    def _done(self, retry_errors: bool) -> set[tuple[str, int]]:
        if not self._path.exists():
            return set()
        data = self._path.read_bytes()
        whole = data.rfind(b"\n") + 1
        kept = []
        for number, line in enumerate(data[:whole].splitlines(keepends=True), start=1):
            try:
                answer = json.loads(line)
                key = (str(answer["id"]), int(answer["index"]))
            except (ValueError, TypeError, KeyError) as error:
                self._lock.release()
                raise ValueError(
                    f"line {number} of {self._path} is no answer of a batch; name another file"
                ) from error
            if not (retry_errors and "error" in answer):
                kept.append((key, line))
        if len(data) > sum(len(line) for _, line in kept):
            self._path.write_bytes(b"".join(line for _, line in kept))
        return {key for key, _ in kept}


def answer_jobs(
    jobs: Iterator[Job], answers: AnswerFile, ask: Answers, tick: Callable[[], None] = lambda: None
) -> int:
    """
    Answer what is not answered yet, in the order of the jobs; neighbours that share a document share its reading.

    Args:
        ask: raises ValueError or OSError for what cannot be met: that is recorded, and the next one comes.
        tick: called after each job.

    Returns:
        How many questions failed, or lines were none.
    """
    failed = 0

    def wrong(line: AnswerLine) -> None:
        nonlocal failed
        failed += answers.write(*line)

    for work in open_work(jobs, answers, wrong):
        for line in answers_about(work, ask):
            failed += answers.write(*line) and "error" in line[2]
        for _ in range(work.num_jobs):
            tick()
    return failed


def open_work(jobs: Iterator[Job], answers: AnswerFile, wrong: Callable[[AnswerLine], None]) -> Iterator[DocumentJob]:
    """
    Document by document what is not answered yet, which may be nothing: neighbours that share one stand together.

    Args:
        wrong: takes the error of each line that is no job.
    """
    for document, group in groupby(jobs, key=lambda job: job.document):
        asked: list[tuple[str, int, str]] = []
        num_jobs = 0
        for job in group:
            open_ones = [index for index in range(len(job.questions)) if (job.id, index) not in answers.done]
            asked += [(job.id, index, job.questions[index]) for index in open_ones]
            if job.error is not None:
                wrong((job.id, 0, {"error": job.error}))
            num_jobs += 1
        yield DocumentJob(document, tuple(asked), num_jobs)


def answers_about(work: DocumentJob, ask: Answers) -> Iterator[AnswerLine]:
    """The answers about one document; of several questions one may be at fault, and is then alone with its error."""
    if work.document is None or not work.asked:
        return
    try:
        found = ask(work.document, [question for _, _, question in work.asked])
    except (ValueError, OSError) as error:
        if len(work.asked) == 1:
            job_id, index, question = work.asked[0]
            yield job_id, index, {"question": question, "error": str(error)}
            return
        for one in work.asked:
            yield from answers_about(DocumentJob(work.document, (one,)), ask)
        return
    for (job_id, index, _), answer in zip(work.asked, found, strict=True):
        yield job_id, index, answer


__all__ = [
    "AnswerFile",
    "AnswerLine",
    "Answers",
    "DocumentJob",
    "Job",
    "answer_jobs",
    "answers_about",
    "open_work",
    "read_jobs",
]
