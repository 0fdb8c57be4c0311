# SPDX-License-Identifier: Apache-2.0
"""Numbers of a document's own pages, which are not those of the pages that its text is typeset on."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_RANGE = re.compile(r"\s*(\d+)?\s*(-)?\s*(\d+)?\s*")


def listed(pages: Iterable[int]) -> str:
    """1, 2, 3, 7 as "1-3, 7"."""
    parts: list[tuple[int, int]] = []
    for page in sorted(pages):
        if parts and parts[-1][1] == page - 1:
            parts[-1] = (parts[-1][0], page)
        else:
            parts.append((page, page))
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


class SourcePage(NamedTuple):
    """A page of the document that a text comes from: its place in it, from 1, and the number that is printed for it.

    `file`: the name of the document, where a text is made of several; a file without pages has no label.
    """

    number: int
    label: str
    file: str = ""


class PagedText(str):
    """A text whose parts, between form feeds, are pages of a document.

    Args:
        texts: the text of each page.
        pages: which pages these are; None for a text without pages, such as one of several files.
    """

    texts: tuple[str, ...]
    pages: tuple[SourcePage | None, ...]
    _starts: tuple[int, ...]

    def __new__(cls, texts: Sequence[str], pages: Sequence[SourcePage | None]) -> PagedText:
        self = super().__new__(cls, "\f".join(texts))
        starts = [0]
        for text in texts[:-1]:
            starts.append(starts[-1] + len(text) + 1)
        self.texts, self.pages, self._starts = tuple(texts), tuple(pages), tuple(starts)
        return self

    @classmethod
    def joined(cls, parts: Sequence[str]) -> PagedText:
        """Texts one after the other, a form feed between two; those that know their pages keep them."""
        texts: list[str] = []
        pages: list[SourcePage | None] = []
        for part in parts:
            texts += part.texts if isinstance(part, PagedText) else [part]
            pages += part.pages if isinstance(part, PagedText) else [None]
        return cls(texts, pages)

    def page_at(self, position: int) -> SourcePage | None:
        """The page on which the character at a position stands."""
        return self.pages[bisect_right(self._starts, position) - 1]


def source_page(text: str, position: int) -> SourcePage | None:
    """The page of the document on which the character at a position stands; None for a text without pages.

    Of a text that does not know its pages, form feeds tell them apart, as in RFCs and in what was read from a PDF.
    """
    if isinstance(text, PagedText):
        return text.page_at(position)
    if "\f" not in text:
        return None
    number = text.count("\f", 0, position) + 1
    return SourcePage(number, str(number))


def page_indices(pages: str | None, count: int, name: str) -> list[int]:
    """The pages, from 0 and in their order, of ranges such as "3", "10-20,25" or "90-"; all of them for None.

    Raises:
        ValueError: it is no such list, or a page that the document does not have.
    """
    if pages is None:
        return list(range(count))
    chosen: set[int] = set()
    for part in pages.split(","):
        match = _RANGE.fullmatch(part)
        if match is None or not (match[1] or match[3]):
            raise ValueError(f"pages={pages!r} is no list of pages such as '3', '10-20,25' or '90-'")
        first = int(match[1] or 1)
        last = int(match[3] or count) if match[2] else first
        if not 1 <= first <= last <= count:
            raise ValueError(f"pages={pages!r}: {name} has the pages 1 to {count:,}, {part.strip()!r} is none of them")
        chosen.update(range(first - 1, last))
    return sorted(chosen)
