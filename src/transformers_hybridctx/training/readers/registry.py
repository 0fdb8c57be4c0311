# SPDX-License-Identifier: Apache-2.0
"""Readers by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from ...documents.emptiness import EmptyFileError
from ..fields import check_fields
from ..records import ReadCount, TrainingRecord, UnusableRow, joined, usable
from . import extractive_qa, json_lines, longalign, papers, prolong, rel_cot, ultrachat
from .lengthening import Lengthening
from .mds import mds_folders, mds_rows
from .sources import located, rows_of


def _text_record(file: Path) -> TrainingRecord:
    from ...documents.files import read_document_file
    from ...documents.joined_document import DocumentParts

    try:
        content = read_document_file(file)
    except EmptyFileError as error:
        raise UnusableRow("a file without text") from error
    except (ValueError, OSError) as error:
        warnings.warn(f"{error}: left out", stacklevel=2)
        raise UnusableRow("a file that cannot be read") from error
    text = content.text if isinstance(content, DocumentParts) else content
    if not isinstance(text, str) or not text.strip():
        raise UnusableRow("pictures of pages, whose text is not known")
    return TrainingRecord(str(text), source=str(file))


READERS: dict[str, Callable[[Any], TrainingRecord]] = {
    "json_lines": json_lines.record_of,
    "longalign": longalign.record_of,
    "ultrachat": ultrachat.record_of,
    "squad": extractive_qa.squad_record_of,
    "hotpotqa": extractive_qa.hotpotqa_record_of,
    "qasper": papers.record_of,
    "rel_cot": rel_cot.record_of,
    "prolong": prolong.record_of,
    "texts": _text_record,
}
_ON_THIS_MACHINE = ("texts", "rel_cot")


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

    def located(self) -> Path | None:
        """
        The file or folder; None: a data set on the Hub, which is not asked for.

        Raises:
            FileNotFoundError: a path to nowhere.
            ValueError: fields of a data set on the Hub, of a file or folder.
        """
        if self.reader in _ON_THIS_MACHINE and not Path(self.path).expanduser().exists():
            raise FileNotFoundError(f"data: there is no file or folder {self.path}")
        local = located(self.path)
        for name in ("split", "revision", "config"):
            if local is not None and getattr(self, name) is not None:
                raise ValueError(
                    f"data: {name}={getattr(self, name)} is of data sets on the Hub, and {self.path} is here: "
                    "leave it out"
                )
        return local

    def records(self, count: ReadCount) -> Iterator[TrainingRecord]:
        """The records, counted."""
        found = joined(usable(self.rows(), READERS[self.reader], self.path, count))
        if self.lengthen is not None:
            found = Lengthening(**self.lengthen).apply(list(islice(found, self.limit)), count)
        for number, record in enumerate(islice(found, self.limit)):
            named = f" ({record.source})" if record.source else ""
            yield replace(record, source=f"{self.path}, record {number + 1}{named}")

    def rows(self) -> Iterator[Any]:
        """
        The rows of the data set, as its reader takes them. They are read as they are asked for.

        Raises:
            FileNotFoundError, ValueError, OSError: nothing that can be read is there; told by the call.
        """
        local = self.located()
        if local is not None and self.reader == "texts":
            return _texts_in(local)
        if local is not None and self.reader == "rel_cot":
            return rel_cot.rows_of_folder(local)
        if self.reader != "prolong":
            return rows_of(self.path, self.split, self.revision, self.config)
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.tokenizer)
        if local is not None and (folders := mds_folders(local)):
            shards = (mds_rows(folder, prolong.COLUMNS) for folder in folders)
            return prolong.rows_of_documents(chain.from_iterable(shards), tokenizer)
        rows = rows_of(self.path, self.split, self.revision, self.config)
        return prolong.rows_of_documents(rows, tokenizer)


def _texts_in(folder: Path) -> Iterator[Path]:
    files = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise FileNotFoundError(f"data: there are no files in {folder}")
    return iter(files)


__all__ = ["READERS", "DataSource"]
