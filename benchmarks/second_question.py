# SPDX-License-Identifier: Apache-2.0
r"""A second question about a document that was read once, beside a first one, with the bundled checkpoint.

    OMP_NUM_THREADS=1 python benchmarks/second_question.py [--context-tokens 4096 16384] [--policies none bm25 anchors]

The document is `examples/nordic_factbook.txt`, repeated where it is too short, cut so that its pages take about the
given number of tokens. Everything is measured through `pipeline("long-doc-qa")`:
- first: a question about the text, nothing kept from before: layout, pages, tower, decoder, answer;
- later: questions about what `pipe.read` returned, the median of several;
- both to the first token, and with 16 new tokens (`min_new_tokens=16`);
- batch: 8 questions at once with `batch_size=8`, seconds for each;
- transformers: the same prompt and page pictures through `Glm4vImageProcessorPil` and
  `Glm4vForConditionalGeneration` of the same weights, to the first token, which it would pay for every question;
- `difference`: the largest between the first token's logits with the cache and those of transformers without one;
- save, load (which ends when the cache is attached to the model) and the size of the file;
- typesetting and drawing alone, which `first` and the reading have in them, with glyphs drawn before.

Seconds are those that the process computed, on one thread, or on a GPU those that went by. Results:
`benchmarks/results/fused_path_second_question.json` and `.png`.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import warnings
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib import pyplot
from PIL import Image
from side_by_side import COLOURS, MIB, Clock, Row, Setting, print_table, save_plot, settings_at_hand, write_results
from transformers import Glm4vConfig, Glm4vForConditionalGeneration, Glm4vImageProcessorPil, pipeline
from transformers.utils import logging

from transformers_hybridctx.caching.document_cache import DocumentCache
from transformers_hybridctx.prompting.pages import drawn_pages

TEXT = Path(__file__).parents[1] / "examples" / "nordic_factbook.txt"
CHARACTERS_A_TOKEN = 12.1  # of a page of the bundled checkpoint
warnings.filterwarnings("ignore", message="the answer to .* was cut off")  # as this script asks for
FIELDS = ("coastline", "area land", "Labor force", "Exports", "Birth rate", "highest point", "Population", "Capital")
COUNTRIES = ("Iceland", "Sweden", "Finland", "Norway", "Denmark", "Iceland", "Sweden", "Finland")
QUESTIONS = [f"What is the {field} of {country}?" for field, country in zip(FIELDS, COUNTRIES)]


def transformers_model(model: Any) -> Any:
    """The same weights in transformers' own class."""
    fields = ("text_config", "vision_config", "image_token_id", "image_start_token_id", "image_end_token_id")
    values = model.config.to_dict()
    config = Glm4vConfig(**{name: values[name] for name in fields}, tie_word_embeddings=True)
    theirs = Glm4vForConditionalGeneration(config).to(model.device, model.dtype).eval()
    theirs.load_state_dict(model.state_dict())
    theirs.set_attn_implementation(model.config._attn_implementation)
    return theirs


def answer_without_cache(theirs: Any, processor: Any, input_ids: list[int], pictures: list[Image.Image]) -> Any:
    """The first token's logits `[1, vocab_size]`, as transformers gets them from page pictures."""
    ours = processor.image_processor
    size = {"shortest_edge": ours.size["shortest_edge"], "longest_edge": ours.size["longest_edge"]}
    shape = {name: getattr(ours, name) for name in ("patch_size", "temporal_patch_size", "merge_size")}
    cut = Glm4vImageProcessorPil(**shape, size=size)
    ids = torch.tensor([input_ids])
    features = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    features["mm_token_type_ids"] = (ids == processor.image_token_id).long()
    return first_logits(theirs, {**features, **cut(pictures, return_tensors="pt")})


def first_logits(model: Any, features: Row) -> torch.Tensor:
    output = model.generate(
        **{name: value.to(model.device) if torch.is_tensor(value) else value for name, value in features.items()},
        max_new_tokens=1,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
    )
    return output.logits[0]


def measure(
    setting: Setting, pipe: Any, theirs: Any, text: str, policy: str, later_questions: int, folder: Path
) -> Row:
    def once(call: Any) -> tuple[float, Any]:
        clock = Clock(setting.device)
        output = clock.time(call)
        return clock.figures["seconds"], output

    processor = pipe.processor
    row: Row = {**asdict(setting), "policy": policy, "characters": len(text)}
    row["read_seconds"], cache = once(lambda: pipe.read(text, text_policy=policy))
    row["cache_bytes"] = cache.prefix.num_bytes
    for new_tokens in (1, 16):
        ask = partial(pipe, min_new_tokens=new_tokens, max_new_tokens=new_tokens)
        ask(question=QUESTIONS[-1], document=cache)  # what is made at first use is made
        first, answer = once(lambda ask=ask: ask(question=QUESTIONS[0], document=text, text_policy=policy))
        later = [
            once(partial(ask, question=question, document=cache))[0] for question in QUESTIONS[1 : 1 + later_questions]
        ]
        batch, _ = once(partial(ask, question=QUESTIONS, document=cache, batch_size=len(QUESTIONS)))
        row["prompt_tokens"] = answer["usage"]["prompt_tokens"]
        row[f"first_{new_tokens}_seconds"] = first
        row[f"later_{new_tokens}_seconds"] = statistics.median(later)
        row[f"times_faster_{new_tokens}"] = first / statistics.median(later)
        row[f"batch_{new_tokens}_seconds_each"] = batch / len(QUESTIONS)
        gc.collect()
    input_ids, plan = cache.prompt(processor, QUESTIONS[0])
    row["typeset_seconds"], laid_out = once(lambda: processor.read_document(text))
    row["draw_seconds"], pages = once(lambda: list(drawn_pages(laid_out, plan.scale)))
    pictures = [Image.fromarray(page) for page in pages]
    row["pages"] = len(pictures)
    row["transformers_seconds"], expected = once(lambda: answer_without_cache(theirs, processor, input_ids, pictures))
    logits = first_logits(pipe.model, cache.inputs(processor, QUESTIONS[0]))
    row["difference"] = (logits - expected).abs().max().item()
    path = folder / "document.safetensors"
    row["save_seconds"], _ = once(lambda: cache.save(path))
    row["load_seconds"], _ = once(lambda: DocumentCache.load(path).attach(pipe.model, processor))
    row["file_bytes"] = path.stat().st_size
    path.unlink()
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--context-tokens", type=int, nargs="+", default=[4096, 16384])
    parser.add_argument("--policies", nargs="+", default=["none", "bm25", "anchors"])
    parser.add_argument("--later-questions", type=int, default=5, help="at most 7")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    words = TEXT.read_text(encoding="utf-8")
    rows: list[Row] = []
    for setting in settings_at_hand(rows):
        pipe = pipeline("long-doc-qa", device=setting.device, dtype=getattr(torch, setting.dtype))
        pipe.model.set_attn_implementation(setting.attention)
        theirs = transformers_model(pipe.model)
        with tempfile.TemporaryDirectory() as folder:
            for tokens in options.context_tokens:
                characters = int(tokens * CHARACTERS_A_TOKEN)
                text = (words * (characters // len(words) + 1))[:characters]
                for policy in options.policies:
                    rows.append(measure(setting, pipe, theirs, text, policy, options.later_questions, Path(folder)))
    columns = {
        "device": "device|",
        "dtype": "dtype|",
        "attention": "attention|",
        "policy": "policy|",
        "prompt_tokens": "prompt tokens|,",
        "pages": "pages|",
        "typeset_seconds": "typeset s|.3f",
        "draw_seconds": "draw s|.3f",
        "read_seconds": "read s|.2f",
        "transformers_seconds": "transformers s|.2f",
        "first_1_seconds": "first s|.2f",
        "later_1_seconds": "later s|.3f",
        "times_faster_1": "times|.0f",
        "first_16_seconds": "first, 16 tokens s|.2f",
        "later_16_seconds": "later s|.3f",
        "times_faster_16": "times|.0f",
        "batch_1_seconds_each": "batch of 8, s each|.3f",
        "batch_16_seconds_each": "16 tokens, s each|.3f",
        "save_seconds": "save s|.3f",
        "load_seconds": "load s|.3f",
        "file_mib": "file MiB|.1f",
        "difference": "logits differ by|.1e",
    }
    shown = [{**row, "file_mib": row.get("file_bytes", 0) / MIB or None} for row in rows]
    print_table("Questions with hybridctx-tiny", columns, shown)
    write_results("second_question", rows, vars(options))
    plot([row for row in rows if row.get("file_bytes") and row["device"] == "cpu"])


def plot(rows: list[Row]) -> None:
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 3.8), sharey=True)
    labels = [f"{row['policy']}\n{row['prompt_tokens']:,}" for row in rows]
    for axis, new_tokens in zip(axes, (1, 16)):
        bars = {"first question": f"first_{new_tokens}_seconds", "later question": f"later_{new_tokens}_seconds"}
        if new_tokens == 1:
            bars = {"transformers, each question": "transformers_seconds", **bars}
        colours = {"first question": COLOURS["ours"], "later question": COLOURS["ours, in chunks"]}
        for index, (label, key) in enumerate(bars.items()):
            places = [place + (index - (len(bars) - 1) / 2) * 0.26 for place in range(len(rows))]
            color = colours.get(label, COLOURS["transformers"])
            drawn = axis.bar(places, [row[key] for row in rows], 0.24, label=label, color=color)
            axis.bar_label(drawn, fmt="%.2g", fontsize=7)
        axis.set_yscale("log")
        axis.set_xticks(range(len(rows)), labels, fontsize=8)
        axis.set_title("to the first token" if new_tokens == 1 else "16 new tokens", fontsize=10)
        axis.set_ylabel("seconds")
        axis.margins(y=0.15)
        axis.legend(frameon=False, fontsize=8)
    save_plot(figure, "second_question", "One reading, many questions: text policy and tokens of the prompt")


if __name__ == "__main__":
    main()
