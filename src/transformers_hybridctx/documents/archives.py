# SPDX-License-Identifier: Apache-2.0
"""Parts of zip archives replaced before a reader sees them."""

from __future__ import annotations

import lzma
import posixpath
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from io import BytesIO
from xml.etree import ElementTree

_RELATION = "{http://schemas.openxmlformats.org/package/2006/relationships}Relationship"
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


def related_parts(archive: zipfile.ZipFile, part: str, kind: str) -> dict[str, str]:
    """Id -> part, for the parts of a kind that a part of an Office file refers to; raises as `parsed_part`."""
    folder, own = posixpath.split(part)
    relations = f"{folder}/_rels/{own}.rels"
    if relations not in archive.namelist():
        return {}
    return {
        one.get("Id") or "": posixpath.normpath(posixpath.join("/", folder, one.get("Target") or ""))[1:]
        for one in parsed_part(archive, relations).iter(_RELATION)
        if (one.get("Type") or "").endswith(f"/{kind}")
    }


def without_ranges(content: bytes, ranges: Iterable[tuple[int, int]]) -> bytes:
    """Bytes but for those in [start, end) of each range; the rest of a part of XML stays as it is, to the byte."""
    kept, last = [], 0
    for start, end in sorted(ranges):
        kept.append(content[last:start])
        last = max(last, end)
    return b"".join((*kept, content[last:]))


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


__all__ = [
    "DAMAGE",
    "LARGEST_PART",
    "UNPACKING",
    "parsed_part",
    "part_of",
    "related_parts",
    "with_parts",
    "without_ranges",
]
