# SPDX-License-Identifier: Apache-2.0
"""What each character is to the typesetter, and texts as arrays of code points."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

# Characters [start, end) of a document.
CharRange = tuple[int, int]
# Glyph keys: (face index << 16 | glyph id) for what a font draws, and two values that no font has.
NO_GLYPH = -1
MISSING_GLYPH = -2

# What a character is to the typesetter, as bits.
SEEN, SPACE, NEWLINE, MARK, PAGE_BREAK, UNDRAWABLE = 1, 2, 4, 8, 16, 32
CJK, NO_START, NO_END, COMPLEX, EXTENDER, RTL, LTR, INVISIBLE = 64, 128, 256, 512, 1024, 2048, 4096, 8192
DIGIT = 16384

NEWLINES = frozenset("\n\r\x0b\x0c\x85\u2028\u2029")
NO_BREAK_SPACES = frozenset("\u00a0\u2007\u202f")
ZERO_WIDTH_SPACE, ZERO_WIDTH_JOINER = 0x200B, 0x200D
HYPHEN, SOFT_HYPHEN = 0x2D, 0xAD
# Line-breaking classes of East Asian typography (JIS X 4051): what must not begin, and what must not end, a line.
CANNOT_START = frozenset(
    "!),.:;?]}¢°’”†‡℃‰′″›»、。〃々〉》」』】〕〗〙〟・ー―…‥％！），．：；？］｝～￠｡｣､･ｰ"
    "ぁぃぅぇぉっゃゅょゎゕゖァィゥェォッャュョヮヵヶヽヾゝゞ゛゜"
)
CANNOT_END = frozenset("([{£¥‘“‹«〈《「『【〔〖〘〝（［｛￡￥｢＄$")
CJK_RANGES = (
    (0x2E80, 0x2FFF),
    (0x3000, 0x31FF),
    (0x3200, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xA000, 0xA4CF),
    (0xAC00, 0xD7A3),
    (0xF900, 0xFAFF),
    (0xFE30, 0xFE4F),
    (0xFF00, 0xFFEF),
    (0x1B000, 0x1B16F),
    (0x1F200, 0x1F2FF),
    (0x20000, 0x3FFFF),
)
# Scripts whose letters change with their neighbours.
COMPLEX_RANGES = (
    (0x0600, 0x08FF),
    (0x0900, 0x0DFF),
    (0x0E00, 0x0FFF),
    (0x1000, 0x109F),
    (0x1100, 0x11FF),
    (0x1700, 0x18AF),
    (0x1900, 0x1CFF),
    (0xA800, 0xA82F),
    (0xA840, 0xABFF),
    (0xD7B0, 0xD7FF),
    (0xFB50, 0xFDFF),
    (0xFE70, 0xFEFE),
    (0x10A00, 0x10FFF),
    (0x11000, 0x11FFF),
    (0x1E900, 0x1E95F),
)
EXTENDER_RANGES = ((0x200C, 0x200D), (0xFE00, 0xFE0F), (0x1F3FB, 0x1F3FF), (0xE0020, 0xE007F), (0xE0100, 0xE01EF))
# Characters without a shape of their own (Default_Ignorable_Code_Point), and format characters that have one.
INVISIBLE_RANGES = (
    *((0x034F, 0x034F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x200B, 0x200F), (0x3164, 0x3164)),
    *((0xFE00, 0xFE0F), (0xFFA0, 0xFFA0), (0xE0000, 0xE0FFF)),
)
SHOWN_FORMATS = frozenset((*range(0x0600, 0x0606), 0x06DD, 0x070F, 0x0890, 0x0891, 0x08E2))
REGIONAL_INDICATORS = (0x1F1E6, 0x1F1FF)


def within(codepoint: int, ranges: Iterable[tuple[int, int]]) -> bool:
    """Whether one of the ranges (first, last), which ascend, holds the code point."""
    for first, last in ranges:
        if codepoint <= last:
            return codepoint >= first
    return False


def code_points(text: str) -> np.ndarray:
    """The text's code points, uint32 [len(text)]; lone surrogates pass."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def first_halves(codes: np.ndarray) -> np.ndarray:
    """Positions of the CR of every CRLF."""
    return np.flatnonzero((codes[:-1] == 0x0D) & (codes[1:] == 0x0A))


def doubled_spaces(space: np.ndarray) -> np.ndarray:
    """Of bool [n], which characters are breaking spaces, those that follow another: reportlab makes one of them."""
    doubled = np.zeros(len(space), dtype=bool)
    doubled[1:] = space[1:] & space[:-1]
    return doubled


def space_runs(codes: np.ndarray) -> np.ndarray:
    """Spaces in runs of two or more, which Glyph's renderer writes as no-break spaces: bool."""
    blank = codes == 0x20
    run = np.zeros(len(codes), dtype=bool)
    run[1:] = blank[1:] & blank[:-1]
    run[:-1] |= run[1:]
    return run
