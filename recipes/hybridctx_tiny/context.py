# SPDX-License-Identifier: Apache-2.0
"""A probe of the tower: whether a value's own visual token tells the key that stands before it.

A decoder that chooses one of several values by its key looks for a visual token; what that does not tell, no attention
finds in one step.
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from transformers_hybridctx.evaluation.intervals import interval_95
from transformers_hybridctx.evaluation.needles import draw_key, draw_number, needle_sentence
from transformers_hybridctx.modeling_hybridctx import HybridCtxForCausalLM
from transformers_hybridctx.pipeline_long_doc_qa import BUNDLED_CHECKPOINT

from .batches import IGNORE
from .corpus import load_prose
from .pages import CHARACTERS, PageReader, ReadBatches
from .tasks import TaskMixture

DOCUMENTS, VALUES, NUM_CHARS = 60, 4, 800
"""Documents that are asked about, how many needles each has, and its length."""


def choice_by_context(weights: Path | None, corpus: Path, batches: int = 120, epochs: int = 8) -> dict[str, Any]:
    """
    Fit one linear map from visual embeddings to the word pieces of the two cells before, and choose with it.

    Args:
        weights: folder of a checkpoint with its tokenizer; the bundled one if None.
        corpus: folder of .txt files, see `corpus.fetch_corpus`.
        batches: of 512 visual tokens that the map is fitted to; none of the documents that are asked about are in them.

    Returns:
        `right` (0 to 1), its `interval` of 95%, and `examples`, how many keys were asked for.
    """
    torch.manual_seed(0)
    folder = weights or BUNDLED_CHECKPOINT
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = HybridCtxForCausalLM.from_pretrained(folder).eval()
    prose = load_prose(corpus, held_out=False)
    embeddings = model.get_input_embeddings().weight.detach()
    centred = F.normalize(embeddings - embeddings.mean(0), dim=-1)

    @torch.no_grad()
    def seen(pixel_values: Tensor, image_grid_thw: Tensor) -> Tensor:
        pages = model.model.get_image_features(pixel_values, image_grid_thw, return_dict=True).pooler_output
        return torch.cat(list(pages))

    drawn = [ReadBatches(tokenizer, prose, steps=batches, seed=3)[step] for step in range(batches)]
    visual = torch.cat([seen(one["pixel_values"], one["image_grid_thw"]) for one in drawn])
    told = _fitted(visual, torch.cat([one["pieces_before"] for one in drawn]), centred, epochs)

    reader, mixture, rng = PageReader(tokenizer), TaskMixture(prose), Random("context")
    hits: list[float] = []
    for _ in range(DOCUMENTS):
        facts = {draw_key(rng, held_out=True): draw_number(rng) for _ in range(VALUES)}
        text, _ = mixture.hide(rng, NUM_CHARS, [needle_sentence("numbers", *fact) for fact in facts.items()])
        document = reader.draw(text)
        shown = ["".join(CHARACTERS[index] for index in row) for row in reader.characters(document).tolist()]
        cells = [next(n for n, cell in enumerate(shown) if cell.startswith(value)) for value in facts.values()]
        with torch.no_grad():
            likely = told(seen(**reader.pixels(list(document.pages))))[cells]
        for number, key in enumerate(facts):
            pieces = tokenizer.encode(f" {key}", add_special_tokens=False)
            hits.append(float((likely @ centred[pieces].sum(0)).argmax() == number))
    return {"right": sum(hits) / len(hits), "interval": interval_95(hits), "examples": len(hits)}


def _fitted(visual: Tensor, before: Tensor, centred: Tensor, epochs: int) -> nn.Module:
    """A linear map with a norm behind it, whose products with token embeddings say which pieces stand before.

    Args:
        visual: [cells, hidden size]. before: [cells, pieces], IGNORE where there is none. centred: token embeddings,
            [vocabulary, hidden size].
    """
    size = visual.shape[-1]
    told = nn.Sequential(nn.Linear(size, size), nn.LayerNorm(size, elementwise_affine=False))
    sharpness = nn.Parameter(torch.tensor(3.0))
    optimizer = torch.optim.AdamW([*told.parameters(), sharpness], lr=2e-3)
    for _ in range(epochs):
        for cells in torch.randperm(len(visual)).split(512):
            around = before[cells] != IGNORE
            others = torch.randint(len(centred), (300,))
            names, index = torch.unique(torch.cat([before[cells][around], others]), return_inverse=True)
            likely = F.log_softmax(sharpness * told(visual[cells]) @ centred[names].T, dim=-1)
            near = index[: -len(others)]
            loss = -likely[around.nonzero()[:, 0], near].mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return told
