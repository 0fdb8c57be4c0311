# SPDX-License-Identifier: Apache-2.0
"""Questions share no content word with the passage that answers them: neither a search nor a guess finds the answer."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import pytest

from recipes.hybridctx_tiny import tasks as recipe
from recipes.hybridctx_tiny.wordings import CHAINS, Sentences
from transformers_hybridctx.evaluation import indirect
from transformers_hybridctx.evaluation.indirect import (
    CHOICES,
    COUNTS,
    EXCEPTIONS,
    FAR_APART,
    HOPS,
    INDIRECT_TASKS,
    PARAPHRASES,
    SPELLED,
    IndirectTask,
    content_words,
    make_indirect,
    stems,
)
from transformers_hybridctx.evaluation.needles import NeedleExample, draw_haystack, needle_question, needle_sentence
from transformers_hybridctx.planning.policies.bm25 import BM25Policy
from transformers_hybridctx.processing_hybridctx import HybridCtxProcessor

ROOT = Path(__file__).parents[2]
PROSE = (ROOT / "examples" / "persuasion.txt").read_text(encoding="utf-8")
WORDINGS = [
    *(wording for group in (HOPS, COUNTS, PARAPHRASES) for wording in group),
    *((statement, *kinds, question) for statement, kinds, question in EXCEPTIONS),
]


ANSWERING = [wording[-2] for wording in (*HOPS, *COUNTS, *PARAPHRASES)] + [wording[0] for wording in EXCEPTIONS]
STATEMENT = re.compile("|".join(re.sub(r"\\{\w+\\}", r"[\\w-]+", re.escape(one)) for one in ANSWERING))


def passage_of(example: NeedleExample) -> str:
    """The statement that holds the answer."""
    ((start, end),) = example.answer_spans
    found = [one for one in STATEMENT.finditer(example.document) if one.start() <= start and end <= one.end()]
    (statement,) = found
    return statement[0]


def example_of(task: IndirectTask, seed: int, num_chars: int = 8000) -> NeedleExample:
    rng = Random(f"{task} {seed}")
    return make_indirect(rng, draw_haystack(rng, PROSE, num_chars), task)


@pytest.mark.parametrize("task", INDIRECT_TASKS)
def test_no_content_word_of_a_question_stands_in_the_passage_that_answers_it(task: IndirectTask) -> None:
    for seed in range(40):
        example = example_of(task, seed)
        ((start, end),) = example.answer_spans
        assert example.document[start:end] == example.answers[0]
        assert example.document.count(example.answers[0]) == 1
        asked, said = stems(example.question), stems(passage_of(example))
        assert asked and not asked & said, (example.question, passage_of(example))


def test_wordings_share_no_stem_with_their_questions() -> None:
    for *statements, question in WORDINGS:
        asked = stems(question.format(name="", spelled=""))
        assert asked and not asked & stems(" ".join(statements)), question


def test_no_content_word_of_the_wordings_was_trained_on() -> None:
    trained = [*recipe.ATTRIBUTES, *recipe.STATEMENTS, *recipe.QUERIES, *recipe.FIELD_QUERIES, *recipe.QUOTE_QUERIES]
    trained += [needle_sentence("numbers", "", ""), needle_question("numbers", [""], several=False)]
    fields = {"key", "attribute", "value", "label", "country", "prefix", "name", "alias", "count", "spelled", "kind"}
    known = content_words(" ".join(trained)) - fields
    ours = content_words(" ".join(part for wording in WORDINGS for part in wording)) - fields
    assert not known & ours, known & ours


def test_no_sentence_of_the_training_says_what_one_of_these_says() -> None:
    rng, sentences = Random(0), Sentences()
    trained = [*recipe.STATED, *((chain.first, chain.second, chain.question) for chain in CHAINS)]
    trained += [sentences.draw(rng) for _ in range(1500)]
    ours = [stems(_without_slots(*wording)) - {"many", "much"} for wording in WORDINGS]
    for wording in trained:
        known = stems(_without_slots(*wording))
        assert all(len(known & one) < 2 for one in ours), wording


def _without_slots(*parts: str) -> str:
    return re.sub(r"\{\w*\}", " ", " ".join(parts))


@pytest.mark.parametrize("task", INDIRECT_TASKS)
def test_one_of_eight_statements_of_a_form_answers(task: IndirectTask) -> None:
    for seed in range(10):
        example = example_of(task, seed)
        said = [one[0] for one in STATEMENT.finditer(example.document)]
        assert len(said) == CHOICES
        form = r"\b\d{7}\b" if task in ("second_hop", "paraphrase") else r"\b[a-z]+-[a-z]+\b"
        answers = {re.search(form, one)[0] for one in said}  # type: ignore[index]
        assert len(answers) == CHOICES and example.answers[0] in answers


def test_the_question_is_answered_by_what_it_asks_for() -> None:
    hop = example_of("second_hop", 1)
    (name,) = re.findall(r"\b[a-z]+-[a-z]+\b", hop.question)
    (first,) = (one for one in re.split(r"(?<=[.!?])\s+", hop.document) if name in one)
    alias = next(one for one in re.findall(r"\b[a-z]+-[a-z]+\b", first) if one != name)
    assert alias in passage_of(hop) and name not in passage_of(hop)
    assert abs(hop.document.index(first) - hop.answer_spans[0][0]) >= FAR_APART - len(first) - 100
    value = example_of("by_value", 1)
    spelled = next(number for number, words in SPELLED.items() if words in value.question)
    assert f" {spelled} " in passage_of(value)
    odd = example_of("odd_one_out", 1)
    rest = passage_of(odd).removeprefix(odd.answers[0])
    assert odd.document.count(rest) == 1


def test_a_search_by_words_is_near_chance(processor: HybridCtxProcessor) -> None:
    """What bm25 copies, a fifth of the document, holds the answer no more often than a fifth of the text would."""
    found = 0
    for task in INDIRECT_TASKS:
        for seed in range(15):
            example = example_of(task, seed)
            document = processor.read_document(example.document)
            ranked = BM25Policy(top_k=4).rank(document, example.question)
            found += any(start <= example.answer_spans[0][0] < end for start, end in ranked)
    assert found <= 0.25 * 15 * len(INDIRECT_TASKS)


def test_a_short_text_has_its_hops_as_far_apart_as_it_can() -> None:
    example = make_indirect(Random(0), "It was the best of times. It was the worst of times. " * 3, "second_hop")
    assert example.answers[0] in example.document


def test_examples_are_drawn_by_the_seed_alone() -> None:
    assert example_of("paraphrase", 3) == example_of("paraphrase", 3) != example_of("paraphrase", 4)
    assert set(indirect.SPELLED) == {number for number in range(21, 100) if number % 10}
