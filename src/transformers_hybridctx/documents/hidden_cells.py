# SPDX-License-Identifier: Apache-2.0
"""Rows and columns that spreadsheets hide, by themselves, in closed groups or by filters; calamine does not say which."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass, field
from io import BytesIO
from xml.parsers import expat

from .archives import DAMAGE, main_part, parsed_part, related_parts

_CONTENT = "content.xml"
_PIECE = 2**20
_ON = ("1", "true")
_HIDING = ("collapse", "filter")
_NUMBER = re.compile(r"\d{1,9}", re.ASCII)

Range = tuple[int, int]


@dataclass
class HiddenCells:
    """The rows and columns of a sheet that it hides, as (first, last), counted from 0."""

    rows: list[Range] = field(default_factory=list)
    columns: list[Range] = field(default_factory=list)


def hidden_cells(data: bytes) -> dict[str, HiddenCells]:
    """Name of a sheet -> what it hides, of `.xlsx`, `.xlsm` and `.ods`; of other files nothing is known."""
    found: dict[str, HiddenCells] = {}
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            if _CONTENT in archive.namelist():
                return _OpenSheets(archive, _CONTENT).found if _holds(archive, _CONTENT, b":visibility=") else found
            for name, part in sheet_parts(archive):
                if _holds(archive, part, b"hidden="):
                    found[name] = _OfficeSheet(archive, part).found
    except (*DAMAGE, expat.ExpatError, KeyError):
        pass  # damaged, or of another kind: its reader says so
    return found


def sheet_parts(archive: zipfile.ZipFile) -> list[tuple[str, str]]:
    """(name, part) of each sheet of cells of an Office file; raises as `archives.parsed_part`, or a KeyError."""
    workbook = main_part(archive)
    parts = related_parts(archive, workbook, "worksheet")
    found = []
    for element in parsed_part(archive, workbook).iter():
        if element.tag.endswith("}sheet"):
            relation = next((value for key, value in element.items() if key.endswith("}id")), "")
            if relation in parts:
                found.append((element.get("name") or "", parts[relation]))
    return found


def _holds(archive: zipfile.ZipFile, part: str, word: bytes) -> bool:
    end = b""
    with archive.open(part) as opened:
        while piece := opened.read(_PIECE):
            if word in end + piece:
                return True
            end = piece[-len(word) :]
    return False


class _Elements:
    """Reads a part of XML piece by piece, as parts may be larger than memory."""

    def __init__(self, archive: zipfile.ZipFile, part: str) -> None:
        parser = expat.ParserCreate()
        parser.StartElementHandler = lambda name, attributes: self.start(name.rpartition(":")[2], attributes)
        parser.EndElementHandler = lambda name: self.end(name.rpartition(":")[2])
        with archive.open(part) as opened:
            parser.ParseFile(opened)

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        raise NotImplementedError

    def end(self, tag: str) -> None:
        """Nothing, unless it matters."""


class _OfficeSheet(_Elements):
    """A sheet of Office since 2007."""

    def __init__(self, archive: zipfile.ZipFile, part: str) -> None:
        self.found = HiddenCells()
        self._row = 0
        super().__init__(archive, part)

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        is_hidden = attributes.get("hidden") in _ON
        if tag == "row":
            self._row = _number(attributes.get("r"), self._row + 1)
            if is_hidden:
                self.found.rows.append((self._row - 1, self._row - 1))
        elif tag == "col" and is_hidden:
            first = _number(attributes.get("min"), 1)
            self.found.columns.append((first - 1, _number(attributes.get("max"), first) - 1))


class _OpenSheets(_Elements):
    """All sheets of an OpenDocument file."""

    def __init__(self, archive: zipfile.ZipFile, part: str) -> None:
        self.found: dict[str, HiddenCells] = {}
        self._depth = 0  # of tables in tables
        self._sheet = HiddenCells()
        self._row = self._column = 0
        super().__init__(archive, part)

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        said = {name.rpartition(":")[2]: value for name, value in attributes.items()}
        if tag == "table":
            self._depth += 1
            if self._depth == 1:
                self._sheet = self.found.setdefault(said.get("name", ""), HiddenCells())
                self._row = self._column = 0
        elif self._depth == 1 and tag == "table-row":
            self._row = _noted(self._sheet.rows, self._row, said, "number-rows-repeated")
        elif self._depth == 1 and tag == "table-column":
            self._column = _noted(self._sheet.columns, self._column, said, "number-columns-repeated")

    def end(self, tag: str) -> None:
        self._depth -= tag == "table"


def _noted(hidden: list[Range], first: int, said: dict[str, str], repeated: str) -> int:
    """Where the next row or column stands; this one is added to the hidden ones if it is one."""
    after = first + _number(said.get(repeated), 1)
    if said.get("visibility") in _HIDING:
        hidden.append((first, after - 1))
    return after


def _number(text: str | None, otherwise: int) -> int:
    return int(text) if text and _NUMBER.fullmatch(text) else otherwise


__all__ = ["HiddenCells", "hidden_cells", "sheet_parts"]
