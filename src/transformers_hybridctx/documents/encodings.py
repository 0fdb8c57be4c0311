# SPDX-License-Identifier: Apache-2.0
"""Bytes to text: what says its encoding is believed, what does not is recognised, and nothing is dropped."""

from __future__ import annotations

import codecs
import re
import warnings

_SAMPLE = 2**18
_LOOKED_THROUGH = 4_096
_MOST_CONTROLS = 0.02
_BOMS = {  # UTF-32 before UTF-16, whose mark is the beginning of the other's
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Such as no text has but by accident: not bells, escapes and backspaces of terminals, nor separators of fields.
_OF_BINARIES = re.compile(rb"[\x00-\x06\x0e-\x1a\x7f]")
_OF_BINARIES_TEXT = re.compile(_OF_BINARIES.pattern.decode())
_MOST_OF_BINARIES = 0.1
# In UTF-16, half of the bytes of ASCII characters are zeros; a text with a stray zero has hardly any.
_PRINTED = re.compile(rb"[\t\n\r -~]")
_MOST_PRINTED = 0.9
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")
_DECLARED = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE)
# What a page that declares these is decoded with, by the Encoding Standard (https://encoding.spec.whatwg.org).
_READ_AS = {
    **dict.fromkeys(("ascii", "iso8859-1", "latin-1"), "cp1252"),
    **dict.fromkeys(("gb2312", "gbk"), "gb18030"),
    **dict.fromkeys(("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-7"), "utf-8"),
    **{"shift_jis": "cp932", "euc_kr": "cp949", "iso8859-9": "cp1254", "tis-620": "cp874"},
}
_BINARIES = {
    b"PK\x03\x04": "a zip archive",
    b"\xd0\xcf\x11\xe0": "an Office file of before 2007 (.doc, .xls, .ppt, .msg); save it as .docx or PDF",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a rar archive",
    b"\x7fELF": "a program",
    b"MZ\x90\x00": "a program",
    b"\xca\xfe\xba\xbe": "a program",
    b"\x89PNG": "a PNG picture; name it .png",
    b"\xff\xd8\xff": "a JPEG picture; name it .jpg",
    b"GIF8": "a GIF picture; name it .gif",
    b"II*\x00": "a TIFF picture; name it .tif",
    b"MM\x00*": "a TIFF picture; name it .tif",
    b"SQLite format 3\x00": "a database of SQLite",
    b"PAR1": "a table of Parquet",
    b"OggS": "a recording",
    b"ID3": "a recording",
    b"RIFF": "a recording, a film or a WebP picture",
    b"%!PS": "PostScript; print it to PDF",
}


def decode(data: bytes, name: str, encoding: str | None = None, is_markup: bool = False) -> str:
    """The text of a file's bytes.

    In this order: `encoding`, where it is given; a byte order mark; the zeros of UTF-16 and UTF-32; what markup declares;
    UTF-8; what charset-normalizer recognises, which is said in a warning.

    Args:
        name: what messages call the file.
        is_markup: whether to look for a declared charset.

    Raises:
        ValueError: a binary file, an unknown encoding.

    Warns:
        UserWarning: the encoding was recognised; bytes are no text in the encoding, and stand as U+FFFD.
    """
    if encoding is None:
        _refuse_binary(data, name)
        encoding = encoding_of_whole(data) or (_declared(data) if is_markup else None)
    else:
        _known(encoding, name)
    if encoding is None:
        _refuse_controls(data, name)
        encoding = "utf-8" if _is_mostly_utf8(data) else _recognised(data, name)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        text = data.decode(encoding, "replace")
        first = text.find("\ufffd")
        warnings.warn(
            f"{name} is not all {encoding} text: byte {data[error.start]:#04x} at position {error.start:,} and "
            f"{max(text.count(chr(0xFFFD)) - 1, 0):,} others are none, and stand as U+FFFD, the first in line "
            f"{text.count(chr(10), 0, first) + 1:,}; encoding= says how to read it otherwise",
            stacklevel=3,
        )
        return text


def encoding_of_whole(data: bytes) -> str | None:
    """What a byte order mark, or the zeros of UTF-16 and UTF-32, say of a file, whatever its parts say of themselves."""
    return _marked(data) or _by_zeros(data)


def begins_as_text(start: bytes) -> bool:
    """Whether a file of an unknown kind begins as a text does: in UTF-8, or with a byte order mark, and no controls."""
    encoding = encoding_of_whole(start) or "utf-8"
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(start)  # whose last character may be cut off
    except UnicodeDecodeError:
        return False
    return not any(start.startswith(mark) for mark in _BINARIES if len(mark) > 4) and not _OF_BINARIES_TEXT.search(
        text
    )


def _refuse_binary(data: bytes, name: str) -> None:
    for mark, kind in _BINARIES.items():
        if data.startswith(mark) and (len(mark) > 4 or not _is_text_so_far(data)):
            raise ValueError(f"{name} is {kind}, and no text")


def _refuse_controls(data: bytes, name: str) -> None:
    sample = data[:_SAMPLE]
    share = len(_OF_BINARIES.findall(sample)) / max(1, len(sample))
    if share > _MOST_OF_BINARIES:
        raise ValueError(
            f"{name} is a binary file: {share:.0%} of its bytes are control characters; encoding= reads it as text"
        )


def _is_text_so_far(data: bytes) -> bool:
    start = data[:_LOOKED_THROUGH]
    return start.isascii() and not _CONTROL.search(start)


def _marked(data: bytes) -> str | None:
    return next((codec for bom, codec in _BOMS.items() if data.startswith(bom)), None)


def _by_zeros(data: bytes) -> str | None:
    """UTF-16 and UTF-32 without a mark, by where the zeros of ASCII characters stand."""
    sample = data[: _LOOKED_THROUGH - _LOOKED_THROUGH % 4]
    if b"\0" not in sample or len(_PRINTED.findall(sample)) > _MOST_PRINTED * len(sample):
        return None
    zeros = [sum(byte == 0 for byte in sample[place::4]) / max(1, len(sample[place::4])) for place in range(4)]
    for codec, empty, used in (("utf-32-le", (2, 3), 0), ("utf-32-be", (0, 1), 3)):
        if min(zeros[place] for place in empty) > 0.9 and zeros[used] < 0.5:
            return _that_decodes(data, codec)
    even, odd = (zeros[0] + zeros[2]) / 2, (zeros[1] + zeros[3]) / 2
    if even == odd == 1 or min(even, odd) > 0.05:
        return None
    return _that_decodes(data, "utf-16-le" if odd > even else "utf-16-be")


def _that_decodes(data: bytes, codec: str) -> str | None:
    """The codec, where it makes text of the bytes: no zeros, no more than a few controls."""
    width = 4 if "32" in codec else 2
    text = data[: _LOOKED_THROUGH * width].decode(codec, "replace")
    bad = sum(one == "\ufffd" or (one < " " and not one.isspace()) for one in text)
    return codec if bad <= 0.02 * len(text) else None


def _declared(data: bytes) -> str | None:
    """What a page or an XML file says of itself, as browsers take it."""
    found = _DECLARED.search(data[:_LOOKED_THROUGH])
    if found is None:
        return None
    label = found[1].decode("ascii", "replace").lower()
    label = {"x-sjis": "shift_jis", "ks_c_5601-1987": "euc_kr", "x-gbk": "gbk", "unicode": "utf-8"}.get(label, label)
    try:
        codec = codecs.lookup(label).name
    except LookupError:
        return None
    return _READ_AS.get(codec, codec)


def _known(encoding: str, name: str) -> None:
    try:
        "".encode(encoding)  # which codecs of other things, such as rot13 and base64, do not take
    except LookupError as error:
        raise ValueError(
            f"encoding={encoding!r} of {name} is unknown; Python's names are meant, such as cp1252"
        ) from error


def _is_mostly_utf8(data: bytes) -> bool:
    """Whether bytes are UTF-8 but for some: of the bytes above ASCII, most are parts of characters."""
    text = data.decode("utf-8", "replace")
    bad = text.count("\ufffd") - data.count("\ufffd".encode())
    if not bad:
        return True
    wide = sum(one > "\x7f" for one in text) - bad
    return wide > 0 and wide >= bad


def _recognised(data: bytes, name: str) -> str:
    try:
        from charset_normalizer import from_bytes
    except ImportError as error:
        raise ImportError(
            f"{name} is no UTF-8 text, and recognising others needs charset-normalizer: pip install charset-normalizer"
        ) from error
    matches = from_bytes(data[:_SAMPLE])
    best = matches.best()
    if best is None and len(_CONTROL.findall(data[:_SAMPLE])) <= _MOST_CONTROLS * len(data[:_SAMPLE]):
        return "utf-8"  # torn text: its bad bytes are reported where it is decoded
    if best is None:
        raise ValueError(f"{name} is a binary file, or text of an encoding that is not recognised; encoding= says it")
    # What is all ASCII but for a few bytes is most often this, and too little to tell others by.
    wide = sum(byte > 0x7F for byte in data[:_SAMPLE])
    is_western = any(one.encoding == "cp1252" and one.chaos <= best.chaos for one in matches)
    is_western |= "cp1252" in best.could_be_from_charset or (wide < 32 and best.multi_byte_usage < 0.9)
    found = "cp1252" if is_western else best.encoding
    warnings.warn(
        f"{name} does not say its encoding and is taken as {found}; encoding= decides otherwise", stacklevel=4
    )
    return found
