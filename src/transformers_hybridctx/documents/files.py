# SPDX-License-Identifier: Apache-2.0
"""Documents from files: text, Markdown, HTML, PDF and page pictures, or a clear reason why not."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from .encodings import decode
from .html import html_text
from .page_numbers import page_indices
from .pdf import PdfFile
from .pdf_reading import read_pdf
from .pictures import GivenPicture
from .scans import ScannedPages

MAX_BYTES = 64 * 2**20
"""Largest file of text that is read, in bytes."""
MAX_PAGED_BYTES = 2**30
"""Largest PDF or picture, in bytes; what its pages take in memory is bounded by pixels (`scans.MAX_PAGE_PIXELS`)."""

_TEXTS = frozenset((".txt", ".md", ".markdown", ".rst", ".log", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml"))
_MARKUP = frozenset((".html", ".htm", ".xhtml"))
_PICTURES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif"))
_SUFFIXES = _TEXTS | _MARKUP | _PICTURES | {".pdf"}
_UNREAD = frozenset(
    (
        *(".doc", ".docx", ".docm", ".odt", ".rtf", ".ppt", ".pptx", ".odp", ".xls", ".xlsx", ".xlsm", ".ods"),
        *(".epub", ".mobi", ".eml", ".msg", ".ipynb", ".ps", ".eps", ".djvu", ".zip", ".gz", ".tar", ".7z", ".rar"),
        *(".exe", ".mp3", ".mp4"),
    )
)
_SUFFIXES = _TEXTS | _MARKUP | _PICTURES | {".pdf"}
_UNREAD = frozenset(
    [
        ".doc",
        ".docx",
        ".docm",
        ".odt",
        ".rtf",
        ".ppt",
        ".pptx",
        ".odp",
        ".xls",
        ".xlsx",
        ".xlsm",
        ".ods",
        ".epub",
        ".mobi",
        ".eml",
        ".msg",
        ".ipynb",
        ".ps",
        ".eps",
        ".djvu",
        ".zip",
        ".gz",
        ".tar",
        ".7z",
        ".rar",
        ".exe",
        ".mp3",
        ".mp4",
    ]
)
_SUFFIXES = _TEXTS | _MARKUP | _PICTURES | _UNREAD | {".pdf"}
_LONGEST_PATH = 1024
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


def read_document_file(
    path: str | os.PathLike[str], *, password: str | None = None, pages: str | None = None
) -> str | ScannedPages:
    """The text of a file; for a picture, or a PDF that holds no text (a scan), its pages, not yet drawn.

    Text files are UTF-8, or UTF-16 with a byte order mark. Of PDFs, the text of all pages is read, with what form
    fields and annotations hold and the text that recognition wrote over scans; a form feed stands between two pages.
    It is a `PagedText`, which knows the PDF's page of each character.

    Args:
        path: a path, or a `file:` address. Nothing is fetched from the network.
        password: of an encrypted PDF.
        pages: of a PDF or a picture of many frames: those to read, counted from 1, such as "3", "10-20,25" or "90-".

    Raises:
        FileNotFoundError, IsADirectoryError: there is no such file.
        ValueError: the file is empty, larger than `MAX_BYTES` (PDFs and pictures: `MAX_PAGED_BYTES`), not in a known
            encoding, or a PDF or picture that is damaged or encrypted.

    Warns:
        UserWarning: some pages of a PDF are pictures of text, others hold text; what the pictures show is left out. A PDF
            holds text that it never shows, or text that its fonts do not map to characters.
    """
    given, path = path, _local_path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name one file in it")
    if not path.exists():
        as_text = "; a text that looks like a file's name is taken as text if it ends with a newline"
        raise FileNotFoundError(f"there is no file {path}{as_text * isinstance(given, str)}")
    size, suffix = path.stat().st_size, path.suffix.lower()
    with path.open("rb") as file:
        is_pdf = suffix == ".pdf" or file.read(5) == b"%PDF-"
    if size == 0:
        raise ValueError(f"empty document: {path} has no bytes")
    most = MAX_PAGED_BYTES if is_pdf or suffix in _PICTURES else MAX_BYTES
    if size > most:
        raise ValueError(f"{path} has {size:,} bytes, more than the {most:,} that are read at once; split it up")
    if suffix in _PICTURES:
        frames = GivenPicture.frames_of(path, str(path))
        return ScannedPages([frames[index] for index in page_indices(pages, len(frames), str(path))])
    if is_pdf:
        return read_pdf(PdfFile(path, str(path), password), pages)
    text = decode(path.read_bytes(), str(path))
    if suffix in _MARKUP:
        try:
            text = html_text(text)
        except ValueError as error:
            raise ValueError(f"{path} cannot be read as HTML: {error}") from error
    if not text.strip():
        raise ValueError(
            f"empty document: {path} has no text, only white space" + (" and markup" * (suffix in _MARKUP))
        )
    return text


def _local_path(path: str | os.PathLike[str]) -> Path:
    if isinstance(path, str) and path.startswith("file:"):
        address = urlsplit(path)
        if address.netloc not in ("", "localhost"):
            raise ValueError(f"{path} is a file of the machine {address.netloc!r}; copy it here and pass its path")
        return Path(unquote(address.path))
    if re.match(r"\w[\w+.-]*://", str(path)):
        raise ValueError(
            f"{path} is an address, and nothing is fetched from the network: download it and pass the file"
        )
    return Path(path).expanduser()
