# SPDX-License-Identifier: Apache-2.0
"""`hybridctx evaluate tradeoff`, `report`, `compare` and `harness`, and `hybridctx legibility`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from .console import answers_console, print_line
from .errors import clear_errors
from .evaluation_options import load_model, numbers
from .loading import load_pipeline, read_prose
from .options import Model
from .output_files import check_output, write_json, written_whole

Run = Annotated[Path, typer.Argument(help="A folder that `hybridctx evaluate ... --out` wrote.", show_default=False)]


def tradeoff(
    prose: Annotated[Path, typer.Argument(help="A text file to hide facts in.", show_default=False)],
    model: Model = None,
    lengths: Annotated[list[str], typer.Option(help="Tokens of the documents.")] = ["1024,2048,4096"],  # noqa: B006
    budget_share: Annotated[list[str], typer.Option(help="Budgets as parts of these.")] = ["0.4,0.6"],  # noqa: B006
    scale: Annotated[list[str], typer.Option(help="Densities of pages alone: 1 is the checkpoint's.")] = ["1"],  # noqa: B006
    policy: Annotated[
        list[str], typer.Option(help="What hybrids copy, several times for each: anchors, bm25 and attention if none.")
    ] = [],  # noqa: B006
    fusion_order: Annotated[
        list[str], typer.Option(help="pages_first, tokens_first, several times for each; both if none.")
    ] = [],  # noqa: B006
    grounding: Annotated[
        list[str], typer.Option(help="none, quote, strings, several times for each; none and quote if not given.")
    ] = [],  # noqa: B006
    blank_pages: Annotated[bool, typer.Option("--blank-pages", help="Also with nothing on the pages.")] = False,
    task: Annotated[list[str], typer.Option(help="Only these: single_number, multikey, second_hop.")] = [],  # noqa: B006
    examples: Annotated[int, typer.Option(min=1, help="Samples for each task and length.")] = 20,
    seed: Annotated[int, typer.Option(help="Of the documents, keys and values.")] = 0,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer.", show_default=False)] = None,
    out: Annotated[
        Path, typer.Option(help="Folder of samples (a run that was stopped goes on), tradeoff.json, .md and .png.")
    ] = Path("tradeoff"),
) -> None:
    """Accuracy against context tokens: pages at each density, tokens, passages and hybrids, free and held."""
    with clear_errors("evaluate"):
        from ..evaluation.contexts import HYBRID_POLICIES
        from ..evaluation.plots import plot_costs
        from ..evaluation.suites.chains import TradeOffTasks
        from ..evaluation.tradeoff import ORDERS, measure_tradeoff, tradeoff_markdown

        check_output(out, "--out", is_folder=True)
        read_prose(prose)
        suite = TradeOffTasks(tuple(task), examples, seed, numbers("--lengths", lengths), prose)
        figures = measure_tradeoff(
            suite,
            load_model(model),
            shares=numbers("--budget-share", budget_share, float),
            scales=numbers("--scale", scale, float),
            policies=policy or HYBRID_POLICIES,
            orders=fusion_order or ORDERS,
            groundings=grounding or ("none", "quote"),
            blank_pages=blank_pages,
            out=out,
            **({"max_new_tokens": max_new_tokens} if max_new_tokens else {}),
        )
        page = tradeoff_markdown(figures)
        write_json(out / "tradeoff.json", figures)
        with written_whole(out / "tradeoff.md") as unfinished:
            unfinished.write_text(page + "\n", encoding="utf-8")
        plot_costs(figures["points"], figures["tasks"], out / "tradeoff.png")
    print_line(page)


def report(run: Run) -> None:
    """Write what a run says: a page with its table, pictures, and the metadata of a model card."""
    with clear_errors("evaluate"):
        from ..evaluation.report import write_report

        for file in write_report(run):
            print_line(str(file))


def compare(
    first: Run,
    second: Run,
    first_context: Annotated[
        str | None, typer.Option(help="Its label, such as 'hybrid, bm25'.", show_default=False)
    ] = None,
    second_context: Annotated[str | None, typer.Option(help="That of the other.", show_default=False)] = None,
    out: Annotated[Path | None, typer.Option(help="Write the table as JSON here.", show_default=False)] = None,
) -> None:
    """Whether two runs differ, sample by sample: of every context that both have, or of one of each."""
    with clear_errors("evaluate"):
        from ..evaluation.report import compare_runs

        if out:
            check_output(out, "--out")
        rows = compare_runs(first, second, first_context, second_context)
        if out:
            write_json(out, rows)
    table = Table("context", "task", "n", "first", "second", "difference", "95%", "p", "better", "worse", "unpaired")
    for row in rows:
        same = row["context_a"] == row["context_b"]
        table.add_row(
            row["context_a"] if same else f"{row['context_a']} / {row['context_b']}",
            row["task"],
            str(row["n"]),
            *(f"{row[name]:.1%}" for name in ("mean_a", "mean_b")),
            f"{row['difference']:+.1%}",
            f"{row['low']:+.1%} to {row['high']:+.1%}",
            f"{row['p_value']:.4f}",
            *(str(row[name]) for name in ("better", "worse", "unpaired")),
        )
    answers_console().print(table)


def harness(context: typer.Context) -> None:
    """lm-evaluation-harness, which then knows the model `hybridctx`: its own command line comes after this word."""
    with clear_errors("evaluate"):
        from lm_eval.__main__ import cli_evaluate

        from ..evaluation import harness as registered  # noqa: F401

        sys.argv = ["lm_eval", *context.args]
        cli_evaluate()


def legibility(
    model: Model = None,
    font_size: Annotated[
        list[str],
        typer.Option(help="In points, such as 5,7,9; the checkpoint's own if not given.", show_default=False),
    ] = [],  # noqa: B006
    dpi: Annotated[
        list[str], typer.Option(help="Such as 72,96; the checkpoint's own if not given.", show_default=False)
    ] = [],  # noqa: B006
    examples: Annotated[int, typer.Option(min=1, help="Texts for each setting.")] = 5,
    characters: Annotated[int, typer.Option(min=20, help="Of a text.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the texts.")] = 0,
    question: Annotated[
        str | None,
        typer.Option(help="What asks for the text, in words that the checkpoint knows.", show_default=False),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="NAME.json, and the curve as NAME.png.", show_default=False)] = None,
) -> None:
    """Which print a checkpoint reads: random text in several sizes and resolutions, and the errors of reading it back."""
    with clear_errors("evaluate"):
        from ..evaluation.legibility import QUESTION, measure_legibility
        from ..evaluation.plots import plot_legibility

        if out:
            check_output(out, "--out")
        settings = numbers("--font-size", font_size, float), numbers("--dpi", dpi, float)
        asked = question or QUESTION
        found = measure_legibility(load_pipeline(model), *settings, examples, characters, seed, asked)
        if out:
            write_json(out, found)
            plot_legibility(found["rows"], out.with_suffix(".png"))
    table = Table("font size", "dpi", "characters a visual token", "errors", "95%", "failed")
    for row in found["rows"]:
        low, high = row["interval"]
        cells = f"{row['characters_per_visual_token']:.2f}", f"{row['error_rate']:.1%}", f"{low:.0%} to {high:.0%}"
        table.add_row(f"{row['font_size']:g}", f"{row['dpi']:g}", *cells, str(row["failures"]))
    answers_console().print(table)
    best = found["best"]
    density = "none" if best is None else f"{best['characters_per_visual_token']:.2f}"
    print_line(f"characters a visual token at 5% errors: {density}")
