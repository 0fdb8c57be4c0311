# SPDX-License-Identifier: Apache-2.0
"""The benchmarks' metrics by worked cases, their quirks among them."""

from __future__ import annotations

from typing import Any

import pytest

from transformers_hybridctx.evaluation.metrics import helmet
from transformers_hybridctx.evaluation.metrics.longbench import (
    classification,
    code_similarity,
    longbench_score,
    longbench_v2_choice,
    normalize_answer,
)
from transformers_hybridctx.evaluation.metrics.mrcr import mrcr_grade
from transformers_hybridctx.evaluation.metrics.string_match import exact_strings, string_match_all, string_match_part

CLASSES = ["Food", "Sport", "Food event", "Food and drink", "Other entity"]


@pytest.mark.parametrize(
    ("prediction", "answers", "all_of_them", "any_of_them", "exact"),
    [
        ("12 and 34", ["12", "34"], 1.0, 1.0, 0.0),
        ("12, 34", ["34", "12"], 1.0, 1.0, 1.0),
        ("only 12", ["12", "34"], 0.5, 1.0, 0.0),
        ("DENVER Broncos", ["Denver", "the Broncos"], 0.5, 1.0, 0.0),
        ("1234", ["12"], 1.0, 1.0, 0.0),
        ("", ["12"], 0.0, 0.0, 0.0),
    ],
)
def test_ruler_counts_references_contained_in_any_case(
    prediction: str, answers: list[str], all_of_them: float, any_of_them: float, exact: float
) -> None:
    assert string_match_all(prediction, answers) == all_of_them
    assert string_match_part(prediction, answers) == any_of_them  # "any", where lm-evaluation-harness has the share
    assert exact_strings(prediction, answers) == exact


def test_articles_and_punctuation_go_before_blanks_are_squeezed() -> None:
    assert normalize_answer("The  U.S.A.'s  an-swer, a Theory!") == "usas answer theory"


@pytest.mark.parametrize(
    ("task", "prediction", "answers", "score"),
    [
        ("hotpotqa", "the Eiffel Tower in Paris", ["Eiffel Tower"], 2 * (2 / 4) * 1 / (2 / 4 + 1)),
        ("hotpotqa", "no idea", ["Eiffel Tower", "idea"], 2 * 0.5 * 1 / 1.5),
        ("hotpotqa", "b b a a", ["b a"], 2 * (1 / 2) * 1 / (1 / 2 + 1)),  # "a" is an article
        ("triviaqa", "\n\nParis\nLondon", ["Paris"], 1.0),  # the first line only, leading newlines dropped
        ("qasper", "\n\nParis\nLondon", ["Paris"], 2 * 0.5 / 1.5),
        ("passage_count", "There are 5 or 05 or 7", ["5"], 1 / 3),  # compared as they are written
        ("passage_count", "none", ["5"], 0.0),
        ("passage_retrieval_en", "Paragraph 12, not 3", ["Paragraph 12"], 0.5),
        ("passage_retrieval_en", "Paragraph 012", ["Paragraph 12"], 0.0),
        ("passage_retrieval_zh", "段落7", ["段落7"], 1.0),
        ("lcc", "```python\n# no\nx = 1\ny = 2", ["x = 1"], 1.0),
        ("lcc", "", ["x"], 0.0),
        ("lcc", "# only\n// comments", ["x"], 0.0),
        ("lcc", "abcd", ["bcde"], 0.75),
    ],
)
def test_longbench_scores(task: str, prediction: str, answers: list[str], score: float) -> None:
    assert longbench_score(task, prediction, answers, {"all_classes": None}) == pytest.approx(score, abs=1e-12)


@pytest.mark.parametrize(
    ("prediction", "reference", "score"),
    [
        ("Sport", "Sport", 1.0),
        ("sport", "Sport", 0.0),  # case counts
        ("Sport or Food", "Sport", 0.5),
        # "Food" is a part of the right name and goes; while it goes, "Food event" is passed over and stays
        ("Food event and drink", "Food event", 1.0),
        ("Food and drink", "Food event", 0.0),
    ],
)
def test_classes_are_counted_as_the_original_loop_does(prediction: str, reference: str, score: float) -> None:
    assert classification(prediction, reference, {"all_classes": CLASSES}) == score


def test_a_neighbour_is_passed_over_when_a_class_is_taken_out_of_the_list_that_is_walked_through() -> None:
    """Both `A` and `A B` are parts of `A B C`; after `A` goes, the loop steps over `A B`, which counts."""
    assert classification("A B C", "A B C", {"all_classes": ["A", "A B", "A B C"]}) == 0.5
    assert classification("A B C", "A B C", {"all_classes": ["A", "A B C", "A B"]}) == 1.0


def test_code_is_compared_in_whole_percents() -> None:
    assert code_similarity("x = foo(1)", "x = foo(12)", {}) == round(100 * 20 / 21) / 100


def test_rouge_is_that_of_the_package_rouge_and_empty_answers_are_zero() -> None:
    pytest.importorskip("rouge")
    assert longbench_score("gov_report", "", ["a report"], {}) == 0.0
    assert longbench_score("gov_report", "the cat sat", ["the cat sat"], {}) == pytest.approx(1.0, abs=1e-6)
    # of 3 and 4 words, 2 in order: the package's f has 1e-8 in its denominator
    expected = 2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4 + 1e-8)
    assert longbench_score("samsum", "dogs chase cats\nmore", ["dogs rarely chase birds"], {}) == pytest.approx(
        expected
    )


def test_chinese_is_cut_by_jieba_and_its_punctuation_dropped() -> None:
    pytest.importorskip("jieba")
    assert longbench_score("multifieldqa_zh", "北京，", ["北京"], {}) == 1.0
    assert longbench_score("multifieldqa_zh", "上海", ["北京"], {}) == 0.0


@pytest.mark.parametrize(
    ("response", "choice"),
    [
        ("The correct answer is (B).", "B"),
        ("**The correct answer is C**", "C"),
        ("The correct answer is D. The correct answer is (A)", "A"),  # brackets first
        ("the correct answer is (B)", None),
        ("B", None),
    ],
)
def test_a_choice_is_read_from_the_sentence_that_was_asked_for(response: str, choice: str | None) -> None:
    assert longbench_v2_choice(response) == choice


def test_mrcr_is_zero_without_the_prefix_and_a_ratio_with_it() -> None:
    assert mrcr_grade("xYzPoem about tapirs", "xYzPoem about tapirs", "xYz") == 1.0
    assert mrcr_grade("Poem about tapirs", "xYzPoem about tapirs", "xYz") == 0.0
    assert mrcr_grade(" xYzabcd", "xYzabcd", "xYz") == 0.0
    assert mrcr_grade("xYzabcd", "xYzbcde", "xYz") == 0.75


def test_helmet_reads_answers_and_rankings_as_its_utils_do() -> None:
    assert helmet.parse_output("Sure. Answer: answer: Paris\nmore", "Answer:") == "Paris"
    assert helmet.parse_output("Paris\nmore", "Answer:") == "Paris"
    assert helmet.substring_exact_match("It is the Eiffel-Tower!", ["eiffeltower"]) == 1.0
    assert helmet.exact_match("Label", ["the label"]) == 1.0
    assert helmet.parse_ranking("Ranking: [ID: 3] > ID1 > ID3 > 2") == ["3", "1", "2"]
    assert helmet.parse_ranking("nothing") == ["nothing"]


def test_ndcg_uses_labels_as_gains() -> None:
    labels: dict[str, Any] = {"a": 3, "b": 2, "c": 0}
    assert helmet.ndcg(["a", "b", "c"], labels) == 1.0
    best = 3 + 2 / 1.584962500721156
    assert helmet.ndcg(["b", "a"], labels) == pytest.approx((2 + 3 / 1.584962500721156) / best)
    assert helmet.ndcg(["x"], {"a": 0}) == 0.0
