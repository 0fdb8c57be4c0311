# SPDX-License-Identifier: Apache-2.0
"""`hybridctx chat`: a document is read once, and asked about for as long as somebody asks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .answers import answer_rows, passage_rows, purpose_rows
from .console import Stages, answers_console, print_line, print_rows, rows_of
from .errors import clear_errors
from .loading import load_pipeline, read_files_or_reading
from .options import (
    READING_SUFFIX,
    TOKENS_AT_ONCE,
    Abstain,
    Budget,
    Encoding,
    Fetch,
    FileOptions,
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
    closer_look,
    conversation,
    given,
    holding,
    is_reading,
    limits,
)
from .output_files import check_output, written_whole
from .streaming import shown_as_it_comes

if TYPE_CHECKING:
    from ..answering.results import LongDocAnswer
    from ..caching.document_cache import DocumentCache
    from ..pipeline_long_doc_qa import LongDocQAPipeline

_HELP = """\
/passages     what was copied for the last answer, whole
/page N       write page N as a picture, with the last answer's evidence marked
/new          forget what was said before
/save FILE    keep the reading, for `hybridctx ask` and `hybridctx chat` (FILE.safetensors)
/quit         stop; so does Ctrl-D"""


def chat(
    document: FilesOrReading,
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
    history: Annotated[
        bool | None,
        typer.Option(
            help="Whether the model is told what was said before; not the bundled checkpoint, unless given, as it looks "
            "facts up and does not converse.",
            show_default=False,
        ),
    ] = None,
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
    """Read a document once and answer one question after the other; /help says what else there is."""
    stages = Stages()
    files = FileOptions(pages, password, encoding, layout, ocr, fetch)
    with clear_errors():
        bounds = limits(budget, visual_share, min_scale, max_text_tokens, latent_share, text_policy)
        look = closer_look(look_closer, text_policy)
        held = {**holding(grounding, repair, abstain), **look}
        content = read_files_or_reading(document, files)
        with stages.stage("load the model"):
            pipe = load_pipeline(model, font, content)
        chosen = {**given(text_policy=text_policy), **conversation(system, no_think)}
        if is_reading(document):
            reading = content
            reading.attach(pipe.model, pipe.processor)
        else:
            with stages.stage("read the document"):
                laid_out = pipe.processor.read_document(content)
                reads = {**chosen, "text_policy": "attention"} if look else chosen  # pages, to be looked at
                reading = pipe.read(laid_out, budget=bounds, prefill_chunk_size=TOKENS_AT_ONCE, **reads)
    print_rows(answers_console(), [*rows_of(reading.plan.summary()), *purpose_rows(pipe.model)])
    options = {"budget": bounds, **chosen, **held, **given(max_new_tokens=max_new_tokens)}
    session = _Session(
        pipe, reading, options, Path(document[0]).stem, model is not None if history is None else history
    )
    for line in _lines():
        try:
            with clear_errors():
                session.take(line)
        except typer.Exit:
            continue  # it was said what is wrong; the next question may be better
        except KeyboardInterrupt:
            print_line("(stopped)")
        if session.is_over:
            break


@dataclass
class _Session:
    """One document that was read, and the last answer about it."""

    pipe: LongDocQAPipeline
    reading: DocumentCache
    options: dict[str, Any]
    name: str
    has_history: bool
    history: list[tuple[str, str]] = field(default_factory=list)
    is_over: bool = False
    asked: str = ""
    last: LongDocAnswer | None = None

    def take(self, line: str) -> None:
        """Answer a question, or do what a line that begins with a slash says."""
        if not line.startswith("/"):
            self._answer(line)
            return
        command, _, rest = line[1:].partition(" ")
        match command:
            case "passages":
                print_rows(answers_console(), passage_rows(self.asked, self._answered(), all_passages=True))
            case "page":
                self._write_page(rest)
            case "save":
                path = Path(rest.strip()).expanduser()
                if path.suffix != READING_SUFFIX:
                    raise ValueError(f"/save {rest}: name a file that ends with {READING_SUFFIX}")
                check_output(path, "/save")
                self.reading.save(path)
                print_line(f"written to {path}")
            case "new":
                self.history.clear()
            case "quit" | "exit":
                self.is_over = True
            case "help":
                print_line(_HELP)
            case _:
                raise ValueError(f"there is no /{command}; /help says what there is")

    def _answer(self, question: str) -> None:
        stages = Stages()
        with stages.stage("answer") as show:
            shown = shown_as_it_comes(self.pipe, show)
            answer = self.pipe(question=question, document=self.reading, history=self.history, **self.options, **shown)
        self.asked, self.last = question, answer
        if self.has_history:
            self.history.append((question, answer["answer"]))
        print_rows(answers_console(), answer_rows(question, answer)[1:])

    def _answered(self) -> LongDocAnswer:
        if self.last is None:
            raise ValueError("nothing was asked yet")
        return self.last

    def _write_page(self, number: str) -> None:
        from ..prompting.pages import drawn_page
        from ..rendering.rasterizing import mark_boxes, unroll_strip

        plan = self.last["plan"] if self.last else self.reading.plan
        count = plan.document.num_pages
        if not number.strip().isdecimal() or not 1 <= int(number) <= count:
            raise ValueError(f"/page {number}: name one of the pages 1 to {count:,}")
        page = int(number) - 1
        boxes = [item["box"] for item in (self.last["evidence"] if self.last else ()) if item["page"] == page]
        path = Path(f"{self.name}-page-{page + 1}.png")
        with written_whole(path) as unfinished:
            unroll_strip(mark_boxes(drawn_page(plan.document, page, plan.scale), boxes)).save(unfinished)
        print_line(f"written to {path}")


def _lines() -> Iterator[str]:
    """What is typed, line by line, without the empty ones; a prompt stands before each on a terminal."""
    prompt = "\n> " if sys.stdin.isatty() else ""
    while True:
        try:
            line = input(prompt).strip()
        except (EOFError, KeyboardInterrupt):
            return
        if line:
            yield line
