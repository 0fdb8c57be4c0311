# SPDX-License-Identifier: Apache-2.0
"""MMLongBench-Doc (`yubo2333/MMLongBench-Doc`): questions about PDFs, which are shown as their own pages."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from transformers.utils import logging

from ..judging import judge_json
from ..metrics.mmlongbench import NOT_ANSWERABLE, accuracy_and_f1, mmlongbench_score
from ..records import Record
from ..samples import Sample
from .base import Suite
from .sources import Row, read_rows

logger = logging.get_logger(__name__)

_COLUMNS = ("doc_id", "question", "answer", "evidence_pages", "answer_format")
_QUESTION = (
    "{question}\n\nAnswer with a number, a word or a phrase only; with several as a list, such as ['a', 'b']; with "
    f'"{NOT_ANSWERABLE}" where the document does not say.'
)
_EXTRACTION = """Take the answer to a question out of what was said: a number, a word or a phrase, or a list of these.

Question: {question}
What was said: {answer}

If it says that the document does not answer the question, the answer is "Not answerable"; if there is no answer in it,
"Fail to answer". End with JSON such as {{"answer": "12"}} or {{"answer": ["a", "b"]}}."""
_MAX_NEW_TOKENS = 256


@dataclass(frozen=True)
class MMLongBenchDoc(Suite):
    """
    MMLongBench-Doc, its PDFs in their own pages with their text beside them (`layout="source"`).

    What was said is turned into an answer by a judge, as its authors do; without one it is scored as it is, which is
    harder, and said.

    Attributes:
        data: a folder with the rows (`samples.json`, or the Hub's parquet) and the PDFs, or a Hub id.
        revision: the Hub's.
        judge: a model at an OpenAI-compatible endpoint ([`judge_json`]).
    """

    name: ClassVar[str] = "mmlongbench-doc"
    metric: ClassVar[str] = "accuracy"
    task_names: ClassVar[tuple[str, ...]] = ("single-page", "cross-page", "unanswerable")

    data: str = "yubo2333/MMLongBench-Doc"
    revision: str | None = None
    judge: str | None = None

    def samples(self, tokenizer: Any) -> list[Sample]:
        folder = Path(self.data)
        if not folder.exists():
            from huggingface_hub import snapshot_download

            folder = Path(snapshot_download(self.data, repo_type="dataset", revision=self.revision))
        name = "samples" if any(folder.rglob("samples.json")) else ""  # the repository's file, or the Hub's parquet
        rows = read_rows(str(folder), name, None, _COLUMNS)
        files = {file.name: file for file in folder.rglob("*.pdf")}
        if missing := sorted({str(row["doc_id"]) for row in rows} - files.keys()):
            raise ValueError(
                f"{folder} lacks {missing[0]}, and {len(missing) - 1} more of the PDFs that its rows name"
            )
        if self.judge is None:
            logger.warning(
                "MMLongBench-Doc without a judge: answers are scored as they are said, which is harder than its authors' "
                "protocol; --judge MODEL has them taken out of what is said."
            )
        return self._first([_sample(row, files[row["doc_id"]]) for row in rows])

    def score(self, sample: Sample, answer: str) -> float:
        return mmlongbench_score(sample.answer[0], answer.strip(), sample.details["format"])

    def grade(self, sample: Sample, answer: str) -> tuple[float, dict[str, Any]]:
        said = answer.strip()
        if self.judge is not None:
            prompt = _EXTRACTION.format(question=sample.details["question"], answer=said)
            said = str(judge_json(self.judge, prompt, ("answer",))["answer"])
        return self.score(sample, said), {"answer": sample.answer[0], "prediction": said}

    def details(self, sample: Sample, answer: str) -> dict[str, Any]:
        return {"answer": sample.answer[0], "prediction": answer}

    def figures(self, records: Sequence[Record]) -> dict[str, float]:
        graded = [(one.score, str(one.details["answer"]), str(one.details["prediction"])) for one in records]
        return {"F1": accuracy_and_f1(graded)[1]}


def _sample(row: Row, file: Path) -> Sample:
    pages = row["evidence_pages"]
    pages = ast.literal_eval(pages) if isinstance(pages, str) else list(pages)
    answer = str(row["answer"])
    task = "unanswerable" if answer == NOT_ANSWERABLE else "single-page" if len(pages) == 1 else "cross-page"
    details = {"format": row["answer_format"], "question": row["question"]}
    asked = _QUESTION.format(question=row["question"])
    return Sample(str(file), asked, "", (answer,), task, _MAX_NEW_TOKENS, details=details, is_file=True)


__all__ = ["MMLongBenchDoc"]
