# SPDX-License-Identifier: Apache-2.0
"""Suites that a judge grades, PDFs in their own pages, reconstruction, and data pinned to a commit."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from document_samples import pdf_file
from sample_rows import write
from small_judge import SmallJudge

from transformers_hybridctx import LongDocQAPipeline, evaluation
from transformers_hybridctx.evaluation.judging import GradeError, _client, judge_json
from transformers_hybridctx.evaluation.metrics.fox import reconstruction
from transformers_hybridctx.evaluation.metrics.helmet_judged import answer_grade, summary_grade
from transformers_hybridctx.evaluation.metrics.mmlongbench import accuracy_and_f1, mmlongbench_score
from transformers_hybridctx.evaluation.records import read_records
from transformers_hybridctx.evaluation.suites.registry import make_suite


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallJudge]:
    with SmallJudge() as served:
        monkeypatch.setenv("OPENAI_BASE_URL", served.url)
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        _client.cache_clear()
        yield served
    _client.cache_clear()


def test_a_judge_s_last_json_counts_and_a_word_without_one_is_asked_for_again(judge: SmallJudge) -> None:
    judge.says = ['Not {"fluency": 0} but {"fluency": 1, "correctness": 2}.']
    assert judge_json("small", "Grade.", ("fluency", "correctness")) == {"fluency": 1, "correctness": 2}
    judge.says = ["I cannot.", '{"fluency": 1}']
    assert judge_json("small", "Grade.", ("fluency",)) == {"fluency": 1}
    assert judge.asked[-1] == {"model": "small", "content": "Grade."}
    judge.says = ["I cannot."]
    with pytest.raises(GradeError, match=r"the judge 'small' gave no fluency: 'I cannot.'"):
        judge_json("small", "Grade.", ("fluency",))
    judge.status = 401
    with pytest.raises(ConnectionError, match="the judge 'small' does not answer"):
        judge_json("small", "Grade.", ("fluency",))


def test_without_an_endpoint_a_judge_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _client.cache_clear()
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ValueError, match="set OPENAI_API_KEY"):
        judge_json("small", "Grade.", ("fluency",))


def test_judged_scores_are_helmet_s_arithmetic(judge: SmallJudge) -> None:
    judge.says = ['{"fluency": 1, "correctness": 2}']
    assert answer_grade("small", "Who?", ("Ann",), "Ann, I think") == (2 / 3, {"fluency": 1, "correctness": 2})
    judge.says = ['{"fluency": 1}', '{"recall": 2}', '{"precision": 3, "sentence_count": 4}']
    score, details = summary_grade("small", "It was.", ["a", "b", "c", "d"], "It was so.")
    assert (details["recall"], details["precision"]) == (0.5, 0.75) and score == pytest.approx(0.6)
    judge.says = ['{"fluency": 0}', '{"recall": 2}', '{"precision": 3, "sentence_count": 4}']
    assert summary_grade("small", "It was.", ["a", "b"], "It was so.")[0] == 0
    for fluency, message in (("2", "not on the scale"), ('"x"', "which is no number")):
        judge.says = [f'{{"fluency": {fluency}, "correctness": 1}}']
        with pytest.raises(GradeError, match=message):
            answer_grade("small", "Who?", ("Ann",), "Ann")


def helmet_rows(folder: Path) -> None:
    story = {"id": "s", "text": "Ann lived in a house."}
    asked = {"question": {"text": "Who?"}, "answers": [{"text": "Ann"}]}
    write(folder, "narrativeqa.jsonl", [{"document": story, **asked}])
    book = {"id": 3, "context": "A book.", "input": "", "answer": ["So it was."], "options": []}
    write(folder, "longbook_sum_eng.jsonl", [book])
    write(folder, "longbook_sum_eng_keypoints.jsonl", [{"id": 3, "keypoints": ["It was.", "So."]}])
    law = {"id": "l", "sources": ["One.", "Two."], "summary/long": "Long.", "summary/short": "Short."}
    write(folder, "multi_lexsum_val.jsonl", [{**law, "summary/short_keypoints": ["One."]}])


def test_helmet_s_judged_tasks_are_graded_and_failures_count(
    judge: SmallJudge, pipe: LongDocQAPipeline, tmp_path: Path
) -> None:
    helmet_rows(tmp_path)
    suite = make_suite("helmet", data=str(tmp_path), judge="small")
    story, book, law = suite.samples(None)
    assert story.question.endswith("Question: Who?") and story.context == "Ann lived in a house."
    assert (
        book.details["keypoints"] == ["It was.", "So."] and law.context == "One.\n\nTwo." and law.answer == ("Long.",)
    )
    judge.says = ['{"fluency": 1, "correctness": 3}'] + ["no grade"] * 2 + ['{"fluency": 1}', '{"recall": 1}']
    judge.says += ['{"precision": 1, "sentence_count": 1}']
    contexts = evaluation.make_contexts(["pages"])
    table = evaluation.run(suite, pipe, contexts, out=tmp_path / "run", max_new_tokens=2)
    (row,) = table.rows
    assert row.scores == {"narrativeqa": 1.0, "infbench_sum": 0.0, "multi_lexsum": 1.0}
    assert row.failures == 1 and row.first_failure is not None and "GradeError" in row.first_failure
    assert row.summary == {"LongQA": 1.0, "summaries": 0.5, "mean": 0.75}
    assert read_records(tmp_path / "run")[0].details == {"fluency": 1, "correctness": 3}


def test_without_a_judge_its_tasks_are_left_out_loudly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helmet_rows(tmp_path)
    with pytest.raises(ValueError, match="infbench_sum, multi_lexsum is a judge's: give --judge MODEL"):
        make_suite("helmet", data=str(tmp_path)).samples(None)
    with pytest.raises(ValueError, match="the score of multi_lexsum is a judge's"):
        make_suite("helmet", data=str(tmp_path), tasks=("multi_lexsum",)).samples(None)
    write(tmp_path, "json_kv.jsonl", [{"context": '{"k": "v1"}', "question": "k", "answer": "v1"}])
    said: list[str] = []
    monkeypatch.setattr("transformers_hybridctx.evaluation.suites.helmet.logger.warning", said.append)
    (sample,) = make_suite("helmet", data=str(tmp_path)).samples(None)
    assert sample.task == "json_kv" and said[0].startswith("LEFT OUT: the score of narrativeqa")
    with pytest.raises(ValueError, match="the suite 'mrcr' has no judge"):
        make_suite("mrcr", judge="small")


@pytest.mark.parametrize(
    ("answer", "prediction", "kind", "score"),
    [
        ("12", "12.0", "Int", 1.0),
        ("12", "twelve", "Int", 0.0),
        ("0.15", "15%", "Float", 1.0),  # 100 times as much is right
        ("3.14", "3.15", "Float", 1.0),  # to 1%
        ("3.1", "4", "Float", 0.0),
        ("Not answerable", "not answerable", "None", 1.0),
        ("Ann Lee", "ann le", "Str", 6 / 7),
        ("Ann Lee", "Bob", "Str", 0.0),
        ("page 12", "page 13", "Str", 0.0),  # like is not enough
        ("2023-01", "2023-02", "Str", 0.0),
        ("$5 million (2020)", "5 million", "Str", 1.0),
        ("['a', 'b']", "['B', 'a']", "List", 1.0),
        ("['a', 'b']", "['a']", "List", 0.0),
        ("['12', '7']", "['7', '12']", "List", 1.0),
        ("['red', 'blue']", "['red', 'blua']", "List", 0.75),
        ("['red', 'blue']", "[red", "List", 0.0),
    ],
)
def test_mmlongbench_s_scores_by_format(answer: str, prediction: str, kind: str, score: float) -> None:
    assert mmlongbench_score(answer, prediction, kind) == pytest.approx(score)


def test_an_answer_to_what_has_none_costs_precision() -> None:
    graded = [(1.0, "12", "12"), (0.0, "7", "Not answerable"), (0.0, "Not answerable", "3")]
    accuracy, f1 = accuracy_and_f1(graded)
    assert accuracy == pytest.approx(1 / 3) and f1 == pytest.approx(0.5)
    assert accuracy_and_f1([]) == (0.0, 0.0)
    assert accuracy_and_f1([(1.0, "Not answerable", "Not answerable")]) == (1.0, 0.0)


def test_pdfs_are_asked_about_in_their_own_pages(judge: SmallJudge, pipe: LongDocQAPipeline, tmp_path: Path) -> None:
    (tmp_path / "documents").mkdir()
    report = tmp_path / "documents" / "report.pdf"
    report.write_bytes(pdf_file(["The fee is 12 pounds.", "Nothing else."]))
    row = {"doc_id": "report.pdf", "doc_type": "Report", "question": "What is the fee?", "answer": "12"}
    row |= {"evidence_pages": "[1]", "evidence_sources": "['Pure-text (Plain-text)']", "answer_format": "Int"}
    none = {**row, "question": "Who?", "answer": "Not answerable", "evidence_pages": "[]", "answer_format": "None"}
    (tmp_path / "samples.json").write_text(json.dumps([row, none]))
    plain = make_suite("mmlongbench-doc", data=str(tmp_path))
    first, second = plain.samples(None)
    assert (first.task, second.task) == ("single-page", "unanswerable") and first.is_file
    assert plain.grade(first, " 12 ") == (1.0, {"answer": "12", "prediction": "12"})
    judge.says = ['{"answer": "12"}', '{"answer": "Not answerable"}']
    suite = make_suite("mmlongbench-doc", data=str(tmp_path), judge="small")
    table = evaluation.run(suite, pipe, evaluation.make_contexts(["pages"]), out=tmp_path / "run", max_new_tokens=2)
    assert table.rows[0].scores == {"single-page": 1.0, "unanswerable": 1.0} and table.rows[0].summary["F1"] == 1.0
    assert [record.plan["pages"] for record in read_records(tmp_path / "run")] == [2, 2]  # the file's own
    report.unlink()
    with pytest.raises(ValueError, match=r"lacks report.pdf"):
        plain.samples(None)


def test_fox_says_which_is_precision_and_which_recall() -> None:
    found = reconstruction("the cat sat sat", "the cat sat on a mat")
    assert found["precision"] == 1.0 and found["recall"] == 0.5 and found["f1"] == pytest.approx(2 / 3)
    assert found["edit distance"] == pytest.approx(6 / 20) and found["exact"] == 0.0
    assert reconstruction("", "a")["precision"] == 0.0 and reconstruction("a b", "a b")["exact"] == 1.0


class Words:
    """A tokenizer of words."""

    def tokenize(self, text: str, **options: Any) -> list[str]:
        return text.split()


def test_fox_parts_both_texts_alike_where_either_is_chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    letters = SimpleNamespace(cut=lambda text: text)  # in place of jieba: each character is a word
    monkeypatch.setitem(sys.modules, "jieba", letters)
    found = reconstruction("ab", "ab 图")
    assert found["precision"] == 1.0 and found["recall"] == 0.5
    assert reconstruction("ab", "ab c")["recall"] == 0.5


def test_fox_s_pages_are_in_bins_from_a_folder_and_from_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def page(words: int) -> dict[str, Any]:
        said = [{"from": "human", "value": "<image>\nOCR"}, {"from": "gpt", "value": "word " * words}]
        return {"image": "x.png", "conversations": said}

    (tmp_path / "en_page_ocr.json").write_text(json.dumps([page(650), page(1299), page(40)]))
    (tmp_path / "cn_page_ocr.json").write_text(json.dumps([page(700)]))
    suite = make_suite("fox", data=str(tmp_path))
    samples = suite.samples(Words())
    assert [sample.task for sample in samples] == ["600-700", "1200-1300", "other", "cn"]
    assert suite.score(samples[0], "word other") == 0.5
    assert samples[0].question == "Repeat the text: " and samples[0].context == samples[0].answer[0]
    archive = tmp_path / "focus_benchmark_test.zip"
    with zipfile.ZipFile(archive, "w") as written:
        for name in ("en_page_ocr.json", "cn_page_ocr.json"):
            written.write(tmp_path / name, f"focus_benchmark_test/{name}")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *args, **options: str(archive))
    assert make_suite("fox", revision="0" * 40).samples(Words()) == samples


def test_a_run_pins_the_commit_of_its_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, str | None]] = []

    def info(self: Any, source: str, revision: str | None = None) -> Any:
        asked.append((source, revision))
        return SimpleNamespace(sha="ab" * 20)

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", info)
    pinned = make_suite("mrcr").pinned()
    assert pinned.settings()["revision"] == "ab" * 20 and asked == [("openai/mrcr", None)]
    assert pinned.pinned() == pinned and len(asked) == 1  # a commit is one
    assert make_suite("qasper").pinned().settings()["revision"] == "ab" * 20
    assert asked[-1] == ("allenai/qasper", "refs/convert/parquet")
    local = make_suite("mrcr", data=str(tmp_path))
    assert local.pinned() == local and make_suite("needles").pinned() == make_suite("needles")

    def unreachable(self: Any, source: str, revision: str | None = None) -> Any:
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", unreachable)
    with pytest.raises(OSError, match="the Hub does not say which commit of openai/mrcr this is"):
        make_suite("mrcr").pinned()


def test_mrcr_s_rows_of_the_hub_are_told_apart_by_their_needles(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = json.dumps([{"role": "user", "content": "Write."}, {"role": "user", "content": "Prepend x to it."}])
    about = {
        "answer": "xA",
        "random_string_to_prepend": "x",
        "desired_msg_index": 1,
        "total_messages": 2,
        "n_chars": 9,
    }
    rows = [{"prompt": talk, "n_needles": needles, **about} for needles in (2, 8, 8)]
    parts: list[str | None] = []

    def load(source: str, name: str | None, split: str, revision: str | None) -> list[dict[str, Any]]:
        parts.append(name)
        return rows

    monkeypatch.setattr("datasets.load_dataset", load)
    tasks = [sample.task for sample in make_suite("mrcr", tasks=("2needle", "8needle")).samples(None)]
    assert tasks == ["2needle", "8needle", "8needle"] and set(parts) == {None}
