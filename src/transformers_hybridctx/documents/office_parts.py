# SPDX-License-Identifier: Apache-2.0
"""What pandoc leaves out of .docx and .pptx files: headers, footers, text boxes, comments; notes and groups of slides."""

from __future__ import annotations

import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from io import BytesIO
from xml.etree import ElementTree

LARGEST_PART = 2**25
"""Bytes of XML of one part that are looked through."""

_WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_DRAWING = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_SLIDE = "{http://schemas.openxmlformats.org/presentationml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_WORD_PARTS = re.compile(r"word/(?:header|footer|document|comments)\d*\.xml")
_SLIDE_PARTS = re.compile(r"ppt/(?:slides/slide|notesSlides/notesSlide)\d+\.xml")
_NUMBER = re.compile(r"(\d+)\.xml")
_DAMAGE = (
    *(ElementTree.ParseError, zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, RuntimeError),
    NotImplementedError,
)
_NOTES_OF = re.compile(rb"slides/slide(\d+)\.xml")


def left_out(data: bytes, suffix: str, body: str, name: str) -> list[str]:
    """
    Lines such as "[header: Contract no. 7]" for what a file holds beside the text that pandoc made of it.

    Args:
        body: that text; what stands in it already is not said again.

    Warns:
        UserWarning: a part is damaged, or larger than `LARGEST_PART`.
    """
    parts = {".docx": _WORD_PARTS, ".docm": _WORD_PARTS, ".pptx": _SLIDE_PARTS}.get(suffix)
    if parts is None:
        return []
    found: dict[str, None] = {}
    plain = " ".join(body.split())
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            for part in sorted(filter(parts.fullmatch, archive.namelist()), key=_in_order):
                for what, text in _of_part(part, archive, name):
                    if text and text not in plain:
                        found[f"[{what}: {text}]"] = None
    except _DAMAGE as error:
        warnings.warn(f"{name}: its headers, text boxes and notes are not looked through: {error}", stacklevel=5)
    return list(found)


def _of_part(part: str, archive: zipfile.ZipFile, name: str) -> list[tuple[str, str]]:
    try:
        if archive.getinfo(part).file_size > LARGEST_PART:
            raise ValueError("it is too large")
        root = ElementTree.fromstring(archive.read(part))
        return list(_of_word(part, root) if part.startswith("word/") else _of_slides(part, root, archive))
    except _DAMAGE as error:
        warnings.warn(f"{name}: its part {part} is not looked through: {error}", stacklevel=6)
        return []


def _in_order(part: str) -> tuple[str, int]:
    number = _NUMBER.search(part)
    return (part[: number.start()], int(number[1])) if number else (part, 0)


def _of_word(part: str, root: ElementTree.Element) -> Iterator[tuple[str, str]]:
    if part.startswith("word/comments"):
        for comment in root.iter(f"{_WORD}comment"):
            yield f"comment by {comment.get(f'{_WORD}author') or 'somebody'}", _text(comment, _WORD)
    elif part.startswith("word/document"):
        for fallback in list(root.iter(_FALLBACK)):  # the same once more, for older programs
            fallback.clear()
        for box in root.iter(f"{_WORD}txbxContent"):
            yield "text box", _text(box, _WORD)
    else:
        yield ("header" if part.startswith("word/header") else "footer"), _text(root, _WORD)


def _of_slides(part: str, root: ElementTree.Element, archive: zipfile.ZipFile) -> Iterator[tuple[str, str]]:
    number = _in_order(part)[1]
    if part.startswith("ppt/slides"):
        for group in root.iter(f"{_SLIDE}grpSp"):
            yield f"group on slide {number}", _text(group, _DRAWING)
        return
    relations = f"ppt/notesSlides/_rels/notesSlide{number}.xml.rels"
    slide = _NOTES_OF.search(archive.read(relations)) if relations in archive.namelist() else None
    for shape in root.iter(f"{_SLIDE}sp"):
        if any(holder.get("type") == "body" for holder in shape.iter(f"{_SLIDE}ph")):
            yield f"notes of slide {int(slide[1]) if slide else number}", _text(shape, _DRAWING)


def _text(element: ElementTree.Element, space: str) -> str:
    """The words of an element's paragraphs, on one line."""
    paragraphs = ("".join(_words(paragraph, space)) for paragraph in element.iter(f"{space}p"))
    return " ".join(" ".join(paragraphs).split())


def _words(paragraph: ElementTree.Element, space: str) -> Iterator[str]:
    for item in paragraph.iter():
        if item.tag == f"{space}t":
            yield item.text or ""
        elif item.tag in (f"{space}tab", f"{space}br"):
            yield " "


__all__ = ["LARGEST_PART", "left_out"]
