# SPDX-License-Identifier: Apache-2.0
"""What became of each sample, one JSON line as it is finished: a run that was killed goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

RECORDS = "records.jsonl"
SETTINGS = "run.json"


@dataclass(frozen=True)
class Record:
    """
    One sample in one context.

    Attributes:
        sample: the sample's key.
        context: the context's label.
        task, length: of the sample; `length` is None where the suite has no nominal ones.
        prompt: a hash of what the model was shown and asked.
        plan: counts of tokens: document, visual, latent, text, question, template, prompt, new; pages, scale, compression
            ratio.
        answer, reasoning: what the model said.
        score: 0 to 1, by the suite's metric; a failure has 0, and counts.
        error: why there is no answer.
        support: how the answer stands to the document.
        evidence: the first places of it: page, characters, box.
        seconds: of each stage; `first token` from the start of the planning, or of the reading that it is the first of.
        peak_memory: bytes, of the accelerator; of the process where there is none.
        details: what a suite keeps beside the score, such as the depth of a needle.
    """

    sample: str
    context: str
    task: str
    length: int | None
    score: float
    answer: str = ""
    reasoning: str = ""
    error: str | None = None
    prompt: str = ""
    plan: Mapping[str, Any] = field(default_factory=dict)
    support: str | None = None
    evidence: list[Any] = field(default_factory=list)
    seconds: Mapping[str, float] = field(default_factory=dict)
    peak_memory: int | None = None
    budget: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def effective_ratio(self) -> float | None:
        """Tokens of the prompt as text for each token that was spent on it; None where nothing was."""
        plan = self.plan
        if not plan.get("prompt"):
            return None
        return float((plan["document"] + plan["question"] + plan["template"]) / plan["prompt"])


class RecordFile:
    """
    The records of a run in a folder, or in memory only.

    Args:
        folder: where `records.jsonl` and `run.json` stand; None: nowhere.
        settings: what the run is; a folder of another run is refused. A run with more `examples` is the same one.

    Raises:
        ValueError: the folder holds a run with other settings, or a file that is not a run's.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, Any]) -> None:
        self._file = None if folder is None else folder / RECORDS
        self._records: dict[tuple[str, str], Record] = {}
        if folder is None or self._file is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        plain = json.loads(json.dumps(settings))
        known = folder / SETTINGS
        if not known.exists():
            if self._file.exists():
                raise ValueError(f"{folder} holds {RECORDS} and no {SETTINGS}: it is no run of this command")
            known.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
        elif (there := json.loads(known.read_text(encoding="utf-8"))) != plain:
            differing = sorted(name for name in {*there, *plain} if there.get(name) != plain.get(name))
            name = differing[0]
            if differing == ["examples"] and _is_more(plain["examples"], there["examples"]):
                known.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
            else:
                raise ValueError(
                    f"{folder} holds another run: {name} is {there.get(name)!r:.100} there and {plain.get(name)!r:.100} "
                    f"here; "
                    "choose another folder"
                )
        if self._file.exists():
            _drop_torn_line(self._file)
            self._records = {(one.sample, one.context): one for one in read_records(folder)}

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records.values())

    def __contains__(self, key: tuple[str, str]) -> bool:
        """Whether (sample's key, context's label) is done."""
        return key in self._records

    def __getitem__(self, key: tuple[str, str]) -> Record:
        return self._records[key]

    def add(self, record: Record) -> None:
        """Keep it, on the disk before this returns."""
        self._records[record.sample, record.context] = record
        if self._file is not None:
            with self._file.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(json.dumps(asdict(record), ensure_ascii=False) + "\n")
                file.flush()
                os.fsync(file.fileno())


def _is_more(examples: int | None, before: int | None) -> bool:
    """Whether a run with that many samples of each task has all those of one before; None: all that there are."""
    return before is not None and (examples is None or examples > before)


def read_records(folder: Path) -> list[Record]:
    """
    The records of a run.

    Raises:
        ValueError: no run is there, or a line is none of its records.
    """
    file = folder / RECORDS
    if not file.is_file():
        raise ValueError(f"{folder} holds no {RECORDS}: give the folder of `hybridctx evaluate ... --out FOLDER`")
    records = []
    lines = file.read_text(encoding="utf-8").split("\n")  # an answer may hold what else ends a line, such as U+2028
    for number, line in enumerate(lines, start=1):
        if not line and number == len(lines):
            break
        try:
            records.append(Record(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise ValueError(f"line {number} of {file} is no record: {error}") from error
    return records


def read_settings(folder: Path) -> dict[str, Any]:
    """What a run is: its suite, model and knobs."""
    return dict(json.loads((folder / SETTINGS).read_text(encoding="utf-8")))


def _drop_torn_line(file: Path) -> None:
    """A line without an end was being written when the run was killed: its sample is done again."""
    content = file.read_bytes()
    if content and not content.endswith(b"\n"):
        with file.open("r+b") as opened:
            opened.truncate(content.rfind(b"\n") + 1)


__all__ = ["RECORDS", "SETTINGS", "Record", "RecordFile", "read_records", "read_settings"]
