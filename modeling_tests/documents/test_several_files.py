# SPDX-License-Identifier: Apache-2.0
"""Several files and folders as one document; files from the network only for those who ask."""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from document_samples import RED_SQUARE, SamplePage, lines, pdf_file, scan
from document_site import document_site
from PIL import Image

from transformers_hybridctx import PageRenderer, RenderConfig
from transformers_hybridctx.caching.document_tensors import document_of, tensors_of
from transformers_hybridctx.documents.fetching import fetch
from transformers_hybridctx.documents.joined_document import DocumentParts
from transformers_hybridctx.documents.page_numbers import SourcePage, source_page
from transformers_hybridctx.documents.several_files import read_documents


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "a.pdf").write_bytes(pdf_file(["One.", "Two is 4471."]))
    (tmp_path / "sub" / "b.txt").write_text("The code is 4821.")
    (tmp_path / ".hidden" / "c.txt").write_text("never read")
    return tmp_path


def test_the_parts_of_a_folder_keep_their_names_and_pages(folder: Path) -> None:
    text = read_documents([folder])
    assert text == "# a.pdf\n\nOne.\fTwo is 4471.\f# sub/b.txt\n\nThe code is 4821."
    assert source_page(text, text.index("4471")) == SourcePage(2, "2", "a.pdf")
    assert source_page(text, text.index("4821")) == SourcePage(1, "", "sub/b.txt")


def test_pictures_stand_among_texts_under_their_names(folder: Path) -> None:
    Image.new("L", (20, 10), 255).save(folder / "p.png")
    parts = read_documents([folder / "sub" / "b.txt", folder / "p.png"])
    assert isinstance(parts, DocumentParts)
    assert [isinstance(part, str) for part in parts.parts] == [True, True, False]
    assert parts.text == "# b.txt\n\nThe code is 4821.\f# p.png\n\n\f"
    assert parts.layout_note == "p.png: 1 page as in the file, unknown text"


def test_pages_that_show_more_than_their_text_are_known(folder: Path) -> None:
    Image.new("L", (20, 10), 255).save(folder / "p.png")
    stamped = SamplePage(lines("BATES 001"), picture=scan("The code is 7."))
    (folder / "mixed.pdf").write_bytes(pdf_file(["One.", stamped, b"", "Two."]))
    names = [folder / name for name in ("a.pdf", "mixed.pdf", "p.png")]
    parts = read_documents(names)
    assert isinstance(parts, DocumentParts)
    document = parts.laid_out(PageRenderer(RenderConfig()).typeset)
    shown = [document.page_span(page) for page in document.unknown_pages]
    assert [document.text[start:end].strip("\f") for start, end in shown] == ["BATES 001", ""]
    kept = document_of(tensors_of(document))
    assert isinstance(kept, DocumentParts)
    assert kept.laid_out(PageRenderer(RenderConfig()).typeset).unknown_pages == document.unknown_pages
    read = read_documents([folder / "p.png"], ocr=lambda picture: [("word", (1, 1, 9, 9))])
    assert isinstance(read, DocumentParts)
    assert not read.laid_out(PageRenderer(RenderConfig()).typeset).unknown_pages


def test_a_file_alone_is_itself(folder: Path) -> None:
    assert read_documents([folder / "sub" / "b.txt"]) == "The code is 4821."
    assert read_documents([BytesIO(b"from a pipe")]) == "from a pipe"


def test_a_file_that_is_given_twice_is_read_once_and_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder / "a.pdf"
    both = "# a.pdf\n\nOne.\fTwo is 4471.\f# sub/b.txt\n\nThe code is 4821."
    with pytest.warns(UserWarning, match=rf"these files are given more than once, and read once: {file}$"):
        assert read_documents([folder, file]) == both
    monkeypatch.chdir(folder)
    (folder / "sub" / "up").symlink_to(folder)
    for spelling in ("./a.pdf", "sub/../a.pdf", file.as_uri(), "sub/up/a.pdf"):
        with pytest.warns(UserWarning, match="given more than once, and read once"):
            assert read_documents(["a.pdf", spelling], pages="2") == "Two is 4471."
    opened = BytesIO(b"once")
    with pytest.warns(UserWarning, match="and read once: standard input"):
        assert read_documents([opened, opened]) == "once"


def test_files_of_one_name_are_called_by_their_paths(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "b.txt").write_text("Another.")
    monkeypatch.chdir(folder)
    text = read_documents(["b.txt", Path("sub/b.txt"), "a.pdf"], encoding="utf-8")
    assert str(text).startswith("# b.txt\n\nAnother.\f# sub/b.txt\n\nThe code is 4821.\f# a.pdf\n\nOne.")
    assert source_page(text, text.index("4821")) == SourcePage(1, "", "sub/b.txt")
    assert str(read_documents([(folder / "sub").as_uri()])) == "# b.txt\n\nThe code is 4821."


def test_kinds_that_are_not_read_are_named(folder: Path, tmp_path: Path) -> None:
    (folder / "sub" / "x.zip").write_bytes(b"PK")
    with pytest.warns(UserWarning, match=r"of no kind that is read: sub/x\.zip"):
        read_documents([folder])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no file of a kind that is read"):
        read_documents([tmp_path / "empty"])


def test_empty_files_are_named_and_the_others_are_read(folder: Path) -> None:
    (folder / "empty.txt").write_bytes(b"")
    (folder / "blank.md").write_text(" \n\t")
    (folder / "sub" / "blank.pdf").write_bytes(pdf_file([b""]))
    (folder / "sub" / "bare.html").write_text("<p hidden>x</p>")
    with pytest.warns(
        UserWarning, match=r"hold nothing, and are left out: blank\.md, empty\.txt, sub/bare.html, sub/blank\.pdf$"
    ):
        text = read_documents([folder])
    assert text == "# a.pdf\n\nOne.\fTwo is 4471.\f# sub/b.txt\n\nThe code is 4821."
    with pytest.raises(ValueError, match=r"empty document: .*empty\.txt has no bytes"):
        read_documents([folder / "sub" / "b.txt", folder / "empty.txt"])
    (folder / "alone").mkdir()
    (folder / "alone" / "c.txt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"^empty document: nothing is in c\.txt$"):
        read_documents([folder / "alone"])


def test_what_stands_in_a_folder_and_is_no_file_is_named(folder: Path) -> None:
    (folder / "dead.pdf").symlink_to(folder / "gone.pdf")
    (folder / "sub" / "dead").symlink_to(folder / "gone")
    (folder / "again").symlink_to(folder / "sub")
    (folder / "alive.txt").symlink_to(folder / "sub" / "b.txt")
    os.mkfifo(folder / "pipe.txt")
    with pytest.warns(UserWarning) as caught:
        text = read_documents([folder])
    assert text.count("The code is 4821.") == 2
    assert sorted(str(one.message).removeprefix(f"{folder}: ") for one in caught) == [
        "links to folders, which are not followed: again",
        "links to nothing: dead.pdf, sub/dead",
        "no files, but pipes or devices: pipe.txt",
    ]


def test_folders_that_cannot_be_looked_into_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look = os.scandir

    def forbidden(path: str) -> Any:
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return look(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    with pytest.warns(UserWarning, match=r"folders that cannot be looked into \(Permission denied\): sub$"):
        assert read_documents([folder]) == "# a.pdf\n\nOne.\fTwo is 4471."


def test_what_is_of_one_file_is_refused_for_several(folder: Path) -> None:
    with pytest.raises(ValueError, match="pages='2' is of one file, and 2 are read"):
        read_documents([folder], pages="2")
    (folder / "bad.pdf").write_bytes(pdf_file([RED_SQUARE])[:40])
    with pytest.raises(ValueError, match=r"bad\.pdf cannot be read as a PDF"):
        read_documents([folder])


@pytest.fixture
def site() -> Iterator[str]:
    with document_site() as address:
        yield address


def test_addresses_are_fetched_when_asked_and_never_else(site: str) -> None:
    assert read_documents([f"{site}/report"], may_fetch=True) == "Fetched."
    assert read_documents([f"{site}/a"], may_fetch=True) == "# A page"
    with pytest.raises(ValueError, match="nothing is fetched from the network unasked"):
        read_documents([f"{site}/report"])


@pytest.mark.parametrize(("path", "reason"), [("none", "404"), ("away", "redirects to file:///etc/passwd|403|302")])
def test_what_cannot_be_fetched_is_said(site: str, path: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"cannot be fetched: .*({reason})"):
        fetch(f"{site}/{path}", 1000)
    with pytest.raises(ValueError, match="has more than the 5 bytes"):
        fetch(f"{site}/a", 5)
    with pytest.raises(ValueError, match="is no http or https address"):
        fetch("file:///etc/passwd", 1000)


def test_texts_of_an_unknown_suffix_are_read_and_binaries_left_out(tmp_path: Path) -> None:
    for name, data in {
        "LICENSE": b"Apache",
        "Makefile": b"test:\n\tpytest",
        "a.py": ("x = 1  # " + "é" * 600).encode(),  # a character lies across the end of what is looked at
        "b.conf": "port = 4711".encode("utf-16"),
        "c.dat": b"PK\x03\x04\x14\x00\x00\x00",
        "d": b"\x7fELF\x02\x01\x01\x00",
        "e.npy": b"\x93NUMPY",
        "f": b"SQLite format 3\x00",
        ".env": b"SECRET=1",
    }.items():
        (tmp_path / name).write_bytes(data)
    with pytest.warns(UserWarning, match=r"of no kind that is read: c\.dat, d, e\.npy, f$"):
        text = str(read_documents([tmp_path]))
    assert text.split("\f") == [
        "# LICENSE\n\nApache",
        "# Makefile\n\ntest:\n\tpytest",
        "# a.py\n\nx = 1  # " + "é" * 600,
        "# b.conf\n\nport = 4711",
    ]
