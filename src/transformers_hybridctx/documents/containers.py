# SPDX-License-Identifier: Apache-2.0
"""Office files by what they begin with: protected ones, old ones, and other kinds under an office file's name."""

from __future__ import annotations

import zipfile
import zlib
from io import BytesIO

_ZIPPED = frozenset((".docx", ".docm", ".pptx", ".odt", ".epub", ".xlsx", ".xlsm", ".xlsb", ".ods"))
_BEFORE_2007 = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
_LARGEST_MANIFEST = 2**22


def check_container(data: bytes, suffix: str, name: str) -> None:
    """
    Refuse an office file that its reader could say nothing clear of.

    Raises:
        ValueError: it is protected with a password, of before 2007 under a new name, or no file of its kind at all.
    """
    if data.startswith(_BEFORE_2007):
        if _ENCRYPTED in data:
            raise ValueError(_protected(name))
        if suffix != ".xls":
            raise ValueError(
                f"{name} is an Office file of before 2007 under another name; save it as {suffix} with an office program"
            )
    elif (suffix in _ZIPPED or suffix == ".xls") and not data.startswith(b"PK"):
        if data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
            raise ValueError(f"{name} is no {suffix} file: it looks like HTML or XML; name it .html")
        if suffix != ".xls":  # which, of before 1995, has no mark of its own
            raise ValueError(f"{name} is no {suffix} file: it is damaged, or of another kind")
    elif suffix in (".odt", ".ods", ".epub") and _is_encrypted_archive(data):
        raise ValueError(_protected(name))


def _protected(name: str) -> str:
    return f"{name} is protected with a password or by rights management; save it without"


def _is_encrypted_archive(data: bytes) -> bool:
    """Whether the parts of an OpenDocument file or a book are encrypted."""
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            for manifest, mark in (("META-INF/manifest.xml", b"encryption-data"), ("META-INF/rights.xml", b"")):
                is_there = manifest in archive.namelist()
                if (
                    is_there
                    and archive.getinfo(manifest).file_size <= _LARGEST_MANIFEST
                    and mark in archive.read(manifest)
                ):
                    return True
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, EOFError, zlib.error):
        pass  # damaged: its reader says so
    return False
