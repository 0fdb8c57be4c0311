# SPDX-License-Identifier: Apache-2.0
"""Needles stand where they are said to stand, and held-out keys share no word with the training's."""

from __future__ import annotations

from random import Random

import pytest

from transformers_hybridctx.evaluation.needles import TASKS, Task, _words, draw_haystack, draw_key, make_example

PROSE = (
    " ".join(
        f"Sentence number {word} ends here."
        for word in ["one", "two", "three", "four", "five", "six", "seven", "eight"]
    )
    * 30
)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("seed", range(5))
def test_answers_stand_in_the_document_where_their_spans_say(task: Task, seed: int) -> None:
    example = make_example(Random(seed), PROSE, task)
    for answer, (start, end) in zip(example.answers, example.answer_spans, strict=True):
        assert example.document[start:end] == answer
        assert "One of the special magic" in example.document[start - 80 : start]
    assert example.is_exact(", ".join(example.answers))
    assert not example.is_exact(", ".join(example.answers) + ", 12345")
    assert not example.is_exact(example.answers[0][:-1])


@pytest.mark.parametrize("task", TASKS)
def test_hiding_needles_changes_nothing_of_the_haystack(task: Task) -> None:
    example = make_example(Random(3), PROSE, task)
    left = example.document
    for sentence in [s for s in left.split(". ") if s.startswith("One of the special magic")]:
        left = left.replace(f"{sentence}. ", "")
    assert left.split() == PROSE.split()


@pytest.mark.parametrize(
    ("task", "count"), [("single_number", 1), ("multivalue", 3), ("multiquery", 2), ("multikey", 1)]
)
def test_a_task_asks_for_as_many_answers_as_it_says(task: Task, count: int) -> None:
    assert len(make_example(Random(0), PROSE, task).answers) == count


def test_other_keys_stand_beside_the_asked_one_in_multikey() -> None:
    assert make_example(Random(0), PROSE, "multikey", distractors=3).document.count("One of the special magic") == 4


def test_held_out_words_are_never_drawn_in_training() -> None:
    for held_out, trained in zip(_words(True), _words(False), strict=True):
        assert not set(held_out) & set(trained)
    rng = Random(0)
    adjectives, nouns = (set(words) for words in _words(True))
    for _ in range(200):
        adjective, noun = draw_key(rng, held_out=False).split("-")
        assert adjective not in adjectives and noun not in nouns


@pytest.mark.parametrize("num_chars", [50, 400, 3000])
def test_a_haystack_is_a_piece_of_the_prose_of_about_the_asked_length(num_chars: int) -> None:
    piece = draw_haystack(Random(1), PROSE, num_chars)
    assert piece in PROSE
    assert 0 < len(piece) <= num_chars


def test_examples_are_a_function_of_the_seed() -> None:
    assert make_example(Random("a"), PROSE, "multikey") == make_example(Random("a"), PROSE, "multikey")
