# SPDX-License-Identifier: Apache-2.0
"""Readers by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from ..fields import check_fields
from ..records import ReadCount, TrainingRecord, joined, usable
from . import extractive_qa, json_lines, longalign, papers, prolong, rel_cot, ultrachat
from .lengthening import Lengthening
from .sources import rows_of

READERS: dict[str, Callable[[Any], TrainingRecord]] = {
    "json_lines": json_lines.record_of,
    "longalign": longalign.record_of,
    "ultrachat": ultrachat.record_of,
    "squad": extractive_qa.squad_record_of,
    "hotpotqa": extractive_qa.hotpotqa_record_of,
    "qasper": papers.record_of,
    "rel_cot": rel_cot.record_of,
    "prolong": prolong.record_of,
    "texts": json_lines.record_of,
}


@dataclass(frozen=True)
class DataSource:
    """
    One entry of a config's `data`.

    Attributes:
        reader: which schema: a name of `READERS`. "texts": a folder of documents of any kind that is read, a record each.
        path: a file, a folder, or the id of a data set on the Hub.
        split, revision, config: of a data set on the Hub.
        limit: how many records at most; None: all.
        weight: how many times an epoch each record is drawn, on average.
        lengthen: fields of a [`Lengthening`]: records are made longer with others of this source. None: as they are.
        tokenizer: of `prolong`, what its tokens are turned back into text with.
    """

    reader: str
    path: str
    split: str | None = None
    revision: str | None = None
    config: str | None = None
    limit: int | None = None
    weight: float = 1.0
    lengthen: Mapping[str, Any] | None = None
    tokenizer: str | None = None

    def __post_init__(self) -> None:
        if self.reader not in READERS:
            raise ValueError(f"data: there is no reader {self.reader!r}; the readers are {', '.join(sorted(READERS))}")
        if not self.weight > 0:
            raise ValueError(f"data: weight={self.weight!r} of {self.path} must be above 0; leave the source out")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"data: limit={self.limit} of {self.path} must be 1 or more; leave it out for all")
        if self.lengthen is not None:
            check_fields("data: lengthen", self.lengthen, Lengthening)
            Lengthening(**self.lengthen)
        if (self.reader == "prolong") != (self.tokenizer is not None):
            raise ValueError("data: tokenizer= is for the reader prolong, which needs it: name Llama-3's")

    def records(self, count: ReadCount) -> Iterator[TrainingRecord]:
        """The records, counted."""
        found = joined(usable(self._rows(), READERS[self.reader], self.path, count))
        if self.lengthen is not None:
            found = Lengthening(**self.lengthen).apply(list(islice(found, self.limit)), count)
        for number, record in enumerate(found):
            if number == self.limit:
                return
            yield record if record.source else replace(record, source=f"{self.path}, record {number + 1}")

    def _rows(self) -> Iterator[Any]:
        if self.reader == "texts":
            return _texts_in(Path(self.path).expanduser())
        if self.reader == "rel_cot":
            return rel_cot.rows_of_folder(self.path)
        if self.reader == "prolong":
            from transformers import AutoTokenizer

            is_local = Path(self.path).exists()
            is_mds = is_local and any(Path(self.path).rglob("index.json"))
            rows = (
                prolong.mds_rows(self.path) if is_mds else rows_of(self.path, self.split, self.revision, self.config)
            )
            return prolong.rows_of_documents(rows, AutoTokenizer.from_pretrained(self.tokenizer))
        return rows_of(self.path, self.split, self.revision, self.config)


def _texts_in(folder: Path) -> Iterator[dict[str, str]]:
    from ...documents.files import read_document_file

    files = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise FileNotFoundError(f"data: there are no files in {folder}")
    for path in files:
        content = read_document_file(path)
        if isinstance(content, str):
            yield {"text": str(content)}


__all__ = ["READERS", "DataSource"]
