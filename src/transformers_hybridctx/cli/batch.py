# SPDX-License-Identifier: Apache-2.0
"""`hybridctx batch`: many documents with their questions, from one file of JSON lines to another."""

from __future__ import annotations

import json
from collections.abc import Sequence, Set
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..progress import tell
from .console import Stages, answers_console, in_seconds, print_rows
from .errors import clear_errors
from .loading import load_pipeline, read_files
from .options import (
    TOKENS_AT_ONCE,
    Abstain,
    Budget,
    Font,
    GroundingMode,
    LatentShare,
    LookCloser,
    MaxNewTokens,
    MaxTextTokens,
    MinScale,
    Model,
    NoThink,
    Policy,
    Repair,
    System,
    VisualShare,
    closer_look,
    conversation,
    given,
    holding,
    limits,
)
from .output_files import check_output

if TYPE_CHECKING:
    from ..serving.batches import Answers  # which the command imports when it runs


def batch(
    jobs: Annotated[
        Path,
        typer.Argument(
            help='JSON lines: {"id", "text" or "file", "question" or "questions"}; files are found from its folder.',
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="JSON lines, one for each question; an existing file is gone on with.")],
    retry_errors: Annotated[bool, typer.Option("--retry-errors", help="Try again what failed before.")] = False,
    model: Model = None,
    budget: Budget = None,
    visual_share: VisualShare = None,
    min_scale: MinScale = None,
    text_policy: Policy = None,
    max_text_tokens: MaxTextTokens = None,
    latent_share: LatentShare = None,
    look_closer: LookCloser = None,
    max_new_tokens: MaxNewTokens = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions about one document answered at a time.")] = 8,
    grounding: GroundingMode = None,
    repair: Repair = False,
    abstain: Abstain = False,
    system: System = None,
    no_think: NoThink = False,
    font: Font = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="Work on Ray Data: the cluster that RAY_ADDRESS names, or this machine.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="With --ray: how many load the model and work at a time.")] = 1,
    worker_gpus: Annotated[float, typer.Option(min=0, max=1024, help="With --ray: GPUs of each.")] = 0,
) -> None:
    """Answer questions about many documents, each read once; a run that stops goes on where it was.

    Exit code 1: some failed, as their lines say.
    """
    stages = Stages()
    with clear_errors("serve"):
        from ..serving.batches import AnswerFile, answer_jobs, read_jobs

        options = {
            "budget": limits(budget, visual_share, min_scale, max_text_tokens, latent_share, text_policy),
            **given(text_policy=text_policy, max_new_tokens=max_new_tokens),
            **conversation(system, no_think),
            **holding(grounding, repair, abstain),
            **closer_look(look_closer, text_policy),
            "prefill_chunk_size": TOKENS_AT_ONCE,
        }
        if not ray and (workers > 1 or worker_gpus):
            raise ValueError("--workers and --worker-gpus are of --ray: give it, too")
        check_output(out, "--out")
        ask = _Asker(model, font, batch_size, options)
        if not jobs.is_file():
            raise ValueError(
                f"{jobs} is no file that can be read twice, to count the jobs and to do them: save it first"
            )
        with AnswerFile(out, retry_errors) as answers:
            total, ids = 0, set()
            for job in read_jobs(jobs):
                answers.check(job)
                total += 1
                ids.add(job.id)
            failed_before = _failures(out, ids)
            before = len(answers.done)
            done = count()

            def told() -> None:
                tell("documents answered", next(done), total)

            if ray:
                from ..serving.ray_batches import answer_jobs_on_ray

                with stages.stage("answer"):
                    told()
                    failed = answer_jobs_on_ray(read_jobs(jobs), answers, ask.load, workers, told, gpus=worker_gpus)
            else:
                with stages.stage("load the model"):
                    loaded = ask.load()
                with stages.stage("answer"):
                    told()
                    failed = answer_jobs(read_jobs(jobs), answers, loaded, told)
            new = len(answers.done) - before
    earlier = f" now, {failed_before:,} before: --retry-errors tries these again" if failed_before else ""
    rows = [
        ("jobs", f"{total:,}"),
        ("answered", f"{new - failed:,} questions now, {before:,} lines were there"),
        ("failed", f"{failed:,}{earlier}"),
        ("written to", str(out)),
        ("in all", in_seconds(stages.seconds)),
    ]
    print_rows(answers_console(), rows)
    if failed:
        raise typer.Exit(1)


def _failures(out: Path, ids: Set[str]) -> int:
    """Lines of a file of answers that say what went wrong with a job that is still asked for."""
    with out.open(encoding="utf-8") as lines:
        return sum("error" in line and str(line["id"]) in ids for line in map(json.loads, lines))


@dataclass(frozen=True)
class _Asker:
    """What a worker loads to answer: it travels to other processes."""

    model: str | None
    font: str | None
    batch_size: int
    options: dict[str, Any]

    def load(self) -> Answers:
        from ..answering.json_answers import answer_as_json

        pipe = load_pipeline(self.model, self.font)

        def ask(document: str | Path, questions: Sequence[str]) -> list[dict[str, Any]]:
            content = read_files([str(document)]) if isinstance(document, Path) else document
            laid_out = pipe.processor.read_document(content)
            found = pipe(question=list(questions), document=laid_out, batch_size=self.batch_size, **self.options)
            return [answer_as_json(*each) for each in zip(questions, found, strict=True)]

        return ask
