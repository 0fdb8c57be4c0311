# SPDX-License-Identifier: Apache-2.0
"""`hybridctx evaluate` and `hybridctx heads`: what a checkpoint finds in long documents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from typer.core import TyperGroup

from .console import answers_console, print_line
from .errors import clear_errors
from .evaluation_options import check_contexts_heed, check_has_latents, load_model, numbers
from .evaluation_results import compare, harness, report, tradeoff
from .loading import load_pipeline, read_prose
from .options import Haystack, Model
from .output_files import check_output, write_json, written_whole

if TYPE_CHECKING:
    from ..evaluation.tables import Table as Figures

Seed = Annotated[int, typer.Option(help="Of the documents, keys and values.")]
_FIRST_WORDS = "suite"


class _SuiteUnlessNamed(TyperGroup):
    """`evaluate ruler` is `evaluate suite ruler`: what is no command is a suite or a file."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = [_FIRST_WORDS, *args]
        return list(super().parse_args(ctx, args))


evaluate = typer.Typer(
    cls=_SuiteUnlessNamed,
    help="A checkpoint on the field's benchmarks, the cost beside every score: hybridctx evaluate SUITE, or a text file "
    "for needles in its prose. `hybridctx evaluate suite --help` says how.",
    no_args_is_help=True,
)


evaluate.command()(tradeoff)
evaluate.command()(report)
evaluate.command()(compare)
evaluate.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})(
    harness
)


@evaluate.command(_FIRST_WORDS)
def evaluate_suite(
    suite: Annotated[
        str,
        typer.Argument(
            help="needles, needles-said, ruler, niah, longbench, longbench-v2, helmet, mrcr, qasper, vtcbench, fox, "
            "mmlongbench-doc, rows; or a text file: needles in it.",
            show_default=False,
        ),
    ],
    model: Model = None,
    context: Annotated[
        list[str],
        typer.Option(
            help="pages, tokens, truncated, bm25-only, latents, hybrid; several times for each; all but tokens and "
            "latents if not given."
        ),
    ] = [],  # noqa: B006
    policy: Annotated[
        list[str], typer.Option(help="What a hybrid copies: anchors, bm25, attention, ...; several times for each.")
    ] = [],  # noqa: B006
    fusion_order: Annotated[
        list[str], typer.Option(help="pages_first, tokens_first or tokens_last; several times for each.")
    ] = [],  # noqa: B006
    grounding: Annotated[
        list[str],
        typer.Option(help="How answers are held to the document: none, quote, strings; several times for each."),
    ] = ["none"],  # noqa: B006
    quote_after: Annotated[
        str | None,
        typer.Option(
            help="Of --grounding quote: a model's quotation follows these words, such as </think>; it stands between "
            "<think> and </think> if not given.",
            show_default=False,
        ),
    ] = None,
    blank_pages: Annotated[
        bool, typer.Option("--blank-pages", help="Also with nothing on the pages: what holding alone gives.")
    ] = False,
    latent_share: Annotated[
        list[float],
        typer.Option(
            help="Pages, passages and hybrids also with latents, which take at most this share of the prompt; several "
            "times for each. For checkpoints with a latent encoder.",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    budget: Annotated[int | None, typer.Option(min=1, help="Longest prompt in tokens.", show_default=False)] = None,
    budget_share: Annotated[
        float | None,
        typer.Option(
            help="The same as a part of the context's tokens; 0.5 unless --budget is given.", show_default=False
        ),
    ] = None,
    lengths: Annotated[
        list[str],
        typer.Option(
            "--lengths", "--num-tokens", help="Tokens of the contexts, such as 4096,8192.", show_default=False
        ),
    ] = [],  # noqa: B006
    task: Annotated[list[str], typer.Option(help="Only these of the suite's tasks.", show_default=False)] = [],  # noqa: B006
    examples: Annotated[
        int | None, typer.Option(min=1, help="Samples for each task and length; the suite's own number if not given.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of all that is drawn; the suite's own if not given.")] = None,
    data: Annotated[
        str | None,
        typer.Option(help="The suite's data: a folder in the published form, or a Hub id.", show_default=False),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option(help="Of a data set on the Hub: a commit, to have the same rows again.", show_default=False),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="A model that grades what no rule can (helmet, mmlongbench-doc), at the OpenAI-compatible endpoint of "
            "OPENAI_BASE_URL and OPENAI_API_KEY.",
            show_default=False,
        ),
    ] = None,
    prose: Annotated[Path | None, typer.Option(help="A text file to hide needles in.", show_default=False)] = None,
    num_beams: Annotated[int, typer.Option(min=1, help="Beams of the search.")] = 1,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest answer, in place of the suite's own bound.", show_default=False)
    ] = None,
    answer_prefix: Annotated[
        str | None,
        typer.Option(
            help="Where the suite's own beginning of an answer stands: question (at its end) or answer (which goes on "
            "from it).",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        list[Path],
        typer.Option(
            help="A folder that keeps each sample as it is finished: a run that was stopped, or that had fewer "
            "--examples, goes on. NAME.json: the table alone. Both may be given.",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    card: Annotated[
        Path | None,
        typer.Option(help="A model card to write the table and the metadata into, too.", show_default=False),
    ] = None,
) -> None:
    """A benchmark: pages only, tokens only and hybrids side by side, with cost and 95% intervals."""
    with clear_errors("evaluate"):
        from ..conversion.model_cards import fill_benchmark_card
        from ..evaluation.contexts import make_contexts
        from ..evaluation.runner import run
        from ..evaluation.suites.registry import SUITES, make_suite

        if suite not in SUITES and Path(suite).is_file():
            suite, prose = "needles", Path(suite)
        if prose is not None:
            read_prose(prose)
        chosen = make_suite(
            suite,
            tasks=tuple(task) or None,
            examples=examples,
            seed=seed,
            lengths=numbers("--lengths", lengths) or None,
            data=data,
            revision=revision,
            judge=judge,
            prose=prose,
        )
        folders = [file for file in out if file.suffix != ".json"]
        if len(folders) > 1:
            raise ValueError(f"--out {folders[0]} and --out {folders[1]} are two folders, and one keeps the samples")
        folder = folders[0] if folders else None
        for file in out:
            check_output(file, "--out", is_folder=file == folder)
        if card is not None and not card.is_file():
            raise FileNotFoundError(f"--card {card}: there is no such file")
        if budget is None and budget_share is None:
            budget_share = 0.5
        check_contexts_heed(
            context, {"--policy": policy, "--fusion-order": fusion_order, "--latent-share": latent_share}
        )
        if quote_after is not None and "quote" not in grounding:
            raise ValueError(f"--quote-after {quote_after} is for --grounding quote, which is not asked for")
        contexts = make_contexts(
            context,
            policy,
            grounding,
            fusion_order,
            blank_pages,
            latent_share,
            budget=budget,
            budget_share=budget_share,
            quote_after=quote_after,
        )
        generation = {"max_new_tokens": max_new_tokens} if max_new_tokens else {}
        asked = load_model(model)
        if any(one.has_latents for one in contexts):
            check_has_latents(asked)
        table = run(
            chosen, asked, contexts, out=folder, answer_prefix=answer_prefix, num_beams=num_beams, **generation
        )
        if all(row.is_unmeasured for row in table.rows):
            raise ValueError(f"nothing was measured, as every question failed: {table.rows[0].first_failure}")
        tables = [file for file in out if file != folder]
        if folder is not None:
            tables.append(folder / "table.json")
        for file in tables:
            write_json(file, table.to_dict())
        if card is not None:
            fill_benchmark_card(card, table.to_dict())
        if folder is not None:
            with written_whole(folder / "table.md") as unfinished:
                unfinished.write_text(table.to_markdown() + "\n", encoding="utf-8")
    _print_table(table)


def _print_table(table: Figures) -> None:
    heading, rows = table.cells()
    shown = Table(*heading)
    for row in rows:
        shown.add_row(*row)
    answers_console().print(shown)
    for failed in (one for one in table.rows if one.failures):
        counted = "all failed" if failed.is_unmeasured else f"{failed.failures} failed and count as 0"
        print_line(f"{failed.context}: {counted}, the first with {failed.first_failure}")
    for group in table.same_cost():
        print_line("same cost (to 5%): " + "; ".join(group))


def heads(
    haystack: Haystack,
    model: Model = None,
    num_tokens: Annotated[int, typer.Option(min=1, help="Length of the documents in text tokens.")] = 2048,
    examples: Annotated[int, typer.Option(min=1, help="Documents for each task.")] = 20,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Write all heads as JSON here.")] = None,
) -> None:
    """Which attention heads find a needle's passage: what the policy `attention` can listen to (`retrieval_heads`)."""
    with clear_errors("evaluate"):
        from ..evaluation.retrieval_heads import measure_retrieval_heads

        if out:
            check_output(out, "--out")
        text = read_prose(haystack)
        found = measure_retrieval_heads(load_pipeline(model), text, num_tokens, examples, seed)
        if out:
            write_json(out, found)
    table = Table("head", "mean reciprocal rank", "among the first 4")
    rows = [(f"layer {layer}, head {head}", row) for row in found["heads"][:8] for layer, head in [row["head"]]]
    for name, row in [*rows, *((name.replace("_", " "), found[name]) for name in ("all_heads", "bm25", "chance"))]:
        table.add_row(name, f"{row['mean_reciprocal_rank']:.2f}", f"{row['hit_at_4']:.0%}")
    answers_console().print(table)
