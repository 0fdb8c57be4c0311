# SPDX-License-Identifier: Apache-2.0
"""Bytes of RTF as characters: by the code page of the file, or of the font that shows them, as its font table says.

pandoc takes all of them for Western European ones, so that a Russian or Japanese file becomes other letters.
"""

from __future__ import annotations

import re

_OF_CHARSETS = {
    **{0: "cp1252", 77: "mac_roman", 78: "cp932", 79: "cp949", 80: "gb18030", 81: "cp950", 83: "cp1255", 84: "cp1256"},
    **{85: "mac_greek", 86: "mac_turkish", 87: "cp874", 88: "mac_latin2", 89: "mac_cyrillic", 128: "cp932"},
    **{129: "cp949", 130: "johab", 134: "gb18030", 136: "cp950", 161: "cp1253", 162: "cp1254", 163: "cp1258"},
    **{
        177: "cp1255",
        178: "cp1256",
        186: "cp1257",
        204: "cp1251",
        222: "cp874",
        238: "cp1250",
        254: "cp437",
        255: "cp850",
    },
}
_OF_NUMBERS = {
    **{0: "cp1252", 936: "gb18030", 1361: "johab", 10000: "mac_roman", 10006: "mac_greek", 10007: "mac_cyrillic"},
    **{
        10029: "mac_latin2",
        10079: "mac_iceland",
        10081: "mac_turkish",
        20866: "koi8_r",
        21866: "koi8_u",
        65001: "utf-8",
    },
}
_OF_WORDS = {b"mac": "mac_roman", b"pc": "cp437", b"pca": "cp850"}
_WESTERN, _SYMBOL = _OF_CHARSETS[0], 2
_LETTERS = re.compile(rb"[\x80-\xff]{3}")
# The font Symbol, by the encoding of that name in the Adobe Font Metrics.
_SYMBOLS = dict(
    zip(
        (*range(0x20, 0x7F), *range(0xA0, 0xF0), *range(0xF1, 0xFF)),
        " !∀#∃%&∋()∗+,−./0123456789:;<=>?≅ΑΒΧΔΕΦΓΗΙϑΚΛΜΝΟΠΘΡΣΤΥςΩΞΨΖ[∴]⊥_‾αβχδεφγηιϕκλμνοπθρστυϖωξψζ{|}∼"
        "€ϒ′≤⁄∞ƒ♣♦♥♠↔←↑→↓°±″≥×∝∂•÷≠≡≈…⏐⎯↵ℵℑℜ℘⊗⊕∅∩∪⊃⊇⊄⊂⊆∈∉∠∇®©™∏√⋅¬∧∨⇔⇐⇑⇒⇓◊〈®©™∑⎛⎜⎝⎡⎢⎣⎧⎨⎩⎪〉∫⌠⎮⌡⎞⎟⎠⎤⎥⎦⎫⎬⎭",
        strict=True,
    )
)
_PRIVATE = 0xF000  # where Unicode puts the characters of such fonts


class CodePages:
    """Which characters bytes are, font by font; fed with the words of a file's head and of its font table."""

    def __init__(self) -> None:
        self.default_font = 0
        self._of_file = _WESTERN
        self._of_fonts: dict[int, str] = {}
        self._symbols: set[int] = set()  # fonts of pictures
        self._greek: set[int] = set()  # those of them that are Symbol
        self._defined = 0

    def note(self, word: bytes, number: int, is_font_table: bool) -> None:
        """Take note of a control word."""
        if word in _OF_WORDS:
            self._of_file = _OF_WORDS[word]
        elif word == b"ansicpg":
            self._of_file = _codec(number) or self._of_file
        elif word == b"deff":
            self.default_font = number
        elif not is_font_table:
            return
        elif word == b"f":
            self._defined = number
        elif word == b"fcharset" and number == _SYMBOL:
            self._symbols.add(self._defined)
        elif word in (b"fcharset", b"cpg"):
            codec = _OF_CHARSETS.get(number) if word == b"fcharset" else _codec(number)
            if codec is not None:
                self._of_fonts[self._defined] = codec

    def note_name(self, name: str) -> None:
        """Take note of the name of the font that was defined last."""
        if name.startswith("Symbol") and self._defined in self._symbols:
            self._greek.add(self._defined)

    def text_of(self, data: bytes, font: int) -> str:
        """The characters of bytes that a font shows."""
        if font in self._greek:
            return "".join(_SYMBOLS.get(byte, "\ufffd") for byte in data)
        codec = self._of_fonts.get(font, self._of_file)
        # Programs that know no font tables call all fonts Western ones: words of foreign letters are the file's.
        if codec == _WESTERN != self._of_file and _LETTERS.search(data):
            codec = self._of_file
        return data.decode(codec, "replace")

    def character(self, code: int, font: int) -> str:
        """A character of Unicode, by its number."""
        if font in self._greek and _PRIVATE <= code < _PRIVATE + 0x100:
            return _SYMBOLS.get(code - _PRIVATE, chr(code))
        return chr(code)


def _codec(number: int) -> str | None:
    codec = _OF_NUMBERS.get(number, f"cp{number}")
    try:
        "".encode(codec)
    except LookupError:
        return None
    return codec


__all__ = ["CodePages"]
