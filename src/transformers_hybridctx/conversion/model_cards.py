# SPDX-License-Identifier: Apache-2.0
"""Model cards whose facts are filled in: from a conversion, or from a benchmark's JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from .sources import Checkpoint
from .tensor_files import CheckpointError

if TYPE_CHECKING:
    from ..configuration_hybridctx import HybridCtxConfig
    from ..processing_hybridctx import HybridCtxProcessor

CONVERTED_TEMPLATE = Path(__file__).with_name("model_card_converted.md")
LIBRARY = "transformers-hybridctx"
PIPELINE_TAG = "image-text-to-text"  # the Hub's own list has no tag for questions on long documents
_TAGS = ["hybridctx", "long-context", "long-doc-qa", "visual-text-compression"]
_TABLE_BEGIN, _TABLE_END = "<!-- benchmark table: begin -->", "<!-- benchmark table: end -->"


def converted_card(
    checkpoint: Checkpoint, config: HybridCtxConfig, processor: HybridCtxProcessor, report: dict[str, Any]
) -> ModelCard:
    """The card of a converted checkpoint. Licence and languages are the source's, where its card states them."""
    source, page = report["source"], report["page"]
    on_hub = source["revision"] is not None and Path(checkpoint.name).exists() is False
    carried = _carried(checkpoint)
    if on_hub:
        carried["base_model"] = checkpoint.name
    data = ModelCardData(
        library_name=LIBRARY,
        pipeline_tag=PIPELINE_TAG,
        tags=_TAGS,
        **carried,
    )
    verification = report.get("verification")
    render = processor.render_config
    name = Path(checkpoint.name).name
    text = Template(CONVERTED_TEMPLATE.read_text(encoding="utf-8")).substitute(
        name=f"{name}, HybridCtx",
        repository=f"your-name/{name}-hybridctx",
        source_link=f"[{checkpoint.name}](https://huggingface.co/{checkpoint.name})" if on_hub else f"`{name}`",
        revision=f"`{source['revision']}`" if source["revision"] else "a local folder",
        model_type=source["model_type"],
        num_parameters=f"{report['num_parameters']:,}",
        dtype=report["dtype"],
        rounding=_rounding(report),
        converter=report["converter"],
        keys=", ".join(f"{count:,} {action}" for action, count in report["keys"].items()),
        verification=_verified(verification) if verification else "",
        quantization=_quantised(report["quantization"]) if "quantization" in report else "",
        **_context_rows(report),
        page_height=page["page_pixels"][0],
        page_width=page["page_pixels"][1],
        font=Path(render.font_path).name if render.font_path else "DejaVuSansMono.ttf",
        font_size=f"{render.font_size:g}",
        line_height=f"{render.line_height:g}",
        visual_tokens=f"{page['visual_tokens_per_page']:,}",
        characters=f"{page['characters_per_page']:,}",
        text_tokens=f"{page['text_tokens_per_page']:,}",
        ratio=page["compression_ratio"],
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}")


def exported_card(checkpoint: Checkpoint, model_type: str) -> ModelCard:
    """The card of a checkpoint that went back to its family."""
    data = ModelCardData(library_name="transformers", pipeline_tag=PIPELINE_TAG, **_carried(checkpoint))
    text = (
        f"# {Path(checkpoint.name).name}, {model_type}\n\nThe weights of a HybridCtx checkpoint under the keys and the "
        f"config of `{model_type}`, for engines that know that family. It reads pages as pictures: draw them, and write "
        "the prompt, with the processor of the HybridCtx checkpoint, whose font and page size it was made for.\n"
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}")


def merged_card(checkpoint: Checkpoint, rank: int | None) -> ModelCard:
    """The card of a checkpoint that a LoRA fine-tune was merged into."""
    carried = _carried(checkpoint)
    if not Path(checkpoint.name).exists():
        carried["base_model"] = checkpoint.name
    data = ModelCardData(library_name=LIBRARY, pipeline_tag=PIPELINE_TAG, tags=_TAGS, **carried)
    text = (
        f"# {Path(checkpoint.name).name}, fine-tuned\n\nHybridCtx weights with a LoRA adapter"
        f"{f' of rank {rank}' if rank else ''} "
        "merged into them. Say here what it was trained on, and how well it answers.\n"
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}")


def _carried(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a card takes over from the card of its source."""
    theirs = _card_data(checkpoint.folder / "README.md")
    names = ("license", "license_name", "license_link", "language", "datasets", "base_model")
    return {name: theirs[name] for name in names if theirs.get(name) is not None}


def _verified(verification: dict[str, Any]) -> str:
    told = (
        f" On a drawn page and a question, computed in {verification['computed_in']}, the largest difference of a "
        f"logit to {verification['compared_with']} is {verification['max_abs_difference']:.2g}, where the largest logit "
        f"is {verification['max_abs_logit']:.3g} ({verification['positions']} positions)."
    )
    if "distance_to_full_precision" in verification:
        lost = verification["distance_to_full_precision"]
        told += (
            f" Full precision is {lost['mean_abs_difference']:.2g} away on average, {lost['max_abs_difference']:.2g} at "
            f"most, and has the same most likely next token at {lost['same_next_tokens']:.0%} of these positions."
        )
    return told


def _rounding(report: dict[str, Any]) -> str:
    changed = [f"in {report['dtype']}"] if any("dtype_of_source" in one for one in report["tensors"]) else []
    changed += ["the decoder's rounded to 4 bits"] if "quantization" in report else []
    return "".join(f", {change}" for change in changed)


def _quantised(quantization: dict[str, Any]) -> str:
    return (
        f"\nThe decoder's {quantization['num_weights']:,} linear layers are in 4 bits (bitsandbytes' nf4, double "
        f"quantised, computed in {quantization.get('bnb_4bit_compute_dtype', 'float32')}); vision tower, embeddings and "
        "head are not. It is loaded like any other checkpoint, where bitsandbytes and accelerate are installed.\n"
    )


def _context_rows(report: dict[str, Any]) -> dict[str, str]:
    """What a prompt holds, in the card's words."""
    window, budget = (report["context"][name] for name in ("max_position_embeddings", "max_context_tokens"))
    if not window or not budget:
        return {
            "window": f"{window:,} tokens" if window else "not stated",
            "budget": "no bound",
            "pages": "any number",
        }
    page = report["page"]
    pages = budget // page["visual_tokens_per_page"]
    return {
        "window": f"{window:,} tokens",
        "budget": f"at most {budget:,} tokens, so that {max(0, window - budget):,} are left for the answer",
        "pages": f"{pages:,} pages, {pages * page['characters_per_page']:,} characters of English prose, "
        f"{pages * page['text_tokens_per_page']:,} tokens as text",
    }


def _card_data(file: Path) -> dict[str, Any]:
    """The metadata of a source's card; empty where there is none that can be read."""
    if not file.exists():
        return {}
    try:
        return dict(ModelCard.load(file, ignore_metadata_errors=True).data.to_dict())
    except (ValueError, OSError, yaml.YAMLError):
        return {}


def fill_benchmark_card(card_file: Path, benchmark: Path | Mapping[str, Any]) -> None:
    """Write a benchmark's figures into a card: its table, and the evaluation results of its metadata.

    Args:
        card_file: a card. Its table stands between two lines, which are added at the end where it has none.
        benchmark: what `hybridctx evaluate ... --out` wrote, or what is in it: `suite`, `metric`, `tasks` and `rows`.

    Raises:
        CheckpointError: a card with one of the two lines only, or a file of another form or encoding.
    """
    try:
        figures = json.loads(benchmark.read_text(encoding="utf-8")) if isinstance(benchmark, Path) else benchmark
        table, results = benchmark_table(figures), evaluation_results(figures)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(
            f"{benchmark} is not a table of `hybridctx evaluate --out` ({type(error).__name__}: {error})"
        ) from error
    try:
        card = ModelCard.load(card_file)
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{card_file} is not in UTF-8, as cards are ({error}): save it so") from error
    text = card.text
    if _TABLE_BEGIN not in text and _TABLE_END not in text:
        text = f"{text.rstrip()}\n\n## Benchmark\n\n{_TABLE_BEGIN}\n{_TABLE_END}\n"
    before, begin, rest = text.partition(_TABLE_BEGIN)
    _, end, after = rest.partition(_TABLE_END)
    if not begin or not end:
        raise CheckpointError(f"{card_file} has one of the lines {_TABLE_BEGIN!r} and {_TABLE_END!r} only")
    title = re.search(r"^# (.+)$", text, re.MULTILINE)
    card.data.model_name = card.data.model_name or (title[1] if title else card_file.resolve().parent.name)
    card.data.eval_results = results
    body = f"{before}{begin}\n{table}\n{end}{after}".lstrip("\n")
    card_file.write_text(f"---\n{card.data.to_yaml()}\n---\n\n{body}", encoding="utf-8")


def benchmark_table(figures: Mapping[str, Any]) -> str:
    """Markdown of what `hybridctx evaluate ... --out` wrote: scores in percent, with the cost."""
    tasks = list(figures["tasks"])
    lines = [
        "| document tokens | budget | context | " + " | ".join(tasks) + " | prompt tokens |",
        "|--:|--:|---|" + "--:|" * (len(tasks) + 1),
    ]
    for row in figures["rows"]:
        scores = " | ".join(f"{row['scores'][task]:.0%}" if task in row["scores"] else "" for task in tasks)
        lengths = " | ".join("" if row[name] is None else f"{row[name]:,}" for name in ("length", "budget"))
        spent = "" if row["prompt_tokens"] is None else f"{row['prompt_tokens']:,.0f}"
        lines.append(f"| {lengths} | {row['context']} | {scores} | {spent} |")
    counts = sorted({count for row in figures["rows"] for count in row["counts"].values()})
    number = " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
    return "\n".join([*lines, "", f"{figures['suite']}, {figures['metric']}; {number} samples for each task and row."])


def evaluation_results(figures: Mapping[str, Any]) -> list[EvalResult]:
    """What `hybridctx evaluate ... --out` wrote, as a model card's metadata has it."""
    return [
        EvalResult(
            task_type="question-answering",
            task_name="Long-document question answering",
            dataset_type=figures["suite"],
            dataset_name=f"{task}, documents of {row['length']} tokens, budget {row['budget']}",
            dataset_config=f"{task}, {row['length']}, {row['budget']}",  # results are grouped by it
            dataset_args={"task": task, "length": row["length"], "budget": row["budget"]},
            metric_type=figures["metric"].replace(" ", "_"),
            metric_name=f"{figures['metric']}, {row['context']}",
            metric_value=round(float(value), 4),
        )
        for row in figures["rows"]
        for task, value in row["scores"].items()
    ]
