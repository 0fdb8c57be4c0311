# SPDX-License-Identifier: Apache-2.0
"""Safetensors files read and written in pieces: memory does not grow with the size of a tensor or of a shard.

The format (github.com/huggingface/safetensors): 8 bytes, little-endian, the length of a JSON header; the header, which
gives each tensor's dtype, shape and bytes [start, end) after it; the bytes. Files are read, not mapped, because pages
of a mapped file count as a process's memory until somebody else needs them.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

CHUNK_BYTES = 4 * 2**20
"""How much of a tensor is in memory at a time, before and after it changes its dtype."""
_LONGEST_HEADER = 100_000_000  # what the safetensors library itself accepts

TORCH_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
FLOATS = ("F64", "F32", "F16", "BF16")


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or converted. The message names the file or tensor and the way out."""


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file.

    Args:
        name: its key.
        file: where it is, or is to be.
        dtype: as safetensors writes it, "BF16" or the like.
        shape: its sides.
        offset: byte of the file at which it begins.
    """

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        return self.num_elements * TORCH_DTYPES[self.dtype].itemsize


def read_header(file: Path) -> list[Tensor]:
    """The tensors of a safetensors file, in the order of their bytes, without reading them.

    Raises:
        CheckpointError: not a safetensors file, or one that was cut short or added to.
    """
    size = file.stat().st_size
    with open(file, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or not 2 <= length <= min(_LONGEST_HEADER, size - 8):
            raise CheckpointError(
                f"{file} ({size:,} bytes) is not a whole safetensors file: its header would take {length:,} bytes; "
                "fetch it again"
            )
        try:
            header = json.loads(stream.read(length))
            header.pop("__metadata__", None)
            tensors = [_entry(file, name, values, 8 + length) for name, values in header.items()]
        except CheckpointError:
            raise
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"the safetensors header of {file} cannot be read ({error}); fetch it again"
            ) from error
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.num_bytes))
    position = 8 + length
    for tensor in tensors:
        if tensor.offset != position:
            raise CheckpointError(
                f"{file}: tensor {tensor.name!r} begins at byte {tensor.offset:,}, where {position:,} was due; the "
                "file is damaged, fetch it again"
            )
        position += tensor.num_bytes
    if position != size:
        raise CheckpointError(
            f"{file} has {size:,} bytes, but its header promises {position:,}: it was "
            f"{'cut short' if size < position else 'added to'}; fetch it again"
        )
    return tensors


def _entry(file: Path, name: str, values: dict[str, Any], data: int) -> Tensor:
    dtype, shape, (start, end) = values["dtype"], tuple(values["shape"]), values["data_offsets"]
    if dtype not in TORCH_DTYPES:
        raise CheckpointError(
            f"{file}: tensor {name!r} has dtype {dtype}; {', '.join(TORCH_DTYPES)} can be converted. A quantised "
            "checkpoint has to be dequantised first; convert the original in its place"
        )
    if not all(isinstance(side, int) and side >= 0 for side in (*shape, start)):
        raise TypeError(f"tensor {name!r} has shape {shape} at {start}")
    tensor = Tensor(name, file, dtype, shape, data + start)
    if end - start != tensor.num_bytes:
        raise CheckpointError(
            f"{file}: tensor {name!r} of dtype {dtype} and shape {list(shape)} takes {tensor.num_bytes:,} bytes, but "
            f"its header gives it {end - start:,}; the file is damaged, fetch it again"
        )
    return tensor


def read_chunks(tensor: Tensor, dtype: str | None = None) -> Iterator[torch.Tensor]:
    """A tensor's values, flat, `CHUNK_BYTES` at a time, as `dtype` (its own unless given).

    Raises:
        CheckpointError: the file ends early, or a finite value does not fit into `dtype`.
    """
    source = TORCH_DTYPES[tensor.dtype]
    target = TORCH_DTYPES[dtype or tensor.dtype]
    left = tensor.num_bytes
    with open(tensor.file, "rb", buffering=0) as stream:
        stream.seek(tensor.offset)
        while left:
            buffer = bytearray(min(left, CHUNK_BYTES))
            view, filled = memoryview(buffer), 0
            while filled < len(buffer):
                got = stream.readinto(view[filled:])
                if not got:
                    raise CheckpointError(f"{tensor.file} ends within tensor {tensor.name!r}; fetch it again")
                filled += got
            values = torch.frombuffer(buffer, dtype=source)
            converted = values.to(target)
            if target.is_floating_point and torch.finfo(target).max < torch.finfo(source).max:
                lost = torch.isfinite(values) & ~torch.isfinite(converted)
                if lost.any():
                    raise CheckpointError(
                        f"tensor {tensor.name!r} holds {values[lost][0].item():g}, which {dtype} cannot: its largest "
                        f"value is {torch.finfo(target).max:g}; choose bfloat16 or float32"
                    )
            yield converted
            left -= len(buffer)


def as_written(tensor: Tensor, name: str, file: Path, dtype: str | None) -> Tensor:
    """What a tensor is called, where it stands and what it holds after it is written; its offset is not yet known."""
    if dtype is None or tensor.dtype not in FLOATS:
        dtype = tensor.dtype
    return replace(tensor, name=name, file=file, dtype=dtype, offset=0)


def write_tensors(file: Path, pairs: Sequence[tuple[Tensor, Tensor]]) -> str:
    """Write a safetensors file, a chunk of a tensor at a time, and see that it is on the disk.

    Args:
        file: where to; an older one is replaced.
        pairs: each tensor as it is read, and as it is written.

    Returns:
        The file's sha256.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    # Wide dtypes first, as the safetensors library has it: each tensor then begins at a multiple of its item size.
    ordered = sorted(pairs, key=lambda pair: (-TORCH_DTYPES[pair[1].dtype].itemsize, pair[1].name))
    for _, written in ordered:
        header[written.name] = {
            "dtype": written.dtype,
            "shape": list(written.shape),
            "data_offsets": [position, position + written.num_bytes],
        }
        position += written.num_bytes
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    digest = hashlib.sha256()
    with open(file, "wb") as stream:
        for part in (len(encoded).to_bytes(8, "little"), encoded):
            stream.write(part)
            digest.update(part)
        for read, written in ordered:
            for chunk in read_chunks(read, written.dtype):
                data = chunk.contiguous().view(torch.uint8).numpy().data
                stream.write(data)
                digest.update(data)
        stream.flush()
        os.fsync(stream.fileno())
    return digest.hexdigest()


def same_values(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same values."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return all(torch.equal(a, b) for a, b in zip(read_chunks(one), read_chunks(other), strict=True))


def largest_magnitude(tensor: Tensor) -> float:
    """The largest absolute value, 0.0 for a tensor of zeros."""
    return max((chunk.abs().max().item() for chunk in read_chunks(tensor, "F64")), default=0.0)
