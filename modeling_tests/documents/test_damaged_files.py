# SPDX-License-Identifier: Apache-2.0
"""Damaged files of every kind: an answer or a clear error, in bounded memory, and never anything else."""

from __future__ import annotations

import functools
import random
import subprocess
import sys
import warnings
import zlib
from email.message import EmailMessage
from io import BytesIO

import pytest
from document_samples import RED_SQUARE, Annotation, SamplePage, lines, pdf_file, scan
from office_samples import workbook
from paged_text_contract import check_paged_text
from PIL import Image

from transformers_hybridctx.documents.files import read_document_file
from transformers_hybridctx.documents.joined_document import DocumentParts
from transformers_hybridctx.documents.pdf_layouts import LAYOUTS
from transformers_hybridctx.documents.scans import ScannedPages
from transformers_hybridctx.documents.source_document import ShownPage, SourceDocument


def picture(kind: str) -> bytes:
    buffer = BytesIO()
    frames = [Image.linear_gradient("L").resize((60, 40)).rotate(turn) for turn in (0, 90)]
    frames[0].save(buffer, kind, **({"save_all": True, "append_images": frames[1:]} if kind != "BMP" else {}))
    return buffer.getvalue()


def mail() -> bytes:
    message = EmailMessage()
    message["Subject"], message["From"] = "Größe", "ada@example.org"
    message.set_content("naïve\n")
    message.add_attachment(b"x", maintype="application", subtype="pdf", filename="a.pdf")
    return bytes(message)


FIELD = Annotation("Tx", "Ada", (100, 165, 250, 185), "name")
SAMPLES = {
    "a.pdf": pdf_file(
        [SamplePage(lines("Text"), annotations=(FIELD,)), SamplePage(b"", picture=scan("x")), RED_SQUARE, "é"]
    ),
    "a.html": "<title>T</title><table><tr><td colspan=2>Größe<td>1</table><select><option selected>x</select>".encode(),
    "a.txt": "Größe, naïve, 你好\n".encode() * 9,
    "a.csv": b"a,b\n1,2\n",
    "a.eml": mail(),
    "a.rtf": rb"{\rtf1\ansi {\b Sum} 485\par}",
    **{f"a.{kind.lower()}": picture(kind) for kind in ("PNG", "GIF", "TIFF", "WEBP", "BMP")},
}
OFFICE = {"a.xlsx": workbook({"One": [["a", "1"]], "Two": [["b", "2"]]})}
BY_PANDOC = ("a.docx", "a.pptx", "a.odt", "a.epub", "a.fb2", "a.ipynb")
# Reading these starts a process each time, which takes a part of a second.
SLOW = frozenset(("a.rtf", *OFFICE, *BY_PANDOC))


@functools.cache
def sample(name: str) -> bytes:
    """A file of each kind; those that pandoc reads are what it writes."""
    if name not in BY_PANDOC:
        return (SAMPLES | OFFICE)[name]
    program = pytest.importorskip("pypandoc").get_pandoc_path()
    kind = {"a.fb2": "fb2", "a.ipynb": "ipynb"}.get(name, name[2:])
    command = [program, "-f", "markdown", "-t", kind, "-s", "-o", "-"]
    text = "# Contract\n\nThe sum is **485,000** EUR.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    return subprocess.run(command, input=text.encode(), capture_output=True, check=True).stdout


def damaged(data: bytes, seed: int) -> bytes:
    """The file cut off, with bytes changed, left out or doubled."""
    chance = random.Random(seed)
    result = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(max(1, len(result)))
        length = chance.choice((1, 4, 32))
        kind = chance.randrange(4)
        if kind == 0:
            result[at : at + length] = chance.randbytes(length)
        elif kind == 1:
            del result[at : at + length]
        elif kind == 2:
            result[at:at] = result[at : at + 32]
        else:
            del result[at + len(result) // 2 :]
    return bytes(result)


@pytest.mark.parametrize("name", [*SAMPLES, *OFFICE, *BY_PANDOC])
def test_a_damaged_file_is_read_or_refused_by_name(name: str) -> None:
    outcomes = {"read": 0, "refused": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in range(4 if name in SLOW else 25):
            data = damaged(sample(name), seed)
            try:
                document = read_document_file(data, name=name, layout=LAYOUTS[seed % len(LAYOUTS)])
                if isinstance(document, DocumentParts):
                    document = SourceDocument([part for part in document.parts if isinstance(part, ShownPage)])
                    check_paged_text(document, 0.5, 0, min(60, len(document.text)))
                if isinstance(document, (ScannedPages, SourceDocument)):
                    for page in document.draw_pages(0.5):
                        assert page.mode in ("L", "RGB")
                outcomes["read"] += 1
            except ValueError as error:
                assert name in str(error)
                assert "\n" not in str(error) and len(str(error)) < 400
                outcomes["refused"] += 1
    assert sum(outcomes.values()) > 0


def bomb() -> bytes:
    """A PDF whose page's content is 50 MB of blanks before one drawing, in 50 kB."""
    content = zlib.compress(b" " * 50_000_000 + b"0 0 50 50 re f")
    plain = pdf_file([RED_SQUARE])
    start = plain.index(b"stream\n") + 7
    head = plain[:start].rpartition(b"<<")[0] + b"<< /Length %d /Filter /FlateDecode >>\nstream\n" % len(content)
    return head + content + plain[plain.index(b"\nendstream") :]


def wide_picture() -> bytes:
    """A page that is one picture of 10,000 x 10,000 pixels, in 400 kB."""
    page = pdf_file([SamplePage(b"", picture=Image.new("L", (1, 1)))])
    data = zlib.compress(bytes(100_000_000), 1)
    head, _, rest = page.partition(b"/Width 1 /Height 1")
    body = rest.partition(b"stream\n")[2].partition(b"\nendstream")[2]
    keys = b"/Width 10000 /Height 10000 /BitsPerComponent 8 /ColorSpace /DeviceGray /Filter /FlateDecode"
    length = b"/Length %d " % len(data)
    return (
        head.rpartition(b"/Length")[0]
        + length
        + b"/Type /XObject /Subtype /Image "
        + keys
        + (b" >>\nstream\n" + data + b"\nendstream" + body)
    )


@pytest.mark.parametrize("make", [bomb, wide_picture])
def test_small_files_that_unpack_to_large_ones_take_bounded_memory(tmp_path, make) -> None:
    pytest.importorskip("resource")
    path = tmp_path / "bomb.pdf"
    path.write_bytes(make())
    code = (
        "import os, resource, sys; os.environ['HYBRIDCTX_LIGHT_START'] = '1'\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))\n"
        "from transformers_hybridctx.documents.files import read_document_file\n"
        "try: print(len(list(read_document_file(sys.argv[1]).draw_pages(1))))\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.strip()
