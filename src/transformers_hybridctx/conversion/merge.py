# SPDX-License-Identifier: Apache-2.0
"""A LoRA fine-tune merged into full weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..modeling_hybridctx import HybridCtxForCausalLM
from ..processing_hybridctx import HybridCtxProcessor
from ..remote_code import write_remote_code
from .carried_files import GENERATION, carried_files, check_file, copy_files
from .configs import check_not_quantised
from .model_cards import merged_card
from .output_folders import check_apart, check_target, complete_folder
from .sources import open_checkpoint, read_json, readable
from .tensor_files import CheckpointError, read_header


def merge_lora(
    base: str,
    adapter: Path,
    target: Path,
    *,
    revision: str | None = None,
    max_shard_size: str = "5GB",
    overwrite: bool = False,
) -> HybridCtxForCausalLM:
    """Write a checkpoint whose weights are a base's with an adapter's added to them.

    Args:
        base: the HybridCtx checkpoint that was fine-tuned: a folder, or a repository on the Hub.
        adapter: the folder that `PeftModel.save_pretrained` wrote.
        target: the folder to be; it appears when it is complete.
        revision: of the base on the Hub.
        max_shard_size: of a file of the target.
        overwrite: replace an existing target.

    Returns:
        The merged model, ready for `push_to_hub`.

    Raises:
        CheckpointError: an adapter that is not one, that belongs to another model or that holds values that are not
            finite.
    """
    try:
        from peft import PeftModel, get_peft_model_state_dict
    except ImportError as error:
        raise CheckpointError(
            "merging an adapter needs the package peft: pip install 'transformers-hybridctx[train]'"
        ) from error

    check_target(target, overwrite)
    weights = adapter / "adapter_model.safetensors"
    if not weights.exists():
        raise CheckpointError(f"{adapter} has no adapter_model.safetensors; save the adapter as safetensors")
    for file in (weights, adapter / "adapter_config.json"):
        if file.exists():
            check_file(file, adapter)
    settings = read_json(adapter / "adapter_config.json")
    checkpoint = open_checkpoint(base, revision)
    check_not_quantised(checkpoint, "merge into")
    check_apart(checkpoint.folder, target)
    check_apart(adapter, target)
    carried = carried_files(checkpoint.folder)
    if GENERATION in carried:
        read_json(carried.pop(GENERATION))  # the model saves it
    with readable(f"the processor of {checkpoint.name}"):
        processor = HybridCtxProcessor.from_pretrained(checkpoint.folder)
    model = HybridCtxForCausalLM.from_pretrained(checkpoint.folder)
    try:
        tuned = PeftModel.from_pretrained(model, adapter)
        given, wanted = {tensor.name for tensor in read_header(weights)}, set(get_peft_model_state_dict(tuned))
        if given != wanted:  # of which peft itself only warns
            raise ValueError(f"their weights do not match, in {sorted(given ^ wanted)[0]!r} for one")
        model = tuned.merge_and_unload(safe_merge=True)
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"the adapter {adapter} cannot be merged into {base}: {error}") from error
    num_bytes = sum(parameter.nbytes for parameter in model.parameters())
    fingerprint = hashlib.sha256(f"{adapter.resolve()} {checkpoint.folder}".encode()).hexdigest()
    with complete_folder(target, fingerprint, num_bytes, overwrite) as folder:
        # what may go wrong with small files goes wrong before hours of writing weights
        processor.save_pretrained(folder.path)
        copy_files(carried, folder.path)
        merged_card(checkpoint, settings.get("r")).save(folder.path / "README.md")
        model.save_pretrained(folder.path, max_shard_size=max_shard_size)
        write_remote_code(folder.path)
    return model
