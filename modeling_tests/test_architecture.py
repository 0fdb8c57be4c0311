# SPDX-License-Identifier: Apache-2.0
"""The README's table of modules: all are in it, and a row imports only from rows below it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import transformers_hybridctx

PACKAGE = Path(transformers_hybridctx.__file__).parent
README = Path(__file__).parents[1] / "README.md"


def rows() -> dict[str, int]:
    """Row of each module and sub-package in the README's table."""
    table = README.read_text(encoding="utf-8").split("| part of `src/transformers_hybridctx/` | owns |\n")[1]
    lines = [line.split("|")[1] for line in table.split("\n\n")[0].splitlines()[1:]]
    return {name: row for row, line in enumerate(lines) for name in re.findall(r"`(\w+)(?:\.py|/)`", line)}


def imports(file: Path) -> set[str]:
    """Modules and sub-packages of this package that a file names in an import, at any place in it."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    up = len(file.relative_to(PACKAGE).parts)  # dots that lead to the package's own folder
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == up]
    return {(node.module or alias.name).split(".")[0] for node in found for alias in node.names}


def test_every_module_has_its_row() -> None:
    found = {path.stem for path in PACKAGE.glob("*.py")} | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert found - {"__init__"} == rows().keys()


def test_a_row_imports_only_from_rows_below_it() -> None:
    row = rows()
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if name != "__init__":
            above = sorted(other for other in imports(file) & row.keys() if row[other] < row[name])
            assert not above, f"{file.name} imports {above}, which the README's table has above it"
