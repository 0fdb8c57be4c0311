# SPDX-License-Identifier: Apache-2.0
"""Documents that clients hand over: files, and texts and files inside of messages. They stay in memory."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Any

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
        return cls(name, _digest("text", text.encode("utf-8", "surrogatepass")), text)

    @classmethod
    def of_bytes(cls, data: bytes, name: str, **options: Any) -> UploadedDocument:
        """
        Args:
            options: how the file is read, as in [`read_document_file`]; they are no part of the digest.

        Raises:
            ValueError: the file is empty, damaged, encrypted, or of a kind that is not read.
        """
        name = name.replace("\\", "/").rpartition("/")[2] or "document"
        digest = _digest(f"file {name.rpartition('.')[2].lower()}", data)
        return cls(name, digest, read_document_file(data, name=name, **options))

    @classmethod
    def of_address(cls, address: str, name: str) -> UploadedDocument:
        """A file written into a message: base64, with or without `data:<type>;base64,` before it."""
        encoded = address.partition(",")[2] if address.startswith("data:") else address
        try:
            data = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"file_data of {name!r} is no base64: {error}") from error
        return cls.of_bytes(data, name)


def _digest(kind: str, data: bytes) -> str:
    """Of both, each by itself: no kind that a client makes up can stand for a part of the data."""
    parts = (kind.encode("utf-8", "surrogatepass"), data)
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


__all__ = ["StorageFullError", "UnknownFileError", "UploadedDocument"]
