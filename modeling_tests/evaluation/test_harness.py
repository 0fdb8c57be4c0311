# SPDX-License-Identifier: Apache-2.0
"""lm-evaluation-harness with pages: what is drawn of a prompt, likelihoods, generation, and its own command line."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from command_line import run
from sample_questions import DOCUMENT, QUESTION

from transformers_hybridctx.evaluation.prompt_splitting import split_prompt


@pytest.mark.parametrize(
    ("prompt", "question"),
    [
        ("A text.\nMore.\n\nQuestion: Who wrote it then?\n\nAnswer:", "Question: Who wrote it then?\n\nAnswer:"),
        ("A text.\nWhat is the number for x?", "What is the number for x?"),
        ("One. Two is here. What is said of two?", "What is said of two?"),
        ("Just a question of six words?", "Just a question of six words?"),
        ("", ""),
    ],
)
def test_nothing_of_a_prompt_is_lost_and_its_last_lines_are_the_question(prompt: str, question: str) -> None:
    context, asked = split_prompt(prompt)
    assert asked == question and context + asked == prompt


def requests(*arguments: tuple[Any, ...]) -> list[Any]:
    return [SimpleNamespace(args=one) for one in arguments]


@pytest.fixture(scope="module")
def lm(checkpoint: Path) -> Any:
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is in the extra evaluate")
    from transformers_hybridctx.evaluation.harness import HybridCtxLM

    return HybridCtxLM(pretrained=str(checkpoint), min_context_tokens=20, text_policy="none")


def test_it_is_registered_under_its_name(lm: Any) -> None:
    from lm_eval.api.registry import get_model

    assert get_model("hybridctx") is type(lm)
    with pytest.raises(ValueError, match="hybridctx does not know budgets"):
        type(lm)(budgets=5)


def test_likelihoods_are_those_of_the_model_over_the_pages(lm: Any) -> None:
    prompt = f"{DOCUMENT}\n{QUESTION}"
    (score, greedy), (other, _) = lm.loglikelihood(requests((prompt, " 4821930"), (prompt, " no")))
    ids = lm.tokenizer(" 4821930", add_special_tokens=False)["input_ids"]
    features = lm.pipe.processor(document=f"{DOCUMENT}\n", question=QUESTION, text_policy="none", return_tensors="pt")
    assert "pixel_values" in features
    expected, kinds, mask = 0.0, features["mm_token_type_ids"], features["attention_mask"]
    for token in ids:  # one token after the other, each time from the start
        with torch.no_grad():
            logits = lm.pipe.model(**features).logits[0, -1].float().log_softmax(-1)
        expected += logits[token].item()
        step = torch.tensor([[token]])
        features["input_ids"] = torch.cat([features["input_ids"], step], 1)
        kinds = torch.cat([kinds, torch.zeros_like(step, dtype=kinds.dtype)], 1)
        mask = torch.ones_like(features["input_ids"])
        features["mm_token_type_ids"], features["attention_mask"] = kinds, mask
    assert score == pytest.approx(expected, abs=1e-3) and isinstance(greedy, bool)
    assert other != score
    assert lm.loglikelihood(requests((prompt, ""))) == [(0.0, True)]


def test_what_it_would_say_itself_is_greedy(lm: Any) -> None:
    prompt = "Short."
    ids = lm.tokenizer(prompt, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        best = lm.pipe.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax().item()
    said = lm.tokenizer.decode([best])
    if lm.tokenizer(said, add_special_tokens=False)["input_ids"] == [best]:
        assert lm.loglikelihood(requests((prompt, said)))[0][1] is True
    assert len(lm.loglikelihood(requests(("", "word")))) == 1


def test_answers_end_at_the_first_stop(lm: Any) -> None:
    prompt = f"{DOCUMENT}\n{QUESTION}"
    (whole,) = lm.generate_until(requests((prompt, {"until": [], "max_gen_toks": 6, "temperature": 0.0})))
    (again,) = lm.generate_until(requests((prompt, {"until": [whole[1:2]], "max_gen_toks": 6})))
    assert again == whole.split(whole[1:2])[0]
    (short,) = lm.generate_until(requests(("Hello.", {"until": ["\n"], "max_gen_toks": 3, "do_sample": False})))
    assert isinstance(short, str)


def test_whole_texts_are_scored_in_windows(lm: Any) -> None:
    (score,) = lm.loglikelihood_rolling(requests(("It was the best of times.",)))
    ids = lm.tokenizer("It was the best of times.", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = lm.pipe.model(input_ids=torch.tensor([[lm._first, *ids]])).logits[0, :-1].float().log_softmax(-1)
    assert score == pytest.approx(logits.gather(1, torch.tensor(ids)[:, None]).sum().item(), abs=1e-3)


def test_the_harness_runs_a_task_of_its_form_unchanged(lm: Any, checkpoint: Path, tmp_path: Path) -> None:
    rows = [{"text": f"{DOCUMENT}\n{QUESTION}", "answer": "4821930"}] * 2
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "needle.yaml").write_text(
        f"""task: needle_of_mine
dataset_path: json
dataset_kwargs:
  data_files:
    test: {tmp_path / "rows.jsonl"}
test_split: test
output_type: generate_until
doc_to_text: "{{{{text}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs:
  until: ["\\n"]
  max_gen_toks: 4
metric_list:
  - metric: exact_match
"""
    )
    result = run(
        *(
            "evaluate",
            "harness",
            "run",
            "--model",
            "hybridctx",
            "--include_path",
            tmp_path,
            "--tasks",
            "needle_of_mine",
        ),
        *("--model_args", f"pretrained={checkpoint},min_context_tokens=20,budget=2000"),
        *("--output_path", tmp_path / "out"),
    )
    assert result.exit_code == 0, result.output + repr(result.exception)
    (file,) = (tmp_path / "out").rglob("results*.json")
    assert json.loads(file.read_text())["results"]["needle_of_mine"]["exact_match,none"] in (0.0, 0.5, 1.0)
