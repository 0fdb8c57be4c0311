# SPDX-License-Identifier: Apache-2.0
"""Tables of RTF, whose cells say where they end on the page and what they are merged with, as rows of columns."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from .marked_tables import cell_mark, mark

_NEAR = 60
"""Twips (a millimetre): borders that are nearer are the same one, as programs round them."""


@dataclass
class _Cell:
    """A cell as it is written: the places of its marks (0: not yet), whether something stands in it, what it spans."""

    begins: int
    ends: int = 0
    is_empty: bool = True
    columns: int = 1
    rows: int = 1


class _Defined(NamedTuple):
    """A cell as it is defined: its right border, and whether it belongs to the one before it, or above it."""

    border: int
    joins_left: bool
    joins_above: bool


@dataclass
class _Table:
    """A table, the row of it that is open, and how that was defined as it began."""

    row: list[_Cell] | None = None
    defined: list[_Defined] = field(default_factory=list)
    rows: list[tuple[list[_Cell], list[_Defined]]] = field(default_factory=list)

    @property
    def cell(self) -> _Cell | None:
        """The cell that is open."""
        return self.row[-1] if self.row and not self.row[-1].ends else None


class RtfTables:
    """Writes the marks of tables, rows and cells into the tokens of a file, and what cells span once a table ends."""

    def __init__(self, out: list[bytes]) -> None:
        self._out = out
        self._tables: list[_Table] = []  # those that are open, outer ones first
        self._defined: list[_Defined] = []
        self._is_defined_anew = False  # since the last cell
        self._joins = {b"clmrg": False, b"clvmrg": False}

    @property
    def depth(self) -> int:
        return len(self._tables)

    def define(self, word: bytes, number: int) -> None:
        """Take note of a word that defines a row's cells."""
        if word == b"trowd":
            self._defined = []
            self._is_defined_anew = True
        elif word == b"cellx":
            self._defined.append(_Defined(number, *self._joins.values()))
        if word in self._joins:
            self._joins[word] = True
        elif word in (b"trowd", b"cellx"):
            self._joins = dict.fromkeys(self._joins, False)

    def open_cell(self, level: int, is_empty: bool = False) -> None:
        """Begin the table, row and cell that what follows stands in, where they have not begun."""
        self._close_to(level)
        for number in range(level):
            if number == len(self._tables):
                self._write(mark("table"))
                self._tables.append(_Table())
            table = self._tables[number]
            if table.row is None:
                self._write(mark("tr"))
                table.row, table.defined = [], self._defined
            if table.cell is None:
                self._write(mark("td"))
                table.row.append(_Cell(len(self._out) - 1))
            if table.cell is not None and not is_empty:
                table.cell.is_empty = False

    def end_cell(self, level: int) -> None:
        self.open_cell(level, is_empty=True)
        if self._tables:
            self._end_cell_of(self._tables[-1])
        self._is_defined_anew = False

    def end_row(self, level: int) -> None:
        self._close_to(level)
        if self._tables and len(self._tables) == level:
            self._close_row()

    def close(self) -> None:
        """End all tables."""
        self._close_to(0)

    def _close_to(self, level: int) -> None:
        while len(self._tables) > level:
            self._close_row()
            self._write(mark("/table"))
            table = self._tables.pop()
            _set_spans(table.rows)
            for cell in (cell for cells, _ in table.rows for cell in cells):
                self._out[cell.begins] = _paragraph(cell_mark(cell.columns, cell.rows)) if cell.columns else b""
                if not cell.columns:
                    self._out[cell.ends] = b""

    def _end_cell_of(self, table: _Table) -> None:
        if table.cell is not None:
            self._write(mark("/td"))
            table.cell.ends = len(self._out) - 1

    def _close_row(self) -> None:
        table = self._tables[-1]
        self._end_cell_of(table)
        if table.row is not None:
            self._write(mark("/tr"))
            table.rows.append((table.row, self._defined if self._is_defined_anew else table.defined))
            table.row = None

    def _write(self, text: str) -> None:
        self._out.append(_paragraph(text))


def _paragraph(text: str) -> bytes:
    """A paragraph of its own that stands for a tag."""
    return b"\\par{\\pard\\plain " + text.encode() + b"\\par}"


def _set_spans(rows: list[tuple[list[_Cell], list[_Defined]]]) -> None:
    """Give a table's cells the columns and rows that they span."""
    borders = _distinct(cell.border for cells, defined in rows if _is_sound(cells, defined) for cell in defined)
    above: dict[int, _Cell] = {}  # column -> the cell that begins there and reaches down to this row
    for cells, defined in rows:
        here: dict[int, _Cell] = {}
        before: _Cell | None = None
        start = 0
        for cell, (border, joins_left, joins_above) in zip(
            cells, defined if _is_sound(cells, defined) else (), strict=False
        ):
            end = bisect_left(borders, border - _NEAR) + 1
            cell.columns = end - start
            if joins_left and before is not None and cell.is_empty:
                before.columns += cell.columns
                cell.columns = 0
            elif joins_above and start in above and above[start].columns == cell.columns and cell.is_empty:
                here[start] = above[start]
                above[start].rows += 1
                cell.columns = 0
                before = None
            else:
                here[start] = before = cell
            start = end
        above = here


def _is_sound(cells: list[_Cell], defined: list[_Defined]) -> bool:
    """Whether a row's cells are those that are defined, each to the right of the one before."""
    borders = [cell.border for cell in defined]
    return len(cells) == len(defined) and all(one + _NEAR < next for one, next in pairwise(borders))


def _distinct(borders: Iterable[int]) -> list[int]:
    found: list[int] = []
    for border in sorted(borders):
        if not found or border > found[-1] + _NEAR:
            found.append(border)
    return found


__all__ = ["RtfTables"]
