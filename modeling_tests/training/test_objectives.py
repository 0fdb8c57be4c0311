# SPDX-License-Identifier: Apache-2.0
"""Labels, read token by token: what the model has to say is learned, and nothing else."""

from __future__ import annotations

import json
import os
from copy import copy
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from transformers_hybridctx import ContextBudget, HybridCtxProcessor
from transformers_hybridctx.bundled_checkpoint import BUNDLED_CHECKPOINT
from transformers_hybridctx.planning.policies.registry import resolve_text_policy
from transformers_hybridctx.training.config import TrainingConfig
from transformers_hybridctx.training.examples import TrainingExamples
from transformers_hybridctx.training.objectives import IGNORE, OBJECTIVES, ExampleMaker
from transformers_hybridctx.training.readers.registry import DataSource
from transformers_hybridctx.training.records import TrainingRecord, TrainingTurn, UnusableRow
from transformers_hybridctx.training.starting_point import example_maker, model_config_of, processor_of
from transformers_hybridctx.training.unused import count_unused

CONTEXT = "It was the best of times. The code of room 7 is 42. It was the worst of times. " * 3
CODE = CONTEXT.index("42")
RECORD = TrainingRecord(
    CONTEXT,
    (
        TrainingTurn("Which code?", "42", ((CODE - 22, CODE + 2),)),
        TrainingTurn("Which room?", "room 7", ((CODE - 10, CODE - 4),)),
    ),
)


@pytest.fixture(scope="module")
def maker(processor: HybridCtxProcessor) -> ExampleMaker:
    ids = processor.tokenizer.convert_tokens_to_ids
    end = processor.tokenizer.eos_token_id
    borders = ids("<|begin_of_image|>"), ids("<|end_of_image|>")
    return ExampleMaker(processor, ContextBudget(), resolve_text_policy("anchors"), 600, end, borders)


def made(
    maker: ExampleMaker, objective: str, record: TrainingRecord = RECORD, channel: str = "both", seed: int = 0
) -> Any:
    return getattr(maker, objective)(record, Random(seed), None, channel)


def learned(maker: ExampleMaker, example: Any) -> list[str]:
    """What is learned, a string for each stretch of labels."""
    stretches: list[list[int]] = [[]]
    for label in example["labels"]:
        if label != IGNORE:
            stretches[-1].append(label)
        elif stretches[-1]:
            stretches.append([])
    return [maker.processor.tokenizer.decode(stretch) for stretch in stretches if stretch]


def test_every_answer_and_its_end_is_learned(maker: ExampleMaker) -> None:
    example = made(maker, "answer")
    assert learned(maker, example) == ["42<|endoftext|>", "room 7<|endoftext|>"]
    asked = [label for label in example["labels"] if label != IGNORE]
    places = [index for index, label in enumerate(example["labels"]) if label != IGNORE]
    assert [example["input_ids"][place] for place in places] == asked  # not shifted: the model does that
    assert len(example["input_ids"]) == len(example["labels"])


def test_the_last_answer_ends_as_those_before_it() -> None:
    """GLM-4.1V may also end with </answer>, which its config names last."""
    settings = TrainingConfig("out", (DataSource("json_lines", "a"),), {"max_steps": 1}, text_policy="anchors")
    model_config, processor = model_config_of(settings), processor_of(settings)
    user = processor.tokenizer.convert_tokens_to_ids("<|user|>")
    for ends in ([1, user, 3, 4], user):
        model_config.text_config.eos_token_id = ends
        bundled = example_maker(settings, processor, model_config)
        assert learned(bundled, made(bundled, "answer")) == ["42<|user|>", "room 7<|user|>"]
    model_config.text_config.eos_token_id = [1, 3]
    assert example_maker(settings, processor, model_config).end_token_id == 3


def test_an_answer_with_reasoning_of_its_own_has_no_quotation_before_it(maker: ExampleMaker) -> None:
    reasoned = replace(RECORD.turns[0], answer="<think>The room is 7.</think>42")
    with pytest.raises(UnusableRow, match="reasoning of its own"):
        made(maker, "quote", replace(RECORD, turns=(RECORD.turns[1], reasoned)))
    assert learned(maker, made(maker, "answer", replace(RECORD, turns=(reasoned,)))) == [
        "<think>The room is 7.</think>42<|endoftext|>"
    ]


def test_an_example_begins_with_the_prompt_of_the_processor(maker: ExampleMaker) -> None:
    record = TrainingRecord(CONTEXT, RECORD.turns[:1], "Be short.")
    for channel, budget, policy in (
        ("both", {}, "anchors"),
        ("pages", {"visual_share": 1}, "none"),
        ("tokens", {"visual_share": 0, "max_text_tokens": 10**6}, "middle"),
    ):
        example = made(maker, "answer", record, channel)
        prompt = maker.processor(
            document=CONTEXT, question="Which code?", system="Be short.", budget=budget, text_policy=policy
        )
        assert example["input_ids"][: len(prompt["input_ids"][0])] == list(prompt["input_ids"][0])
        assert ("pixel_values" in example) == (channel != "tokens")
        if channel != "tokens":
            assert np.array_equal(example["pixel_values"], prompt["pixel_values"])
            assert np.array_equal(example["image_grid_thw"], prompt["image_grid_thw"])


def test_a_policy_that_looks_at_the_question_gets_one(processor: HybridCtxProcessor, maker: ExampleMaker) -> None:
    asking = ExampleMaker(
        processor, ContextBudget(), resolve_text_policy("bm25"), 600, maker.end_token_id, maker.image_borders
    )
    found = {tuple(learned(asking, made(asking, "answer", seed=seed))) for seed in range(9)}
    assert found == {("42<|endoftext|>",), ("room 7<|endoftext|>",)}


def test_evidence_is_quoted_as_the_document_has_it(maker: ExampleMaker) -> None:
    first, second = learned(maker, made(maker, "quote"))
    assert first == "<think>The code of room 7 is 42</think>42<|endoftext|>"
    assert second == "<think>room 7</think>room 7<|endoftext|>"
    with pytest.raises(UnusableRow, match="without evidence"):
        made(maker, "quote", TrainingRecord(CONTEXT, (TrainingTurn("Which?", "42"),)))
    # as SQuAD 2.0 asks of one text what it says and what it does not
    unknown = TrainingTurn("Who?", "not in the document")
    mixed = replace(RECORD, turns=(unknown, RECORD.turns[1], unknown))
    assert learned(maker, made(maker, "quote", mixed)) == ["<think>room 7</think>room 7<|endoftext|>"]
    assert all("Page 1 [" in learned(maker, made(maker, "locate", mixed, seed=seed))[0] for seed in range(4))


def test_boxes_are_the_renderers(maker: ExampleMaker) -> None:
    record = TrainingRecord(CONTEXT, RECORD.turns[1:])
    (said,) = learned(maker, made(maker, "locate", record))
    document = maker.processor.read_document(CONTEXT)
    lines = []
    for page, (left, top, right, bottom) in document.boxes(*RECORD.turns[1].evidence[0]):
        height, width = document.page_size(page)
        scaled = [round(1000 * part) for part in (left / width, top / height, right / width, bottom / height)]
        lines.append(f"Page {page + 1} {scaled}")
    assert said == "\n".join(lines) + "<|endoftext|>"


def test_what_is_read_back_stands_on_the_pages(maker: ExampleMaker) -> None:
    example = made(maker, "read_back")
    (said,) = learned(maker, example)
    assert said.removesuffix("<|endoftext|>") in CONTEXT and "pixel_values" in example


@pytest.mark.parametrize("seed", range(6))
def test_interleaved_text_is_learned_where_it_is_tokens(maker: ExampleMaker, seed: int) -> None:
    text = "\n\n".join(f"Paragraph {number}. " + "It was the best of times. " * 20 for number in range(12))
    roomy = ExampleMaker(
        maker.processor, maker.budget, maker.text_policy, 4000, maker.end_token_id, maker.image_borders
    )
    example = made(roomy, "interleaved", TrainingRecord(text), seed=seed)
    said = learned(roomy, example)
    assert said and all(piece in text for piece in said)
    image = roomy.processor.image_token_id
    visual = example["input_ids"].count(image)
    assert visual == int(np.prod(example["image_grid_thw"], axis=1).sum()) // 4
    assert all(label == IGNORE for token, label in zip(example["input_ids"], example["labels"]) if token == image)
    tokens = [token for token, label in zip(example["input_ids"], example["labels"]) if label != IGNORE]
    assert tokens == [label for label in example["labels"] if label != IGNORE]


def test_interleaved_text_begins_anywhere_in_a_long_one(maker: ExampleMaker) -> None:
    roomy = replace(maker, max_tokens=6000)
    record = TrainingRecord(" ".join(f"word{number}" for number in range(9000)))
    begun = {learned(roomy, made(roomy, "interleaved", record, seed=seed))[0].split()[0] for seed in range(3)}
    assert len(begun) == 3 and "word0" not in begun


def test_a_dialogue_is_drawn_only_where_it_is_too_long(maker: ExampleMaker) -> None:
    short = TrainingRecord("", (TrainingTurn("What is a page?", "A side."), TrainingTurn("And a leaf?", "Two.")))
    example = made(maker, "chat", short)
    assert "pixel_values" not in example and learned(maker, example) == ["A side.<|endoftext|>", "Two.<|endoftext|>"]
    long = TrainingRecord("", (TrainingTurn("Tell me.", "It was the best of times. " * 90), *short.turns[1:]))
    example = made(maker, "chat", long, channel="pages")
    assert "pixel_values" in example and learned(maker, example) == ["Two.<|endoftext|>"]


def test_of_many_questions_some_are_learned_where_all_are_too_long(maker: ExampleMaker) -> None:
    turns = tuple(TrainingTurn(f"Which code, {number}?", f"42 and {number} " * 8) for number in range(12))
    example = made(maker, "answer", TrainingRecord(CONTEXT, turns))
    said = learned(maker, example)
    right = [f"{turn.answer}<|endoftext|>" for turn in turns]
    assert 1 <= len(said) < 12 and len(example["input_ids"]) <= maker.max_tokens
    places = [right.index(answer) for answer in said]
    assert places == sorted(places)


@pytest.mark.parametrize("channel", ["both", "tokens"])
def test_a_budget_that_leaves_the_document_less_after_each_answer(maker: ExampleMaker, channel: str) -> None:
    text = "".join(f"The code of room {number} is {number * 37}. " for number in range(40))
    turns = tuple(TrainingTurn(f"Which code has {number}?", f"{number * 37}") for number in range(4))
    tight = replace(maker, budget=ContextBudget(max_context_tokens=260))
    example = made(tight, "answer", TrainingRecord(text, turns), channel)
    said = [answer.removesuffix("<|endoftext|>") for answer in learned(tight, example)]
    assert said and set(said) <= {turn.answer for turn in turns}


def test_a_template_that_leaves_earlier_reasoning_out(processor: HybridCtxProcessor, maker: ExampleMaker) -> None:
    """As those of reasoning models do: one answer is learned, as it is said."""
    other = copy(processor)
    other.chat_template = processor.chat_template.replace(
        "{% generation %}{{ message.content if", "{% generation %}{{ message.content.split('</think>')[-1] if"
    )
    forgetful = replace(maker, processor=other)
    (said,) = learned(forgetful, made(forgetful, "quote"))
    assert said in (
        "<think>The code of room 7 is 42</think>42<|endoftext|>",
        "<think>room 7</think>room 7<|endoftext|>",
    )
    dialogue = TrainingRecord(
        "", (TrainingTurn("One?", "<think>a</think>b"), TrainingTurn("Two?", "<think>c</think>d"))
    )
    assert learned(forgetful, made(forgetful, "chat", dialogue)) == ["<think>c</think>d<|endoftext|>"]


@pytest.mark.parametrize("objective", ["answer", "quote", "chat", "read_back", "interleaved"])
def test_what_a_data_set_says_writes_no_special_token(objective: str) -> None:
    """With the bundled checkpoint's tokenizer, for which the marks around reasoning are tokens."""
    processor = HybridCtxProcessor.from_pretrained(BUNDLED_CHECKPOINT)
    ids = processor.tokenizer.convert_tokens_to_ids
    borders = ids("<|begin_of_image|>"), ids("<|end_of_image|>")
    end = processor.tokenizer.eos_token_id
    maker = ExampleMaker(processor, ContextBudget(), resolve_text_policy("anchors"), 9000, end, borders)
    evil = "It is <|image|> or <|endoftext|> or <|user|>. " * 3
    answer = evil if objective == "quote" else f"<think>{evil}</think>{evil}"
    turn = TrainingTurn(evil, answer, ((0, len(evil)),) if objective != "chat" else ())
    record = TrainingRecord({"interleaved": evil * 60, "chat": ""}.get(objective, evil), (turn,))
    if objective == "chat":  # without a document, a message is parsed as in transformers
        with pytest.raises(UnusableRow, match="processor refuses"):
            made(maker, objective, record)
        record = TrainingRecord("", (replace(turn, question="What is it?"),))
    example = made(maker, objective, record)
    if objective == "answer":  # what the processor does not take ends no run
        with pytest.raises(UnusableRow, match="processor refuses"):
            made(maker, objective, replace(record, system=evil))
    specials = set(processor.tokenizer.all_special_ids)
    said = [label for label in example["labels"] if label != IGNORE]
    assert said and specials & set(said[:-1]) == set()
    assert (said[-1] == end) == (objective != "interleaved")
    if objective in ("answer", "chat", "quote"):
        assert said[0] == ids("<think>") and said.count(ids("</think>")) == 1
    visual = example["input_ids"].count(processor.image_token_id)
    assert visual == int(np.prod(example.get("image_grid_thw", np.zeros((0, 3))), axis=1).sum()) // 4


def test_what_does_not_fit_is_not_used(maker: ExampleMaker) -> None:
    with pytest.raises(UnusableRow, match="longer than max_tokens"):
        made(maker, "answer", TrainingRecord(CONTEXT, (TrainingTurn("Which?", "It was the best. " * 200),)))
    with pytest.raises(UnusableRow, match="no question"):
        made(maker, "answer", TrainingRecord(CONTEXT))


def examples(maker: ExampleMaker, **options: Any) -> TrainingExamples:
    rows = [TrainingRecord(f"{CONTEXT} {number}", RECORD.turns, None, str(number)).as_row() for number in range(5)]
    given: dict[str, Any] = {
        "sources": [rows],
        "weights": [1.0],
        "objectives": {"answer": 1, "read_back": 1},
        "channels": {"both": 1, "pages": 1},
        "length": 12,
        "unused_path": Path(os.devnull),
    }
    return TrainingExamples(maker=maker, **given | options)


def test_examples_follow_from_the_seed_alone(maker: ExampleMaker) -> None:
    one, other = examples(maker), examples(maker)
    backwards = [other[index] for index in reversed(range(12))][::-1]
    for index in range(12):
        assert one[index]["input_ids"] == backwards[index]["input_ids"]
        assert np.array_equal(one[index]["pixel_values"], backwards[index]["pixel_values"])
    assert any(one[index]["input_ids"] != examples(maker, seed=1)[index]["input_ids"] for index in range(12))


def test_an_epoch_has_every_record_once(maker: ExampleMaker) -> None:
    found = examples(maker)
    order = [int(found._record(index).source) for index in range(10)]
    assert sorted(order[:5]) == sorted(order[5:]) == list(range(5)) and order[:5] != order[5:]


def test_a_record_is_used_for_what_it_can_teach(maker: ExampleMaker, tmp_path: Path) -> None:
    """Whatever weighs most: a source is drawn as often as its weight says, and nothing of it is left out."""
    asked = TrainingTurn("Which code?", "42")
    rows = [
        TrainingRecord("", (asked,), None, "chat"),
        TrainingRecord(CONTEXT, (), None, "read_back"),
        TrainingRecord(CONTEXT, (asked,), None, "answer"),
        TrainingRecord(CONTEXT, RECORD.turns, None, "quote"),
    ]
    unused = tmp_path / "unused.jsonl"
    seen = []

    def noted(objective: str) -> Any:
        return lambda maker, record, *_: seen.append((record.source, objective))

    with pytest.MonkeyPatch.context() as patch:
        for name in OBJECTIVES:
            patch.setitem(OBJECTIVES, name, noted(name))
        objectives = {"interleaved": 0, "quote": 1000, "answer": 5, "chat": 1e-3, "read_back": 1e-6}
        tables = [[row.as_row() for row in rows]]
        found = examples(maker, sources=tables, objectives=objectives, length=400, unused_path=unused)
        assert [found[index] for index in range(400)] == [None] * 400
    assert {name: seen.count((name, name)) for name in ("chat", "read_back")} == {"chat": 100, "read_back": 100}
    assert seen.count(("answer", "answer")) > 95 and seen.count(("quote", "quote")) > 95 and not unused.exists()


def test_what_is_not_used_is_written_down(maker: ExampleMaker, tmp_path: Any) -> None:
    path = tmp_path / "unused.jsonl"
    rows = [
        TrainingRecord(CONTEXT, (), None, "bare").as_row(),
        TrainingRecord(CONTEXT, RECORD.turns, None, "a").as_row(),
    ]
    options: Any = {"objectives": {"answer": 1}, "channels": {"pages": 1}, "length": 6, "unused_path": path}
    found = TrainingExamples([rows], [1.0], maker, **options)
    assert all(learned(maker, found[index]) for index in range(6))
    lines = path.read_text().splitlines()
    assert len(lines) > 1  # for each time that it was drawn, and once after it was counted
    assert count_unused(path) == count_unused(path) == {"answer: no question about a document": 1}
    reason = "no question about a document"
    assert json.loads(path.read_text()) == {"source": "bare", "objective": "answer", "reason": reason}
    assert count_unused(tmp_path / "nothing") == {}
    hopeless = TrainingExamples([rows[:1]], [1.0], maker, **options)
    with pytest.raises(ValueError, match=r"could not be used for answer: see .*unused\.jsonl"):
        hopeless[0]


def test_names_that_there_are_not(maker: ExampleMaker) -> None:
    with pytest.raises(ValueError, match=r"magic.*answer"):
        examples(maker, objectives={"magic": 1})
    with pytest.raises(ValueError, match=r"sound.*both"):
        examples(maker, channels={"sound": 1})
