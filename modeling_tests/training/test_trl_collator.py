# SPDX-License-Identifier: Apache-2.0
"""TRL's SFTTrainer by the recipe of docs/training.md: it sees documents' pages, and learns answers alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import SFTConfig, SFTTrainer

from transformers_hybridctx import DataCollatorWithPacking

TEXTS = {"The code of room 7 is 42. It was May.": "42", "The code of room 8 is 43. It was June, and it rained.": "43"}


def messages(text: str, answer: str) -> list[dict[str, Any]]:
    content = [{"type": "document", "text": text}, {"type": "text", "text": "Which code?"}]
    return [
        {"role": "user", "content": content},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
    ]


def test_the_recipe_trains_on_pages_and_answers(checkpoint: Path, tmp_path: Path) -> None:
    processor = AutoProcessor.from_pretrained(checkpoint)
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32)
    packed = DataCollatorWithPacking(model.config)

    def labelled(said: list[dict[str, Any]]) -> dict[str, Any]:
        row = processor.apply_chat_template(
            said, tokenize=True, return_dict=True, return_assistant_tokens_mask=True, return_tensors="pt"
        )
        is_answer = row.pop("assistant_masks").bool()
        return {**row, "labels": row["input_ids"].masked_fill(~is_answer, -100)}

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        return packed([labelled(row["messages"]) for row in rows])

    rows = [{"messages": messages(text, answer)} for text, answer in TEXTS.items()]
    arguments = SFTConfig(
        str(tmp_path),
        per_device_train_batch_size=2,
        max_steps=1,
        learning_rate=1e-3,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        bf16=False,
        max_length=None,
        save_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = SFTTrainer(
        model,
        arguments,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=processor,
        data_collator=collate,
    )
    batch = collate(rows)
    given = next(iter(trainer.get_train_dataloader()))
    assert len(given["pixel_values"]) == len(batch["pixel_values"]) > 0
    is_labelled = given["labels"] != -100
    assert not (given["input_ids"][is_labelled] == processor.image_token_id).any()
    said = processor.tokenizer.decode(given["input_ids"][is_labelled])
    assert all(answer in said for answer in TEXTS.values()) and "Which" not in said
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    with torch.no_grad():
        expected = model(**batch).loss.item()
    trainer.train()
    assert abs(trainer.state.log_history[0]["loss"] - expected) < 1e-3  # TRL logs four digits
    changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert any("visual" in name for name in changed) and any("language_model" in name for name in changed)
