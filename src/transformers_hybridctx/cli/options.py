# SPDX-License-Identifier: Apache-2.0
"""Arguments and options that several commands have, and what of the library they stand for."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

GROUNDINGS = ("quote", "strings", "none")
READING_SUFFIX = ".safetensors"
"""Of a document that a model has read."""
TOKENS_AT_ONCE = 1024
"""That go through the decoder while a document is read: it can be said how far it is, and it takes less memory."""

Files = Annotated[
    list[str],
    typer.Argument(
        metavar="DOCUMENT",
        help="A file (text, Markdown, HTML, PDF, a picture of a page), a folder, or - for standard input; several are "
        "one document.",
        show_default=False,
    ),
]
FilesOrReading = Annotated[
    list[str],
    typer.Argument(
        metavar="DOCUMENT",
        help="A file (text, Markdown, HTML, PDF, a picture of a page), a folder, or - for standard input; several are "
        "one document. Or what `hybridctx read` wrote.",
        show_default=False,
    ),
]
Haystack = Annotated[Path, typer.Argument(help="A text file whose prose hides the needles.", show_default=False)]
Model = Annotated[
    str | None, typer.Option(help="Folder or Hub id of a checkpoint; the one inside the package if not given.")
]
Budget = Annotated[
    int | None,
    typer.Option(
        min=1, help="Longest prompt, in tokens; the checkpoint's own bound if not given.", show_default=False
    ),
]
VisualShare = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Part of the budget that pages may take: 0 is tokens only, 1 lets them take all."),
]
MinScale = Annotated[
    float | None,
    typer.Option(min=0.01, max=16, help="Draw no page smaller than this; 1 is the checkpoint's own resolution."),
]
MaxTextTokens = Annotated[
    int | None, typer.Option(min=0, help="Most tokens of copied text; the checkpoint's own bound if not given.")
]
LatentShare = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        help="Part of the budget that latents may take, where pages do not fit; for checkpoints with a latent encoder.",
        show_default=False,
    ),
]
Policy = Annotated[
    str | None,
    typer.Option(
        help="What is copied as exact tokens: bm25, attention, anchors, tail, middle, full or none; the checkpoint's "
        "own choice if not given.",
        show_default=False,
    ),
]
LOOKS = {"tokens": {}, "larger": {"zoom": 2.0}}
LookCloser = Annotated[
    str | None,
    typer.Option(
        help="Once the question is read, append the passages that the model attends to, and go on from there: tokens "
        "(exactly) or larger (drawn twice as large); in place of --text-policy.",
        show_default=False,
    ),
]
MaxNewTokens = Annotated[int | None, typer.Option(min=1, help="Longest answer, in tokens.")]
GroundingMode = Annotated[
    str | None,
    typer.Option(
        "--grounding",
        help="Hold the answer to the document's own text as it is said: quote (a quotation, and the answer out of it), "
        "strings (codes, numbers and identifiers only) or none; the checkpoint's own choice if not given.",
        show_default=False,
    ),
]
Repair = Annotated[
    bool, typer.Option("--repair", help="Put the document's own string in where exactly one is near to what was said.")
]
Abstain = Annotated[
    bool,
    typer.Option(
        "--abstain",
        help="Give no answer where nothing in the document supports it, or it is likelier wrong than right.",
    ),
]
System = Annotated[
    str | None, typer.Option(help="A system message, which comes before the document.", show_default=False)
]
NoThink = Annotated[
    bool,
    typer.Option("--no-think", help="Let the model answer without thinking, where its chat template knows that."),
]
SYSTEM_FONTS = "system"
Font = Annotated[
    str | None,
    typer.Option(
        help="A font file for characters that the checkpoint's fonts lack (of a collection, with its face: a.ttc#2); or "
        "system: those of this machine that the document needs, or, where documents come later, all that help.",
        show_default=False,
    ),
]

Pages = Annotated[
    str | None,
    typer.Option(
        help="Of a PDF or a picture of many frames: those to read, such as 3, 10-20,25 or 90-.", show_default=False
    ),
]
Password = Annotated[str | None, typer.Option(help="Of an encrypted PDF.", show_default=False)]
PageLayout = Annotated[
    str | None,
    typer.Option(
        "--layout",
        help="How PDFs are shown: typeset (their text set anew, which the bundled checkpoint reads best), source (their "
        "own pages), or auto (own pages where pictures, tables, drawings or form fields matter).  [default: typeset]",
        show_default=False,
    ),
]
Ocr = Annotated[
    str | None,
    typer.Option(
        help="Recognise the text of scans with tesseract, in these languages, such as eng or deu+fra.",
        show_default=False,
    ),
]
Fetch = Annotated[bool, typer.Option("--fetch", help="Fetch documents that are given by http or https addresses.")]
Encoding = Annotated[
    str | None, typer.Option(help="Of a text file, such as cp1252, where it is not UTF-8.", show_default=False)
]

_OPTIONS = {
    "max_context_tokens": "--budget",
    "budget_share": "--budget-share",
    "visual_share": "--visual-share",
    "min_scale": "--min-scale",
    "max_text_tokens": "--max-text-tokens",
    "latent_share": "--latent-share",
    "text_policy": "--text-policy",
    "look_closer": "--look-closer",
    "max_new_tokens": "--max-new-tokens",
    "grounding": "--grounding",
    "chat_template_kwargs": "--no-think",
    "system": "--system",
    "pages": "--pages",
    "password": "--password",
    "encoding": "--encoding",
    "layout": "--layout",
    "ocr": "--ocr",
    "scale": "--scale",
    "overwrite": "--overwrite",
    "dtype": "--dtype",
    "revision": "--revision",
}
_NO_THINK = re.compile(r"chat_template_kwargs=\{[^}]*\}")
_ZOOM = re.compile(r"\bzoom=[\d.]+")
_GIVEN = re.compile(rf"\b({'|'.join(_OPTIONS)})=")
_MENTIONED = re.compile(rf"\b({'|'.join(name for name in _OPTIONS if '_' in name)})\b")  # the others are words, too


def given(**options: Any) -> dict[str, Any]:
    """The options that were given: the others are left to the library's and the checkpoint's defaults."""
    return {name: value for name, value in options.items() if value is not None}


@dataclass(frozen=True)
class FileOptions:
    """How files are read; what is None was not given."""

    pages: str | None = None
    password: str | None = None
    encoding: str | None = None
    layout: str | None = None
    ocr: str | None = None
    fetch: bool = False


def is_reading(documents: Sequence[str]) -> bool:
    """Whether what is given is a file that `hybridctx read` wrote."""
    return len(documents) == 1 and is_a_reading(documents[0])


def is_a_reading(document: str) -> bool:
    """Whether a name is one of those that `hybridctx read` gives to what it writes."""
    return document.endswith(READING_SUFFIX)


def check_questions(*questions: str) -> None:
    """
    Refuse questions without a word, before anything is read.

    Raises:
        ValueError: a question is empty or blank.
    """
    for question in questions:
        if not question.strip():
            raise ValueError(f"--question {question!r} is empty: say what is to be found in the document")


def conversation(system: str | None, no_think: bool) -> dict[str, Any]:
    """What stands around the document and the question; a reading must have been made with the same."""
    return given(system=system, chat_template_kwargs={"enable_thinking": False} if no_think else None)


def holding(grounding: str | None, repair: bool, abstain: bool) -> dict[str, Any]:
    """
    How answers are held to the document, and checked.

    Raises:
        ValueError: an unknown way.
    """
    if grounding not in (None, *GROUNDINGS):
        raise ValueError(f"--grounding {grounding} is not one of {', '.join(GROUNDINGS)}")
    return given(grounding=grounding, repair=repair or None, abstain=abstain or None)


def closer_look(look_closer: str | None, text_policy: str | None) -> dict[str, Any]:
    """
    What the pipeline takes for `--look-closer`.

    Raises:
        ValueError: an unknown way, or a text policy beside it.
    """
    if look_closer is None:
        return {}
    if look_closer not in LOOKS:
        raise ValueError(f"--look-closer {look_closer} is not one of {', '.join(LOOKS)}")
    if text_policy is not None:
        raise ValueError(
            f"--look-closer copies what the model attends to, behind the question, and --text-policy {text_policy} says "
            "otherwise: drop one of them"
        )
    return {"look_closer": LOOKS[look_closer]}


def limits(
    budget: int | None,
    visual_share: float | None,
    min_scale: float | None,
    max_text_tokens: int | None,
    latent_share: float | None = None,
    text_policy: str | None = None,
) -> dict[str, Any]:
    """The fields of a `ContextBudget` that were given; under the policy `full`, nothing but the budget bounds the text.

    Raises:
        ValueError: an unknown policy; options of which one makes the other senseless.
    """
    if text_policy is not None:
        from ..planning.policies.registry import resolve_text_policy

        resolve_text_policy(text_policy)
    if visual_share == 0 and min_scale is not None:
        raise ValueError(
            f"--visual-share 0 leaves the pages out, and --min-scale {min_scale:g} is about them: drop one"
        )
    if text_policy == "none" and max_text_tokens:
        raise ValueError(
            f"--text-policy none copies nothing, and --max-text-tokens {max_text_tokens} bounds it: drop one"
        )
    if text_policy == "full" and max_text_tokens is None:
        max_text_tokens = sys.maxsize
    return given(
        max_context_tokens=budget,
        visual_share=visual_share,
        min_scale=min_scale,
        max_text_tokens=max_text_tokens,
        latent_share=latent_share,
    )


def in_options(message: str) -> str:
    """An error of the library in the words of the command line: `max_context_tokens=3` is `--budget 3` there."""
    message = _ZOOM.sub("--look-closer larger", _NO_THINK.sub("--no-think", message))
    message = _GIVEN.sub(_as_option, message)
    return _MENTIONED.sub(lambda match: _OPTIONS[match[1]], message)


def _as_option(match: re.Match[str]) -> str:
    """`password=` on its own is `--password`; before a value, a blank stands in place of the sign."""
    has_value = re.match(r"[^\s),;:]", match.string[match.end() :])
    return _OPTIONS[match[1]] + " " * bool(has_value)
