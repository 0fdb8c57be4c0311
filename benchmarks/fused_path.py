# SPDX-License-Identifier: Apache-2.0
r"""From pages to the first token: ours and transformers' own GLM-4V path, of the same random weights, in one run.

    OMP_NUM_THREADS=1 python benchmarks/fused_path.py [inputs vision_tower training first_token attention four_bit] \
        [--full]

- inputs: a text's pages to model inputs, seconds and bytes. Both sides get the same drawn pages: ours as arrays,
  `Glm4vImageProcessorPil` as PIL images.
- vision_tower: `get_image_features` against the number of pages, with `vision_batch_bytes` set to what 8 of them take.
  Memory: bytes of tensors at the most (`MemoryMeter`, or `torch.cuda.max_memory_allocated`), beyond inputs and outputs;
  and, on a CPU, the resident memory of a process of its own, at the most beyond what it had before. That depends
  on what the C library keeps of freed memory, so it is told with glibc's defaults and with
  `MALLOC_MMAP_THRESHOLD_=65536`, which returns tensors' memory at once.
- training: the same with a backward pass through all of it, with gradient checkpointing.
- first_token: `generate(max_new_tokens=1)` against the length of the context, all of it pages but 32 tokens.
- attention: one forward pass of 8 pages and 32 tokens with each attention implementation.
- four_bit: bytes of weights and seconds of a prompt and of one token, at GLM-OCR's widths (`--full`: GLM-4.1V-9B's) and
  few layers; ours by `four_bit_config`, transformers by a `BitsAndBytesConfig` that names no modules, so that its tower
  takes 4 bits, too. (`checkpoint_memory.py` has whole checkpoints.)

Sides take turns on one thread; `s` are the fewest seconds of several runs: those that the process computed, on a CPU,
and those that went by, on a GPU. Medians and wall-clock seconds are in the JSON file. Results:
`benchmarks/results/fused_path_<name>.json` and `.png`. `difference` is the largest between the two sides' outputs.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from matplotlib import pyplot
from PIL import Image
from side_by_side import (
    LARGE,
    MIB,
    SETTINGS,
    SMALL,
    Clock,
    Row,
    Setting,
    draw_pages,
    in_mebibytes,
    make_pair,
    page_inputs,
    peak_bytes,
    plot_lines,
    print_table,
    prompt_inputs,
    save_plot,
    settings_at_hand,
    take_turns,
    towers,
    write_results,
)
from transformers import BitsAndBytesConfig, Glm4vImageProcessorPil
from transformers.utils import logging

from transformers_hybridctx.image_processing_hybridctx import HybridCtxImageProcessor
from transformers_hybridctx.modules.quantization import four_bit_config
from transformers_hybridctx.modules.vision_tower import activation_bytes

SIDES = ("ours", "transformers")
SMALL_PAGE, GLYPH_PAGE = (308, 420), (588, 840)
PAGES_AT_ONCE = 8
WHERE = {"device": "device|", "dtype": "dtype|", "attention": "attention|", "side": "side|"}


def nbytes(values: Any) -> int:
    return sum(value.nbytes for value in values)


def add_pair(rows: list[Row], common: Row, figures: dict[str, Row]) -> None:
    """A row for each side; that of transformers says how many times as fast ours is."""
    rows += [{**common, "side": side, **figures[side]} for side in SIDES]
    rows[-1]["times_faster"] = rows[-1]["seconds"] / rows[-2]["seconds"]


def on_the_cpu(rows: list[Row]) -> list[Row]:
    """What is plotted."""
    return [row for row in rows if "not_run" not in row and row["device"] == "cpu"]


def save_two_plots(name: str, title: str, rows: list[Row], x: str, *plots: tuple[str, float, str]) -> None:
    """Two figures side by side; each is (key, its scale, label of the axis)."""
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6))
    for one, (key, scale, label) in zip(axes, plots, strict=True):
        plot_lines(one, rows, x, key, scale)
        one.set_ylabel(label)
    save_plot(figure, name, title)


def inputs(full: bool) -> None:
    counts, repeats = (1, 4, 16, 64), 5 if full else 2
    rows: list[Row] = []
    for colour in (False, True):
        pages, drawing = draw_pages(max(counts), *GLYPH_PAGE, colour=colour)
        pictures = [Image.fromarray(page) for page in pages]
        ours, theirs = HybridCtxImageProcessor(), Glm4vImageProcessorPil()
        for count in counts:
            calls: dict[str, Callable[[], Any]] = {
                "ours": partial(ours, pages[:count], return_tensors="pt"),
                "transformers": partial(theirs, pictures[:count], return_tensors="pt"),
            }
            seconds = take_turns(calls, repeats)
            figures: dict[str, Row] = {}
            for side in SIDES:
                size = nbytes(calls[side]().values())
                figures[side] = {**seconds[side], "bytes": size, "bytes_per_page": size / count}
                figures[side]["seconds_per_page"] = figures[side]["seconds"] / count
            common = {"page": "colour" if colour else "grey", "pages": count, "drawing_per_page": drawing / len(pages)}
            add_pair(rows, common, figures)
            rows[-1]["times_the_bytes"] = rows[-1]["bytes"] / rows[-2]["bytes"]
    columns = {
        "page": "pages|",
        "pages": "number|",
        "side": "side|",
        "seconds_per_page": "s a page|.5f",
        "drawing_per_page": "drawing, s a page|.5f",
        "bytes_per_page": "bytes a page|,.0f",
        "times_faster": "ours faster, times|.1f",
        "times_the_bytes": "times our bytes|.2f",
    }
    print_table(f"Pages of {GLYPH_PAGE[0]} x {GLYPH_PAGE[1]} pixels to model inputs", columns, rows)
    write_results("inputs", rows, {"page": GLYPH_PAGE, "repeats": repeats})
    grey = [row for row in rows if row["page"] == "grey"]
    save_two_plots(
        *("inputs", "Grey pages to model inputs", grey, "pages"),
        ("bytes", 1 / MIB, "inputs, MiB"),
        ("seconds", 1, "seconds"),
    )


def limit_tower(model: Any, grids: torch.Tensor) -> int:
    """Let ours take 8 pages at a time; the limit in bytes."""
    _, height, width = grids[0].tolist()
    model.config.vision_batch_bytes = PAGES_AT_ONCE * activation_bytes(model.model.visual, height * width)
    return model.config.vision_batch_bytes


def read_pages(model: Any, pixels: Row) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        output = model.get_image_features(**pixels, return_dict=True)
        return (*output.pooler_output, output.last_hidden_state)


def resident(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


def resident_peak(side: str, count: int, page: tuple[int, int], shape: Row) -> int:
    """In a process of its own: bytes of memory at the most while it reads pages, beyond those before and the outputs."""
    torch.set_num_threads(1)
    model = make_pair(shape, SETTINGS[0])[side]
    pixels = page_inputs(side, draw_pages(count, *page)[0])
    if side == "ours":
        limit_tower(model, pixels["image_grid_thw"])
    one = int(pixels["image_grid_thw"][0].prod())
    read_pages(model, {"pixel_values": pixels["pixel_values"][:one], "image_grid_thw": pixels["image_grid_thw"][:1]})
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident("VmRSS")
    output = read_pages(model, pixels)
    return resident("VmHWM") - before - nbytes(output)


def in_its_own_process(call: Callable[..., int], *args: Any, return_at_once: bool = False) -> int | None:
    if not Path("/proc/self/clear_refs").exists():
        return None
    os.environ.update({"MALLOC_MMAP_THRESHOLD_": "65536"} if return_at_once else {})
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        peak = pool.submit(call, *args).result()
    os.environ.pop("MALLOC_MMAP_THRESHOLD_", None)
    return peak


def growth(rows: list[Row], key: str, few: int, many: int) -> Row:
    """How many times the memory of few pages many pages take."""
    found = {(row["side"], row["pages"]): row[key] for row in rows if row.get(key) is not None}
    return {side: found[side, many] / found[side, few] for side in SIDES if (side, many) in found}


def pairs_of_towers(
    rows: list[Row], shape: Row, page: tuple[int, int], counts: tuple[int, ...], trained: bool = False
) -> Iterator[tuple[Setting, Row, int, Row]]:
    """(setting, both models, number of pages, both sides' pages) for all settings at hand and all numbers."""
    drawn, _ = draw_pages(max(counts), *page)
    for setting in settings_at_hand(rows):
        models = make_pair(shape, setting)
        if trained:
            for model in models.values():
                model.train()
                model.activation_checkpointing_enable()
        for count in counts:
            pixels = {side: page_inputs(side, drawn[:count], setting.device) for side in SIDES}
            limit_tower(models["ours"], pixels["ours"]["image_grid_thw"])
            yield setting, models, count, pixels


def vision_tower(full: bool) -> None:
    shape, page = (LARGE, GLYPH_PAGE) if full else (SMALL, SMALL_PAGE)
    counts, repeats = (2, 8, 64), 3 if full else 2
    rows: list[Row] = []
    for setting, models, count, pixels in pairs_of_towers(rows, shape, page, counts):
        calls = {side: partial(read_pages, models[side], pixels[side]) for side in SIDES}
        metered = {side: peak_bytes(calls[side], setting.device) for side in SIDES}
        pairs = zip(*(output for _, output in metered.values()))
        difference = max((one - other).abs().max().item() for one, other in pairs)
        figures = take_turns(calls, repeats, setting.device)
        for side, (peak, output) in metered.items():
            size = nbytes(output)
            figures[side] |= {"input_bytes": nbytes(pixels[side].values()), "output_bytes": size}
            figures[side] |= {"peak_bytes": peak, "activation_bytes": peak - size, "difference": difference}
            if setting.device == "cpu" and count >= PAGES_AT_ONCE:
                process = partial(in_its_own_process, resident_peak, side, count, page, shape)
                figures[side] |= {"resident_bytes": process(), "returned_bytes": process(return_at_once=True)}
        add_pair(rows, {**asdict(setting), "pages": count}, figures)
    shown = in_mebibytes(rows)
    columns = WHERE | {
        "pages": "pages|",
        "seconds": "s|.3f",
        "times_faster": "ours faster, times|.2f",
        "input_bytes": "inputs MiB|,.1f",
        "output_bytes": "outputs MiB|,.1f",
        "activation_bytes": "peak beyond them, MiB|,.1f",
        "resident_bytes": "the process, MiB|,.1f",
        "returned_bytes": "freed at once, MiB|,.1f",
        "difference": "embeddings differ by|.1e",
    }
    print_table(f"Vision tower, pages of {page[0]} x {page[1]} pixels", columns, shown)
    run = on_the_cpu(rows)
    grown = {key: growth(run, key, 8, 64) for key in ("activation_bytes", "resident_bytes", "returned_bytes")}
    names = ("tensors", "the process", "the process, with freed memory returned at once")
    for key, name in zip(grown, names):
        told = ", ".join(f"{side} {ratio:.2f}" for side, ratio in grown[key].items())
        print(f"peak of 64 pages / peak of 8, beyond inputs and outputs, {name}: {told}")
    write_results("vision_tower", rows, {"page": page, "shape": shape, "full": full}, peak_64_over_peak_8=grown)
    save_two_plots(
        *("vision_tower", "Vision tower (CPU, fp32, sdpa)", run, "pages"),
        ("activation_bytes", 1 / MIB, "peak beyond inputs and outputs, MiB"),
        ("seconds", 1, "seconds"),
    )


def training_step(model: Any, pixels: Row) -> None:
    model.zero_grad(set_to_none=True)
    output = model.get_image_features(**pixels, return_dict=True).pooler_output
    torch.stack([embeddings.square().mean() for embeddings in output]).mean().backward()


def training(full: bool) -> None:
    shape, page = (LARGE, GLYPH_PAGE) if full else (SMALL, SMALL_PAGE)
    rows: list[Row] = []
    for setting, models, count, pixels in pairs_of_towers(rows, shape, page, (8, 32), trained=True):
        calls = {side: partial(training_step, models[side], pixels[side]) for side in SIDES}
        peaks = {side: peak_bytes(calls[side], setting.device)[0] for side in SIDES}
        gradients = [
            torch.cat([p.grad.flatten().float() for _, p in sorted(model.model.visual.named_parameters())])
            for model in models.values()
        ]
        difference = ((gradients[0] - gradients[1]).norm() / gradients[1].norm()).item()
        gradient_bytes = nbytes(p.grad for p in models["ours"].parameters() if p.grad is not None)
        figures = take_turns(calls, 1, setting.device)
        for side, peak in peaks.items():
            figures[side] |= {"peak_bytes": peak, "activation_bytes": peak - gradient_bytes, "difference": difference}
        add_pair(rows, {**asdict(setting), "pages": count}, figures)
    shown = in_mebibytes(rows)
    columns = WHERE | {
        "pages": "pages|",
        "seconds": "s|.3f",
        "times_faster": "ours faster, times|.2f",
        "activation_bytes": "peak beyond inputs and gradients, MiB|,.1f",
        "difference": "gradients differ by (relative)|.1e",
    }
    print_table("Training step through the vision tower, with gradient checkpointing", columns, shown)
    run = on_the_cpu(rows)
    grown = growth(run, "activation_bytes", 8, 32)
    print("peak of 32 pages / peak of 8:", ", ".join(f"{side} {ratio:.2f}" for side, ratio in grown.items()))
    write_results("training", rows, {"page": page, "shape": shape, "full": full}, peak_32_over_peak_8=grown)
    save_two_plots(
        *("training", "Training step through the vision tower (CPU, fp32, sdpa)", run, "pages"),
        ("activation_bytes", 1 / MIB, "peak beyond inputs and gradients, MiB"),
        ("seconds", 1, "seconds"),
    )


def ask(model: Any, prompt: Row, chunk_size: int | None = None) -> Any:
    return model.generate(
        **prompt,
        max_new_tokens=1,
        do_sample=False,
        prefill_chunk_size=chunk_size,
        return_dict_in_generate=True,
        output_logits=True,
    )


def first_token(full: bool) -> None:
    shape, page, chunk = (LARGE if full else SMALL), SMALL_PAGE, 1024
    tokens_a_page = page[0] * page[1] // 28**2 + 2
    rows: list[Row] = []
    lengths = {1024: 3, 4096: 1, 16384: 0}  # context tokens: repeats besides the one that is metered
    drawn, _ = draw_pages(round(max(lengths) / tokens_a_page), *page)
    for setting in settings_at_hand(rows):
        models = make_pair(shape, setting)
        for length, repeats in lengths.items():
            pages = drawn[: round(length / tokens_a_page)]
            prompts = {side: prompt_inputs(page_inputs(side, pages, setting.device), 32) for side in SIDES}
            limit_tower(models["ours"], prompts["ours"]["image_grid_thw"])
            calls: dict[str, Callable[[], Any]] = {}
            for side in SIDES:
                calls[side] = partial(ask, models[side], prompts[side])
                calls[f"{side}, in chunks"] = partial(ask, models[side], prompts[side], chunk)
            seconds = take_turns(calls, repeats, setting.device) if repeats else {}
            logits: dict[str, torch.Tensor] = {}
            for name, call in calls.items():
                clock = Clock(setting.device)
                peak, output = peak_bytes(partial(clock.time, call), setting.device)
                logits[name] = output.logits[0]
                side = "ours" if name.startswith("ours") else "transformers"
                row = {**asdict(setting), "side": name, "pages": len(pages)}
                row |= {"context_tokens": prompts[side]["input_ids"].shape[1], **seconds.get(name, clock.figures)}
                row |= {"input_bytes": nbytes(prompts[side].values()), "peak_bytes": peak}
                cache = [states for layer in output.past_key_values.layers for states in (layer.keys, layer.values)]
                rows.append({**row, "cache_bytes": nbytes(cache)})
                del output, cache
            plain = next(row["seconds"] for row in rows[-len(calls) :] if row["side"] == "transformers")
            for row in rows[-len(calls) :]:
                row["times_faster"] = plain / row["seconds"]
                row["difference"] = (logits[row["side"]] - logits["transformers"]).abs().max().item()
    shown = in_mebibytes(rows)
    columns = WHERE | {
        "context_tokens": "context tokens|,",
        "pages": "pages|",
        "seconds": "s|.3f",
        "times_faster": "times as fast as transformers|.2f",
        "input_bytes": "inputs MiB|,.1f",
        "cache_bytes": "cache MiB|,.1f",
        "peak_bytes": "peak beyond inputs, MiB|,.1f",
        "difference": "logits differ by|.1e",
    }
    print_table(f"First token; chunks of {chunk} tokens", columns, shown)
    arguments = {"page": page, "shape": shape, "chunk": chunk, "full": full}
    write_results("first_token", rows, arguments)
    save_two_plots(
        *("first_token", "First token (CPU, fp32, sdpa)", on_the_cpu(rows), "context_tokens"),
        ("seconds", 1, "seconds to the first token"),
        ("peak_bytes", 1 / MIB, "peak beyond inputs, MiB"),
    )


def last_logits(model: Any, prompt: Row) -> torch.Tensor:
    with torch.no_grad():
        return model(**prompt, use_cache=False, logits_to_keep=1).logits


def attention(full: bool) -> None:
    shape = LARGE if full else SMALL
    drawn, _ = draw_pages(8, *SMALL_PAGE)
    rows: list[Row] = []
    choices = [Setting("cpu", "float32", name) for name in ("sdpa", "eager")]
    choices += [Setting("cuda", "bfloat16", name) for name in ("sdpa", "eager", "flash_attention_2")]
    for setting in settings_at_hand(rows, choices):
        models = make_pair(shape, setting)
        prompts = {side: prompt_inputs(page_inputs(side, drawn, setting.device), 32) for side in SIDES}
        calls = {side: partial(last_logits, models[side], prompts[side]) for side in SIDES}
        difference = (calls["ours"]() - calls["transformers"]()).abs().max().item()
        figures = take_turns(calls, 2, setting.device)
        for side in SIDES:
            figures[side] |= {"difference": difference, "peak_bytes": peak_bytes(calls[side], setting.device)[0]}
        add_pair(rows, asdict(setting), figures)
    shown = in_mebibytes(rows)
    columns = WHERE | {
        "seconds": "s|.3f",
        "times_faster": "ours faster, times|.2f",
        "peak_bytes": "peak beyond inputs, MiB|,.1f",
        "difference": "logits differ by|.1e",
    }
    print_table("Attention implementations: a forward pass of 8 pages and 32 tokens", columns, shown)
    write_results("attention", rows, {"page": SMALL_PAGE, "shape": shape, "full": full})


WIDE = towers(  # GLM-OCR's widths
    {"depth": 2, "hidden_size": 1024, "num_heads": 16, "intermediate_size": 4096},
    {
        "hidden_size": 1536,
        "intermediate_size": 4608,
        "head_dim": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
    },
)
WIDER = towers(  # GLM-4.1V-9B's widths
    {"depth": 1, "hidden_size": 1536, "num_heads": 12, "intermediate_size": 13696},
    {
        "hidden_size": 4096,
        "intermediate_size": 13696,
        "head_dim": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 32,
        "num_key_value_heads": 2,
    },
)


def weight_bytes(model: Any) -> int:
    """Parameters, and what 4-bit ones need beside them: scales of blocks, and the scales of these."""
    total = 0
    for parameter in model.parameters():
        total += parameter.nbytes
        state = getattr(parameter, "quant_state", None)
        while state is not None:
            parts = [getattr(state, name, None) for name in ("absmax", "code", "offset")]
            total += nbytes(part for part in parts if part is not None)
            state = getattr(state, "state2", None)
    return total


def four_bit(full: bool) -> None:
    shape = WIDER if full else WIDE
    drawn, _ = draw_pages(2, *SMALL_PAGE)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for setting in settings_at_hand(rows, SETTINGS[:2]):
            sources = make_pair(shape, setting)
            models: Row = {f"{side}, {setting.dtype}": model for side, model in sources.items()}
            for side, model in sources.items():
                model.save_pretrained(Path(folder) / side)
                config = BitsAndBytesConfig(
                    load_in_4bit=True,
                    bnb_4bit_quant_type="nf4",
                    bnb_4bit_use_double_quant=True,
                    bnb_4bit_compute_dtype=getattr(torch, setting.dtype),
                )
                if side == "ours":
                    config = four_bit_config(model.config, compute_dtype=getattr(torch, setting.dtype))
                models[f"{side}, 4-bit"] = type(model).from_pretrained(
                    Path(folder) / side,
                    quantization_config=config,
                    dtype=getattr(torch, setting.dtype),
                    device_map=setting.device,
                    attn_implementation=setting.attention,
                )
            prompts = {side: prompt_inputs(page_inputs(side, drawn, setting.device), 182) for side in SIDES}
            prefill = {
                name: partial(last_logits, model, prompts[name.split(",")[0]]) for name, model in models.items()
            }
            token = {"input_ids": torch.full((1, 1), 20, device=setting.device)}
            token |= {"attention_mask": torch.ones_like(token["input_ids"])}
            step = {name: partial(last_logits, model, token) for name, model in models.items()}
            expected = prefill[f"transformers, {setting.dtype}"]()
            differences = {name: (call() - expected).norm() / expected.norm() for name, call in prefill.items()}
            seconds, token_seconds = (take_turns(calls, 2, setting.device) for calls in (prefill, step))
            for name, model in models.items():
                row = {**asdict(setting), "side": name, "tokens": prompts["ours"]["input_ids"].shape[1]}
                row |= {"weight_bytes": weight_bytes(model), "decoder_bytes": weight_bytes(model.model.language_model)}
                row |= {**seconds[name], "token_seconds": token_seconds[name]["seconds"]}
                rows.append({**row, "difference": differences[name].item()})
    shown = in_mebibytes(rows)
    columns = WHERE | {
        "weight_bytes": "weights MiB|,.1f",
        "decoder_bytes": "decoder's MiB|,.1f",
        "seconds": "prompt s|.3f",
        "token_seconds": "one token s|.4f",
        "difference": "logits differ by (relative)|.1e",
    }
    print_table("4-bit weights: a prompt of 2 pages and 182 tokens", columns, shown)
    write_results("four_bit", rows, {"page": SMALL_PAGE, "shape": shape, "full": full})


BENCHMARKS = {bench.__name__: bench for bench in (inputs, vision_tower, training, first_token, attention, four_bit)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[], help=f"which of {', '.join(BENCHMARKS)}; all unless given")
    parser.add_argument("--full", action="store_true", help="wider and deeper towers, pages of Glyph's size")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - BENCHMARKS.keys()):
        parser.error(f"there is no benchmark {unknown[0]!r}; choose from {', '.join(BENCHMARKS)}")
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    for name in options.names or BENCHMARKS:
        BENCHMARKS[name](options.full)


if __name__ == "__main__":
    main()
