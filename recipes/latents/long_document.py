# SPDX-License-Identifier: Apache-2.0
"""One long document through all three channels: what was planned, what the prompt has, and how long it takes."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .models import load


@torch.no_grad()
def long_document(
    folder: Path,
    text: str,
    question: str,
    *,
    chunks: int,
    max_context_tokens: int,
    text_tokens: int,
    chunk_tokens: int | None = None,
) -> dict[str, Any]:
    """
    Ask about a document whose first chunks stand in the prompt as latents, what follows as pages, and passages for the
    question as tokens.

    Args:
        folder: that the commands read and train wrote.
        chunks: of the document's beginning, which become latents.
        max_context_tokens: of the prompt.
        text_tokens: that passages may take.
        chunk_tokens: the most of a chunk; as the encoder was taught if not given.

    Raises:
        ValueError: the prompt is not what was planned.

    Returns:
        `characters`, `planned` (tokens) and the prompt's own counts `prompt`, `latents`, `visual`, `copied`; `chunks`,
        `pages`, `spans`, `omitted_characters`; `answer`; and seconds of `planning` (with drawing) and `answering`.
    """
    model, processor, _ = load(folder)
    assert processor.latents is not None
    if chunk_tokens is not None:
        processor.latents = replace(processor.latents, chunk_tokens=chunk_tokens)
    started = time.perf_counter()
    features, plan = processor(
        document=text,
        question=question,
        budget={"max_context_tokens": max_context_tokens, "latent_chunks": chunks, "max_text_tokens": text_tokens},
        text_policy="bm25",
        return_plan=True,
        return_tensors="pt",
    )
    planned = time.perf_counter()
    ids = features["input_ids"][0]
    found = {
        "prompt": len(ids),
        "latents": int((ids == processor.latent_token_id).sum()),
        "visual": int((ids == processor.image_token_id).sum()),
    }
    expected = {
        "prompt": plan.total_tokens,
        "latents": processor.latents.num_latent_tokens * len(plan.latents),
        "visual": plan.visual_tokens,
    }
    if found != expected:
        raise ValueError(f"the prompt has {found}, but was planned as {expected}: report this")
    said = model.generate(**features, max_new_tokens=96, do_sample=False)[0, len(ids) :]
    answered = time.perf_counter()
    return {
        "characters": len(text),
        "planned": plan.total_tokens,
        **found,
        "copied": plan.text_tokens,
        "chunks": len(plan.latents),
        "pages": plan.num_pages,
        "spans": len(plan.spans),
        "omitted_characters": plan.omitted_characters,
        "answer": processor.tokenizer.decode(said, skip_special_tokens=True).partition("</think>")[2].strip(),
        "planning": planned - started,
        "answering": answered - planned,
    }
