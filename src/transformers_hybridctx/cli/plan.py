# SPDX-License-Identifier: Apache-2.0
"""`hybridctx plan`: what a request would cost, without a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from .console import answers_console, print_rows
from .errors import clear_errors
from .loading import load_pipeline, load_planner, read_files_or_reading
from .options import (
    Budget,
    Encoding,
    Fetch,
    FileOptions,
    FilesOrReading,
    Font,
    LatentShare,
    MaxTextTokens,
    MinScale,
    Model,
    Ocr,
    PageLayout,
    Pages,
    Password,
    VisualShare,
    check_questions,
    in_options,
    is_reading,
    limits,
)

if TYPE_CHECKING:
    from ..planning.plan import ContextPlan
    from ..planning.policies.base import TextPolicy
    from ..processing_hybridctx import HybridCtxProcessor
    from .quick_planner import QuickPlanner

_COLUMNS = ("prompt", "visual", "copied", "spans", "scale", "compression", "characters a token", "left out")
_NEEDS_A_MODEL = (
    "the policy 'attention' copies what the model attends to, and `plan` runs no model: "
    "`ask --text-policy attention` does"
)


def plan(
    document: FilesOrReading,
    question: Annotated[
        str | None, typer.Option("--question", "-q", help="What bm25 looks for; without, it has nothing to copy.")
    ] = None,
    model: Model = None,
    budget: Budget = None,
    visual_share: VisualShare = None,
    min_scale: MinScale = None,
    max_text_tokens: MaxTextTokens = None,
    latent_share: LatentShare = None,
    font: Font = None,
    pages: Pages = None,
    password: Password = None,
    encoding: Encoding = None,
    layout: PageLayout = None,
    ocr: Ocr = None,
    fetch: Fetch = False,
) -> None:
    """Print what each text policy would cost, in tokens, without running a model.

    Exit code 1: no policy can be met.
    """
    from ..planning.budget import ContextBudgetError
    from ..planning.omissions import why_undrawn
    from ..planning.policies.registry import TEXT_POLICIES, resolve_text_policy

    files = FileOptions(pages, password, encoding, layout, ocr, fetch)
    with clear_errors():
        limits(budget, visual_share, min_scale, max_text_tokens, latent_share)  # before anything is read
        check_questions(*([] if question is None else [question]))
        content = read_files_or_reading(document, files)
        if is_reading(document):  # which fits one model, that it is held against
            pipe = load_pipeline(model, font, content)
            planner: HybridCtxProcessor | QuickPlanner = pipe.processor
            content.attach(pipe.model, planner)
            laid_out, own = content.plan.document, content.text_policy
        else:
            planner = load_planner(model, font, content)
            laid_out, own = planner.read_document(content), resolve_text_policy(planner.default_text_policy)

        def plan_with(policy: str | TextPolicy) -> ContextPlan:
            full = "full" if "full" in (policy, getattr(policy, "name", None)) else None
            bounds = limits(budget, visual_share, min_scale, max_text_tokens, latent_share, full)
            if not is_reading(document):
                return planner.plan(laid_out, question, budget=bounds, text_policy=policy)
            planned: ContextPlan = content.prompt(planner, question, bounds, policy)[1]
            return planned

        if latent_share:
            with suppress(ContextBudgetError):
                plan_with("none")  # what is wrong with latents here is wrong under every policy
        policies: dict[str, str | TextPolicy] = {f"{own.name}, as ask": own, **{name: name for name in TEXT_POLICIES}}
        plans = {name: _plan_or_reason(plan_with, policy) for name, policy in policies.items()}
        text = laid_out.text
        size = f"{len(text):,} characters, {planner.encoder.count(text) if text else 0:,} tokens as text"
    console = answers_console()
    rows = [
        ("document", size),
        ("laid out", f"{laid_out.num_pages:,} pages"),
        ("no font", why_undrawn(laid_out)),
        ("as ask", _knobs(own)),
    ]
    print_rows(console, [row for row in rows if row[1]])
    console.print()
    console.print(_table_of(plans, has_latents=bool(latent_share)))
    told = (
        "Tokens of the whole prompt, of pages and of copied text; text tokens, and characters, for each of these two's"
    )
    console.print(f"\n{told}; characters left out of both.", style="dim")
    reasons = [(name, found) for name, found in plans.items() if isinstance(found, str)]
    if reasons:
        console.print()
        print_rows(console, reasons)
    if len(reasons) == len(plans):
        raise typer.Exit(1)


def _plan_or_reason(
    plan_with: Callable[[str | TextPolicy], ContextPlan], policy: str | TextPolicy
) -> ContextPlan | str:
    """What a policy would cost, or why there is no such plan."""
    from ..planning.budget import ContextBudgetError

    if getattr(policy, "name", policy) == "attention" and getattr(policy, "ranking", None) is None:
        return _NEEDS_A_MODEL
    try:
        return plan_with(policy)
    except ContextBudgetError as error:
        return in_options(f"cannot be met; the smallest {error.field} that works is {error.smallest:,}")
    except ValueError as error:
        return in_options(str(error))


def _table_of(plans: dict[str, ContextPlan | str], has_latents: bool) -> Table:
    table = Table("policy", box=None, header_style="bold", padding=(0, 2, 0, 0))
    columns = (*_COLUMNS, "latents") if has_latents else _COLUMNS
    for heading in columns:
        table.add_column(heading, justify="right")
    for name, found in plans.items():
        if isinstance(found, str):
            table.add_row(name, "–", *[""] * (len(columns) - 1), style="dim")
        else:
            table.add_row(name, *_cells(found), *([f"{found.latent_tokens:,}"] if has_latents else []))
    return table


def _cells(found: ContextPlan) -> Sequence[str]:
    """A plan's figures in the order of the columns."""
    ratio, characters = found.compression_ratio, found.characters_per_token
    return (
        f"{found.total_tokens:,}",
        f"{found.visual_tokens:,}",
        f"{found.text_tokens:,}",
        f"{len(found.spans):,}",
        f"{found.scale:g}" if found.num_pages else "no pages",
        "unknown" if ratio is None else f"{ratio:.2f}",
        "unknown" if characters is None else f"{characters:.2f}",
        f"{found.omitted_characters:,}",
    )


def _knobs(policy: TextPolicy) -> str:
    """A policy as one would ask for it, with what is not its default."""
    names: list[str] = [item.name for item in fields(policy)] if is_dataclass(policy) else []
    default = type(policy)()
    knobs = {name: getattr(policy, name) for name in names if getattr(policy, name) != getattr(default, name)}
    told = ", ".join([policy.name, *(f"{name}={value!r}" for name, value in knobs.items())])
    return f"{told}: what `ask` takes unless told otherwise"
