# SPDX-License-Identifier: Apache-2.0
"""Tables of HTML as rows of columns: every cell stands under its heading."""

from __future__ import annotations

# Cells that span others are repeated up to this many times the cells that a table has, and not beyond.
_MOST_REPEATED = 20


class TableRows:
    """Gathers the cells of a table, with what they span (the HTML standard's table model).

    Attributes:
        inner: tables that stand in its cells, as texts of their own.
    """

    def __init__(self) -> None:
        self.inner: list[str] = []
        self._rows: list[list[tuple[str, int, int]]] = []
        self._has_header = False

    def start_row(self) -> None:
        self._rows.append([])

    def add_cell(self, text: str, columns: int, rows: int, is_header: bool) -> None:
        """A cell that spans `columns` and `rows`; 0 rows are all that follow."""
        if not self._rows:
            self.start_row()
        content = " ".join(text.split("\n")) if "\n" in text else text
        self._rows[-1].append((" ".join(content.split()).replace("|", "\\|"), max(columns, 1), rows))
        self._has_header = self._has_header or (is_header and len(self._rows) == 1)

    @property
    def says_something(self) -> bool:
        return any(text for row in self._rows for text, *_ in row)

    def text(self) -> str:
        """The table as Markdown, its first row a heading where it is marked as one; a single column as plain lines."""
        grid = self._grid()
        width = max(map(len, grid), default=0)
        if width <= 1:
            return "\n".join(row[0] for row in grid if row and row[0])
        # Rows that are far shorter than the longest end where they end: filling all would make tables of their square.
        filled = width if width * len(grid) <= _MOST_REPEATED * sum(map(len, grid)) else 0
        lines = ["| " + " | ".join(row + [""] * (filled - len(row))) + " |" for row in grid]
        if self._has_header:
            lines.insert(1, "|" + " --- |" * max(filled, len(grid[0])))
        return "\n".join(lines)

    def _grid(self) -> list[list[str]]:
        left = _MOST_REPEATED * sum(map(len, self._rows))
        most_cells = max(map(len, self._rows), default=0)
        grid: list[list[str]] = []
        columns = 0  # those in which a cell begins; what spans more than all of these spans no more
        above: dict[int, tuple[str, int]] = {}
        for number, row in enumerate(self._rows):
            line = _Line(above)
            for text, across, down in row:
                line.fill_from_above()
                columns = max(columns, len(line.texts) + 1)
                remaining = len(self._rows) - number
                across, down = min(across, most_cells), min(down or remaining, remaining)
                if left < across * down:
                    across = down = 1
                left -= across * down - 1
                line.add(text, across, down)
            line.fill_from_above()
            grid.append(line.texts)
            above = line.below
        return [texts[:columns] for texts in grid if texts]


class _Line:
    """One row; `above` and `below` are cells that reach over rows: column -> (text, rows still to cover)."""

    def __init__(self, above: dict[int, tuple[str, int]]) -> None:
        self.texts: list[str] = []
        self.below: dict[int, tuple[str, int]] = {}
        self._above = above

    def add(self, text: str, across: int, down: int) -> None:
        for _ in range(across):
            if down > 1:
                self.below[len(self.texts)] = (text, down - 1)
            self.texts.append(text)

    def fill_from_above(self) -> None:
        while len(self.texts) in self._above:
            text, down = self._above[len(self.texts)]
            self.add(text, 1, down)
