# SPDX-License-Identifier: Apache-2.0
"""A folder that is there when it is complete, and not before."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .tensor_files import CheckpointError

_PROGRESS = ".progress.json"
_OTHER_FILES_BYTES = 64 * 2**20  # tokenizer, fonts and the like


class PartialFolder:
    """A folder in the making, beside its target, and which of its shards are finished.

    Args:
        path: where it lies.
        fingerprint: of everything that its shards depend on; an earlier attempt of another one is thrown away.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path = path
        self.finished: dict[str, str] = {}
        self._fingerprint = fingerprint
        if path.exists() and not self._resume():
            shutil.rmtree(path)
        path.mkdir(parents=True, exist_ok=True)

    def _resume(self) -> bool:
        try:
            progress = json.loads((self.path / _PROGRESS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        if progress.get("fingerprint") != self._fingerprint:
            return False
        # A shard is entered when it is on the disk, so one that was begun and not finished is written anew.
        self.finished = {name: sha for name, sha in progress["finished"].items() if self._is_whole(name, sha)}
        return True

    def _is_whole(self, name: str, sha256: str) -> bool:
        if not (self.path / name).exists():
            return False
        with open(self.path / name, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == sha256

    def finish(self, shard: str, sha256: str) -> None:
        """Enter a shard that is complete and on the disk."""
        self.finished[shard] = sha256
        progress = self.path / _PROGRESS
        written = progress.with_suffix(".new")
        written.write_text(json.dumps({"fingerprint": self._fingerprint, "finished": self.finished}), encoding="utf-8")
        os.replace(written, progress)

    def move_to(self, target: Path) -> None:
        (self.path / _PROGRESS).unlink(missing_ok=True)
        replaced = target.with_name(f".{target.name}.replaced")
        if target.exists():
            shutil.rmtree(replaced, ignore_errors=True)
            os.replace(target, replaced)
        os.replace(self.path, target)
        shutil.rmtree(replaced, ignore_errors=True)


@contextmanager
def complete_folder(target: Path, fingerprint: str, num_bytes: int, overwrite: bool) -> Iterator[PartialFolder]:
    """Fill a folder that appears as `target` at the end, and only if nothing went wrong.

    What an error stops leaves nothing behind. What is killed leaves `.NAME.partial`, and goes on from there when it is
    run again with the same source and options, or starts anew with others.

    Args:
        target: the folder to be.
        fingerprint: see [`PartialFolder`].
        num_bytes: of all shards.
        overwrite: replace an existing `target`.

    Raises:
        CheckpointError: the target exists, or the disk has no room for it.
    """
    target = target.resolve()
    check_target(target, overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = PartialFolder(target.with_name(f".{target.name}.partial"), fingerprint)
    there = sum((partial.path / name).stat().st_size for name in partial.finished)
    needed, free = num_bytes - there + _OTHER_FILES_BYTES, shutil.disk_usage(target.parent).free
    try:
        if needed > free:
            raise CheckpointError(
                f"{target} needs {needed:,} bytes, and its disk has {free:,} free; make room or choose another disk"
            )
        yield partial
        partial.move_to(target)
    except Exception as error:
        shutil.rmtree(partial.path, ignore_errors=True)
        # Writers in Rust (tokenizers, safetensors) have an error of their own, which says it in words only.
        codes = (errno.ENOSPC, errno.EDQUOT)
        if getattr(error, "errno", None) in codes or any(os.strerror(code) in str(error) for code in codes):
            raise CheckpointError(
                f"the disk of {target} is full; nothing was left there: make room and run it again"
            ) from error
        raise


def check_target(target: Path, overwrite: bool) -> None:
    """Raise `CheckpointError` where a target cannot be written."""
    if target.is_file():
        raise CheckpointError(f"{target} is a file; name a folder")
    if target.exists() and any(target.iterdir()) and not overwrite:
        raise CheckpointError(f"{target} exists and is not empty; name another folder, or replace it (overwrite=)")


def check_apart(source: Path, target: Path) -> None:
    """Raise `CheckpointError` where writing the target would replace the source, or write into it."""
    one, other = source.resolve(), target.resolve()
    if one == other or one in other.parents or other in one.parents:
        raise CheckpointError(f"{target} is, holds or lies in the source {source}; name a folder beside it")


def write_json(file: Path, values: dict[str, Any]) -> None:
    file.write_text(json.dumps(values, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
