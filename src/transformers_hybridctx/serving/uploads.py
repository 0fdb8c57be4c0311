# SPDX-License-Identifier: Apache-2.0
"""Documents that clients hand over: uploaded files, and texts and files inside of messages."""

from __future__ import annotations

import base64
import binascii
import hashlib
import time
from dataclasses import dataclass
from threading import Lock
from typing import Any
from uuid import uuid4

from openai.types import FileObject

from ..documents.files import read_document_file


class StorageFullError(Exception):
    """No room for another file until some are deleted."""


class UnknownFileError(Exception):
    """A file that was never uploaded, or is deleted."""


@dataclass(frozen=True, eq=False)
class UploadedDocument:
    """
    Attributes:
        name: what the client calls it; "" where it has no name.
        digest: SHA-256 of what was handed over, name of the kind included: the same for the same document.
        content: what `processor(document=...)` takes: a text, or pages as pictures.
    """

    name: str
    digest: str
    content: Any

    @classmethod
    def of_text(cls, text: str, name: str = "") -> UploadedDocument:
        return cls(name, hashlib.sha256(b"text\0" + text.encode("utf-8", "surrogatepass")).hexdigest(), text)

    @classmethod
    def of_bytes(cls, data: bytes, name: str) -> UploadedDocument:
        """
        Raises:
            ValueError: the file is empty, damaged, encrypted, or of a kind that is not read.
        """
        name = name.replace("\\", "/").rpartition("/")[2] or "document"
        suffix = name.rpartition(".")[2].lower()
        digest = hashlib.sha256(suffix.encode() + b"\0" + data).hexdigest()
        return cls(name, digest, read_document_file(data, name=name))

    @classmethod
    def of_address(cls, address: str, name: str) -> UploadedDocument:
        """A file written into a message: base64, with or without `data:<type>;base64,` before it."""
        encoded = address.partition(",")[2] if address.startswith("data:") else address
        try:
            data = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"file_data of {name!r} is no base64: {error}") from error
        return cls.of_bytes(data, name)


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


__all__ = ["FileStore", "StorageFullError", "UnknownFileError", "UploadedDocument"]
