# SPDX-License-Identifier: Apache-2.0
r"""Rendering side by side with Glyph's own script, in one run on one core.

    python benchmarks/rendering.py --glyph-script Glyph/scripts/word2png_function.py \
        --config Glyph/config/config_en.json --prose novel.txt \
        [--chinese text.txt --chinese-font font.ttf] [--text other.txt ...] [--memory] [--workers 1 2]

Glyph's script (github.com/thu-coai/Glyph) is not part of this project: its path is an argument. It needs reportlab,
pdf2image, poppler's pdftoppm, numpy, Pillow and tqdm; the similarity needs scikit-image. Both sides draw with the same
font file (`--font`; the bundled DejaVu Sans if it is not given), whatever the config names.

What is measured, text by text:
- lines: those of both sides that show anything, in order, white space at their ends removed; agreeing are those that
  stand at the same place on both sides (difflib's matching blocks, so one early difference costs one line);
- similarity: structural similarity (skimage.metrics.structural_similarity, grey, data_range=255) of each pair of pages
  after both sides' own cropping, the smaller one padded with white, averaged over pages;
- seconds: ours from a Python string to uint8 pages in memory with nothing kept from before (fonts, glyph tables and
  atlas are made anew), typesetting and rasterising apart, then once more with a warm atlas; Glyph's script from the
  same string to its PNG files, and that without the time it spends in writing them. `ratio` takes the whole of Glyph's
  script, `ratio_without_png` leaves out the writing.

`--memory` renders 10 MB of text page by page in a process of its own and reports its peak above the idle one.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import importlib
import importlib.util
import json
import os
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine
from PIL import Image

from transformers_hybridctx.rendering.fonts import load_face
from transformers_hybridctx.rendering.rasterizing import PageRenderer
from transformers_hybridctx.rendering.rendered_document import RenderedDocument
from transformers_hybridctx.rendering.settings import BUNDLED_SANS, RenderConfig

RESULTS = Path(__file__).parent / "results"


def table_of_numbers(lines: int, seed: int = 0) -> str:
    """Columns of figures parted by runs of spaces, single spaces and bars."""
    draw = random.Random(seed)
    rows = []
    for number in range(lines):
        figures = [draw.uniform(-1e4, 1e6) for _ in range(7)]
        rows.append(
            f"{number:6d} " + ("  ".join if number % 3 else " | ".join)([f"{figure:12,.2f}" for figure in figures])
        )
    return "\n".join(rows)


class GlyphSide:
    """Glyph's script, with an ear at the lines that reportlab writes and a clock around the PNG files."""

    def __init__(self, script: Path, config: dict[str, Any]) -> None:
        spec = importlib.util.spec_from_file_location("glyph_script", script)
        if spec is None or spec.loader is None:
            raise ValueError(f"{script} is not a Python file")
        self.module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        self.config = config

    def render(self, text: str) -> tuple[list[str], list[np.ndarray], float, float]:
        """(lines, pages, seconds, seconds without writing PNG files)."""
        pdf_text = importlib.import_module("reportlab.pdfgen.textobject").PDFTextObject
        lines: list[str] = []
        parts: list[str] = []
        saving = 0.0
        write, save = pdf_text._textOut, Image.Image.save

        def heard(self: Any, text: Any, TStar: int = 0) -> None:  # noqa: N803 (reportlab's name)
            parts.append(text.decode() if isinstance(text, bytes) else text)
            if TStar:
                lines.append("".join(parts))
                parts.clear()
            write(self, text, TStar)

        def clocked(self: Any, *args: Any, **kwargs: Any) -> None:
            nonlocal saving
            start = time.perf_counter()
            save(self, *args, **kwargs)
            saving += time.perf_counter() - start

        pdf_text._textOut, Image.Image.save = heard, clocked  # type: ignore[method-assign]
        try:
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                paths = self.module.text_to_images(text, folder, config_dict=self.config, unique_id="text")
                seconds = time.perf_counter() - start
                pages = [np.array(Image.open(path).convert("L")) for path in paths]
        finally:
            pdf_text._textOut, Image.Image.save = write, save  # type: ignore[method-assign]
        return lines, pages, seconds, seconds - saving


def our_lines(document: RenderedDocument) -> list[str]:
    table = document.typeset.line_table
    spans = zip(table.starts.tolist(), table.ends.tolist(), strict=True)
    return [document.typeset.display[start:end] for start, end in spans]


def as_read(line: str) -> str:
    """A line as a reader sees it: which kind of blank parts two words, and blanks at the ends, do not count."""
    return re.sub(r"\s+", " ", line.replace("\xad", "").replace("\u200b", "")).strip()


def seen(lines: list[str]) -> list[str]:
    """The lines that show anything: reportlab starts some pages with an empty line that is not one of the text's."""
    return [read for line in lines if (read := as_read(line))]


def lines_agreeing(theirs: list[str], ours: list[str]) -> int:
    matcher = difflib.SequenceMatcher(None, seen(theirs), seen(ours), False)
    return sum(block.size for block in matcher.get_matching_blocks())


def similarity(one: np.ndarray, other: np.ndarray) -> float:
    structural_similarity = importlib.import_module("skimage.metrics").structural_similarity
    shape = np.maximum(one.shape, other.shape)
    padded = [
        np.pad(page, [(0, int(side - has)) for side, has in zip(shape, page.shape, strict=True)], constant_values=255)
        for page in (one, other)
    ]
    return float(structural_similarity(*padded, data_range=255))


def grey(page: np.ndarray) -> np.ndarray:
    return page if page.ndim == 2 else np.array(Image.fromarray(page).convert("L"))


def time_ours(config: RenderConfig, text: str) -> dict[str, float]:
    load_face.cache_clear()
    start = time.perf_counter()
    renderer = PageRenderer(config)
    document = renderer.typeset(text)
    typeset = time.perf_counter()
    pages = list(renderer.draw_pages(document))
    drawn = time.perf_counter()
    del pages
    renderer.render(text)
    warm = time.perf_counter() - drawn
    return {"typesetting": typeset - start, "rasterising": drawn - typeset, "total": drawn - start, "warm": warm}


def compare(name: str, text: str, glyph: GlyphSide, config: RenderConfig, repeats: int) -> dict[str, Any]:
    runs = [time_ours(config, text) for _ in range(repeats)]
    ours = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    document = PageRenderer(config).render(text)
    lines, pages, seconds, unsaved = glyph.render(text)
    agreeing = lines_agreeing(lines, our_lines(document))
    scores = [similarity(one, grey(other)) for one, other in zip(pages, document.pages, strict=False)]
    same_size = sum(one.shape == other.shape[:2] for one, other in zip(pages, document.pages, strict=False))
    return {
        "text": name,
        "characters": len(text),
        "sha256": hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16],
        "lines": len(seen(lines)),
        "lines_agreeing": agreeing,
        "pages": [len(pages), document.num_pages],
        "pages_of_equal_size": same_size,
        "similarity_mean": statistics.mean(scores),
        "similarity_worst": min(scores),
        "seconds": {**ours, "glyph": seconds, "glyph_without_png": unsaved},
        "ratio": seconds / ours["total"],
        "ratio_without_png": unsaved / ours["total"],
        "ratio_warm": seconds / ours["warm"],
    }


_MEMORY_SCRIPT = """
import os, re, resource, sys, time
from transformers_hybridctx.rendering.rasterizing import PageRenderer
from transformers_hybridctx.rendering.settings import RenderConfig
text = open(sys.argv[1], encoding="utf-8").read()
text = (text * (10_000_000 // len(text) + 1))[:10_000_000]
renderer = PageRenderer(RenderConfig())
renderer.render("warm")
def peak():
    if os.path.exists("/proc/self/status"):  # getrusage counts what the process that started this one once held
        return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
idle = peak()
start = time.perf_counter()
document = renderer.typeset(text)
typeset, after = peak(), time.perf_counter()
pages = sum(1 for _ in renderer.draw_pages(document))
print(idle, typeset, peak(), pages, after - start, time.perf_counter() - after)
"""


def measure_memory(prose: Path) -> dict[str, float]:
    out = subprocess.run(
        [sys.executable, "-c", _MEMORY_SCRIPT, str(prose)], capture_output=True, text=True, check=True
    ).stdout.split()
    idle, typeset, peak, pages, typesetting, rasterising = map(float, out)
    return {
        "characters": 10_000_000,
        "pages": int(pages),
        "idle_MiB": idle,
        "typesetting_above_idle_MiB": typeset - idle,
        "peak_above_idle_MiB": peak - idle,
        "typesetting_seconds": typesetting,
        "rasterising_seconds": rasterising,
    }


def time_workers(config: RenderConfig, text: str, workers: list[int], documents: int = 384) -> list[dict[str, Any]]:
    """A batch of documents of 100,000 characters by so many processes, this one among them; their start counts.

    The checksum is that of the first documents, taken beside the clock: whoever reads the pages needs time of their own.
    """
    size = 100_000
    texts = [text[start : start + size] for start in range(0, len(text) - size, size)]
    texts = (texts * (documents // len(texts) + 1))[:documents]
    rows: list[dict[str, Any]] = []
    for count in workers:
        checksum, pages, first = 0, 0, 0.0
        for document in PageRenderer(config).render_documents(texts[:16], num_workers=count):
            for page in document.pages:
                checksum = zlib.crc32(page.data, checksum)
        this, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        start = time.perf_counter()
        for document in PageRenderer(config).render_documents(texts, num_workers=count):
            first = first or time.perf_counter() - start
            pages += document.num_pages
        seconds = time.perf_counter() - start
        row: dict[str, Any] = {"workers": count, "documents": documents, "pages": pages, "crc32": checksum}
        row |= {"seconds": seconds, "first_document_seconds": first, "pages_per_second": pages / seconds}
        for name, who, before in (
            ("this_process_cpu_seconds", resource.RUSAGE_SELF, this),
            ("other_processes_cpu_seconds", resource.RUSAGE_CHILDREN, others),
        ):
            used = resource.getrusage(who)
            row[name] = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
        rows.append(row)
    for row in rows:
        row["times_as_fast"] = rows[0]["seconds"] / row["seconds"]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--glyph-script", type=Path, help="Glyph's scripts/word2png_function.py")
    parser.add_argument("--config", type=Path, help="a config of Glyph's, for example config_en.json")
    parser.add_argument(
        "--prose", type=Path, required=True, help="a long text with newlines, at least 200,000 characters"
    )
    parser.add_argument("--font", type=Path, default=Path(BUNDLED_SANS))
    parser.add_argument("--chinese", type=Path)
    parser.add_argument("--chinese-font", type=Path)
    parser.add_argument("--text", type=Path, action="append", default=[], help="more texts, each compared whole")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory", action="store_true", help="render 10 MB page by page and report the peak")
    parser.add_argument("--workers", type=int, nargs="*", default=[], help="times a batch of documents by processes")
    parser.add_argument("--out", type=Path, default=RESULTS / "rendering.json")
    options = parser.parse_args()
    packages = ("numpy", "pillow", "uharfbuzz", "reportlab", "pdf2image", "scikit-image")
    results: dict[str, Any] = {"machine": describe_machine(packages), "comparison": []}
    prose = options.prose.read_text(encoding="utf-8")
    if options.workers:
        config = RenderConfig() if options.config is None else our_config(options.config, options.font)
        results["workers"] = time_workers(config, prose, options.workers)
        print(*results["workers"], sep="\n")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        results["machine"]["cores_used"] = 1
    if options.memory:
        results["memory"] = measure_memory(options.prose)
        print(results["memory"])
    if options.glyph_script:
        if options.config is None:
            parser.error("--glyph-script needs --config")
        sources = sorted((Path(__file__).parents[1] / "src" / "transformers_hybridctx").rglob("*.py"))
        code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
        flat = re.sub(r"\s+", " ", prose)
        texts = {
            "prose, newline-free, 150,000": flat[:150_000],
            "prose, newline-free, 5,000, cold": flat[20_000:25_000],
            "prose with newlines": prose[:150_000],
            "code": code[:100_000],
            "table of numbers": table_of_numbers(1000),
            **{path.stem: path.read_text(encoding="utf-8") for path in options.text},
        }
        fonts = dict.fromkeys(texts, options.font)
        if options.chinese and options.chinese_font:
            texts["Chinese"] = options.chinese.read_text(encoding="utf-8")[:60_000]
            fonts["Chinese"] = options.chinese_font
        columns = (
            "agreeing",
            "pages",
            "SSIM",
            "worst",
            "typeset s",
            "draw s",
            "Glyph s",
            "no PNG s",
            "ratio",
            "no PNG",
            "warm",
        )
        print(f"{'text':34}" + "".join(f"{column:>10}" for column in columns))
        values = json.loads(options.config.read_text(encoding="utf-8"))
        for name, text in texts.items():
            glyph = GlyphSide(options.glyph_script, {**values, "font-path": str(fonts[name])})
            row = compare(name, text, glyph, our_config(options.config, fonts[name]), options.repeats)
            results["comparison"].append(row)
            seconds = row["seconds"]
            cells = (
                f"{row['lines_agreeing']}/{row['lines']}",
                "{}/{}".format(*row["pages"]),
                f"{row['similarity_mean']:.4f}",
                f"{row['similarity_worst']:.4f}",
                f"{seconds['typesetting']:.4f}",
                f"{seconds['rasterising']:.4f}",
                f"{seconds['glyph']:.3f}",
                f"{seconds['glyph_without_png']:.3f}",
                f"{row['ratio']:.1f}",
                f"{row['ratio_without_png']:.1f}",
                f"{row['ratio_warm']:.1f}",
            )
            print(f"{name:34}" + "".join(f"{cell:>10}" for cell in cells), flush=True)
    results["peak_of_this_process_MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def our_config(path: Path, font: Path) -> RenderConfig:
    values = json.loads(path.read_text(encoding="utf-8"))
    return RenderConfig.from_glyph({**values, "font-path": str(font)})


if __name__ == "__main__":
    main()
