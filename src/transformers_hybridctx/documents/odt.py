# SPDX-License-Identifier: Apache-2.0
"""OpenDocument texts before pandoc reads them: tables taken apart, fields written, hidden text taken out and reported."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from xml.etree import ElementTree

from .archives import DAMAGE, Package, parsed_part
from .hidden_words import warn_of_hidden
from .marked_tables import cell_mark, mark
from .odt_fields import write_fields

_SPACE = "{urn:oasis:names:tc:opendocument:xmlns:"
OFFICE, TEXT, TABLE, STYLE = (f"{_SPACE}{name}:1.0}}" for name in ("office", "text", "table", "style"))
_ROW_GROUPS = (f"{TABLE}table-rows", f"{TABLE}table-row-group", f"{TABLE}table-header-rows")
_HIDDEN = (f"{TEXT}hidden-text", f"{TEXT}hidden-paragraph")
_COUNT = re.compile(r"\d{1,9}", re.ASCII)
_OWN_STYLES = f"{OFFICE}automatic-styles"
_STYLES, _CONTENT = "styles.xml", "content.xml"
_MOST_REPEATED = 2**17
"""Elements and characters that cells and rows make which say how often they stand there."""


def write_plain_text(package: Package, name: str) -> None:
    """
    Write what pandoc would lose such that it reads it (tables, fields), and take out what is hidden.

    Warns:
        UserWarning: it has hidden text, which is not read; or its text cannot be looked through.
    """
    try:
        content = parsed_part(package, _CONTENT)
        styles = parsed_part(package, _STYLES) if _STYLES in package.namelist() else None
        hidden = _without_hidden(content, styles)
        write_fields(content)
        if content.find(_OWN_STYLES) is None:  # which may be left out, but not for pandoc
            content.insert(0, ElementTree.Element(_OWN_STYLES))
        tables = _Tables()
        for parent in list(content.iter()):
            tables.take_apart(parent)
        package.replace({_CONTENT: ElementTree.tostring(content, "utf-8", xml_declaration=True)})
    except KeyError:
        return  # no text of this kind: pandoc says so
    except (*DAMAGE, RecursionError) as error:
        warnings.warn(f"{name}: tables in its tables are not looked through: {error}", stacklevel=6)
        return
    warn_of_hidden(name, hidden)
    if tables.left_out:
        warnings.warn(
            f"{name}: {tables.left_out:,} repetitions of rows and cells of its tables are left out: all of them would "
            f"make more than {_MOST_REPEATED:,} characters",
            stacklevel=6,
        )


def _without_hidden(content: ElementTree.Element, styles: ElementTree.Element | None) -> list[str]:
    """Take out what styles and fields hide; what that is."""
    hiding = set()
    for root in (content,) if styles is None else (styles, content):
        for style in root.iter(f"{STYLE}style"):
            properties = style.find(f"{STYLE}text-properties")
            if properties is not None and properties.get(f"{TEXT}display") == "none":
                hiding.add(style.get(f"{STYLE}name"))
    found = []
    for element in content.iter():
        if element.tag in _HIDDEN or (hiding and element.get(f"{TEXT}style-name") in hiding):
            if words := " ".join("".join(element.itertext()).split()):
                found.append(words)
            tail, element.text = element.tail, ""
            for child in list(element):
                element.remove(child)
            element.tail = tail
    return found


class _Tables:
    """Takes tables apart, into what stands in their cells between paragraphs that mark their borders.

    Attributes:
        left_out: how many rows and cells were not repeated as often as they say, as the document would grow too large.
    """

    def __init__(self) -> None:
        self.left_out = 0
        self._left = _MOST_REPEATED

    def take_apart(self, parent: ElementTree.Element) -> None:
        """Put paragraphs in the places of the tables among an element's children."""
        if all(child.tag != f"{TABLE}table" for child in parent):
            return
        flat: list[ElementTree.Element] = []
        for child in parent:
            flat += self._paragraphs_of(child) if child.tag == f"{TABLE}table" else [child]
        parent[:] = flat

    def _paragraphs_of(self, table: ElementTree.Element) -> Iterator[ElementTree.Element]:
        yield _paragraph(mark("table"))
        for row, is_heading in _rows_of(table, False):
            yield from self._repeated(self._row(row, is_heading), _count(row, "number-rows-repeated"))
        yield _paragraph(mark("/table"))

    def _row(self, row: ElementTree.Element, is_heading: bool) -> list[ElementTree.Element]:
        cells = [cell for cell in row if cell.tag == f"{TABLE}table-cell"]  # not those that others cover
        paragraphs = [_paragraph(mark("tr"))]
        for cell in cells:
            self.take_apart(cell)
            spans = _count(cell, "number-columns-spanned"), _count(cell, "number-rows-spanned")
            once = [_paragraph(cell_mark(*spans, is_heading)), *cell, _paragraph(mark("/td"))]
            is_blank_end = cell is cells[-1] and len(cell) == 0
            paragraphs += self._repeated(once, 1 if is_blank_end else _count(cell, "number-columns-repeated"))
        return [*paragraphs, _paragraph(mark("/tr"))]

    def _repeated(self, once: list[ElementTree.Element], count: int) -> list[ElementTree.Element]:
        if count < 2:
            return once
        size = sum(1 + len(part.text or "") + len(part.tail or "") for element in once for part in element.iter())
        more = min(count - 1, self._left // size)
        self._left -= more * size
        self.left_out += count - 1 - more
        return once * (1 + more)


def _rows_of(element: ElementTree.Element, is_heading: bool) -> Iterator[tuple[ElementTree.Element, bool]]:
    for child in element:
        if child.tag in _ROW_GROUPS:
            yield from _rows_of(child, is_heading or child.tag.endswith("header-rows"))
        elif child.tag == f"{TABLE}table-row":
            yield child, is_heading


def _paragraph(text: str) -> ElementTree.Element:
    paragraph = ElementTree.Element(f"{TEXT}p")
    paragraph.text = text
    return paragraph


def _count(element: ElementTree.Element, attribute: str) -> int:
    count = element.get(f"{TABLE}{attribute}", "1")
    return int(count) if _COUNT.fullmatch(count) else 1


__all__ = ["write_plain_text"]
