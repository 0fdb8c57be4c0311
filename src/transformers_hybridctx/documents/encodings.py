# SPDX-License-Identifier: Apache-2.0
"""Bytes to text."""

from __future__ import annotations

import codecs

_BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_ZIP = b"PK\x03\x04"


def decode(data: bytes, name: str) -> str:
    """The text of a file's bytes: UTF-8, or UTF-16 with a byte order mark."""
    if data.startswith(_ZIP):
        raise ValueError(
            f"{name} is a zip archive, as .docx, .odt and .epub files are; save it as PDF, HTML or plain text"
        )
    encoding = next((codec for bom, codec in _BOMS.items() if data.startswith(bom)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name} is not {error.encoding} text: byte {data[error.start]:#04x} at position {error.start:,}; "
            "convert it to UTF-8, or decode it yourself and pass the text"
        ) from error
