# SPDX-License-Identifier: Apache-2.0
"""Documents of several parts: texts that are typeset, and pages that are shown as they are, in one order."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from ..progress import tell
from ..rendering.paged_text import Box, Line, PagedText
from ..rendering.settings import RenderConfig
from .page_numbers import PagedText as TextOfPages
from .source_document import ShownPage, SourceDocument

Typeset = Callable[[str], PagedText]
"""Lays a text out on pages."""


@dataclass(frozen=True, eq=False)
class DocumentParts:
    """
    Texts and pages in the order of their document, not yet laid out.

    Attributes:
        parts: each a text, or a page as it is.
        layout_note: which pages are shown as they are, and why; for people.
    """

    parts: tuple[str | ShownPage, ...]
    layout_note: str = ""

    @property
    def text(self) -> str:
        """All that is known of the text."""
        return TextOfPages.joined([_text_of(part) for part in self.parts])

    def laid_out(self, typeset: Typeset) -> PagedText:
        """The parts on pages; texts that follow each other are one.

        Raises:
            ValueError: there is no text and no page.
        """
        documents: list[PagedText] = []
        for is_shown, group in groupby(self.parts, lambda part: isinstance(part, ShownPage)):
            run = list(group)
            if is_shown:
                documents.append(SourceDocument([part for part in run if isinstance(part, ShownPage)]))
            else:
                texts = [part for part in run if isinstance(part, str)]
                documents.append(typeset(texts[0] if len(texts) == 1 else TextOfPages.joined(texts)))
        if len(documents) == 1 and not self.layout_note:
            return documents[0]
        return JoinedDocument(documents, self.layout_note)


def _text_of(part: str | ShownPage) -> str:
    return part if isinstance(part, str) else TextOfPages([part.text], [part.number])


class JoinedDocument(PagedText):
    """
    Several documents as one: their pages after one another, a form feed between their texts.

    A part whose pages have one scale only, such as typeset cells, keeps to it whatever scale the others are asked for.

    Attributes:
        parts: the documents.
        layout_note: which pages are shown as they are, and why; for people.
    """

    def __init__(self, parts: Sequence[PagedText], layout_note: str = "") -> None:
        if not parts:
            raise ValueError("empty document: it has no parts")
        self.parts, self.layout_note = tuple(parts), layout_note
        self.text = parts[0].text if len(parts) == 1 else TextOfPages.joined([part.text for part in parts])
        self._texts, self._pages = [0], [0]
        for part in parts:
            self._texts.append(self._texts[-1] + len(part.text) + 1)
            self._pages.append(self._pages[-1] + part.num_pages)
        self.num_pages = self._pages[-1]
        self.undrawable = [
            (start + position, character)
            for start, part in zip(self._texts, parts, strict=False)
            for position, character in part.undrawable
        ]

    @property
    def only_scale(self) -> float | None:
        scales = {part.only_scale for part in self.parts}
        return scales.pop() if len(scales) == 1 else None

    @property
    def unknown_pages(self) -> Sequence[int]:
        return [
            number + pages
            for part, pages in zip(self.parts, self._pages, strict=False)
            for number in part.unknown_pages
        ]

    @property
    def lines(self) -> Sequence[Line]:
        return [
            Line(line.page + pages, line.start + start, line.end + start, line.box)
            for part, start, pages in zip(self.parts, self._texts, self._pages, strict=False)
            for line in part.lines
        ]

    def part_of_page(self, page: int) -> tuple[PagedText, int]:
        """(the part that holds a page, which of the part's pages that is). An unknown page is an IndexError."""
        if not 0 <= page < self.num_pages:
            raise IndexError(f"page {page} does not exist; the document has pages 0 to {self.num_pages - 1}")
        number = bisect_right(self._pages, page) - 1
        return self.parts[number], page - self._pages[number]

    def page_size(self, page: int, scale: float | None = None) -> tuple[int, int]:
        part, own = self.part_of_page(page)
        return part.page_size(own, scale_of_part(part, scale))

    def page_of(self, char_index: int) -> int:
        if not 0 <= char_index < len(self.text):
            raise IndexError(f"character {char_index} does not exist; the text has {len(self.text)} characters")
        number = bisect_right(self._texts, char_index) - 1
        part, position = self.parts[number], char_index - self._texts[number]
        if position == len(part.text):  # what stands between two parts counts to the page before it
            return self._pages[number + 1] - 1
        return self._pages[number] + part.page_of(position)

    def page_span(self, page: int) -> tuple[int, int]:
        part, own = self.part_of_page(page)
        number = bisect_right(self._pages, page) - 1
        start, end = part.page_span(own)
        is_last = own == part.num_pages - 1 and number < len(self.parts) - 1
        return start + self._texts[number], end + self._texts[number] + is_last

    def boxes(self, start: int, end: int, scale: float | None = None) -> list[tuple[int, Box]]:
        if not 0 <= start <= end <= len(self.text):
            raise ValueError(f"[{start}, {end}) is not within the text's {len(self.text)} characters")
        return [
            (page + self._pages[number], box)
            for number, part, first, last in self._pieces(start, end)
            for page, box in part.boxes(first, last, scale_of_part(part, scale))
        ]

    def spans_in_box(self, page: int, box: Box, scale: float | None = None) -> list[tuple[int, int]]:
        part, own = self.part_of_page(page)
        offset = self._texts[bisect_right(self._pages, page) - 1]
        spans = part.spans_in_box(own, box, scale_of_part(part, scale))
        return [(start + offset, end + offset) for start, end in spans]

    def _pieces(self, start: int, end: int) -> Iterator[tuple[int, PagedText, int, int]]:
        """(number, part, first, last) of each part that has some of characters [start, end): its own [first, last)."""
        for number, part in enumerate(self.parts):
            first = max(start - self._texts[number], 0)
            last = min(end - self._texts[number], len(part.text))
            if first < last:
                yield number, part, first, last


def laid_out(document: str | DocumentParts, typeset: Typeset) -> PagedText:
    """A text, or parts of a document, on pages."""
    tell("pages typeset", 0)
    found = document.laid_out(typeset) if isinstance(document, DocumentParts) else typeset(document)
    tell("pages typeset", found.num_pages, found.num_pages)
    return found


def render_config_of(document: object) -> RenderConfig | None:
    """How a document's text was typeset; None where all its pages are shown as they are."""
    if isinstance(document, JoinedDocument):
        return next(filter(None, map(render_config_of, document.parts)), None)
    return document.config if isinstance(document, PagedText) and not isinstance(document, SourceDocument) else None


def scale_of_part(part: PagedText, scale: float | None) -> float | None:
    """The scale at which a part's pages are drawn where its document's are drawn at `scale`."""
    return scale if part.only_scale is None else part.only_scale
