# SPDX-License-Identifier: Apache-2.0
"""Records of a source as a table on disk, read once, so that each can be looked up by number; and which are held out."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .readers.registry import DataSource
from .records import ReadCount, TrainingRecord

_WAIT_SECONDS = 0.2


def record_tables(sources: Sequence[DataSource], folder: Path, reads: bool = True) -> list[tuple[Any, dict[str, Any]]]:
    """
    What [`record_table`] makes of each source. Whether there is anything to read is seen of all of them before the first
    is read, which may take hours.

    Args:
        reads: whether this process reads what is not there yet. Others wait for it however long it takes, where a barrier
            would give up after `ddp_timeout`; if it fails, whoever started them ends them.
    """
    paths = [folder / str(number) for number in range(len(sources))]
    while not reads and not all(_counts_of(path).exists() for path in paths):
        time.sleep(_WAIT_SECONDS)
    for source, path in zip(sources, paths, strict=True):
        if not _counts_of(path).exists():
            source.rows()
    return [record_table(source, path) for source, path in zip(sources, paths, strict=True)]


def record_table(source: DataSource, path: Path) -> tuple[Any, dict[str, Any]]:
    """
    The records of a source, a row each as [`TrainingRecord.as_row`] makes it, and what was counted: `source`, `records`,
    `used` rows and `unused` ones by reason.

    They are read if they are not there yet: into `path` with the ending `.arrow`, and then `.json` with the counts.
    Reading that is cut off is begun anew by the next call; several processes may call at once.

    Raises:
        ValueError: the table there is that of another source.
    """
    from datasets import Dataset

    counts, table = _counts_of(path), path.with_suffix(".arrow")
    if not counts.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _read_into(source, table, counts)
    found = json.loads(counts.read_text(encoding="utf-8"))
    if found["source"] != asdict(source):
        raise ValueError(
            f"{table} holds the records of {found['source']}, not of {asdict(source)}: name another output_dir"
        )
    return Dataset.from_file(str(table)), found


def _counts_of(path: Path) -> Path:
    return path.with_suffix(".json")


def _read_into(source: DataSource, table: Path, counts: Path) -> None:
    from datasets.arrow_writer import ArrowWriter

    count, number = ReadCount(), 0
    unfinished = table.with_name(f"{table.name}.{os.getpid()}.unfinished")
    try:
        with ArrowWriter(path=str(unfinished), features=_features(), writer_batch_size=100) as writer:
            for record in source.records(count):
                writer.write(record.as_row())
                number += 1
            writer.finalize()
        unfinished.replace(table)
        unfinished.write_text(
            json.dumps({"source": asdict(source), "records": number, "used": count.used, "unused": count.unused})
        )
        unfinished.replace(counts)  # comes last: without it the table is read anew
    finally:
        unfinished.unlink(missing_ok=True)


def _features() -> Any:
    from datasets import Features, List, Value

    # Given, for what is empty in the first rows has no type otherwise.
    text = Value("large_string")
    turn = {"question": text, "answer": text, "evidence": List(List(Value("int64")))}
    return Features({"context": text, "turns": List(turn), "system": text, "source": text, "document": text})


def split_by_document(tables: Sequence[Any], held_out: float) -> list[tuple[Any, Any]]:
    """
    (for training, held out) of each table: the last documents of each, and whatever else is about these very documents.

    Args:
        held_out: part of each table's documents; where that is above 0, at least one of two or more.
    """
    documents = [[TrainingRecord.of_row(row).named for row in table] for table in tables]
    held: set[str] = set()
    for names in documents:
        distinct = list(dict.fromkeys(names))
        number = max(round(len(distinct) * held_out), int(held_out > 0 and len(distinct) > 1))
        held.update(distinct[len(distinct) - number :])
    parts = []
    for table, names in zip(tables, documents, strict=True):
        sides: tuple[list[int], list[int]] = ([], [])
        for number, name in enumerate(names):
            sides[name in held].append(number)
        parts.append((table.select(sides[False]), table.select(sides[True])))
    return parts


__all__ = ["record_table", "record_tables", "split_by_document"]
