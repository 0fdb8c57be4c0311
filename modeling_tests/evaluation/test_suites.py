# SPDX-License-Identifier: Apache-2.0
"""Published data sets, by a few rows made up here in exactly their schemas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sample_rows import write

from transformers_hybridctx.evaluation.suites.longbench import prompt_parts
from transformers_hybridctx.evaluation.suites.registry import SUITES, make_suite


def longbench(task: str, **fields: Any) -> dict[str, Any]:
    row = {"input": "Who?", "context": "A long text.", "answers": ["Ann"], "length": 4321, "dataset": task}
    return {**row, "language": "en", "all_classes": None, "_id": "1", **fields}


def test_longbench_asks_in_its_own_words_and_scores_by_its_own_metrics(tmp_path: Path) -> None:
    write(tmp_path, "narrativeqa.jsonl", [longbench("narrativeqa")])
    classes = {"all_classes": ["Food", "Sport"], "answers": ["Sport"]}
    write(tmp_path, "trec.jsonl", [longbench("trec", input="Question: Who?\nType:", **classes)])
    write(tmp_path, "lcc.jsonl", [longbench("lcc", input="")])
    suite = make_suite("longbench", data=str(tmp_path))
    story, kind, code = suite.samples(None)
    assert story.context == "Story: A long text." and story.max_new_tokens == 128
    assert story.question.endswith("Question: Who?\n\nAnswer:") and "asconcisely" in story.question
    assert story.question.startswith("You are given a story")
    assert kind.question.startswith("Please determine the type") and kind.question.endswith("Type:")
    assert code.question == "Please complete the code given below.\n\nNext line of code:\n"
    assert suite.score(story, "the Ann") == 1.0 and suite.score(kind, "Sport\nFood") == 1.0
    assert suite.details(story, "") == {"bin": "4-8k"}


def test_longbench_e_is_a_configuration_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, "qasper_e.jsonl", [longbench("qasper", length=9000)])
    (sample,) = make_suite("longbench", data=str(tmp_path), e=True).samples(None)
    assert sample.task == "qasper" and make_suite("longbench").details(sample, "") == {"bin": "8k+"}


def test_an_instruction_that_the_question_has_is_not_said_twice() -> None:
    assert prompt_parts("Do it.\n\nText: {context}\n\nNow: Do it.\n{input}") == ("Text: ", "\n\nNow: Do it.\n{input}")
    assert prompt_parts("Do it.\n{context}\n{input}") == ("", "Do it.\n\n{input}")


def test_longbench_v2_reports_by_length(tmp_path: Path) -> None:
    choices = {f"choice_{letter}": f"{letter.lower()} thing" for letter in "ABCD"}
    about = {"_id": "1", "domain": "d", "sub_domain": "s", "difficulty": "hard", "length": "short"}
    row = {**about, **choices, "question": "Which? ", "answer": "B", "context": " Text "}
    (tmp_path / "data.json").write_text(json.dumps([row]))
    suite = make_suite("longbench-v2", data=str(tmp_path))
    (sample,) = suite.samples(None)
    assert sample.task == "short" and "(B) b thing\n(C) c thing" in sample.question and sample.context == "Text"
    assert suite.score(sample, "The correct answer is (B)") == 1.0 and suite.score(sample, "B") == 0.0


def test_mrcr_is_a_conversation_and_its_last_request(tmp_path: Path) -> None:
    talk = [("user", "Write a poem."), ("assistant", "Roses."), ("user", "Prepend x9 to the 1st poem.")]
    prompt = json.dumps([{"role": role, "content": content} for role, content in talk])
    about = {"n_needles": 2, "desired_msg_index": 1, "total_messages": 3, "n_chars": 60, "date_added": "2025"}
    row = {"prompt": prompt, "answer": "x9Roses.", "random_string_to_prepend": "x9", **about}
    write(tmp_path, "2needle/2needle_0.jsonl", [row])
    suite = make_suite("mrcr", data=str(tmp_path), tasks=("2needle",))
    (sample,) = suite.samples(None)
    assert sample.context == "User: Write a poem.\n\nAssistant: Roses." and sample.question.startswith("Prepend x9")
    assert suite.score(sample, "x9Roses.") == 1.0 and suite.score(sample, "Roses.") == 0.0
    with pytest.raises(ValueError, match="no sample of mrcr is left"):
        make_suite("mrcr", data=str(tmp_path), tasks=("2needle",), max_chars=10).samples(None)


def test_helmet_has_recall_rag_ranking_and_demonstrations(tmp_path: Path) -> None:
    write(tmp_path, "json_kv.jsonl", [{"context": '{"k": "v1"}', "question": "k", "answer": "v1", "num_kvs": 1}])
    passages = [
        {"id": "7", "title": "T", "text": "Paris is it.", "label": 3},
        {"id": "4", "title": "U", "text": "No.", "label": 0},
    ]
    write(tmp_path, "nq.jsonl", [{"question": "Where?", "answers": [["Paris", "Paname"]], "ctxs": passages}])
    write(tmp_path, "msmarco_rerank.jsonl", [{"qid": "1", "query": "Where?", "ctxs": passages}])
    train = [{"text": f"text {number}", "coarse_label": number % 3} for number in range(9)]
    write(tmp_path, "trec_coarse_train.jsonl", train)
    write(tmp_path, "trec_coarse_test.jsonl", [{"text": "what?", "coarse_label": 2}])
    suite = make_suite("helmet", data=str(tmp_path), shots=6)
    kv, rag, ranking, shown = suite.samples(None)
    assert suite.score(kv, "Corresponding value: v1") == 1.0
    assert rag.context.startswith("Document (Title: T): Paris is it.") and suite.score(rag, "in paname!") == 1.0
    assert "[ID: 7] Document (Title: T)" in ranking.context and suite.score(ranking, "Ranking: 7 > 4") == 1.0
    assert shown.context.count("label:") == 6 and suite.score(shown, f"label: {shown.answer[0]}") == 1.0
    assert len({line for line in shown.context.splitlines() if line.startswith("label")}) == 3  # balanced
    assert suite.summary({"json_kv": 1.0, "nq": 0.0, "popqa": 1.0}) == {"recall": 1.0, "RAG": 0.5, "mean": 0.75}


def test_qasper_asks_several_questions_of_one_paper(tmp_path: Path) -> None:
    nothing = {"unanswerable": False, "extractive_spans": [], "yes_no": None, "free_form_answer": "", "evidence": []}
    answers = [
        {
            "answer": [
                {**nothing, "extractive_spans": ["BLEU", "ROUGE"]},
                {**nothing, "free_form_answer": "two metrics"},
            ]
        },
        {"answer": [{**nothing, "yes_no": False}]},
        {"answer": [{**nothing, "unanswerable": True}]},
    ]
    text = {"section_name": ["Intro", None], "paragraphs": [["One.", "Two."], ["Three."]]}
    row = {"id": "1", "title": "A paper", "abstract": "On it.", "full_text": text}
    write(tmp_path, "test.jsonl", [{**row, "qas": {"question": ["Which?", "Is it?", "When?"], "answers": answers}}])
    suite = make_suite("qasper", data=str(tmp_path))
    samples = suite.samples(None)
    assert len({sample.context for sample in samples}) == 1 and "Intro\nOne.\nTwo." in samples[0].context
    assert [sample.task for sample in samples] == ["extractive", "boolean", "none"]
    assert suite.score(samples[0], "two metrics") == 1.0 and suite.score(samples[0], "BLEU, ROUGE") == 1.0
    assert suite.score(samples[1], "No.") == 1.0 and suite.score(samples[2], "unanswerable") == 1.0


def test_vtcbench_needs_all_references_as_they_are_written(tmp_path: Path) -> None:
    row = {
        "problem": "Which numbers?",
        "answers": ["12", "34"],
        "images": [],
        "_context": {"type": "x", "text": "A snippet."},
    }
    write(tmp_path, "Reasoning/data.jsonl", [row])
    suite = make_suite("vtcbench", data=str(tmp_path), tasks=("Reasoning",))
    (sample,) = suite.samples(None)
    assert sample.context == "A snippet." and sample.question.endswith("Question: Which numbers?")
    assert suite.score(sample, "12") == 0.5


def test_rows_of_the_six_columns_are_read_as_they_are(tmp_path: Path) -> None:
    row = {"context": "c", "question": "q", "answer_prefix": " is", "answer": ["x", "y"], "max_new_tokens": 9}
    write(tmp_path, "4096/test.jsonl", [{**row, "task": "qa_1"}, {**row, "task": "vt"}])
    suite = make_suite("rows", data=str(tmp_path), lengths=(4096,))
    samples = suite.samples(None)
    assert [suite.score(sample, "X") for sample in samples] == [1.0, 0.5] and samples[0].length == 4096


def test_needles_at_depths_stand_from_the_first_to_the_last_sentence(tmp_path: Path) -> None:
    prose = tmp_path / "prose.txt"
    prose.write_text(" ".join(f"Sentence {number} ends here." for number in range(400)))

    class Words:
        def tokenize(self, text: str, **options: Any) -> list[str]:
            return text.split()

    samples = make_suite("niah", prose=prose, lengths=(100,), depths=3).samples(Words())
    places = [sample.context.index("One of the special") / len(sample.context) for sample in samples]
    assert places[0] == 0 and 0.3 < places[1] < 0.7 and samples[2].context.endswith(f"{samples[2].answer[0]}.")
    assert [sample.details["depth"] for sample in samples] == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("name", sorted(SUITES.keys() - {"needles", "needles-said", "ruler", "niah", "tradeoff"}))
def test_a_folder_without_the_data_is_refused_by_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=str(tmp_path)):
        make_suite(name, data=str(tmp_path)).samples(None)


def test_a_row_in_another_schema_a_name_and_a_knob_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "trec.jsonl", [{"input": "x"}])
    with pytest.raises(ValueError, match=r"row 0 of .*trec has no column 'context'; its schema is input, context"):
        make_suite("longbench", data=str(tmp_path)).samples(None)
    (tmp_path / "trec.jsonl").write_text("{")
    with pytest.raises(ValueError, match=r"trec.jsonl cannot be read"):
        make_suite("longbench", data=str(tmp_path)).samples(None)
    with pytest.raises(ValueError, match="neither a folder nor the Hub id"):
        make_suite("mrcr", data="./nowhere").samples(None)
    with pytest.raises(ValueError, match="unknown suite 'rular'; known suites: fox, helmet"):
        make_suite("rular")
    with pytest.raises(ValueError, match="the suite 'mrcr' has no lengths"):
        make_suite("mrcr", lengths=(5,))
