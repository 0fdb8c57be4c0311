# SPDX-License-Identifier: Apache-2.0
"""Uploaded files by id, as OpenAI's protocol lists them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from threading import Lock
from uuid import uuid4

from openai.types import FileObject

from .uploads import StorageFullError, UnknownFileError, UploadedDocument


@dataclass(frozen=True, eq=False)
class _StoredFile:
    document: UploadedDocument
    listed: FileObject


class FileStore:
    """
    Uploaded files, in memory until they are deleted or the server stops. Threads may share one.

    Args:
        max_bytes, max_files: of all of them; the next one is refused.
    """

    def __init__(self, max_bytes: int, max_files: int) -> None:
        self._max_bytes, self._max_files = max_bytes, max_files
        self._files: dict[str, _StoredFile] = {}
        self._lock = Lock()

    def add(self, data: bytes, name: str, purpose: str) -> FileObject:
        """
        Raises:
            ValueError: a file that cannot be read.
            StorageFullError: no room.
        """
        self._check_room(len(data))
        document = UploadedDocument.of_bytes(data, name)
        listed = FileObject.model_validate(
            {
                "id": f"file-{uuid4().hex}",
                "bytes": len(data),
                "created_at": int(time.time()),
                "filename": document.name,
                "object": "file",
                "purpose": purpose,
                "status": "processed",
            }
        )
        with self._lock:
            self._check_room(len(data))
            self._files[listed.id] = _StoredFile(document, listed)
        return listed

    def document(self, file_id: str) -> UploadedDocument:
        """UnknownFileError for a file that is not there."""
        return self._stored(file_id).document

    def listed(self, file_id: str) -> FileObject:
        """UnknownFileError for a file that is not there."""
        return self._stored(file_id).listed

    def all(self) -> list[FileObject]:
        """Latest last."""
        return [file.listed for file in list(self._files.values())]

    def delete(self, file_id: str) -> None:
        """UnknownFileError for a file that is not there."""
        with self._lock:
            self._stored(file_id)
            del self._files[file_id]

    def _stored(self, file_id: str) -> _StoredFile:
        found = self._files.get(file_id)
        if found is None:
            raise UnknownFileError(f"there is no file {file_id!r:.80} here; upload it to /v1/files")
        return found

    def _check_room(self, size: int) -> None:
        used = sum(file.listed.bytes for file in list(self._files.values()))
        if used + size > self._max_bytes or len(self._files) >= self._max_files:
            raise StorageFullError(
                f"{len(self._files)} files of {used:,} bytes are stored, and {size:,} more find no room in "
                f"{self._max_bytes:,} bytes and {self._max_files:,} files: delete some"
            )


__all__ = ["FileStore"]
