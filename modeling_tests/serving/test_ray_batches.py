# SPDX-License-Identifier: Apache-2.0
"""A batch by two workers of Ray Data, one of which is killed in the middle: nothing is lost, and nothing doubled."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from command_line import run

from transformers_hybridctx.serving.batches import AnswerFile, Answers, read_jobs

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed (the extra `ray`)")
COUNT = 40


@dataclass(frozen=True)
class Shouting:
    """Answers in capitals; the first worker that comes to document 17 is killed over it."""

    folder: Path

    def load(self) -> Answers:
        def ask(document: str | Path, questions: Sequence[str]) -> list[dict[str, Any]]:
            (self.folder / f"worker-{os.getpid()}").touch()
            killed = self.folder / "killed"
            if "17" in str(document) and not killed.exists():
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if "refused" in questions[0]:
                raise ValueError("refused")
            time.sleep(0.05)
            return [{"question": question, "answer": question.upper()} for question in questions]

        return ask


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    import ray

    # what workers import of the tests is found from here
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "support")]
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100 * 2**20,
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])}},
    )
    yield
    ray.shutdown()


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_worker_that_is_killed_loses_nothing_and_doubles_nothing(cluster: None, tmp_path: Path) -> None:
    from transformers_hybridctx.serving.ray_batches import answer_jobs_on_ray

    jobs, out = tmp_path / "jobs.jsonl", tmp_path / "out.jsonl"
    lines = [{"id": n, "text": f"Text {n}.", "questions": [f"a{n}?", f"b{n}?"]} for n in range(COUNT)]
    lines[5]["questions"] = ["refused"]
    jobs.write_text("".join(f"{json.dumps(line)}\n" for line in lines) + "no job\n")
    workers = tmp_path / "workers"
    workers.mkdir()
    with AnswerFile(out) as answers:
        assert answer_jobs_on_ray(read_jobs(jobs), answers, Shouting(workers).load, workers=2) == 2
    found = lines_of(out)
    expected = [(str(n), index) for n in range(COUNT) for index in range(len(lines[n]["questions"]))]
    assert sorted((line["id"], line["index"]) for line in found) == sorted([*expected, (f"line {COUNT + 1}", 0)])
    assert all(line["answer"] == line["question"].upper() for line in found if "error" not in line)
    # two from the beginning, one for the one that was killed
    assert (workers / "killed").exists() and len(list(workers.glob("worker-*"))) >= 2
    with AnswerFile(out) as answers:  # and nothing is left to do
        assert answer_jobs_on_ray(read_jobs(jobs), answers, Shouting(workers).load, workers=2) == 0
    assert lines_of(out) == found


def test_the_command_answers_as_without_ray(cluster: None, tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "tale.txt").write_text("The code of room 7 is 42. " * 9)
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text(
        '{"id": "a", "file": "tale.txt", "questions": ["Which code?", "Which room?"]}\n'
        '{"id": "b", "file": "nothing.txt", "question": "Which code?"}\n'
    )
    options = ["--model", str(checkpoint), "--max-new-tokens", "6"]
    by_ray, alone = tmp_path / "ray.jsonl", tmp_path / "alone.jsonl"
    assert run("batch", str(jobs), "--out", str(by_ray), "--ray", *options).exit_code == 1
    assert run("batch", str(jobs), "--out", str(alone), *options).exit_code == 1
    kept = ("id", "index", "question", "answer", "evidence", "plan", "error")
    found, expected = (
        sorted(([line.get(name) for name in kept] for line in lines_of(path)), key=lambda line: line[:2])
        for path in (by_ray, alone)
    )
    assert found == expected
