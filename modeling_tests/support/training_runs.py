# SPDX-License-Identifier: Apache-2.0
"""A small training: its config and data in a folder, and the weights that it ends with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file

CONTEXT = "It was the best of times. The code of room 7 is 42. It was the worst of times. "


def config(tmp_path: Path, checkpoint: Path, **fields: Any) -> Path:
    tmp_path.mkdir(parents=True, exist_ok=True)
    data = tmp_path / "data.jsonl"
    rows = [
        {
            "context": f"{CONTEXT}{number}",
            "question": "Which code?",
            "answer": "42" + " and 43" * (number % 3),
            "evidence": [[48, 50]],
        }
        for number in range(12)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"text": " "}]))
    trainer = {
        "max_steps": 6,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-3,
        "save_steps": 2,
        "logging_steps": 2,
        "use_cpu": True,
        "disable_tqdm": True,
        **fields.pop("trainer", {}),
    }
    given = {
        "output_dir": str(tmp_path / "out"),
        "model": str(checkpoint),
        "data": [{"reader": "json_lines", "path": str(data)}],
        **({} if "rewards" in fields else {"objectives": {"answer": 2, "quote": 1, "read_back": 1}}),
        "max_tokens": 700,
        "held_out": 0.2,
        "evaluation_examples": 2,
        "trainer": trainer,
        **fields,
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(given))
    return path


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")
