# SPDX-License-Identifier: Apache-2.0
"""`hybridctx batch`: many documents with their questions, from one file of JSON lines to another."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import typer

from ..progress import tell
from .console import Stages, answers_console, in_seconds, print_rows
from .errors import clear_errors
from .loading import load_pipeline, read_files
from .options import (
    Abstain,
    Budget,
    Font,
    GroundingMode,
    MaxNewTokens,
    MaxTextTokens,
    MinScale,
    Model,
    NoThink,
    Policy,
    Repair,
    System,
    VisualShare,
    conversation,
    given,
    holding,
    limits,
)


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
    max_new_tokens: MaxNewTokens = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions about one document answered at a time.")] = 8,
    grounding: GroundingMode = None,
    repair: Repair = False,
    abstain: Abstain = False,
    system: System = None,
    no_think: NoThink = False,
    font: Font = None,
) -> None:
    """Answer questions about many documents, each read once; a run that stops goes on where it was.

    Exit code 1: some failed, as their lines say.
    """
    stages = Stages()
    with clear_errors():
        from ..answering.json_answers import answer_as_json
        from ..serving.batches import AnswerFile, answer_jobs, read_jobs

        options = {
            "budget": limits(budget, visual_share, min_scale, max_text_tokens, text_policy),
            **given(text_policy=text_policy, max_new_tokens=max_new_tokens),
            **conversation(system, no_think),
            **holding(grounding, repair, abstain),
        }
        total = sum(1 for job in read_jobs(jobs))
        with AnswerFile(out, retry_errors) as answers:
            before = len(answers.done)
            with stages.stage("load the model"):
                pipe = load_pipeline(model, font)

            def ask(document: str | Path, questions: Sequence[str]) -> list[dict[str, Any]]:
                content = read_files([str(document)]) if isinstance(document, Path) else document
                laid_out = pipe.processor.read_document(content)
                found = pipe(question=list(questions), document=laid_out, batch_size=batch_size, **options)
                return [answer_as_json(*each) for each in zip(questions, found, strict=True)]

            with stages.stage("answer"):
                done = count()
                tell("documents answered", next(done), total)
                failed = answer_jobs(
                    read_jobs(jobs), answers, ask, lambda: tell("documents answered", next(done), total)
                )
            new = len(answers.done) - before
    rows = [
        ("jobs", f"{total:,}"),
        ("answered", f"{new - failed:,} questions now, {before:,} lines were there"),
        ("failed", f"{failed:,}"),
        ("written to", str(out)),
        ("in all", in_seconds(stages.seconds)),
    ]
    print_rows(answers_console(), rows)
    if failed:
        raise typer.Exit(1)
