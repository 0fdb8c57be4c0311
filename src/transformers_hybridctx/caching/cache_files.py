# SPDX-License-Identifier: Apache-2.0
"""Files of what was read: a safetensors file whose header holds a digest of the whole file, the header included."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..planning.knobs import shown

FORMAT = "hybridctx document cache 3"
_NO_DIGEST = "0" * 64
# The header is JSON within safetensors' JSON, so only its own quotes are escaped once.
_DIGEST = re.compile(rb'\\"sha256\\": \\"([0-9a-f]{64})\\"')
_PIECE = 2**20
"""Bytes that are read at a time."""


def write_cache_file(path: Path, header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """Write beside the target and then in its place: a write that fails leaves what was there."""
    try:
        written = json.dumps({"format": FORMAT, "sha256": _NO_DIGEST, **header})
    except TypeError as error:
        raise ValueError(f"the reading cannot be saved: {error}, in {header!r:.300}") from error
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        save_file(
            {name: tensor.cpu().contiguous() for name, tensor in tensors.items()},
            unfinished,
            metadata={"hybridctx": written},
        )
        place, _, digest = _digest_of(unfinished)
        with open(unfinished, "r+b") as file:
            file.seek(place)
            file.write(digest.encode())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def read_cache_file(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """
    (header, tensors) of a file that `write_cache_file` wrote, each of whose bits is as it was written.

    Raises:
        FileNotFoundError, ValueError: no such file, another kind of file or a damaged one.
        TypeError: something that is not a path.
    """
    try:
        path = Path(path)
    except TypeError as error:
        raise TypeError(f"a document cache is read from a file's path, not from {shown(path)}") from error
    if not path.is_file():
        raise FileNotFoundError(f"there is no document cache at {str(path)!r}")
    try:
        with safe_open(path, framework="pt") as file:
            # a damaged header may still be a header: what it says counts only after the digest has been compared
            header = json.loads((file.metadata() or {}).get("hybridctx", "{}"))
            stated = header.get("format") if isinstance(header, dict) else None
            place, written, digest = _digest_of(path)
            if (place or stated == FORMAT) and written != digest:
                raise ValueError(_damaged(path, "its content does not have the digest that was written with it"))
            if stated != FORMAT:
                raise ValueError(
                    f"{str(path)!r} is not a document cache of this version: it states the format {stated!r}, not "
                    f"{FORMAT!r}; read the document again"
                )
            return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it has no __iter__)
    except (SafetensorError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(_damaged(path, f"it cannot be read as a safetensors file ({error})")) from error


def field_of(header: dict[str, Any], name: str, kinds: type | tuple[type, ...], path: str) -> Any:
    """An entry of a cache's header, of one of these types."""
    if name not in header or not isinstance(header[name], kinds):
        found = f"{header[name]!r:.60}" if name in header else "nothing"
        raise ValueError(
            f"the document cache {path!r} has {found} as {name!r} in its header, which no version of this package wrote "
            "so; read the document again"
        )
    return header[name]


def _digest_of(path: Path) -> tuple[int, str, str]:
    """(where the digest stands in the file, what stands there, what it has to be); 0 and "" where none does."""
    with open(path, "rb") as file:
        begin = file.read(8)
        begin += file.read(min(int.from_bytes(begin, "little"), path.stat().st_size))
        found = _DIGEST.search(begin)
        place, written = (found.start(1), found[1].decode()) if found else (0, "")
        if found:
            begin = begin[:place] + _NO_DIGEST.encode() + begin[place + len(_NO_DIGEST) :]
        digest = hashlib.sha256(begin)
        while piece := file.read(_PIECE):
            digest.update(piece)
    return place, written, digest.hexdigest()


def _damaged(path: Path, reason: str) -> str:
    return (
        f"{str(path)!r} is not a document cache, or a damaged one: {reason}; read the document again, or copy the file "
        "anew"
    )


__all__ = ["FORMAT", "field_of", "read_cache_file", "write_cache_file"]
