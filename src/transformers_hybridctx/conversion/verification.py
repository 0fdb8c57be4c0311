# SPDX-License-Identifier: Apache-2.0
"""Source and converted checkpoint on the same drawn page: the logits of one process, then those of another."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForImageTextToText, Glm4vImageProcessorPil

from ..modeling_hybridctx import HybridCtxForCausalLM
from ..processing_hybridctx import HybridCtxProcessor, drawn_pages
from .configs import source_config
from .sources import open_checkpoint
from .tensor_files import CheckpointError

_TEXT = (
    "The special magic number for green-lemur is: 4821930. It was the best of times, it was the worst of times. " * 4
)
_QUESTION = "What is the special magic number for green-lemur?"
_KEPT_LOGITS = 32
_OLD_LAYOUT = {r"^visual\.": "model.visual.", r"^model\.(?!visual\.|language_model\.)": "model.language_model."}
TOLERANCE = 1e-3
"""Largest difference of a logit, as a part of the largest logit, where the weights are the same."""
ROUNDING_TOLERANCE = 0.1
"""The same where the conversion rounded them to a shorter dtype."""


def verify_conversion(
    source: Path, target: Path, image_settings: dict[str, Any], old_layout: bool, rounded: bool
) -> dict[str, Any]:
    """Compare logits in float32, source first, each in a process of its own that ends before the other begins.

    Args:
        source, target: folders of the two.
        image_settings: of the source's image processor.
        old_layout: the source's keys are those of transformers before 4.52.
        rounded: the target's dtype holds less than the source's.

    Raises:
        CheckpointError: they differ by more than the tolerance.
    """
    theirs = _apart(_source_logits, source, target, image_settings, old_layout)
    ours = _apart(_target_logits, target)
    tolerance = ROUNDING_TOLERANCE if rounded else TOLERANCE
    difference, largest = float(np.abs(theirs - ours).max()), float(np.abs(theirs).max())
    if not difference <= tolerance * max(largest, 1.0):
        raise CheckpointError(
            f"the converted checkpoint's logits differ from the source's by {difference:.3g}, where the largest is "
            f"{largest:.3g} and {tolerance:g} of it may be lost to rounding; nothing was written"
        )
    return {
        "max_abs_difference": difference,
        "max_abs_logit": largest,
        "same_next_tokens": float((theirs.argmax(-1) == ours.argmax(-1)).mean()),
        "positions": int(theirs.shape[1]),
        "computed_in": "float32",
    }


def _apart(function: Any, *arguments: Any) -> np.ndarray:
    """Call a function in a fresh process, so that its memory is given back before the next one."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _prompt(target: Path) -> tuple[HybridCtxProcessor, Any, Any]:
    processor = HybridCtxProcessor.from_pretrained(target)
    features, plan = processor(
        document=_TEXT, question=_QUESTION, text_policy="none", return_tensors="pt", return_plan=True
    )
    return processor, features, plan


def _target_logits(target: Path) -> np.ndarray:
    _, features, _ = _prompt(target)
    model = HybridCtxForCausalLM.from_pretrained(target, dtype=torch.float32)
    return _last_logits(model, features)


def _source_logits(source: Path, target: Path, settings: dict[str, Any], old_layout: bool) -> np.ndarray:
    processor, features, plan = _prompt(target)
    # The pages as transformers' own image processor cuts them, floats and all.
    ours = processor.image_processor
    shape = {
        "patch_size": ours.patch_size,
        "merge_size": ours.merge_size,
        "temporal_patch_size": ours.temporal_patch_size,
    }
    their_processor = Glm4vImageProcessorPil(**{**shape, **settings})
    pages = [
        np.repeat(page[:, :, None], 3, axis=2) if page.ndim == 2 else page
        for page in drawn_pages(plan.document, plan.scale)
    ]
    features |= dict(their_processor(images=pages, return_tensors="pt"))
    model, info = AutoModelForImageTextToText.from_pretrained(
        source,
        config=source_config(open_checkpoint(str(source))),
        dtype=torch.float32,
        key_mapping=_OLD_LAYOUT if old_layout else None,
        output_loading_info=True,
    )
    lost = sorted(info["missing_keys"])
    if lost:
        raise CheckpointError(f"transformers itself misses {len(lost)} keys of the source, {lost[0]!r} among them")
    return _last_logits(model, features)


def _last_logits(model: Any, features: Any) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(**features, logits_to_keep=_KEPT_LOGITS).logits.float().numpy()
