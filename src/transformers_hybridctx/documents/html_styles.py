# SPDX-License-Identifier: Apache-2.0
"""What a page's styles say: elements that are gone, that take their room and are not seen in it, that stand apart.

Words follow CSS: of the page's own style sheets and `style` attributes the most specific declaration decides, of equal
ones the last. Sheets for some media only (narrow windows, paper) may show what others hide, and hide nothing themselves:
what somebody sees of a page is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

_COMMENT_OR_TEXT = re.compile(r"""/\*.*?(?:\*/|\Z)|"[^"\n]*"|'[^'\n]*'""", re.S)
_MARKS = re.compile(r"[{};]")
_DECLARATION = re.compile(r"(?:^|;)\s*(display|visibility|font-size|font|opacity)\s*:\s*([^;]*)", re.I)
_FADES = re.compile(r"(?:^|;)\s*(?:transition|animation)\b", re.I)
_NOTHING = re.compile(r"(?:0+|0*\.0+)(?:[a-z]+|%)?\Z")
_FONT_OF_NOTHING = re.compile(r"(?:.*\s)?0(?:[a-z]+|%)?[\s/]")
# Sizes that are a share of the size around them.
_RELATIVE = re.compile(r"[\d.]+(?:em|ex|ch|%)\Z|smaller|larger")
_INHERITED = ("inherit", "unset", "revert")
_CONTAINERS = frozenset(("flex", "inline-flex", "grid", "inline-grid"))  # what they hold stands apart
_BLOCKS = frozenset(
    ("block", "flex", "grid", "flow-root", "list-item", "table", "table-row", "table-caption", "table-cell")
)
_APART = _CONTAINERS | _BLOCKS
_CONDITIONS = ("@media", "@supports", "@layer", "@container")

_OF_LISTS = re.compile(r"([,()\[\]])")
_IDS = re.compile(r"#[\w-]")
_CLASSES = re.compile(r"\.[a-zA-Z_-]|\[|(?<!:):(?!:|(?:not|is|where|has)\()")
_TYPES = re.compile(r"(?:^|[\s>+~(])[a-zA-Z]")
_OF_ATTRIBUTE = (2**31, 0, 0)  # `style` comes before all selectors

_MOST_SELECTORS = 200
_MOST_MATCHES = 100_000


class _Rule(NamedTuple):
    """What is declared of one property; of those for an element the greatest decides."""

    is_important: bool
    specificity: tuple[int, int, int]
    place: int
    selector: str
    hides: bool
    value: str


class Look(NamedTuple):
    """Why what stands within an element is not seen, though it is there."""

    is_invisible: bool = False
    has_no_size: bool = False
    is_clear: bool = False

    @property
    def is_blank(self) -> bool:
        return any(self)


class Appearance:
    """Which elements of one parsed page are seen, and how."""

    def __init__(self, tree: Any) -> None:
        rules: dict[str, list[_Rule]] = {}
        for sheet in tree.css("style"):
            for name, rule in _rules_of(sheet.text(), _is_conditional(sheet)):
                of_name = rules.setdefault(name, [])
                of_name.append(rule._replace(place=len(of_name)))
        known = _known({rule.selector for of_name in rules.values() for rule in of_name}, tree)
        self._rules = {
            name: sorted((rule for rule in of_name if rule.selector in known), reverse=True)
            for name, of_name in rules.items()
        }
        self._hidden = {
            name: _selected((rule for rule in of_name if rule.hides), tree) for name, of_name in self._rules.items()
        }
        self._laid_out = _selected((rule for rule in self._rules.get("display", ()) if rule.value in _APART), tree)
        self._named = set[int]().union(*self._hidden.values())
        self._matches_left = _MOST_MATCHES

    def is_gone(self, node: Any) -> bool:
        """Whether an element is not there at all, with all that stands in it."""
        attributes = node.attributes
        is_gone_unless_shown = "hidden" in attributes or (node.tag == "dialog" and "open" not in attributes)
        style = attributes.get("style")
        if not (is_gone_unless_shown or style or node.mem_id in self._named):
            return False
        return self._decided(node, "display", _of_style(style), is_gone_unless_shown)

    def is_apart(self, node: Any, around: Any) -> bool:
        """Whether an element stands on lines of its own by its style, or by that of the element around it."""
        return self._display_of(node) in _BLOCKS or self._display_of(around) in _CONTAINERS

    def _display_of(self, node: Any) -> str:
        own = _of_style(node.attributes.get("style")).get("display")
        of_sheets = self._of_sheets(node, "display") if node.mem_id in self._laid_out else None
        found = [rule for rule in (own, of_sheets) if rule]
        return max(found).value if found else ""

    def within(self, node: Any, around: Look) -> Look:
        """How the inside of an element looks that stands within what looks like `around`."""
        style = node.attributes.get("style")
        if not (style or around.is_blank or node.mem_id in self._named):
            return around
        declared = _of_style(style)
        return Look(
            self._decided(node, "visibility", declared, around.is_invisible),
            self._decided(node, "font-size", declared, around.has_no_size),
            around.is_clear or self._decided(node, "opacity", declared, False),
        )

    def _decided(self, node: Any, name: str, declared: dict[str, _Rule], otherwise: bool) -> bool:
        own = declared.get(name)
        if not (otherwise or (own and own.hides) or node.mem_id in self._hidden.get(name, ())):
            return False  # nothing hides it
        found = [rule for rule in (own, self._of_sheets(node, name)) if rule]
        return max(found).hides if found else otherwise

    def _of_sheets(self, node: Any, name: str) -> _Rule | None:
        for rule in self._rules.get(name, ()):
            if not self._matches_left:
                return rule._replace(hides=True) if node.mem_id in self._hidden[name] else None
            self._matches_left -= 1
            if node.css_matches(rule.selector):
                return rule
        return None


def _selected(rules: Iterable[_Rule], tree: Any) -> set[int]:
    """The elements that rules are for, whether or not others come before these."""
    selectors = list(dict.fromkeys(rule.selector for rule in rules))[:_MOST_SELECTORS]
    return {node.mem_id for selector in selectors for node in tree.css(selector)}


def _known(selectors: set[str], tree: Any) -> set[str]:
    """Those that the parser knows; of others, such as "p::after", no element is."""
    from selectolax.lexbor import SelectolaxError

    known = set()
    for selector in selectors:
        with suppress(SelectolaxError):
            tree.body.css_matches(selector)
            known.add(selector)
    return known


def _is_conditional(sheet: Any) -> bool:
    """Whether a sheet holds for some media only, or where there are no scripts."""
    above = sheet.parent
    return bool(sheet.attributes.get("media")) or (above is not None and above.tag == "noscript")


def _rules_of(sheet: str, is_conditional: bool) -> Iterator[tuple[str, _Rule]]:
    """(property, rule) for what a style sheet declares of the properties that hide."""
    sheet = _COMMENT_OR_TEXT.sub(_without_marks, sheet)
    around: list[str] = []
    last = 0
    for brace in re.finditer(r"[{}]", sheet):
        before, last = sheet[last : brace.start()], brace.end()
        if brace[0] == "{":
            around.append(before.rpartition(";")[2].strip())
        elif around:
            selectors = around.pop()
            if selectors.startswith("@") or not all(one.startswith(_CONDITIONS) for one in around):
                continue
            if declared := _of_style(before):
                listed = _listed(selectors)
                for name, rule in declared.items():
                    if not (rule.hides and (around or is_conditional)):
                        for selector in listed:
                            yield name, rule._replace(selector=selector, specificity=_specificity(selector))


def _without_marks(found: re.Match[str]) -> str:
    """No comment; of a text in quotation marks, which may hold what would end a rule, that as CSS escapes it."""
    return "" if found[0].startswith("/") else _MARKS.sub(lambda mark: f"\\{ord(mark[0]):x} ", found[0])


def _listed(selectors: str) -> list[str]:
    """The selectors of a list that commas divide, but for those within brackets."""
    found, depth = [""], 0
    for piece in _OF_LISTS.split(selectors):
        depth += (piece in ("(", "[")) - (piece in (")", "]"))
        if piece == "," and depth <= 0:
            found.append("")
        else:
            found[-1] += piece
    return [one.strip() for one in found]


def _specificity(selector: str) -> tuple[int, int, int]:
    ids, classes, types = (len(found.findall(selector)) for found in (_IDS, _CLASSES, _TYPES))
    return ids, classes, types


@lru_cache(maxsize=1024)
def _of_style(style: str | None) -> dict[str, _Rule]:
    """Property -> what declarations say of it, those of a `style` attribute or of a rule."""
    said: dict[str, _Rule] = {}
    for name, value in _DECLARATION.findall(style or ""):
        bare, _, importance = value.lower().partition("!")
        name = "font-size" if name.lower() == "font" else name.lower()
        hides = _hides(name, bare.strip(), style or "")
        is_important = importance.strip() == "important"
        if hides is not None and (is_important or name not in said or not said[name].is_important):
            said[name] = _Rule(is_important, _OF_ATTRIBUTE, 0, "", hides, bare.strip())
    return said


def _hides(name: str, value: str, style: str) -> bool | None:
    """Whether a declaration hides; None where what is around its element decides."""
    if name == "display":  # what is around is there, or nothing in it would be asked about
        return value == "none"
    if value in _INHERITED:
        return None
    if name == "visibility":
        return value in ("hidden", "collapse")
    if name == "opacity":  # what fades in is seen as soon as the page's scripts have run
        return bool(_NOTHING.match(value)) and not _FADES.search(style)
    if _NOTHING.match(value) or _FONT_OF_NOTHING.match(value):
        return True
    return None if _RELATIVE.match(value) else False


__all__ = ["Appearance", "Look"]
