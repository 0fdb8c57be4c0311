# SPDX-License-Identifier: Apache-2.0
"""A PDF as a document: texts to be typeset and pages as they are, in their order."""

from __future__ import annotations

import warnings

from .emptiness import EmptyFileError
from .joined_document import DocumentParts
from .page_numbers import PagedText, SourcePage, listed, page_indices
from .pdf import PageContent, PdfFile
from .pdf_layouts import Layout, note_of, reasons_to_show
from .recognition import PDF_SCALE, Recognizer, recognized_page
from .scans import ScannedPages
from .source_document import ShownPage

_MOST_HIDDEN_SHOWN = 120


def read_pdf(
    file: PdfFile, pages: str | None = None, layout: Layout = "typeset", ocr: Recognizer | None = None
) -> str | ScannedPages | DocumentParts:
    """
    A PDF's text, where all of it is to be typeset; its pages, where no text of them is known; else parts of both kinds,
    such as slides and certificates, whose text stands on pictures of their own.

    One page is looked at at a time, and none is drawn unless there is doubt about it, or it is recognised.

    Args:
        file: the open PDF.
        pages: those to read, as in `page_indices`.
        layout: which pages are typeset, and which are shown as they are.
        ocr: recognises the text of pages that hold none.

    Raises:
        ValueError: a page is damaged, all are blank, or there are no such pages.

    Warns:
        UserWarning: what is not read: pictures of text among pages of text, text that is never shown, text that is no
            text, because its font does not say which characters it shows.
    """
    indices = page_indices(pages, file.num_pages, file.name)
    read = _PagesRead(file, layout, ocr)
    for index in indices:
        read.add(index)
    if len(read.blank) == len(indices):
        raise EmptyFileError(f"empty document: the {len(indices)} pages of {file.name} are blank")
    if not read.texts and not read.recognized and not read.with_words:
        read.warn_of_garbled()
        read.warn_of_hidden()
        return ScannedPages([file.page_source(index) for index in indices])
    read.warn()
    parts = read.in_runs()
    if len(parts) == 1 and isinstance(parts[0], str):
        return parts[0]
    return DocumentParts(tuple(parts), note_of(read.shown, len(indices) - len(read.shown)))


class _PagesRead:
    """What was found on the pages of a PDF so far; pages count from 1.

    Attributes:
        parts: of each page, its text, or the page as it is.
        shown: pages that are shown as they are, and why.
        texts, unread, garbled, recognized, blank: pages by what was found on them; with_words: those of the unread ones
            that hold fields or notes, or several lines of text, which is more than a stamp.
        hidden: what pages never show.
    """

    def __init__(self, file: PdfFile, layout: Layout, ocr: Recognizer | None) -> None:
        self._file, self._layout, self._ocr = file, layout, ocr
        self.parts: list[str | ShownPage] = []
        self.shown: dict[int, list[str]] = {}
        self.texts: list[int] = []
        self.unread: list[int] = []
        self.with_words: list[int] = []
        self.garbled: list[int] = []
        self.recognized: list[int] = []
        self.blank: list[int] = []
        self.hidden: list[tuple[int, str]] = []
        self._numbers: list[SourcePage] = []

    def add(self, index: int) -> None:
        """Read the next page."""
        content = self._file.content(index, with_boxes=self._layout != "typeset")
        page = index + 1
        self._numbers.append(SourcePage(page, self._file.label(index)))
        if content.text.hidden.strip():
            self.hidden.append((page, content.text.hidden))
        if content.kind == "blank":
            self.blank.append(page)
            self.parts.append("")
        elif content.kind == "text":
            self.texts.append(page)
            self._add_text(index, content)
        else:
            self._add_picture(index, content)

    def _add_text(self, index: int, content: PageContent) -> None:
        reasons = reasons_to_show(content) if self._layout == "auto" else []
        if reasons or self._layout == "source":
            self.shown[index + 1] = reasons
            self.parts.append(self._shown(index, content))
        else:
            self.parts.append(content.text.text)

    def _add_picture(self, index: int, content: PageContent) -> None:
        number = self._numbers[-1]
        if content.kind == "garbled":
            self.garbled.append(index + 1)
        if self._ocr is not None:
            part = recognized_page(self._file.page_source(index), self._ocr, number, PDF_SCALE)
            if part.text:
                self.recognized.append(index + 1)
                self.shown[index + 1] = ["recognised text"]
                self.parts.append(part)
                return
        self.unread.append(index + 1)
        self.shown[index + 1] = ["unknown text"]
        if content.kind == "garbled":
            self.parts.append(ShownPage.without_text(self._file.page_source(index), number))
        else:  # a stamp or a page number may be on it
            self.parts.append(self._shown(index, content, is_known=False))
            if content.has_entries or "\n" in content.text.text.strip():
                self.with_words.append(index + 1)

    def _shown(self, index: int, content: PageContent, is_known: bool = True) -> ShownPage:
        if content.text.boxes is None:
            content = self._file.content(index, with_boxes=True)
        boxes = content.text.boxes
        assert boxes is not None
        return ShownPage.of(self._file.page_source(index), content.text.text, boxes, self._numbers[-1], is_known)

    def in_runs(self) -> list[str | ShownPage]:
        """The parts, with the texts of pages that follow each other as one; blank pages go with those before them."""
        found: list[str | ShownPage] = []
        run: list[tuple[str, SourcePage]] = []

        def end_run() -> None:
            if any(text.strip() for text, _ in run):
                found.append(PagedText([text for text, _ in run], [number for _, number in run]))
            else:
                found.extend(self._blank_page(number) for _, number in run)
            run.clear()

        for part, number in zip(self.parts, self._numbers, strict=True):
            if isinstance(part, str):
                run.append((part, number))
            else:
                end_run()
                found.append(part)
        end_run()
        return found

    def _blank_page(self, number: SourcePage) -> ShownPage:
        self.shown[number.number] = []
        return ShownPage.without_text(self._file.page_source(number.number - 1), number, is_known=True)

    def warn_of_garbled(self) -> None:
        if self.garbled:
            _warn(
                f"{self._file.name}: the fonts of pages {listed(self.garbled)} do not say which characters they show; "
                "they are shown as pictures"
            )

    def warn(self) -> None:
        """Say what is not read of a PDF of which some is."""
        name = self._file.name
        self.warn_of_garbled()
        if pictures := sorted(set(self.unread) - set(self.garbled)):
            found = "text recognition finds no words on them" if self._ocr else "text recognition (ocr=) would find it"
            _warn(
                f"{name}: pages {listed(pictures)} hold pictures and hardly any text; they are shown, and what they say "
                f"is not known: {found}"
            )
        self.warn_of_hidden()

    def warn_of_hidden(self) -> None:
        if self.hidden:
            words = " ".join(text for _, text in self.hidden)
            cut = "..." * (len(words) > _MOST_HIDDEN_SHOWN)
            _warn(
                f"{self._file.name}: pages {listed([page for page, _ in self.hidden])} hold text that they never show, "
                f"which is not read: {words[:_MOST_HIDDEN_SHOWN]!r}{cut}"
            )


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=5)
