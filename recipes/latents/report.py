# SPDX-License-Identifier: Apache-2.0
"""What is left of a text in few embeddings: latents, mean pooling, pages, and the text's own beginning, at equal cost.

Measured as Context Cascade Compression and DeepSeek-OCR are, on text that no training step read, and on random strings,
which no language model can guess. `precision` is that of sets of words, which ignores order and repetition, so the edit
distance of characters stands beside it.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from rapidfuzz.distance import Levenshtein

from recipes.hybridctx_tiny.corpus import load_prose
from recipes.hybridctx_tiny.pages import ReadBatches
from transformers_hybridctx import HybridCtxForCausalLM, HybridCtxProcessor
from transformers_hybridctx.evaluation.intervals import interval_95

from .models import load
from .training import perplexity, tokenised, windows
from .ways import CELLS, DrawnPages, MeanPooled, Way, of_folder, said_from_latents, said_from_pages, truncated

_LOOP = 3
"""Words in a row, and how often they stand in what loops."""


def report(
    folders: Sequence[Path],
    checkpoint: str | Path,
    corpus: Path,
    *,
    bins: Sequence[int] = (64, 128, 256, 400),
    examples: int = 24,
    cells: Sequence[tuple[int, int]] = CELLS,
    stretch: int = 4,
    steps: int = 400,
    said: int = 128,
    seed: int = 0,
) -> dict[str, Any]:
    """
    Rows of all ways to shorten, by lengths of the text, and the decoder's language. Of each text, a way says as much as
    it has room for.

    Args:
        folders: that the commands read and train wrote.
        checkpoint: that they were trained from, for pages and for perplexity before.
        bins: edges of the texts' lengths in tokens, ascending; none: no text is said again.
        examples: texts of each bin and kind.
        cells: of pages: characters across a visual token and lines down it.
        stretch: the most tokens of which mean pooling takes a mean.
        steps: of the maps that read pages and means off.
        said: texts of at most so many tokens are repeated by the decoder, too, from the first folder's latents and from
            pages.

    Returns:
        `rows`: `way`, `kind` ("prose" or "random"), `from_tokens`, `to_tokens`, `decoder_tokens` (at most), `precision`
        and its `interval`, `recall`, `edit_distance` (a part of the longer text's length) and `edit_interval`, `exact`,
        `loops` (the part of what is said in which three words in a row stand three times), and `by_part`;
        `perplexity`: by the folder's name, and of the checkpoint "before".
    """
    before: Any = HybridCtxForCausalLM.from_pretrained(checkpoint).eval()
    plain = HybridCtxProcessor.from_pretrained(checkpoint)
    models = [load(folder) for folder in folders]
    texts = tokenised(plain, load_prose(corpus, held_out=True))
    ways: list[Way] = []
    if bins:
        ways = [of_folder(folder, *model) for folder, model in zip(folders, models, strict=True)]
        counts = sorted({way.tokens for way in ways})
        ways += _ways_without_encoder(before, plain, corpus, counts, cells, stretch, steps)
        if said and counts:
            ways += [said_from_latents(*models[0], said), said_from_pages(before, plain, counts[0], said)]
    rows = []
    for least, most in pairwise(bins):
        rng = Random(f"{seed} {least}")
        drawn_texts = windows(texts, (most, most), rng, both=False)
        kinds = {
            "prose": [next(drawn_texts)[0] for _ in range(examples)],
            "random": [_random_strings(plain, rng, most) for _ in range(examples)],
        }
        for kind, chunks in kinds.items():
            # lengths from all over the bin
            chunks = [
                chunk[: least + (number + 1) * (most - least) // examples] for number, chunk in enumerate(chunks)
            ]
            rows += [
                {"way": way.name, "kind": kind, "from_tokens": least, "to_tokens": most} | _scores(way, chunks, plain)
                for way in ways
                if way.longest is None or most <= way.longest
            ]
    kept = {folder.name: perplexity(model, texts) for folder, (model, _, _) in zip(folders, models, strict=True)}
    return {"rows": rows, "perplexity": {"before": perplexity(before, texts), **kept}}


def _ways_without_encoder(
    model: Any,
    processor: HybridCtxProcessor,
    corpus: Path,
    counts: Sequence[int],
    cells: Sequence[tuple[int, int]],
    stretch: int,
    steps: int,
) -> list[Way]:
    """Text cut short, means and pages, each at every count of the decoder's tokens."""
    ways = [truncated(processor, count) for count in counts]
    source = ReadBatches(processor.tokenizer, load_prose(corpus, held_out=False), steps=0)
    pooled = MeanPooled(model, processor, source, stretch, steps)
    ways += [pooled.way(count) for count in counts]
    for cell in cells:
        drawn = DrawnPages(model, processor, source, cell, steps)
        ways += [drawn.way(count) for count in counts]
    return ways


def _scores(way: Way, chunks: list[list[int]], processor: HybridCtxProcessor) -> dict[str, Any]:
    precisions, recalls, distances, exact, loops, parts = [], [], [], [], [], []
    for chunk in chunks:
        said, text = way.repeat(chunk), processor.tokenizer.decode(chunk)
        words, known = set(said.split()), set(text.split())
        both = len(words & known)
        precisions.append(both / len(words) if words else 0.0)
        recalls.append(both / len(known) if known else 0.0)
        distances.append(Levenshtein.normalized_distance(said.strip(), text.strip()))
        exact.append(float(said.strip() == text.strip()))
        loops.append(float(is_loop(said)))
        if (part := way.by_part(chunk)) is not None:
            parts.append(part)
    return {
        "decoder_tokens": way.tokens,
        "examples": len(chunks),
        "precision": fmean(precisions),
        "interval": interval_95(precisions),
        "recall": fmean(recalls),
        "edit_distance": fmean(distances),
        "edit_interval": interval_95(distances),
        "exact": fmean(exact),
        "loops": fmean(loops),
        "by_part": [fmean(part) for part in zip(*parts, strict=True)] if parts else None,
    }


def is_loop(said: str) -> bool:
    """Whether the same three words stand three times in it."""
    words = said.split()
    runs = Counter(tuple(words[start : start + _LOOP]) for start in range(len(words) - _LOOP + 1))
    return max(runs.values(), default=0) >= _LOOP


def _random_strings(processor: HybridCtxProcessor, rng: Random, tokens: int) -> list[int]:
    text = " ".join(str(uuid.UUID(int=rng.getrandbits(128))) for _ in range(tokens))
    return list(processor.encoder([text])[0][:tokens])
