# SPDX-License-Identifier: Apache-2.0
"""Hidden text of Word files (`w:vanish`): it is taken out before they are read, and reported.

A reader of the printed page does not see it, as little as hidden elements of HTML or text that a PDF never paints.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any
from xml.etree.ElementTree import Element
from xml.parsers import expat

from .archives import DAMAGE, Archive, Package, parsed_part, part_of, without_ranges

_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
WORD_PARTS = re.compile(r"word/(?:document|header|footer|footnotes|endnotes|comments)\d*\.xml")
"""The parts of a Word file that hold its text."""
STYLES = "word/styles.xml"
OFF = ("0", "false", "off", "none")
"""What a property says that does not hold."""
_FOR_ALL = "\0"  # no style has such a name
_MOST_SHOWN = 120
_NOTE_MARKS = ("footnoteReference", "endnoteReference")  # without them, their notes are not read either


def warn_of_hidden(name: str, hidden: Sequence[str], stacklevel: int = 7) -> None:
    """Say what of a file is hidden and therefore not read; `stacklevel` leads to whoever reads it."""
    words = " ".join(hidden)
    if words:
        warnings.warn(
            f"{name} holds hidden text, which is not read: {words[:_MOST_SHOWN]!r}{'...' * (len(words) > _MOST_SHOWN)}; "
            "show it in the program that made the file, where it is meant",
            stacklevel=stacklevel,
        )


def take_out_hidden(
    package: Package, name: str, edits_of: Callable[[Archive], tuple[dict[str, bytes], list[str]]]
) -> None:
    """
    Write some parts of an Office file anew; it stays as it is where it is damaged, which its reader says.

    Args:
        edits_of: gives {part: its new content}, and what was hidden in them.

    Warns:
        UserWarning: what is hidden; or that a part is too large to be looked through.
    """
    try:
        changed, hidden = edits_of(package)
    except ValueError as error:
        warnings.warn(f"{name}: hidden text is not looked for, and is read: {error}", stacklevel=7)
        return
    except (*DAMAGE, expat.ExpatError):
        return
    package.replace(changed)
    warn_of_hidden(name, hidden, stacklevel=8)


def take_out_hidden_runs(package: Package, name: str) -> None:
    """
    Take out the runs of text that a Word file hides, by themselves or by their styles.

    Warns:
        UserWarning: what is hidden.
    """
    take_out_hidden(package, name, _without_runs)


def _without_runs(archive: Archive) -> tuple[dict[str, bytes], list[str]]:
    changed: dict[str, bytes] = {}
    hidden: list[str] = []
    parts = [part for part in archive.namelist() if WORD_PARTS.fullmatch(part)]
    hiding = hiding_styles(archive) if STYLES in archive.namelist() else frozenset()
    for part in parts:
        content = part_of(archive, part)
        if not hiding and b"vanish" not in content:
            continue
        runs = _Runs(content, hiding)
        if runs.hidden:
            changed[part] = without_ranges(content, runs.hidden)
            hidden += runs.words
    return changed, hidden


def hiding_styles(archive: Archive) -> frozenset[str]:
    """
    Names of styles whose text is hidden, by themselves, by those that they are based on, or by what holds for all.

    "" is among them where paragraphs without a style are hidden.
    """
    space = f"{{{_WORD}}}"
    said: dict[str, bool] = {}
    based: dict[str, str] = {}
    root = parsed_part(archive, STYLES)
    for style in root.iter(f"{space}style"):
        key = style.get(f"{space}styleId") or ""
        mark = style.find(f"{space}rPr/{space}vanish")
        if mark is not None:
            said[key] = mark.get(f"{space}val", "1") not in OFF
        base = style.find(f"{space}basedOn")
        if base is not None:
            based[key] = base.get(f"{space}val") or ""
        elif style.get(f"{space}type") == "paragraph":
            based[key] = _FOR_ALL
    mark = root.find(f"{space}docDefaults/{space}rPrDefault/{space}rPr/{space}vanish")
    said[_FOR_ALL] = mark is not None and mark.get(f"{space}val", "1") not in OFF
    based[""] = default_style(root) or _FOR_ALL
    return frozenset(key for key in {*said, *based} if _is_hiding(key, said, based))


def default_style(styles: Element) -> str:
    """The style of paragraphs that name none, or ""."""
    space = f"{{{_WORD}}}"
    of_paragraphs = (one for one in styles.iter(f"{space}style") if one.get(f"{space}type") == "paragraph")
    default = (one for one in of_paragraphs if one.get(f"{space}default", "0") not in OFF)
    return next((one.get(f"{space}styleId") or "" for one in default), "")


def _is_hiding(key: str, said: dict[str, bool], based: dict[str, str]) -> bool:
    seen: set[str] = set()
    while key not in said and key in based and key not in seen:
        seen.add(key)
        key = based[key]
    return said.get(key, False)


class _Runs:
    """Finds the hidden runs of one part, by their places in its bytes: the rest stays as it is, to the byte.

    Attributes:
        hidden: bytes [start, end) of hidden runs.
        words: what they say.
    """

    def __init__(self, content: bytes, hiding: frozenset[str]) -> None:
        self.hidden: list[tuple[int, int]] = []
        self.words: list[str] = []
        self._content, self._hiding = content, hiding
        self._path: list[str] = []
        self._paragraphs: list[bool] = []  # of open paragraphs, whether their style hides
        self._runs: list[tuple[int, bool | None, list[str]]] = []  # of open runs: start, whether hidden, words
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        self._parser = parser
        parser.Parse(content, True)

    def _start(self, name: str, attributes: dict[str, Any]) -> None:
        tag = name.removeprefix(f"{_WORD} ")
        value = attributes.get(f"{_WORD} val", "1")
        inside = self._path[-1:]
        if tag == "p":
            self._paragraphs.append("" in self._hiding)
        elif tag == "r":
            self._runs.append((self._parser.CurrentByteIndex, None, []))
        elif tag == "pStyle" and inside == ["pPr"] and self._paragraphs:
            self._paragraphs[-1] = value in self._hiding
        elif tag in _NOTE_MARKS and self._runs:
            self._runs[-1][2].append(" [note] ")
        elif self._runs and self._path[-2:] == ["r", "rPr"]:
            start, is_hidden, words = self._runs[-1]
            if tag == "vanish":
                self._runs[-1] = start, value not in OFF, words
            elif tag == "rStyle" and is_hidden is None and value in self._hiding:
                self._runs[-1] = start, True, words
        self._path.append(tag)

    def _end(self, name: str) -> None:
        tag = self._path.pop()
        if tag == "p" and self._paragraphs:
            self._paragraphs.pop()
        elif tag == "r" and self._runs:
            start, is_hidden, words = self._runs.pop()
            if is_hidden is None:
                is_hidden = bool(self._paragraphs) and self._paragraphs[-1]
            text = " ".join("".join(words).split())
            if is_hidden and text:
                self.hidden.append((start, self._content.index(b">", self._parser.CurrentByteIndex) + 1))
                self.words.append(text)

    def _characters(self, text: str) -> None:
        if self._runs and self._path[-1:] == ["t"]:
            self._runs[-1][2].append(text)


__all__ = [
    "OFF",
    "STYLES",
    "WORD_PARTS",
    "default_style",
    "hiding_styles",
    "take_out_hidden",
    "take_out_hidden_runs",
    "warn_of_hidden",
]
