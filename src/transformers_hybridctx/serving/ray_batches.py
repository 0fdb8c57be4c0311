# SPDX-License-Identifier: Apache-2.0
"""A batch on Ray Data: documents go to workers, on one machine or many; who dies is replaced and does its work again."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

from .batches import AnswerFile, AnswerLine, Answers, DocumentJob, Job, answers_about, open_work

_MOST_BLOCKS = 10_000
"""Pieces that work is handed out in, at most: what a worker that dies has to do again is one of them."""


class _Worker:
    """One worker: it loads its model once."""

    def __init__(self, load: Callable[[], Answers]) -> None:
        self._ask = load()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        lines = [pickle.dumps(list(answers_about(pickle.loads(work), self._ask))) for work in batch["work"]]
        return {"lines": lines, "jobs": [pickle.loads(work).num_jobs for work in batch["work"]]}


def answer_jobs_on_ray(
    jobs: Iterator[Job],
    answers: AnswerFile,
    load: Callable[[], Answers],
    workers: int,
    tick: Callable[[], None] = lambda: None,
    cpus: float = 1,
    gpus: float = 0,
) -> int:
    """
    As [`answer_jobs`], by workers of Ray Data; answers are written as they come, in no order.

    The cluster is the one that `RAY_ADDRESS` names, or this machine. Files of documents are opened by the workers, so
    they are to be found by the same names there.

    Args:
        load: loads what answers, in each worker; it is pickled.
        workers: how many of them.
        tick: called for each job that is answered.
        cpus, gpus: what one worker takes.

    Raises:
        ImportError: Ray is not installed.
    """
    try:
        import ray.data
    except ImportError as error:
        raise ImportError(
            "batches on Ray need Ray Data: pip install 'transformers-hybridctx[ray]', or leave out --ray"
        ) from error
    failed = 0

    def write(line: AnswerLine) -> None:
        nonlocal failed
        # what a worker had done before it died may come twice; the file has it once
        failed += answers.write(*line) and "error" in line[2]

    work: list[DocumentJob] = []
    for found in open_work(jobs, answers, write):
        if found.asked:
            work.append(found)
        else:
            _tick(tick, found.num_jobs)
    if not work:
        return failed
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False)
    rows = ray.data.from_items(
        [{"work": pickle.dumps(one)} for one in work], override_num_blocks=min(len(work), _MOST_BLOCKS)
    )
    answered = rows.map_batches(
        _Worker,
        fn_constructor_args=(load,),
        batch_size=1,
        num_cpus=cpus,
        num_gpus=gpus,
        compute=ray.data.ActorPoolStrategy(size=workers),
    )
    for row in answered.iter_rows():
        for line in pickle.loads(row["lines"]):
            write(line)
        _tick(tick, int(row["jobs"]))
    return failed


def _tick(tick: Callable[[], None], times: int) -> None:
    for _ in range(times):
        tick()


__all__ = ["answer_jobs_on_ray"]
