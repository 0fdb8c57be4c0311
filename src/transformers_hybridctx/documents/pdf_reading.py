# SPDX-License-Identifier: Apache-2.0
"""A PDF as a document: its text, or its pages as pictures where they hold no text that says the same."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from .page_numbers import PagedText, SourcePage, page_indices
from .pdf import PdfFile
from .scans import ScannedPages

# Where more of the pages than this are pictures of text, all are read as pictures.
_MOSTLY_TEXT = 0.25
_MOST_HIDDEN_SHOWN = 120


def read_pdf(file: PdfFile, pages: str | None = None) -> str | ScannedPages:
    """The text of a PDF's pages, or these pages, not yet drawn; one page is looked at at a time.

    Args:
        file: the open PDF.
        pages: those to read, as in `page_indices`.

    Raises:
        ValueError: a page is damaged, all are blank, or there are no such pages.

    Warns:
        UserWarning: what is not read: pages of pictures among pages of text, text that is never shown, text that is no
            text, because its font does not say which characters it shows.
    """
    indices = page_indices(pages, file.num_pages, file.name)
    texts: list[str] = []
    kinds: dict[str, list[int]] = {"text": [], "picture": [], "garbled": [], "blank": []}
    hidden: list[tuple[int, str]] = []
    for index in indices:
        content = file.content(index)
        kinds[content.kind].append(index + 1)
        texts.append("" if content.kind == "garbled" else content.text.text)
        if content.text.hidden.strip():
            hidden.append((index + 1, content.text.hidden))
    if len(kinds["blank"]) == len(indices):
        raise ValueError(f"empty document: the {len(indices)} pages of {file.name} are blank")
    drawn = kinds["picture"] + kinds["garbled"]
    as_pictures = len(drawn) > _MOSTLY_TEXT * (len(drawn) + len(kinds["text"]))
    _warn_of_what_is_not_read(file.name, kinds, hidden, as_pictures)
    if as_pictures:
        return ScannedPages([file.page_source(index) for index in indices])
    return PagedText(texts, [SourcePage(index + 1, file.label(index)) for index in indices])


def _warn_of_what_is_not_read(
    name: str, kinds: dict[str, list[int]], hidden: Sequence[tuple[int, str]], as_pictures: bool
) -> None:
    if kinds["garbled"]:
        what = "are shown as pictures" if as_pictures else "are left out"
        _warn(
            f"{name}: the fonts of pages {_listed(kinds['garbled'])} do not say which characters they show; they {what}"
            + "; to read them, print the PDF to pictures, or run text recognition over it" * (not as_pictures)
        )
    if kinds["picture"] and not as_pictures:
        _warn(
            f"{name}: pages {_listed(kinds['picture'])} hold pictures and hardly any text; what they show is left out: "
            "to read it, pass them as page images, or run text recognition over the PDF"
        )
    if kinds["text"] and as_pictures and (kinds["picture"] or kinds["garbled"]):
        _warn(f"{name}: pages {_listed(kinds['text'])} hold text, and are shown as pictures like the other pages")
    if hidden and not as_pictures:
        shown = " ".join(text for _, text in hidden)
        cut = "..." * (len(shown) > _MOST_HIDDEN_SHOWN)
        _warn(
            f"{name}: pages {_listed([page for page, _ in hidden])} hold text that they never show, which is not read: "
            f"{shown[:_MOST_HIDDEN_SHOWN]!r}{cut}"
        )


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=5)


def _listed(pages: Sequence[int]) -> str:
    """1, 2, 3, 7 as "1-3, 7"."""
    parts: list[tuple[int, int]] = []
    for page in sorted(pages):
        if parts and parts[-1][1] == page - 1:
            parts[-1] = (parts[-1][0], page)
        else:
            parts.append((page, page))
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)
