# SPDX-License-Identifier: Apache-2.0
"""`hybridctx ask` and `hybridctx read`: a document is read, and questions about it are answered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..answering.json_answers import answer_as_json
from .answers import answer_rows, purpose_rows, save_evidence
from .console import Stages, answers_console, in_seconds, print_rows, print_rule, rows_of
from .errors import clear_errors
from .loading import load_pipeline, read_files, read_files_or_reading
from .options import (
    READING_SUFFIX,
    TOKENS_AT_ONCE,
    Abstain,
    Budget,
    Encoding,
    Fetch,
    FileOptions,
    Files,
    FilesOrReading,
    Font,
    GroundingMode,
    LatentShare,
    LookCloser,
    MaxNewTokens,
    MaxTextTokens,
    MinScale,
    Model,
    NoThink,
    Ocr,
    PageLayout,
    Pages,
    Password,
    Policy,
    Repair,
    System,
    VisualShare,
    check_questions,
    closer_look,
    conversation,
    given,
    holding,
    is_reading,
    limits,
)
from .output_files import check_output
from .streaming import shown_as_it_comes
from .why import write_page


def ask(
    document: FilesOrReading,
    question: Annotated[
        list[str], typer.Option("--question", "-q", help="May be given several times.", show_default=False)
    ],
    model: Model = None,
    budget: Budget = None,
    visual_share: VisualShare = None,
    min_scale: MinScale = None,
    text_policy: Policy = None,
    max_text_tokens: MaxTextTokens = None,
    latent_share: LatentShare = None,
    look_closer: LookCloser = None,
    max_new_tokens: MaxNewTokens = None,
    grounding: GroundingMode = None,
    repair: Repair = False,
    abstain: Abstain = False,
    system: System = None,
    no_think: NoThink = False,
    font: Font = None,
    pages: Pages = None,
    password: Password = None,
    encoding: Encoding = None,
    layout: PageLayout = None,
    ocr: Ocr = None,
    fetch: Fetch = False,
    passages: Annotated[bool, typer.Option("--passages", help="Show all that was copied as tokens, whole.")] = False,
    evidence_dir: Annotated[
        Path | None,
        typer.Option(
            help="Write the pages that hold the evidence here, with it marked, as PNG; those of an earlier call go."
        ),
    ] = None,
    why: Annotated[
        Path | None,
        typer.Option(help="Write one page of HTML here: each answer with all that it rests on.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answers as JSON and nothing else.")] = False,
) -> None:
    """Answer questions about a document, each with its evidence, what was copied for it, its plan and its seconds."""
    console, stages = answers_console(), Stages()
    files = FileOptions(pages, password, encoding, layout, ocr, fetch)
    with clear_errors():
        check_questions(*question)
        if evidence_dir is not None:
            check_output(evidence_dir, "--evidence-dir", is_folder=True)
        if why is not None:
            check_output(why, "--why")
        bounds = limits(budget, visual_share, min_scale, max_text_tokens, latent_share, text_policy)
        held = {**holding(grounding, repair, abstain), **closer_look(look_closer, text_policy)}
        with stages.stage("read the file"):
            content = read_files_or_reading(document, files)
        with stages.stage("load the model"):
            pipe = load_pipeline(model, font, content)
        with stages.stage("lay it out"):
            laid_out = content if is_reading(document) else pipe.processor.read_document(content)
        with stages.stage("answer") as show:
            answers = pipe(
                question=question,
                document=laid_out,
                budget=bounds,
                return_pages=evidence_dir is not None or why is not None,
                prefill_chunk_size=TOKENS_AT_ONCE,
                **given(text_policy=text_policy, max_new_tokens=max_new_tokens),
                **conversation(system, no_think),
                **held,
                **(shown_as_it_comes(pipe, show) if len(question) == 1 else {}),
            )
        pictures = save_evidence(answers, evidence_dir)
        if why is not None:
            write_page(why, ", ".join(Path(name).name for name in document), question, answers, pipe.model)
    if as_json:
        found = [answer_as_json(*each) for each in zip(question, answers, pictures, strict=True)]
        typer.echo(json.dumps(found, indent=1))
        return
    for asked, answer, saved in zip(question, answers, pictures, strict=True):
        print_rule(console)
        print_rows(console, answer_rows(asked, answer, saved, all_passages=passages))
    print_rule(console)
    print_rows(console, [*purpose_rows(pipe.model), ("in all", in_seconds(stages.seconds))])


def read(
    document: Files,
    out: Annotated[
        Path, typer.Argument(help="The file to write; its name ends with .safetensors.", show_default=False)
    ],
    model: Model = None,
    budget: Budget = None,
    visual_share: VisualShare = None,
    min_scale: MinScale = None,
    text_policy: Policy = None,
    max_text_tokens: MaxTextTokens = None,
    latent_share: LatentShare = None,
    system: System = None,
    no_think: NoThink = False,
    font: Font = None,
    pages: Pages = None,
    password: Password = None,
    encoding: Encoding = None,
    layout: PageLayout = None,
    ocr: Ocr = None,
    fetch: Fetch = False,
) -> None:
    """Let the model read a document once, and keep that in a file: `hybridctx ask` then takes the file instead.

    The file holds the document's text and fits this checkpoint only.
    """
    stages = Stages()
    files = FileOptions(pages, password, encoding, layout, ocr, fetch)
    with clear_errors():
        bounds = limits(budget, visual_share, min_scale, max_text_tokens, latent_share, text_policy)
        if out.suffix != READING_SUFFIX:
            raise ValueError(f"{out} does not end with {READING_SUFFIX}, by which `hybridctx ask` knows such a file")
        check_output(out, "OUT")
        content = read_files(document, files)
        with stages.stage("load the model"):
            pipe = load_pipeline(model, font, content)
        with stages.stage("read the document"):
            laid_out = pipe.processor.read_document(content)
            around = conversation(system, no_think)
            chosen = given(text_policy=text_policy)
            cache = pipe.read(laid_out, budget=bounds, prefill_chunk_size=TOKENS_AT_ONCE, **chosen, **around)
        with stages.stage("write the file"):
            cache.save(out)
    rows = [
        *rows_of(cache.plan.summary()),
        ("kept", f"{len(cache):,} tokens, which no question has to pay again"),
        ("later", f"policy {cache.text_policy.name!r} copies spans for each question"),
        ("written to", f"{out}, {out.stat().st_size / 1e6:,.1f} MB"),
        ("in all", in_seconds(stages.seconds)),
    ]
    print_rows(answers_console(), [row for row in rows if row[0] != "later" or cache.text_policy.looks_at_question])
