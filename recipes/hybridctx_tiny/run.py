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
from transformers_hybridctx.modeling_hybridctx import HybridCtxForCausalLM
from transformers_hybridctx.processing_hybridctx import HybridCtxProcessor

from .answer_batches import AnswerBatches
from .appended_layers import set_appended_layers
from .batches import RecallBatches
from .broad_batches import BroadBatches
from .corpus import load_prose
from .long_batches import LongBatches
from .looking_batches import LookingBatches
from .pages import ReadBatches
from .reference import (
    CHAT_TEMPLATE,
    DEFAULT_BUDGET,
    DEFAULT_GROUNDING,
    DEFAULT_TEXT_POLICY,
    RECALL_LAYERS,
    RENDER_CONFIG,
    RETRIEVAL_HEADS,
    config_fields,
    image_processor,
    initialise,
    initialise_tower,
    train_tokenizer,
)
from .stages import HybridCtxForReading
from .tasks import TaskMixture

Stage = Literal["recall", "read", "answer", "lengthen", "broaden", "attend"]
BATCHES: dict[Stage, Any] = {
    "recall": RecallBatches,
    "read": ReadBatches,
    "answer": AnswerBatches,
    "lengthen": LongBatches,
    "broaden": BroadBatches,
    "attend": LookingBatches,
}
LEARNING_RATES: dict[Stage, float] = {
    "recall": 1.5e-3,
    "read": 2e-3,
    "answer": 2.5e-4,
    "lengthen": 2e-4,
    "broaden": 1.25e-4,
    "attend": 4e-4,
}
"""Peaks of the stages."""
STARTS: dict[Stage, Stage | Literal["append"]] = {
    "answer": "append",
    "lengthen": "answer",
    "broaden": "lengthen",
    "attend": "broaden",
}
"""Whose weights a stage starts from, where no others are given."""
_TYPICAL_SIZE = 0.0625
"""Root mean square of a weight that is drawn at random."""


class StageTrainer(Trainer):
    """Reads the batches in their order, which is the curriculum, and logs the running averages of each loss."""

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        super().log(logs | {key: round(value, 4) for key, value in self.model.averages.items()}, *args, **kwargs)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW with a rate for each tensor.

        Adam moves every weight by about the rate a step, so the layers that were set in closed form, whose weights are
        small and mean something each, get rates in proportion to their size. Embeddings move at half the rate, the
        tower's patch embedding, which begins as principal components of text, at 0.15 of it; the tower at 0.3 where the
        decoder learns with it.
        """
        groups = []
        for name, parameter in self.model.named_parameters():
            if not parameter.requires_grad:
                continue
            rate, size = self.args.learning_rate, parameter.detach().pow(2).mean().sqrt().item()
            layer = int(name.split("layers.")[1].split(".")[0]) if "language_model.layers." in name else -1
            if layer >= RECALL_LAYERS and (parameter.ndim == 2 or "layernorm" in name):
                rate *= min(1.0, size / (_TYPICAL_SIZE if parameter.ndim == 2 else 1.0))
            elif "embed_tokens" in name and layer < 0:
                rate *= 0.5
            elif "patch_embed" in name or "position_embedding" in name:
                rate *= 0.15
            elif ".visual." in name and not self.model.reading.characters.weight.requires_grad:
                rate *= 0.3
            groups.append({"params": [parameter], "lr": rate})
        betas = (self.args.adam_beta1, self.args.adam_beta2)
        self.optimizer = torch.optim.AdamW(groups, betas=betas, weight_decay=self.args.weight_decay)
        return self.optimizer

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """As in transformers; a loss that is no number stops the run before it reaches the weights."""
        loss = super().training_step(*args, **kwargs)
        if not loss.isfinite():
            raise FloatingPointError(
                f"the loss of step {self.state.global_step} is {loss.item()}: go on from the last checkpoint in "
                f"{self.args.output_dir} with a lower learning rate"
            )
        return loss


def train_stage(
    stage: Stage,
    corpus: Path,
    runs: Path,
    *,
    steps: int,
    learning_rate: float | None = None,
    tokens_per_batch: int | None = None,
    threads: int | None = None,
    start: Path | None = None,
    seed: int = 0,
    bf16: bool = False,
) -> Path:
    """Run (or go on with) a stage and return the folder of its weights, `runs`/`stage`.

    `recall` starts from random weights; `read` from `runs`/recall, whose token embeddings it needs; `answer` from
    `runs`/append, which [`append_layers`] makes; `lengthen` from `runs`/answer, `broaden` from `runs`/lengthen, `attend`
    from `runs`/broaden.

    Args:
        corpus: folder of .txt files, see `corpus.fetch_corpus`.
        steps: length of the stage; the learning rate falls over its last two fifths.
        learning_rate: its peak; each stage has its own default.
        tokens_per_batch: bound on the (padded or visual) tokens of a step; each stage has its own default.
        threads: CPU threads; torch's choice if None.
        start: folder of other weights to start from, for `answer` and the stages after it, and for `read`: its tower then
            learns on, and is kept near to what the decoder knows.
        seed: of the batches.
        bf16: compute in half precision; worth it on processors that multiply faster in it.
    """
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    prose = load_prose(corpus, held_out=False)
    tokenizer = reference_tokenizer(runs, prose, start)
    size = {} if tokens_per_batch is None else {"tokens_per_batch": tokens_per_batch}
    batches = BATCHES[stage](tokenizer, prose, steps=steps, seed=seed, **size)
    model = HybridCtxForReading(
        HybridCtxConfig(**config_fields(tokenizer, *(() if stage in STARTS or start else (RECALL_LAYERS,))))
    )
    initialise(model)
    model.tie_weights()
    if stage == "read":
        model.requires_grad_(False)
        if start:
            _take_over(model, start, "model.")
            model.keep_tower()
        else:
            _take_over(model, runs / "recall", "model.language_model.")
            initialise_tower(model, batches[0]["pixel_values"])
        model.model.visual.requires_grad_(True)
        model.reading.requires_grad_(True)
    elif stage in STARTS:
        _take_over(model, start or runs / STARTS[stage], "model.")
        model.model.visual.requires_grad_(stage == "attend")
        model.reading.requires_grad_(False)
    folder = runs / stage
    arguments = TrainingArguments(
        str(folder),
        max_steps=steps,
        per_device_train_batch_size=1,
        learning_rate=learning_rate or LEARNING_RATES[stage],
        lr_scheduler_type="warmup_stable_decay",
        lr_scheduler_kwargs={"num_decay_steps": max(1, steps * 2 // 5), "min_lr_ratio": 0.03},
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
        disable_tqdm=True,
        seed=0,
        bf16=bf16,
    )
    trainer = StageTrainer(model, arguments, train_dataset=batches, data_collator=lambda found: found[0])
    trainer.train(resume_from_checkpoint=any(folder.glob("checkpoint-*")))
    model.save_pretrained(folder)
    return folder


def append_layers(corpus: Path, runs: Path, **size: int) -> Path:
    """Put the decoder of `runs`/recall, the tower of `runs`/read and two layers set in closed form into `runs`/append.

    Args:
        size: of what the closed form is fitted to, see [`set_appended_layers`].
    """
    torch.manual_seed(0)
    prose = load_prose(corpus, held_out=False)
    tokenizer = reference_tokenizer(runs, prose)
    model = HybridCtxForReading(HybridCtxConfig(**config_fields(tokenizer)))
    _take_over(model, runs / "recall", "model.language_model.", beyond="model.language_model.layers.")
    _take_over(model, runs / "read", "model.visual.")
    model.tie_weights()
    set_appended_layers(model, tokenizer, prose, **size)
    model.save_pretrained(runs / "append")
    return runs / "append"


def reference_tokenizer(runs: Path, prose: dict[str, str], start: Path | None = None) -> PreTrainedTokenizerFast:
    """The tokenizer in `runs`/tokenizer; on the first call that of `start`, whose weights know no other, or a new one."""
    folder = runs / "tokenizer"
    if not folder.exists() and start:
        PreTrainedTokenizerFast.from_pretrained(start).save_pretrained(folder)
    elif not folder.exists():
        rng, mixture = Random(7), TaskMixture(prose)
        train_tokenizer([*prose.values(), *(mixture.draw(rng, 400, 8).text for _ in range(4000))]).save_pretrained(
            folder
        )
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    if start and tokenizer.get_vocab() != PreTrainedTokenizerFast.from_pretrained(start).get_vocab():
        raise ValueError(f"{start} has another tokenizer than {folder}; give a folder of runs of its own")
    return tokenizer


def pack_checkpoint(weights: Path, runs: Path, target: Path) -> None:
    """Write the shipped checkpoint: the model of a stage's folder without its reading heads, and its processor."""
    has_own = (weights / "tokenizer.json").is_file()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(weights if has_own else runs / "tokenizer")
    tokenizer.chat_template = CHAT_TEMPLATE
    model = HybridCtxForCausalLM(HybridCtxConfig(**config_fields(tokenizer)))
    _take_over(model, weights, "model.")
    model.tie_weights()
    _fill_empty_rows(model)
    model.generation_config.eos_token_id = model.config.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.max_new_tokens = 128
    model.config.retrieval_heads = RETRIEVAL_HEADS
    # Stored in half precision for its size, and declared as fp32: the CPUs that it is for compute slowly in less.
    model.bfloat16().save_pretrained(target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | {"dtype": "float32"}, indent=2) + "\n")
    HybridCtxProcessor(
        image_processor(),
        tokenizer,
        render_config=RENDER_CONFIG,
        default_budget=DEFAULT_BUDGET,
        default_text_policy=DEFAULT_TEXT_POLICY,
        default_grounding=DEFAULT_GROUNDING,
    ).save_pretrained(target)


@torch.no_grad()
def _fill_empty_rows(model: torch.nn.Module, size: float = 1e-4) -> None:
    """Rows of zeros, which the closed form leaves, get weights too small to be heard: DoRA divides by a row's norm."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            empty = module.weight.norm(dim=1) == 0
            module.weight[empty] = size * torch.randn(int(empty.sum()), module.in_features, generator=generator)


def _take_over(model: torch.nn.Module, folder: Path, *prefixes: str, beyond: str | None = None) -> None:
    """Load the tensors whose names begin with one of `prefixes`; that any is missing is an error, but for those that
    begin with `beyond`.
    """
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
    lost = [name for name in missing if name.startswith(tuple(prefixes)) and not (beyond and name.startswith(beyond))]
    if lost or unexpected:
        raise ValueError(f"{source} does not fit the model: missing {lost}, unexpected {unexpected}")
