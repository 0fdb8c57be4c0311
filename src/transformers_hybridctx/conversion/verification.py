# SPDX-License-Identifier: Apache-2.0
"""Source and converted checkpoint on the same drawn page: the logits of one process, then those of another."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig, Glm4vImageProcessorPil

from ..configuration_hybridctx import HybridCtxConfig
from ..modeling_hybridctx import HybridCtxForCausalLM
from ..modules.quantization import settle_four_bit
from ..processing_hybridctx import HybridCtxProcessor
from ..prompting.pages import drawn_pages
from .configs import source_config
from .sources import Checkpoint, open_checkpoint, read_json
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
    source: Checkpoint, target: Path, image_settings: dict[str, Any], old_layout: bool, rounded: bool
) -> dict[str, Any]:
    """Compare logits in float32, source first, each in a process of its own that ends before the other begins.

    A target in 4 bits is compared with the source loaded in the same 4 bits, which it has to equal like any other; how
    far both are from full precision is found and told.

    Args:
        source: the source.
        target: folder of the converted checkpoint.
        image_settings: of the source's image processor.
        old_layout: the source's keys are those of transformers before 4.52.
        rounded: the target's dtype holds less than the source's.

    Raises:
        CheckpointError: they differ by more than the tolerance.
    """
    arguments = (str(source.folder), target, image_settings, old_layout)
    quantised = "quantization_config" in read_json(target / "config.json")
    theirs = _apart(_source_logits, *arguments, quantised)
    ours = _apart(_target_logits, target)
    # In 4 bits the source was rounded to the same dtype before, as it has to be for the same codes.
    tolerance = ROUNDING_TOLERANCE if rounded and not quantised else TOLERANCE
    difference, largest = float(np.abs(theirs - ours).max()), float(np.abs(theirs).max())
    if not difference <= tolerance * max(largest, 1.0):
        raise CheckpointError(
            f"the converted checkpoint's logits differ from the source's by {difference:.3g}, where the largest is "
            f"{largest:.3g} and {tolerance:g} of it may be lost to rounding; nothing was written"
        )
    found: dict[str, Any] = {
        "compared_with": "the source in the same 4 bits" if quantised else "the source",
        "max_abs_difference": difference,
        "max_abs_logit": largest,
        "tolerance": tolerance * max(largest, 1.0),
        "same_next_tokens": _same_next_tokens(theirs, ours),
        "positions": int(theirs.shape[1]),
        "computed_in": "float32",
    }
    if quantised:
        full = _apart(_source_logits, *arguments, False)
        found["distance_to_full_precision"] = {
            "max_abs_difference": float(np.abs(full - ours).max()),
            "mean_abs_difference": float(np.abs(full - ours).mean()),
            "same_next_tokens": _same_next_tokens(full, ours),
        }
    return found


def _same_next_tokens(one: np.ndarray, other: np.ndarray) -> float:
    return float((one.argmax(-1) == other.argmax(-1)).mean())


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
    model = HybridCtxForCausalLM.from_pretrained(target)
    return _last_logits(model, features)


def _source_logits(
    source: str, target: Path, settings: dict[str, Any], old_layout: bool, quantised: bool
) -> np.ndarray:
    processor, features, plan = _prompt(target)
    checkpoint = open_checkpoint(source)
    loading: dict[str, Any] = {}
    if quantised:
        # As the conversion does it: first rounded to the target's dtype, then to 4 bits.
        stored = HybridCtxConfig.from_pretrained(target)
        loading = {"dtype": stored.dtype, "quantization_config": BitsAndBytesConfig(**stored.quantization_config)}
    if checkpoint.config["model_type"] == HybridCtxConfig.model_type:
        model = HybridCtxForCausalLM.from_pretrained(source, **loading)
        return _last_logits(model, features)
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
        config=source_config(checkpoint),
        key_mapping=_OLD_LAYOUT if old_layout else None,
        output_loading_info=True,
        **loading,
    )
    lost = sorted(info["missing_keys"])
    if lost:
        raise CheckpointError(f"transformers itself misses {len(lost)} keys of the source, {lost[0]!r} among them")
    if quantised:
        settle_four_bit(model)
    return _last_logits(model, features)


def _last_logits(model: Any, features: Any) -> np.ndarray:
    """Computed in float32, whatever the weights are stored in."""
    for module in model.modules():
        if hasattr(module, "compute_dtype"):  # a layer in 4 bits
            module.compute_dtype = torch.float32
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None and tensor.is_floating_point():
                tensor.data = tensor.data.float()
    with torch.no_grad():
        return model.eval()(**features, logits_to_keep=_KEPT_LOGITS).logits.float().numpy()
