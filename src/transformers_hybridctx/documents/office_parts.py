# SPDX-License-Identifier: Apache-2.0
"""What pandoc leaves out of office files: headers, text boxes, comments, charts, diagrams; notes and groups of slides."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from io import BytesIO
from xml.etree import ElementTree

from .archives import DAMAGE, Archive, parsed_part
from .marked_tables import without_marks
from .odt import OFFICE, STYLE, TEXT
from .slides import slide_parts

_WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_DRAWING = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_SLIDE = "{http://schemas.openxmlformats.org/presentationml/2006/main}"
_CHART = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"
_OF_SERIES = ("tx", "cat", "xVal", "val", "yVal")
_CREATOR = "{http://purl.org/dc/elements/1.1/}creator"
_OPEN_DRAWING, _OPEN_CHART, _OPEN_TABLE = (
    f"{{urn:oasis:names:tc:opendocument:xmlns:{name}:1.0}}" for name in ("drawing", "chart", "table")
)
_SHAPES = (
    "text-box",
    "custom-shape",
    "rect",
    "ellipse",
    "circle",
    "line",
    "polygon",
    "polyline",
    "path",
    "connector",
    "caption",
)
_BLANK = (f"{TEXT}s", f"{TEXT}tab", f"{TEXT}line-break")
_OF_PICTURE = "{urn:oasis:names:tc:opendocument:xmlns:svg-compatible:1.0}"
_OPEN_OBJECT = re.compile(r"(?:Object|Obj)[^/]*/content\.xml")
_LETTERING = "{urn:schemas-microsoft-com:vml}textpath"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_WORD_PARTS = re.compile(r"word/(?:header|footer|document|comments|charts/chart|diagrams/data)\d*\.xml")
_SLIDE_PARTS = re.compile(
    r"ppt/(?:(?:slides/slide|notesSlides/notesSlide)\d+|(?:charts/chart|diagrams/data)\d*|comments/\w+)\.xml"
)
_TEXT_PARTS = ("content.xml", "styles.xml")
_PARTS = {
    **{"docx": _WORD_PARTS, "pptx": _SLIDE_PARTS},
    "odt": re.compile(rf"{_OPEN_OBJECT.pattern}|{'|'.join(map(re.escape, _TEXT_PARTS))}"),
}
_NUMBER = re.compile(r"(\d+)\.xml")
_NOTES_OF = re.compile(rb"slides/slide(\d+)\.xml")


def left_out(data: bytes, kind: str, body: str, name: str) -> list[str]:
    """
    Lines such as "[header: Contract no. 7]" for what a file holds beside the text that pandoc made of it.

    Args:
        kind: what pandoc calls the file's format.
        body: that text; what stands in it already is not said again.

    Warns:
        UserWarning: a part is damaged, or larger than `LARGEST_PART`.
    """
    parts = _PARTS.get(kind)
    if parts is None:
        return []
    found: dict[str, None] = {}
    plain = " ".join(body.split())
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            numbers = {part: number for number, part in enumerate(slide_parts(archive), 1)} if kind == "pptx" else {}
            for part in sorted(filter(parts.fullmatch, archive.namelist()), key=_in_order):
                for what, text in _of_part(part, archive, name, numbers):
                    if text and text not in plain:
                        found[f"[{what}: {text}]"] = None
    except (*DAMAGE, KeyError) as error:
        warnings.warn(f"{name}: its headers, text boxes and notes are not looked through: {error}", stacklevel=5)
    return list(found)


def _of_part(part: str, archive: Archive, name: str, numbers: Mapping[str, int]) -> list[tuple[str, str]]:
    try:
        root = parsed_part(archive, part)
        if part in _TEXT_PARTS:
            return list(_of_text(root))
        if _OPEN_OBJECT.fullmatch(part):
            return [("chart", _open_chart(chart)) for chart in root.iter(f"{_OPEN_CHART}chart")]
        if "/charts/" in part:
            return [("chart", _chart(root))]
        if "/diagrams/" in part:
            return [("diagram", _text(root, _DRAWING, "; "))]
        return list(_of_word(part, root) if part.startswith("word/") else _of_slides(part, root, archive, numbers))
    except DAMAGE as error:
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
        for art in root.iter(_LETTERING):
            yield "lettering", " ".join((art.get("string") or "").split())
    else:
        for art in root.iter(_LETTERING):
            yield "watermark", " ".join((art.get("string") or "").split())
        yield ("header" if part.startswith("word/header") else "footer"), _text(root, _WORD)


def _of_text(root: ElementTree.Element) -> Iterator[tuple[str, str]]:
    """Of an OpenDocument text: its body's text boxes and comments, or its pages' headers and footers."""
    for comment in root.iter(f"{OFFICE}annotation"):
        author = comment.find(_CREATOR)
        yield f"comment by {(author.text if author is not None else None) or 'somebody'}", _paragraphs(comment)
    for shape in _SHAPES:
        for box in root.iter(f"{_OPEN_DRAWING}{shape}"):
            yield "text box", _paragraphs(box)
    for chart in root.iter(f"{_OPEN_CHART}chart"):  # of a file of XML, which holds its objects
        yield "chart", _open_chart(chart)
    for field in root.iter(f"{TEXT}page-number"):  # it has another value on each page
        field.text = ""
    for what in ("header", "footer"):
        for kind in ("", "-first", "-left"):
            for part in root.iter(f"{STYLE}{what}{kind}"):
                yield what, _paragraphs(part)


def _paragraphs(element: ElementTree.Element) -> str:
    """The words of an OpenDocument element's paragraphs, on one line."""
    found = (one for one in element.iter() if one.tag in (f"{TEXT}p", f"{TEXT}h"))
    return without_marks(" ".join(" ".join("".join(_open_words(one)).split()) for one in found)).strip()


def _open_words(paragraph: ElementTree.Element) -> Iterator[str]:
    """Its words, without those of paragraphs within it, of comments, and of pictures, which are no text of it."""
    yield paragraph.text or ""
    for child in paragraph:
        if child.tag in _BLANK:
            yield " "
        elif not child.tag.startswith(_OF_PICTURE) and child.tag not in (f"{OFFICE}annotation", f"{TEXT}p"):
            yield from _open_words(child)
        yield child.tail or ""


def _open_chart(chart: ElementTree.Element) -> str:
    """The titles of an OpenDocument chart, then its rows of data."""
    table = chart.find(f"{_OPEN_TABLE}table")
    titles = [
        _paragraphs(one) for one in chart.iter() if one.tag.startswith(_OPEN_CHART) and one.tag.endswith("title")
    ]
    rows = [] if table is None else table.iter(f"{_OPEN_TABLE}table-row")
    cells = ([_paragraphs(cell) for cell in row.iter(f"{_OPEN_TABLE}table-cell")] for row in rows)
    return "; ".join(filter(None, [*titles, *(", ".join(filter(None, row)) for row in cells)]))


def _of_slides(
    part: str, root: ElementTree.Element, archive: Archive, numbers: Mapping[str, int]
) -> Iterator[tuple[str, str]]:
    number = _in_order(part)[1]
    if part.startswith("ppt/comments"):
        for text in root.iter():
            if text.tag in (f"{_SLIDE}text", f"{_DRAWING}t"):
                yield "comment", " ".join((text.text or "").split())
        return
    if part.startswith("ppt/slides"):
        for group in root.iter(f"{_SLIDE}grpSp"):
            yield f"group on slide {numbers.get(part, number)}", _text(group, _DRAWING)
        return
    relations = f"ppt/notesSlides/_rels/notesSlide{number}.xml.rels"
    slide = _NOTES_OF.search(archive.read(relations)) if relations in archive.namelist() else None
    shown = numbers.get(f"ppt/slides/slide{int(slide[1])}.xml", int(slide[1])) if slide else number
    for shape in root.iter(f"{_SLIDE}sp"):
        if any(holder.get("type") == "body" for holder in shape.iter(f"{_SLIDE}ph")):
            yield f"notes of slide {shown}", _text(shape, _DRAWING)


def _chart(root: ElementTree.Element) -> str:
    """The words of a chart, then its rows of data: the name of a series, and the value of each category."""
    found = [_text(root, _DRAWING)]
    for series in root.iter(f"{_CHART}ser"):
        name, *columns = (
            [value.text or "" for value in series.iterfind(f"{_CHART}{part}//{_CHART}v")] for part in _OF_SERIES
        )
        categories, values = columns[0] or columns[1], columns[2] or columns[3]
        if len(categories) == len(values):
            values = [f"{category}: {value}" for category, value in zip(categories, values, strict=True)]
        else:
            values = [*categories, *values]
        found.append(" ".join([*name, ", ".join(values)]))
    return "; ".join(filter(None, (" ".join(one.split()) for one in found)))


def _text(element: ElementTree.Element, space: str, between: str = " ") -> str:
    """The words of an element's paragraphs, on one line."""
    paragraphs = ("".join(_words(paragraph, space)) for paragraph in element.iter(f"{space}p"))
    return between.join(filter(None, (" ".join(paragraph.split()) for paragraph in paragraphs)))


def _words(paragraph: ElementTree.Element, space: str) -> Iterator[str]:
    for item in paragraph.iter():
        if item.tag == f"{space}t":
            yield item.text or ""
        elif item.tag in (f"{space}tab", f"{space}br"):
            yield " "


__all__ = ["left_out"]
