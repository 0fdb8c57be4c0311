# SPDX-License-Identifier: Apache-2.0
"""Where the bundled checkpoint's decoder already reads: cells of its pages, as its own tower sees them.

A latent that holds its text in a form of its own leaves the decoder to learn how to take several tokens out of one
embedding. It can do that for a page's cells. So each latent is asked to be what the tower makes of the cell that begins
in the latent's stretch: no decoder has to be trained, and it keeps all that it could do.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from recipes.hybridctx_tiny.pages import PLACES, PageReader
from recipes.hybridctx_tiny.reference import LINES_PER_TOKEN, VISUAL_TOKEN
from transformers_hybridctx import HybridCtxConfig, HybridCtxProcessor
from transformers_hybridctx.modules.latent_encoder import HybridCtxLatentEncoder

_BLANK = np.full((VISUAL_TOKEN, VISUAL_TOKEN), 255, dtype=np.uint8)
_FILLER = "x" * PLACES
"""A word that fills a cell, so that what stands behind it begins the next one."""
_WORD, _NUMBER, _PART = re.compile(r"(?<!\S)\S"), re.compile(r"\S*\d"), re.compile(r"(?<!\S)\S|-")


class CellTargets:
    """
    What latents are to be: the tower's embeddings of one cell for each stretch of a chunk.

    Args:
        model: whose tower reads the cells.
        stretch: tokens that each latent stands for, counted from a chunk's end.
    """

    def __init__(self, model: Any, processor: HybridCtxProcessor, stretch: int) -> None:
        self._model, self._stretch = model, stretch
        self._reader = PageReader(processor.tokenizer)
        self._pieces = [processor.tokenizer.decode([token]) for token in range(len(processor.tokenizer))]

    @torch.no_grad()
    def __call__(self, chunks: Sequence[Sequence[int]], num_latents: int) -> torch.Tensor:
        """Token ids of chunks to `[chunks, num_latents, hidden]`."""
        texts = [text for chunk in chunks for text in self.texts(chunk, num_latents)]
        cells = iter(self.cells([text for text in texts if text]))
        column = np.stack([next(cells) if text else _BLANK for text in texts])
        pages = column.reshape(len(chunks), num_latents * VISUAL_TOKEN, VISUAL_TOKEN)
        features = self._reader.pixels(list(pages))
        made = self._model.get_image_features(features["pixel_values"], features["image_grid_thw"]).pooler_output
        return torch.stack(list(made))

    def texts(self, chunk: Sequence[int], num_latents: int) -> list[str]:
        """
        What begins in each stretch: a number, or else a word; "" where no text is. What goes on from the stretch before,
        a long number above all, is left to that one's cell.
        """
        pieces = [self._pieces[token] for token in chunk]
        text, starts = "".join(pieces), np.cumsum([0, *map(len, pieces)]).tolist()
        found = []
        for latent in range(num_latents):
            end = len(chunk) - self._stretch * (num_latents - 1 - latent)
            if end <= 0:
                found.append("")
                continue
            start = _beginning(text, starts[max(0, end - self._stretch)], starts[end])
            found.append(text[start : start + PLACES].strip())
        return found

    def cells(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The first cell of each text, `[48, 48]`, all drawn at once."""
        document = self._reader.draw("".join(f"{text} {_FILLER} " for text in texts))
        beginnings = np.cumsum([0, *(len(text) + len(_FILLER) + 2 for text in texts[:-1])]).tolist()
        pages = np.concatenate([page.reshape(-1, VISUAL_TOKEN, VISUAL_TOKEN) for page in document.pages])
        return [pages[cell] for cell in self._cells_of(document, beginnings)]

    @staticmethod
    def _cells_of(document: Any, characters: list[int]) -> list[int]:
        """The number of the cell that shows each character."""
        lines = document.typeset.lines
        shown, before, cells = [line.start for line in lines], 0, []
        for page in range(document.num_pages):
            first, last = document.typeset.page_lines(page)
            tops = [line.box[1] for line in lines[first:last]]
            cells += [before + round(top * LINES_PER_TOKEN / VISUAL_TOKEN) // LINES_PER_TOKEN for top in tops]
            before += document.page_size(page)[0] // VISUAL_TOKEN
        return [cells[line] for line in np.searchsorted(shown, characters, side="right") - 1]


class CellLatents(HybridCtxLatentEncoder):
    """In an encoder's place: what latents are to be. What the decoder answers from these, an encoder could reach.

    Args:
        targets: of the model whose latents these are.
    """

    def __init__(self, targets: CellTargets, config: HybridCtxConfig) -> None:
        nn.Module.__init__(self)
        self.num_latent_tokens, self.batch_tokens = config.num_latent_tokens, config.latent_batch_tokens
        self._targets = targets

    def forward(self, chunks: Sequence[torch.Tensor]) -> torch.Tensor:
        """As the encoder's."""
        return self._targets([chunk.tolist() for chunk in chunks], self.num_latent_tokens)


def _beginning(text: str, start: int, end: int) -> int:
    """Where the first word with a digit begins in a stretch, or else the first word, or a part of one behind a hyphen; or
    else what begins next behind it.
    """
    words = [word.start() for word in _WORD.finditer(text, start)][: end - start + 1]
    within = [word for word in words if word < end]
    numbers = [word for word in within if _NUMBER.match(text, word)]
    return next(iter([*numbers, *within, *(part.start() for part in _PART.finditer(text, start))]), len(text))
