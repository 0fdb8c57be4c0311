# SPDX-License-Identifier: Apache-2.0
"""Training batches: documents as token sequences with their labels, and pages with what stands in each visual token.

Every batch is a function of (seed, step) alone: a training that stops and resumes sees the same data.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast

from transformers_hybridctx.image_processing_hybridctx import HybridCtxImageProcessor
from transformers_hybridctx.rendering.characters import code_points
from transformers_hybridctx.rendering.rasterizing import PageRenderer
from transformers_hybridctx.rendering.rendered_document import RenderedDocument
from transformers_hybridctx.rendering.settings import RenderConfig

from .reference import COLUMNS_PER_TOKEN, LINES_PER_TOKEN, MERGE_SIZE, PATCH_SIZE, RENDER_CONFIG, VISUAL_TOKEN
from .tasks import Document, TaskMixture, draw_passages

IGNORE = -100
CHARACTERS = "".join(sorted({*string.printable.strip(), " ", "¶", "£", "\ufffd"}))
"""What a cell may show; the last one stands for all other characters."""


@dataclass
class Curriculum:
    """How the documents grow over a stage. Pairs are (at its start, at its end), lengths in characters."""

    num_chars: tuple[int, int]
    num_facts: tuple[int, int]

    def at(self, progress: float, rng: Random) -> tuple[int, int]:
        """Length and number of facts for one batch: anything up to what `progress` (0 to 1) allows, mostly the most."""
        reach = rng.random() ** 0.5
        chars = self.num_chars[0] + (self.num_chars[1] - self.num_chars[0]) * progress * reach
        facts = self.num_facts[0] + (self.num_facts[1] - self.num_facts[0]) * progress * reach
        return round(chars), round(facts)


class SequenceEncoder:
    """Writes (pages, passages, questions, answers) as the token sequence that the processor's chat template gives."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._id = tokenizer.convert_tokens_to_ids
        self._newline = self.text("\n")

    def text(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)

    def __call__(
        self, document: Document, passages: list[tuple[int, int]], pages: list[tuple[int, int]], page_tokens: list[int]
    ) -> tuple[list[int], list[int]]:
        """Tokens and labels of one conversation on `document`, each question a turn.

        What an answer rests on is quoted before it, between `<think>` and `</think>`: copying goes from word to word,
        where an answer at once would have to find the value behind a key in a single step.

        Args:
            passages: Character spans that are copied as tokens.
            pages: Character span of each page.
            page_tokens: Visual tokens of each page; empty where the pages are not shown.
        """
        user, assistant = self._id("<|user|>"), self._id("<|assistant|>")
        ids = [self._id("[gMASK]"), self._id("<sop>"), user, *self._newline]
        for count in page_tokens:
            ids += [self._id("<|begin_of_image|>"), *[self._id("<|image|>")] * count, self._id("<|end_of_image|>")]
        for start, end in passages:
            number = next(n for n, (first, last) in enumerate(pages, 1) if first <= start < last or n == len(pages))
            ids += self.text(f"[page {number}] {document.text[start:end]}\n")
        labels = [IGNORE] * len(ids)
        for turn, question in enumerate(document.questions):
            prompt = ([*self._newline] if turn else []) + self.text(question.text) + [assistant, *self._newline]
            quote = [self._id("<think>"), *self.text("\n".join(question.quotes)), self._id("</think>")]
            answer = [*quote, *self.text(question.answer), user]
            ids += prompt + answer
            labels += [IGNORE] * len(prompt) + answer
        return ids, labels

    def page_tokens(self, input_ids: Tensor) -> Tensor:
        """mm_token_type_ids of `input_ids`: 1 where a visual embedding goes, else 0."""
        return (input_ids == self._id("<|image|>")).int()

    def pad(self, rows: list[tuple[list[int], list[int]]]) -> dict[str, Tensor]:
        """Right-padded input_ids, labels and attention_mask [rows, longest]."""
        longest = max(len(ids) for ids, _ in rows)
        pad = self._tokenizer.pad_token_id
        return {
            "input_ids": torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in rows]),
            "labels": torch.tensor([labels + [IGNORE] * (longest - len(ids)) for ids, labels in rows]),
            "attention_mask": torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in rows]),
        }


class RecallBatches(Dataset[dict[str, Tensor]]):
    """Stage `recall`: passages as tokens only. Item i is the whole batch of step i.

    The first `copy_steps` steps hold repeated random tokens beside the documents: the shortest way to the induction
    heads that all looking-up is made of.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        mixture: TaskMixture,
        *,
        steps: int,
        tokens_per_batch: int = 4096,
        copy_steps: int = 300,
        seed: int = 0,
    ) -> None:
        self._encode, self._mixture = SequenceEncoder(tokenizer), mixture
        self._vocab = range(len(tokenizer.all_special_ids), len(tokenizer))
        self._steps, self._tokens, self._copy_steps, self._seed = steps, tokens_per_batch, copy_steps, seed
        self._curriculum = Curriculum(num_chars=(160, 2400), num_facts=(2, 9))

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        rng = Random(f"recall {self._seed} {step}")
        num_chars, num_facts = self._curriculum.at(min(1.0, step / (0.7 * self._steps)), rng)
        rows: list[tuple[list[int], list[int]]] = []
        while not rows or (len(rows) + 1) * max(len(ids) for ids, _ in rows) <= self._tokens:
            if step < self._copy_steps and rng.random() < 0.5:
                rows.append(self._copy(rng, round(num_chars / 8)))
                continue
            document = self._mixture.draw(rng, num_chars, num_facts)
            rows.append(self._encode(document, draw_passages(rng, document, num_chars), [(0, len(document.text))], []))
        return self._encode.pad(rows)

    def _copy(self, rng: Random, length: int) -> tuple[list[int], list[int]]:
        tokens = rng.choices(self._vocab, k=length)
        return tokens + tokens, [IGNORE] * (length + 1) + tokens[1:]


class PageReader:
    """Draws documents as the checkpoint's pages and says what stands in each visual token."""

    def __init__(self) -> None:
        self._renderer = PageRenderer(RenderConfig(**RENDER_CONFIG))
        self._images = HybridCtxImageProcessor(patch_size=PATCH_SIZE, merge_size=MERGE_SIZE)
        self._classes = np.full(0x110000, len(CHARACTERS) - 1, dtype=np.int64)
        self._classes[[ord(c) for c in CHARACTERS]] = np.arange(len(CHARACTERS))
        self._classes[[ord(c) for c in "\n\r\t"]] = CHARACTERS.index("¶"), CHARACTERS.index("¶"), CHARACTERS.index(" ")

    def draw(self, text: str) -> RenderedDocument:
        """The text's pages. A newline is one character, so that what is drawn and what is read have the same length."""
        return self._renderer.render(text.replace("\r\n", "\n"))

    def pixels(self, pages: list[np.ndarray]) -> dict[str, Tensor]:
        """uint8 pixel_values [patches, 18 * 18] and image_grid_thw [pages, 3]."""
        return dict(self._images(pages, return_tensors="pt"))

    def characters(self, document: RenderedDocument) -> Tensor:
        """What each cell of each visual token shows: indices into `CHARACTERS`, int64 [visual tokens, 18]."""
        columns = document.page_size(0)[1] // VISUAL_TOKEN * COLUMNS_PER_TOKEN
        codes = code_points(document.text)
        blocks = []
        for page in range(document.num_pages):
            rows = document.page_size(page)[0] // VISUAL_TOKEN * LINES_PER_TOKEN
            shown = np.full((rows, columns), CHARACTERS.index(" "), dtype=np.int64)
            first, last = document.typeset.page_lines(page)
            cells = document.typeset.cells(first, last)
            drawn = cells.width > 0
            column = np.rint(cells.left[drawn] * columns / RENDER_CONFIG["page_width"]).astype(np.int64)
            place = cells.line[drawn] - first, np.minimum(column, columns - 1)
            shown[place] = self._classes[codes[cells.index[drawn]]]
            shape = (rows // LINES_PER_TOKEN, LINES_PER_TOKEN, columns // COLUMNS_PER_TOKEN, COLUMNS_PER_TOKEN)
            blocks.append(shown.reshape(shape).transpose(0, 2, 1, 3).reshape(-1, LINES_PER_TOKEN * COLUMNS_PER_TOKEN))
        return torch.from_numpy(np.concatenate(blocks))


class FuseBatches(Dataset[dict[str, Tensor]]):
    """Stage `fuse`: pages with copied passages, passages alone, pages alone. Item i is the whole batch of step i.

    Now and then a passage that a question needs is missing, as a budget makes it happen.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        mixture: TaskMixture,
        *,
        steps: int,
        tokens_per_batch: int = 3600,
        seed: int = 0,
    ) -> None:
        self._reader, self._encode, self._mixture = PageReader(), SequenceEncoder(tokenizer), mixture
        self._steps, self._tokens, self._seed = steps, tokens_per_batch, seed
        self._curricula = {
            "both": Curriculum(num_chars=(500, 6000), num_facts=(6, 12)),
            "passages": Curriculum(num_chars=(400, 3600), num_facts=(6, 14)),
            "pages": Curriculum(num_chars=(100, 700), num_facts=(1, 4)),
        }

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        rng = Random(f"fuse {self._seed} {step}")
        mode = rng.choices(list(self._curricula), (50, 40, 10))[0]
        num_chars, num_facts = self._curricula[mode].at(min(1.0, step / (0.6 * self._steps)), rng)
        # Long codes are hardly ever read without a slip: pages alone are asked for what can be learned first.
        longest_answer = 12 if mode == "pages" else 1000
        rows: list[tuple[list[int], list[int]]] = []
        pages: list[np.ndarray] = []
        characters: list[Tensor] = []
        while not rows or (len(rows) + 1) * max(len(ids) for ids, _ in rows) <= self._tokens:
            document = self._mixture.draw(rng, num_chars, num_facts, longest_answer)
            passages = []
            if mode != "pages":
                passages = draw_passages(rng, document, rng.randint(0, min(num_chars, 3000)))
            if mode == "passages":
                rows.append(self._encode(document, passages, [(0, len(document.text))], []))
                continue
            drawn = self._reader.draw(document.text)
            spans = [drawn.page_span(page) for page in range(drawn.num_pages)]
            visual = [height * width // VISUAL_TOKEN**2 for height, width in map(drawn.page_size, range(len(spans)))]
            if passages and rng.random() < 0.1:
                passages = sorted(rng.sample(passages, rng.randint(1, len(passages))))
            rows.append(self._encode(document, passages, spans, visual))
            pages += drawn.pages
            characters.append(self._reader.characters(drawn))
        batch = self._encode.pad(rows)
        if pages:
            batch |= self._reader.pixels(pages)
            batch |= {
                "characters": torch.cat(characters),
                "mm_token_type_ids": self._encode.page_tokens(batch["input_ids"]),
            }
        return batch


class ReadBatches(Dataset[dict[str, Tensor]]):
    """Stage `read`: pages and what stands on them. Item i is the whole batch of step i."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        mixture: TaskMixture,
        *,
        steps: int,
        tokens_per_batch: int = 960,
        seed: int = 0,
    ) -> None:
        self._reader, self._mixture = PageReader(), mixture
        self._steps, self._tokens, self._seed = steps, tokens_per_batch, seed

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        rng = Random(f"read {self._seed} {step}")
        rows = rng.choice((2, 2, 3, 4, 6, 10, 20))
        pages: list[np.ndarray] = []
        characters = []
        for _ in range(max(1, self._tokens // (rows * 16))):
            num_chars = rows * LINES_PER_TOKEN * 92
            text = self._mixture.draw(rng, num_chars, max(2, num_chars // 120)).text
            text = scramble(rng, text) if rng.random() < 0.2 else text
            drawn = self._reader.draw(text[: num_chars + 200])
            pages += drawn.pages
            characters.append(self._reader.characters(drawn))
        return self._reader.pixels(pages) | {"characters": torch.cat(characters)}


def scramble(rng: Random, text: str) -> str:
    """The same text with a third of its letters and digits replaced: what cannot be guessed has to be read."""
    drawn = string.ascii_letters + string.digits * 4
    return "".join(rng.choice(drawn) if c.isalnum() and rng.random() < 0.33 else c for c in text)
