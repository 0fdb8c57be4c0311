# SPDX-License-Identifier: Apache-2.0
"""Spreadsheets by calamine: every sheet a table with all its columns."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings

from .html_tables import TableRows

SHEET_SUFFIXES = frozenset((".xlsx", ".xlsm", ".xlsb", ".xls", ".ods"))
SHEET_SECONDS = 120
"""Longest that a workbook may take."""
SHEET_BYTES = 2**31
"""Most memory that a workbook may take: one cell in the last row and column makes a sheet of 17 thousand million."""

# Exit codes of the process, beside that of running out of memory (by a signal).
_PROTECTED, _DAMAGED, _NO_MEMORY = 3, 4, 5

# Runs in a process of its own, which a workbook may kill. Prints as JSON the sheets, each [name, is visible, rows, merged
# ranges, place of the first cell], and the names of those that cannot be read, and of those that hold no cells.
_READ = """
import json, sys
from io import BytesIO
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
except (ImportError, ValueError, OSError):
    pass
from python_calamine import CalamineWorkbook, PasswordError, SheetTypeEnum, SheetVisibleEnum

def shown(value):
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value).upper() if isinstance(value, bool) else str(value)

try:
    workbook = CalamineWorkbook.from_filelike(BytesIO(sys.stdin.buffer.read()))
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
        rows = [[shown(value) for value in row] for row in sheet.to_python()]
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
        UserWarning: hidden sheets, sheets without cells (charts) and damaged sheets are left out.
    """
    try:
        import python_calamine  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"{name} is read by calamine, which is not installed: pip install 'transformers-hybridctx[office]'; "
            "or save it as CSV or PDF"
        ) from error
    command = [sys.executable, "-I", "-c", _READ, str(SHEET_BYTES)]
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=SHEET_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"{name} takes more than {SHEET_SECONDS} seconds to read; split it up") from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip() or f"exit code {done.returncode}"
        raise ValueError(f"{name} cannot be read as a workbook: {_reason(done.returncode)}") from RuntimeError(said)
    sheets, damaged, without_cells = json.loads(done.stdout)
    if damaged and not sheets:
        raise ValueError(f"{name} cannot be read as a workbook: {_reason(_DAMAGED)}")
    hidden = [title for title, is_visible, *_ in sheets if not is_visible]
    for what, titles in (("hidden", hidden), ("damaged", damaged), ("cell-less", without_cells)):
        if titles:
            warnings.warn(f"{name}: the {what} sheets {', '.join(titles)} are left out", stacklevel=4)
    shown = (_sheet_text(title, rows, merged, start) for title, seen, rows, merged, start in sheets if seen)
    return "\n\n".join(text for text in shown if text)


def _reason(exit_code: int) -> str:
    if exit_code == _PROTECTED:
        return "it is protected with a password; save it without"
    if exit_code < 0 or exit_code == _NO_MEMORY:
        return (
            f"it takes more than {SHEET_BYTES:,} bytes of memory, as a cell far from the others makes it; delete what "
            "stands far off, or save it as CSV"
        )
    return "it is damaged, or of another kind; save it again, or as CSV"


def _sheet_text(title: str, rows: list[list[str]], merged: list[list[tuple[int, int]]], start: tuple[int, int]) -> str:
    """A sheet under its name; what a merged cell says stands in all the cells that it covers."""
    table = TableRows()
    top, left = start
    spans: dict[tuple[int, int], tuple[int, int]] = {}
    covered: set[tuple[int, int]] = set()
    for (first_row, first_column), (last_row, last_column) in merged:
        row, column = first_row - top, first_column - left
        if 0 <= row < len(rows) and 0 <= column < len(rows[row]):
            down = min(last_row - top, len(rows) - 1) - row + 1
            across = min(last_column - left, len(rows[row]) - 1) - column + 1
            spans[row, column] = (across, down)
            inside = ((row + y, column + x) for y in range(down) for x in range(across))
            covered.update(place for place in inside if place != (row, column))
    for y, row_texts in enumerate(rows):
        table.start_row()
        for x, text in enumerate(row_texts):
            if (y, x) not in covered:
                across, down = spans.get((y, x), (1, 1))
                table.add_cell(text, across, down, is_header=False)
    text = table.text()
    return f"# {title}\n{text}" if text.strip("| \n") else ""
