# SPDX-License-Identifier: Apache-2.0
"""The encoder's first lesson: each latent says the tokens of its own stretch of a text, without a decoder.

Repeating a text through the decoder teaches an encoder slowly, as one loss at the end has to say which of its latents
holds what. Here each is told: the last latent holds the text's last tokens, the one before it those before, so that how
far a token stands from its latent does not hang on the text's length.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from recipes.hybridctx_tiny.corpus import load_prose
from recipes.hybridctx_tiny.tasks import TaskMixture
from transformers_hybridctx import HybridCtxProcessor
from transformers_hybridctx.cli.console import print_line

from .models import save, with_encoder

HEADS_FILE = "reading_heads.safetensors"
_WARM_UP, _FALL = 60, 0.4
"""Steps in which the learning rate rises, and the last part of the time in which it falls."""
_PAGE_SIZE = 0.74
"""Root mean square of a page's embeddings in the bundled checkpoint: what its decoder is used to beside its tokens."""


class ReadingHeads(nn.Module):
    """
    Maps of a latent, one for each token of its stretch, to the decoder's own token embeddings. Where the stretch is one
    token, the map is the identity: the latent has to be that token's embedding, but for its size.

    Args:
        stretch: tokens that a latent stands for.
        width: of latents and token embeddings.
    """

    def __init__(self, stretch: int, width: int) -> None:
        super().__init__()
        self.map = nn.Linear(width, stretch * width, bias=False)
        if stretch == 1:
            nn.init.eye_(self.map.weight).requires_grad_(False)
            return
        for part in self.map.weight.data.split(width):
            nn.init.orthogonal_(part)

    def forward(self, latents: torch.Tensor, embeddings: torch.Tensor, length: int) -> torch.Tensor:
        """Latents `[texts, latents, width]` of texts of `length` tokens to logits `[texts, length, vocabulary]`."""
        said = self.map(latents).unflatten(-1, (-1, latents.shape[-1])).flatten(1, 2)[:, -length:]
        return nn.functional.rms_norm(said, said.shape[-1:]) @ embeddings.T


def load_heads(folder: Path) -> ReadingHeads:
    """What [`read`] wrote beside the checkpoint."""
    weights = load_file(folder / HEADS_FILE)
    stretch, width = weights["map.weight"].shape[0] // weights["map.weight"].shape[1], weights["map.weight"].shape[1]
    heads = ReadingHeads(stretch, width)
    heads.load_state_dict(weights)
    return heads


def windows_of_documents(
    processor: HybridCtxProcessor, mixture: TaskMixture, rng: Random, length: int
) -> Iterator[list[int]]:
    """Stretches of documents with facts in them, token ids each; without end."""
    while True:
        text = mixture.draw(rng, rng.randint(3 * length, 15 * length), rng.randint(1, 5)).text
        (ids,) = processor.encoder([text])
        for _ in range(2):
            if len(ids) >= length:
                start = rng.randrange(len(ids) - length + 1)
                yield list(ids[start : start + length])


def read(
    checkpoint: str | Path,
    corpus: Path,
    folder: Path,
    *,
    num_latents: int = 16,
    stretch: int = 4,
    layers: int = 3,
    minutes: float = 12,
    tokens_per_batch: int = 2048,
    learning_rate: float = 2e-3,
    seed: int = 0,
    max_steps: int | None = None,
) -> dict[str, float]:
    """
    Train a latent encoder to hold its text, and write the checkpoint to a folder. The decoder stays as it is.

    Args:
        stretch: tokens of text that each latent stands for, so that a chunk has `num_latents` times as many at most.
        minutes: how long; the learning rate falls over the last two fifths.
        tokens_per_batch: of text.
        max_steps: stop there, if the minutes have more.

    Returns:
        `steps`, `minutes`, the last running mean of the `loss`, and `held_out`: the part of tokens of full chunks of
        held-out text that is read right.
    """
    torch.manual_seed(seed)
    rng, longest = Random(seed), num_latents * stretch
    model, processor = with_encoder(checkpoint, "latents", num_latents, layers, longest)
    encoder: Any = model.model.latent
    encoder.encoder.get_input_embeddings().requires_grad_(False)
    embeddings = model.get_input_embeddings().weight.detach()
    heads = ReadingHeads(stretch, embeddings.shape[-1])
    trained = [one for one in (*encoder.parameters(), *heads.parameters()) if one.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.01, betas=(0.9, 0.98))
    mixture = TaskMixture(load_prose(corpus, held_out=False))
    started, step, mean = time.perf_counter(), 0, 0.0
    while (spent := (time.perf_counter() - started) / 60) < minutes and (max_steps is None or step < max_steps):
        fall = min(1.0, max(0.03, (1 - spent / minutes) / _FALL))
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * fall * min(1.0, (step + 1) / _WARM_UP)
        length = longest if rng.random() < 0.5 else rng.randint(min(12, longest), longest)
        drawn = windows_of_documents(processor, mixture, rng, length)
        texts = torch.tensor([next(drawn) for _ in range(max(1, tokens_per_batch // longest))])
        logits = heads(encoder(list(texts)), embeddings, length)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), texts.flatten())
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        mean = loss.item() if not step else 0.95 * mean + 0.05 * loss.item()
        step += 1
        if step % 100 == 0:
            print_line(f"step {step:,}, {spent:.1f} min: reading {mean:.3f}")
    drawn = windows_of_documents(processor, TaskMixture(load_prose(corpus, held_out=True)), Random(seed), longest)
    texts = torch.tensor([next(drawn) for _ in range(32)])
    with torch.no_grad():
        latents = encoder(list(texts))
        right = heads(latents, embeddings, longest).argmax(-1) == texts
        size = embeddings.pow(2).mean().sqrt() if stretch == 1 else _PAGE_SIZE
        for weight in encoder.projection.parameters():  # the heads normalise, and do not see this
            weight *= size / latents.pow(2).mean().sqrt()
    save(folder, model.eval(), processor, "latents")
    save_file(heads.state_dict(), folder / HEADS_FILE)
    return {
        "steps": step,
        "minutes": (time.perf_counter() - started) / 60,
        "loss": mean,
        "held_out": float(right.float().mean()),
    }
