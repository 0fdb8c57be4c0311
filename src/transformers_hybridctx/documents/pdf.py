# SPDX-License-Identifier: Apache-2.0
"""PDF files by PDFium, which is one engine for all threads: one page is open at a time."""

from __future__ import annotations

import atexit
import math
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pypdfium2
import pypdfium2.raw as pdfium
from PIL import Image

from .emptiness import EmptyFileError
from .pdf_fields import page_entries
from .pdf_survey import PageSurvey, survey
from .pdf_text import PageText, page_text

PDF_PAGE_DPI = 144
"""Resolution of a PDF's own pages at scale 1: twice that of typeset pages, for small print."""

# PDFium may be in one thread only, whichever file it works on; what is collected as garbage closes its file in it, too.
_PDFIUM = threading.RLock()
_OPEN: weakref.WeakSet[PdfFile] = weakref.WeakSet()
_POINTS_PER_INCH = 72
# PDFium keeps what it has read of a file for as long as that is open, pictures included: it is opened anew after so much.
_MOST_KEPT = 2**26
# A page is a scan where pictures cover this much of it, and this many characters, at least, are not beside them.
_SCAN_COVERAGE = 0.5
_SCAN_CHARACTERS = 200


class PdfFile:
    """An open PDF, its form fields included. Any thread may use it.

    Args:
        source: a file, which is read as far as it is needed, or its bytes.
        name: what messages call it.
        password: of an encrypted file.

    Raises:
        ValueError: it is damaged or encrypted, or has no pages.
    """

    def __init__(self, source: Path | bytes, name: str, password: str | None = None) -> None:
        self.name = name
        self._source, self._password = source, password
        self._pages_read = 0
        with _PDFIUM:
            try:
                self._document, self._closing = self._opened()
            except pypdfium2.PdfiumError as error:
                if not self._is_locked(error):
                    reason = f"damaged ({error}); save or print it to PDF again"
                elif password is None:
                    reason = "encrypted; give its password (password=), or save it without its password"
                else:
                    reason = "encrypted with another password than the one given (password=)"
                raise ValueError(f"{name} cannot be read as a PDF: it is {reason}") from error
            self.num_pages = len(self._document)
        if not self.num_pages:
            raise EmptyFileError(f"empty document: {name} is a PDF without pages")
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        self._most_pages_read = max(1, _MOST_KEPT * self.num_pages // max(size, 1))

    def _is_locked(self, error: pypdfium2.PdfiumError) -> bool:
        """Whether it is for want of the right password. PDFium tells the reason of an earlier file where it has none."""
        data = self._source if isinstance(self._source, bytes) else self._source.read_bytes()
        return "password" in str(error).lower() and b"/Encrypt" in data

    def _opened(self) -> tuple[Any, weakref.finalize[Any, Any]]:
        """(the file, what closes it when this is gone, or sooner)."""
        document = pypdfium2.PdfDocument(self._source, password=self._password)
        closing = weakref.finalize(self, _close, document)
        _OPEN.add(self)
        document.init_forms()
        return document, closing

    @contextmanager
    def page(self, index: int) -> Iterator[Any]:
        """A page (pypdfium2's), for as long as the block lasts; no other page of any PDF is open meanwhile.

        Raises:
            ValueError: the page is damaged; the message counts pages from 1.
        """
        with _PDFIUM:
            page = None
            if self._pages_read >= self._most_pages_read:
                self._open_anew()
            self._pages_read += 1
            try:
                page = self._document[index]
                yield page
            except pypdfium2.PdfiumError as error:
                raise ValueError(self._says_damaged(index, str(error))) from error
            finally:
                if page is not None:
                    page.close()

    def _says_damaged(self, index: int, reason: str) -> str:
        page, last = index + 1, self.num_pages
        others = ",".join([f"1-{page - 1}"] * (page > 1) + [f"{page + 1}-"] * (page < last))
        way = f"pages={others!r} reads the others" if others else "save or print it to PDF again"
        return f"{self.name} cannot be read as a PDF: page {page} is damaged ({reason}); {way}"

    def _open_anew(self) -> None:
        try:
            document, closing = self._opened()
        except (pypdfium2.PdfiumError, OSError) as error:
            raise ValueError(f"{self.name} cannot be read any longer: {error}") from error
        self._closing()
        self._document, self._closing, self._pages_read = document, closing, 0

    def page_source(self, index: int) -> PdfPage:
        return PdfPage(self, index)

    def points(self, index: int) -> tuple[float, float]:
        """(width, height) of a page as it is shown, in 1/72 inch; known without reading the page."""
        with _PDFIUM:
            width, height = self._document.get_page_size(index)
        if not (0 < width < math.inf and 0 < height < math.inf):
            raise ValueError(self._says_damaged(index, f"{width} x {height} points"))
        return width, height

    def draw(self, index: int, height: int, width: int) -> Image.Image:
        """A page as a viewer shows it, with its annotations and form fields, in "L" or "RGB"."""
        with self.page(index) as page:
            pixels = self._pixels(page, height, width)
        is_grey = all(np.array_equal(pixels[:, :, 0], pixels[:, :, other]) for other in (1, 2))
        return Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if is_grey else pixels))

    def content(self, index: int, with_boxes: bool = False) -> PageContent:
        """What a page holds, in text and else; on demand, with a box for each character."""
        with self.page(index) as page:
            seen = survey(page)
            entries = page_entries(page, self._document.formenv)
            text = page_text(
                page,
                seen,
                entries,
                lambda height, width: self._pixels(page, height, width).mean(axis=2).astype(np.uint8),
                with_boxes,
            )
            return PageContent(text, seen, bool(entries))

    def label(self, index: int) -> str:
        """The number that is printed for a page ("iv", "A-3"); its place, counted from 1, where the file says none."""
        with _PDFIUM:
            return self._document.get_page_label(index) or str(index + 1)

    def _pixels(self, page: Any, height: int, width: int) -> np.ndarray:
        """uint8 [height, width, 3]."""
        bitmap = pypdfium2.PdfBitmap.new_native(width, height, pdfium.FPDFBitmap_BGR, rev_byteorder=True)
        try:
            bitmap.fill_rect((255, 255, 255, 255), 0, 0, width, height)
            where = (bitmap, page, 0, 0, width, height, 0, pdfium.FPDF_ANNOT | pdfium.FPDF_REVERSE_BYTE_ORDER)
            pdfium.FPDF_RenderPageBitmap(*where)
            if self._document.formenv is not None:
                pdfium.FPDF_FFLDraw(self._document.formenv, *where)
            return bitmap.to_numpy().copy()
        finally:
            bitmap.close()


class PageContent(NamedTuple):
    """A page's text, and what else is on it."""

    text: PageText
    survey: PageSurvey
    has_entries: bool

    @property
    def kind(self) -> Literal["text", "picture", "garbled", "blank"]:
        """What a reader needs of the page: its text, or its picture, because there is no text that says the same.

        Where pictures cover most of a page, a stamp, a page number or the mark of the scanner beside them says nothing
        of what they show; recognised text that lies over them does.
        """
        inked = len("".join(self.text.text.split()))
        if not inked:
            return "picture" if self.survey.is_drawn else "blank"
        if self.text.is_garbled:
            return "garbled"
        stamped = self.survey.coverage >= _SCAN_COVERAGE and inked < _SCAN_CHARACTERS and not self.text.ocr_count
        return "picture" if stamped else "text"


class PdfPage:
    """A page of a PDF as it is: a `PageSource`."""

    def __init__(self, file: PdfFile, index: int) -> None:
        width, height = file.points(index)
        scale = PDF_PAGE_DPI / _POINTS_PER_INCH
        self.size = (math.ceil(height * scale), math.ceil(width * scale))
        self._file, self._index = file, index

    def draw(self, height: int, width: int) -> Image.Image:
        return self._file.draw(self._index, height, width)


def _close(document: Any) -> None:
    with _PDFIUM:
        document.close()


@atexit.register  # after pypdfium2's own, which therefore comes later, and complains of each file that is still open
def _close_all() -> None:
    for file in list(_OPEN):
        file._closing()
