# SPDX-License-Identifier: Apache-2.0
"""Documents from files: what each kind becomes, or a clear reason why not. docs/documents.md has the table of kinds."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal
from urllib.parse import unquote, urlsplit

from .containers import check_container
from .emptiness import EmptyFileError
from .encodings import begins_as_text, decode
from .fictionbook import fictionbook_text
from .flat_odf import FLAT_FORMATS, packed_flat
from .html import html_text
from .joined_document import DocumentParts
from .office import PANDOC_FORMATS, email_text, mailbox_text, office_text
from .page_numbers import SourcePage, page_indices
from .pdf import PdfFile
from .pdf_layouts import Layout, check_layout, note_of
from .pdf_reading import read_pdf
from .pictures import GivenPicture
from .recognition import Recognizer, recognized_page
from .scans import ScannedPages
from .sheets import SHEET_SUFFIXES, workbook_text

MAX_BYTES = 64 * 2**20
"""Largest file of text that is read, in bytes."""
MAX_PAGED_BYTES = 2**30
"""Largest PDF or picture, in bytes; what its pages take in memory is bounded by pixels (`scans.MAX_PAGE_PIXELS`)."""

_TEXTS = frozenset((".txt", ".md", ".markdown", ".rst", ".log", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml"))
_MARKUP = frozenset((".html", ".htm", ".xhtml", ".svg"))
_PICTURES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif"))
_MESSAGES = frozenset((".eml", ".mht", ".mhtml", ".mbox"))
_BOOK = ".fb2"
_UNREAD = frozenset(
    (
        *(".doc", ".ppt", ".odp", ".fodp", ".mobi", ".msg", ".ps", ".eps", ".djvu", ".exe", ".mp3", ".mp4"),
        *(".zip", ".gz", ".tar", ".7z", ".rar"),
    )
)
_PACKAGES = PANDOC_FORMATS.keys() | SHEET_SUFFIXES | FLAT_FORMATS.keys() | _MESSAGES | {_BOOK}
_SUFFIXES = _TEXTS | _MARKUP | _PICTURES | _UNREAD | _PACKAGES | {".pdf"}
_NAMED_DOC = {b"{\\rtf": ".rtf", b"<html": ".html", b"<!doctype html": ".html", b"\xef\xbb\xbf<html": ".html"}
_LONGEST_PATH = 1024
Kind = Literal["pdf", "picture", "text", "package"]
"""As what a file is read; a package (of an office, mails, books) says itself how its text is encoded."""
_PATH = re.compile(r"(\w[\w+.-]*://|file:|~?/|\.{1,2}/|[A-Za-z]:[\\/])\S+")


def names_a_file(document: Any) -> bool:
    """Whether a document is given by its file's name: the one rule of what is a path and what is a text.

    A path is a `Path` object, or a string that can hardly be meant as a text: one line, without a newline at its end,
    that names something that exists, begins with `file:`, ends like a file's name (`report 2.pdf`), or starts like a
    path (`/data/report`, `./report`, `~/report`, a drive's letter) or an address and has no blanks. Whoever asks this
    hands what is a path to `read_document_file`, which says what there is no file of, and fetches nothing.

    Whatever ends with a newline is a text: so text from strangers is safe with one added.
    """
    if isinstance(document, os.PathLike):
        return True
    if not isinstance(document, str) or len(document) > _LONGEST_PATH or not document.isprintable():
        return False
    if _PATH.fullmatch(document) or document.startswith("file:/") or Path(document).suffix.lower() in _SUFFIXES:
        return True
    try:
        return bool(document.strip()) and Path(document).exists()
    except OSError:
        return False


def kind_of(path: str | os.PathLike[str], start: bytes | None = None) -> Kind:
    """What a file is read as, by its suffix and, of a PDF, by its first bytes, which are read unless given."""
    suffix = Path(path).suffix.lower()
    if suffix in _PICTURES:
        return "picture"
    if start is None:
        _, start = _size_and_start(local_path(path))
    if suffix == ".pdf" or start.startswith(b"%PDF-"):
        return "pdf"
    return "package" if suffix in _PACKAGES else "text"


def is_read(path: Path) -> bool:
    """Whether a file in a folder is of a kind that is read: by its suffix or, of an unknown one, such as that of a
    LICENSE, by its first bytes.
    """
    suffix = path.suffix.lower()
    if suffix in _SUFFIXES:
        return suffix not in _UNREAD
    _, start = _size_and_start(path)
    return start.startswith(b"%PDF-") or begins_as_text(start)


def read_document_file(
    path: str | os.PathLike[str] | bytes | BinaryIO,
    *,
    name: str | None = None,
    encoding: str | None = None,
    password: str | None = None,
    pages: str | None = None,
    layout: Layout = "typeset",
    ocr: Recognizer | None = None,
) -> str | ScannedPages | DocumentParts:
    """The text of a file; for a picture, or a PDF that holds no text (a scan), its pages, not yet drawn; or both.

    What a file is says its suffix, and of PDFs their first bytes. Of PDFs, the text of all pages is read, with what form
    fields and annotations hold and the text that recognition wrote over scans; a form feed stands between two pages. It
    is a `PagedText`, which knows the PDF's page of each character. Pages of text are typeset anew unless `layout` says
    otherwise, and pages that hold none are shown as they are, in their order (`DocumentParts`).

    Args:
        path: a path, or a `file:` address; or the bytes of a file, or what they are read from. Nothing is fetched from
            the network.
        name: what bytes are called in messages, and what their suffix is taken from; such as "report.pdf".
        encoding: of a file of text, by Python's names; else what `encodings.decode` finds.
        password: of an encrypted PDF.
        pages: of a PDF or a picture of many frames: those to read, counted from 1, such as "3", "10-20,25" or "90-".
        layout: of a PDF: "typeset" (a model that was trained on typeset pages reads these best), "source" (all pages as
            they are, with the text that they show beside them), or "auto" (pages with pictures, tables, drawings or form
            fields as they are).
        ocr: recognises the text of pages that hold none; see `recognition.Recognizer` and `recognition.tesseract`.

    Raises:
        FileNotFoundError, IsADirectoryError: there is no such file.
        EmptyFileError: the file holds nothing; a ValueError, too.
        ValueError: the file is larger than `MAX_BYTES` (PDFs and pictures: `MAX_PAGED_BYTES`), of a kind that is
            not read, damaged or encrypted.

    Warns:
        UserWarning: something of the file is not read, or is read by a guess: pages of pictures among pages of text, text
            that a PDF never shows, text that its fonts do not map to characters, bytes that are no text in the encoding,
            an encoding that was recognised.
    """
    source, name = _source_of(path, name)
    check_layout(layout)
    suffix = Path(name).suffix.lower()
    size, start = _size_and_start(source)
    kind = kind_of(name, start)
    if size == 0:
        raise EmptyFileError(f"empty document: {name} has no bytes")
    most = MAX_PAGED_BYTES if kind in ("pdf", "picture") else MAX_BYTES
    if size > most:
        raise ValueError(f"{name} has {size:,} bytes, more than the {most:,} that are read at once; split it up")
    if kind == "picture":
        return _pictures(GivenPicture.frames_of(source, name), pages, name, ocr)
    if kind == "pdf":
        return read_pdf(PdfFile(source, name, password), pages, layout, ocr)
    if pages is not None:
        raise ValueError(f"pages={pages!r}: {name} has no pages of its own")
    data = source if isinstance(source, bytes) else source.read_bytes()
    text = _text_of(data, suffix, name, encoding)
    if not text.strip():
        what = " and markup" * (suffix in _MARKUP)
        raise EmptyFileError(f"empty document: {name} has no text, only white space{what}")
    return text


def _pictures(
    frames: Sequence[GivenPicture], pages: str | None, name: str, ocr: Recognizer | None
) -> ScannedPages | DocumentParts:
    indices = page_indices(pages, len(frames), name)
    if ocr is None:
        return ScannedPages([frames[index] for index in indices])
    numbers = [SourcePage(index + 1, str(index + 1)) if len(frames) > 1 else None for index in indices]
    shown = [recognized_page(frames[index], ocr, number) for index, number in zip(indices, numbers, strict=True)]
    if not any(page.text for page in shown):
        warnings.warn(f"{name}: text recognition finds no words on its pages", stacklevel=3)
        return ScannedPages([page.source for page in shown])
    return DocumentParts(tuple(shown), note_of({index + 1: ["recognised text"] for index in indices}, 0))


def _text_of(data: bytes, suffix: str, name: str, encoding: str | None) -> str:
    if suffix == ".doc":  # as programs name what Word opens
        suffix = next(
            (kind for start, kind in _NAMED_DOC.items() if data[:512].lstrip().lower().startswith(start)), suffix
        )
    if suffix in (".odp", ".fodp"):
        raise ValueError(f"{name} holds slides of OpenDocument, which are not read; save it as .pptx or PDF")
    if suffix in FLAT_FORMATS:
        data, suffix = packed_flat(data, name), FLAT_FORMATS[suffix]
    if suffix in PANDOC_FORMATS or suffix in SHEET_SUFFIXES:
        check_container(data, suffix, name)
    if suffix in PANDOC_FORMATS:
        return office_text(data, suffix, name)
    if suffix in SHEET_SUFFIXES:
        return workbook_text(data, name)
    if suffix in _MESSAGES:
        return mailbox_text(data, name) if suffix == ".mbox" else email_text(data, name)
    if suffix == _BOOK:
        return fictionbook_text(data, name)
    text = decode(data, name, encoding, is_markup=suffix in _MARKUP or suffix == ".xml")
    if suffix not in _MARKUP:
        return text
    try:
        return html_text(text, name)
    except ValueError as error:
        raise ValueError(f"{name} cannot be read as HTML: {error}") from error


def _source_of(given: str | os.PathLike[str] | bytes | BinaryIO, name: str | None) -> tuple[Path | bytes, str]:
    """(an existing file or bytes, what it is called)."""
    if not isinstance(given, (str, os.PathLike)):
        data = given if isinstance(given, bytes) else given.read()
        if not isinstance(data, bytes):
            raise TypeError(
                f"a file object of bytes is read, not one of {type(data).__name__}; open it with mode 'rb'"
            )
        return data, name or name_of_open_file(given, "the given bytes")
    path = local_path(given)
    if path.is_dir():
        raise IsADirectoryError(
            f"{path} is a folder; name one file in it, or read it as one document with `read_documents`"
        )
    if not path.exists():
        as_text = "; a text that looks like a file's name is taken as text if it ends with a newline"
        raise FileNotFoundError(f"there is no file {path}{as_text * isinstance(given, str)}")
    return (path if path.is_file() else path.read_bytes()), str(path)  # a pipe has no size


def name_of_open_file(file: Any, otherwise: str) -> str:
    """What an open file is called: standard input by its words, what has no name as `otherwise`."""
    name = getattr(file, "name", None)
    if name == "<stdin>":
        return "standard input"
    return name if isinstance(name, str) else otherwise


def _size_and_start(source: Path | bytes) -> tuple[int, bytes]:
    if isinstance(source, bytes):
        return len(source), source[:1024]
    with source.open("rb") as file:
        return source.stat().st_size, file.read(1024)


def local_path(path: str | os.PathLike[str]) -> Path:
    """The path that a path or a `file:` address names; a ValueError for what is on another machine."""
    if isinstance(path, str) and path.startswith("file:"):
        address = urlsplit(path)
        if address.netloc not in ("", "localhost"):
            raise ValueError(f"{path} is a file of the machine {address.netloc!r}; copy it here and pass its path")
        return Path(unquote(address.path))
    if re.match(r"\w[\w+.-]*://", str(path)):
        raise ValueError(
            f"{path} is an address, and nothing is fetched from the network unasked: download it and pass the file"
        )
    return Path(path).expanduser()
