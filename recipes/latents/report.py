# SPDX-License-Identifier: Apache-2.0
"""What is left of a text in few embeddings: repeated from latents, mean pooling, pages, and the text's own beginning.

Measured as Context Cascade Compression and DeepSeek-OCR are, on text that no training step read, and on random strings,
which no language model can guess. `precision` is that of sets of words, which ignores order and repetition, so the edit
distance of characters stands beside it.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import torch
from rapidfuzz.distance import Levenshtein

from recipes.hybridctx_tiny.corpus import load_prose
from transformers_hybridctx import HybridCtxForCausalLM, HybridCtxProcessor
from transformers_hybridctx.evaluation.intervals import interval_95

from .models import load
from .reading import HEADS_FILE, load_heads
from .training import REPEAT, inputs_of, perplexity, tokenised, windows

_PARTS = 4
"""Stretches of a text whose tokens are counted apart: what is forgotten first."""


@dataclass(frozen=True)
class Setting:
    """One way to shorten a text.

    Attributes:
        name: of the way.
        tokens: of the decoder for a text of so many tokens; a mean for pages.
        repeat: a text's token ids, to what is repeated of it.
        by_part: the same, to the part of tokens that is predicted right in each stretch of the text, by a decoder given
            the true ones before them; None where no latents are.
        most: the longest text, in tokens.
    """

    name: str
    tokens: float
    repeat: Callable[[list[int]], str]
    by_part: Callable[[list[int]], list[float]] | None = None
    most: float = math.inf


def report(
    folders: Sequence[Path],
    checkpoint: str | Path,
    corpus: Path,
    *,
    bins: Sequence[int] = (16, 32, 48, 64),
    examples: int = 32,
    scales: Sequence[float] = (1.0,),
    seed: int = 0,
) -> dict[str, Any]:
    """
    Rows of all ways to shorten, by lengths of the text.

    Args:
        folders: that the commands read and train wrote.
        checkpoint: that they were trained from, for pages and for perplexity before.
        bins: edges of the texts' lengths in tokens, ascending; of chunks, rows end where these do.
        examples: texts of each bin and kind.
        scales: of pages.

    Returns:
        `rows`: `way`, `kind` ("prose" or "random"), `from_tokens`, `to_tokens`, `decoder_tokens`, `precision` and its
        `interval`, `recall`, `edit_distance` (a part of the longer text's length), `exact`, and `by_part`;
        `perplexity`: by the folder's name, and of the checkpoint "before".
    """
    before: Any = HybridCtxForCausalLM.from_pretrained(checkpoint)
    models = [load(folder) for folder in folders]
    processor = models[0][1] if models else HybridCtxProcessor.from_pretrained(checkpoint)
    texts = tokenised(processor, load_prose(corpus, held_out=True))
    settings = [
        _read_off(*model, folder) if (folder / HEADS_FILE).is_file() else _latents(*model)
        for folder, model in zip(folders, models, strict=True)
    ]
    settings += [_truncated(processor, count) for count in sorted({int(one.tokens) for one in settings})]
    settings += [_pages(before, HybridCtxProcessor.from_pretrained(checkpoint), processor, scale) for scale in scales]
    rows = []
    for least, most in pairwise(bins):
        rng = Random(f"{seed} {least}")
        drawn = windows(texts, (most, most), rng, both=False)
        kinds = {
            "prose": [next(drawn)[0] for _ in range(examples)],
            "random": [_random_strings(processor, rng, most) for _ in range(examples)],
        }
        for kind, chunks in kinds.items():
            # the lengths of a bin in turn
            chunks = [chunk[: least + 1 + number % (most - least)] for number, chunk in enumerate(chunks)]
            for setting in settings:
                if setting.most < most:
                    continue
                rows.append(
                    {"way": setting.name, "kind": kind, "from_tokens": least, "to_tokens": most}
                    | _scores(setting, chunks, processor)
                )
    kept = {folder.name: perplexity(model, texts) for folder, (model, _, _) in zip(folders, models, strict=True)}
    return {"rows": rows, "perplexity": {"before": perplexity(before, texts), **kept}}


def _scores(setting: Setting, chunks: list[list[int]], processor: HybridCtxProcessor) -> dict[str, Any]:
    precisions, recalls, distances, exact, parts = [], [], [], [], []
    for chunk in chunks:
        said, text = setting.repeat(chunk), processor.tokenizer.decode(chunk)
        words, known = set(said.split()), set(text.split())
        both = len(words & known)
        precisions.append(both / len(words) if words else 0.0)
        recalls.append(both / len(known) if known else 0.0)
        distances.append(Levenshtein.normalized_distance(said.strip(), text.strip()))
        exact.append(float(said.strip() == text.strip()))
        if setting.by_part is not None:
            parts.append(setting.by_part(chunk))
    return {
        "decoder_tokens": setting.tokens,
        "precision": fmean(precisions),
        "interval": interval_95(precisions),
        "recall": fmean(recalls),
        "edit_distance": fmean(distances),
        "exact": fmean(exact),
        "by_part": [fmean(part) for part in zip(*parts, strict=True)] if parts else None,
    }


def _latents(model: Any, processor: HybridCtxProcessor, method: str) -> Setting:
    def repeat(chunk: list[int]) -> str:
        inputs = inputs_of(processor, [chunk], REPEAT)
        del inputs["labels"]
        with torch.no_grad():
            made = model.generate(**inputs, max_new_tokens=len(chunk), do_sample=False)
        return str(processor.tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))

    def by_part(chunk: list[int]) -> list[float]:
        inputs = inputs_of(processor, [chunk], REPEAT, [chunk])
        labels = inputs.pop("labels")[0, -len(chunk) :]
        with torch.no_grad():
            said = model(**inputs).logits[0, -len(chunk) - 1 : -1].argmax(-1)
        return [float(part.float().mean()) for part in (said == labels).tensor_split(_PARTS)]

    assert processor.latents is not None
    count, most = processor.latents.num_latent_tokens, processor.latents.chunk_tokens
    return Setting(method, count, repeat, by_part, most)


def _read_off(model: Any, processor: HybridCtxProcessor, method: str, folder: Path) -> Setting:
    """What the reading heads say of the latents, all tokens at once: no decoder guesses from what it said before."""
    heads, embeddings = load_heads(folder), model.get_input_embeddings().weight

    def said(chunk: list[int]) -> torch.Tensor:
        with torch.no_grad():
            return heads(model.model.latent([torch.tensor(chunk)]), embeddings, len(chunk))[0].argmax(-1)

    def by_part(chunk: list[int]) -> list[float]:
        right = said(chunk) == torch.tensor(chunk)
        return [float(part.float().mean()) for part in right.tensor_split(_PARTS)]

    assert processor.latents is not None
    count, most = processor.latents.num_latent_tokens, processor.latents.chunk_tokens
    return Setting(
        f"{method}, read off", count, lambda chunk: str(processor.tokenizer.decode(said(chunk))), by_part, most
    )


def _truncated(processor: HybridCtxProcessor, count: int) -> Setting:
    """The text's first tokens as they are, which a decoder would repeat without a fault."""
    return Setting("truncation", count, lambda chunk: str(processor.tokenizer.decode(chunk[:count])))


def _pages(model: Any, own: HybridCtxProcessor, shared: HybridCtxProcessor, scale: float) -> Setting:
    """Pages of the checkpoint as it is, which was not trained to repeat them."""
    budget = {"visual_share": 1, "min_scale": scale, "max_scale": scale}

    def repeat(chunk: list[int]) -> str:
        text = shared.tokenizer.decode(chunk).strip() or "-"
        features = own(document=text, question=REPEAT, budget=budget, return_tensors="pt")
        with torch.no_grad():
            made = model.generate(**features, max_new_tokens=len(chunk), do_sample=False)
        return str(own.tokenizer.decode(made[0, features["input_ids"].shape[1] :], skip_special_tokens=True))

    tokens = own.plan("word " * 40, budget=budget, text_policy="none").visual_tokens
    return Setting(f"pages, scale {scale:g}", tokens, repeat)


def _random_strings(processor: HybridCtxProcessor, rng: Random, tokens: int) -> list[int]:
    text = " ".join(str(uuid.UUID(int=rng.getrandbits(128))) for _ in range(tokens))
    return list(processor.encoder([text])[0][:tokens])
