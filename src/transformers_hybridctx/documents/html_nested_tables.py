# SPDX-License-Identifier: Apache-2.0
"""Tables of HTML that stand in cells of others: which of the outer ones have columns, and which only place things."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# The HTML standard's signs of a table that means its columns, and of one that does not ("4.9.1 The table element").
_OF_DATA = frozenset(("th", "thead", "tfoot", "caption"))
_CELLS_OF_DATA = ("scope", "headers")
_BARE = ("border", "cellspacing", "cellpadding")
# What cells of a page's frame hold, and those of a table of data hardly ever do.
_OF_PAGES = frozenset(("h1", "h2", "h3", "h4", "h5", "h6", "hr", "form", "nav", "main", "article"))


@dataclass
class _Seen:
    """What was seen of a table: where it stands, its own rows, the most cells of one, and signs of what it is for."""

    parent: _Seen | None
    is_presentation: bool
    is_of_data: bool
    is_of_layout: bool
    rows: int = 0
    cells: int = 0
    most_cells: int = 0
    reaches_down: bool = False
    holds_tables: bool = False
    is_in_cell: bool = False
    number: int | None = None

    @property
    def has_columns(self) -> bool:
        return self.most_cells > 1 or self.reaches_down

    @property
    def is_for_layout(self) -> bool:
        if self.is_presentation:
            return True
        if not self.holds_tables:
            return False
        if not self.has_columns:
            return True
        return not self.is_of_data and (self.is_of_layout or (self.rows < 2 and not self.is_in_cell))


class NestedTables:
    """Which tables of a page stand in cells of others; the numbers that they are called by."""

    def __init__(self) -> None:
        self._seen: dict[int, _Seen] = {}

    def look_through(self, walk: Iterator[tuple[Any, bool]]) -> None:
        """Take note of all tables of a page, from (node, whether it starts) in the order of its source."""
        is_open: list[_Seen] = []
        for node, starts in walk:
            if node.tag == "table" and starts:
                seen = _opened(node, is_open[-1] if is_open else None)
                self._seen[node.mem_id] = seen
                is_open.append(seen)
            elif node.tag == "table":
                is_open.pop()
            elif starts and is_open:
                _note(is_open[-1], node)
        self._give_numbers()

    def is_for_layout(self, table: Any) -> bool:
        """Whether a table's columns mean nothing: what is in its cells is then written as it would be without it."""
        return self._seen[table.mem_id].is_for_layout

    def number_of(self, table: Any) -> int | None:
        """What a table is called, counted from 1 in the order of the page; None where it need not stand apart."""
        return self._seen[table.mem_id].number

    def _give_numbers(self) -> None:
        count = 0
        for seen in self._seen.values():  # outer ones first
            parent = seen.parent
            seen.is_in_cell = parent is not None and (parent.is_in_cell or not parent.is_for_layout)
            if seen.is_in_cell and seen.has_columns and not seen.is_for_layout:
                count += 1
                seen.number = count


def _opened(table: Any, parent: _Seen | None) -> _Seen:
    attributes = table.attributes
    if parent is not None:
        parent.holds_tables = True
    return _Seen(
        parent,
        is_presentation=attributes.get("role") in ("presentation", "none"),
        is_of_data="border" in attributes and not _is_zero(attributes["border"]),
        is_of_layout=any(_is_zero(attributes[name]) for name in _BARE if name in attributes),
    )


def _note(seen: _Seen, node: Any) -> None:
    """Take note of an element whose innermost table has been `seen`."""
    tag = node.tag
    if tag == "tr":
        seen.rows += 1
        seen.cells = 0
    elif tag in ("td", "th"):
        attributes = node.attributes
        seen.cells += 1
        seen.most_cells = max(seen.most_cells, seen.cells)
        seen.reaches_down = seen.reaches_down or (attributes.get("rowspan") or "1").strip() != "1"
        seen.is_of_data = seen.is_of_data or any(name in attributes for name in _CELLS_OF_DATA)
    seen.is_of_data = seen.is_of_data or tag in _OF_DATA
    seen.is_of_layout = seen.is_of_layout or tag in _OF_PAGES


def _is_zero(value: str | None) -> bool:
    return bool(re.fullmatch(r"\s*0+(?:px|%)?\s*", value or ""))
