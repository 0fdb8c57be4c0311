# SPDX-License-Identifier: Apache-2.0
"""What stands on sheets beside their cells, which calamine does not read: text boxes, titles of charts, comments."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator
from io import BytesIO
from xml.etree.ElementTree import Element

from .archives import DAMAGE, Archive, parsed_part, related_parts
from .hidden_cells import sheet_parts

_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_THREADS = "{http://schemas.microsoft.com/office/spreadsheetml/2018/threadedcomments}"
_DRAWING = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_ON_SHEETS = "{http://schemas.openxmlformats.org/drawingml/2006/spreadsheetDrawing}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_ON = ("1", "true")


def notes_of_sheets(data: bytes, name: str) -> dict[str, list[str]]:
    """
    Name of a sheet -> lines such as "[text box: Draft]" and "[comment on B3: see above]", of `.xlsx` and `.xlsm`.

    Warns:
        UserWarning: a part of them is damaged, or larger than `LARGEST_PART`.
    """
    found: dict[str, list[str]] = {}
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            for title, part in sheet_parts(archive):
                notes: dict[str, None] = {}
                try:
                    for what, text in _notes(archive, part):
                        if text:
                            notes[f"[{what}: {text}]"] = None
                except (*DAMAGE, KeyError) as error:
                    warnings.warn(
                        f"{name}: what stands beside the cells of the sheet {title} is not all read: {error}",
                        stacklevel=5,
                    )
                found[title] = list(notes)
    except (*DAMAGE, KeyError):
        pass  # of another kind, or damaged: its reader says so
    return found


def _notes(archive: Archive, sheet: str) -> Iterator[tuple[str, str]]:
    for part in related_parts(archive, sheet, "drawing").values():
        drawing = parsed_part(archive, part)
        for fallback in list(drawing.iter(_FALLBACK)):  # the same once more, for older programs
            fallback.clear()
        for shape in drawing.iter(f"{_ON_SHEETS}sp"):
            if not any(one.get("hidden") in _ON for one in shape.iter(f"{_ON_SHEETS}cNvPr")):
                yield "text box", _words(shape, _DRAWING)
        for chart in related_parts(archive, part, "chart").values():  # its numbers stand in cells
            yield "chart", _words(parsed_part(archive, chart), _DRAWING)
    threads = list(related_parts(archive, sheet, "threadedComment").values())
    for part in threads:
        for comment in parsed_part(archive, part).iter(f"{_THREADS}threadedComment"):
            said = comment.find(f"{_THREADS}text")
            yield _commented(comment), "" if said is None else " ".join((said.text or "").split())
    for part in () if threads else related_parts(archive, sheet, "comments").values():  # else a copy of the threads
        for comment in parsed_part(archive, part).iter(f"{_MAIN}comment"):
            yield _commented(comment), " ".join("".join(text.text or "" for text in comment.iter(f"{_MAIN}t")).split())


def _commented(comment: Element) -> str:
    return f"comment on {comment.get('ref') or 'a cell'}"


def _words(element: Element, space: str) -> str:
    """The words of an element's paragraphs, on one line."""
    paragraphs = ("".join(text.text or "" for text in one.iter(f"{space}t")) for one in element.iter(f"{space}p"))
    return " ".join(" ".join(paragraphs).split())


__all__ = ["notes_of_sheets"]
