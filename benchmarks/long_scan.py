# SPDX-License-Identifier: Apache-2.0
"""
Peak memory and seconds of a long scan: its plan, and its first three pages drawn, each in a process of its own.

    python benchmarks/long_scan.py --pages 15 1500

The scan is made here: A4 at 200 dpi, each page a JPEG of noisy paper and its own number, about 0.6 MB. Peak memory is
that of the whole process with its imports, as the kernel counts it (`ru_maxrss` of a child).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image, ImageDraw

_SIZE = (1654, 2339)
_TILE = 512


def scanned_pages(num_pages: int) -> Iterator[bytes]:
    """JPEG files of noisy pages, no two alike."""
    random = np.random.default_rng(0)
    noise = random.normal(225, 8, (_SIZE[1] + _TILE, _SIZE[0] + _TILE)).clip(0, 255).astype(np.uint8)
    for number in range(1, num_pages + 1):
        x, y = random.integers(0, _TILE, 2)
        page = Image.fromarray(noise[y : y + _SIZE[1], x : x + _SIZE[0]])
        ImageDraw.Draw(page).text((800, 1100), f"{number:,}", fill=20, font_size=60)
        file = BytesIO()
        page.save(file, "JPEG", quality=75)
        yield file.getvalue()


def write_scan(path: Path, num_pages: int) -> None:
    """A PDF of `num_pages` pages, each one JPEG; page by page, so that it never stands in memory."""
    width, height = _SIZE
    content = b"q 595 0 0 842 0 0 cm /I Do Q"
    places = []
    with path.open("wb") as file:

        def write(body: bytes) -> None:
            places.append(file.tell())
            file.write(b"%d 0 obj\n%b\nendobj\n" % (len(places), body))

        file.write(b"%PDF-1.4\n")
        kids = b" ".join(b"%d 0 R" % (4 + 2 * index) for index in range(num_pages))
        write(b"<</Type/Catalog/Pages 2 0 R>>")
        write(b"<</Type/Pages/Count %d/MediaBox[0 0 595 842]/Kids[%b]>>" % (num_pages, kids))
        write(b"<</Length %d>>stream\n%b\nendstream" % (len(content), content))
        for jpeg in scanned_pages(num_pages):
            picture = len(places) + 2
            write(b"<</Type/Page/Parent 2 0 R/Contents 3 0 R/Resources<</XObject<</I %d 0 R>>>>>>" % picture)
            shape = b"/Width %d/Height %d/ColorSpace/DeviceGray/BitsPerComponent 8" % (width, height)
            write(
                b"<</Type/XObject/Subtype/Image%b/Filter/DCTDecode/Length %d>>stream\n%b\nendstream"
                % (shape, len(jpeg), jpeg)
            )
        table = file.tell()
        file.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(places) + 1))
        file.writelines(b"%010d 00000 n \n" % place for place in places)
        file.write(b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (len(places) + 1, table))


def measure(arguments: list[str]) -> tuple[float, float]:
    """(seconds, peak MiB) of `hybridctx` with these arguments."""
    began = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", "transformers_hybridctx", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"hybridctx {' '.join(arguments)} failed")
    return time.perf_counter() - began, usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, nargs="+", default=[1500])
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        for num_pages in arguments.pages:
            scan = Path(folder) / "scan.pdf"
            write_scan(scan, num_pages)
            print(f"{num_pages:,} pages, {scan.stat().st_size / 1e6:,.0f} MB")
            for command in (
                ["plan", str(scan), "--budget", "4000000"],
                ["render", str(scan), "--pages", "1-3", "--out", f"{folder}/pages"],
            ):
                seconds, mebibytes = measure(command)
                print(f"{command[0]:8} {seconds:6.1f} s  {mebibytes:6,.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
