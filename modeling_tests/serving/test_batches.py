# SPDX-License-Identifier: Apache-2.0
"""Many documents: each read once, what fails recorded, and nothing lost or doubled where a run stops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from command_line import run

from transformers_hybridctx.serving.batches import AnswerFile, Job, answer_jobs, read_jobs


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_jobs(path: Path, *jobs: Any) -> Path:
    path.write_text("".join(f"{job if isinstance(job, str) else json.dumps(job)}\n" for job in jobs), encoding="utf-8")
    return path


class Asked:
    """Answers with the question in capitals, and keeps what was asked of which document."""

    def __init__(self, refused: str = "-") -> None:
        self.calls: list[tuple[Any, list[str]]] = []
        self._refused = refused

    def __call__(self, document: str | Path, questions: Sequence[str]) -> list[dict[str, Any]]:
        self.calls.append((document, list(questions)))
        if any(self._refused in question for question in questions):
            raise ValueError("refused")
        return [{"question": question, "answer": question.upper()} for question in questions]


def test_neighbours_that_share_a_document_share_its_reading(tmp_path: Path) -> None:
    jobs = write_jobs(
        tmp_path / "jobs.jsonl",
        {"id": "a", "text": "One.", "question": "x?"},
        {"id": "b", "text": "One.", "questions": ["y?", "z?"]},
        "",
        {"text": "Two.", "question": "x?"},
        {"id": 7, "file": "three.txt", "question": "x?"},
    )
    asked = Asked()
    with AnswerFile(tmp_path / "out.jsonl") as answers:
        assert answer_jobs(read_jobs(jobs), answers, asked) == 0
    assert asked.calls == [("One.", ["x?", "y?", "z?"]), ("Two.", ["x?"]), (tmp_path / "three.txt", ["x?"])]
    found = [(line["id"], line["index"], line["answer"]) for line in lines_of(tmp_path / "out.jsonl")]
    assert found == [("a", 0, "X?"), ("b", 0, "Y?"), ("b", 1, "Z?"), ("line 4", 0, "X?"), ("7", 0, "X?")]


def test_what_fails_is_recorded_alone_and_tried_again_when_asked_to(tmp_path: Path) -> None:
    jobs = write_jobs(tmp_path / "jobs.jsonl", {"id": "a", "text": "One.", "questions": ["x?", "bad?", "y?"]})
    out = tmp_path / "out.jsonl"
    with AnswerFile(out) as answers:
        assert answer_jobs(read_jobs(jobs), answers, Asked("bad")) == 1
    assert [line.get("error", line.get("answer")) for line in lines_of(out)] == ["X?", "refused", "Y?"]
    with AnswerFile(out) as answers:
        assert answer_jobs(read_jobs(jobs), answers, asked := Asked()) == 0 and not asked.calls
    with AnswerFile(out, retry_errors=True) as answers:
        assert answer_jobs(read_jobs(jobs), answers, asked := Asked()) == 0
    assert asked.calls == [("One.", ["bad?"])]
    assert sorted(line["index"] for line in lines_of(out)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 1"),
        ("[]", "object"),
        ({"text": "One."}, "question"),
        ({"question": "x?"}, "text and file"),
        ({"text": "One.", "file": "a", "question": "x?"}, "text and file"),
        ({"text": "One.", "question": " "}, "words"),
        ({"text": "One.", "questions": []}, "list"),
        ({"text": 7, "question": "x?"}, "strings"),
        ({"text": "One.", "question": "x?", "querstion": "y?"}, "querstion"),
    ],
)
def test_lines_that_are_no_jobs_do_not_stop_the_others(tmp_path: Path, line: Any, says: str) -> None:
    jobs = write_jobs(tmp_path / "jobs.jsonl", line, {"id": "b", "text": "Two.", "question": "x?"})
    with AnswerFile(tmp_path / "out.jsonl") as answers:
        assert answer_jobs(read_jobs(jobs), answers, Asked()) == 1
    wrong, right = lines_of(tmp_path / "out.jsonl")
    assert says in wrong["error"] and right["answer"] == "X?"


def test_an_id_stands_on_one_line(tmp_path: Path) -> None:
    jobs = write_jobs(
        tmp_path / "jobs.jsonl", *[{"id": "a", "text": text, "question": "x?"} for text in ("One.", "Two.")]
    )
    with AnswerFile(tmp_path / "out.jsonl") as answers:
        assert answer_jobs(read_jobs(jobs), answers, Asked()) == 1
    assert "earlier line" in lines_of(tmp_path / "out.jsonl")[1]["error"]


def test_a_half_written_line_is_dropped_and_another_process_is_not_disturbed(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text('{"id": "a", "index": 0, "answer": "X?"}\n{"id": "b", "ind')
    with AnswerFile(out) as answers:
        assert answers.done == {("a", 0)}
        with pytest.raises(ValueError, match="another process"):
            AnswerFile(out)
    assert len(lines_of(out)) == 1 and [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]
    out.write_text("Dear diary,\n")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"line 1 of .*no answer"):
            AnswerFile(out)
    assert out.read_text() == "Dear diary,\n"


@pytest.mark.parametrize("theirs", ["Dear diary,", '{"notes": 1}', '{"id": "a"}\n'])
def test_a_file_of_something_else_is_left_as_it_is(tmp_path: Path, theirs: str) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text(theirs)
    with pytest.raises(ValueError, match=r"line 1 of .*no answer"):
        AnswerFile(out)
    assert out.read_text() == theirs


def test_whoever_is_killed_while_errors_are_dropped_loses_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = write_jobs(tmp_path / "jobs.jsonl", {"id": "a", "text": "One.", "questions": ["x?", "bad?", "y?"]})
    out = tmp_path / "out.jsonl"
    with AnswerFile(out) as answers:
        answer_jobs(read_jobs(jobs), answers, Asked("bad"))
    before = out.read_bytes()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            AnswerFile(out, retry_errors=True)
    assert out.read_bytes() == before
    with AnswerFile(out, retry_errors=True) as answers:
        assert answers.done == {("a", 0), ("a", 2)}


@pytest.mark.parametrize(
    "changed",
    [{"text": "One.", "question": "y?"}, {"text": "Two.", "question": "x?"}, {"file": "One.", "question": "y?"}],
)
def test_answers_of_another_job_are_not_taken_for_these(tmp_path: Path, changed: dict[str, str]) -> None:
    first = write_jobs(tmp_path / "jobs.jsonl", {"text": "One.", "question": "x?"})
    with AnswerFile(tmp_path / "out.jsonl") as answers:
        answer_jobs(read_jobs(first), answers, Asked())
    other = write_jobs(tmp_path / "other.jsonl", changed)
    with AnswerFile(tmp_path / "out.jsonl") as answers:
        for job in read_jobs(first):
            answers.check(job)
        with pytest.raises(ValueError, match=r"out.jsonl has an answer of 'line 1' to another question"):
            answers.check(next(read_jobs(other)))


def test_a_changed_file_of_jobs_is_told_before_the_model_is_loaded(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with AnswerFile(out) as answers:
        answer_jobs(iter([Job("a", "One.", ("x?",))]), answers, Asked())
    jobs = write_jobs(tmp_path / "jobs.jsonl", {"id": "a", "text": "One.", "question": "y?"})
    result = run("batch", str(jobs), "--out", str(out), "--model", "not/there")
    assert result.exit_code == 2 and "to another question" in result.output
    os.mkfifo(tmp_path / "pipe")
    result = run("batch", str(tmp_path / "pipe"), "--out", str(out))
    assert result.exit_code == 2 and "save it first" in result.output


def test_the_command_answers_as_ask_does(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "tale.txt").write_text("The code of room 7 is 42. " * 9)
    jobs = write_jobs(
        tmp_path / "jobs.jsonl",
        {"id": "a", "file": "tale.txt", "questions": ["Which code?", "Which room?"]},
        {"id": "b", "file": "nothing.txt", "question": "Which code?"},
    )
    options = ["--model", str(checkpoint), "--max-new-tokens", "6"]
    result = run("batch", str(jobs), "--out", str(tmp_path / "out.jsonl"), *options)
    assert result.exit_code == 1, result.output
    first, second, third = lines_of(tmp_path / "out.jsonl")
    alone = run("ask", str(tmp_path / "tale.txt"), "-q", "Which code?", "-q", "Which room?", "--json", *options)
    for line, expected in zip((first, second), json.loads(alone.stdout), strict=True):
        assert {name: line[name] for name in ("question", "answer", "evidence", "plan")} == {
            name: expected[name] for name in ("question", "answer", "evidence", "plan")
        }
    assert "nothing.txt" in third["error"]
    again = run("batch", str(jobs), "--out", str(tmp_path / "out.jsonl"), *options)
    assert again.exit_code == 0 and "failed       0 now, 1 before: --retry-errors tries these again" in again.stdout
    assert "failed       0\n" not in again.stdout
    closer = run("batch", str(jobs), "--out", str(tmp_path / "closer.jsonl"), "--look-closer", "larger", *options)
    assert closer.exit_code == 1, closer.output  # for the file that is not there
    assert all(line["plan"]["looked_at"] for line in lines_of(tmp_path / "closer.jsonl")[:2])
    write_jobs(jobs, {"id": "a", "file": "tale.txt", "questions": ["Which code?", "Which room?"]})
    without = run("batch", str(jobs), "--out", str(tmp_path / "out.jsonl"), *options)
    assert without.exit_code == 0 and "failed       0\n" in without.stdout  # what failed is not asked any more


KILLED = """
import sys, time
from pathlib import Path
from transformers_hybridctx.serving.batches import AnswerFile, answer_jobs, read_jobs

def ask(document, questions):
    time.sleep(0.02)
    return [{"answer": question} for question in questions]

with AnswerFile(Path(sys.argv[2])) as answers:
    answer_jobs(read_jobs(Path(sys.argv[1])), answers, ask)
"""


def test_a_killed_run_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    count = 60
    jobs = [{"id": number, "text": f"Text {number}.", "question": f"{number}?"} for number in range(count)]
    path, out = write_jobs(tmp_path / "jobs.jsonl", *jobs), tmp_path / "out.jsonl"
    command = [sys.executable, "-c", KILLED, str(path), str(out)]
    process = subprocess.Popen(command)
    while not out.exists() or out.read_text().count("\n") < 5:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 5 <= len(lines_of(out)) < count
    subprocess.run(command, check=True)
    assert sorted(int(line["id"]) for line in lines_of(out)) == list(range(count))
