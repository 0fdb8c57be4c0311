# SPDX-License-Identifier: Apache-2.0
"""Runs one stage of the training of hybridctx-tiny and, at the end, packs the checkpoint that the package ships."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch.utils.data import SequentialSampler
from transformers import PreTrainedTokenizerFast, Trainer, TrainingArguments

from transformers_hybridctx.configuration_hybridctx import HybridCtxConfig
from transformers_hybridctx.image_processing_hybridctx import HybridCtxImageProcessor
from transformers_hybridctx.modeling_hybridctx import HybridCtxForCausalLM
from transformers_hybridctx.processing_hybridctx import HybridCtxProcessor

from .batches import FuseBatches, ReadBatches, RecallBatches
from .corpus import load_prose
from .reference import (
    DEFAULT_BUDGET,
    DEFAULT_TEXT_POLICY,
    MERGE_SIZE,
    PATCH_SIZE,
    RENDER_CONFIG,
    config_fields,
    initialise,
    train_tokenizer,
)
from .stages import HybridCtxForReading
from .tasks import TaskMixture

Stage = Literal["recall", "read", "fuse"]
BATCHES: dict[Stage, Any] = {
    "recall": RecallBatches,
    "read": ReadBatches,
    "fuse": FuseBatches,
}


class StageTrainer(Trainer):
    """Reads the batches in their order, which is the curriculum, and logs the running averages of each loss."""

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        super().log(logs | {key: round(value, 4) for key, value in self.model.averages.items()}, *args, **kwargs)


def train_stage(
    stage: Stage,
    corpus: Path,
    runs: Path,
    *,
    steps: int,
    learning_rate: float = 1.5e-3,
    tokens_per_batch: int | None = None,
    threads: int | None = None,
) -> Path:
    """Run (or go on with) a stage and return the folder of its weights, `runs`/`stage`.

    `recall` and `read` start from random weights; `fuse` starts from what stands in `runs`/recall and `runs`/read.

    Args:
        corpus: folder of .txt files, see `corpus.fetch_corpus`.
        steps: length of the stage; the learning rate falls over its last quarter.
        tokens_per_batch: bound on the (padded or visual) tokens of a step; each stage has its own default.
        threads: CPU threads; torch's choice if None.
    """
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    prose = load_prose(corpus, held_out=False)
    mixture = TaskMixture(prose)
    tokenizer = reference_tokenizer(runs, prose, mixture)
    model = HybridCtxForReading(HybridCtxConfig(**config_fields(tokenizer)))
    initialise(model)
    model.tie_weights()
    if stage == "fuse":
        _take_over(model, runs / "recall", "model.language_model.")
        _take_over(model, runs / "read", "model.visual.", "characters.")
    folder = runs / stage
    size = {} if tokens_per_batch is None else {"tokens_per_batch": tokens_per_batch}
    arguments = TrainingArguments(
        str(folder),
        max_steps=steps,
        per_device_train_batch_size=1,
        learning_rate=learning_rate,
        lr_scheduler_type="warmup_stable_decay",
        lr_scheduler_kwargs={"num_decay_steps": max(1, steps // 4), "min_lr_ratio": 0.02},
        warmup_steps=min(60, steps // 4),
        weight_decay=0.01,
        adam_beta2=0.98,
        logging_steps=20,
        save_steps=100,
        save_total_limit=2,
        use_cpu=not torch.cuda.is_available(),
        report_to=[],
        remove_unused_columns=False,
        label_names=[],
        disable_tqdm=steps < 10,
        seed=0,
    )
    trainer = StageTrainer(
        model,
        arguments,
        train_dataset=BATCHES[stage](tokenizer, mixture, steps=steps, **size),
        data_collator=lambda batches: batches[0],
    )
    trainer.train(resume_from_checkpoint=any(folder.glob("checkpoint-*")))
    model.save_pretrained(folder)
    return folder


def reference_tokenizer(runs: Path, prose: dict[str, str], mixture: TaskMixture) -> PreTrainedTokenizerFast:
    """The tokenizer in `runs`/tokenizer, trained on the first call."""
    folder = runs / "tokenizer"
    if not folder.exists():
        rng = Random(7)
        train_tokenizer([*prose.values(), *(mixture.draw(rng, 400, 8).text for _ in range(4000))]).save_pretrained(
            folder
        )
    return PreTrainedTokenizerFast.from_pretrained(folder)


def pack_checkpoint(weights: Path, runs: Path, target: Path) -> None:
    """Write the shipped checkpoint: the model of a stage's folder without its reading heads, and its processor."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(runs / "tokenizer")
    model = HybridCtxForCausalLM(HybridCtxConfig(**config_fields(tokenizer)))
    _take_over(model, weights, "model.")
    model.tie_weights()
    model.generation_config.eos_token_id = model.config.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.max_new_tokens = 128
    # Stored in half precision for its size, and declared as fp32: the CPUs that it is for compute slowly in less.
    model.half().save_pretrained(target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | {"dtype": "float32"}, indent=2) + "\n")
    HybridCtxProcessor(
        HybridCtxImageProcessor(patch_size=PATCH_SIZE, merge_size=MERGE_SIZE),
        tokenizer,
        render_config=RENDER_CONFIG,
        default_budget=DEFAULT_BUDGET,
        default_text_policy=DEFAULT_TEXT_POLICY,
    ).save_pretrained(target)


def _take_over(model: torch.nn.Module, folder: Path, *prefixes: str) -> None:
    """Load the tensors whose names begin with one of `prefixes`; that any is missing is an error."""
    if not folder.is_dir():
        raise FileNotFoundError(f"there are no weights in {folder}: run the stage {folder.name!r} first")
    latest = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), default=folder)
    source = folder if (folder / "model.safetensors").exists() else latest
    tensors = {
        name: tensor
        for name, tensor in load_file(source / "model.safetensors").items()
        if name.startswith(tuple(prefixes))
    }
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    lost = [name for name in missing if name.startswith(tuple(prefixes))]
    if lost or unexpected:
        raise ValueError(f"{source} does not fit the model: missing {lost}, unexpected {unexpected}")
