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


Answers = Callable[[str | Path, Sequence[str]], Sequence[dict[str, Any]]]
"""(document, questions) -> an answer in plain JSON for each."""


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

    def write(self, job: Job, index: int, answer: dict[str, Any]) -> None:
        """Add a line, whole or not at all."""
        self._file.write(json.dumps({"id": job.id, "index": index, **answer}) + "\n")
        self._file.flush()
        self.done.add((job.id, index))

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
    for document, group in groupby(jobs, key=lambda job: job.document):
        asked: list[tuple[Job, int]] = []
        jobs_here = list(group)
        for job in jobs_here:
            asked += [(job, index) for index in range(len(job.questions)) if (job.id, index) not in answers.done]
            if job.error is not None and (job.id, 0) not in answers.done:
                answers.write(job, 0, {"error": job.error})
                failed += 1
        if document is not None and asked:
            failed += _answer_one_document(document, asked, answers, ask)
        for _ in jobs_here:
            tick()
    return failed


def _answer_one_document(document: str | Path, asked: list[tuple[Job, int]], answers: AnswerFile, ask: Answers) -> int:
    questions = [job.questions[index] for job, index in asked]
    try:
        found = ask(document, questions)
    except (ValueError, OSError) as error:
        if len(asked) == 1:
            job, index = asked[0]
            answers.write(job, index, {"question": questions[0], "error": str(error)})
            return 1
        # of several questions one may be at fault
        return sum(_answer_one_document(document, [one], answers, ask) for one in asked)
    for (job, index), answer in zip(asked, found, strict=True):
        answers.write(job, index, answer)
    return 0


__all__ = ["AnswerFile", "Job", "answer_jobs", "read_jobs"]
