# SPDX-License-Identifier: Apache-2.0
"""Slides before pandoc reads them: what is hidden is taken out and reported, of alternatives one is left, and words
that are drawn in pieces are whole.
"""

from __future__ import annotations

from contextlib import suppress
from xml.etree import ElementTree

from .archives import Archive, Package, main_part, parsed_part, part_of, related_parts
from .hidden_words import take_out_hidden
from .markup_edits import MarkupEdits, OpenElement

_SLIDE = "http://schemas.openxmlformats.org/presentationml/2006/main"
_DRAWING = "http://schemas.openxmlformats.org/drawingml/2006/main"
_RELATION_ID = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_SHAPES = frozenset(("sp", "grpSp", "graphicFrame", "pic", "cxnSp"))
_NO_SLIDE = f'<p:sld xmlns:p="{_SLIDE}"><p:cSld><p:spTree/></p:cSld></p:sld>'.encode()
_NO_NOTES = f'<p:notes xmlns:p="{_SLIDE}"/>'.encode()
_ON = ("1", "true")
_OFF = ("0", "false")


def write_seen_shapes(package: Package, name: str) -> None:
    """
    Take out the slides and shapes that a presentation hides, put those that stand among alternatives in their place, and
    make the runs of a paragraph one.

    Warns:
        UserWarning: what is hidden.
    """
    with suppress(KeyError):  # a part is missing: its reader says so
        take_out_hidden(package, name, _with_seen_shapes)


def _with_seen_shapes(archive: Archive) -> tuple[dict[str, bytes], list[str]]:
    changed: dict[str, bytes] = {}
    hidden: list[str] = []
    for number, part in enumerate(slide_parts(archive), start=1):
        content = part_of(archive, part)
        root = ElementTree.fromstring(content)
        if root.get("show") in _OFF:
            changed[part] = _NO_SLIDE
            hidden.append(f"slide {number}: {_words(root)}")
            for notes in related_parts(archive, part, "notesSlide").values():
                changed[notes] = _NO_NOTES
                hidden.append(_words(parsed_part(archive, notes)))
        else:
            shapes = _Shapes(content)
            changed[part] = shapes.applied()
            hidden += (f"slide {number}: {words}" for words in shapes.hidden if words)
    return changed, hidden


def slide_parts(archive: Archive) -> list[str]:
    """The parts of a presentation's slides, as they follow one another; raises as `parsed_part`, or a KeyError."""
    presentation = main_part(archive)
    parts = related_parts(archive, presentation, "slide")
    listed = parsed_part(archive, presentation).iter(f"{{{_SLIDE}}}sldId")
    return [parts[relation] for slide in listed if (relation := slide.get(_RELATION_ID) or "") in parts]


def _words(root: ElementTree.Element) -> str:
    return " ".join(" ".join(text.text or "" for text in root.iter(f"{{{_DRAWING}}}t")).split())


class _Shapes(MarkupEdits):
    """Drops the hidden shapes of a slide; of alternatives, which pandoc drops as well, the first one is left.

    Runs that follow each other become one: pandoc writes a blank between any two, be it within a word or a number.
    """

    def __init__(self, content: bytes) -> None:
        self._end_of_text = 0  # of the run before in this paragraph; 0 where there is none
        self._link = self._link_before = ""
        self._is_raised = False
        super().__init__(content)

    def begins(self, tag: str, said: dict[str, str], around: str) -> None:
        if tag == "cNvPr" and said.get("hidden") in _ON and len(self.open) > 2 and self.open[-3].tag in _SHAPES:
            self.open[-3].is_hidden = True
        elif tag == "r" and around == "p":
            self._link_before, self._link, self._is_raised = self._link, "", False
        elif tag == "p" or around == "p":  # a line's end, a field or a formula
            self._end_of_text = 0
        elif tag == "rPr":
            self._is_raised = said.get("baseline", "0")[:1] in tuple("123456789")
        elif tag == "hlinkClick":
            self._link = said.get("id", "")
        elif tag == "t" and around == "r" and self._end_of_text and self._link == self._link_before:
            inside = self.open[-1].inside
            if self.content[inside - 2 : inside] != b"/>":
                self.replace(self._end_of_text, inside, "^" * self._is_raised)

    def ends(self, one: OpenElement, end: int) -> None:
        if one.tag == "t" and end > one.inside and self.open[-1].tag == "r":
            self._end_of_text = self.content.rindex(b"<", one.inside, end)
        if one.is_hidden and not any(outer.is_hidden for outer in self.open):
            self.replace(one.start, end)
            self.hidden.append(" ".join(" ".join(one.text).split()))

    def characters(self, text: str) -> None:
        hiding = next((one for one in self.open if one.is_hidden), None)
        if hiding is not None and self.open[-1].tag == "t":
            hiding.text.append(text)


__all__ = ["slide_parts", "write_seen_shapes"]
