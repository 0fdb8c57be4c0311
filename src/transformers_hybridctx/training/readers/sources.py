# SPDX-License-Identifier: Apache-2.0
"""Rows of a data set: of a local file or folder, or of the Hub, without reading all of it at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

_FORMATS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv", ".arrow": "arrow"}


def located(path: str) -> Path | None:
    """
    The file or folder that a path names; None: it is the id of a data set on the Hub.

    Raises:
        FileNotFoundError: a path to nowhere.
    """
    local = Path(path).expanduser()
    if local.exists():
        return local
    parts = path.split("/")
    if len(parts) != 2 or parts[0] in ("", ".", "..", "~") or Path(parts[0]).is_dir():
        raise FileNotFoundError(f"data: there is no file or folder {path}; a data set on the Hub is named owner/name")
    return None


def rows_of(
    path: str, split: str | None = None, revision: str | None = None, config: str | None = None
) -> Iterator[Any]:
    """
    The rows, in order. That there are any to read is told by the call; they are read as they are asked for.

    Args:
        path: a file (JSON lines, parquet, CSV, Arrow), a folder of such files, or the id of a data set on the Hub, which
            is then streamed.
        split, revision, config: of a data set on the Hub.

    Raises:
        FileNotFoundError, ValueError: nothing that is known is there.
    """
    from datasets import load_dataset

    local = located(path)
    if local is not None:
        files = [local] if local.is_file() else sorted(file for file in local.rglob("*") if file.suffix in _FORMATS)
        files = [file for file in files if file.stat().st_size]
        kinds = {_FORMATS.get(file.suffix) for file in files}
        if len(kinds) != 1 or None in kinds:
            raise ValueError(f"data: {path} holds no files of one kind with rows among {', '.join(_FORMATS)}")
        kind = kinds.pop()
        names = [str(file) for file in files]
        return _told(path, iter(load_dataset(kind, data_files=names, split="train", streaming=True)))
    if split is None:
        raise ValueError(f"data: {path} is read from the Hub: say which split= of it")
    try:
        return iter(load_dataset(path, config, split=split, revision=revision, streaming=True))
    except RuntimeError as error:
        raise ValueError(
            f"data: {path} cannot be read from the Hub: {error}. Of what is published as a script there is a copy "
            "that can be read: revision: refs/convert/parquet"
        ) from error


def _told(path: str, rows: Iterator[Any]) -> Iterator[Any]:
    read = 0
    try:
        for row in rows:
            yield row
            read += 1
    except ValueError as error:  # of the files, not of whoever takes the rows
        raise ValueError(f"data: {path} cannot be read to its end, after {read:,} rows: {error}") from error


__all__ = ["located", "rows_of"]
