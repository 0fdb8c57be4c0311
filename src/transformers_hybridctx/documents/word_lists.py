# SPDX-License-Identifier: Apache-2.0
"""The lists that a Word file defines: which one a paragraph belongs to, and how its levels count and are written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from .hidden_words import OFF, default_style
from .html_lists import MOST_ROMAN, number_in, roman

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_OF_LEVEL = re.compile(r"%([1-9])")
_MOST_LETTERED = 780  # Word writes "aaa" for 53, and thirty letters at most
_CHINESE_UNITS = (("千", 1000), ("百", 100), ("十", 10), ("", 1))
_CHINESE = frozenset(("chineseCounting", "chineseCountingThousand", "taiwaneseCounting", "taiwaneseCountingThousand"))


@dataclass(frozen=True)
class Level:
    """How one level of a list counts and is written; the number of the level whose use restarts it counts from 1."""

    start: int
    kind: str
    text: str
    blank: str
    is_legal: bool
    restart: int
    style: str

    @classmethod
    def of(cls, level: Element) -> Level:
        formats = list(level.iter(f"{_W}numFmt"))  # such as "001, 002, ..." for newer programs, and one for others
        examples = [one.get(f"{_W}format", "").partition(",")[0] for one in formats]
        return cls(
            start=number_in(_said(level, "start"), 0),
            kind=next(filter(str.isdecimal, examples), formats[-1].get(f"{_W}val", "") if formats else "decimal"),
            text="" if _is_on(level.find(f"{_W}rPr/{_W}vanish")) else _said(level, "lvlText"),
            blank="" if _said(level, "suff") == "nothing" else " ",
            is_legal=_is_on(level.find(f"{_W}isLgl")),
            restart=number_in(_said(level, "lvlRestart"), 9),
            style=_said(level, "pStyle"),
        )

    @property
    def is_bullet(self) -> bool:
        return self.kind == "bullet" and bool(self.text.strip())


@dataclass(frozen=True)
class WordList:
    """One `w:num`: its levels, where it starts anew, and the definition whose counters it shares with others."""

    definition: str
    levels: dict[int, Level]
    starts: dict[int, int]


class WordLists:
    """The lists of a file by their `w:numId`, and those of its paragraphs' styles."""

    def __init__(self, numbering: Element, styles: Element | None) -> None:
        self._lists = dict(_lists(numbering))
        self._found: dict[tuple[str, str, str], tuple[str, WordList, int] | None] = {}
        self._styles = {} if styles is None else {one.get(f"{_W}styleId", ""): one for one in styles}
        self._default = "" if styles is None else default_style(styles)

    def of_paragraph(self, style: str, number: str, level: str) -> tuple[str, WordList, int] | None:
        """
        The `w:numId`, the list and the level of a paragraph, or None.

        Args:
            style, number, level: what the paragraph says itself, if anything.
        """
        said = style, number, level
        if said not in self._found:
            self._found[said] = self._find(*said)
        return self._found[said]

    def _find(self, style: str, number: str, level: str) -> tuple[str, WordList, int] | None:
        chain = list(self._based_on(style if style in self._styles else self._default))
        of_styles = [(_said(one, "pPr", "numPr", "numId"), _said(one, "pPr", "numPr", "ilvl")) for _, one in chain]
        number = number or next((said for said, _ in of_styles if said), "")
        found = self._lists.get(number)
        if found is None:
            return None
        # A style's own level is what the list says; what the style says counts only where the list does not name it.
        named = {one.style: at for at, one in found.levels.items() if one.style}
        linked = next((str(named[key]) for key, _ in chain if key in named), "")
        at = number_in(level or linked or next((said for _, said in of_styles if said), ""), 0)
        return (number, found, at) if at in found.levels else None

    def _based_on(self, style: str) -> Iterator[tuple[str, Element]]:
        seen: set[str] = set()
        while style in self._styles and style not in seen:
            seen.add(style)
            yield style, self._styles[style]
            style = _said(self._styles[style], "basedOn")


class Counters:
    """The numbers of one story: a text, a text box, or a comment, which Word counts by themselves."""

    def __init__(self) -> None:
        self._values: dict[str, dict[int, int]] = {}
        self._started: set[tuple[str, int]] = set()

    def next(self, number: str, one: WordList, at: int) -> str:
        """The next number of a list at a level, as it is shown, with the blank behind it."""
        values = self._values.setdefault(one.definition, {})
        if at in one.starts and (number, at) not in self._started:
            self._started.add((number, at))
            values[at] = one.starts[at]
        else:
            values[at] = values[at] + 1 if at in values else _start(one, at)
        for deeper in [key for key in values if key > at and key in one.levels and at < one.levels[key].restart]:
            del values[deeper]
        level = one.levels[at]

        def shown(found: re.Match[str]) -> str:
            which = int(found[1]) - 1
            if which not in one.levels:
                return ""
            kind = one.levels[which].kind
            if level.is_legal and kind not in ("decimalZero", "none"):  # "Section 1.01" below "Article I"
                kind = "decimal"
            return formatted(values.get(which, _start(one, which)), kind)

        text = "" if level.kind == "bullet" else _OF_LEVEL.sub(shown, level.text)
        return text and text + level.blank


def formatted(number: int, kind: str) -> str:
    """A number as Word writes one of a kind; digits of the kinds that are not known, such as other languages' words."""
    if kind in ("none", "bullet"):
        return ""
    if kind.isdecimal():  # an example of its digits
        return str(number).zfill(len(kind))
    text = ""
    if kind.endswith("Letter") and number <= _MOST_LETTERED:
        text = chr(ord("a") + (number - 1) % 26) * ((number - 1) // 26 + 1)
    elif kind.endswith("Roman") and number <= MOST_ROMAN:
        text = roman(number)
    elif kind == "decimalZero":
        text = f"{number:02}"
    elif kind == "ordinal":
        text = f"{number}{_ending(number)}"
    elif kind in _CHINESE or (kind == "japaneseCounting" and number < 100):
        text = _chinese(number)
    text = text if number > 0 else ""
    return (text.upper() if kind.startswith("upper") else text) or str(number)


def _ending(number: int) -> str:
    return "th" if number // 10 % 10 == 1 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")


def _chinese(number: int) -> str:
    text = ""
    for unit, size in _CHINESE_UNITS if number < 10_000 else ():
        digit = number // size % 10
        if digit:
            text += "〇一二三四五六七八九"[digit] + unit
        elif text and number % size and not text.endswith("零"):
            text += "零"
    return text[1:] if 10 <= number < 20 else text


def _start(one: WordList, at: int) -> int:
    return one.starts.get(at, one.levels[at].start)


def _lists(numbering: Element) -> Iterator[tuple[str, WordList]]:
    definitions = {one.get(f"{_W}abstractNumId", ""): one for one in numbering.iterfind(f"{_W}abstractNum")}
    of_style = {_said(one, "styleLink"): one for one in definitions.values()}
    for one in numbering.iterfind(f"{_W}num"):
        definition = _said(one, "abstractNumId")
        if definition not in definitions:
            continue
        linked = _said(definitions[definition], "numStyleLink")
        defined = of_style.get(linked, definitions[definition]) if linked else definitions[definition]
        levels, starts = _levels(defined), {}
        for override in one.iterfind(f"{_W}lvlOverride"):
            levels |= _levels(override)
            if start := _said(override, "startOverride"):
                starts[number_in(override.get(f"{_W}ilvl"), 0)] = number_in(start, 0)
        yield one.get(f"{_W}numId", ""), WordList(definition, levels, starts)


def _levels(within: Element) -> dict[int, Level]:
    return {number_in(one.get(f"{_W}ilvl"), 0): Level.of(one) for one in within.iterfind(f"{_W}lvl")}


def _is_on(mark: Element | None) -> bool:
    return mark is not None and mark.get(f"{_W}val") not in OFF


def _said(element: Element, *path: str) -> str:
    """The value of a child, or of one further within."""
    found = element.find("/".join(f"{_W}{tag}" for tag in path))
    return "" if found is None else found.get(f"{_W}val", "")


__all__ = ["Counters", "WordList", "WordLists", "formatted"]
