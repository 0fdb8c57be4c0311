# SPDX-License-Identifier: Apache-2.0
"""Fonts: characters to glyphs and unhinted advances, and the shaping of scripts whose letters change with their
neighbours. A chain of faces answers for one config; what one face lacks the next is asked for.
"""

from __future__ import annotations

import functools
import math
import os
import threading
import unicodedata
from dataclasses import dataclass
from typing import Any

import numpy as np
import uharfbuzz as hb

from .characters import (
    CANNOT_END,
    CANNOT_START,
    CJK,
    CJK_RANGES,
    COMPLEX,
    COMPLEX_RANGES,
    DIGIT,
    EXTENDER,
    EXTENDER_RANGES,
    INVISIBLE,
    INVISIBLE_RANGES,
    LTR,
    MARK,
    MISSING_GLYPH,
    NEWLINE,
    NO_BREAK_SPACES,
    NO_END,
    NO_GLYPH,
    NO_START,
    PAGE_BREAK,
    REGIONAL_INDICATORS,
    RTL,
    SEEN,
    SHOWN_FORMATS,
    SPACE,
    UNDRAWABLE,
    ZERO_WIDTH_JOINER,
    within,
)
from .font_files import file_and_face
from .rule_sets import rules_of
from .settings import RenderConfig

_SHAPED_RUNS_KEPT = 1 << 16


class FontFace:
    """One font, named as in `font_files`: its characters, and advances in its own units (never hinted)."""

    def __init__(self, path: str) -> None:
        self.file, self.index = file_and_face(path)
        if not os.path.isfile(self.file):
            raise FileNotFoundError(
                f"font file {path!r} does not exist; give the path of a TrueType or OpenType font, "
                "or font_path=None for the bundled DejaVu Sans Mono"
            )
        self.path = path
        face = hb.Face(hb.Blob.from_file_path(self.file), self.index)
        if face.glyph_count == 0 or not {"glyf", "CFF ", "CFF2"} & set(face.table_tags):
            raise ValueError(
                f"font file {path!r} holds no glyph outlines; give a TrueType or OpenType font with outlines "
                "(bitmap-only emoji fonts cannot be scaled)"
            )
        self.face = face
        self.font = hb.Font(face)
        self.upem: int = face.upem
        extents = self.font.get_font_extents("ltr")
        self.ascender: int = extents.ascender
        self.descender: int = -extents.descender

    def __reduce__(self) -> tuple[Any, ...]:
        return load_face, (self.path,)

    @functools.cached_property
    def characters(self) -> frozenset[int]:
        return frozenset(self.face.unicodes)

    def glyph(self, codepoint: int) -> int:
        """The glyph of a character, 0 where the font has none."""
        return int(self.font.get_nominal_glyph(codepoint) or 0)

    def advance(self, glyph: int) -> int:
        return int(self.font.get_glyph_h_advance(glyph))


@functools.lru_cache(maxsize=32)
def load_face(path: str) -> FontFace:
    return FontFace(path)


@dataclass(frozen=True)
class ShapedRun:
    """What the shaper made of a stretch of complex script, in the chain's common units.

    advances: int64 [characters], a cluster's own at its first character and 0 at the others; attached: bool
    [characters], true where a character belongs to the cluster before it. Glyphs: at (their cluster's first
    character), keys, right and up (offsets from the cluster's left end on the baseline).
    """

    advances: np.ndarray
    attached: np.ndarray
    at: np.ndarray
    keys: np.ndarray
    right: np.ndarray
    up: np.ndarray


# (first character, advance, glyphs as (key, right, up)), in the order of the text.
_Cluster = tuple[int, int, list[tuple[int, int, int]]]


class FontChain:
    """The faces of a config in order of preference, with advances in one common unit of `units` to the em.

    Tables by code point, filled as characters turn up: keys (int32), advances (int64), flags (uint16). An entry is
    written once and never changes, so threads that share a chain read it without a lock once `learn` has returned.
    """

    def __init__(self, config: RenderConfig) -> None:
        self.config = config
        self.rules = rules_of(config)
        self.faces = [load_face(path) for path in config.font_paths]
        self.units = math.lcm(*(face.upem for face in self.faces))
        self.keys = np.zeros(0, dtype=np.int32)
        self.advances = np.zeros(0, dtype=np.int64)
        self.flags = np.zeros(0, dtype=np.uint16)
        self._learning = threading.Lock()
        self._runs: dict[str, ShapedRun] = {}
        self._extents: dict[int, tuple[float, float]] = {}
        face = self.faces[0]
        ascent = face.ascender / face.upem * config.font_size
        descent = face.descender / face.upem * config.font_size
        # From a line's top to its baseline, by itself with the glyphs' height centred in the line.
        centred = (config.line_height - ascent - descent) / 2 + ascent
        self.ascent = centred if config.baseline is None else config.baseline

    def __reduce__(self) -> tuple[Any, ...]:
        return FontChain, (self.config,), np.flatnonzero(self.flags)

    def __setstate__(self, learned: np.ndarray) -> None:
        self.learn(learned)

    def find(self, codepoint: int) -> tuple[int, int] | None:
        """(face index, glyph id) of the first face that has the character."""
        for index, face in enumerate(self.faces):
            if glyph := face.glyph(codepoint):
                return index, glyph
        return None

    def nominal(self, codepoint: int) -> tuple[int, int]:
        """(glyph key, advance in common units); MISSING_GLYPH and a figure's width where no face has the character."""
        found = self.find(codepoint)
        if found is None:
            return MISSING_GLYPH, self.missing_advance
        index, glyph = found
        face = self.faces[index]
        return index << 16 | glyph, face.advance(glyph) * (self.units // face.upem)

    @functools.cached_property
    def missing_advance(self) -> int:
        return self.units // 2 if self.find(ord("0")) is None else self.nominal(ord("0"))[1]

    @functools.cached_property
    def space_advance(self) -> int:
        return self.nominal(ord(" "))[1]

    def extents(self, key: int) -> tuple[float, float]:
        """(right, down): how far the glyph's ink reaches right of its origin and below the baseline, in ems."""
        if key == MISSING_GLYPH:
            return self.missing_advance / self.units, 0.0
        if key not in self._extents:
            face = self.faces[key >> 16]
            box = face.font.get_glyph_extents(key & 0xFFFF)
            inked = box is not None and box.width != 0
            right = (box.x_bearing + box.width) / face.upem if inked else 0.0
            down = -(box.y_bearing + box.height) / face.upem if inked else -math.inf
            self._extents[key] = right, down
        return self._extents[key]

    def learn(self, codes: np.ndarray) -> None:
        """Fill the tables for every code point in codes (uint32, any shape)."""
        if not codes.size:
            return
        present = np.zeros(int(codes.max()) + 1, dtype=bool)
        present[codes.astype(np.int64)] = True
        seen = self.flags
        if len(present) <= len(seen) and not np.any(present & (seen[: len(present)] == 0)):
            return
        with self._learning:
            if len(present) > len(self.flags):
                # Most texts need the first few thousand code points; some need all.
                more = max(len(present), 2 * len(self.flags), 0x400) - len(self.flags)
                self.keys = np.append(self.keys, np.full(more, NO_GLYPH, dtype=np.int32))
                self.advances = np.append(self.advances, np.zeros(more, dtype=np.int64))
                self.flags = np.append(self.flags, np.zeros(more, dtype=np.uint16))
            present &= self.flags[: len(present)] == 0
            for codepoint in np.flatnonzero(present).tolist():
                key, advance, flags = self._describe(codepoint)
                self.keys[codepoint] = key
                self.advances[codepoint] = advance
                # Last, here as above: others take an entry with flags for a whole one.
                self.flags[codepoint] = flags | SEEN

    def _describe(self, codepoint: int) -> tuple[int, int, int]:
        character = chr(codepoint)
        if self.rules.is_newline(character):
            mark = self.config.newline_markup
            if mark is None:
                return NO_GLYPH, 0, NEWLINE | (PAGE_BREAK if character == "\x0c" else 0)
            return (*self.nominal(ord(mark)), MARK) if len(mark) == 1 else (NO_GLYPH, 0, MARK)
        if character.isspace() and not "\x1c" <= character <= "\x1f":
            own = None if self.find(codepoint) is None else self.nominal(codepoint)[1]
            advance = self.rules.white_space_advance(character, own, self.space_advance, self.units)
            return NO_GLYPH, advance, 0 if character in NO_BREAK_SPACES else SPACE
        category = unicodedata.category(character)
        extender = category in ("Mn", "Mc", "Me") or within(codepoint, EXTENDER_RANGES)
        flags = EXTENDER | COMPLEX if extender else DIGIT if category == "Nd" else 0
        flags |= {"R": RTL, "AL": RTL, "L": LTR}.get(unicodedata.bidirectional(character), 0)
        if within(codepoint, INVISIBLE_RANGES) or (category == "Cf" and codepoint not in SHOWN_FORMATS):
            return NO_GLYPH, 0, flags | INVISIBLE
        if category in ("Cc", "Cs"):
            return MISSING_GLYPH, self.missing_advance, UNDRAWABLE
        if within(codepoint, CJK_RANGES):
            flags |= CJK
        if character in CANNOT_START:
            flags |= NO_START
        if character in CANNOT_END:
            flags |= NO_END
        key, advance = self.nominal(codepoint)
        if key == MISSING_GLYPH:
            return key, advance, flags | UNDRAWABLE
        if within(codepoint, COMPLEX_RANGES) and unicodedata.bidirectional(character) != "AN":
            flags |= COMPLEX
        if within(codepoint, (REGIONAL_INDICATORS,)):
            flags |= COMPLEX
        return key, max(advance, 0), flags

    def shape(self, run: str) -> ShapedRun:
        """Shape a stretch of complex script; results are kept, since words come again."""
        shaped = self._runs.get(run)
        if shaped is None:
            if len(self._runs) >= _SHAPED_RUNS_KEPT:
                self._runs.clear()
            advances = np.zeros(len(run), dtype=np.int64)
            attached = np.ones(len(run), dtype=bool)
            glyphs = []
            for start, advance, drawn in self._shape(run):
                advances[start] = advance
                attached[start] = False
                glyphs += [(start, *glyph) for glyph in drawn]
            at, keys, right, up = np.array(glyphs, dtype=np.int64).reshape(-1, 4).T
            shaped = self._runs[run] = ShapedRun(advances, attached, at, keys.astype(np.int32), right, up)
        return shaped

    def _shape(self, run: str) -> list[_Cluster]:
        codes = [ord(character) for character in run]
        flags = [int(self.flags[code]) for code in codes]
        # One face for each character and what extends it, so that an accent meets its letter.
        faces: list[int] = []
        position = 0
        while position < len(codes):
            end = position + 1
            while end < len(codes) and (flags[end] & EXTENDER or codes[end - 1] == ZERO_WIDTH_JOINER):
                end += 1
            needed = {code for code, flag in zip(codes[position:end], flags[position:end], strict=True)}
            needed -= {code for code in needed if self.flags[code] & INVISIBLE}
            whole = next((n for n, face in enumerate(self.faces) if needed <= face.characters), None)
            for code in codes[position:end]:
                found = self.find(code)
                if whole is not None:
                    faces.append(whole)
                elif found is not None:
                    faces.append(found[0])
                else:
                    faces.append(faces[-1] if self.flags[code] & INVISIBLE and faces else -1)
            position = end
        clusters: list[_Cluster] = []
        rtl = [bool(flag & RTL) for flag in flags]
        for index in range(1, len(codes)):
            if flags[index] & EXTENDER:
                rtl[index] = rtl[index - 1]
        start = 0
        while start < len(codes):
            end = start + 1
            while end < len(codes) and faces[end] == faces[start] and rtl[end] == rtl[start]:
                end += 1
            if faces[start] < 0:
                for index in range(start, end):
                    hidden = flags[index] & INVISIBLE
                    box = [] if hidden else [(MISSING_GLYPH, 0, 0)]
                    clusters.append((index, 0 if hidden else self.missing_advance, box))
            else:
                clusters += self._shape_with(faces[start], codes, start, end, rtl[start])
            start = end
        return clusters

    def _shape_with(self, index: int, codes: list[int], start: int, end: int, rtl: bool) -> list[_Cluster]:
        face = self.faces[index]
        factor = self.units // face.upem
        buffer = hb.Buffer()
        buffer.add_codepoints(codes, item_offset=start, item_length=end - start)
        buffer.guess_segment_properties()
        buffer.direction = "rtl" if rtl else "ltr"
        hb.shape(face.font, buffer, {"kern": False, "liga": rtl})
        groups: dict[int, list[tuple[int, Any]]] = {}
        for info, place in zip(buffer.glyph_infos, buffer.glyph_positions, strict=True):
            groups.setdefault(info.cluster, []).append((info.codepoint, place))
        clusters: list[_Cluster] = []
        for number, first in enumerate(sorted(groups)):
            pen, glyphs = 0, []
            for glyph, place in groups[first]:
                glyphs.append((index << 16 | glyph, (pen + place.x_offset) * factor, place.y_offset * factor))
                pen += place.x_advance
            # Characters without glyphs of their own belong to the cluster before them, or to the first one.
            clusters.append((start if number == 0 else first, max(pen, 0) * factor, glyphs))
        return clusters
