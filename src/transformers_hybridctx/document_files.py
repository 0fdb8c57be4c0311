# SPDX-License-Identifier: Apache-2.0
"""Documents from files: text, Markdown, HTML, PDF and page pictures, or a clear reason why not."""

from __future__ import annotations

import codecs
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

MAX_BYTES = 64 * 2**20
"""Largest file that is read, in bytes."""
PDF_PAGE_DPI = 144
"""Resolution at which the pages of a PDF without text are drawn: twice that of typeset pages, for print that is small."""
_PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif"}
_BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def read_document_file(path: str | os.PathLike[str]) -> str | list[Image.Image]:
    """The text of a file; for a picture, or a PDF that holds no text (a scan), its pages as pictures.

    Text files are UTF-8, or UTF-16 with a byte order mark.

    Raises:
        FileNotFoundError, IsADirectoryError: there is no such file.
        ValueError: the file is empty, larger than `MAX_BYTES`, not in a known encoding, or a PDF or picture that is
            damaged or encrypted.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name one file in it")
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}; pass an existing path, or the text itself")
    size = path.stat().st_size
    if size == 0:
        raise ValueError(f"empty document: {path} has no bytes")
    if size > MAX_BYTES:
        raise ValueError(
            f"{path} has {size:,} bytes, more than the {MAX_BYTES:,} that are read at once; split it into several documents"
        )
    suffix = path.suffix.lower()
    if suffix == ".pdf":
        return _read_pdf(path)
    if suffix in _PICTURES:
        return [_read_picture(path)]
    text = _decode(path)
    return html_text(text) if suffix in {".html", ".htm"} else text


def _decode(path: Path) -> str:
    data = path.read_bytes()
    encoding = next((name for bom, name in _BOMS.items() if data.startswith(bom)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not {error.encoding} text: byte {data[error.start]:#04x} at position {error.start:,}; "
            "convert it to UTF-8, or decode it yourself and pass the text"
        ) from error


def _read_picture(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            return picture.convert("L" if picture.mode in ("1", "L", "I;16") else "RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path} is not a picture that can be read: {error}") from error


def _read_pdf(path: Path) -> str | list[Image.Image]:
    """The text of all pages, a form feed between two; pictures of the pages where there is no text at all."""
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        reason = "encrypted: remove its password first" if "password" in str(error).lower() else f"damaged ({error})"
        raise ValueError(f"{path} cannot be read as a PDF; it is {reason}") from error
    try:
        texts = [page.get_textpage().get_text_bounded().replace("\r\n", "\n") for page in document]
        if any(text.strip() for text in texts):
            return "\f".join(texts)
        if not texts:
            raise ValueError(f"empty document: {path} has no pages")
        return [page.render(scale=PDF_PAGE_DPI / 72).to_pil() for page in document]
    finally:
        document.close()


class _TextOfHtml(HTMLParser):
    _BLOCKS = frozenset(
        "address article aside blockquote br dd div dl dt footer h1 h2 h3 h4 h5 h6 header hr li main nav ol p pre section "
        "table tr ul".split()
    )
    _HIDDEN = frozenset(("script", "style", "template", "head"))

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._hidden = 0
        self._verbatim = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, Any]]) -> None:
        self._hidden += tag in self._HIDDEN
        self._verbatim += tag == "pre"
        self.pieces.append("\n" if tag in self._BLOCKS else "\t" if tag in ("td", "th") else "")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in self._HIDDEN and self._hidden > 0
        self._verbatim -= tag == "pre" and self._verbatim > 0
        self.pieces.append("\n" if tag in self._BLOCKS else "")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.pieces.append(data if self._verbatim else re.sub(r"\s+", " ", data))


def html_text(markup: str) -> str:
    """What a reader sees of an HTML page: blocks on lines of their own, no scripts, styles or head."""
    parser = _TextOfHtml()
    parser.feed(markup)
    parser.close()
    return re.sub(r"[ \t]*\n\s*", "\n", "".join(parser.pieces)).strip()
