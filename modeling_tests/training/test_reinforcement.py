# SPDX-License-Identifier: Apache-2.0
"""GRPO by TRL: prompts are the processor's, what is scored is what the model says, and a step follows from rewards."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from training_runs import CONTEXT, weights_of

from transformers_hybridctx import ContextBudget, HybridCtxForCausalLM, HybridCtxProcessor
from transformers_hybridctx.bundled_checkpoint import BUNDLED_CHECKPOINT
from transformers_hybridctx.planning.policies.registry import resolve_text_policy
from transformers_hybridctx.training.config import TrainingConfig
from transformers_hybridctx.training.objectives import ExampleMaker
from transformers_hybridctx.training.records import TrainingRecord, TrainingTurn
from transformers_hybridctx.training.run import run_training

trl = pytest.importorskip("trl", reason="GRPO is TRL's: pip install 'transformers-hybridctx[train]'")

from transformers_hybridctx.training.reinforcement import reinforcement_trainer, reward_rows  # noqa: E402

RECIPES = Path(__file__).parents[2] / "recipes" / "training"
EVIDENCE = ((48, 50),)
NOWHERE = Path(os.devnull)


@pytest.fixture(scope="module")
def maker() -> ExampleMaker:
    processor = HybridCtxProcessor.from_pretrained(BUNDLED_CHECKPOINT)
    ids = processor.tokenizer.convert_tokens_to_ids
    borders = ids("<|begin_of_image|>"), ids("<|end_of_image|>")
    end = processor.tokenizer.eos_token_id
    return ExampleMaker(processor, ContextBudget(), resolve_text_policy("anchors"), 900, end, borders)


def rows(*contexts: str, evidence: Any = EVIDENCE) -> list[dict[str, Any]]:
    asked = (TrainingTurn("Which code?", "42", evidence), TrainingTurn("Who?", "nobody"))
    return [TrainingRecord(context, asked, "Be short.", str(n)).as_row() for n, context in enumerate(contexts)]


def test_a_row_for_each_question_with_evidence(maker: ExampleMaker, tmp_path: Path) -> None:
    unused = tmp_path / "unused.jsonl"
    tables = [rows(CONTEXT), rows(CONTEXT * 2, CONTEXT * 3, CONTEXT + "<|image|>")]
    found = reward_rows(tables, maker, {"answer": 1.0}, {"pages": 1.0}, 0, unused)
    assert "the token of a picture" in unused.read_text()
    assert len(found) == 3 and unused.read_text().count("a question without evidence") == 4
    first = found[0]
    assert first["answer"] == "42" and first["context"] == CONTEXT and first["boxes"] == []
    system, user = first["prompt"]
    assert system == {"role": "system", "content": "Be short."}
    assert user["content"][1] == {"type": "text", "text": "Which code?"}
    both = reward_rows([rows(CONTEXT)], maker, {"quote": 1.0, "place": 1.0}, {"tokens": 1.0}, 0, NOWHERE)[0]
    assert "between <think> and </think>" in both["prompt"][1]["content"][1]["text"]
    (box,) = both["boxes"]
    assert box[0] == 1 and both["prompt"][1]["content"][0]["budget"].visual_share == 1  # a place is on pages
    with pytest.raises(ValueError, match="no question can be rewarded"):
        reward_rows([rows(CONTEXT, evidence=())], maker, {"answer": 1.0}, {"pages": 1.0}, 0, NOWHERE)


def test_what_is_scored_is_what_the_model_says_of_the_processors_prompts(maker: ExampleMaker, tmp_path: Path) -> None:
    """Documents of different lengths, with and without pages, among them a text that writes the model's own marks."""
    odd = CONTEXT + "<|user|> "
    channels = {"both": 1.0, "pages": 1.0, "tokens": 1.0}
    data = reward_rows([rows(CONTEXT, odd, CONTEXT * 4)], maker, {"answer": 1.0}, channels, 3, NOWHERE)
    model = HybridCtxForCausalLM.from_pretrained(BUNDLED_CHECKPOINT, dtype="float32")
    arguments = trl.GRPOConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        bf16=False,
        report_to=[],
        per_device_train_batch_size=3,
        num_generations=3,
    )
    trainer = reinforcement_trainer(model, arguments, maker.processor, data, {"answer": 1.0})
    prompts = [data[number]["prompt"] for number in range(3)]
    ids, pages, fields = trainer._tokenize_prompts(prompts)
    answers = [torch.tensor(maker.processor.tokenizer.encode(text)) for text in ("42.", "It was", "a b c")]
    longest = min(map(len, answers))
    width = max(map(len, ids)) + longest
    pad = trainer._tokenizer.pad_token_id
    padded = torch.full((3, width), pad)
    for row, prompt, answer in zip(padded, ids, answers, strict=True):
        row[-len(prompt) - longest :] = torch.cat([torch.tensor(prompt), answer[:longest]])
    mask = (torch.arange(width)[None] >= width - torch.tensor([[len(prompt) + longest] for prompt in ids])).int()
    assert pages is not None
    given = {
        "pixel_values": fields["pixel_values"],
        "image_grid_thw": fields["image_grid_thw"],
        "num_images": [len(few) for few in pages],
        "mm_token_type_ids": torch.zeros(3, 7),  # of another tokenisation: not used
    }
    logps, *_ = trainer._get_per_token_logps_and_entropies(model, padded, mask, longest, **given)
    assert 0 in given["num_images"]
    with torch.no_grad():  # one after the other, and of one alone there is no page
        apart, *_ = trainer._get_per_token_logps_and_entropies(model, padded, mask, longest, 1, **given)
    torch.testing.assert_close(apart, logps.detach(), rtol=1e-4, atol=1e-4)
    for number, (messages, prompt, answer) in enumerate(zip(prompts, ids, answers, strict=True)):
        features = maker.processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        assert features["input_ids"][0].tolist() == prompt
        given = {name: features[name] for name in ("pixel_values", "image_grid_thw") if name in features}
        whole = torch.cat([features["input_ids"][0], answer[:longest]])[None]
        with torch.no_grad():
            logits = model(input_ids=whole, **given).logits[0, -longest - 1 : -1]
        expected = F.log_softmax(logits, -1).gather(1, answer[:longest, None])[:, 0]
        torch.testing.assert_close(logps[number].detach(), expected, rtol=1e-4, atol=1e-4)


def test_a_step_of_the_bundled_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe, one step: answers and quotations are sampled, rewarded, and learned from."""
    given = yaml.safe_load((RECIPES / "tiny_rewards_on_a_cpu.yaml").read_text())
    shutil.copy(RECIPES / "questions.jsonl", tmp_path)
    given |= {"output_dir": str(tmp_path / "out"), "data": [{"reader": "json_lines", "path": "questions.jsonl"}]}
    given["trainer"] |= {"max_steps": 1, "disable_tqdm": True}
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(yaml.safe_dump(given))
    report = run_training(TrainingConfig.read(Path("config.yaml")))
    (entry,) = [entry for entry in report.log if "reward" in entry]
    parts = {name: entry[f"rewards/{name}_reward/mean"] for name in ("answer", "quote")}
    assert entry["reward"] == pytest.approx(0.8 * parts["answer"] + 0.2 * parts["quote"], abs=1e-5)
    assert entry["reward_std"] > 0 and entry["grad_norm"] > 0
    assert report.steps == 1 and report.perplexity_before and report.perplexity_after
    before, after = weights_of(Path(BUNDLED_CHECKPOINT)), weights_of(tmp_path / "out")
    assert any(not torch.equal(after[name], one.to(after[name].dtype)) for name, one in before.items())
    assert (tmp_path / "out" / "checkpoint-1").is_dir() and json.loads((tmp_path / "out" / "report.json").read_text())
