# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks share: two models of the same weights, clocks and meters for both, tables, plots and files."""

from __future__ import annotations

import gc
import importlib.metadata
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from machine import describe_machine
from matplotlib import pyplot, ticker
from PIL import Image
from transformers import Glm4vConfig, Glm4vForConditionalGeneration, Glm4vImageProcessorPil

from transformers_hybridctx.configuration_hybridctx import HybridCtxConfig
from transformers_hybridctx.evaluation.memory_meter import MemoryMeter
from transformers_hybridctx.image_processing_hybridctx import HybridCtxImageProcessor
from transformers_hybridctx.modeling_hybridctx import HybridCtxForCausalLM
from transformers_hybridctx.rendering.rasterizing import PageRenderer
from transformers_hybridctx.rendering.settings import RenderConfig

RESULTS = Path(__file__).parent / "results"
TEXT = Path(__file__).parents[1] / "examples" / "persuasion.txt"
COLOURS = {
    "ours": "#1b6ca8",
    "ours, in chunks": "#58a55c",
    "transformers": "#c8553d",
    "transformers, in chunks": "#e0a030",
}
MIB = 1 << 20
IMAGE, IMAGE_START, IMAGE_END, PAD = 3, 4, 5, 0

Row = dict[str, Any]
matplotlib.use("Agg")


@dataclass(frozen=True)
class Setting:
    """Where and how a row is computed."""

    device: str
    dtype: str
    attention: str

    @property
    def missing(self) -> str | None:
        """Why this machine cannot compute such rows; None where it can."""
        if self.device == "cuda" and not torch.cuda.is_available():
            return "no CUDA device"
        if self.attention == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
            return "flash-attn is not installed"
        return None


SETTINGS = (
    Setting("cpu", "float32", "sdpa"),
    Setting("cuda", "bfloat16", "sdpa"),
    Setting("cuda", "bfloat16", "flash_attention_2"),
)


def settings_at_hand(rows: list[Row], settings: Sequence[Setting] = SETTINGS) -> Iterator[Setting]:
    """The settings that this machine has; for each that it has not, a row that says why."""
    for setting in settings:
        if setting.missing is None:
            yield setting
        else:
            rows.append({**asdict(setting), "not_run": setting.missing})


def towers(vision: Row, text: Row, vocab_size: int = 4096) -> Row:
    """Arguments of a config: GLM-4.1V's proportions unless told otherwise."""
    head_dim = text.get("head_dim", 64)
    pairs = head_dim // 4  # half of each head is rotated
    sections = [pairs - 2 * (pairs * 3 // 8), pairs * 3 // 8, pairs * 3 // 8]
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5, "mrope_section": sections}
    return {
        "vision_config": {"model_type": "glm4v_vision", "out_hidden_size": text["hidden_size"], **vision},
        "text_config": {
            "model_type": "glm4v_text",
            "vocab_size": vocab_size,
            "pad_token_id": PAD,
            "eos_token_id": PAD,
            "head_dim": head_dim,
            "rope_parameters": rope,
            **text,
        },
        "image_token_id": IMAGE,
        "image_start_token_id": IMAGE_START,
        "image_end_token_id": IMAGE_END,
    }


SMALL = towers(
    {"depth": 4, "hidden_size": 256, "num_heads": 4, "intermediate_size": 1024},
    {
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
)
LARGE = towers(
    {"depth": 8, "hidden_size": 512, "num_heads": 8, "intermediate_size": 2048},
    {
        "hidden_size": 512,
        "intermediate_size": 1536,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
    },
)


def make_pair(shape: Row, setting: Setting) -> Row:
    """Ours and transformers' own model, of the same random weights."""
    torch.manual_seed(0)
    ours = HybridCtxForCausalLM(HybridCtxConfig(**shape))
    theirs = Glm4vForConditionalGeneration(Glm4vConfig(**shape))
    theirs.load_state_dict(ours.state_dict())
    models = {"ours": ours, "transformers": theirs}
    for model in models.values():
        model.to(setting.device, getattr(torch, setting.dtype)).eval()
        model.set_attn_implementation(setting.attention)
        model.generation_config.eos_token_id = None
    return models


def draw_pages(
    count: int, width: int, height: int, colour: bool = False, text: Path = TEXT
) -> tuple[list[np.ndarray], float]:
    """Full pages of a text, repeated where it is too short, and the seconds that laying out and drawing them took."""
    words = text.read_text(encoding="utf-8")
    characters = 40 + count * width * height // 40  # more than go on so many pages
    words = (words * (characters // len(words) + 1))[:characters]
    config = RenderConfig(page_width=width, page_height=height, page_multiple=28)
    if colour:
        config = RenderConfig(page_width=width, page_height=height, page_multiple=28, page_bg_color="#FFF4DC")
    renderer = PageRenderer(config)
    renderer.render("warm")
    started = time.perf_counter()
    pages = list(islice(renderer.draw_pages(renderer.typeset(words)), count))
    seconds = time.perf_counter() - started
    if len(pages) < count or len({page.shape for page in pages}) > 1:
        raise ValueError(f"{text} makes {len(pages)} pages of several sizes where {count} of one were to be drawn")
    return pages, seconds


def page_inputs(side: str, pages: list[np.ndarray], device: str = "cpu") -> Row:
    """`pixel_values` and `image_grid_thw`, by each side's own image processor."""
    if side == "transformers":
        features = Glm4vImageProcessorPil()(images=[Image.fromarray(page) for page in pages], return_tensors="pt")
    else:
        features = HybridCtxImageProcessor()(pages, return_tensors="pt")
    return {name: features[name].to(device) for name in ("pixel_values", "image_grid_thw")}


def prompt_inputs(pixels: Row, question_tokens: int, seed: int = 0) -> Row:
    """What `generate` takes: pages, one after another, and a question of random tokens."""
    ids: list[int] = []
    for tokens in (pixels["image_grid_thw"].prod(-1) // 4).tolist():
        ids += [IMAGE_START, *[IMAGE] * tokens, IMAGE_END]
    ids += torch.randint(10, 1000, (question_tokens,), generator=torch.Generator().manual_seed(seed)).tolist()
    input_ids = torch.tensor([ids], device=pixels["pixel_values"].device)
    return {
        **pixels,
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
        "mm_token_type_ids": (input_ids == IMAGE).long(),
    }


# Clocks and meters


@dataclass
class Clock:
    """Seconds of repeated calls."""

    device: str
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def time(self, call: Callable[[], Any]) -> Any:
        """What the call returns."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        started, cpu = time.perf_counter(), time.process_time()
        output = call()
        if self.device == "cuda":
            torch.cuda.synchronize()
        self.wall.append(time.perf_counter() - started)
        self.cpu.append(time.process_time() - cpu)
        return output

    @property
    def figures(self) -> Row:
        """
        `seconds`: the fewest; on a CPU, those that the process computed, so that it does not matter what else the
        machine does.
        """
        seconds = self.cpu if self.device == "cpu" else self.wall
        figures = {"seconds": min(seconds), "seconds_median": statistics.median(seconds)}
        return figures | {"wall_seconds": min(self.wall), "repeats": len(seconds)}


def take_turns(calls: dict[str, Callable[[], Any]], repeats: int, device: str = "cpu") -> dict[str, Row]:
    """`Clock.figures` of each call. They take turns, so that a change of the machine's pace falls on all of them."""
    clocks = {name: Clock(device) for name in calls}
    for turn in range(repeats):
        for name in sorted(calls, reverse=bool(turn % 2)):
            clocks[name].time(calls[name])
    return {name: clock.figures for name, clock in clocks.items()}


def peak_bytes(call: Callable[[], Any], device: str = "cpu") -> tuple[int, Any]:
    """Bytes of tensors at the most, beyond those that were there before, and what the call returned."""
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        output = call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before, output
    with MemoryMeter() as meter:
        output = call()
    return meter.peak, output


def machine() -> Row:
    """As `describe_machine`, and what torch computes with."""
    return {
        **describe_machine(("torch", "transformers", "numpy", "pillow", "bitsandbytes", "flash-attn")),
        "threads_used": torch.get_num_threads(),
        "cuda_device": torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device",
        "cuda": torch.version.cuda,
    }


# Tables, plots and files


def in_mebibytes(rows: list[Row]) -> list[Row]:
    """The rows with MiB in place of bytes, for a table."""
    return [
        {**row, **{key: row[key] / MIB for key in row if key.endswith("_bytes") and row[key] is not None}}
        for row in rows
    ]


def print_table(title: str, columns: dict[str, str], rows: list[Row]) -> None:
    """Columns are `{key: "heading|format"}`; a row that was not run says why in place of its figures."""
    headings = {key: column.split("|")[0] for key, column in columns.items()}
    lines = [list(headings.values())]
    for row in rows:
        cells = []
        for key, column in columns.items():
            value = row.get(key)
            cells.append("" if value is None else format(value, column.split("|")[1]))
        lines.append(cells)
    widths = [max(map(len, cells)) for cells in zip(*lines)]
    print(f"\n{title}")
    for cells, row in zip(lines, [{}, *rows]):
        line = "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths))
        )
        print(line.rstrip() + (f"  not run: {row['not_run']}" if "not_run" in row else ""))
    sys.stdout.flush()


def write_results(name: str, rows: Any, arguments: Row, **more: Any) -> None:
    """`results/fused_path_<name>.json`: the rows, with what they were measured with and on."""
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    results = {"command": command, "machine": machine(), "arguments": arguments, **more, "rows": rows}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"fused_path_{name}.json"
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def plot_lines(axes: Any, rows: list[Row], x: str, y: str, scale: float = 1.0, by: str = "side") -> None:
    """One line for each side, both axes logarithmic, a tick at each measured x; the last values in the legend."""
    for side in dict.fromkeys(row[by] for row in rows):
        points = [(row[x], row[y] * scale) for row in rows if row[by] == side and row.get(y) is not None]
        axes.plot(*zip(*points), marker="o", label=f"{side}: {points[-1][1]:.3g}", color=COLOURS.get(side))
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ticks = sorted({row[x] for row in rows})
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(ticker.NullLocator())
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(x.replace("_", " "))
    axes.grid(alpha=0.3)
    title = f"at {ticks[-1]:,} {x.replace('_', ' ')}"
    axes.legend(frameon=False, fontsize=8, title=title, title_fontsize=8, alignment="left", labelspacing=0.3)


def save_plot(figure: Any, name: str, title: str) -> None:
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(RESULTS / f"fused_path_{name}.png", dpi=110)
    pyplot.close(figure)
