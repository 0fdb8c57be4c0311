# SPDX-License-Identifier: Apache-2.0
"""Runs: every sample in every context, what is kept of each, stopping and going on, and failures that count."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from sample_questions import DOCUMENT, QUESTIONS
from transformers import LlamaConfig, LlamaForCausalLM

from transformers_hybridctx import LongDocQAPipeline, evaluation
from transformers_hybridctx.evaluation.contexts import Context, make_contexts, parse_context
from transformers_hybridctx.evaluation.models import HybridModel, Reply
from transformers_hybridctx.evaluation.records import RECORDS, Record, RecordFile, read_records
from transformers_hybridctx.evaluation.samples import Sample
from transformers_hybridctx.evaluation.suites.base import Suite


class Questions(Suite):
    """Three questions on one document and one on another."""

    name: ClassVar[str] = "questions"
    metric: ClassVar[str] = "says so"

    def samples(self, tokenizer: Any) -> list[Sample]:
        asked = [Sample(DOCUMENT, question, " It is", ("a",), "first", 4) for question in QUESTIONS]
        return [*asked, Sample("It was the age of wisdom.", QUESTIONS[1], "", ("zebra",), "second", 4)]

    def score(self, sample: Sample, answer: str) -> float:
        return float(sample.answer[0] in answer)


class Parrot:
    """A model without a model: says which question it was asked, and stops the run when told to."""

    name, weights, tokenizer, device = "parrot", "0", None, torch.device("cpu")

    def __init__(self, stop_after: int | None = None) -> None:
        self.asked: list[str] = []
        self.stop_after = stop_after

    def answers(
        self, samples: list[Sample], context: Context, with_prefix: bool, **generation: Any
    ) -> Iterator[Reply | Exception]:
        for sample in samples:
            if len(self.asked) == self.stop_after:
                raise KeyboardInterrupt
            self.asked.append(sample.question)
            if "blue-heron" in sample.question:
                yield ValueError("a budget of 3 tokens is too small")
                continue
            spent = {"document": 50, "question": 5, "template": 5, "prompt": 20, "new": 2, "visual": 10, "text": 0}
            yield Reply(f"a {sample.question}", plan=spent, seconds={"first token": 0.5, "vision": 0.2})


CONTEXTS = make_contexts(["pages", "truncated"])


def test_records_and_the_table_have_every_sample_in_every_context(tmp_path: Path) -> None:
    table = evaluation.run(Questions(), Parrot(), CONTEXTS, out=tmp_path)
    records = read_records(tmp_path)
    assert len(records) == 8 and {record.context for record in records} == {"pages", "truncated"}
    pages = table.rows[0]
    assert pages.context == "pages" and pages.counts == {"first": 3, "second": 1}
    assert pages.scores == {"first": pytest.approx(2 / 3), "second": 0.0}  # "a" is in both answers; the failure is 0
    assert pages.failures == 1 and pages.first_failure == "ValueError: a budget of 3 tokens is too small"
    assert pages.effective_ratio == 60 / 20 and pages.prompt_tokens == 20
    assert pages.seconds["first token"] == 0.5 and pages.seconds["without vision"] == pytest.approx(0.3)
    low, high = pages.intervals["all"]
    assert 0 < low < 0.5 < high < 1
    assert table.same_cost() == [("pages", "truncated")]
    lines = table.to_markdown().splitlines()
    assert len(lines) == 4 and "66.7%" in lines[2] and "3.00" in lines[2]


def test_a_run_that_was_killed_goes_on_and_gives_the_same_table(tmp_path: Path) -> None:
    whole = evaluation.run(Questions(), Parrot(), CONTEXTS)
    first = Parrot(stop_after=5)
    with pytest.raises(KeyboardInterrupt):
        evaluation.run(Questions(), first, CONTEXTS, out=tmp_path)
    file = tmp_path / RECORDS
    assert len(file.read_text().splitlines()) == 5
    with file.open("a") as opened:
        opened.write('{"sample": "torn')  # killed while it was writing
    second = Parrot()
    assert evaluation.run(Questions(), second, CONTEXTS, out=tmp_path) == whole
    assert len(second.asked) == 3
    third = Parrot()
    assert evaluation.run(Questions(), third, CONTEXTS, out=tmp_path) == whole and third.asked == []


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    evaluation.run(Questions(), Parrot(), CONTEXTS, out=tmp_path)
    with pytest.raises(ValueError, match="holds another run: contexts is"):
        evaluation.run(Questions(), Parrot(), make_contexts(["tokens"]), out=tmp_path)
    with pytest.raises(ValueError, match="holds another run: seed is 42 there and 7 here"):
        evaluation.run(Questions(seed=7), Parrot(), CONTEXTS, out=tmp_path)
    trained = Parrot()
    trained.weights = "1"  # under the same name
    with pytest.raises(ValueError, match="holds another run: weights is '0' there and '1' here"):
        evaluation.run(Questions(), trained, CONTEXTS, out=tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / RECORDS).write_text("")
    with pytest.raises(ValueError, match="it is no run of this command"):
        evaluation.run(Questions(), Parrot(), CONTEXTS, out=other)
    (tmp_path / RECORDS).write_text('{"a": 1}\n')
    with pytest.raises(ValueError, match=r"line 1 of .* is no record"):
        read_records(tmp_path)


def test_a_real_model_says_the_same_whether_its_document_is_read_once_or_each_time(pipe: LongDocQAPipeline) -> None:
    model = HybridModel(pipe)
    samples = Questions().samples(None)[:3]
    context = Context("pages")
    together = list(model.answers(samples, context, False))
    apart = [reply for sample in samples for reply in model.answers([sample], context, False)]
    for one, other in zip(together, apart, strict=True):
        assert isinstance(one, Reply) and isinstance(other, Reply)
        assert (one.answer, one.prompt, one.plan) == (other.answer, other.prompt, other.plan)
        parts = ("visual", "latent", "text", "question", "template")
        assert one.plan["prompt"] == sum(one.plan[part] for part in parts)
        assert one.seconds["first token"] > 0 and len(one.prompt) == 16
    assert "read" in together[0].seconds and "read" not in together[1].seconds  # type: ignore[union-attr]


def test_contexts_are_what_they_are_called(pipe: LongDocQAPipeline) -> None:
    model = HybridModel(pipe)
    (sample,) = Questions().samples(None)[:1]

    def plan(context: Context) -> dict[str, Any]:
        (reply,) = model.answers([sample], context, False)
        assert isinstance(reply, Reply), reply
        return reply.plan

    pages, tokens = plan(Context("pages")), plan(Context("tokens", budget=50))
    assert pages["text"] == 0 and pages["visual"] > 0
    assert tokens["visual"] == 0 and tokens["text"] >= tokens["document"]  # whole, whatever the budget is
    truncated = plan(Context("truncated", budget_share=0.5))
    assert truncated["visual"] == 0 and 0 < truncated["prompt"] <= round(tokens["document"] / 2)
    hybrid = plan(Context("hybrid", "bm25"))
    assert hybrid["visual"] == pages["visual"] and hybrid["text"] > 0
    assert plan(Context("bm25-only"))["text"] == hybrid["text"] and plan(Context("bm25-only"))["visual"] == 0
    assert plan(Context("pages", blank_pages=True)) == pages
    assert all(one["latent"] == 0 for one in (pages, tokens, truncated, hybrid))
    (reply,) = model.answers([sample], Context("latents"), False)
    assert "latent_share=1: this checkpoint has no latent encoder" in str(reply)


def test_any_other_language_model_has_its_text_cut_in_the_middle(pipe: LongDocQAPipeline, tmp_path: Path) -> None:
    tokenizer = pipe.processor.tokenizer
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    contexts = [
        Context("tokens"),
        Context("truncated", budget=80),
        Context("truncated", budget_share=0.01),
        Context("pages"),
    ]
    assert contexts[1].label == contexts[2].label
    whole, cut, pages = evaluation.run(Questions(), str(tmp_path), [contexts[0], contexts[1], contexts[3]]).rows
    assert whole.failures == cut.failures == 0 and cut.prompt_tokens is not None and cut.prompt_tokens <= 80
    assert whole.prompt_tokens is not None and whole.effective_ratio == 1.0 and cut.effective_ratio is not None
    assert cut.effective_ratio > 1.5 and whole.seconds["first token"] > 0
    assert pages.failures == 4 and "is a text model" in str(pages.first_failure)
    (small,) = evaluation.run(Questions(), str(tmp_path), [contexts[2]]).rows
    assert "has no room beside a question" in str(small.first_failure)


def test_a_budget_that_cannot_be_met_is_a_failure_of_each_sample(pipe: LongDocQAPipeline) -> None:
    table = evaluation.run(Questions(), pipe, [Context("pages", budget=5)])
    assert table.rows[0].failures == 4 and "ContextBudgetError" in str(table.rows[0].first_failure)
    assert table.rows[0].prompt_tokens is None and table.rows[0].budget == 5
    assert table.rows[0].is_unmeasured and "%" not in table.to_markdown().splitlines()[-1]


def test_a_quotation_is_where_the_model_has_it() -> None:
    thinks = Context("pages", grounding="quote", quote_after="</think>")
    assert thinks.options(100)["grounding"] == {"begin": "</think>", "end": None}
    assert Context("pages", grounding="strings", quote_after="</think>").options(100)["grounding"] == "strings"
    assert Context("pages", grounding="quote").options(100)["grounding"] == "quote"


def test_contexts_are_refused_where_their_parts_make_no_sense() -> None:
    for make, message in [
        (lambda: Context("page"), "context 'page' is not one of 'pages'"),
        (lambda: Context("pages", grounding="quotes"), "grounding 'quotes' is not one of 'none', 'quote'"),
        (lambda: Context("pages", "bm25"), "has no policy"),
        (lambda: Context("hybrid", "bm52"), "unknown text policy 'bm52'"),
        (lambda: Context("truncated", blank_pages=True), "has no pages that could be blank"),
        (lambda: Context("pages", budget_share=0), "budget_share=0 must be above 0"),
        (lambda: Context("truncated", latent_share=0.5), "'truncated' has no latent_share of its own; 'pages', "),
        (lambda: Context("latents", latent_share=0.5), "'latents' has no latent_share of its own"),
        (lambda: Context("pages", latent_share=0), "latent_share=0 must be above 0, and 1 at most"),
        (lambda: Context("pages", latent_share=1.5), "latent_share=1.5 must be above 0, and 1 at most"),
        (lambda: parse_context("hybrid:bm25:pages_first:more"), "too many parts"),
        (lambda: evaluation.run(Questions(), Parrot(), [Context("pages")] * 2), "context 'pages' is given twice"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()


def test_every_combination_is_made_once() -> None:
    made = make_contexts(["pages", "truncated", "hybrid"], ["bm25"], ["none", "quote"], ["tokens_first"], True)
    assert [context.label for context in made] == [
        "pages",
        "pages, blank pages",
        "pages, held to quote",
        "pages, held to quote, blank pages",
        "truncated",
        "truncated, held to quote",
        "hybrid, bm25, tokens_first",
        "hybrid, bm25, tokens_first, blank pages",
        "hybrid, bm25, tokens_first, held to quote",
        "hybrid, bm25, tokens_first, held to quote, blank pages",
    ]
    assert [context.label for context in make_contexts()] == [
        "pages",
        "truncated",
        "bm25-only",
        "hybrid, anchors",
        "hybrid, bm25",
        "hybrid, attention",
    ]
    made = make_contexts(["pages", "latents", "truncated", "bm25-only", "hybrid"], ["bm25"], latent_shares=[0.25, 1])
    assert [context.label for context in made if context.has_latents] == [
        "pages, latents 0.25",
        "pages, latents 1",
        "latents",
        "bm25-only, latents 0.25",
        "bm25-only, latents 1",
        "hybrid, bm25, latents 0.25",
        "hybrid, bm25, latents 1",
    ]
    assert len(made) == 7 + 4
    assert parse_context("hybrid:bm25:tokens_first") == Context("hybrid", "bm25", "tokens_first")


def test_rows_have_the_six_columns_and_keys_tell_samples_apart() -> None:
    sample = Sample("c", "q", "p", ("a", "b"), "t", 5)
    assert list(sample.to_row()) == ["context", "question", "answer_prefix", "answer", "task", "max_new_tokens"]
    assert Sample.from_row(sample.to_row()) == sample
    assert Sample.from_row({**sample.to_row(), "answer": "a"}).answer == ("a",)
    assert sample.key == Sample.from_row(sample.to_row()).key != Sample("c", "q", "p", ("a",), "t", 5).key
    with pytest.raises(ValueError, match="no column 'task'"):
        Sample.from_row({"context": "c", "question": "q", "answer_prefix": "", "answer": "a"})
    with pytest.raises(ValueError, match="has no context"):
        Sample(" ", "q", "", ("a",), "t", 5)


def test_records_are_plain_json(tmp_path: Path) -> None:
    records = RecordFile(tmp_path, {"model": "m"})
    record = Record("key", "pages", "t", None, 0.5, answer="ü\ud800", details={"depth": 0.5})
    records.add(record)
    (line,) = (tmp_path / RECORDS).read_text(encoding="utf-8").splitlines()
    assert json.loads(line).keys() == asdict(record).keys()
    assert ("key", "pages") in RecordFile(tmp_path, {"model": "m"})


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85", "\x0c"])
def test_an_answer_may_hold_what_ends_lines_elsewhere(tmp_path: Path, end: str) -> None:
    whole = {one.name: None for one in fields(Record)} | {"answer": f"one{end}two"}
    line = json.dumps(whole, ensure_ascii=False)
    (tmp_path / RECORDS).write_text(f"{line}\n{line}\n", encoding="utf-8")
    assert [record.answer for record in read_records(tmp_path)] == [f"one{end}two"] * 2
