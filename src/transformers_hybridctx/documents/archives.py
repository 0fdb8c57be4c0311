# SPDX-License-Identifier: Apache-2.0
"""Parts of zip archives, replaced before a reader sees them."""

from __future__ import annotations

import lzma
import mimetypes
import posixpath
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from copy import copy
from io import BytesIO
from typing import Protocol
from xml.etree import ElementTree

RELATION = "{http://schemas.openxmlformats.org/package/2006/relationships}Relationship"
LARGEST_PART = 2**25
"""Bytes of XML of one part that are looked through."""

UNPACKING = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, ValueError)
"""What damaged parts raise as they are unpacked."""
DAMAGE = (*UNPACKING, ElementTree.ParseError)
"""The same, as parts of XML."""
_NOT_READ = ("image", "audio", "video", "font")


class Archive(Protocol):
    """What is asked of an archive: a `zipfile.ZipFile`, or a `Package`."""

    def namelist(self) -> list[str]: ...

    def getinfo(self, name: str) -> zipfile.ZipInfo: ...

    def read(self, name: str) -> bytes: ...


class Package:
    """
    An archive some of whose parts are replaced or renamed: each change is seen by the next, and all are packed at once.

    Args:
        data: the archive.

    Raises:
        `UNPACKING`: it is damaged.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._archive = zipfile.ZipFile(BytesIO(data))
        self._names = {part: part for part in self._archive.namelist()}  # to those in the archive
        self._replaced: dict[str, bytes] = {}

    def namelist(self) -> list[str]:
        return list(self._names)

    def getinfo(self, name: str) -> zipfile.ZipInfo:
        found = copy(self._archive.getinfo(self._names[name]))
        found.filename = name
        if name in self._replaced:
            found.file_size = len(self._replaced[name])
        return found

    def read(self, name: str) -> bytes:
        return self._replaced[name] if name in self._replaced else self._archive.read(self._names[name])

    def replace(self, parts: Mapping[str, bytes]) -> None:
        """Give parts a new content."""
        self._replaced |= parts

    def rename(self, names: Mapping[str, str]) -> None:
        """Give parts new names; what had one of these before is left out, unless it is renamed itself."""
        new = set(names.values())
        kept = [part for part in self._names if part in names or part not in new]
        renamed = {names.get(part, part): part for part in kept}
        self._replaced = {name: self._replaced[part] for name, part in renamed.items() if part in self._replaced}
        self._names = {name: self._names[part] for name, part in renamed.items()}

    def packed(self) -> bytes:
        """The archive with all changes; pictures, films and fonts are empty, as nothing reads them, damaged or not."""
        if not self._replaced and all(name == part for name, part in self._names.items()):
            return self._data
        written = BytesIO()
        with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as after:
            for name in self._names:
                after.writestr(self.getinfo(name), b"" if is_not_read(name) else self.read(name), compresslevel=1)
        return written.getvalue()


def is_not_read(part: str) -> bool:
    """Whether a part is a picture, a film, a sound or a font, by its name."""
    return (mimetypes.guess_type(part)[0] or "").partition("/")[0] in _NOT_READ


def parsed_part(archive: Archive, part: str) -> ElementTree.Element:
    """A part's XML.

    Raises:
        `DAMAGE`: it is damaged, or larger than `LARGEST_PART`.
    """
    return ElementTree.fromstring(part_of(archive, part))


def part_of(archive: Archive, part: str) -> bytes:
    """A part's bytes; raises as `parsed_part`."""
    if archive.getinfo(part).file_size > LARGEST_PART:
        raise ValueError("it is too large")
    return archive.read(part)


def related_parts(archive: Archive, part: str, kind: str) -> dict[str, str]:
    """Id -> part, for the parts of a kind that a part of an Office file refers to; raises as `parsed_part`."""
    relations = relations_of(part)
    if relations not in archive.namelist():
        return {}
    return {
        one.get("Id") or "": target_of(part, one)
        for one in parsed_part(archive, relations).iter(RELATION)
        if (one.get("Type") or "").endswith(f"/{kind}")
    }


def main_part(archive: Archive) -> str:
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


__all__ = [
    "DAMAGE",
    "LARGEST_PART",
    "RELATION",
    "UNPACKING",
    "Archive",
    "Package",
    "is_not_read",
    "main_part",
    "parsed_part",
    "part_of",
    "related_parts",
    "relations_of",
    "target_of",
    "without_ranges",
]
