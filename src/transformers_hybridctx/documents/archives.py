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

RELATION = "{http://schemas.openxmlformats.org/package/2006/relationships}Relationship"
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
    relations = relations_of(part)
    if relations not in archive.namelist():
        return {}
    return {
        one.get("Id") or "": target_of(part, one)
        for one in parsed_part(archive, relations).iter(RELATION)
        if (one.get("Type") or "").endswith(f"/{kind}")
    }


def main_part(archive: zipfile.ZipFile) -> str:
    """The part that an Office file begins with, or "" where none is said to; raises as `parsed_part`."""
    return next(iter(related_parts(archive, "", "officeDocument").values()), "")


def relations_of(part: str) -> str:
    """The part that says which others one refers to; the whole file's for ""."""
    folder, own = posixpath.split(part)
    return posixpath.join(folder, "_rels", f"{own}.rels")


def target_of(part: str, relation: ElementTree.Element) -> str:
    """The part that a relation of another one refers to."""
    return posixpath.normpath(posixpath.join("/", posixpath.dirname(part), relation.get("Target") or ""))[1:]


def without_ranges(content: bytes, ranges: Iterable[tuple[int, int]]) -> bytes:
    """Bytes but for those in [start, end) of each range; the rest of a part of XML stays as it is, to the byte."""
    kept, last = [], 0
    for start, end in sorted(ranges):
        kept.append(content[last:start])
        last = max(last, end)
    return b"".join((*kept, content[last:]))


def with_parts(data: bytes, parts: Mapping[str, bytes], names: Mapping[str, str] | None = None) -> bytes:
    """An archive with some of its parts replaced, or renamed; the others are copied as they are.

    Args:
        parts: part, by its name in `data` -> its new content.
        names: such a name -> the new one, whose part before is left out.
    """
    names = names or {}
    if not (parts or names):
        return data
    replaced = set(names.values())
    written = BytesIO()
    with zipfile.ZipFile(BytesIO(data)) as before, zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as after:
        for part in before.infolist():
            name = part.filename
            if name in replaced and name not in names:
                continue
            content = parts[name] if name in parts else before.read(part)
            part.filename = names.get(name, name)
            after.writestr(part, content, compresslevel=1)
    return written.getvalue()


__all__ = [
    "DAMAGE",
    "LARGEST_PART",
    "RELATION",
    "UNPACKING",
    "main_part",
    "parsed_part",
    "part_of",
    "related_parts",
    "relations_of",
    "target_of",
    "with_parts",
    "without_ranges",
]
