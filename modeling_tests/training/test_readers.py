# SPDX-License-Identifier: Apache-2.0
"""Rows in the published schemas, made up, become records; what cannot be used is counted by its reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from transformers_hybridctx.training.readers.prolong import documents_of
from transformers_hybridctx.training.readers.registry import DataSource
from transformers_hybridctx.training.records import ReadCount, TrainingRecord, TrainingTurn, UnusableRow

DOCUMENT = "The code of room 7 is 42. It was the best of times.\n" * 60


def records(tmp_path: Path, reader: str, *rows: Any, **options: Any) -> tuple[list[TrainingRecord], ReadCount]:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    count = ReadCount()
    return list(DataSource(reader, str(path), **options).records(count)), count


def test_ultrachat(tmp_path: Path) -> None:
    messages = [
        {"content": "What is a page?", "role": "user"},
        {"content": "A side of a leaf.", "role": "assistant"},
        {"content": "And a leaf?", "role": "user"},
        {"content": "Two pages.", "role": "assistant"},
    ]
    good = {"prompt": "What is a page?", "prompt_id": "a1", "messages": messages}
    odd = good | {"messages": messages[1:]}
    (record,), count = records(tmp_path, "ultrachat", good, odd)
    turns = (TrainingTurn("What is a page?", "A side of a leaf."), TrainingTurn("And a leaf?", "Two pages."))
    assert record == TrainingRecord("", turns, None, "a1")
    assert (count.used, dict(count.unused)) == (1, {"messages that do not take turns": 1})


@pytest.mark.parametrize("message", [f"{DOCUMENT}\n\nWhich code?", f"Which code?\n\n{DOCUMENT}"])
def test_longalign(tmp_path: Path, message: str) -> None:
    messages = [{"role": "user", "content": message}, {"role": "assistant", "content": "42"}]
    short = [{"role": "user", "content": "Hello\nyou"}, {"role": "assistant", "content": "Hm."}]
    (record,), count = records(tmp_path, "longalign", {"messages": messages}, {"messages": short})
    assert record.context.strip() == DOCUMENT.strip()
    assert record.turns == (TrainingTurn("Which code?", "42"),)
    assert dict(count.unused) == {"no long document in the first message": 1}


def test_squad(tmp_path: Path) -> None:
    row = {"id": "q", "context": "The code is 42.", "question": "Which code?"}
    rows = [
        row | {"answers": {"text": ["42"], "answer_start": [12]}},
        row | {"answers": {"text": [], "answer_start": []}},
        row | {"answers": {"text": ["42"], "answer_start": [3]}},
    ]
    (record,), count = records(
        tmp_path, "squad", *rows, row | {"context": "Another.", "answers": rows[1]["answers"]}, limit=1
    )
    assert record.source == "q"  # of neighbours about one text
    right = TrainingTurn("Which code?", "42", ((12, 14),))
    assert record.turns == (right, TrainingTurn("Which code?", "not in the document"))
    assert dict(count.unused) == {"the answer does not stand where the row says": 1}


def test_hotpotqa(tmp_path: Path) -> None:
    row = {
        "id": "h",
        "question": "Whose code?",
        "answer": "Ann's",
        "context": {"title": ["Room", "Ann"], "sentences": [["It has a code."], ["Ann is old.", " Ann has room 7."]]},
        "supporting_facts": {"title": ["Ann"], "sent_id": [1]},
    }
    (record,), _ = records(tmp_path, "hotpotqa", row)
    ((start, end),) = record.turns[0].evidence
    assert record.context[start:end] == "Ann has room 7."
    assert record.context.startswith("Room\nIt has a code.\n\nAnn\n")


def test_own_schema(tmp_path: Path) -> None:
    rows = [
        {"context": "The code is 42.", "question": "Which?", "answer": "42", "evidence": [[12, 14]]},
        {"context": "The code is 42.", "turns": [{"question": "Which?", "answer": "42"}], "system": "Be short."},
        {"text": "Text alone."},
        {"context": "The code is 42.", "question": "Which?", "answer": "42", "evidence": [[12, 99]]},
        {"context": "The code is 42.", "question": " ", "answer": "42"},
        {"text": " "},
    ]
    found, count = records(tmp_path, "json_lines", *rows)
    assert [len(record.turns) for record in found] == [1, 1, 0]
    assert found[0].turns[0].evidence == ((12, 14),) and found[1].system == "Be short."
    assert count.used == 3 and sum(count.unused.values()) == 3
    assert len(records(tmp_path, "json_lines", *rows, limit=2)[0]) == 2
    assert [TrainingRecord.of_row(record.as_row()) for record in found] == found
    assert found[1].source.endswith("rows.jsonl, record 2")


def test_a_folder_of_documents(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One.")
    (tmp_path / "b.html").write_text("<p>Two.</p>")
    count = ReadCount()
    texts = [record.context.strip() for record in DataSource("texts", str(tmp_path)).records(count)]
    assert texts == ["One.", "Two."]


def test_prolong_rows_are_turned_back_into_their_documents(tokenizer: Any) -> None:
    texts = ["It was the best of times.", "The special magic number."]
    pieces = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    first = len(pieces[0])
    indices = [(0, first), (first, first + len(pieces[1]))]
    packed = {"input_ids": [*pieces[0], *pieces[1]], "indices": indices, "domain": "book"}
    assert list(documents_of(packed, tokenizer)) == texts
    assert list(documents_of({"input_ids": pieces[0], "domain": "book"}, tokenizer)) == texts[:1]
    with pytest.raises(ValueError, match="Llama-3"):
        list(documents_of({"input_ids": [10**6]}, tokenizer))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"reader": "magic", "path": "a"}, "magic.*longalign"),
        ({"reader": "squad", "path": "a", "weight": 0}, "weight=0"),
        ({"reader": "prolong", "path": "a"}, "tokenizer"),
    ],
)
def test_sources_that_make_no_sense(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        DataSource(**options)


def test_rows_of_another_schema_and_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"row 1 of .*KeyError.*fields are q"):
        records(tmp_path, "squad", {"q": "Which?"})
    with pytest.raises(FileNotFoundError, match="nothing"):
        list(DataSource("squad", str(tmp_path / "nothing.jsonl")).records(ReadCount()))
    (tmp_path / "a.exe").write_text("x")
    with pytest.raises(ValueError, match="no files of one kind"):
        list(DataSource("squad", str(tmp_path / "a.exe")).records(ReadCount()))
    with pytest.raises(ValueError, match="split="):
        list(DataSource("squad", "rajpurkar/squad").records(ReadCount()))


def test_reasons_have_no_particulars() -> None:
    with pytest.raises(UnusableRow, match=r"^neither a text nor a turn$"):
        TrainingRecord("")
