# SPDX-License-Identifier: Apache-2.0
"""Office files before they are read: protected, old and damaged ones, and other kinds under an office file's name."""

from __future__ import annotations

import zipfile
from io import BytesIO

from .archives import UNPACKING, is_not_read

_OPEN = frozenset((".odt", ".ott", ".ods", ".ots", ".epub"))
_ZIPPED = _OPEN | frozenset(
    (
        *(".docx", ".docm", ".dotx", ".dotm", ".pptx", ".pptm", ".ppsx", ".ppsm", ".potx", ".potm"),
        *(".xlsx", ".xlsm", ".xltx", ".xltm", ".xlsb"),
    )
)
_BEFORE_2007 = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
_LARGEST_MANIFEST = 2**22
MAX_UNPACKED_BYTES = 2**31
"""Most bytes that the parts of a file unpack to."""
_PIECE = 2**20


def check_container(data: bytes, suffix: str, name: str) -> None:
    """
    Refuse an office file that its reader could say nothing clear of.

    Raises:
        ValueError: it is protected with a password, of before 2007 under a new name, or no file of its kind at all; one
            of its parts is damaged, which its reader would not say; it unpacks to more than `MAX_UNPACKED_BYTES`.
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
    elif suffix in _OPEN and _is_encrypted_archive(data):
        raise ValueError(_protected(name))
    if data.startswith(b"PK"):
        _check_parts(data, name)


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
    except UNPACKING:
        pass  # damaged: its reader says so
    return False


def _check_parts(data: bytes, name: str) -> None:
    """Refuse an archive one of whose parts does not hold what was written; pictures and the like are not looked at."""
    try:
        archive = zipfile.ZipFile(BytesIO(data))
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # no archive: its reader says so
    with archive:
        parts = [part for part in archive.infolist() if not is_not_read(part.filename)]
        if (size := sum(part.file_size for part in parts)) > MAX_UNPACKED_BYTES:
            raise ValueError(f"{name} unpacks to {size:,} bytes, more than {MAX_UNPACKED_BYTES:,}; split it up")
        for part in parts:
            if part.flag_bits & 1:
                raise ValueError(_protected(name))
            try:
                with archive.open(part) as opened:
                    while opened.read(_PIECE):
                        pass
            except NotImplementedError:  # packed by a method that its reader may know
                continue
            except UNPACKING as error:
                raise ValueError(
                    f"{name} is damaged: its part {part.filename!r:.80} is not what was written ({_told(error)}); get it "
                    "again, or let the program that made it repair it and save it anew"
                ) from error


def _told(error: Exception) -> str:
    return "its checksum differs" if "CRC" in str(error) else " ".join(str(error)[:120].split()) or "it is cut off"
