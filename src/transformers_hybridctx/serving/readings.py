# SPDX-License-Identifier: Apache-2.0
"""Readings that several askers share, kept in memory and on disk within bounds of bytes."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Literal

from cachetools import LRUCache

from ..caching.document_cache import DocumentCache

Found = Literal["memory", "disk", "read now"]


def reading_key(*parts: object) -> str:
    """One key for all that decides a reading: documents' digests, page settings, budget, policy, system message."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


class ReadingStore:
    """
    Readings by key, the least recently used given up first. Threads may share one; a document that several ask about
    at the same time is read once.

    Args:
        memory_bytes: of the keys and values in memory. A reading larger than that is not kept there.
        folder: where each reading is written, too; None: nowhere. Files of other checkpoints in it are never used.
        folder_bytes: of all files there.
    """

    def __init__(self, memory_bytes: int, folder: Path | None = None, folder_bytes: int = 0) -> None:
        self._kept: LRUCache[str, DocumentCache] = LRUCache(memory_bytes, getsizeof=_bytes_of)
        self._folder, self._folder_bytes = folder, folder_bytes
        self._lock = Lock()
        self._reading: dict[str, Lock] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def get(
        self, key: str, read: Callable[[], DocumentCache], attach: Callable[[DocumentCache], DocumentCache]
    ) -> tuple[DocumentCache, Found]:
        """
        The reading, and where it was found.

        Args:
            read: makes it.
            attach: makes sure that a file's reading is the model's; ValueError where it is not.
        """
        with self._lock:
            if (kept := self._kept.get(key)) is not None:
                return kept, "memory"
            turn = self._reading.setdefault(key, Lock())
        try:
            with turn:
                with self._lock:
                    if (kept := self._kept.get(key)) is not None:
                        return kept, "memory"
                found: Found = "disk"
                reading = self._from_disk(key, attach)
                if reading is None:
                    reading, found = read(), "read now"
                    self._to_disk(key, reading)
                with self._lock, suppress(ValueError):  # larger than all that may be kept
                    self._kept[key] = reading
                return reading, found
        finally:
            with self._lock:
                self._reading.pop(key, None)

    @property
    def memory_bytes(self) -> int:
        """Of the readings in memory now."""
        return int(self._kept.currsize)

    def _from_disk(self, key: str, attach: Callable[[DocumentCache], DocumentCache]) -> DocumentCache | None:
        if self._folder is None or not (path := self._path(key)).exists():
            return None
        try:
            reading = attach(DocumentCache.load(path))
        except (ValueError, OSError) as error:
            warnings.warn(f"{path} is read anew: {error}", stacklevel=2)
            path.unlink(missing_ok=True)
            return None
        with suppress(FileNotFoundError):  # whoever wrote another one has just given this one up
            os.utime(path)
        return reading

    def _to_disk(self, key: str, reading: DocumentCache) -> None:
        if self._folder is None:
            return
        try:
            reading.save(self._path(key))
        except OSError as error:
            warnings.warn(f"a reading is kept in memory only: {error}", stacklevel=2)
            return
        files = []
        for path in self._folder.glob("*.safetensors"):
            with suppress(FileNotFoundError):
                files.append((path, path.stat()))
        used = sum(status.st_size for _, status in files)
        for path, status in sorted(files, key=lambda file: file[1].st_mtime):
            if used <= self._folder_bytes:
                break
            path.unlink(missing_ok=True)
            used -= status.st_size

    def _path(self, key: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{key}.safetensors"


def _bytes_of(reading: DocumentCache) -> int:
    return sum(part.nbytes for layer in reading.prefix.states for part in layer)


__all__ = ["Found", "ReadingStore", "reading_key"]
