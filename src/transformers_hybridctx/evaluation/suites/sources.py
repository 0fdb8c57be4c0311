# SPDX-License-Identifier: Apache-2.0
"""Rows of a published data set: from a local folder in its schema, or from the Hub at a pinned revision."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]


def read_rows(
    source: str, name: str, revision: str | None, columns: Sequence[str], split: str = "test"
) -> list[dict[str, Any]]:
    """
    The rows of one part of a data set.

    Args:
        source: a folder, a file in it, or a Hub id.
        name: the part: a file `name.jsonl`, `.json`, `.csv` or `.parquet`, or a folder of such files, in a local
            folder; a
            configuration on the Hub. Empty: all of it.
        revision: the Hub's commit, tag or branch; None: the newest, which may change.
        columns: what each row must have.
        split: on the Hub.

    Raises:
        ValueError: nothing of that name, or a row in another schema.
        OSError: the Hub cannot be reached.
        ModuleNotFoundError: `datasets` (or, for local parquet files, `pyarrow`) is not installed.
    """
    rows = list(_local_rows(Path(source), name) if Path(source).exists() else _hub_rows(source, name, revision, split))
    return check_columns(rows, f"{source}{'/' + name if name else ''}", columns)


def check_columns(rows: list[dict[str, Any]], where: str, columns: Sequence[str]) -> list[dict[str, Any]]:
    """The rows, each of which has these columns; a `ValueError` names what is missing."""
    if not rows:
        raise ValueError(f"{where} has no rows")
    for number, row in enumerate(rows):
        if missing := [column for column in columns if column not in row]:
            raise ValueError(
                f"row {number} of {where} has no column {missing[0]!r}; its schema is {', '.join(columns)}"
            )
    return rows


def hub_commit(source: str, revision: str | None) -> str:
    """
    The commit of a data set on the Hub: what a run pins, so that it goes on with the same rows.

    Raises:
        ValueError: no Hub id.
        OSError: the Hub does not say.
    """
    _check_hub_id(source)
    if revision is not None and re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    from huggingface_hub import HfApi

    try:
        commit = HfApi().dataset_info(source, revision=revision).sha
    except Exception as error:  # of several libraries, offline mode among them
        raise OSError(
            f"the Hub does not say which commit of {source} this is ({type(error).__name__}: {error!s:.200}): give "
            "--revision COMMIT, or --data FOLDER"
        ) from error
    return str(commit)


def _check_hub_id(source: str) -> None:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source) or source.startswith("."):
        raise ValueError(f"{source} is neither a folder nor the Hub id of a data set")


def parts_of(source: str, known: Sequence[str]) -> list[str]:
    """Which of the parts a local folder has; all of them for a Hub id."""
    folder = Path(source)
    if not folder.exists():
        return list(known)
    return [name for name in known if _files_of(folder, name)]


def _files_of(folder: Path, name: str) -> list[Path]:
    suffixes = (".jsonl", ".json", ".csv", ".parquet")
    if folder.is_file():
        return [folder]
    inside = folder / name if name else folder
    if inside.is_dir():
        return sorted(file for file in inside.rglob("*") if file.suffix in suffixes)
    pattern = re.compile(re.escape(name) + r"(?:[-_.](?:test|train|validation|dev)[^/]*)?$")
    return sorted(file for file in folder.rglob("*") if file.suffix in suffixes and pattern.fullmatch(file.stem))


def _local_rows(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    files = _files_of(folder, name)
    if not files:
        raise ValueError(f"{folder} has no {name}.jsonl, .json, .csv or .parquet, and no folder {name} of such files")
    for file in files:
        try:
            yield from _rows_of_file(file)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{file} cannot be read: {error}") from error


def _rows_of_file(file: Path) -> Iterator[dict[str, Any]]:
    if file.suffix == ".parquet":
        import pyarrow.parquet

        yield from pyarrow.parquet.read_table(file).to_pylist()
    elif file.suffix == ".csv":
        csv.field_size_limit(sys.maxsize)
        with file.open(encoding="utf-8", newline="") as opened:
            yield from csv.DictReader(opened)
    elif file.suffix == ".jsonl":
        with file.open(encoding="utf-8") as opened:
            yield from (json.loads(line) for line in opened if line.strip())
    else:
        content = json.loads(file.read_text(encoding="utf-8"))
        yield from content.get("data", [content]) if isinstance(content, dict) else content


def _hub_rows(source: str, name: str, revision: str | None, split: str) -> Iterator[dict[str, Any]]:
    _check_hub_id(source)
    from datasets import load_dataset

    yield from load_dataset(source, name or None, split=split, revision=revision)


__all__ = ["Row", "check_columns", "hub_commit", "parts_of", "read_rows"]
