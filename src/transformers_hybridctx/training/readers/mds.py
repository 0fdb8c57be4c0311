# SPDX-License-Identifier: Apache-2.0
"""
Rows of MDS shards, the format of mosaicml-streaming, of which ProLong and NExtLong publish data sets.

The library itself asks for transformers below 5, so it cannot be installed beside this package. A shard is, in
little-endian: how many rows it has, uint32; where each begins and the last ends, as many and one more; a description, as
`index.json` has it; the rows. A row is the lengths of its columns that have no fixed one, uint32, then their values.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

_INDEX = "index.json"
_SIZE = np.dtype("<u4")
_DTYPES = {
    8: "uint8", 9: "int8", 16: "uint16", 17: "int16", 18: "float16", 32: "uint32", 33: "int32", 34: "float32",
    64: "uint64", 65: "int64", 66: "float64",
}  # fmt: skip


def mds_folders(folder: Path) -> list[Path]:
    """
    The folders beneath one, itself included, whose `index.json` lists shards; not those within one of them, for what
    several processes wrote has an index for each of them and one for all.
    """
    if (folder / _INDEX).is_file():
        return [folder]
    inner = sorted(one for one in folder.iterdir() if one.is_dir()) if folder.is_dir() else []
    return [found for one in inner for found in mds_folders(one)]


def mds_rows(folder: Path, columns: Collection[str]) -> Iterator[dict[str, Any]]:
    """
    The rows of a folder of shards, in order.

    Args:
        columns: that are read, where a row has them.

    Raises:
        ValueError, FileNotFoundError: shards that are missing, damaged, compressed, or of values that are not read.
    """
    index = folder / _INDEX
    try:
        shards = json.loads(index.read_text(encoding="utf-8"))["shards"]
        described = [(folder / shard["raw_data"]["basename"], shard) for shard in shards]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{index} is no index of MDS shards ({type(error).__name__}: {error})") from error
    for file, shard in described:
        if not file.is_file():
            packed = (shard.get("zip_data") or {}).get("basename")
            raise FileNotFoundError(
                f"{index} lists {file}, which is not there"
                + (f"; it is compressed ({shard['compression']}): decompress {packed} to it" if packed else "")
            )
        yield from _shard_rows(file, shard, columns)


def _shard_rows(file: Path, shard: dict[str, Any], columns: Collection[str]) -> Iterator[dict[str, Any]]:
    data = file.read_bytes()
    if len(data) != shard["raw_data"]["bytes"]:
        raise ValueError(
            f"{file} has {len(data):,} bytes, and its index says {shard['raw_data']['bytes']:,}: fetch it again"
        )
    count = int(np.frombuffer(data, _SIZE, 1)[0])
    borders = np.frombuffer(data, _SIZE, count + 1, _SIZE.itemsize).tolist()
    fields = list(zip(shard["column_names"], shard["column_encodings"], shard["column_sizes"], strict=True))
    for begin in borders[:-1]:
        varying = sum(not size for _, _, size in fields)
        lengths = iter(np.frombuffer(data, _SIZE, varying, begin).tolist())
        place, row = begin + varying * _SIZE.itemsize, {}
        for name, encoding, size in fields:
            length = size or next(lengths)
            if name in columns:
                row[name] = _value(data[place : place + length], encoding, f"{name} of {file}")
            place += length
        yield row


def _value(data: bytes, encoding: str, what: str) -> Any:
    kind, _, form = encoding.partition(":")
    match kind:
        case "str":
            return data.decode("utf-8")
        case "ndarray":
            return _array(data, *form.split(":")) if form else _array(data)
        case "json":
            return json.loads(data)
        case "pkl":
            try:
                return _Plain(io.BytesIO(data), what).load()
            except (pickle.UnpicklingError, EOFError, IndexError, KeyError) as error:
                raise ValueError(f"{what} is no pickle ({error}): fetch its file again") from error
    raise ValueError(f"{what} is stored as {encoding}, which is not read: str, ndarray, json and pkl are")


def _array(data: bytes, dtype: str = "", shape: str = "") -> np.ndarray:
    """Values behind their type and their shape, where the encoding does not say these."""
    place = 0
    if not dtype:
        dtype, place = _DTYPES[data[0]], 1
    if shape:
        sides = [int(side) for side in shape.split(",")]
    else:
        count, width = data[place] >> 2, 1 << (data[place] & 3)
        sides = np.frombuffer(data, f"<u{width}", count, place + 1).tolist()
        place += 1 + count * width
    return np.frombuffer(data, np.dtype(dtype).newbyteorder("<"), offset=place).reshape(sides)


class _Plain(pickle.Unpickler):
    """Lists, tuples, numbers and strings of a pickle: it can name code, which is never run."""

    def __init__(self, file: io.BytesIO, what: str) -> None:
        super().__init__(file)
        self._what = what

    def find_class(self, module: str, name: str) -> Any:
        raise ValueError(f"{self._what} is a pickle of {module}.{name}, which could run any code: save it as ndarray")


__all__ = ["mds_folders", "mds_rows"]
