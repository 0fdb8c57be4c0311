# SPDX-License-Identifier: Apache-2.0
"""Many documents with their questions, from one file of JSON lines to another: each document is read once, and a run that
stops goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, KeysView, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

_FIELDS = frozenset(("id", "text", "file", "question", "questions"))
_BEGINNING = b'{"id": '
"""Of each line of answers."""


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
    The file of answers, a line each: `{"id", "index", "asked", "question", "answer", ...}` or `{"id", "index", "error"}`.
    `asked` tells what was asked of which document from what another job with the same id asks.

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
        try:
            self._asked = self._read(retry_errors)
            self._file = path.open("a", encoding="utf-8")
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> AnswerFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)

    @property
    def done(self) -> KeysView[tuple[str, int]]:
        """(id of the job, number of its question) of all lines."""
        return self._asked.keys()

    def check(self, job: Job) -> None:
        """Raises `ValueError` where another job was answered under this id: its answers would be taken for this one's."""
        for index, question in enumerate(job.questions):
            before = self._asked.get((job.id, index))
            if before is not None and before != _asked(job.document, question):
                raise ValueError(
                    f"{self._path} has an answer of {job.id!r:.80} to another question, or about another document, than "
                    f"{question!r:.80}: name another file, or give the job another id"
                )

    def write(self, job_id: str, index: int, answer: dict[str, Any]) -> bool:
        """Add a line, whole or not at all; whether it was not there before: then it is left as it is."""
        if (job_id, index) in self._asked:
            return False
        self._file.write(json.dumps({"id": job_id, "index": index, **answer}) + "\n")
        self._file.flush()
        self._asked[job_id, index] = answer.get("asked")
        return True

    def _read(self, retry_errors: bool) -> dict[tuple[str, int], str | None]:
        if not self._path.exists():
            return {}
        asked, failed = {}, set()
        whole = 0
        with self._path.open("rb") as lines:
            for number, line in enumerate(lines):
                if not line.endswith(b"\n") and _BEGINNING.startswith(line[: len(_BEGINNING)]):
                    break  # an earlier process was killed over it
                try:
                    answer = json.loads(line)
                    key = str(answer["id"]), int(answer["index"])
                except (ValueError, TypeError, KeyError) as error:
                    raise ValueError(
                        f"line {number + 1} of {self._path} is no answer of a batch; name another file"
                    ) from error
                whole += len(line)
                if retry_errors and "error" in answer:
                    failed.add(number)
                else:
                    asked[key] = answer.get("asked")
        with self._path.open("rb+") as file:
            file.truncate(whole)
        if failed:
            self._drop(failed)
        return asked

    def _drop(self, numbers: set[int]) -> None:
        """Write the file without some lines; whoever kills this finds it as it was."""
        unfinished = self._path.with_name(f"{self._path.name}.unfinished")
        with self._path.open("rb") as lines, unfinished.open("wb") as kept:
            kept.writelines(line for number, line in enumerate(lines) if number not in numbers)
        unfinished.replace(self._path)


def _asked(document: str | Path | None, question: str) -> str:
    """What tells a job's question from those of other jobs that have its id; of a file it is the name."""
    said = json.dumps([document.name if isinstance(document, Path) else document, question])
    return sha256(said.encode()).hexdigest()[:16]


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
    for (job_id, index, question), answer in zip(work.asked, found, strict=True):
        yield job_id, index, {"asked": _asked(work.document, question), **answer}


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
