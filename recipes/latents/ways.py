# SPDX-License-Identifier: Apache-2.0
"""Ways to shorten a text to so many of the decoder's tokens, each with what can be said of the text again.

Latents, pooled token embeddings and pages are read off by linear maps, each taught alike on training text: what a linear
map finds is there. What the decoder itself says from them is another question, as nobody has taught it to repeat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch import nn

from recipes.hybridctx_tiny.pages import CHARACTERS, PageReader, ReadBatches
from transformers_hybridctx import HybridCtxProcessor

from .reading import HEADS_FILE, ReadingHeads, load_heads, windows_to_read
from .training import REPEAT, inputs_of

PARTS = 4
"""Stretches of a text whose tokens are counted apart: what is forgotten first."""
CELLS = ((8, 2), (12, 2), (12, 3))
"""Characters across a visual token and lines down it: the checkpoint's own pages, and denser ones."""
_RATE, _CELLS_DRAWN, _REMEMBERED = 2e-3, 12_288, 256


@dataclass(frozen=True)
class Way:
    """One way to shorten a text.

    Attributes:
        name: of the way.
        tokens: of the decoder that it may take, at most.
        repeat: a text's token ids, to what can be said of it again.
        right: the same, to which of its tokens (of pages: characters) are right, those that found no room being wrong;
            None where that is not asked.
        longest: texts of more tokens are not asked for.
    """

    name: str
    tokens: int
    repeat: Callable[[list[int]], str]
    right: Callable[[list[int]], torch.Tensor] | None = None
    longest: int | None = None

    def by_part(self, chunk: list[int]) -> list[float] | None:
        """The part of each stretch of the text that is right."""
        if self.right is None:
            return None
        return [float(part.float().mean()) for part in self.right(chunk).tensor_split(PARTS)]


def of_folder(folder: Path, model: Any, processor: HybridCtxProcessor, method: str) -> Way:
    """Latents of a folder: read off, where the command `read` wrote it, or else as its decoder repeats them."""
    assert processor.latents is not None
    count, room = processor.latents.num_latent_tokens, processor.latents.chunk_tokens
    if not (folder / HEADS_FILE).is_file():
        return _said(method, model, processor, None)
    heads, embeddings = load_heads(folder), model.get_input_embeddings().weight

    @torch.no_grad()
    def said(chunk: list[int]) -> torch.Tensor:
        chunk = chunk[:room]
        return heads(model.model.latent([torch.tensor(chunk)]), embeddings, len(chunk))[0].argmax(-1)

    return _of_tokens(f"{method}, read off", count, said, processor)


def said_from_latents(model: Any, processor: HybridCtxProcessor, method: str, longest: int) -> Way:
    """What the decoder says when it is asked to repeat them."""
    return _said(f"{method}, said", model, processor, longest)


def truncated(processor: HybridCtxProcessor, count: int) -> Way:
    """The text's first tokens as they are, which a decoder would repeat without a fault."""
    return _of_tokens("truncation", count, lambda chunk: torch.tensor(chunk[:count]), processor)


class MeanPooled:
    """
    The means of the token embeddings of stretches that are counted from a text's end, as latents are, and as long as they
    have to be; and for each length the maps that read them off.

    Args:
        stretch: the most tokens of one.
        steps: of the maps' training, 128 stretches each.
    """

    def __init__(
        self, model: Any, processor: HybridCtxProcessor, source: ReadBatches, stretch: int, steps: int, seed: int = 0
    ) -> None:
        self._embeddings, self._processor = model.get_input_embeddings().weight.detach(), processor
        self._stretch, self._heads = stretch, {}
        for length in range(2, stretch + 1):
            windows = windows_to_read(processor, source, Random(f"mean {seed} {length}"), 128 * length)
            heads = ReadingHeads(length, self._embeddings.shape[1])

            def lesson(heads: ReadingHeads = heads, windows: Iterator[list[int]] = windows) -> torch.Tensor:
                chunk = next(windows)
                return nn.functional.cross_entropy(self._logits(heads, chunk, len(chunk)), torch.tensor(chunk))

            _teach(heads, lesson, steps)
            self._heads[length] = heads

    def way(self, count: int) -> Way:
        """So many means."""

        @torch.no_grad()
        def said(chunk: list[int]) -> torch.Tensor:
            chunk = chunk[: self._stretch * count]
            length = -(-len(chunk) // count)
            if length == 1:
                return torch.tensor(chunk)  # each mean is a token's embedding
            return self._logits(self._heads[length], chunk, len(chunk)).argmax(-1)

        return _of_tokens("mean pooling, read off", count, said, self._processor)

    def _logits(self, heads: ReadingHeads, chunk: Sequence[int], length: int) -> torch.Tensor:
        size = heads.map.out_features // heads.map.in_features
        before = -len(chunk) % size
        padded = nn.functional.pad(self._embeddings[torch.tensor(chunk)], (0, 0, before, 0)).unflatten(0, (-1, size))
        sizes = torch.full((len(padded), 1), float(size))
        sizes[0] -= before
        return heads((padded.sum(1) / sizes)[None], self._embeddings, length)[0]


class DrawnPages:
    """
    Cells of pages as the checkpoint's tower sees them, and the map that reads their characters off. Where a page's lines
    break at a blank, and what is no character of the tower's alphabet, is taken from the text.

    Args:
        cell: characters across a visual token, and lines down it.
        steps: of the map's training, 512 cells each.
    """

    def __init__(
        self, model: Any, processor: HybridCtxProcessor, source: ReadBatches, cell: tuple[int, int], steps: int
    ) -> None:
        self._model, self._processor, self.cell = model, processor, cell
        self._reader = PageReader(processor.tokenizer, cell)
        self._places = cell[0] * cell[1]
        self._read = lru_cache(_REMEMBERED)(self._read_anew)  # it is the same for any number of cells
        rng = Random(f"pages {cell}")
        cells: list[torch.Tensor] = []
        shown: list[torch.Tensor] = []
        while sum(map(len, cells)) < _CELLS_DRAWN:
            drawn = self._reader.draw(source.text(rng, 60 * self._places))
            cells.append(self._features(drawn.pages))
            shown.append(self._reader.characters(drawn))
        made, wanted = torch.cat(cells), torch.cat(shown)
        self._map = nn.Linear(made.shape[1], self._places * len(CHARACTERS))
        generator = torch.Generator().manual_seed(0)

        def lesson() -> torch.Tensor:
            chosen = torch.randint(len(made), (512,), generator=generator)
            logits = self._map(made[chosen]).unflatten(1, (self._places, -1))
            return nn.functional.cross_entropy(logits.flatten(0, 1), wanted[chosen].flatten())

        _teach(self._map, lesson, steps)

    def way(self, count: int) -> Way:
        """The first so many cells of a text's pages, of which the tower sees all."""

        def said(chunk: list[int]) -> tuple[str, str]:
            display, places, made = self._read(tuple(chunk))
            letters, shown = list(display), places[:count]
            for place, letter in zip(shown[shown >= 0], made[:count][shown >= 0], strict=True):
                if display[place] in CHARACTERS:
                    letters[place] = CHARACTERS[letter]
            return "".join(letters[: shown.max() + 1]), display

        def right(chunk: list[int]) -> torch.Tensor:
            found, display = said(chunk)
            return torch.tensor([*(a == b for a, b in zip(found, display)), *[False] * (len(display) - len(found))])

        columns, lines = self.cell
        return Way(
            f"pages, {columns} x {lines}, read off",
            count,
            lambda chunk: said(chunk)[0].replace(" ¶ ", "\n").replace("¶", "\n"),
            right,
        )

    @torch.no_grad()
    def _read_anew(self, chunk: tuple[int, ...]) -> tuple[str, np.ndarray, np.ndarray]:
        """The text as it is displayed, which character of it is where, and what the map reads there."""
        drawn = self._reader.draw(self._processor.tokenizer.decode(list(chunk)))
        made = self._map(self._features(drawn.pages)).unflatten(1, (self._places, -1)).argmax(-1)
        return drawn.typeset.characters.display, self._reader.places(drawn), made.numpy()

    @torch.no_grad()
    def _features(self, pages: Sequence[np.ndarray]) -> torch.Tensor:
        """Of the pages' cells, `[cells, hidden]`."""
        features = self._reader.pixels(list(pages))
        made = self._model.get_image_features(features["pixel_values"], features["image_grid_thw"]).pooler_output
        return torch.cat(list(made))


def said_from_pages(model: Any, processor: HybridCtxProcessor, count: int, longest: int) -> Way:
    """What the decoder says when it is asked to repeat the checkpoint's own pages, all of them."""

    def repeat(chunk: list[int]) -> str:
        text = processor.tokenizer.decode(chunk, skip_special_tokens=True).strip() or "-"
        features = processor(document=text, question=REPEAT, budget={"visual_share": 1}, return_tensors="pt")
        with torch.no_grad():
            made = model.generate(**features, max_new_tokens=len(chunk), do_sample=False)
        return str(processor.tokenizer.decode(made[0, features["input_ids"].shape[1] :], skip_special_tokens=True))

    return Way("pages, said", count, repeat, longest=longest)


def _said(name: str, model: Any, processor: HybridCtxProcessor, longest: int | None) -> Way:
    assert processor.latents is not None
    count, room = processor.latents.num_latent_tokens, processor.latents.chunk_tokens

    @torch.no_grad()
    def repeat(chunk: list[int]) -> str:
        inputs = inputs_of(processor, [chunk[:room]], REPEAT)
        del inputs["labels"]
        made = model.generate(**inputs, max_new_tokens=len(chunk), do_sample=False)
        return str(processor.tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))

    @torch.no_grad()
    def right(chunk: list[int]) -> torch.Tensor:
        """Predicted right by a decoder that is given the true tokens before."""
        inputs = inputs_of(processor, [chunk[:room]], REPEAT, [chunk])
        labels = inputs.pop("labels")[0, -len(chunk) :]
        return torch.as_tensor(model(**inputs).logits[0, -len(chunk) - 1 : -1].argmax(-1) == labels)

    return Way(name, count, repeat, right, longest)


def _of_tokens(name: str, count: int, said: Callable[[list[int]], torch.Tensor], processor: HybridCtxProcessor) -> Way:
    """A way that says the first tokens of a text again, one for one."""
    said_once = lru_cache(1)(lambda chunk: said(list(chunk)))

    def right(chunk: list[int]) -> torch.Tensor:
        found = said_once(tuple(chunk))
        return nn.functional.pad(found == torch.tensor(chunk[: len(found)]), (0, len(chunk) - len(found)))

    return Way(name, count, lambda chunk: str(processor.tokenizer.decode(said_once(tuple(chunk)))), right)


def _teach(module: nn.Module, lesson: Callable[[], torch.Tensor], steps: int) -> None:
    optimiser = torch.optim.AdamW(module.parameters(), lr=_RATE, weight_decay=0.0, fused=True)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = _RATE * (1 - step / steps)
        optimiser.zero_grad()
        lesson().backward()
        optimiser.step()
