# SPDX-License-Identifier: Apache-2.0
"""The table of docs/architecture.md: all modules are in it, imports run one way, and no file or class is long."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import transformers_hybridctx

PACKAGE = Path(transformers_hybridctx.__file__).parent
ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "architecture.md"


def rows() -> dict[str, int]:
    """Row of each module and sub-package in the table."""
    table = TABLE.read_text(encoding="utf-8").split("| part of `src/transformers_hybridctx/` | owns |\n")[1]
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
            assert not above, f"{file.name} imports {above}, which the table has above it"


def imported_files(file: Path) -> set[Path]:
    """Files of this package that a file imports, at any place in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = file.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            found |= {base / f"{alias.name}.py" for alias in node.names} | {base.with_suffix(".py")}
    return {path for path in found if path.is_file()}


def test_no_two_files_import_each_other() -> None:
    """Not even by a detour: what is first in an order of imports can be read without what comes later."""
    left = {file: imported_files(file) for file in PACKAGE.rglob("*.py")}
    while ready := [file for file, needed in left.items() if not needed & left.keys()]:
        for file in ready:
            del left[file]
    assert not left, f"these files import one another: {sorted(str(file.relative_to(PACKAGE)) for file in left)}"


def test_no_file_and_no_class_is_long() -> None:
    for file in sorted(
        [*PACKAGE.rglob("*.py"), *(ROOT / "recipes").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    ):
        source = file.read_text(encoding="utf-8")
        length = len(source.splitlines())
        assert length <= 500, f"{file.name} has {length} lines: split it by its nouns"
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                assert length <= 300, f"{node.name} has {length} lines: which nouns are in it?"


TESTS = Path(__file__).parent


def test_no_test_imports_from_another_test() -> None:
    """What tests share stands in `support/`: a test that is moved or split then breaks no other."""
    tests = {path.stem for path in TESTS.rglob("test_*.py")} | {"conftest"}
    for file in sorted(TESTS.rglob("*.py")):
        nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        named = {node.module.split(".")[-1] for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
        named |= {alias.name.split(".")[-1] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        assert not named & tests, f"{file.name} imports {sorted(named & tests)}: move what they share to support/"


def test_names_of_test_files_are_unique_and_no_file_is_long() -> None:
    files = sorted(TESTS.rglob("*.py"))
    names = [path.name for path in files if path.name != "conftest.py"]
    assert len(names) == len(set(names))  # pytest knows test modules by their names alone
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    long = {name for name, length in lengths.items() if length > 500}
    assert not long, f"{sorted(long)} have more than 500 lines: split them by subject"
