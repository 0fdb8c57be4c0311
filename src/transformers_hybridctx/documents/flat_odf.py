# SPDX-License-Identifier: Apache-2.0
"""OpenDocument files that are one file of XML (.fodt, .fods), as the archives that their readers take."""

from __future__ import annotations

import re
import zipfile
from io import BytesIO

from .encodings import decode

FLAT_FORMATS = {".fodt": ".odt", ".fods": ".ods"}
"""Suffix of a file of XML -> that of the same as an archive."""
_MANIFEST = '<m:manifest xmlns:m="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"/>'
_ROOT = re.compile(r"<((?:\w+:)?document)(?=[\s>])(.*)</\1\s*>", re.S)
_MIME_TYPE = re.compile(r"""[\s:]mimetype\s*=\s*["']([\w./+-]+)""")
_PICTURE = re.compile(r"(<(?:\w+:)?binary-data[^<>]*>)[^<]*")
_BODY = re.compile(r"<((?:\w+:)?body)(?=[\s>]).*</\1\s*>", re.S)


def packed_flat(data: bytes, name: str) -> bytes:
    """
    The archive, without pictures.

    Raises:
        ValueError: it is no such file.
    """
    found = _ROOT.search(decode(data, name, is_markup=True))
    kind = found and _MIME_TYPE.search(found[2])
    if not found or not kind:
        raise ValueError(f"{name} is no OpenDocument file of XML: it is damaged, or of another kind")
    root, inside = found[1], _PICTURE.sub(r"\1", found[2])
    written = BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", kind[1])
        archive.writestr("META-INF/manifest.xml", _MANIFEST)
        archive.writestr("content.xml", f"<{root}-content{inside}</{root}-content>", compresslevel=1)
        archive.writestr("styles.xml", f"<{root}-styles{_BODY.sub('', inside)}</{root}-styles>", compresslevel=1)
    return written.getvalue()


__all__ = ["FLAT_FORMATS", "packed_flat"]
