# SPDX-License-Identifier: Apache-2.0
"""Rows of a data set: of a local file or folder, or of the Hub, without reading all of it at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

_FORMATS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv", ".arrow": "arrow"}


def rows_of(
    path: str, split: str | None = None, revision: str | None = None, config: str | None = None
) -> Iterator[Any]:
    """
    The rows, in order.

    Args:
        path: a file (JSON lines, parquet, CSV, Arrow), a folder of such files, or the id of a data set on the Hub, which
            is then streamed.
        split, revision, config: of a data set on the Hub.

    Raises:
        FileNotFoundError, ValueError: nothing that is known is there.
    """
    from datasets import load_dataset

    local = Path(path).expanduser()
    if local.exists():
        files = [local] if local.is_file() else sorted(file for file in local.rglob("*") if file.suffix in _FORMATS)
        kinds = {_FORMATS.get(file.suffix) for file in files}
        if len(kinds) != 1 or None in kinds:
            raise ValueError(f"{path} holds no files of one kind among {', '.join(_FORMATS)}")
        kind = kinds.pop()
        yield from load_dataset(kind, data_files=[str(file) for file in files], split="train", streaming=True)
        return
    if path.startswith((".", "/", "~")) or path.count("/") != 1:
        raise FileNotFoundError(f"there is no file or folder {path}; a data set on the Hub is named owner/name")
    if split is None:
        raise ValueError(f"{path} is read from the Hub: say which split= of it")
    yield from load_dataset(path, config, split=split, revision=revision, streaming=True)


__all__ = ["rows_of"]
