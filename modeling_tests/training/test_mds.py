# SPDX-License-Identifier: Apache-2.0
"""MDS shards, as ProLong and NExtLong are published."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mds_samples import SHARDS, write_index, write_shards

from transformers_hybridctx.training.readers.mds import mds_folders, mds_rows
from transformers_hybridctx.training.readers.prolong import documents_of
from transformers_hybridctx.training.readers.registry import DataSource
from transformers_hybridctx.training.records import ReadCount

COLUMNS = ("input_ids", "indices", "domain")


def plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in row.items()}


def test_rows_are_those_that_were_written(tmp_path: Path) -> None:
    for name in SHARDS:
        write_shards(tmp_path, name)
    rows = [plain(row) for folder in mds_folders(tmp_path) for row in mds_rows(folder, COLUMNS)]
    assert rows == [
        {"input_ids": [5, 6, 7], "indices": [(0, 1), (1, 3)]},
        {"domain": "book", "indices": [[0, 2], [2, 5]], "input_ids": [5, 6, 7, 8, 9]},
        {"domain": "book", "indices": [[0, 3]], "input_ids": [9, 8, 7]},
    ]


def test_folders_that_several_processes_wrote_are_read_once(tmp_path: Path) -> None:
    shards = []
    for name in ("proc0-2", "proc1-2"):
        shard = write_shards(tmp_path / "book", name)
        shard["raw_data"] |= {"basename": f"{name}/shard.00000.mds"}
        shards.append(shard)
    assert mds_folders(tmp_path) == [tmp_path / "book" / "proc0-2", tmp_path / "book" / "proc1-2"]
    write_index(tmp_path / "book", *shards)  # as datatools merges them
    assert mds_folders(tmp_path) == [tmp_path / "book"]
    assert [plain(row)["input_ids"] for row in mds_rows(tmp_path / "book", COLUMNS)] == [[5, 6, 7, 8, 9], [9, 8, 7]]


def test_a_source_of_shards_counts_its_documents(tmp_path: Path, tokenizer: Any) -> None:
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    write_shards(tmp_path / "data", "proc0-2")
    (row,) = mds_rows(tmp_path / "data" / "proc0-2", COLUMNS)
    pieces = ([5, 6], [7, 8, 9])
    assert list(documents_of(row, tokenizer)) == [tokenizer.decode(ids, skip_special_tokens=True) for ids in pieces]
    count = ReadCount()
    source = DataSource("prolong", str(tmp_path / "data"), tokenizer=str(tmp_path / "tokenizer"))
    assert list(source.records(count)) == []
    assert dict(count.unused) == {"a text of a few words": 2}


def test_shards_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    shard = write_shards(tmp_path, "proc0-2")
    folder = tmp_path / "proc0-2"
    file = folder / "shard.00000.mds"

    def says(words: str) -> None:
        with pytest.raises((ValueError, FileNotFoundError), match=words):
            list(mds_rows(folder, COLUMNS))

    whole = file.read_bytes()
    file.write_bytes(whole[:-3])
    says(r"shard.00000.mds has 337 bytes, and its index says 340: fetch it again")
    file.unlink()
    says(r"index.json lists .*shard.00000.mds, which is not there$")
    write_index(folder, shard | {"compression": "zstd", "zip_data": {"basename": "shard.00000.mds.zstd"}})
    says(r"compressed \(zstd\): decompress shard.00000.mds.zstd")
    file.write_bytes(whole)
    write_index(folder, shard | {"column_encodings": ["str", "jpeg", "ndarray:uint32", "int"]})
    says("indices of .*shard.00000.mds is stored as jpeg, which is not read")
    (folder / "index.json").write_text("[]")
    says("is no index of MDS shards")


@pytest.mark.parametrize(
    ("stored", "says"),
    [(pickle.dumps(Path), "is a pickle of pathlib.Path, which could run any code"), (b"\x80", "is no pickle")],
)
def test_a_pickle_that_names_code_is_not_run(tmp_path: Path, stored: bytes, says: str) -> None:
    row = struct.pack("<I", len(stored)) + stored
    data = struct.pack("<III", 1, 12, 12 + len(row)) + row  # one row, from byte 12 on
    (tmp_path / "shard.00000.mds").write_bytes(data)
    described = {"basename": "shard.00000.mds", "bytes": len(data)}
    columns = {"column_names": ["indices"], "column_encodings": ["pkl"], "column_sizes": [None]}
    write_index(tmp_path, {"raw_data": described, **columns})
    with pytest.raises(ValueError, match=says):
        list(mds_rows(tmp_path, COLUMNS))
