# SPDX-License-Identifier: Apache-2.0
"""Numbers that Word counts, of headings, clauses and lists, written as text where it shows them.

Pandoc counts lists only, with formats and levels of its own; so a numbered paragraph is none of a list any more, and
bullets stay as they are. The rest of a part stays as it is, to the byte.
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from xml.parsers import expat
from xml.sax.saxutils import escape

from .archives import DAMAGE, Package, parsed_part, part_of
from .hidden_words import OFF, STYLES, WORD_PARTS, hiding_styles
from .markup_edits import MarkupEdits, OpenElement
from .word_lists import Counters, WordLists

_NUMBERING = "word/numbering.xml"
_OF_TIGHT_LISTS = (
    "Compact"  # a style of pandoc's own, whose paragraphs it writes on one line where they are in no list
)


def write_numbers(package: Package, name: str) -> None:
    """
    Make text of the numbers of a Word file.

    Warns:
        UserWarning: what it says of its lists and styles is damaged.
    """
    changed: dict[str, bytes] = {}
    try:
        names = package.namelist()
        if _NUMBERING not in names:
            return
        styles = parsed_part(package, STYLES) if STYLES in names else None
        lists = WordLists(parsed_part(package, _NUMBERING), styles)
        hiding = hiding_styles(package) if STYLES in names else frozenset()
        for part in filter(WORD_PARTS.fullmatch, names):
            content = part_of(package, part)
            with suppress(expat.ExpatError):  # damaged: its reader says so
                if (written := _Numbers(content, lists, hiding).applied()) != content:
                    changed[part] = written
        package.replace(changed)
    except DAMAGE as error:
        warnings.warn(f"{name}: the numbers of its headings and lists are not read: {error}", stacklevel=6)


@dataclass
class _Paragraph:
    """What an open paragraph says of its number, and the bytes [start, end) where that stands."""

    begins: int
    style: str = ""
    number: str = ""
    level: str = ""
    properties: OpenElement | None = None
    said: tuple[int, int] | None = None
    tight: tuple[int, int] | None = None
    has_text: bool = False
    is_hidden: bool = False
    is_joined: bool = False


@dataclass
class _Story:
    """What is counted by itself, and where the text of a paragraph begins that others are joined to."""

    counters: Counters = field(default_factory=Counters)
    joined_at: int | None = None


class _Numbers(MarkupEdits):
    """Finds where the numbers of a part stand."""

    unwrapped = frozenset()

    def __init__(self, content: bytes, lists: WordLists, hiding: frozenset[str]) -> None:
        self._lists, self._hiding = lists, hiding
        self._paragraphs: list[_Paragraph] = []
        self._stories = [_Story()]
        super().__init__(content)

    def begins(self, tag: str, said: dict[str, str], around: str) -> None:
        if tag in ("txbxContent", "comment"):
            self._stories.append(_Story())
        elif tag == "p":
            self._paragraphs.append(_Paragraph(self.open[-1].inside))
        elif around in ("pPr", "numPr", "rPr") and self._paragraphs:
            self._is_said(tag, said.get("val", ""), [one.tag for one in self.open[-5:-1]])

    def _is_said(self, tag: str, value: str, path: list[str]) -> None:
        one = self._paragraphs[-1]
        if path[-2:] == ["p", "pPr"] and tag == "pStyle":
            one.style = value
        elif path[-3:] == ["p", "pPr", "numPr"] and tag == "numId":
            one.number = value
        elif path[-3:] == ["p", "pPr", "numPr"] and tag == "ilvl":
            one.level = value
        elif path[-3:] == ["p", "pPr", "rPr"]:
            one.is_joined |= tag in ("del", "moveFrom")  # its mark is, so the next paragraph follows on its line
            one.is_hidden |= tag in ("vanish", "specVanish") and value not in OFF

    def ends(self, one: OpenElement, end: int) -> None:
        around = self.open[-1].tag if self.open else ""
        if one.tag in ("txbxContent", "comment"):
            self._stories.pop()
        elif one.tag == "p":
            self._number(self._paragraphs.pop(), end)
        elif one.tag == "pPr" and around == "p":
            self._paragraphs[-1].begins = end
            self._paragraphs[-1].properties = one
        elif one.tag == "numPr" and [outer.tag for outer in self.open[-2:]] == ["p", "pPr"]:
            self._paragraphs[-1].said = (one.start, end)
        elif one.tag == "pStyle" and self._paragraphs and self._paragraphs[-1].style == _OF_TIGHT_LISTS:
            self._paragraphs[-1].tight = (one.start, end)

    def characters(self, text: str) -> None:
        if self._paragraphs and self.open[-1].tag == "t":
            self._paragraphs[-1].has_text = True

    def _number(self, one: _Paragraph, end: int) -> None:
        found = self._lists.of_paragraph(one.style, one.number, one.level)
        if any(outer.tag == "Fallback" for outer in self.open):
            return  # the same once more, for older programs
        story = self._stories[-1]
        begins = one.begins if story.joined_at is None else story.joined_at
        story.joined_at = begins if one.is_joined else None
        is_hidden = not one.has_text and (one.is_hidden or one.style in self._hiding)
        if found is None or one.is_joined or is_hidden:
            if found is not None:
                self._take_out(one)
            return
        number, word_list, level = found
        text = story.counters.next(number, word_list, level)
        if word_list.levels[level].is_bullet:
            return
        self._take_out(one)
        if text and begins < end:
            word = self.prefix
            self.replace(begins, begins, f'<{word}r><{word}t xml:space="preserve">{escape(text)}</{word}t></{word}r>')

    def _take_out(self, one: _Paragraph) -> None:
        """Take a paragraph out of its list."""
        if one.tight is not None:
            self.replace(*one.tight)
        word = self.prefix
        no_list = f'<{word}numPr><{word}numId {word}val="0"/></{word}numPr>'
        if one.said is not None:
            self.replace(*one.said, no_list)
        elif one.style and one.properties is not None:
            self.replace(one.properties.inside, one.properties.inside, no_list)


__all__ = ["write_numbers"]
