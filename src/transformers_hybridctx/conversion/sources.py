# SPDX-License-Identifier: Apache-2.0
"""Checkpoint folders to convert from: on disk or from the Hub, safetensors only, every file inside the folder."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError

from ..checkpoint_names import checked_name
from .carried_files import check_file
from .tensor_files import CheckpointError, Tensor, read_header

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_READ = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "README.md")
_FETCHED = [*_READ, "LICENSE*", "LICENCE*", "NOTICE*"]
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint at hand.

    Args:
        name: what it was asked for as: a folder or a Hub id.
        folder: where its files lie.
        revision: the commit on the Hub; None for a folder of one's own.
        config: its config.json.
        tensors: all of them, by key.
    """

    name: str
    folder: Path
    revision: str | None
    config: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def shards(self) -> list[Path]:
        return sorted({tensor.file for tensor in self.tensors.values()})


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Files of a checkpoint are handed to transformers here, which raises any kind of error where they make no sense.

    Raises:
        CheckpointError: in place of that; `what` cannot be used, and why.
    """
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"{what} cannot be used ({type(error).__name__}: {error})") from error


def open_checkpoint(source: str, revision: str | None = None, token: str | None = None) -> Checkpoint:
    """Find a checkpoint, fetch it if it is on the Hub, and read the headers of all its shards.

    Raises:
        CheckpointError: no such checkpoint, pickled weights, a missing or damaged shard, an index that does not match, a
            file that cannot be read or lies elsewhere.
    """
    folder, commit = _folder(source, revision, token)
    for pattern in (*_READ, "fonts/*"):
        for file in sorted(folder.glob(pattern)):
            if pattern in _READ or file.is_symlink() or not file.is_dir():
                check_file(file, folder)
    return Checkpoint(source, folder, commit, read_json(folder / "config.json"), _read_tensors(folder))


def _folder(source: str, revision: str | None, token: str | None) -> tuple[Path, str | None]:
    try:
        source = checked_name(source, "checkpoint")
    except FileNotFoundError as error:
        raise CheckpointError(str(error)) from error
    if Path(source).is_dir():
        if revision is not None:
            raise CheckpointError(f"revision={revision!r} is for the Hub, but {source} is a folder on this machine")
        folder = Path(source).resolve()
        in_cache = folder.parent.name == "snapshots" and re.fullmatch(r"[0-9a-f]{40}", folder.name)
        return folder, folder.name if in_cache else None
    try:
        folder = Path(snapshot_download(source, revision=revision, token=token, allow_patterns=_FETCHED))
    except HFValidationError as error:
        raise CheckpointError(f"{source!r} is neither a folder on this machine nor a Hub id (owner/name)") from error
    return folder, folder.name


def read_json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{file.parent} has no {file.name}: it is not a checkpoint of transformers") from error
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read ({error.strerror}); it has to be a readable file") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file} is not JSON ({error}); fetch it again") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{file} holds a {type(values).__name__}, not an object; fetch it again")
    return values


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    if (folder / INDEX).exists():
        return _read_shards(folder, read_json(folder / INDEX))
    if (folder / SINGLE).exists():
        return {tensor.name: tensor for tensor in read_header(folder / SINGLE)}
    pickles = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
    if pickles:
        raise CheckpointError(
            f"{folder} has pickled weights only ({', '.join(pickles[:3])}), which can run any code when they are "
            "read; save the model as safetensors where you trust its origin: save_pretrained does"
        )
    raise CheckpointError(f"{folder} has neither {SINGLE} nor {INDEX}; fetch the checkpoint again")


def _read_shards(folder: Path, index: dict[str, Any]) -> dict[str, Tensor]:
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{folder / INDEX} has no weight_map; fetch it again")
    promised: dict[str, set[str]] = defaultdict(set)
    for key, name in weight_map.items():
        # Nothing but a name: an index must not lead out of its folder.
        if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+\.safetensors", name, re.ASCII):
            raise CheckpointError(f"{folder / INDEX} puts {key!r} into {name!r}, which is not a shard's file name")
        promised[name].add(key)
    tensors: dict[str, Tensor] = {}
    for name, keys in sorted(promised.items()):
        if not (folder / name).exists():
            raise CheckpointError(
                f"the shard {folder / name} is missing, and {len(keys)} tensors with it; fetch it again"
            )
        found = {tensor.name: tensor for tensor in read_header(folder / name)}
        lost, extra = sorted(keys - found.keys()), sorted(found.keys() - keys)
        if lost:
            raise CheckpointError(
                f"the shard {folder / name} lacks {len(lost)} tensors that {INDEX} promises, {lost[0]!r} among them; "
                "fetch both again"
            )
        if extra:
            raise CheckpointError(
                f"the shard {folder / name} holds {len(extra)} tensors that {INDEX} does not put there, {extra[0]!r} "
                "among them; fetch both again"
            )
        tensors |= found
    return tensors
