# SPDX-License-Identifier: Apache-2.0
"""A part of an Office file with some of its elements written anew; the rest stays as it is, to the byte."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

# A tag, in whose attributes ">" may stand.
_TAG = re.compile(rb"""<(?:[^"'>]|"[^"]*"|'[^']*')*>""")


@dataclass
class OpenElement:
    """An element that has begun: its tag without prefix, the bytes of its start, what is known of its content."""

    tag: str
    start: int
    inside: int
    is_unwrapped: bool = False
    is_dropped: bool = False
    is_hidden: bool = False
    text: list[str] = field(default_factory=list)


class MarkupEdits:
    """
    Walks through a part, and gathers what is replaced in its bytes.

    Alternatives for programs of different age are replaced by the first one, which is for the newest.

    Attributes:
        content: the part as it is.
        open: the elements that have begun, the innermost last.
        prefix: that of the part's own elements, with its colon.
        hidden: the words of what is hidden, which subclasses drop.
    """

    unwrapped = frozenset(("AlternateContent", "Choice"))
    """Elements whose content stands in their place."""
    dropped_within = frozenset(("Fallback",))
    """Elements that are dropped with their content where they stand in those."""

    def __init__(self, content: bytes) -> None:
        self.open: list[OpenElement] = []
        self.prefix = ""
        self.hidden: list[str] = []
        self.content = content
        self._edits: list[tuple[int, int, bytes]] = []
        self._spaces: dict[str, str] = {}  # those that unwrapped elements declare
        self._root_spaces: set[str] = set()
        self._end_of_root = 0
        parser = expat.ParserCreate()
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self.characters
        self._parser = parser
        parser.Parse(content, True)

    def applied(self) -> bytes:
        """The part with all of it replaced."""
        declared = "".join(f" {key}={quoteattr(value)}" for key, value in self._spaces.items())
        root = (self._end_of_root, self._end_of_root, declared.encode())
        kept: list[bytes] = []
        last = 0
        for start, end, instead in sorted([*self._edits, root]):
            if start >= last:  # not within what is replaced as a whole
                kept += (self.content[last:start], instead)
                last = end
        return b"".join((*kept, self.content[last:]))

    def replace(self, start: int, end: int, instead: str | bytes = "") -> None:
        self._edits.append((start, end, instead.encode() if isinstance(instead, str) else instead))

    def begins(self, tag: str, said: dict[str, str], around: str) -> None:
        """An element has begun, with what its attributes say, within another."""

    def ends(self, one: OpenElement, end: int) -> None:
        """An element that is neither unwrapped nor dropped has ended."""

    def characters(self, text: str) -> None:
        """Characters within the innermost element."""

    def is_unwrapped(self, tag: str, around: str) -> bool:
        return tag in self.unwrapped

    def _start(self, name: str, attributes: dict[str, Any]) -> None:
        prefix, _, tag = name.rpartition(":")
        start = self._parser.CurrentByteIndex
        inside = self._end_of_tag(start)
        spaces = {key: value for key, value in attributes.items() if key.startswith("xmlns:")}
        if not self.open:
            self.prefix = f"{prefix}:" * bool(prefix)
            self._root_spaces = set(spaces)
            self._end_of_root = inside - 1 - (self.content[inside - 2 : inside - 1] == b"/")
        outer = self.open[-1] if self.open else OpenElement("", 0, 0)
        is_unwrapped = self.is_unwrapped(tag, outer.tag)
        is_dropped = outer.is_unwrapped and tag in self.dropped_within
        if tag == "Choice":
            is_dropped = outer.is_unwrapped and bool(outer.text)
            is_unwrapped = outer.is_unwrapped and not outer.text
            outer.text.append(tag)
        if is_unwrapped:
            self.replace(start, inside)
            self._spaces |= {key: value for key, value in spaces.items() if key not in self._root_spaces}
        self.open.append(OpenElement(tag, start, inside, is_unwrapped, is_dropped))
        self.begins(tag, {key.rpartition(":")[2]: value for key, value in attributes.items()}, outer.tag)

    def _end(self, name: str) -> None:
        one = self.open.pop()
        at = self._parser.CurrentByteIndex
        is_empty = self.content[one.inside - 2 : one.inside] == b"/>"
        end = one.inside if is_empty else self._end_of_tag(at)
        if one.is_dropped:
            self.replace(one.start, end)
        elif one.is_unwrapped:
            if not is_empty:
                self.replace(at, end)
        else:
            self.ends(one, end)

    def _end_of_tag(self, start: int) -> int:
        found = _TAG.match(self.content, start)
        return found.end() if found else start


__all__ = ["MarkupEdits", "OpenElement"]
