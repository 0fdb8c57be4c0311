# SPDX-License-Identifier: Apache-2.0
"""Reconstruction and continuation from latents, the decoder held back so that it keeps what it can do."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers import get_cosine_schedule_with_warmup

from recipes.hybridctx_tiny.corpus import load_prose
from transformers_hybridctx import HybridCtxProcessor
from transformers_hybridctx.cli.console import print_line

from .models import Method, save, with_encoder

REPEAT, GO_ON = "Repeat the text: ", "Go on with the text: "
DECODER_RATE = 0.02
"""The decoder's learning rate, as a part of the encoder's: more costs it its language."""
_CONTINUED = 0.3
"""The part of the batches that goes on with a text, in place of repeating it."""


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
    labels[:, : len(begin)] = -100
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": labels,
        "latent_input_ids": torch.tensor([list(chunk) for chunk in chunks]),
        "latent_attention_mask": torch.ones(len(chunks), len(chunks[0]), dtype=torch.long),
    }


def tokenised(processor: HybridCtxProcessor, corpus: Path, held_out: bool) -> list[list[int]]:
    """The prose of a corpus as token ids, one list a text."""
    prose = load_prose(corpus, held_out=held_out)
    return processor.encoder([prose[name] for name in sorted(prose)])


def train(
    checkpoint: str | Path,
    corpus: Path,
    folder: Path,
    *,
    method: Method = "latents",
    num_latents: int = 16,
    layers: int = 3,
    steps: int = 3000,
    minutes: float | None = None,
    batch_size: int = 16,
    lengths: tuple[int, int] = (16, 64),
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> dict[str, float]:
    """
    Train a latent encoder, or mean pooling's map, and write the checkpoint to a folder.

    Args:
        minutes: stop there, if the steps take longer; the learning rate falls with the steps.
        lengths: the fewest and the most tokens of a text.

    Returns:
        `steps`, `minutes`, and the last running mean of the `loss` of repeating and of going on.
    """
    torch.manual_seed(seed)
    rng = Random(seed)
    model, processor = with_encoder(checkpoint, method, num_latents, layers, 2 * lengths[1])
    texts = tokenised(processor, corpus, held_out=False)
    ours = list(model.model.latent.parameters())
    decoder = [*model.model.language_model.parameters()]
    model.model.visual.requires_grad_(False)
    groups: list[dict[str, Any]] = [{"params": ours}, {"params": decoder, "lr": learning_rate * DECODER_RATE}]
    optimiser = torch.optim.AdamW(groups, lr=learning_rate, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = get_cosine_schedule_with_warmup(optimiser, min(100, max(1, steps // 10)), steps)
    model.train()
    started = time.perf_counter()
    means: dict[str, float] = {}
    step = 0
    while step < steps and (minutes is None or time.perf_counter() - started < 60 * minutes):
        length = rng.randint(*lengths)  # all of a batch alike, so that nothing is padded
        going_on = rng.random() < _CONTINUED
        drawn = windows(texts, (length, length), rng, both=going_on)
        pairs = [next(drawn) for _ in range(batch_size)]
        chunks = [chunk for chunk, _ in pairs]
        said = [after for _, after in pairs] if going_on else chunks
        loss = model(**inputs_of(processor, chunks, GO_ON if going_on else REPEAT, said), use_cache=False).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*ours, *decoder], 1.0)
        optimiser.step()
        schedule.step()
        task = "go on" if going_on else "repeat"
        means[task] = loss.item() if task not in means else 0.98 * means[task] + 0.02 * loss.item()
        step += 1
        if step % 100 == 0:
            shown = ", ".join(f"{name} {value:.3f}" for name, value in sorted(means.items()))
            print_line(f"step {step:,}, {(time.perf_counter() - started) / 60:.1f} min: {shown}")
    save(folder, model.eval(), processor, method)
    return {"steps": step, "minutes": (time.perf_counter() - started) / 60, **means}


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
