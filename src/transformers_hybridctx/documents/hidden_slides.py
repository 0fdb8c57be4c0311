# SPDX-License-Identifier: Apache-2.0
"""Hidden slides of presentations, and hidden shapes of slides: they are taken out before these are read, and reported."""

from __future__ import annotations

import zipfile
from io import BytesIO
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

from .archives import DAMAGE, parsed_part, part_of, related_parts, with_parts, without_ranges
from .hidden_words import warn_of_hidden

_SLIDE = "http://schemas.openxmlformats.org/presentationml/2006/main"
_DRAWING = "http://schemas.openxmlformats.org/drawingml/2006/main"
_RELATION_ID = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_PRESENTATION = "ppt/presentation.xml"
_SHAPES = frozenset(f"{_SLIDE} {tag}" for tag in ("sp", "grpSp", "graphicFrame", "pic", "cxnSp"))
_NO_SLIDE = f'<p:sld xmlns:p="{_SLIDE}"><p:cSld><p:spTree/></p:cSld></p:sld>'.encode()
_NO_NOTES = f'<p:notes xmlns:p="{_SLIDE}"/>'.encode()
_ON = ("1", "true")
_OFF = ("0", "false")


def without_hidden_slides(data: bytes, name: str) -> bytes:
    """
    A presentation without what the slides and shapes say that it hides.

    Warns:
        UserWarning: what is hidden.
    """
    changed: dict[str, bytes] = {}
    hidden: list[str] = []
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            for number, part in enumerate(_slides(archive), start=1):
                content = part_of(archive, part)
                root = ElementTree.fromstring(content)
                if root.get("show") in _OFF:
                    changed[part] = _NO_SLIDE
                    hidden.append(f"slide {number}: {_words(root)}")
                    for notes in related_parts(archive, part, "notesSlide").values():
                        changed[notes] = _NO_NOTES
                        hidden.append(_words(parsed_part(archive, notes)))
                elif b"hidden" in content:
                    shapes = _HiddenShapes(content)
                    changed[part] = without_ranges(content, shapes.ranges)
                    hidden += (f"slide {number}: {words}" for words in shapes.words if words)
        changed_data = with_parts(data, changed)
    except (*DAMAGE, expat.ExpatError, KeyError):
        return data  # damaged: its reader says so
    warn_of_hidden(name, hidden)
    return changed_data


def _slides(archive: zipfile.ZipFile) -> list[str]:
    """The parts of the slides, as they follow one another."""
    parts = related_parts(archive, _PRESENTATION, "slide")
    listed = parsed_part(archive, _PRESENTATION).iter(f"{{{_SLIDE}}}sldId")
    return [parts[relation] for slide in listed if (relation := slide.get(_RELATION_ID) or "") in parts]


def _words(root: ElementTree.Element) -> str:
    return " ".join(" ".join(text.text or "" for text in root.iter(f"{{{_DRAWING}}}t")).split())


class _HiddenShapes:
    """Finds the hidden shapes of a slide by their places in its bytes.

    Attributes:
        ranges: bytes [start, end) of shapes.
        words: what they say.
    """

    def __init__(self, content: bytes) -> None:
        self.ranges: list[tuple[int, int]] = []
        self.words: list[str] = []
        self._content = content
        self._shapes: list[tuple[int, bool]] = []  # of open shapes: start, whether hidden
        self._path: list[str] = []
        self._said: list[str] = []
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        self._parser = parser
        parser.Parse(content, True)

    def _start(self, name: str, attributes: dict[str, Any]) -> None:
        if name in _SHAPES:
            self._shapes.append((self._parser.CurrentByteIndex, False))
        elif name == f"{_SLIDE} cNvPr" and self._path[-2:-1] and self._path[-2] in _SHAPES:
            start, _ = self._shapes[-1]
            self._shapes[-1] = start, attributes.get("hidden") in _ON
        self._path.append(name)

    def _end(self, name: str) -> None:
        self._path.pop()
        if name not in _SHAPES:
            return
        start, is_hidden = self._shapes.pop()
        if is_hidden and not any(hides for _, hides in self._shapes):
            self.ranges.append((start, self._content.index(b">", self._parser.CurrentByteIndex) + 1))
            self.words.append(" ".join(" ".join(self._said).split()))
            self._said.clear()

    def _characters(self, text: str) -> None:
        if self._path[-1:] == [f"{_DRAWING} t"] and any(hides for _, hides in self._shapes):
            self._said.append(text)


__all__ = ["without_hidden_slides"]
