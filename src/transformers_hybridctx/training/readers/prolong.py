# SPDX-License-Identifier: Apache-2.0
"""ProLong (https://huggingface.co/datasets/princeton-nlp/prolong-data-64K): long texts of books, code and the web.

Rows hold Llama-3 tokens: a page shows words, so they are turned back into text by a tokenizer that the user names. A
packed row's documents are told apart by `indices`. NExtLong's shards for training are of this form, too: its own code
reads them so (https://github.com/caskcsg/longcontext, `NExtLong/training/dataset.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..records import TrainingRecord, UnusableRow

COLUMNS = ("input_ids", "indices", "domain")
_LEAST_TOKENS = 64


def documents_of(row: dict[str, Any], tokenizer: Any) -> Iterator[str]:
    """
    The texts of a row, packed (`{"input_ids", "indices": [(start, end), ...], "domain", "length"}`) or raw
    (`{"input_ids", "domain", "length"}`).
    """
    ids = [int(token) for token in row["input_ids"]]
    if ids and max(ids) >= len(tokenizer):
        raise ValueError(
            f"a row of ProLong has the token {max(ids)}, and the tokenizer {tokenizer.name_or_path!r} knows "
            f"{len(tokenizer)}: name the one that the data were made with, Llama-3's"
        )
    borders = row.get("indices")
    for start, end in [(0, len(ids))] if borders is None else borders:
        yield tokenizer.decode(ids[start:end], skip_special_tokens=True, clean_up_tokenization_spaces=False)


def rows_of_documents(rows: Iterator[dict[str, Any]], tokenizer: Any) -> Iterator[dict[str, str]]:
    """A row for each text."""
    for row in rows:
        for text in documents_of(row, tokenizer):
            yield {"text": text, "domain": row.get("domain", "")}


def record_of(row: dict[str, str]) -> TrainingRecord:
    """Row: `{"text", "domain"}`."""
    if len(row["text"]) < 4 * _LEAST_TOKENS:
        raise UnusableRow("a text of a few words")
    return TrainingRecord(row["text"], (), None, row["domain"])
