# SPDX-License-Identifier: Apache-2.0
"""A GLM-4V checkpoint becomes a HybridCtx checkpoint: the same weights, streamed, and all that goes with them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from .. import __version__
from ..configuration_hybridctx import HybridCtxConfig
from ..remote_code import write_remote_code
from ..render_config import RenderConfig
from .configs import hybridctx_config, num_extra_layers, source_config
from .key_layouts import KeyFate, key_fates, parameter_shapes
from .model_cards import converted_card
from .output_folders import PartialFolder, check_target, complete_folder, write_json
from .processors import image_settings, make_processor, page_arithmetic
from .sources import INDEX, SINGLE, Checkpoint, open_checkpoint
from .tensor_files import FLOATS, TORCH_DTYPES, CheckpointError, Tensor, as_written, same_values, write_tensors
from .verification import verify_conversion

REPORT = "conversion_report.json"
DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
CARRIED = ("LICENSE*", "NOTICE*", "video_preprocessor_config.json")

Pairs = list[tuple[Tensor, Tensor]]


def convert_checkpoint(
    source: str,
    target: Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    dtype: str | None = None,
    render_config: RenderConfig | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    verify: bool = False,
) -> dict[str, Any]:
    """Convert a checkpoint of the GLM-4V family (glm4v, glm46v, glm_ocr).

    Args:
        source: a folder, or a repository on the Hub.
        target: the folder to be. It appears when it is complete, see [`complete_folder`].
        revision, token: of the Hub.
        dtype: "float32", "bfloat16" or "float16"; the source's own unless given.
        render_config: how the checkpoint draws pages.
        overwrite: replace an existing target.
        dry_run: check everything that can be checked without reading weights, and write nothing.
        verify: compare the logits of source and target on a drawn page before the target appears. Each of the two is
            loaded once, one after the other.

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
    their_config, settings = source_config(checkpoint), image_settings(checkpoint)
    config = hybridctx_config(their_config, settings)
    fates = key_fates(checkpoint.tensors, _shapes(config), config, num_extra_layers(checkpoint), same_values)
    processor = make_processor(checkpoint, config, settings, render_config or RenderConfig())
    shards = plan_shards(checkpoint, fates, None if dtype is None else DTYPES[dtype])
    config.dtype = main_dtype(shards)
    report: dict[str, Any] = {
        "converter": f"transformers-hybridctx {__version__}",
        "source": {
            "name": checkpoint.name if checkpoint.revision else checkpoint.folder.name,
            "revision": checkpoint.revision,
            "model_type": checkpoint.config["model_type"],
            "architectures": checkpoint.config.get("architectures"),
        },
        "dtype": str(config.dtype).removeprefix("torch."),
        "num_parameters": sum(written.num_elements for pairs in shards.values() for _, written in pairs),
        "num_bytes": sum(written.num_bytes for pairs in shards.values() for _, written in pairs),
        "num_shards": len(shards),
        "page": page_arithmetic(processor),
        "image_settings_of_source": bool(settings),
        "keys": {"kept": 0, "renamed": 0, "dropped": 0},
        "tensors": _account(checkpoint, fates, shards),
    }
    for fate in fates:
        report["keys"][fate.action] += 1
    if dry_run:
        return report
    fingerprint = shard_fingerprint(checkpoint, shards)
    with complete_folder(target, fingerprint, report["num_bytes"], overwrite) as folder:
        report["sha256"] = write_shards(folder, shards)
        config.save_pretrained(folder.path)
        processor.save_pretrained(folder.path)
        _carry(checkpoint, config, folder.path)
        if verify:
            report["verification"] = verify_conversion(
                checkpoint.folder,
                folder.path,
                settings,
                old_layout=report["keys"]["renamed"] > 0,
                rounded=_is_rounded(report["tensors"]),
            )
        write_remote_code(folder.path)
        converted_card(checkpoint, config, processor, report).save(folder.path / "README.md")
        write_json(folder.path / REPORT, report)
    return report


def _shapes(config: HybridCtxConfig) -> dict[str, tuple[int, ...]]:
    try:
        return parameter_shapes(config)
    except (RuntimeError, ValueError, TypeError, ZeroDivisionError) as error:
        raise CheckpointError(f"no model can be built from the source's config: {error}") from error


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


def write_shards(folder: PartialFolder, shards: Mapping[str, Pairs]) -> dict[str, str]:
    """Write the shards that are not there yet, and their index. Returns the sha256 of each."""
    for name, pairs in shards.items():
        if name not in folder.finished:
            folder.finish(name, write_tensors(folder.path / name, pairs))
    if len(shards) > 1:
        size = sum(written.num_bytes for pairs in shards.values() for _, written in pairs)
        weight_map = {written.name: name for name, pairs in shards.items() for _, written in pairs}
        write_json(folder.path / INDEX, {"metadata": {"total_size": size}, "weight_map": weight_map})
    return dict(folder.finished)


def _carry(checkpoint: Checkpoint, config: HybridCtxConfig, folder: Path) -> None:
    """What is neither weights nor processor: generation config, licences, settings that only the way back needs."""
    if (checkpoint.folder / "generation_config.json").exists():
        shutil.copyfile(checkpoint.folder / "generation_config.json", folder / "generation_config.json")
    else:
        GenerationConfig.from_model_config(config).save_pretrained(folder)
    for pattern in CARRIED:
        for file in sorted(checkpoint.folder.glob(pattern)):
            if file.is_file():
                shutil.copyfile(file, folder / file.name)


def main_dtype(shards: Mapping[str, Pairs]) -> torch.dtype:
    """The dtype that most parameters have."""
    counts = dict.fromkeys(FLOATS, 0)
    for pairs in shards.values():
        for _, written in pairs:
            if written.dtype in counts:
                counts[written.dtype] += written.num_elements
    return TORCH_DTYPES[max(counts, key=lambda name: counts[name])]


def _account(checkpoint: Checkpoint, fates: Sequence[KeyFate], shards: Mapping[str, Pairs]) -> list[dict[str, Any]]:
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
        account.append(entry)
    return account


def _is_rounded(account: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a tensor was written in a dtype that cannot hold all that the source's could."""
    wider = {("F16", "F32"), ("BF16", "F32")}
    changes = {(entry["dtype_of_source"], entry["dtype"]) for entry in account if "dtype_of_source" in entry}
    return not changes <= wider


def shard_fingerprint(checkpoint: Checkpoint, shards: Mapping[str, Pairs]) -> str:
    """Changes with anything that the bytes of a shard depend on."""
    files = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in checkpoint.shards]
    layout = [
        (name, read.name, str(read.file), written.name, written.dtype)
        for name, pairs in shards.items()
        for read, written in pairs
    ]
    return hashlib.sha256(json.dumps([__version__, files, layout]).encode()).hexdigest()
