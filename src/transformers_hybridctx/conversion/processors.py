# SPDX-License-Identifier: Apache-2.0
"""Processors for converted checkpoints: the source's tokenizer and image settings, and how pages are drawn."""

from __future__ import annotations

import warnings
from typing import Any

from transformers import AutoTokenizer

from ..configuration_hybridctx import HybridCtxConfig
from ..image_processing_hybridctx import HybridCtxImageProcessor
from ..processing_hybridctx import HybridCtxProcessor
from ..rendering.settings import RenderConfig
from .sources import Checkpoint, read_json, readable
from .tensor_files import CheckpointError

_IMAGE_SETTINGS = (
    "size",
    "patch_size",
    "temporal_patch_size",
    "merge_size",
    "image_mean",
    "image_std",
    "rescale_factor",
    "resample",
)
_ANSWER_TOKENS, _ANSWER_PART = 8192, 8
"""Room for the answer: so many tokens, at most the window divided by that."""
_SAMPLE = (
    "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a "
    "wife. However little known the feelings or views of such a man may be on his first entering a neighbourhood, "
    "this truth is so well fixed in the minds of the surrounding families, that he is considered as the rightful "
    "property of some one or other of their daughters. "
)


def image_settings(checkpoint: Checkpoint) -> dict[str, Any]:
    """The settings of a source's image processor; empty where the source has none, so that the family's apply."""
    for name, key in (("preprocessor_config.json", None), ("processor_config.json", "image_processor")):
        if (checkpoint.folder / name).exists():
            values = read_json(checkpoint.folder / name)
            values = values if key is None else values.get(key, {})
            settings = {name: values[name] for name in _IMAGE_SETTINGS if values.get(name) is not None}
            if settings:
                return settings
    return {}


def make_processor(
    checkpoint: Checkpoint, config: HybridCtxConfig, settings: dict[str, Any], render_config: RenderConfig
) -> HybridCtxProcessor:
    """The converted checkpoint's processor. No code of the source's folder is run for it.

    Raises:
        CheckpointError: the source has no tokenizer that transformers knows, or parts of it contradict each other.
    """
    with readable(f"the tokenizer of {checkpoint.name}"):
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, trust_remote_code=False)
    if tokenizer.chat_template is None:
        warnings.warn(
            f"{checkpoint.name} has no chat template, without which no prompt can be written: put the family's "
            "chat_template.jinja into the converted folder",
            stacklevel=2,
        )
    vision = config.vision_config
    settings = {
        "patch_size": vision.patch_size,
        "temporal_patch_size": vision.temporal_patch_size,
        "merge_size": vision.spatial_merge_size,
        **settings,
    }
    for name, field in (("patch_size", "patch_size"), ("merge_size", "spatial_merge_size")):
        if settings[name] != getattr(vision, field):
            raise CheckpointError(
                f"the image processor of {checkpoint.name} has {name}={settings[name]}, but its vision tower has "
                f"{field}={getattr(vision, field)}; one of the two files belongs to another checkpoint"
            )
    processor = HybridCtxProcessor(
        HybridCtxImageProcessor(**settings),
        tokenizer,
        render_config=render_config,
        default_budget=default_budget(config),
    )
    if processor.image_token_id != config.image_token_id:
        raise CheckpointError(
            f"the tokenizer of {checkpoint.name} has {processor.image_token!r} at {processor.image_token_id}, but its "
            f"config has image_token_id={config.image_token_id}; one of the two belongs to another checkpoint"
        )
    vocab_size = config.text_config.vocab_size
    if len(processor.tokenizer) > vocab_size:
        raise CheckpointError(
            f"the tokenizer of {checkpoint.name} has {len(processor.tokenizer):,} tokens, but its model {vocab_size:,}"
        )
    return processor


def own_processor(checkpoint: Checkpoint, render_config: RenderConfig | None) -> HybridCtxProcessor:
    """The processor of a checkpoint that is a HybridCtx one already, which draws pages as asked, if it is asked."""
    processor = HybridCtxProcessor.from_pretrained(checkpoint.folder)
    if render_config is not None:
        processor.render_config = render_config
    return processor


def default_budget(config: HybridCtxConfig) -> dict[str, int]:
    """How long a prompt may be, in tokens, that leaves room for an answer and the thoughts before it.

    Positions are never more than tokens, as a page takes fewer of them, so that the bound is on the safe side.
    """
    window = getattr(config.text_config, "max_position_embeddings", None)
    if window is None:
        return {}
    if window < _ANSWER_PART:
        raise CheckpointError(f"config.json has max_position_embeddings={window}, which leaves no room for a prompt")
    return {"max_context_tokens": window - min(_ANSWER_TOKENS, window // _ANSWER_PART)}


def context_arithmetic(processor: HybridCtxProcessor, config: HybridCtxConfig) -> dict[str, int | None]:
    """The decoder's window, and how much of it a prompt takes if a request does not say otherwise, in tokens."""
    return {
        "max_position_embeddings": getattr(config.text_config, "max_position_embeddings", None),
        "max_context_tokens": processor.default_budget.get("max_context_tokens"),
    }


def page_arithmetic(processor: HybridCtxProcessor) -> dict[str, Any]:
    """What a full page of English prose holds and costs, found by laying one out and counting."""
    config = processor.render_config
    # More than any page holds: a glyph of a readable size is not below a quarter of the font size wide.
    lines = config.page_height / config.line_height
    characters = round(lines * config.page_width / (config.font_size / 4)) + len(_SAMPLE)
    document = processor.read_document(_SAMPLE * (1 + characters // len(_SAMPLE)))
    start, end = document.page_span(0)
    height, width = document.page_size(0)
    visual_tokens = processor.image_processor.get_number_of_image_patches(height, width) // (
        processor.image_processor.merge_size**2
    )
    text_tokens = len(processor.tokenizer.encode(document.text[start:end], add_special_tokens=False))
    return {
        "page_pixels": [height, width],
        "characters_per_page": end - start,
        "text_tokens_per_page": text_tokens,
        "visual_tokens_per_page": visual_tokens,
        "compression_ratio": round(text_tokens / visual_tokens, 2),
    }
