# SPDX-License-Identifier: Apache-2.0
"""A HybridCtx checkpoint becomes a plain GLM-4V one again, for engines that know that family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import AutoConfig, GenerationConfig, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from ..configuration_hybridctx import HybridCtxConfig
from ..processing_hybridctx import HybridCtxProcessor
from .carried_files import GENERATION, carried_files, copy_files
from .configs import FAMILIES, TOKEN_IDS, check_not_quantised, own_config, tower_fields
from .convert import DTYPES, REPORT, main_dtype, plan_shards, shard_fingerprint, write_shards
from .four_bit import clean_scratch
from .key_layouts import key_fates, parameter_shapes, without_fusion
from .model_cards import exported_card
from .output_folders import check_apart, check_target, complete_folder, write_json
from .sources import Checkpoint, open_checkpoint, read_json, readable
from .tensor_files import CheckpointError, same_values
from .two_frames import halved, with_two_frames

_PROCESSORS = {
    "glm4v": ("Glm4vProcessor", "Glm4vImageProcessor"),
    "glm46v": ("Glm46VProcessor", "Glm46VImageProcessor"),
    "glm_ocr": ("Glm46VProcessor", "Glm46VImageProcessor"),
}


def export_checkpoint(
    source: str,
    target: Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    model_type: str | None = None,
    dtype: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Write the GLM-4V checkpoint that gives a HybridCtx checkpoint's logits.

    Args:
        source: a folder, or a repository on the Hub.
        target: the folder to be; it appears when it is complete.
        revision, token: of the Hub.
        model_type: "glm4v", "glm46v" or "glm_ocr"; that of the conversion's source, or of the towers, unless given.
        dtype: "float32", "bfloat16" or "float16"; the source's own unless given.
        overwrite: replace an existing target.
        dry_run: check everything and write nothing.

    Returns:
        The fate of every key, and sizes.

    Raises:
        CheckpointError: no HybridCtx checkpoint; or one that has a latent encoder, or whose phi or modality embedding
            was trained, which GLM-4V has no place for: phi is not linear, so that nothing can be folded into the
            weights beside it; or one whose positions engines would count otherwise.
    """
    if dtype is not None and dtype not in DTYPES:
        raise CheckpointError(f"dtype={dtype!r} is not one of {', '.join(DTYPES)}")
    check_target(target, overwrite or dry_run)
    checkpoint = open_checkpoint(source, revision, token)
    check_not_quantised(checkpoint, "export")
    check_apart(checkpoint.folder, target)
    with readable(f"config.json of {checkpoint.name}"):
        config = own_config(checkpoint)
        shapes = parameter_shapes(config)
    if config.latent_config is not None:
        raise CheckpointError(
            f"{checkpoint.name} has a latent encoder, which GLM-4V has no place for; serve the HybridCtx checkpoint"
        )
    family = _family(checkpoint, config, model_type)
    _check_sections(checkpoint, config)
    fates = key_fates(checkpoint.tensors, shapes, config, 0, same_values)
    fates = without_fusion(fates, checkpoint.tensors, same_answers="serve the HybridCtx checkpoint")
    shards = plan_shards(checkpoint, fates, None if dtype is None else DTYPES[dtype])
    fingerprint = shard_fingerprint(checkpoint, shards)
    their_config = _their_config(checkpoint, config, family)
    # vLLM's own class counts a picture as two frames, whatever the config says
    is_spread = config.vision_config.temporal_patch_size == 1
    if is_spread:
        shards = with_two_frames(shards)
        their_config.vision_config.temporal_patch_size = 2
    # A checkpoint may be stored in less than it asks to be loaded in, to be small.
    their_config.dtype = main_dtype(shards) if dtype or config.dtype is None else config.dtype
    written = [tensor for pairs in shards.values() for _, tensor in pairs]
    report: dict[str, Any] = {
        "model_type": family,
        "dtype": str(their_config.dtype).removeprefix("torch."),
        "num_parameters": sum(tensor.num_elements for tensor in written),
        "num_bytes": sum(tensor.num_bytes for tensor in written),
        "num_shards": len(shards),
        "keys": {action: sum(fate.action == action for fate in fates) for action in ("kept", "renamed", "dropped")},
        "tensors": [vars(fate) for fate in fates],
    }
    carried = carried_files(checkpoint.folder)
    if GENERATION in carried:
        read_json(carried[GENERATION])
    with readable(f"the processor of {checkpoint.name}"):
        processor = HybridCtxProcessor.from_pretrained(checkpoint.folder)
    if dry_run:
        return report
    with complete_folder(target, fingerprint, report["num_bytes"], overwrite) as folder:
        # what may go wrong with small files goes wrong before hours of writing weights
        their_config.save_pretrained(folder.path)
        _save_processor(processor, config, their_config, folder.path)
        copy_files(carried, folder.path)
        if GENERATION not in carried:
            GenerationConfig.from_model_config(their_config).save_pretrained(folder.path)
        exported_card(checkpoint, family).save(folder.path / "README.md")
        write_shards(folder, halved(shards, clean_scratch(folder.path / ".scratch")) if is_spread else shards)
    return report


def _family(checkpoint: Checkpoint, config: HybridCtxConfig, asked: str | None) -> str:
    towers = (config.text_config.model_type, config.vision_config.model_type)
    fitting = [name for name, (_, *its_towers) in FAMILIES.items() if tuple(its_towers) == towers]
    if not fitting:
        raise CheckpointError(f"{checkpoint.name} has the towers {' and '.join(towers)}, which cannot be exported")
    if asked is not None:
        if asked not in fitting:
            raise CheckpointError(
                f"model_type={asked!r} does not have the towers {' and '.join(towers)}; {fitting} do"
            )
        return asked
    if (checkpoint.folder / REPORT).exists():
        origin = read_json(checkpoint.folder / REPORT).get("family")
        if origin in fitting:
            return origin
    return fitting[0]


def _check_sections(checkpoint: Checkpoint, config: HybridCtxConfig) -> None:
    """
    Raise for M-RoPE sections that transformers reads and engines do not: vLLM takes each for an axis of positions, and
    SGLang stretches them until they fit.
    """
    text = config.text_config
    sections = text.rope_parameters["mrope_section"]
    head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    half = int(head_size * text.rope_parameters.get("partial_rotary_factor", 1.0)) // 2
    if len(sections) != 3 or sum(sections) != half:
        raise CheckpointError(
            f"{checkpoint.name} has mrope_section={sections}, and engines take three sections that sum to {half}: they "
            "would give other answers; serve the HybridCtx checkpoint"
        )


def _their_config(checkpoint: Checkpoint, config: HybridCtxConfig, family: str) -> PreTrainedConfig:
    fields = {name: getattr(config, name) for name in TOKEN_IDS if getattr(config, name, None) is not None}
    theirs = AutoConfig.for_model(
        family,
        text_config=tower_fields(config.text_config),
        vision_config=tower_fields(config.vision_config),
        tie_word_embeddings=config.tie_word_embeddings,
        **fields,
    )
    # what transformers' class takes for granted and vLLM's own looks for in the decoder's config
    if config.tie_word_embeddings:
        theirs.text_config.tie_word_embeddings = True
    if any(key.endswith(".q_proj.bias") for key in checkpoint.tensors):
        theirs.text_config.attention_bias = True
    theirs.architectures = [MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES[family]]
    return theirs


def _save_processor(
    processor: HybridCtxProcessor, config: HybridCtxConfig, theirs: PreTrainedConfig, folder: Path
) -> None:
    """Tokenizer, template and image settings as the family's own processor reads them."""
    processor_class, image_processor_class = _PROCESSORS[theirs.model_type]
    processor.tokenizer._set_processor_class(processor_class)
    processor.tokenizer.chat_template = processor.chat_template
    processor.tokenizer.save_pretrained(folder)
    values = json.loads(processor.image_processor.to_json_string())
    frames = theirs.vision_config.temporal_patch_size // values["temporal_patch_size"]
    for name in ("auto_map", "processor_class"):
        values.pop(name, None)
    write_json(
        folder / "preprocessor_config.json",
        {
            **values,
            "image_processor_type": image_processor_class,
            "processor_class": processor_class,
            "temporal_patch_size": theirs.vision_config.temporal_patch_size,
            "size": {edge: frames * pixels for edge, pixels in values["size"].items()},  # of all frames together
            # the model's own, which fold them into its first layer
            "image_mean": list(config.image_mean),
            "image_std": list(config.image_std),
            "rescale_factor": config.rescale_factor,
        },
    )
