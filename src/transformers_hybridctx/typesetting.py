# SPDX-License-Identifier: Apache-2.0
"""Typesetting: a text becomes lines on pages, and every character keeps its place."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import uharfbuzz as hb


_FONT_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fonts")
BUNDLED_MONO = os.path.join(_FONT_FOLDER, "DejaVuSansMono.ttf")
BUNDLED_SANS = os.path.join(_FONT_FOLDER, "DejaVuSans.ttf")

# Glyph keys: (face index << 16 | glyph id) for what a font draws, and two values that no font has.
NO_GLYPH = -1
MISSING_GLYPH = -2

# What a character is to the line breaker.
_UNSEEN, _TEXT, _SPACE, _NEWLINE, _MARK, _UNDRAWABLE = range(6)

_NEWLINES = frozenset("\n\r\x0b\x0c\x85\u2028\u2029")
_NO_BREAK_SPACES = frozenset("\u00a0\u2007\u202f")


@dataclass(frozen=True)
class RenderConfig:
    page_width: float = 595
    page_height: float = 842
    dpi: float = 72
    margin_x: float = 10
    margin_y: float = 10
    font_path: str | None = None
    fallback_font_paths: tuple[str, ...] = ()
    font_size: float = 9
    line_height: float = 10
    newline_markup: str | None = None
    auto_crop_last_page: bool = False
    page_multiple: int = 1

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RenderConfig:
        known = {field.name for field in dataclasses.fields(cls)}
        for key in values:
            if key not in known:
                raise ValueError(f"unknown RenderConfig key {key!r}; known keys: {', '.join(sorted(known))}")
        return cls(**values)


class FontFace:
    """One font file: its characters, and advances in its own units (never hinted)."""

    def __init__(self, path: str) -> None:
        if not os.path.isfile(path):
            raise FileNotFoundError(
                f"font file {path!r} does not exist; give the path of a TrueType or OpenType font, "
                "or font_path=None for the bundled DejaVu Sans Mono"
            )
        self.path = path
        self.face = hb.Face(hb.Blob.from_file_path(path))
        self.font = hb.Font(self.face)
        self.upem: int = self.face.upem
        self.characters: frozenset[int] = frozenset(self.face.unicodes)
        extents = self.font.get_font_extents("ltr")
        self.ascender: int = extents.ascender
        self.descender: int = -extents.descender

    def glyph(self, codepoint: int) -> int:
        return int(self.font.get_nominal_glyph(codepoint) or 0)

    def advance(self, glyph: int) -> int:
        return int(self.font.get_glyph_h_advance(glyph))


@functools.lru_cache(maxsize=32)
def load_face(path: str) -> FontFace:
    return FontFace(path)


class FontChain:
    """The faces of a config in order of preference, with advances in one common unit of `units` to the em."""

    def __init__(self, config: RenderConfig) -> None:
        paths = [config.font_path or BUNDLED_MONO, *config.fallback_font_paths, BUNDLED_SANS]
        self.faces = [load_face(path) for path in dict.fromkeys(paths)]
        self.units = math.lcm(*(face.upem for face in self.faces))
        self.config = config
        size = 0x110000
        self.keys = np.full(size, NO_GLYPH, dtype=np.int32)
        self.advances = np.zeros(size, dtype=np.int64)
        self.kinds = np.zeros(size, dtype=np.uint8)

    def find(self, codepoint: int) -> tuple[int, int] | None:
        """(face index, glyph id) of the first face that has the character."""
        for index, face in enumerate(self.faces):
            if codepoint in face.characters:
                return index, face.glyph(codepoint)
        return None

    def nominal(self, codepoint: int) -> tuple[int, int]:
        """(glyph key, advance in common units)."""
        found = self.find(codepoint)
        if found is None:
            return MISSING_GLYPH, self.missing_advance
        index, glyph = found
        face = self.faces[index]
        return index << 16 | glyph, face.advance(glyph) * (self.units // face.upem)

    @functools.cached_property
    def missing_advance(self) -> int:
        found = self.find(ord("0"))
        if found is None:
            return self.units // 2
        face = self.faces[found[0]]
        return face.advance(found[1]) * (self.units // face.upem)

    def learn(self, codes: np.ndarray) -> None:
        """Fill the tables for every code point in codes (uint32, any shape)."""
        present = np.zeros(len(self.kinds), dtype=bool)
        present[codes] = True
        present &= self.kinds == _UNSEEN
        for codepoint in np.flatnonzero(present).tolist():
            self._learn_one(codepoint)

    def _learn_one(self, codepoint: int) -> None:
        character = chr(codepoint)
        mark = self.config.newline_markup
        if character in _NEWLINES:
            if mark is None:
                kind, key, advance = _NEWLINE, NO_GLYPH, 0
            else:
                kind, (key, advance) = _MARK, self.nominal(ord(mark))
        elif character == "\t":
            kind, key, advance = _SPACE, NO_GLYPH, 4 * self.nominal(0x20)[1]
        elif character.isspace() and character not in _NO_BREAK_SPACES and not "\x1c" <= character <= "\x1f":
            kind, key, advance = _SPACE, NO_GLYPH, self.nominal(codepoint)[1]
        elif unicodedata.category(character) == "Cf":
            kind, key, advance = _TEXT, NO_GLYPH, 0
        else:
            key, advance = self.nominal(codepoint)
            kind = _UNDRAWABLE if key == MISSING_GLYPH else _TEXT
        self.keys[codepoint] = key
        self.advances[codepoint] = advance
        self.kinds[codepoint] = kind


def code_points(text: str) -> np.ndarray:
    """The text's code points, uint32 [len(text)]; lone surrogates pass."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


@dataclass(frozen=True)
class Line:
    page: int
    start: int
    end: int
    box: tuple[float, float, float, float]


class TypesetDocument:
    def __init__(self, text: str, config: RenderConfig, fonts: FontChain, starts: np.ndarray, ends: np.ndarray) -> None:
        self.text = text
        self.config = config
        self.fonts = fonts
        self.starts = starts
        self.ends = ends
        self.lines_per_page = max(
            1, math.floor((config.page_height - 2 * config.margin_y) / config.line_height + 1e-9)
        )
        self.num_pages = -(-len(starts) // self.lines_per_page)
        self.pixels_per_point = config.dpi / 72

    @functools.cached_property
    def lines(self) -> list[Line]:
        config, unit = self.config, self.config.font_size / self.fonts.units
        found = []
        for number, (start, end) in enumerate(zip(self.starts.tolist(), self.ends.tolist(), strict=True)):
            page, row = divmod(number, self.lines_per_page)
            top = config.margin_y + row * config.line_height
            width = int(self.fonts.advances[code_points(self.text[start:end].replace("\r\n", "\n"))].sum()) * unit
            points = (config.margin_x, top, config.margin_x + width, top + config.line_height)
            left, top, right, bottom = (value * self.pixels_per_point for value in points)
            found.append(Line(page, start, end, (left, top, right, bottom)))
        return found

    def page_of(self, char_index: int) -> int:
        line = max(0, int(np.searchsorted(self.starts, char_index, "right")) - 1)
        return line // self.lines_per_page

    def page_span(self, page: int) -> tuple[int, int]:
        first, last = self.page_lines(page)
        return int(self.starts[first]), int(self.ends[last - 1])

    def page_lines(self, page: int) -> tuple[int, int]:
        first = page * self.lines_per_page
        return first, min(first + self.lines_per_page, len(self.starts))

    def page_size(self, page: int, scale: float = 1.0) -> tuple[int, int]:
        config = self.config
        height, width = config.page_height, config.page_width
        if config.auto_crop_last_page and page == self.num_pages - 1:
            first, last = self.page_lines(page)
            height = 2 * config.margin_y + (last - first) * config.line_height
        multiple = config.page_multiple
        size = []
        for length in (height, width):
            pixels = math.ceil(length * self.pixels_per_point - 1e-6)
            size.append(max(1, round(-(-pixels // multiple) * multiple * scale)))
        return size[0], size[1]


class Typesetter:
    def __init__(self, config: RenderConfig | None = None) -> None:
        self.config = config or RenderConfig()
        self.fonts = FontChain(self.config)

    def typeset(self, text: str) -> TypesetDocument:
        if not text or text.isspace():
            raise ValueError("empty document: the text holds no visible character")
        fonts, config = self.fonts, self.config
        codes = code_points(text)
        fonts.learn(codes)
        kinds = fonts.kinds[codes]
        widths = fonts.advances[codes]
        # CRLF is one newline: its first half takes no room, and no line ends between the halves.
        crlf = np.flatnonzero((codes[:-1] == 0x0D) & (codes[1:] == 0x0A))
        widths[crlf] = 0
        attached = np.zeros(len(codes) + 1, dtype=bool)
        attached[crlf + 1] = True
        pen = np.zeros(len(codes) + 1, dtype=np.int64)
        np.cumsum(widths, out=pen[1:])

        solid = (kinds != _SPACE) & (kinds != _NEWLINE)
        before = np.zeros(len(codes) + 1, dtype=bool)  # a line may start here
        before[0] = before[-1] = True
        before[1:-1] = ~solid[:-1] | ~solid[1:] | (kinds[:-1] == _MARK)
        before &= ~attached
        unit_starts = np.flatnonzero(solid & before[:-1])
        unit_ends = np.flatnonzero(solid & before[1:]) + 1

        newline = np.flatnonzero((kinds == _NEWLINE) & ~attached[1:])
        newline_starts = newline.copy()
        first_half = np.zeros(len(codes), dtype=bool)
        first_half[crlf] = True
        newline_starts = np.flatnonzero((kinds == _NEWLINE) & ~attached[:-1])
        newline_ends = np.flatnonzero((kinds == _NEWLINE) & ~first_half) + 1
        paragraph_starts = np.concatenate([[0], newline_ends])
        paragraph_ends = np.concatenate([newline_starts, [len(codes)]])
        room = math.floor(
            (config.page_width - 2 * config.margin_x) / config.font_size * fonts.units + 1e-6
        )
        first_units = np.searchsorted(unit_starts, paragraph_starts)
        last_units = np.searchsorted(unit_starts, paragraph_ends)
        starts: list[int] = []
        ends: list[int] = []
        unit_start_list, unit_end_list = unit_starts.tolist(), unit_ends.tolist()
        pen_ends = pen[unit_ends]
        for start, first, last in zip(paragraph_starts.tolist(), first_units.tolist(), last_units.tolist(), strict=True):
            if first == last:
                starts.append(start)
                ends.append(start)
                continue
            unit = first
            while unit < last:
                limit = pen[start] + room
                fit = min(int(np.searchsorted(pen_ends, limit, "right")), last)
                if fit > unit:
                    starts.append(start)
                    ends.append(unit_end_list[fit - 1])
                    unit = fit
                    if unit < last:
                        start = unit_start_list[unit]
                elif start < unit_start_list[unit]:
                    start = unit_start_list[unit]
                else:
                    stop = int(np.searchsorted(pen, limit, "right")) - 1
                    while attached[stop]:
                        stop -= 1
                    if stop <= start:
                        stop = start + 1
                        while attached[stop]:
                            stop += 1
                    starts.append(start)
                    ends.append(stop)
                    start = stop
        return TypesetDocument(text, config, fonts, np.asarray(starts), np.asarray(ends))
