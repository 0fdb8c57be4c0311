# SPDX-License-Identifier: Apache-2.0
"""Documents from files: text, Markdown, HTML, PDF and page pictures, or a clear reason why not."""

from __future__ import annotations

import codecs
import os
import re
import warnings
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pypdfium2
from PIL import Image, ImageOps, ImageSequence

MAX_BYTES = 64 * 2**20
"""Largest file that is read, in bytes."""
PDF_PAGE_DPI = 144
"""Resolution at which the pages of a PDF without text are drawn: twice that of typeset pages, for small print."""

_TEXTS = frozenset((".txt", ".md", ".markdown", ".rst", ".log", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml"))
_MARKUP = frozenset((".html", ".htm", ".xhtml"))
_PICTURES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif"))
_SUFFIXES = _TEXTS | _MARKUP | _PICTURES | {".pdf"}
_LONGEST_PATH = 1024
_BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_ZIP = b"PK\x03\x04"


def names_a_file(document: Any) -> bool:
    """Whether a document is given by its file's name: a path object, or a string that can hardly be meant as a text.

    Such a string is one line, without a newline at its end, that names an existing file, ends like a file's name
    (`report 2.pdf`), or starts like a path (`/data/report`, `./report`, `~/report`) or a URL and has no blanks.
    """
    if isinstance(document, os.PathLike):
        return True
    if not isinstance(document, str) or len(document) > _LONGEST_PATH or not document.isprintable():
        return False
    if re.fullmatch(r"(\w[\w+.-]*://|~?/|\.{1,2}/)\S+", document) or Path(document).suffix.lower() in _SUFFIXES:
        return True
    try:
        return bool(document.strip()) and Path(document).exists()
    except OSError:
        return False


def read_document_file(path: str | os.PathLike[str]) -> str | list[Image.Image]:
    """The text of a file; for a picture, or a PDF that holds no text (a scan), its pages as pictures.

    Text files are UTF-8, or UTF-16 with a byte order mark.

    Raises:
        FileNotFoundError, IsADirectoryError: there is no such file.
        ValueError: the file is empty, larger than `MAX_BYTES`, not in a known encoding, or a PDF or picture that is
            damaged or encrypted.

    Warns:
        UserWarning: some pages of a PDF hold pictures only; they are left out.
    """
    if re.match(r"\w[\w+.-]*://", str(path)):
        raise ValueError(
            f"{path} is an address, and nothing is fetched from the network: download it and pass the file"
        )
    given, path = path, Path(path).expanduser()
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name one file in it")
    if not path.exists():
        as_text = "; a text that looks like a file's name is taken as text if it ends with a newline"
        raise FileNotFoundError(f"there is no file {path}{as_text * isinstance(given, str)}")
    size = path.stat().st_size
    if size == 0:
        raise ValueError(f"empty document: {path} has no bytes")
    if size > MAX_BYTES:
        raise ValueError(f"{path} has {size:,} bytes, more than the {MAX_BYTES:,} that are read at once; split it up")
    suffix = path.suffix.lower()
    if suffix in _PICTURES:
        return _read_pictures(path)
    data = path.read_bytes()
    if suffix == ".pdf" or data.startswith(b"%PDF-"):
        return _read_pdf(path, data)
    text = _decode(path, data)
    text = html_text(text) if suffix in _MARKUP else text
    if not text.strip():
        raise ValueError(
            f"empty document: {path} has no text, only white space" + (" and markup" * (suffix in _MARKUP))
        )
    return text


def _decode(path: Path, data: bytes) -> str:
    if data.startswith(_ZIP):
        raise ValueError(
            f"{path} is a zip archive, as .docx, .odt and .epub files are; save it as PDF, HTML or plain text"
        )
    encoding = next((name for bom, name in _BOMS.items() if data.startswith(bom)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not {error.encoding} text: byte {data[error.start]:#04x} at position {error.start:,}; "
            "convert it to UTF-8, or decode it yourself and pass the text"
        ) from error


def _read_pictures(path: Path) -> list[Image.Image]:
    """All frames of a picture file, upright, on white paper."""
    try:
        with Image.open(path) as picture:
            return [_on_paper(ImageOps.exif_transpose(frame)) for frame in ImageSequence.Iterator(picture)]
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a picture that can be read ({error}); save it again, as PNG") from error


def _on_paper(picture: Image.Image) -> Image.Image:
    """The picture as grey ("L") or "RGB"."""
    if picture.mode.startswith("I"):  # 16 bits a pixel; Pillow's own conversion would clip
        return Image.fromarray((np.asarray(picture).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("L" if picture.mode in ("1", "L") else "RGB")


def _read_pdf(path: Path, data: bytes) -> str | list[Image.Image]:
    """The text of all pages, a form feed between two; pictures of the pages where there is no text at all."""
    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        reason = (
            "encrypted; save it without its password"
            if "password" in str(error).lower()
            else f"damaged ({error}); save or print it to PDF again"
        )
        raise ValueError(f"{path} cannot be read as a PDF: it is {reason}") from error
    try:
        pages = list(document)
        texts = [_text_of(page) for page in pages]
        drawn = [
            number for number, text in enumerate(texts, start=1) if not text.strip() and _is_drawn(pages[number - 1])
        ]
        if not any(text.strip() for text in texts):
            if not drawn:
                raise ValueError(f"empty document: the {len(pages)} pages of {path} are blank")
            return [_picture_of(page) for page in pages]
        if drawn:
            warnings.warn(
                f"{path}: pages {', '.join(map(str, drawn))} hold pictures and no text, and are left out; "
                "to read them, pass them as page images",
                stacklevel=3,
            )
        return "\f".join(texts)
    except pypdfium2.PdfiumError as error:
        raise ValueError(f"{path} cannot be read as a PDF: a page is damaged ({error})") from error
    finally:
        document.close()


def _text_of(page: Any) -> str:
    """A page's text, with the hyphens at line ends that PDFium marks as such."""
    text = page.get_textpage().get_text_bounded().replace("\r\n", "\n")
    return re.sub(r"[\ufffe\x02]\n?", "-\n", text)


def _is_drawn(page: Any) -> bool:
    return next(page.get_objects(), None) is not None


def _picture_of(page: Any) -> Image.Image:
    picture = page.render(scale=PDF_PAGE_DPI / 72).to_pil().convert("RGB")
    red, green, blue = picture.split()
    return red if red.tobytes() == green.tobytes() == blue.tobytes() else picture


class _TextOfHtml(HTMLParser):
    """Gathers what a reader sees, in `pieces`."""

    _BLOCKS = frozenset(
        (
            *(
                "address",
                "article",
                "aside",
                "blockquote",
                "br",
                "caption",
                "dd",
                "div",
                "dl",
                "dt",
                "figcaption",
                "figure",
            ),
            *(
                "footer",
                "form",
                "h1",
                "h2",
                "h3",
                "h4",
                "h5",
                "h6",
                "header",
                "hr",
                "li",
                "main",
                "nav",
                "ol",
                "p",
                "pre",
            ),
            *("section", "table", "tr", "ul"),
        )
    )
    _HIDDEN = frozenset(("script", "style", "template", "title"))

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._hidden = 0
        self._verbatim = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, Any]]) -> None:
        self._hidden += tag in self._HIDDEN
        self._verbatim += tag == "pre"
        if tag in ("td", "th"):
            self._separate("\t")
        elif tag in self._BLOCKS:
            self._separate("\n")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in self._HIDDEN and self._hidden > 0
        self._verbatim -= tag == "pre" and self._verbatim > 0
        if tag in self._BLOCKS:
            self._separate("\n")

    def handle_data(self, data: str) -> None:
        if self._hidden:
            return
        if not self._verbatim:
            data = re.sub(r"\s+", " ", data)
            data = data.lstrip() if self._is_at_blank() else data
        if data:
            self.pieces.append(data)

    def _separate(self, mark: str) -> None:
        if not (self._is_at_blank() and (mark == "\t" or self.pieces[-1:] == ["\n"])):
            self.pieces.append(mark)

    def _is_at_blank(self) -> bool:
        return not self.pieces or self.pieces[-1][-1].isspace()


def html_text(markup: str) -> str:
    """What a reader sees of an HTML page: blocks on lines of their own, preformatted text as it is, no scripts."""
    parser = _TextOfHtml()
    parser.feed(markup)
    parser.close()
    return re.sub(r"[ \t]+\n", "\n", "".join(parser.pieces)).strip("\n")
