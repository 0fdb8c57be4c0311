# SPDX-License-Identifier: Apache-2.0
"""Files as documents: what each kind becomes, and why a file is refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from document_samples import RED_SQUARE, pdf_file
from PIL import Image

from transformers_hybridctx.documents import files
from transformers_hybridctx.documents.files import names_a_file, read_document_file
from transformers_hybridctx.documents.joined_document import DocumentParts
from transformers_hybridctx.documents.pdf import PDF_PAGE_DPI
from transformers_hybridctx.documents.scans import ScannedPages

TEXT = "Größe: 3 µm.\r\nمرحبا 你好\n"


def write(folder: Path, name: str, data: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def pixels(pages: str | ScannedPages) -> list[np.ndarray]:
    assert isinstance(pages, ScannedPages)
    drawn = [np.asarray(page) for page in pages.draw_pages(1)]
    assert [page.shape[:2] for page in drawn] == [pages.page_size(page) for page in range(pages.num_pages)]
    return drawn


# Text


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.log", "a.py", "no_suffix"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_is_read_to_the_character(tmp_path: Path, name: str, encoding: str) -> None:
    assert read_document_file(write(tmp_path, name, TEXT.encode(encoding))) == TEXT


def test_markdown_stays_as_it_is_written(tmp_path: Path) -> None:
    text = "# Title\n\n* one\n* **two**\n\n```python\n    x = 1\n```\n"
    assert read_document_file(write(tmp_path, "a.md", text)) == text


def test_control_characters_are_text(tmp_path: Path) -> None:
    text = "log\x00 \x1b[31mred\x1b[0m\nb\x08bo\x08ol\x08ld\na\x1fb\x1fc\x1e"
    assert read_document_file(write(tmp_path, "a.txt", text)) == text


@pytest.mark.parametrize("name", ["a.html", "a.HTM", "a.xhtml"])
def test_markup_is_read_as_markup_by_its_name(tmp_path: Path, name: str) -> None:
    assert read_document_file(write(tmp_path, name, "<h1>One</h1><p>two &amp; three")) == "# One\ntwo & three"
    assert read_document_file(write(tmp_path, "a.txt", "<p>one")) == "<p>one"


# PDF


@pytest.mark.parametrize("name", ["a.pdf", "A.PDF", "downloaded"])
def test_a_pdf_with_text_is_its_text_with_a_form_feed_between_pages(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name, pdf_file(["The code is 4821.\nKeep it.", "Second page."]))
    assert read_document_file(path) == "The code is 4821.\nKeep it.\fSecond page."


def test_a_hyphen_at_a_line_end_stays(tmp_path: Path) -> None:
    path = write(tmp_path, "a.pdf", pdf_file(["the key of green-\nlemur"]))
    assert read_document_file(path) == "the key of green-\nlemur"


def test_a_scanned_pdf_is_pictures_of_its_pages(tmp_path: Path) -> None:
    scan = Image.new("L", (300, 200), 255)
    scan.paste(0, (30, 20, 90, 60))
    colour = Image.new("RGB", (150, 200), (255, 0, 0))
    path = tmp_path / "scan.pdf"
    scan.save(path, save_all=True, append_images=[colour], resolution=72)
    grey, red = pixels(read_document_file(path))
    scale = PDF_PAGE_DPI // 72
    assert grey.shape == (200 * scale, 300 * scale)
    assert red.shape == (200 * scale, 150 * scale, 3)
    assert grey[40 * scale, 60 * scale] < 20 < 235 < grey[150 * scale, 200 * scale]


def test_pages_of_pictures_among_pages_of_text_are_not_left_out_silently(tmp_path: Path) -> None:
    path = write(tmp_path, "a.pdf", pdf_file(["Text.", RED_SQUARE, ""]))
    with pytest.warns(UserWarning, match="pages 2 hold pictures and hardly any text; they are shown"):
        assert isinstance(read_document_file(path), DocumentParts)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a blank page loses nothing
        assert read_document_file(write(tmp_path, "b.pdf", pdf_file(["Text.", ""]))) == "Text.\f"


# What cannot be read


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.txt", b"", "empty document: .*a.txt has no bytes"),
        ("a.txt", b" \n\t\n", "empty document: .*a.txt has no text, only white space"),
        ("a.html", b"<p> </p><script>x()</script>", "empty document: .*only white space and markup"),
        ("a.docx", b"PK\x03\x04\x14\x00\xff", "cannot be read as .docx: .*save it again, or as PDF"),
        ("a.txt", b"PK\x03\x04\x14\x00\xff", "is a zip archive, and no text"),
        (
            "a.odp",
            b"PK\x03\x04\x14\x00\xff",
            "holds slides of OpenDocument, which are not read; save it as .pptx or PDF",
        ),
        ("a.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is an Office file of before 2007 .*save it as .docx"),
        ("a.eml", b"no message", "is no e-mail: it has none of the headers"),
        ("a.pdf", b"%PDF-1.4\nnothing", "cannot be read as a PDF: it is damaged"),
        ("a.pdf", b"no PDF at all", "cannot be read as a PDF: it is damaged"),
        ("a.pdf", pdf_file(["Text."])[:-200], "cannot be read as a PDF: it is damaged"),
        (
            "a.pdf",
            pdf_file(["Text."], encrypted=True),
            "cannot be read as a PDF: it is encrypted; give its password",
        ),
        ("a.pdf", pdf_file(["", ""]), "empty document: the 2 pages of .*a.pdf are blank"),
        (
            "a.png",
            b"no picture at all",
            r"not a picture that can be read \(it does not begin as one of PNG, [^<]*\); save it again, as PNG",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_by_name_with_the_way_out(
    tmp_path: Path, name: str, data: bytes, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        read_document_file(write(tmp_path, name, data))
    assert str(tmp_path / name) in str(caught.value)


def test_bytes_and_file_objects_are_files(tmp_path: Path) -> None:
    data = pdf_file(["The code is 4821."])
    assert read_document_file(data) == "The code is 4821."
    assert read_document_file(b"<p>one", name="a.html") == "one"
    with write(tmp_path, "a.html", "<p>two").open("rb") as file:
        assert read_document_file(file) == "two"
    with pytest.raises(ValueError, match=r"scan.pdf cannot be read as a PDF: it is damaged"):
        read_document_file(data[:100], name="scan.pdf")
    with pytest.raises(TypeError, match="open it with mode 'rb'"), (tmp_path / "a.html").open() as text:
        read_document_file(text)  # type: ignore[arg-type]


def test_only_what_has_pages_has_page_ranges(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"pages='2': .*a.txt has no pages of its own"):
        read_document_file(write(tmp_path, "a.txt", "x"), pages="2")


def test_a_missing_file_a_folder_and_an_address_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"there is no file {tmp_path}/none.txt$"):
        read_document_file(tmp_path / "none.txt")
    with pytest.raises(FileNotFoundError, match="taken as text if it ends with a newline"):
        read_document_file(str(tmp_path / "none.txt"))
    with pytest.raises(IsADirectoryError, match="is a folder; name one file in it"):
        read_document_file(tmp_path)
    with pytest.raises(ValueError, match=r"https://a.org/b.pdf is an address.*download it"):
        read_document_file("https://a.org/b.pdf")


def test_an_address_of_a_file_is_its_path(tmp_path: Path) -> None:
    path = write(tmp_path, "my notes.txt", "x")
    for address in (path.as_uri(), f"file:{path}", f"file://localhost{path}"):
        assert names_a_file(address)
        assert read_document_file(address) == "x"
    with pytest.raises(FileNotFoundError, match=f"there is no file {tmp_path}/none"):
        read_document_file((tmp_path / "none").as_uri())
    with pytest.raises(ValueError, match="a file of the machine 'server'; copy it here"):
        read_document_file("file://server/share/a.pdf")


def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "a.txt", "x" * 1001)
    monkeypatch.setattr(files, "MAX_BYTES", 1000)
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("the file was read"))
    with pytest.raises(ValueError, match="has 1,001 bytes, more than the 1,000"):
        read_document_file(path)


# Names and texts


@pytest.mark.parametrize(
    "name",
    [
        *("report.pdf", "my report.md", "/data/report", "./report", "~/report", r"C:\data\report", "http://a.b/c"),
        *("contract.docx", "Q3 figures.XLSX", "file:///data/report", "file:/data/my report", "file:report"),
    ],
)
def test_what_looks_like_a_file_is_one(name: str) -> None:
    assert names_a_file(name)
    assert names_a_file(Path(name))
    assert not names_a_file(name + "\n")
    assert not names_a_file(f"See {name}.\nIt says all.")


def test_the_name_of_an_existing_file_needs_no_suffix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not names_a_file("notes")
    write(tmp_path, "notes", "x")
    assert names_a_file("notes")


@pytest.mark.parametrize(
    "document",
    [
        "",
        " ",
        "A sentence.",
        "x" * 5000,
        "a\0b.txt",
        "one line\nreport.pdf",
        "and/or",
        b"report.pdf",
        7,
        None,
        ["a.pdf"],
    ],
)
def test_other_documents_are_no_names(document: Any) -> None:
    assert not names_a_file(document)
