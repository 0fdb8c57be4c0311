# SPDX-License-Identifier: Apache-2.0
"""Fox (`ucaslcl/Fox_benchmark_data`, CC BY-NC 4.0: fetched when it is run): a page is said again, word for word."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

from ..metrics.fox import reconstruction
from ..records import Record
from ..samples import Sample
from ..token_counts import TokenCounter
from .base import Suite
from .sources import Row, check_columns, read_rows

_ARCHIVE = "focus_benchmark_test.zip"
_FILES = {"en": "en_page_ocr", "cn": "cn_page_ocr"}
_BINS = tuple(range(600, 1300, 100))
_COLUMNS = ("image", "conversations")
_MAX_NEW_TOKENS = 4096


@dataclass(frozen=True)
class Fox(Suite):
    """
    Reconstruction of Fox's pages from their texts, drawn here as the checkpoint draws pages.

    English pages are in bins of 100 tokens from 600 to 1,300 by the model's own tokenizer (DeepSeek-OCR and C3 count
    Qwen's), "other" beyond these; Chinese ones in "cn". The score is the precision of words; recall, which Fox's script
    prints as precision, F1, edit distance and exact matches stand beside it.

    Attributes:
        data: a folder with `en_page_ocr.json` and `cn_page_ocr.json`, or a Hub id.
        revision: the Hub's.
    """

    name: ClassVar[str] = "fox"
    metric: ClassVar[str] = "word precision"
    task_names: ClassVar[tuple[str, ...]] = (*(f"{low}-{low + 100}" for low in _BINS), "other", "cn")

    data: str = "ucaslcl/Fox_benchmark_data"
    revision: str | None = None

    def samples(self, tokenizer: Any) -> list[Sample]:
        count = TokenCounter(tokenizer)
        found = []
        for language, rows in self._rows().items():
            for row in rows:
                label = next(turn["value"] for turn in row["conversations"] if turn["from"] == "gpt")
                task = "cn" if language == "cn" else _bin_of(count(label))
                found.append(Sample(label, "Repeat the text: ", "", (label,), task, _MAX_NEW_TOKENS))
        return self._first(found)

    def _rows(self) -> dict[str, Sequence[Row]]:
        folder = Path(self.data)
        if folder.exists():
            there = {language: name for language, name in _FILES.items() if any(folder.rglob(f"{name}.json"))}
            if not there:
                raise ValueError(f"{folder} has none of {', '.join(f'{name}.json' for name in _FILES.values())}")
            return {language: read_rows(self.data, name, None, _COLUMNS) for language, name in there.items()}
        from huggingface_hub import hf_hub_download

        archive = hf_hub_download(self.data, _ARCHIVE, repo_type="dataset", revision=self.revision)
        rows: dict[str, Sequence[Row]] = {}
        with zipfile.ZipFile(archive) as opened:
            for language, name in _FILES.items():
                (member,) = [
                    one for one in opened.namelist() if one.endswith(f"/{name}.json") or one == f"{name}.json"
                ]
                rows[language] = check_columns(json.loads(opened.read(member)), f"{self.data}/{name}", _COLUMNS)
        return rows

    def score(self, sample: Sample, answer: str) -> float:
        return reconstruction(answer, sample.answer[0])["precision"]

    def details(self, sample: Sample, answer: str) -> dict[str, Any]:
        return dict(reconstruction(answer, sample.answer[0]))

    def figures(self, records: Sequence[Record]) -> dict[str, float]:
        names = {"recall (Fox's script: precision)": "recall", "F1": "f1"}
        names |= {name: name for name in ("edit distance", "exact")}
        return {shown: fmean(record.details[name] for record in records) for shown, name in names.items()}


def _bin_of(tokens: int) -> str:
    low = tokens // 100 * 100
    return f"{low}-{low + 100}" if low in _BINS else "other"


__all__ = ["Fox"]
