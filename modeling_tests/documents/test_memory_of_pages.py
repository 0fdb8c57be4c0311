# SPDX-License-Identifier: Apache-2.0
"""What a file may take in memory is bounded by the pixels of one page, not by the file's size or its pages."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from document_samples import RED_SQUARE, SamplePage, pdf_file
from PIL import Image

from transformers_hybridctx.documents.scans import MAX_PAGE_PIXELS, ScannedPages

# Reads a file and draws its pages at a scale, one after another; prints pages, and MiB above what the imports take.
_READ = """
import re, sys
from transformers_hybridctx.documents.files import read_document_file
from transformers_hybridctx.documents.source_document import SourceDocument
peak = lambda: int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) / 1024  # its own, unlike maxrss
before = peak()
ocr = lambda picture: [("word", (0, 0, picture.width / 2, 20))] * 200
document = read_document_file(sys.argv[1], layout=sys.argv[3], ocr=ocr if sys.argv[4] == "ocr" else None)
if hasattr(document, "parts"):
    document = SourceDocument(document.parts)
drawn = sum(1 for page in document.draw_pages(float(sys.argv[2])))
print(drawn, peak() - before)
"""


def pages_and_mebibytes(path: Path, scale: float, layout: str = "typeset", ocr: str = "") -> tuple[int, float]:
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc")
    command = [sys.executable, "-c", "import os; os.environ['HYBRIDCTX_LIGHT_START'] = '1'\n" + _READ]
    done = subprocess.run([*command, str(path), str(scale), layout, ocr], capture_output=True, text=True, check=True)
    pages, mebibytes = done.stdout.split()
    return int(pages), float(mebibytes)


def test_many_pages_of_a_pdf_take_the_memory_of_one(tmp_path: Path) -> None:
    (tmp_path / "few.pdf").write_bytes(pdf_file([RED_SQUARE] * 5))
    (tmp_path / "many.pdf").write_bytes(pdf_file([RED_SQUARE] * 100))
    assert pages_and_mebibytes(tmp_path / "few.pdf", 2)[0] == 5
    pages, mebibytes = pages_and_mebibytes(tmp_path / "many.pdf", 2)
    assert pages == 100
    assert mebibytes < 64  # all pages at once would be 300 MiB


def test_a_large_file_of_scans_is_not_kept_in_memory(tmp_path: Path) -> None:
    noise = Image.frombytes("L", (2000, 2000), random.Random(0).randbytes(4_000_000))
    (tmp_path / "scans.pdf").write_bytes(pdf_file([SamplePage(b"", picture=noise)] * 50))
    pages, mebibytes = pages_and_mebibytes(tmp_path / "scans.pdf", 0.5)
    assert pages == 50
    assert mebibytes < 140  # the file has 190 MiB


def test_source_pages_take_the_memory_of_one_and_of_their_characters(tmp_path: Path) -> None:
    page = "\n".join("Clause 17 of the contract, with a sum of 485,000 EUR" for _ in range(10))
    (tmp_path / "many.pdf").write_bytes(pdf_file([page] * 100))
    pages, mebibytes = pages_and_mebibytes(tmp_path / "many.pdf", 2, "source")
    assert pages == 100
    assert mebibytes < 64  # all pages at once would be 300 MiB


def test_pages_are_recognised_in_the_memory_of_one(tmp_path: Path) -> None:
    scan = SamplePage(b"", picture=Image.new("L", (300, 200), 200))
    (tmp_path / "many.pdf").write_bytes(pdf_file([scan] * 40, size=(600, 800)))
    pages, mebibytes = pages_and_mebibytes(tmp_path / "many.pdf", 0.5, ocr="ocr")
    assert pages == 40
    assert mebibytes < 128  # all pages at once, at 288 dpi, would be 300 MiB in grey, and 900 MiB as they are drawn


def test_a_huge_page_is_drawn_within_the_bound(tmp_path: Path) -> None:
    path = tmp_path / "huge.pdf"
    path.write_bytes(pdf_file([RED_SQUARE], size=(14_400, 14_400)))
    pages, mebibytes = pages_and_mebibytes(path, 8)
    assert pages == 1
    assert mebibytes < 16 * MAX_PAGE_PIXELS / 2**20


def test_frames_of_a_picture_are_decoded_one_at_a_time(tmp_path: Path) -> None:
    frames = [Image.new("L", (500, 500), shade) for shade in range(40)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    pages, mebibytes = pages_and_mebibytes(tmp_path / "a.gif", 0.1)
    assert pages == 40
    assert mebibytes < 30  # all frames at once, in colour, would be 40 MiB


@pytest.mark.parametrize("size", [(9_000, 9_000), (100_000, 900), (3, 20_000_000)])
def test_no_page_has_more_pixels_than_the_bound_at_any_scale(size: tuple[int, int]) -> None:
    class Page:
        def __init__(self) -> None:
            self.size = size

        def draw(self, height: int, width: int) -> Image.Image:
            raise AssertionError("page sizes are known without drawing")

    pages = ScannedPages([Page()])
    for scale in (0.01, 0.5, 1, 4, 1e6):
        height, width = pages.page_size(0, scale)
        assert height * width <= MAX_PAGE_PIXELS * 1.01 + max(height, width)
        assert min(height, width) >= 1
