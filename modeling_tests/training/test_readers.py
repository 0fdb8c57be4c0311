# SPDX-License-Identifier: Apache-2.0
"""Rows in the published schemas, made up, become records; what cannot be used is counted by its reason."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from transformers_hybridctx.training.readers.prolong import documents_of
from transformers_hybridctx.training.readers.registry import DataSource
from transformers_hybridctx.training.records import ReadCount, TrainingRecord, TrainingTurn, UnusableRow
from transformers_hybridctx.training.tables import record_tables

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
    assert record == TrainingRecord("", turns, None, f"{tmp_path}/rows.jsonl, record 1 (a1)")
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
    assert record.source.endswith("record 1 (q)")  # of neighbours about one text
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


PAPER = {
    "id": "1909.00001",
    "title": "Codes of rooms",
    "abstract": "We find codes.",
    "full_text": {
        "section_name": ["Introduction", "Results"],
        "paragraphs": [["Rooms have codes.", "The code is 41."], ["The code is 42.", "Nobody knows why."]],
    },
    "qas": {
        "question": ["Which code was found?", "Do rooms have codes?", "Who knows?", "How?", "Whose?"],
        "question_id": ["a", "b", "c", "d", "e"],
        "answers": [
            {
                "answer": [
                    {
                        "unanswerable": False,
                        "extractive_spans": ["The code is", "42"],
                        "yes_no": None,
                        "free_form_answer": "",
                        "evidence": ["The code is 42."],
                        "highlighted_evidence": ["The code is 42."],
                    }
                ],
                "annotation_id": ["x"],
                "worker_id": ["y"],
            },
            {
                "answer": [
                    {
                        "unanswerable": False,
                        "extractive_spans": [],
                        "yes_no": True,
                        "free_form_answer": "",
                        "evidence": ["Rooms have codes.", "FLOAT SELECTED: Table 1"],
                        "highlighted_evidence": [],
                    }
                ]
            },
            {
                "answer": [
                    {
                        "unanswerable": True,
                        "extractive_spans": [],
                        "yes_no": None,
                        "free_form_answer": "",
                        "evidence": [],
                        "highlighted_evidence": [],
                    }
                ]
            },
            {
                "answer": [
                    {
                        "unanswerable": False,
                        "extractive_spans": [],
                        "yes_no": None,
                        "free_form_answer": "By reading.",
                        "evidence": ["It is not in the paper so."],
                        "highlighted_evidence": [],
                    }
                ]
            },
            {"answer": []},
        ],
    },
    "figures_and_tables": {"caption": [], "file": []},
}


def test_qasper(tmp_path: Path) -> None:
    bare = PAPER | {"qas": {"question": ["Whose?"], "answers": [{"answer": []}]}}
    (record,), count = records(tmp_path, "qasper", PAPER, bare)
    assert record.source.endswith("record 1 (1909.00001)") and record.context.startswith(
        "Codes of rooms\n\nWe find codes.\n\nIntroduction"
    )
    said = [(turn.question, turn.answer, [record.context[a:b] for a, b in turn.evidence]) for turn in record.turns]
    assert said == [
        ("Which code was found?", "The code is, 42", ["The code is", "42"]),
        ("Do rooms have codes?", "Yes", ["Rooms have codes."]),
        ("Who knows?", "not in the document", []),
        ("How?", "By reading.", []),
    ]
    # in the paragraph that is named, and not where the same words stand before
    assert record.turns[0].evidence[0][0] == record.context.index("The code is 42.")
    assert dict(count.unused) == {"a paper without an answered question": 1}


def test_rel_cot(tmp_path: Path) -> None:
    """Paths with somebody's prefix; conversations in the row, or in a file; reasoning about pages of another layout."""
    (tmp_path / "text").mkdir()
    (tmp_path / "conversations").mkdir()
    (tmp_path / "text" / "s1.txt").write_text("The code of room 7 is 42.")
    said = [
        {"from": "human", "value": "<image><image>\nWhich code?"},
        {
            "from": "gpt",
            "value": "<think>Look at the rooms. Page 2 <|box_start|>[20, 199, 995, 245]<|box_end|> It says 42.</think>"
            "<answer>42</answer>",
        },
    ]
    (tmp_path / "conversations" / "s2.json").write_text(json.dumps(said))
    row = {"id": "s1", "image_dpi72": ["p1.png", "p2.png"], "text_path": "/home/x/REL-CoT/text/s1.txt"}
    rows = [
        row | {"conversations": said},
        row | {"id": "s2", "conversations": "/home/x/REL-CoT/conversations/s2.json"},
        row | {"conversations": [said[0], {"from": "gpt", "value": "It is 42."}]},
        row | {"conversations": said[:1]},
        row | {"text_path": "/home/x/REL-CoT/text/s9.txt", "conversations": said},
    ]
    (tmp_path / "train_72dpi.json").write_text("".join(json.dumps(one) + "\n" for one in rows))
    count = ReadCount()
    (record,) = DataSource("rel_cot", str(tmp_path)).records(count)
    turn = TrainingTurn("Which code?", "<think>Look at the rooms. It says 42.</think>42")
    assert record == TrainingRecord("The code of room 7 is 42.", (turn, turn), None, f"{tmp_path}, record 1 (s1)")
    assert dict(count.unused) == {
        "an answer without <answer>": 1,
        "conversations that do not take turns": 1,
        "a file that the row names is not there": 1,
    }
    with pytest.raises(FileNotFoundError, match="train_72dpi"):
        list(DataSource("rel_cot", str(tmp_path / "text")).records(ReadCount()))


def facts(tmp_path: Path, **lengthen: Any) -> tuple[list[TrainingRecord], ReadCount]:
    """Twelve documents of a fact each, some with a question that has no evidence."""
    rows = []
    for number in range(12):
        about = "rooms" if number % 2 else "boats"
        context = (
            f"About {about}, {number}.\n\nThe code of {about} {number} is {number * 37}. " + f"More of {about}. " * 9
        )
        code = f"{number * 37}"
        start = context.index(f"is {code}") + 3
        rows.append(
            {
                "context": context,
                "turns": [
                    {
                        "question": f"Which code has {number}?",
                        "answer": code,
                        "evidence": [[start, start + len(code)]],
                    },
                    {"question": "Who?", "answer": "not in the document"},
                ],
            }
        )
    return records(tmp_path, "json_lines", *rows, lengthen={"characters": 900, **lengthen})


@pytest.mark.parametrize("others", ["random", "similar"])
@pytest.mark.parametrize("piece_characters", [16, 60, 1000])
def test_short_documents_become_long_and_their_evidence_is_still_known(
    tmp_path: Path, others: str, piece_characters: int
) -> None:
    found, count = facts(tmp_path, others=others, piece_characters=piece_characters)
    assert len(found) == 12
    assert dict(count.unused) == {"a turn without evidence, whose answer another text may hold": 12}
    places = set()
    for number, record in enumerate(found):
        (turn,) = record.turns
        ((start, end),) = turn.evidence
        assert record.context[start:end] == turn.answer == f"{number * 37}"
        about = "rooms" if number % 2 else "boats"
        assert f"About {about}, {number}." in record.context  # all of it is there, in its order
        assert record.context.index(f"About {about}, {number}.") < start
        assert 600 <= len(record.context) <= 1200
        places.add(10 * start // len(record.context))
    if others == "random" and piece_characters == 1000:
        assert len(places) >= 5  # anywhere
    assert facts(tmp_path, others=others, piece_characters=piece_characters)[0] == found


def test_negatives_are_the_texts_that_are_most_alike(tmp_path: Path) -> None:
    found, _ = facts(tmp_path, others="similar")
    for number, record in enumerate(found):
        own, other = ("rooms", "boats") if number % 2 else ("boats", "rooms")
        assert record.context.count(f"About {own}") > 1 and f"About {other}" not in record.context


def test_texts_without_questions_are_lengthened_too(tmp_path: Path) -> None:
    rows = [{"text": f"Document {number}. " + f"It was {number} the best of times. " * 6} for number in range(6)]
    found, _ = records(tmp_path, "json_lines", *rows, lengthen={"characters": 600, "others": "similar"})
    assert all(
        len(record.context) > 400 and f"Document {number}." in record.context for number, record in enumerate(found)
    )


def test_evidence_is_never_cut(tmp_path: Path) -> None:
    context = "One sentence is here. Another sentence is there. A third one. " * 3
    row = {"context": context, "question": "What?", "answer": "b", "evidence": [[5, 100], [120, 130]]}
    others = [
        {"context": f"Other {number}. " * 9, "question": "?", "answer": "a", "evidence": [[0, 5]]}
        for number in range(9)
    ]
    first, *_ = records(tmp_path, "json_lines", row, *others, lengthen={"characters": 900, "piece_characters": 16})[0]
    assert [first.context[a:b] for a, b in first.turns[0].evidence] == [context[5:100], context[120:130]]


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


def test_files_of_a_folder_that_cannot_be_read_are_counted_and_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One.")
    (tmp_path / "b.pdf").write_bytes(b"%PDF-1.7 and no more")
    (tmp_path / "c.md").write_text(" ")
    (tmp_path / "d.zip").write_bytes(b"PK\3\4" + bytes(range(256)))
    count = ReadCount()
    with pytest.warns(UserWarning, match="left out") as warned:
        (record,) = DataSource("texts", str(tmp_path)).records(count)
    assert (record.context, record.source) == ("One.", f"{tmp_path}, record 1 ({tmp_path}/a.txt)")
    assert dict(count.unused) == {"a file that cannot be read": 2, "a file without text": 1}
    assert all(any(name in str(one.message) for one in warned) for name in ("b.pdf", "d.zip"))


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
        ({"reader": "squad", "path": "a", "limit": 0}, "limit=0"),
        ({"reader": "squad", "path": "a", "lengthen": {"chars": 3}}, "there is no chars.*characters"),
        ({"reader": "squad", "path": "a", "lengthen": {"characters": 0}}, "above 0"),
        ({"reader": "squad", "path": "a", "lengthen": {"characters": 9, "others": "odd"}}, "odd"),
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
    (tmp_path / "a.jsonl").write_text("{}")
    with pytest.raises(ValueError, match=r"split=train is of data sets on the Hub, and .*a.jsonl is here"):
        list(DataSource("squad", str(tmp_path / "a.jsonl"), split="train").records(ReadCount()))
    with pytest.raises(ValueError, match="split="):
        list(DataSource("squad", "rajpurkar/squad").records(ReadCount()))


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({"reader": "json_lines", "path": "./no/where.jsonl"}, "no file or folder ./no/where.jsonl"),
        ({"reader": "json_lines", "path": "here/nowhere"}, "no file or folder here/nowhere"),  # here is a folder
        ({"reader": "texts", "path": "owner/name"}, "no file or folder owner/name"),
        ({"reader": "rel_cot", "path": "here"}, "no train_72dpi.json"),
        ({"reader": "squad", "path": "here"}, "no files of one kind"),
        ({"reader": "prolong", "path": "here/shards", "tokenizer": "owner/name"}, "no file or folder"),
    ],
)
def test_all_sources_are_looked_for_before_the_first_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: dict[str, Any], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("here").mkdir()
    Path("rows.jsonl").write_text('{"text": "It was May."}\n')
    sources = [DataSource("json_lines", "rows.jsonl"), DataSource(**source)]
    with pytest.raises((FileNotFoundError, ValueError), match=says):
        record_tables(sources, tmp_path / "data")
    assert not Path("data").exists()
    record_tables(sources[:1], tmp_path / "data")
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(record_tables, sources[:1], tmp_path / "later", reads=False)
        read = record_tables(sources[:1], tmp_path / "later")
        assert waiting.result(20)[0][1] == read[0][1]
    Path("rows.jsonl").unlink()  # what has been read is not looked for
    ((table, counts),) = record_tables(sources[:1], tmp_path / "data", reads=False)
    assert (len(table), counts["used"]) == (1, 1)


def test_a_data_set_that_is_a_script_says_where_its_rows_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: Any, **__: Any) -> None:
        raise RuntimeError("Dataset scripts are no longer supported, but found qasper.py")

    monkeypatch.setattr("datasets.load_dataset", refuses)
    with pytest.raises(ValueError, match=r"allenai/qasper.*found qasper\.py.*revision: refs/convert/parquet"):
        DataSource("qasper", "allenai/qasper", split="train").rows()


def test_rows_that_are_damaged_and_of_another_form(tmp_path: Path) -> None:
    row = {"context": "The code is 42.", "question": "Which?", "answer": "42"}
    found, count = records(tmp_path, "json_lines", row, {**row, "answer": None}, {**row, "context": "Another."})
    assert len(found) == 2 and dict(count.unused) == {"another form than the reader's (KeyError: 'answer')": 1}
    with pytest.raises(ValueError, match=r"row 1 of .*rows\.jsonl has not the form.*KeyError.*its fields are"):
        records(tmp_path, "json_lines", {**row, "answer": None}, row)
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n{damaged\n")
    with pytest.raises(ValueError, match=r"rows\.jsonl cannot be read to its end, after 0 rows: JSON"):
        list(DataSource("json_lines", str(tmp_path / "rows.jsonl")).records(ReadCount()))
    (tmp_path / "rows.jsonl").write_text("")
    with pytest.raises(ValueError, match="no files of one kind with rows"):
        DataSource("json_lines", str(tmp_path / "rows.jsonl")).rows()


def test_scans_are_counted(tmp_path: Path) -> None:
    Image.new("L", (64, 64), 255).save(tmp_path / "scan.png")
    (tmp_path / "text.txt").write_text("It was May.")
    count = ReadCount()
    (record,) = DataSource("texts", str(tmp_path)).records(count)
    assert record.context == "It was May."
    assert dict(count.unused) == {"pictures of pages, whose text is not known": 1}


def test_reasons_have_no_particulars() -> None:
    with pytest.raises(UnusableRow, match=r"^neither a text nor a turn$"):
        TrainingRecord("")
