# SPDX-License-Identifier: Apache-2.0
"""A GLM-4V checkpoint becomes a HybridCtx checkpoint: the same weights, streamed, and all that goes with them."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from .. import __version__
from ..configuration_hybridctx import HybridCtxConfig
from ..modules.quantization import four_bit_config
from ..remote_code import write_remote_code
from ..rendering.settings import RenderConfig
from .carried_files import GENERATION, carried_files, copy_files
from .configs import check_not_quantised, hybridctx_config, num_extra_layers, own_config, source_config
from .four_bit import clean_scratch, four_bit_bytes, four_bit_keys, in_four_bits
from .key_layouts import KeyFate, key_fates, parameter_shapes, without_fusion
from .model_cards import converted_card
from .output_folders import PartialFolder, check_apart, check_target, complete_folder, write_json
from .processors import context_arithmetic, image_settings, make_processor, own_processor, page_arithmetic
from .sources import INDEX, SINGLE, Checkpoint, open_checkpoint, read_json, readable
from .tensor_files import (
    FLOATS,
    TORCH_DTYPES,
    CheckpointError,
    Tensor,
    as_written,
    read_header,
    same_values,
    write_tensors,
)
from .verification import verify_conversion

REPORT = "conversion_report.json"
DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}

Pairs = list[tuple[Tensor, Tensor]]


def convert_checkpoint(
    source: str,
    target: Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    dtype: str | None = None,
    load_in_4bit: bool = False,
    fold_phi: bool = False,
    render_config: RenderConfig | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    verify: bool = False,
) -> dict[str, Any]:
    """Convert a checkpoint of the GLM-4V family (glm4v, glm46v, glm_ocr), or write a HybridCtx one in another form.

    Args:
        source: a folder, or a repository on the Hub.
        target: the folder to be. It appears when it is complete, see [`complete_folder`].
        revision, token: of the Hub.
        dtype: "float32", "bfloat16" or "float16"; the source's own unless given.
        load_in_4bit: write the decoder's weights in 4 bits, as [`four_bit_config`] chooses them.
        fold_phi: of a HybridCtx source, leave out phi and the modality embedding, where they add nothing.
        render_config: how the checkpoint draws pages.
        overwrite: replace an existing target.
        dry_run: check everything that can be checked without reading weights, and write nothing.
        verify: compare the logits of source and target on a drawn page before the target appears. Each of the two is
            loaded once, one after the other. In 4 bits, the source is loaded in the same 4 bits, and once more in
            full precision, to say how far off they are.

    Returns:
        The report that is also written as `conversion_report.json`: the fate of every key of the source, the shards
        and their sha256, sizes, what a page costs.

    Raises:
        CheckpointError: whatever is wrong with the source or the target, before anything is written where it can be
            known before.
    """
    if dtype is not None and dtype not in DTYPES:
        raise CheckpointError(f"dtype={dtype!r} is not one of {', '.join(DTYPES)}")
    check_target(target, overwrite or dry_run)
    checkpoint = open_checkpoint(source, revision, token)
    check_apart(checkpoint.folder, target)
    check_not_quantised(checkpoint, "convert")
    is_own = checkpoint.config.get("model_type") == HybridCtxConfig.model_type
    with readable(f"config.json of {checkpoint.name}"):
        settings = {} if is_own else image_settings(checkpoint)
        config = own_config(checkpoint) if is_own else hybridctx_config(source_config(checkpoint), settings)
        shapes = parameter_shapes(config)
    extra_layers = 0 if is_own else num_extra_layers(checkpoint)
    fates = key_fates(checkpoint.tensors, shapes, config, extra_layers, same_values)
    if fold_phi:
        fates = without_fusion(fates, checkpoint.tensors, same_answers="convert it without folding phi")
        config.phi, config.phi_bottleneck, config.modality_embedding = "identity", None, False
    with readable(f"the tokenizer or the image processor of {checkpoint.name}"):
        if is_own:
            processor = own_processor(checkpoint, render_config)
        else:
            processor = make_processor(checkpoint, config, settings, render_config or RenderConfig())
        page = page_arithmetic(processor)
    carried = carried_files(checkpoint.folder)
    if GENERATION in carried:
        read_json(carried[GENERATION])
    shards = plan_shards(checkpoint, fates, None if dtype is None else DTYPES[dtype])
    config.dtype = main_dtype(shards)
    four_bit = _quantize(config) if load_in_4bit else frozenset()
    written = [tensor for pairs in shards.values() for _, tensor in pairs]
    report: dict[str, Any] = {
        "converter": f"transformers-hybridctx {__version__}",
        "source": {
            "name": checkpoint.name if checkpoint.revision else checkpoint.folder.name,
            "revision": checkpoint.revision,
            "model_type": checkpoint.config["model_type"],
            "architectures": checkpoint.config.get("architectures"),
        },
        "family": _family(checkpoint),
        "dtype": str(config.dtype).removeprefix("torch."),
        "num_parameters": sum(tensor.num_elements for tensor in written),
        "num_bytes": sum(four_bit_bytes(one) if one.name in four_bit else one.num_bytes for one in written),
        "num_shards": len(shards),
        "page": page,
        "context": context_arithmetic(processor, config),
        "image_settings_of_source": bool(settings),
        "keys": {action: sum(fate.action == action for fate in fates) for action in ("kept", "renamed", "dropped")},
        "tensors": _account(checkpoint, fates, shards, four_bit),
    }
    if four_bit:
        report["quantization"] = {**config.quantization_config.to_diff_dict(), "num_weights": len(four_bit)}
    if dry_run:
        return report
    fingerprint = shard_fingerprint(checkpoint, shards, four_bit)
    needed = report["num_bytes"] + max((_scratch_bytes(pairs, four_bit) for pairs in shards.values()), default=0)
    with complete_folder(target, fingerprint, needed, overwrite) as folder:
        # what may go wrong with small files goes wrong before hours of writing weights
        config.save_pretrained(folder.path)
        processor.save_pretrained(folder.path)
        copy_files(carried, folder.path)
        if GENERATION not in carried:
            GenerationConfig.from_model_config(config).save_pretrained(folder.path)
        converted_card(checkpoint, config, processor, report).save(folder.path / "README.md")
        report["sha256"] = write_shards(folder, shards, four_bit)
        report["num_bytes"] = sum(one.num_bytes for name in shards for one in read_header(folder.path / name))
        if verify:
            report["verification"] = verify_conversion(
                checkpoint,
                folder.path,
                settings,
                old_layout=report["keys"]["renamed"] > 0,
                rounded=_is_rounded(report["tensors"]),
            )
        write_remote_code(folder.path)
        converted_card(checkpoint, config, processor, report).save(folder.path / "README.md")
        write_json(folder.path / REPORT, report)
    return report


def _family(checkpoint: Checkpoint) -> str | None:
    """`model_type` of the GLM-4V checkpoint that the weights first came from, as far as that is known."""
    if checkpoint.config["model_type"] != HybridCtxConfig.model_type:
        return checkpoint.config["model_type"]
    report = checkpoint.folder / REPORT
    return read_json(report).get("family") if report.exists() else None


def _quantize(config: HybridCtxConfig) -> frozenset[str]:
    """Make it the config of a 4-bit checkpoint. Returns the keys of the weights that take 4 bits."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise CheckpointError("4 bits need the package bitsandbytes: pip install 'transformers-hybridctx[quantize]'")
    # What a GPU computes in, which it is most likely to run on; a CPU that cannot is told apart when it is loaded.
    compute_dtype = torch.float16 if config.dtype == torch.float16 else torch.bfloat16
    try:
        config.quantization_config = four_bit_config(config, compute_dtype=compute_dtype)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    return four_bit_keys(config, config.quantization_config)


def _scratch_bytes(pairs: Pairs, four_bit: frozenset[str]) -> int:
    return sum(four_bit_bytes(written) for _, written in pairs if written.name in four_bit)


def plan_shards(checkpoint: Checkpoint, fates: Sequence[KeyFate], dtype: str | None) -> dict[str, Pairs]:
    """The shards to write, one for each of the source: tensors as read and as written."""
    target_of = {fate.source: fate.target for fate in fates if fate.target is not None}
    groups = [
        [tensor for name, tensor in checkpoint.tensors.items() if tensor.file == file and name in target_of]
        for file in checkpoint.shards
    ]
    groups = [group for group in groups if group]
    shards: dict[str, Pairs] = {}
    for number, group in enumerate(groups, start=1):
        name = SINGLE if len(groups) == 1 else f"model-{number:05}-of-{len(groups):05}.safetensors"
        shards[name] = [(one, as_written(one, target_of[one.name] or "", Path(name), dtype)) for one in group]
    return shards


def write_shards(
    folder: PartialFolder, shards: Mapping[str, Pairs], four_bit: frozenset[str] = frozenset()
) -> dict[str, str]:
    """Write the shards that are not there yet, and their index. Returns the sha256 of each."""
    scratch = folder.path / ".scratch"
    for name, pairs in shards.items():
        if name not in folder.finished:
            if four_bit:
                pairs = in_four_bits(pairs, four_bit, clean_scratch(scratch))
            folder.finish(name, write_tensors(folder.path / name, pairs))
    shutil.rmtree(scratch, ignore_errors=True)
    if len(shards) > 1:
        tensors = {name: read_header(folder.path / name) for name in shards}
        size = sum(tensor.num_bytes for found in tensors.values() for tensor in found)
        weight_map = {tensor.name: name for name, found in tensors.items() for tensor in found}
        write_json(folder.path / INDEX, {"metadata": {"total_size": size}, "weight_map": weight_map})
    return dict(folder.finished)


def main_dtype(shards: Mapping[str, Pairs]) -> torch.dtype:
    """The dtype that most parameters have."""
    counts = dict.fromkeys(FLOATS, 0)
    for pairs in shards.values():
        for _, written in pairs:
            if written.dtype in counts:
                counts[written.dtype] += written.num_elements
    return TORCH_DTYPES[max(counts, key=lambda name: counts[name])]


def _account(
    checkpoint: Checkpoint, fates: Sequence[KeyFate], shards: Mapping[str, Pairs], four_bit: frozenset[str]
) -> list[dict[str, Any]]:
    """Every key of the source, where it went, or why it did not."""
    written_as = {read.name: written for pairs in shards.values() for read, written in pairs}
    account = []
    for fate in fates:
        tensor = checkpoint.tensors[fate.source]
        entry: dict[str, Any] = {"source": fate.source, "action": fate.action, "shape": list(tensor.shape)}
        if fate.target is None:
            entry |= {"dtype": tensor.dtype, "reason": fate.reason}
        else:
            written = written_as[fate.source]
            entry |= {"target": fate.target, "dtype": written.dtype, "shard": written.file.name}
            if written.dtype != tensor.dtype:
                entry["dtype_of_source"] = tensor.dtype
            if written.name in four_bit:
                entry["quantised"] = "nf4"
        account.append(entry)
    return account


def _is_rounded(account: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a tensor was written in a dtype that cannot hold all that the source's could."""
    wider = {("F16", "F32"), ("BF16", "F32")}
    changes = {(entry["dtype_of_source"], entry["dtype"]) for entry in account if "dtype_of_source" in entry}
    return not changes <= wider


def shard_fingerprint(
    checkpoint: Checkpoint, shards: Mapping[str, Pairs], four_bit: frozenset[str] = frozenset()
) -> str:
    """Changes with anything that the bytes of a shard depend on."""
    files = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in checkpoint.shards]
    layout = [
        (name, read.name, str(read.file), written.name, written.dtype)
        for name, pairs in shards.items()
        for read, written in pairs
    ]
    return hashlib.sha256(json.dumps([__version__, files, layout, sorted(four_bit)]).encode()).hexdigest()
