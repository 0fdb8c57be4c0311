# SPDX-License-Identifier: Apache-2.0
"""The encoder's lesson: each latent holds its own stretch of a text, in a form that the decoder reads already.

Repeating a text through the decoder teaches an encoder slowly, as one loss at the end has to say which of its latents
holds what. Here each is told: the last latent holds the text's last tokens, the one before it those before, so that how
far a token stands from its latent does not hang on the text's length. No decoder runs, and none is trained.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from recipes.hybridctx_tiny.corpus import load_prose
from recipes.hybridctx_tiny.pages import ReadBatches
from transformers_hybridctx import HybridCtxProcessor
from transformers_hybridctx.cli.console import print_line

from .cells import CellTargets
from .lookup import codes_of, encoder_fields, hidden_of_windows, queries, set_lookups, trained_parameters, windows_of
from .models import save, with_encoder
from .training_state import TrainingState

HEADS_FILE, STATE_FILE = "reading_heads.safetensors", "reading_state.pt"
_WARM_UP, _FALL = 60, 0.4
"""Steps in which the learning rate rises, and the last part of the time in which it falls."""
_CELL_WEIGHT = 8.0
"""Of what latents lack to be their cells, beside the loss of the tokens that are read off them."""
_NUMBER_WEIGHT = 5.0
"""Of cells that begin with a number, beside the others: numbers are what is asked for."""
_AT_FIRST, _KEPT, _USES = 16, 40_960, 4
"""Batches that are drawn before the first step, cells that are kept, and steps before another batch is drawn."""


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


def windows_to_read(
    processor: HybridCtxProcessor, source: ReadBatches, rng: Random, length: int
) -> Iterator[list[int]]:
    """Stretches of what the checkpoint's tower was taught to read, token ids each; without end."""
    while True:
        (ids,) = processor.encoder([source.text(rng, rng.randint(5 * length, 15 * length))])
        for _ in range(2):
            if len(ids) >= length:
                start = rng.randrange(len(ids) - length + 1)
                yield list(ids[start : start + length])


def read(
    checkpoint: str | Path,
    corpus: Path,
    folder: Path,
    *,
    num_latents: Sequence[int] = (32, 64, 100),
    stretch: int = 4,
    layers: int = 2,
    minutes: float = 10,
    cells_per_batch: int = 512,
    learning_rate: float = 2e-3,
    bf16: bool = False,
    seed: int = 0,
    max_steps: int | None = None,
) -> dict[str, float]:
    """
    Train a latent encoder to hold its text, and write a checkpoint for each number of latents. Each of them has the
    decoder as it was. A training that was stopped goes on where the same call finds its state in `folder`, and so does
    one that is given more minutes than it had.

    Args:
        num_latents: of each checkpoint. What is trained is the same for all.
        stretch: tokens of text that each latent stands for, so that a chunk has `num_latents` times as many at most.
        minutes: how long, with what was spent before a stop; the learning rate falls over the last two fifths.
        cells_per_batch: stretches of text of a step.
        bf16: compute in half precision; worth it on processors that multiply faster in it.
        max_steps: stop there, if the minutes have more.

    Raises:
        ValueError: the folder's state is of a training with other sizes or another seed.

    Returns:
        `steps`, `minutes`, and of full chunks of held-out text, for each number of latents: `held_out_N`, the part of
        tokens that is read right, and `lacking_N`, the part of the cells' variance that latents lack.
    """
    torch.manual_seed(seed)
    most = max(num_latents)
    model, processor = with_encoder(checkpoint, "latents", most, layers, most * stretch, encoder_fields)
    latent: Any = model.model.latent
    encoder = latent.encoder
    source = ReadBatches(processor.tokenizer, load_prose(corpus, held_out=False), steps=0)
    set_lookups(encoder, _codes(processor, source))
    embeddings = model.get_input_embeddings().weight.detach()
    heads = ReadingHeads(stretch, embeddings.shape[-1])
    trained = [*trained_parameters(encoder), *latent.projection.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.01, betas=(0.9, 0.98), fused=True)
    asked = {
        "num_latents": list(num_latents),
        "stretch": stretch,
        "layers": layers,
        "cells_per_batch": cells_per_batch,
        "seed": seed,
    }
    state = TrainingState(folder / STATE_FILE, asked, {"latent": latent, "heads": heads, "optimiser": optimiser})
    is_new = not state.load()
    cells = _Cells(model, processor, source, num_latents, stretch, cells_per_batch, seed, state.step)
    if is_new:
        latent.projection.bias.data.copy_(cells.targets.mean(0))
    started = time.perf_counter() - 60 * state.minutes
    while (minutes_spent := (time.perf_counter() - started) / 60) < minutes and state.step != max_steps:
        fall = min(1.0, max(0.03, (1 - minutes_spent / minutes) / _FALL))
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * fall * min(1.0, (state.step + 1) / _WARM_UP)
        windows, queried, targets, weights = cells.sample(state.step)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            made = latent.projection(hidden_of_windows(encoder, windows, queried))
            quarter = made[: -(-len(made) // 4), None]  # as much teaches as well, and all cost most of a step
            said = heads(quarter, embeddings, stretch).float()
        is_there = (ids := windows[: len(quarter), 1 : 1 + stretch]) < len(embeddings)
        reading = nn.functional.cross_entropy(said[is_there], ids[is_there])
        lacking = ((made.float() - targets).pow(2).mean(1) * weights).mean() / targets.var()
        optimiser.zero_grad()
        (reading + _CELL_WEIGHT * lacking).backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        state.count(minutes_spent, reading=reading.item(), lacking=lacking.item())
        if state.step % 50 == 0:
            print_line(
                f"step {state.step:,}, {minutes_spent:.1f} min: reading {state.means['reading']:.3f}, "
                f"lacking of the cells {state.means['lacking']:.1%}"
            )
        state.save_now_and_then()
    state.save()
    held_out, found = ReadBatches(processor.tokenizer, load_prose(corpus, held_out=True), steps=0), {}
    for count in num_latents:
        model, processor = with_encoder(checkpoint, "latents", count, layers, count * stretch, encoder_fields)
        model.model.latent.load_state_dict(
            {**latent.state_dict(), "queries.weight": queries(encoder, count, stretch).weight}
        )
        drawn = windows_to_read(processor, held_out, Random(seed), count * stretch)
        chunks = torch.tensor([next(drawn) for _ in range(16)])
        with torch.no_grad():
            latents, wanted = (
                model.eval().model.latent(list(chunks)),
                CellTargets(model, processor, stretch)(chunks.tolist(), count),
            )
            right = heads(latents, embeddings, count * stretch).argmax(-1) == chunks
        found[f"held_out_{count}"] = float(right.float().mean())
        found[f"lacking_{count}"] = float((latents - wanted).pow(2).mean() / wanted.var())
        save(folder / f"latents-{count}", model, processor, "latents")
        save_file(heads.state_dict(), folder / f"latents-{count}" / HEADS_FILE)
    return {"steps": state.step, "minutes": state.minutes, **found}


class _Cells:
    """
    The last stretches that were drawn, and what their latents are to be: each is used several times. What a step uses
    depends on the seed and on its number alone, so that a training goes on as if it had not been stopped.

    Args:
        step: that is taken first.
    """

    def __init__(
        self,
        model: Any,
        processor: HybridCtxProcessor,
        source: ReadBatches,
        num_latents: Sequence[int],
        stretch: int,
        size: int,
        seed: int,
        step: int,
    ) -> None:
        self._targets, self._source, self._seed = CellTargets(model, processor, stretch), source, seed
        self._processor, self._num_latents, self._stretch, self._size = processor, num_latents, stretch, size
        self._tables = {count: queries(model.model.latent.encoder, count, stretch).weight for count in num_latents}
        self._nothing = len(processor.tokenizer)
        last = _AT_FIRST + -(-step // _USES)  # drawn before this step
        drawn: list[tuple[torch.Tensor, ...]] = []
        while len(drawn) < last and sum(len(windows) for windows, *_ in drawn) < _KEPT:
            drawn.insert(0, self._draw(last - 1 - len(drawn)))
        kept = [torch.cat(parts)[-_KEPT:] for parts in zip(*drawn, strict=True)]
        self._windows, self._queries, self.targets, self._weights = kept

    def sample(self, step: int) -> tuple[torch.Tensor, ...]:
        """Windows, queries, targets and weights of a step; some are drawn anew now and then, and the first forgotten."""
        if step % _USES == 0:
            kept = (self._windows, self._queries, self.targets, self._weights)
            drawn = self._draw(_AT_FIRST + step // _USES)
            self._windows, self._queries, self.targets, self._weights = (
                torch.cat([old, new])[-_KEPT:] for old, new in zip(kept, drawn, strict=True)
            )
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + step)
        chosen = torch.randint(len(self._windows), (self._size,), generator=generator)
        return self._windows[chosen], self._queries[chosen], self.targets[chosen], self._weights[chosen]

    def _draw(self, number: int) -> tuple[torch.Tensor, ...]:
        rng = Random(f"{self._seed} {number}")
        longest = (count := rng.choice(self._num_latents)) * self._stretch
        drawn = windows_to_read(self._processor, self._source, rng, longest)
        chunks = [next(drawn) for _ in range(max(1, self._size // count))]
        windows = windows_of(chunks, count, self._stretch, self._nothing)
        texts = [text for chunk in chunks for text in self._targets.texts(chunk, count)]
        weights = torch.tensor([_NUMBER_WEIGHT if text[:1].isdigit() else 1.0 for text in texts])
        queried = self._tables[count].expand(len(chunks), -1, -1)
        return windows.flatten(0, 1), queried.flatten(0, 1), self._targets(chunks, count).flatten(0, 1), weights


def _codes(processor: HybridCtxProcessor, source: ReadBatches) -> torch.Tensor:
    """Codes of the tokenizer's tokens, by how often they are in what is read."""
    rng, size = Random(0), len(processor.tokenizer)
    ids = [token for tokens in processor.encoder([source.text(rng, 5000) for _ in range(20)]) for token in tokens]
    counts = torch.bincount(torch.tensor(ids), minlength=size).float()
    return codes_of([processor.tokenizer.decode([token]) for token in range(size)], counts)
