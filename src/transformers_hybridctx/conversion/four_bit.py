# SPDX-License-Identifier: Apache-2.0
"""Weights written in 4 bits, tensor by tensor: the bytes that loading in 4 bits and `save_pretrained` would write."""

from __future__ import annotations

import math
import shutil
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn
from transformers import BitsAndBytesConfig
from transformers.quantizers.quantizers_utils import should_convert_module

from ..configuration_hybridctx import HybridCtxConfig
from ..modules.quantization import BLOCK_SIZE
from .tensor_files import CheckpointError, Tensor, read_chunks, read_header

_SCALES_PER_BLOCK = 256  # of the second quantisation, that of the scales
_TABLES_BYTES = 4 * (16 + 256)  # the values of a code, and of a scale's code
_SETTINGS_BYTES = 192  # JSON; a few bytes less, as numbers have fewer digits


def four_bit_keys(config: HybridCtxConfig, quantization: BitsAndBytesConfig) -> frozenset[str]:
    """Keys of the weights that transformers would load in 4 bits, found without memory for any of them."""
    from ..modeling_hybridctx import HybridCtxForCausalLM

    with torch.device("meta"):
        model = HybridCtxForCausalLM(config)
    return frozenset(
        f"{name}.weight"
        for name, module in model.named_modules()
        if type(module) is nn.Linear and should_convert_module(name, quantization.llm_int8_skip_modules)
    )


def four_bit_bytes(tensor: Tensor) -> int:
    """Bytes of a weight in 4 bits with all that belongs to it; its settings are counted a few bytes too long."""
    scales = math.ceil(tensor.num_elements / BLOCK_SIZE)
    coarse_scales = math.ceil(scales / _SCALES_PER_BLOCK)
    return math.ceil(tensor.num_elements / 2) + scales + 4 * coarse_scales + _TABLES_BYTES + _SETTINGS_BYTES


def in_four_bits(
    pairs: Sequence[tuple[Tensor, Tensor]], keys: Collection[str], scratch: Path
) -> list[tuple[Tensor, Tensor]]:
    """What to write in place of a shard's tensors, some of them in 4 bits.

    Args:
        pairs: each tensor as it is read, and as it would be written.
        keys: of those that take 4 bits, as they are written.
        scratch: an empty folder; the 4-bit tensors lie there until the shard is written.

    Returns:
        The pairs again, where one of a 4-bit weight has become those of its codes, scales and settings.

    Raises:
        CheckpointError: weights that are not finite, or that bitsandbytes has no code for.
    """
    found: list[tuple[Tensor, Tensor]] = []
    for read, written in pairs:
        if written.name not in keys:
            found.append((read, written))
            continue
        file = scratch / f"{len(found):06}.safetensors"
        file.write_bytes(save(_quantised(read, written)))  # a full disk is an OSError, which save_file hides
        found += [(tensor, replace(tensor, file=written.file, offset=0)) for tensor in read_header(file)]
    return found


def _quantised(read: Tensor, written: Tensor) -> dict[str, torch.Tensor]:
    """Codes, scales and settings of one weight, under their keys. Blocks are independent, so it is read in chunks."""
    from bitsandbytes import functional

    if written.dtype not in ("F32", "F16", "BF16"):
        raise CheckpointError(
            f"tensor {read.name!r} has dtype {written.dtype}, which cannot be written in 4 bits; choose bfloat16"
        )
    codes, scales, state = [], [], None
    for chunk in read_chunks(read, written.dtype):
        if not chunk.isfinite().all():
            raise CheckpointError(
                f"tensor {read.name!r} holds values that are not finite, and 4 bits would spread them over all of "
                "their block; fetch the checkpoint again, or convert it without 4 bits"
            )
        code, state = functional.quantize_4bit(chunk, blocksize=BLOCK_SIZE, quant_type="nf4")
        codes.append(code)
        scales.append(state.absmax)
    if state is None:
        raise CheckpointError(f"tensor {read.name!r} is empty: shape {list(read.shape)}")
    scale = torch.cat(scales)
    state.offset = scale.mean()
    state.absmax, state.state2 = functional.quantize_blockwise(scale - state.offset, blocksize=_SCALES_PER_BLOCK)
    state.nested, state.shape = True, torch.Size(read.shape)
    parts = {"": torch.cat(codes), **{f".{name}": part for name, part in state.as_dict(packed=True).items()}}
    return {f"{written.name}{name}": part.contiguous() for name, part in parts.items()}


def clean_scratch(folder: Path) -> Path:
    """An empty folder of that name."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder
