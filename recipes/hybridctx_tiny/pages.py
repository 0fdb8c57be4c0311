# SPDX-License-Identifier: Apache-2.0
"""Pages of cells: how documents are drawn, what stands in each visual token, and the batches of the stage `read`."""

from __future__ import annotations

import string
from random import Random

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast

from transformers_hybridctx.evaluation.needles import draw_key, draw_number, draw_uuid
from transformers_hybridctx.rendering.characters import code_points
from transformers_hybridctx.rendering.rasterizing import PageRenderer
from transformers_hybridctx.rendering.rendered_document import RenderedDocument
from transformers_hybridctx.rendering.styles import cell_aligned_config

from .batches import IGNORE
from .reference import COLUMNS_PER_TOKEN, LINES_PER_TOKEN, RENDER_CONFIG, VISUAL_TOKEN, image_processor
from .tasks import TaskMixture

CHARACTERS = "".join(sorted({*string.printable.strip(), " ", "¶", "£", "\ufffd"}))
"""What a place of a cell may show; the last one stands for all other characters."""
PLACES = COLUMNS_PER_TOKEN * LINES_PER_TOKEN
"""Characters that one visual token shows."""
PIECES = 8
"""Word pieces of a cell that the tower is asked for."""


class PageReader:
    """
    Draws documents as the checkpoint's pages and says what stands in each visual token.

    Args:
        cell: characters across a visual token and lines down it, where these are to be other than the checkpoint's.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, cell: tuple[int, int] = (COLUMNS_PER_TOKEN, LINES_PER_TOKEN)
    ) -> None:
        config = RENDER_CONFIG
        if cell != (COLUMNS_PER_TOKEN, LINES_PER_TOKEN):
            config = cell_aligned_config(VISUAL_TOKEN, columns_per_cell=cell[0], lines_per_cell=cell[1], hinted=True)
        self._renderer, self._images, self._tokenizer = PageRenderer(config), image_processor(), tokenizer
        self._columns, self._lines = cell
        self._blank = tokenizer.encode(" ", add_special_tokens=False)[0]
        self._classes = np.full(0x110000, len(CHARACTERS) - 1, dtype=np.int64)
        self._classes[[ord(c) for c in CHARACTERS]] = np.arange(len(CHARACTERS))
        self._classes[ord("\t")] = CHARACTERS.index(" ")

    def draw(self, text: str) -> RenderedDocument:
        """The text's pages. A newline is one character, so that what is drawn and what is read have the same length."""
        return self._renderer.render(text.replace("\r\n", "\n"))

    def spans(self, document: RenderedDocument) -> list[tuple[int, int]]:
        """Characters [start, end) of each page."""
        return [document.page_span(page) for page in range(document.num_pages)]

    def tokens(self, document: RenderedDocument) -> list[int]:
        """Visual tokens of each page."""
        sizes = (document.page_size(page) for page in range(document.num_pages))
        return [height * width // VISUAL_TOKEN**2 for height, width in sizes]

    def pixels(self, pages: list[np.ndarray]) -> dict[str, Tensor]:
        """uint8 pixel_values [patches, 24 * 24] and image_grid_thw [pages, 3]."""
        return dict(self._images(pages, return_tensors="pt"))

    def characters(self, document: RenderedDocument) -> Tensor:
        """What each place of each visual token shows: indices into `CHARACTERS`, int64 [visual tokens, places]."""
        codes = code_points(document.typeset.characters.display)  # with what stands for newlines
        places = self.places(document)
        shown = self._classes[codes[places]]
        return torch.from_numpy(np.where(places < 0, CHARACTERS.index(" "), shown))

    def places(self, document: RenderedDocument) -> np.ndarray:
        """Which of the document's displayed characters stands in each place of each visual token, or -1: int64
        [visual tokens, places].
        """
        blocks = []
        for page in range(document.num_pages):
            rows = document.page_size(page)[0] // VISUAL_TOKEN * self._lines
            index = np.full((rows, self._columns), -1, dtype=np.int64)
            first, last = document.typeset.page_lines(page)
            cells = document.typeset.cells(first, last)
            drawn = cells.width > 0
            column = np.rint(cells.left[drawn] * self._columns / VISUAL_TOKEN).astype(np.int64)
            tops = [document.typeset.lines[line].box[1] for line in range(first, last)]
            line = np.rint(np.array(tops) * self._lines / VISUAL_TOKEN).astype(np.int64)
            index[line[cells.line[drawn] - first], np.minimum(column, self._columns - 1)] = cells.index[drawn]
            blocks.append(index.reshape(-1, self._columns * self._lines))
        return np.concatenate(blocks)

    def visual_tokens(self, document: RenderedDocument) -> list[int]:
        """The number of the visual token that shows each character, counted over all pages; -1 where none does."""
        places = self.places(document)
        token, place = np.nonzero(places >= 0)
        found = np.full(len(document.typeset.characters.display), -1)
        found[places[token, place]] = token
        newlines = document.typeset.newlines
        return found[[newlines.to_display(index) for index in range(len(document.typeset.text))]].tolist()

    def pieces(self, characters: Tensor) -> Tensor:
        """The first word pieces of each visual token's text, as behind a blank: int64 [visual tokens, 8], or IGNORE."""
        texts = ["".join(CHARACTERS[index] for index in row).rstrip() for row in characters.tolist()]
        found = torch.full((len(texts), PIECES), IGNORE)
        for row, ids in enumerate(self._tokenizer([f" {text}" for text in texts], add_special_tokens=False).input_ids):
            ids = ids[1:] if ids[0] == self._blank else ids
            found[row, : len(ids)] = torch.tensor(ids[:PIECES], dtype=torch.long)
        return found


class ReadBatches(Dataset[dict[str, Tensor]]):
    """Stage `read`: pages and what stands on them. Item i is the whole batch of step i, its pages equally long."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        prose: dict[str, str],
        *,
        steps: int,
        tokens_per_batch: int = 512,
        seed: int = 0,
    ) -> None:
        self._reader, self._mixture = PageReader(tokenizer), TaskMixture(prose)
        self._steps, self._tokens, self._seed = steps, tokens_per_batch, seed

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        rng = Random(f"read {self._seed} {step}")
        cells = min(rng.choice((8, 16, 16, 32, 64)), self._tokens)
        pages: list[np.ndarray] = []
        characters, pieces = [], []
        for _ in range(max(1, self._tokens // cells)):
            drawn = self._reader.draw(self.text(rng, cells * PLACES))
            (page, *_), height = drawn.pages, min(cells, self._reader.tokens(drawn)[0])
            pages.append(page[: height * VISUAL_TOKEN])
            characters.append(self._reader.characters(drawn)[:height])
            pieces.append(self._reader.pieces(characters[-1]))
        before = [_before(rows, 1) for rows in pieces], [_before(rows, 2) for rows in pieces]
        return self._reader.pixels(pages) | {
            "characters": torch.cat(characters),
            "pieces": torch.cat(pieces),
            "pieces_before": torch.cat([torch.cat(one) for one in before], dim=1),
        }

    def text(self, rng: Random, num_chars: int) -> str:
        """Something to read: strings that have to be read exactly, scrambled or plain prose, or a document with facts."""
        kind = rng.random()
        if kind < 0.25:
            return self._strings(rng, num_chars)
        if kind < 0.4:
            return scramble(rng, self._mixture.draw_prose(rng, num_chars))
        if kind < 0.6:
            return self._mixture.draw_prose(rng, num_chars)
        return self._mixture.draw(rng, num_chars, max(2, num_chars // 110)).text

    @staticmethod
    def _strings(rng: Random, num_chars: int) -> str:
        """Keys, numbers and codes, one after another: what has to be read exactly."""
        words: list[str] = []
        while sum(map(len, words)) < num_chars:
            key = draw_key(rng, held_out=False)
            digits = "".join(rng.choices(string.digits, k=rng.choice((1, 2, 3, 4, 5, 6, 7, 8, 10))))
            exact = (key, digits, draw_number(rng), draw_uuid(rng), key.split("-")[rng.randrange(2)].capitalize())
            words.append(rng.choices(exact, (45, 15, 12, 10, 18))[0] + rng.choice(("", "", " is:", ".", ",")))
        return " ".join(words)


def _before(pieces: Tensor, cells: int) -> Tensor:
    """The pieces of the visual token so many cells before each, on the same page."""
    return torch.cat([torch.full_like(pieces[:cells], IGNORE), pieces[:-cells]])[: len(pieces)]


def scramble(rng: Random, text: str) -> str:
    """The same text with a third of its letters and digits replaced: what cannot be guessed has to be read."""
    drawn = string.ascii_letters + string.digits * 4
    return "".join(rng.choice(drawn) if c.isalnum() and rng.random() < 0.33 else c for c in text)
