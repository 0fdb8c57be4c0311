# SPDX-License-Identifier: Apache-2.0
"""Spreadsheets by calamine: every sheet a table with all its columns, then what stands beside its cells."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings

from .archives import DAMAGE, LARGEST_PART, Package, main_part, relations_of
from .hidden_cells import HiddenCells, hidden_cells
from .html_tables import TableRows
from .sheet_notes import notes_of_sheets

SHEET_SUFFIXES = frozenset((".xlsx", ".xlsm", ".xltx", ".xltm", ".xlsb", ".xls", ".ods", ".ots"))
SHEET_SECONDS = 120
"""Longest that a workbook may take."""
SHEET_BYTES = 2**31
"""Most memory that a workbook may take: one cell in the last row and column makes a sheet of 17 thousand million."""

_MACROS = re.compile(rb"http://schemas\.microsoft\.com/office/2006/relationships/xl(?:Intl)?Macrosheet")
_DIALOGS = b"http://schemas.openxmlformats.org/officeDocument/2006/relationships/dialogsheet"
_OPEN_CONTENT = "content.xml"
_BETWEEN_CELLS = re.compile(rb"(?<=>)\s+(?=</?table:|<text:p[\s/>])")
_MOST_EDITED = 4 * LARGEST_PART
# Exit codes of the process, beside that of running out of memory (by a signal).
_PROTECTED, _DAMAGED, _NO_MEMORY = 3, 4, 5

# Runs in a process of its own, which a workbook may kill. Prints as JSON the sheets, each [name, is visible, rows, merged
# ranges, place of the first cell], and the names of those that cannot be read, and of those of other things (charts).
_READ = """
import json, sys
from io import BytesIO
from tempfile import NamedTemporaryFile
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
except (ImportError, ValueError, OSError):
    pass
from python_calamine import CalamineError, CalamineWorkbook, PasswordError, SheetTypeEnum, SheetVisibleEnum

def shown(value):
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, float):  # to the digits that spreadsheets show: 0.1 + 0.2 is 0.3
        return format(value, ".15G")
    return str(value).upper() if isinstance(value, bool) else str(value)

def rows_of(sheet):  # without the blank ends of rows, as a cell far from the others makes them
    for row in sheet.to_python():
        filled = len(row)
        while filled and row[filled - 1] == "":
            filled -= 1
        yield [shown(value) for value in row[:filled]]

try:
    data = sys.stdin.buffer.read()
    try:
        workbook = CalamineWorkbook.from_filelike(BytesIO(data))
    except CalamineError:  # which of a protected file of before 2007 says more where a name says what it is
        with NamedTemporaryFile(suffix=".xls") as file:
            file.write(data)
            file.flush()
            workbook = CalamineWorkbook.from_path(file.name)
except MemoryError:
    sys.exit(5)
except PasswordError:
    sys.exit(3)
except BaseException as error:  # the library's panics are no Exception
    sys.stderr.write(str(error))
    sys.exit(4)
sheets, lost, other = [], [], []
for seen in workbook.sheets_metadata:
    if seen.typ != SheetTypeEnum.WorkSheet:
        other.append(seen.name)
        continue
    try:
        sheet = workbook.get_sheet_by_name(seen.name)
        rows = list(rows_of(sheet))
        merged = sheet.merged_cell_ranges or []
    except MemoryError:
        sys.exit(5)
    except BaseException:
        lost.append(seen.name)
        continue
    sheets.append([seen.name, seen.visible == SheetVisibleEnum.Visible, rows, merged, sheet.start or [0, 0]])
sys.stdout.buffer.write(json.dumps([sheets, lost, other]).encode("utf-8", "surrogatepass"))
"""


def workbook_text(data: bytes, name: str) -> str:
    """The sheets of a workbook as Markdown tables under their names, cells as they are stored (dates as ISO 8601 says).

    Raises:
        ValueError: calamine is not installed, or cannot read the file within `SHEET_SECONDS` and `SHEET_BYTES`.

    Warns:
        UserWarning: hidden sheets, rows and columns, sheets of charts and macros, and damaged sheets are left out.
    """
    try:
        import python_calamine  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"{name} is read by calamine, which is not installed: pip install 'transformers-hybridctx[office]'; "
            "or save it as CSV or PDF"
        ) from error
    data = _prepared(data)
    command = [sys.executable, "-I", "-c", _READ, str(SHEET_BYTES)]
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=SHEET_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"{name} takes more than {SHEET_SECONDS} seconds to read; split it up") from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip() or f"exit code {done.returncode}"
        raise ValueError(f"{name} cannot be read as a workbook: {_reason(done.returncode, name)}") from RuntimeError(
            said
        )
    sheets, damaged, other = json.loads(done.stdout)
    if damaged and not sheets:
        raise ValueError(f"{name} cannot be read as a workbook: {_reason(_DAMAGED, name)}")
    hidden = [title for title, is_visible, *_ in sheets if not is_visible]
    for what, titles in (("hidden", hidden), ("damaged", damaged), ("chart, dialog or macro", other)):
        if titles:
            warnings.warn(f"{name}: the {what} sheets {', '.join(titles)} are left out", stacklevel=4)
    hides, notes = hidden_cells(data), notes_of_sheets(data, name)
    texts = []
    for title, is_visible, rows, merged, start in sheets:
        if is_visible:
            cells, left_out = _seen_cells(rows, merged, start, hides.get(title, HiddenCells()))
            texts.append(_sheet_text(title, cells, notes.get(title, [])))
            if left_out:
                warnings.warn(
                    f"{name}: of the sheet {title}, {left_out} left out; show them in the program that made the file, "
                    "where they are meant",
                    stacklevel=4,
                )
    return "\n\n".join(filter(None, texts))


def _prepared(data: bytes) -> bytes:
    """A workbook without what calamine takes for damage: sheets of macros, which become such of dialogs, and, of
    OpenDocument, lines and blanks between rows and cells.
    """
    try:
        package = Package(data)
        relations = relations_of(main_part(package))
        for part, unknown, known in ((relations, _MACROS, _DIALOGS), (_OPEN_CONTENT, _BETWEEN_CELLS, b"")):
            if part in package.namelist() and package.getinfo(part).file_size <= _MOST_EDITED:
                content = package.read(part)
                if (plain := unknown.sub(known, content)) != content:
                    package.replace({part: plain})
        return package.packed()
    except DAMAGE:
        return data  # of before 2007, or damaged: its reader says so


def _reason(exit_code: int, name: str) -> str:
    if exit_code == _PROTECTED:
        return "it is protected with a password; save it without"
    if exit_code < 0 or exit_code == _NO_MEMORY:
        return (
            f"it takes more than {SHEET_BYTES:,} bytes of memory, as a cell far from the others makes it; delete what "
            "stands far off, or save it as CSV"
        )
    if name.lower().endswith(".xlsb"):  # calamine fails on some, which are as they should be
        return "it is damaged, of another kind, or holds what calamine does not know; save it as .xlsx, or as CSV"
    return "it is damaged, or of another kind; save it again, or as CSV"


def _seen_cells(
    rows: list[list[str]], merged: list[list[tuple[int, int]]], start: tuple[int, int], hidden: HiddenCells
) -> tuple[list[list[str]], str]:
    """
    (the cells of the rows and columns that are seen, what of others says something: "2 hidden rows").

    What a merged cell says stands in all the cells that it covers.
    """
    top, left = start
    widest = max(map(len, rows), default=0)
    for (first_row, first_column), (last_row, last_column) in merged:
        row, column = first_row - top, first_column - left
        if 0 <= row < len(rows) and 0 <= column < len(rows[row]):
            end = min(last_column - left + 1, widest)
            for covered in rows[row : last_row - top + 1]:
                covered += [""] * (end - len(covered))
                covered[column:end] = [rows[row][column]] * (end - column)
    gone_rows = _places(hidden.rows, top, len(rows))
    gone_columns = _places(hidden.columns, left, widest)
    counts = {
        "row": sum(any(rows[y]) for y in gone_rows),
        "column": sum(any(row[x] for row in rows if x < len(row)) for x in gone_columns),
    }
    seen = [
        [text for x, text in enumerate(row) if x not in gone_columns]
        for y, row in enumerate(rows)
        if y not in gone_rows
    ]
    return seen, " and ".join(f"{count:,} hidden {what}{'s' * (count > 1)}" for what, count in counts.items() if count)


def _places(ranges: list[tuple[int, int]], start: int, size: int) -> set[int]:
    """The places in [0, size) that ranges cover, counted from `start`."""
    found: set[int] = set()
    reached = 0
    for first, last in sorted(ranges):
        end = min(last - start + 1, size)
        found.update(range(max(first - start, reached), end))
        reached = max(reached, end)
    return found


def _sheet_text(title: str, rows: list[list[str]], notes: list[str]) -> str:
    """A sheet under its name, with what stands beside its cells."""
    table = TableRows()
    for row in rows:
        table.start_row()
        for text in row:
            table.add_cell(text, 1, 1, is_header=False)
    text = table.text()
    lines = [text, *notes] if text.strip("| \n") else notes
    return "\n".join((f"# {title}", *lines)) if lines else ""
