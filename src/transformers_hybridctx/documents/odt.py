# SPDX-License-Identifier: Apache-2.0
"""OpenDocument texts before pandoc reads them: tables taken apart, hidden text taken out and reported."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator
from io import BytesIO
from xml.etree import ElementTree

from .archives import DAMAGE, parsed_part, with_parts
from .hidden_words import warn_of_hidden
from .marked_tables import cell_mark, mark

_SPACE = "{urn:oasis:names:tc:opendocument:xmlns:"
OFFICE, TEXT, TABLE, STYLE = (f"{_SPACE}{name}:1.0}}" for name in ("office", "text", "table", "style"))
_ROW_GROUPS = (f"{TABLE}table-rows", f"{TABLE}table-row-group", f"{TABLE}table-header-rows")
_HIDDEN = (f"{TEXT}hidden-text", f"{TEXT}hidden-paragraph")
_STYLES, _CONTENT = "styles.xml", "content.xml"
# Cells and rows that say how often they stand there, which those with tables in them are not believed.
_MOST_REPEATED = 64


def prepared_odt(data: bytes, name: str) -> bytes:
    """
    The file with all that pandoc would lose in tables, and without what it hides.

    Warns:
        UserWarning: it has hidden text, which is not read; or its text cannot be looked through.
    """
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            content = parsed_part(archive, _CONTENT)
            styles = parsed_part(archive, _STYLES) if _STYLES in archive.namelist() else None
        hidden = _without_hidden(content, styles)
        for parent in list(content.iter()):
            _take_tables_apart(parent)
        changed = with_parts(data, {_CONTENT: ElementTree.tostring(content, "utf-8", xml_declaration=True)})
    except KeyError:
        return data  # no text of this kind: pandoc says so
    except (*DAMAGE, RecursionError) as error:
        warnings.warn(f"{name}: tables in its tables are not looked through: {error}", stacklevel=6)
        return data
    warn_of_hidden(name, hidden)
    return changed


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


def _take_tables_apart(parent: ElementTree.Element) -> None:
    if all(child.tag != f"{TABLE}table" for child in parent):
        return
    flat: list[ElementTree.Element] = []
    for child in parent:
        flat += _paragraphs_of(child) if child.tag == f"{TABLE}table" else [child]
    parent[:] = flat


def _paragraphs_of(table: ElementTree.Element) -> Iterator[ElementTree.Element]:
    """A table as what stands in its cells, between paragraphs that mark its borders."""
    yield _paragraph(mark("table"))
    for row, is_heading in _rows_of(table, False):
        yield _paragraph(mark("tr"))
        for cell in row:
            if cell.tag != f"{TABLE}table-cell":  # one that another covers
                continue
            spans = _count(cell, "number-columns-spanned"), _count(cell, "number-rows-spanned")
            for _ in range(_count(cell, "number-columns-repeated")):
                yield _paragraph(cell_mark(*spans, is_heading))
                _take_tables_apart(cell)
                yield from cell
                yield _paragraph(mark("/td"))
        yield _paragraph(mark("/tr"))
    yield _paragraph(mark("/table"))


def _rows_of(element: ElementTree.Element, is_heading: bool) -> Iterator[tuple[ElementTree.Element, bool]]:
    for child in element:
        if child.tag in _ROW_GROUPS:
            yield from _rows_of(child, is_heading or child.tag.endswith("header-rows"))
        elif child.tag == f"{TABLE}table-row":
            for _ in range(_count(child, "number-rows-repeated")):
                yield child, is_heading


def _paragraph(text: str) -> ElementTree.Element:
    paragraph = ElementTree.Element(f"{TEXT}p")
    paragraph.text = text
    return paragraph


def _count(element: ElementTree.Element, attribute: str) -> int:
    count = element.get(f"{TABLE}{attribute}", "1")
    if not count.isdecimal() or (attribute.endswith("repeated") and element.find(f".//{TABLE}table") is not None):
        return 1
    return min(int(count), _MOST_REPEATED)


__all__ = ["prepared_odt"]
