# SPDX-License-Identifier: Apache-2.0
"""RULER's rows: those of NVIDIA's generator, its forms, and what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from transformers_hybridctx.evaluation.samples import Sample
from transformers_hybridctx.evaluation.suites.ruler.draws import Keys, all_keys, draw
from transformers_hybridctx.evaluation.suites.ruler.suite import TEN_TASKS, Ruler

OFFLINE = ("niah_single_1", "niah_multikey_2", "niah_multikey_3", "vt", "cwe", "fwe")


class Words:
    """A tokenizer whose tokens are words."""

    def tokenize(self, text: str, **options: Any) -> list[str]:
        return text.split()


def rows(task: str, length: int, examples: int = 3, **knobs: Any) -> list[Sample]:
    return Ruler(tasks=(task,), lengths=(length,), examples=examples, **knobs).samples(Words())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up files in the form of RULER's downloads."""
    folder = tmp_path_factory.mktemp("ruler")
    prose = " ".join(f"Sentence number {number} says nothing at all." for number in range(400))
    (folder / "PaulGrahamEssays.json").write_text(json.dumps({"text": prose}))
    squad = [
        {
            "paragraphs": [
                {
                    "context": f"Item {article}{part} has the colour tone{article * 7 + part}. " * 3,
                    "qas": [
                        {
                            "question": f"What is the colour of item {article}{part}?",
                            "is_impossible": part == 2,
                            "answers": [{"text": f"tone{article * 7 + part}"}],
                        }
                    ],
                }
                for part in range(4)
            ]
        }
        for article in range(12)
    ]
    (folder / "squad.json").write_text(json.dumps({"data": squad}))
    hotpot = [
        {
            "question": f"Who made thing {number}?",
            "answer": f"Maker {number}",
            "context": [[f"Title {number} {part}", ["Sentence one. ", "Sentence two. "]] for part in range(5)],
        }
        for number in range(15)
    ]
    (folder / "hotpotqa.json").write_text(json.dumps(hotpot))
    return folder


GOLDEN = {
    ("niah_single_1", 1000): "0b13b6142eea3dce",
    ("niah_multikey_2", 1000): "809070d1f80d831e",
    ("niah_multikey_3", 1000): "33f2cb0d982f69e7",
    ("vt", 1000): "b9c0dd658007babe",
    ("cwe", 1000): "c268241a6949b1ca",
    ("fwe", 1000): "3ec286368d822555",
}


@pytest.mark.parametrize(("task", "length"), GOLDEN)
def test_rows_are_those_of_nvidias_generator(task: str, length: int) -> None:
    """The first three of seed 42, by words; hashes of what NVIDIA/RULER at c3f5e3b writes with wonderwords 3.0.1."""
    made = [[one.context + one.question, one.answer_prefix, list(one.answer)] for one in rows(task, length)]
    assert hashlib.sha256(json.dumps(made).encode()).hexdigest()[:16] == GOLDEN[task, length]


@pytest.mark.parametrize("task", Ruler.task_names)
def test_every_task_fits_its_length_and_states_its_answers(task: str, data: Path) -> None:
    for sample in rows(task, 900, examples=2, data=data):
        whole = sample.context + sample.question + sample.answer_prefix
        assert len(whole.split()) + sample.max_new_tokens <= 900
        assert sample.task == task and sample.length == 900
        for answer in sample.answer:
            assert task == "qa_2" or answer in sample.context
            assert task in ("vt", "cwe", "fwe") or answer not in sample.question
        assert whole.count(sample.question) == 1 or task in ("cwe", "vt")


def test_a_single_value_is_asked_for_in_the_singular() -> None:
    (sample,) = rows("niah_single_1", 600, examples=1)
    assert sample.context.startswith("A special magic number is hidden within the following text.")
    assert sample.question.startswith("What is the special magic number for ")
    assert sample.answer_prefix.endswith(" mentioned in the provided text is")


def test_several_values_and_queries_are_asked_for_in_the_plural(data: Path) -> None:
    (values,), (queries,) = (rows(f"niah_multi{what}", 900, examples=1, data=data) for what in ("value", "query"))
    for sample in (values, queries):
        assert len(sample.answer) == 4 and sample.question.startswith("What are all the special magic numbers for ")
    assert ", and " in queries.question and ", and " not in values.question


def test_the_same_seed_gives_the_same_rows_and_another_one_others() -> None:
    assert rows("vt", 800) == rows("vt", 800)
    assert rows("vt", 800) != rows("vt", 800, seed=43)


def test_keys_are_all_pairs_in_order_without_writing_them_down() -> None:
    adjectives, nouns = ["well", "well-off", "a", "well-o"], ["off", "car", "bar-n"]
    keys = Keys(adjectives, nouns)
    plain = sorted({f"{adjective}-{noun}" for adjective in adjectives for noun in nouns})
    assert [keys[index] for index in range(len(keys))] == plain
    assert len(all_keys()) > 5_000_000
    assert draw(Random(1), "words") == draw(Random(1), "words")


def test_what_needs_prose_or_passages_says_so_before_anything_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"niah_single_2 hide needles in prose: give --prose FILE"):
        rows("niah_single_2", 600)
    with pytest.raises(ValueError, match=r"qa_1 asks about the passages of squad.json: give --data"):
        rows("qa_1", 600)
    (tmp_path / "squad.json").write_text('{"data": [{"paragraph": []}]}')
    with pytest.raises(ValueError, match=r"squad.json is not in the published form"):
        rows("qa_1", 600, data=tmp_path)
    with pytest.raises(ValueError, match="no prompt of this task fits 40 tokens"):
        rows("niah_single_1", 40)
    with pytest.raises(ValueError, match="ruler has no task 'niah'"):
        Ruler(tasks=("niah",))


def test_the_mean_of_ten_is_quoted_where_all_ten_are_there() -> None:
    suite = Ruler()
    means = dict.fromkeys(TEN_TASKS, 0.5)
    assert suite.summary({**means, "vt": 1.0}) == pytest.approx({"mean": 6 / 11, "ten-task mean": 0.5})
    assert "ten-task mean" not in suite.summary({"vt": 1.0, "cwe": 0.0})


def test_questions_need_any_reference_and_the_other_tasks_all() -> None:
    suite = Ruler()
    question, needle = (Sample("c", "q", "", ("x", "y"), task, 1) for task in ("qa_1", "niah_multivalue"))
    assert suite.score(question, "X") == 1.0 and suite.score(needle, "X") == 0.5
