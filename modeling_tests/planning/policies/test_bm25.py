# SPDX-License-Identifier: Apache-2.0
"""Passages by the question's words."""

from __future__ import annotations

import logging
import unicodedata

import pytest
from growth import check_growth
from planning_samples import PROSE, Pages, plan, texts

from transformers_hybridctx.planning.passages import passages_of, telling_passages
from transformers_hybridctx.planning.policies import bm25
from transformers_hybridctx.planning.policies.bm25 import BM25Policy, bm25_words
from transformers_hybridctx.planning.policies.registry import resolve_text_policy


def test_bm25_copies_the_passages_that_answer_in_document_order() -> None:
    made = plan(PROSE * 8, policy={"name": "bm25", "passage_chars": 80, "top_k": 3})
    assert len(made.spans) <= 3
    assert all("green-lemur" in text for text in texts(made))
    assert [span.page for span in made.spans] == [span.start // 100 for span in made.spans]


def test_bm25_needs_words_in_its_question() -> None:
    with pytest.raises(ValueError, match=r"'bm25' ranks .* words, and there is no question: ask one"):
        plan(policy="bm25", question=None)


def test_bm25_finds_passages_in_an_unspaced_script() -> None:
    text = "她在图书馆里读书。" * 20 + "密码是蓝色大象。" + "他们走进了花园。" * 20
    made = plan(text, policy={"name": "bm25", "passage_chars": 20, "top_k": 1}, question="密码是什么？")
    assert "密码是蓝色大象" in texts(made)[0]


def test_words_joined_by_hyphens_count_whole_and_in_parts() -> None:
    assert bm25_words("Green-Lemur") == ["green-lemur", "green", "lemur"]
    assert bm25_words("图书馆") == ["图书", "书馆"]


def test_bm25_is_quiet(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        plan(policy="bm25")
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_bm25_copies_a_short_document_whole_though_the_question_is_in_other_words() -> None:
    text = "合同编号是 4471-88。" * 3
    ranges = resolve_text_policy("bm25").rank(Pages(text), "What is the number?")
    assert sum(end - start for start, end in ranges) == len(text)


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        (unicodedata.normalize("NFD", "Zéphyrinété"), "Zéphyrinété"),
        ("Zéphyrinété", unicodedata.normalize("NFD", "zéphyrinété")),
        ("refrigera-\ntor", "refrigerator"),
        ("re\u00adfrige\u00adrator", "refrigerator"),
        ("refri\u200bgerator", "refrigerator"),
        ("ﬁreﬂy", "firefly"),
        ("ＡＢＣ１２３", "abc123"),
        ("1,234,567", "1234567"),
        ("1234567", "1,234,567"),
        ("1.234.567", "1234567"),
        ("1\u202f234\u202f567", "1,234,567"),
        ("STRASSE", "Straße"),
    ],
)
def test_words_are_found_in_any_of_their_forms(written: str, asked: str) -> None:
    text = f"{PROSE * 4}The door of {written} is open. {PROSE * 4}"
    policy = BM25Policy(passage_chars=60, top_k=1)
    ((start, end),) = policy.rank(Pages(text), f"{asked}?")
    assert written in text[start:end]


def test_a_question_without_a_word_ranks_nothing_and_is_no_error() -> None:
    assert plan(PROSE * 8, policy="bm25", question="?").spans == ()
    assert len(plan("One passage.", policy="bm25", question="👍").spans) == 1
    with pytest.raises(ValueError, match="nothing of the document"):
        plan(PROSE * 8, policy="bm25", question="...", visual_share=0)


def test_a_document_is_cut_into_passages_once_for_all_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = []
    monkeypatch.setattr(bm25, "telling_passages", lambda text, chars: cut.append(chars) or passages_of(text, chars))
    document = Pages(PROSE * 4)
    one = [BM25Policy().rank(document, f"{word}?") for word in ("green-lemur", "Zebulon", "555-0199")]
    assert cut == [300]
    assert one == [BM25Policy().rank(Pages(PROSE * 4), f"{word}?") for word in ("green-lemur", "Zebulon", "555-0199")]


@pytest.mark.parametrize("pattern", ["word ", "word. ", "a", "中", "7", "1,234", "ab-\n", "a-", "\n", "e\u0301"])
def test_ranking_takes_time_in_proportion_to_the_text(pattern: str) -> None:
    policy = BM25Policy(passage_chars=16, top_k=10**6)
    check_growth(lambda text: policy.rank(Pages(text), "word a 中 7"), lambda n: f"x{pattern * n}y", 4_000)


def test_a_table_of_contents_is_no_passage() -> None:
    titles = [f"{n}. Termination of part {n}" for n in range(1, 30)]
    contents = "\n".join(f"{title} {'.' * 30} {3 * n}" for n, title in enumerate(titles)) + "\n\n"
    body = "\n\n".join(
        f"{title}\nEither party may end it with {n} days' notice. It was so." for n, title in enumerate(titles)
    )
    made = plan(
        contents + body, policy={"name": "bm25", "passage_chars": 80, "top_k": 2}, question="Termination of part 17?"
    )
    assert made.spans and not any("....." in text for text in texts(made))
    alone = plan(
        contents, policy={"name": "bm25", "passage_chars": 80, "top_k": 2}, question="Termination of part 17?"
    )
    assert any("part 17 ...." in text for text in texts(alone)), "there is nothing else"


def test_dots_that_lead_nowhere_are_a_passage() -> None:
    text = "And so ... he waited .... for the lemur ....\n" * 30
    assert telling_passages(text, 80) == passages_of(text, 80)
