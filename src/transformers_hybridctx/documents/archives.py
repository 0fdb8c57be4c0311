# SPDX-License-Identifier: Apache-2.0
"""Parts of zip archives replaced before a reader sees them."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections.abc import Mapping
from io import BytesIO
from xml.etree import ElementTree

LARGEST_PART = 2**25
"""Bytes of XML of one part that are looked through."""

UNPACKING = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, ValueError)
"""What damaged parts raise as they are unpacked."""
DAMAGE = (*UNPACKING, ElementTree.ParseError)
"""The same, as parts of XML."""


def parsed_part(archive: zipfile.ZipFile, part: str) -> ElementTree.Element:
    """A part's XML.

    Raises:
        `DAMAGE`: it is damaged, or larger than `LARGEST_PART`.
    """
    return ElementTree.fromstring(part_of(archive, part))


def part_of(archive: zipfile.ZipFile, part: str) -> bytes:
    """A part's bytes; raises as `parsed_part`."""
    if archive.getinfo(part).file_size > LARGEST_PART:
        raise ValueError("it is too large")
    return archive.read(part)


def with_parts(data: bytes, parts: Mapping[str, bytes]) -> bytes:
    """An archive with some of its parts replaced; the others are copied as they are."""
    if not parts:
        return data
    written = BytesIO()
    with zipfile.ZipFile(BytesIO(data)) as before, zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as after:
        for part in before.infolist():
            after.writestr(
                part, parts[part.filename] if part.filename in parts else before.read(part), compresslevel=1
            )
    return written.getvalue()


__all__ = ["DAMAGE", "LARGEST_PART", "UNPACKING", "parsed_part", "part_of", "with_parts"]
