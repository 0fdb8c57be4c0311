# SPDX-License-Identifier: Apache-2.0
"""Word files whose parts have names of their own, or the namespaces of Strict Open XML, as such that Word itself saves.

Their relationships say which part is which. Pandoc finds a text by them, but notes and lists by the usual names.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from xml.etree import ElementTree

from .archives import DAMAGE, RELATION, Archive, Package, main_part, part_of, related_parts, relations_of, target_of

_FOLDER = "word/"
_MAIN = f"{_FOLDER}document.xml"
_OF_PACKAGE = ("[Content_Types].xml", relations_of(""))
_SINGLE = ("styles", "numbering", "footnotes", "endnotes", "comments")
_COUNTED = {"header": "header", "footer": "footer", "chart": "charts/chart", "diagramData": "diagrams/data"}
_STRICT = re.compile(rb"http://purl\.oclc\.org/ooxml/(\w+)/")
_STRICT_TAG = re.compile(rb"<[^<>]*http://purl\.oclc\.org/ooxml/[^<>]*>")


def use_usual_parts(package: Package, name: str) -> None:
    """Give the parts of a Word file the usual names and namespaces."""
    try:
        main = main_part(package)
        if main not in package.namelist():
            return  # its reader says so
        names = _usual_names(package, main)
        changed: dict[str, bytes] = {}
        if _STRICT_TAG.search(package.read(main)):
            markup = [part for part in package.namelist() if part.endswith((".xml", ".rels"))]
            changed = {part: _STRICT_TAG.sub(_transitional, part_of(package, part)) for part in markup}
        if names:
            changed |= _renamed_relations(package, names, changed)
    except DAMAGE:
        return  # damaged: its reader says so
    package.replace(changed)
    package.rename(names)


def _usual_names(archive: Archive, main: str) -> dict[str, str]:
    """Part -> its usual name, for the parts that have another one."""
    folder = f"{posixpath.dirname(main)}/".removeprefix("/")
    names = {part: part for part in archive.namelist()}
    within = [part for part in names if part.startswith(folder) and part not in _OF_PACKAGE]
    names |= {part: _FOLDER + part.removeprefix(folder) for part in within}  # pandoc finds pictures there only
    names[main] = _MAIN
    for kind in (*_SINGLE, *_COUNTED):
        stem = _FOLDER + _COUNTED.get(kind, kind)
        usual = re.compile(stem + r"\d*" * (kind in _COUNTED) + r"\.xml")
        found = [part for part in dict.fromkeys(related_parts(archive, main, kind).values()) if part in names]
        if not all(usual.fullmatch(names[part]) for part in found):
            names |= {part: f"{stem}{number or ''}.xml" for number, part in enumerate(found)}
    names |= {relations_of(part): relations_of(new) for part, new in names.items() if relations_of(part) in names}
    return {part: new for part, new in names.items() if new != part}


def _renamed_relations(archive: Archive, names: Mapping[str, str], changed: Mapping[str, bytes]) -> dict[str, bytes]:
    """The parts that say which others parts refer to, by the new names."""
    found: dict[str, bytes] = {}
    parts = {"", *archive.namelist()}
    for part in parts:
        relations = relations_of(part)
        if relations not in parts:
            continue
        root = ElementTree.fromstring(changed.get(relations) or part_of(archive, relations))
        start = posixpath.join("/", posixpath.dirname(names.get(part, part)))
        for one in root.iter(RELATION):
            if one.get("TargetMode") != "External":
                target = target_of(part, one)
                one.set("Target", posixpath.relpath(f"/{names.get(target, target)}", start))
        found[relations] = ElementTree.tostring(root)
    return found


def _transitional(tag: re.Match[bytes]) -> bytes:
    return _STRICT.sub(rb"http://schemas.openxmlformats.org/\1/2006/", tag[0])


__all__ = ["use_usual_parts"]
