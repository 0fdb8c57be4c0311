# SPDX-License-Identifier: Apache-2.0
"""Questions, repeating and going on, all from latents; the decoder is held back, or not trained at all, so that it keeps
what it can do.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch

from recipes.hybridctx_tiny.answer_batches import AnswerBatches
from recipes.hybridctx_tiny.batches import IGNORE
from recipes.hybridctx_tiny.corpus import load_prose
from transformers_hybridctx import HybridCtxConfig, HybridCtxProcessor
from transformers_hybridctx.cli.console import print_line

from .answers import LatentAnswers
from .lookup import is_set, trained_parameters
from .models import Method, load, save, with_encoder
from .training_state import TrainingState

REPEAT, GO_ON = "Repeat the text: ", "Go on with the text: "
DECODER_RATE = 0.5
"""The decoder's learning rate, as a part of the encoder's: the more, the more of what it could do is lost."""
TASKS = {"answer": 0.65, "repeat": 0.15, "go on": 0.05, "keep": 0.15}
"""How often a step answers questions from latents, repeats a text from them, goes on with it, or does what the decoder
was trained on before."""
STATE_FILE = "training_state.pt"
KEEP = "keep"
"""The task that only a decoder which is trained has a use for."""
_TYPICAL_SIZE = 0.0625
"""Root mean square of a weight that is drawn at random."""


def windows(
    texts: Sequence[Sequence[int]], lengths: tuple[int, int], rng: Random, both: bool
) -> Iterator[tuple[list[int], list[int]]]:
    """Stretches of tokenised texts and, with `both`, what follows each, of equal length; without end.

    Args:
        lengths: the fewest and the most tokens of a stretch.
    """
    weights = [len(ids) for ids in texts]
    while True:
        (ids,) = rng.choices(texts, weights)
        length = rng.randint(*lengths)
        if (room := len(ids) - (2 if both else 1) * length) < 0:
            continue
        start = rng.randrange(room + 1)
        yield list(ids[start : start + length]), list(ids[start + length : start + 2 * length])


def inputs_of(
    processor: HybridCtxProcessor, chunks: Sequence[Sequence[int]], asked: str, said: Sequence[Sequence[int]] = ()
) -> dict[str, torch.Tensor]:
    """Inputs: latents of equally long chunks, what is asked, and what is said to it, which carries the loss."""
    assert processor.latents is not None and processor.latent_token_id is not None
    latents = [processor.latent_token_id] * processor.latents.num_latent_tokens
    begin = [*latents, *processor.encoder([asked])[0]]
    answers = said or [()] * len(chunks)
    ids = torch.tensor([[*begin, *answer] for answer in answers])
    labels = ids.clone()
    labels[:, : len(begin)] = IGNORE
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": labels,
        "latent_input_ids": torch.tensor([list(chunk) for chunk in chunks]),
        "latent_attention_mask": torch.ones(len(chunks), len(chunks[0]), dtype=torch.long),
    }


def tokenised(processor: HybridCtxProcessor, prose: Mapping[str, str]) -> list[list[int]]:
    """The prose of a corpus as token ids, one list a text."""
    return processor.encoder([prose[name] for name in sorted(prose)])


def train(
    checkpoint: str | Path,
    corpus: Path,
    folder: Path,
    *,
    method: Method = "latents",
    num_latents: int = 16,
    chunk_tokens: int = 64,
    layers: int = 3,
    steps: int = 3000,
    minutes: float | None = None,
    batch_size: int = 16,
    tasks: Mapping[str, float] = TASKS,
    learning_rate: float = 5e-4,
    decoder_rate: float = DECODER_RATE,
    seed: int = 0,
) -> dict[str, float]:
    """
    Train what makes latents together with the decoder that reads them, and write the checkpoint to a folder. A training
    that was stopped goes on where the same call finds its state there.

    Attention of an encoder of [`reading.read`] stays as it was set.

    Args:
        checkpoint: one without latents, or one of [`reading.read`], whose encoder this goes on with.
        num_latents, chunk_tokens, layers: of a checkpoint without latents.
        minutes: stop there, if the steps take longer; the learning rate falls over the last two fifths of either.
        batch_size: texts of a step that repeats them, or goes on.
        tasks: how often a step is of each of `TASKS`.
        decoder_rate: the decoder's learning rate, as a part of the encoder's; 0: the decoder stays as it is, to the bit,
            and the task `keep` is left out.

    Raises:
        ValueError: no task is left, or the folder's state is of another training.

    Returns:
        `steps`, `minutes`, and the last running mean of the loss of each task.
    """
    torch.manual_seed(seed)
    if not decoder_rate:
        tasks = {name: share for name, share in tasks.items() if name != KEEP}
    if not any(tasks.values()):
        raise ValueError(f"no task to train on with decoder_rate={decoder_rate}; the tasks are {', '.join(TASKS)}")
    if HybridCtxConfig.from_pretrained(checkpoint).latent_config is None:
        model, processor = with_encoder(checkpoint, method, num_latents, layers, chunk_tokens)
    else:
        model, processor, method = load(Path(checkpoint))
    batches = _Batches(processor, corpus, batch_size, tasks, seed)
    model.requires_grad_(False)
    ours, decoder = _trained(model), [*model.model.language_model.parameters()] if decoder_rate else []
    for weight in (*ours, *decoder):
        weight.requires_grad_(True)
    groups: list[dict[str, Any]] = [
        {"params": ours, "peak": learning_rate},
        # Adam moves each weight by about the rate, so those that mean something at a small size move less
        *({"params": [one], "peak": learning_rate * decoder_rate * min(1.0, _size(one))} for one in decoder),
    ]
    optimiser = torch.optim.AdamW(groups, lr=learning_rate, weight_decay=0.01, betas=(0.9, 0.98))
    asked = {"decoder_rate": decoder_rate, "tasks": dict(tasks), "batch_size": batch_size, "seed": seed}
    state = TrainingState(folder / STATE_FILE, asked, {"model": model, "optimiser": optimiser})
    state.load()
    model.train()
    started = time.perf_counter() - 60 * state.minutes
    while (done := _progress(state.step, steps, started, minutes)) < 1:
        minutes_spent = (time.perf_counter() - started) / 60
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * min(1.0, (state.step + 1) / 50) * min(1.0, max(0.03, (1 - done) / 0.4))
        task, inputs = batches.draw(state.step)
        loss = _loss(model, inputs)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*ours, *decoder], 1.0)
        optimiser.step()
        state.count(minutes_spent, **{task: loss.item()})
        if state.step % 50 == 0:
            shown = ", ".join(f"{name} {value:.3f}" for name, value in sorted(state.means.items()))
            print_line(f"step {state.step:,}, {minutes_spent:.1f} min: {shown}")
        state.save_now_and_then()
    state.save()
    save(folder, model.eval(), processor, method)
    return {"steps": state.step, "minutes": state.minutes, **state.means}


def _trained(model: Any) -> list[torch.nn.Parameter]:
    """Of what makes latents: all of it, but for attention and queries that were set and mean distances."""
    latent = model.model.latent
    if (encoder := getattr(latent, "encoder", None)) is None or not is_set(encoder):
        return list(latent.parameters())
    return [*trained_parameters(encoder), *latent.projection.parameters()]


class _Batches:
    """A batch of one of `TASKS` for each step."""

    def __init__(
        self, processor: HybridCtxProcessor, corpus: Path, batch_size: int, tasks: Mapping[str, float], seed: int
    ) -> None:
        assert processor.latents is not None
        self._processor, self._size, self._tasks = processor, batch_size, tasks
        prose = load_prose(corpus, held_out=False)
        self._texts = tokenised(processor, prose)
        self._longest = processor.latents.chunk_tokens
        self._seed = seed
        self._answers = LatentAnswers(processor, prose) if tasks.get("answer") else None
        self._keep = _kept(processor, prose, seed) if tasks.get(KEEP) else None

    def draw(self, step: int) -> tuple[str, dict[str, Any]]:
        """The batch of a step, which hangs on nothing else but the seed."""
        rng = Random(f"latents {self._seed} {step}")
        (task,) = rng.choices(list(self._tasks), list(self._tasks.values()))
        if task == "answer" and self._answers is not None:
            return task, self._answers.draw(rng)
        if task == KEEP and self._keep is not None:
            return task, {name: value for name, value in self._keep[step].items() if name != "kind"}
        # all of a batch are alike, so that nothing is padded
        length, going_on = rng.randint(min(12, self._longest), self._longest), task == "go on"
        drawn = windows(self._texts, (length, length), rng, both=going_on)
        pairs = [next(drawn) for _ in range(self._size)]
        chunks = [chunk for chunk, _ in pairs]
        said = [after for _, after in pairs] if going_on else chunks
        return task, inputs_of(self._processor, chunks, GO_ON if going_on else REPEAT, said)


def _kept(processor: HybridCtxProcessor, prose: dict[str, str], seed: int) -> AnswerBatches:
    """What the decoder was trained on before, so that it keeps it."""
    kinds = {"pages": 0.3, "hybrid": 0.35, "text": 0.35}
    return AnswerBatches(
        processor.tokenizer,
        prose,
        steps=sys.maxsize,
        kinds=kinds,
        num_chars=(60, 2500),
        tokens_per_batch=1200,
        seed=seed,
    )


def _loss(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    """The mean loss of the labels, each as often as its weight says."""
    labels, weights = inputs.pop("labels")[:, 1:], inputs.pop("weights", None)
    logits = model(**inputs, use_cache=False).logits[:, :-1]
    is_said = labels != IGNORE
    losses = torch.nn.functional.cross_entropy(logits[is_said], labels[is_said], reduction="none")
    weight = torch.ones_like(losses) if weights is None else weights[:, 1:][is_said]
    return (losses * weight).sum() / weight.sum()


def _size(weight: torch.Tensor) -> float:
    """Root mean square of a weight, of those that are drawn at random: of matrices; other ones have 1."""
    return float(weight.detach().pow(2).mean().sqrt()) / _TYPICAL_SIZE if weight.ndim == 2 else 1.0


def _progress(step: int, steps: int, started: float, minutes: float | None) -> float:
    spent = 0.0 if minutes is None else (time.perf_counter() - started) / 60 / minutes
    return max(step / steps, spent)


@torch.no_grad()
def perplexity(model: Any, texts: Sequence[Sequence[int]], length: int = 256, examples: int = 40) -> float:
    """Of stretches of texts without any document: what of its language a decoder keeps."""
    rng = Random("perplexity")
    drawn = windows(texts, (length, length), rng, both=False)
    losses = []
    for _ in range(examples):
        ids = torch.tensor([next(drawn)[0]])
        losses.append(model(input_ids=ids, labels=ids).loss)
    return float(torch.stack(losses).mean().exp())
