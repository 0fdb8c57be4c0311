# SPDX-License-Identifier: Apache-2.0
"""Typesetting: a text becomes lines on pages, and every character keeps its place.

Lengths are in points (1/72 in) until a pixel is named. Nothing here draws: advances come unhinted from the fonts' own
tables and are added up in integers, so line breaks are the same at every scale and on every machine.

What becomes of characters that are not letters:
- A newline (LF, CR, CRLF, VT, NEL, U+2028, U+2029) ends a line, or is drawn as `newline_markup`, one mark for a CRLF.
- A form feed ends the page as well (with `newline_markup` it is a newline like the others).
- White space at a line break is dropped; elsewhere it keeps its width. A tab is four spaces wide.
- Invisible format characters (zero-width space and joiners, soft hyphen, byte-order mark, bidirectional controls)
  take no room and draw nothing.
- Other control characters, lone surrogates and characters that no font has are listed in `undrawable` and drawn as a
  hollow box.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
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

# What a character is to the typesetter, as bits.
_SEEN, _SPACE, _NEWLINE, _MARK, _PAGE_BREAK, _UNDRAWABLE = 1, 2, 4, 8, 16, 32
_CJK, _NO_START, _NO_END, _COMPLEX, _EXTENDER, _RTL, _LTR, _INVISIBLE = 64, 128, 256, 512, 1024, 2048, 4096, 8192

_NEWLINES = frozenset("\n\r\x0b\x0c\x85\u2028\u2029")
_NO_BREAK_SPACES = frozenset("\u00a0\u2007\u202f")
_ZERO_WIDTH_SPACE, _ZERO_WIDTH_JOINER = 0x200B, 0x200D
# Line-breaking classes of East Asian typography (JIS X 4051): what must not begin, and what must not end, a line.
_CANNOT_START = frozenset(
    "!),.:;?]}¢°’”†‡℃‰′″›»、。〃々〉》」』】〕〗〙〟・ー―…‥％！），．：；？］｝～￠｡｣､･ｰ"
    "ぁぃぅぇぉっゃゅょゎゕゖァィゥェォッャュョヮヵヶヽヾゝゞ゛゜"
)
_CANNOT_END = frozenset("([{£¥‘“‹«〈《「『【〔〖〘〝（［｛￡￥｢＄$")
# The characters that reportlab's CJK line breaking lets hang into the margin.
_REPORTLAB_CANNOT_START = frozenset(
    map(
        ord,
        "!',.:;?!\")]、。」』】〕］】）々―ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮーヵヶ゛゜・ヽヾゝゞ―‐°′″℃￠％‰",
    )
)
_REPORTLAB_FUZZ = 1e-6
_REPORTLAB_CJK = (0x4E00, 0x9FFF)
# A line may run over by 1/20 of its spaces' width, which then shrink to fit.
_SHRINK_PARTS = 20

_CJK_RANGES = (
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
_COMPLEX_RANGES = (
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
_EXTENDER_RANGES = ((0x200C, 0x200D), (0xFE00, 0xFE0F), (0x1F3FB, 0x1F3FF), (0xE0020, 0xE007F), (0xE0100, 0xE01EF))
# Characters without a shape of their own (Default_Ignorable_Code_Point), and format characters that have one.
_INVISIBLE_RANGES = (
    *((0x034F, 0x034F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x200B, 0x200F), (0x3164, 0x3164)),
    *((0xFE00, 0xFE0F), (0xFFA0, 0xFFA0), (0xE0000, 0xE0FFF)),
)
_SHOWN_FORMATS = frozenset((*range(0x0600, 0x0606), 0x06DD, 0x070F, 0x0890, 0x0891, 0x08E2))
_REGIONAL_INDICATORS = (0x1F1E6, 0x1F1FF)
_MIRRORED_PAIRS = ("()", "[]", "{}", "<>", "«»", "‹›", "≤≥", "⟨⟩", "「」", "『』", "【】", "《》", "〈〉")
_MIRRORS = dict([(pair[0], pair[1]) for pair in _MIRRORED_PAIRS] + [(pair[1], pair[0]) for pair in _MIRRORED_PAIRS])
# Longest stretch given to the shaper at once; longer words are shaped in pieces.
_LONGEST_RUN = 256
_SHAPED_RUNS_KEPT = 1 << 16

_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_REPORTLAB_MARK = re.compile(r"""<font\s+color\s*=\s*["']?(#[0-9a-fA-F]{6})["']?\s*>([^<>]*)</font>|([^<>]*)""")
_REPORTLAB_BREAK = re.compile(r"\s*<br\s*/?>\s*")
_LARGEST_SIDE = 32768


def _within(codepoint: int, ranges: Iterable[tuple[int, int]]) -> bool:
    return any(low <= codepoint <= high for low, high in ranges)


@dataclass(frozen=True)
class RenderConfig:
    """How text is laid out and drawn (theta in Render(C; theta)). Lengths are in points (1/72 in) unless said.

    Args:
        page_width, page_height: the page.
        dpi: pixels per 72 points at scale 1.
        margin_x, margin_y: empty border left and right, above and below.
        frame_padding: more empty border inside the margins, on all four sides (reportlab's frames have 6).
        font_path: a TrueType or OpenType font with outlines; None is the bundled DejaVu Sans Mono.
        fallback_font_paths: fonts asked in turn for what the first one lacks; the bundled DejaVu Sans ends the chain.
        font_size, line_height: size of the em and distance from baseline to baseline.
        font_color, page_bg_color, para_bg_color, border_color: "#RRGGBB". Pages are grey when all of them are.
        alignment: "LEFT", "CENTER", "RIGHT" or "JUSTIFY"; a paragraph that begins in a right-to-left script starts
            right.
        horizontal_scale: the finished page is drawn this many times as wide; line breaks stay.
        first_line_indent, left_indent, right_indent: of paragraphs.
        space_before, space_after: between paragraphs the larger of the two is left free.
        border_width, border_padding: frame drawn around paragraphs, outside the text; it moves no text.
        newline_markup: text drawn in place of each newline, which then breaks no line; None breaks the line.
        newline_color: "#RRGGBB" of that text; None is font_color.
        auto_crop_width: each page ends margin_x pixels right of its rightmost ink.
        auto_crop_last_page: the last page ends margin_y below its content.
        page_multiple: pages are padded with background to a multiple of this many pixels at scale 1.
        line_breaking: "plain" (greedy, white space kept, CJK broken between characters) or "reportlab" (the rules of
            the renderer that Glyph was trained on: lines may run over by a twentieth of their spaces, leading spaces
            go, runs of spaces do not break, one CJK character switches the whole text to breaking by characters).
        lines_per_paragraph: newlines to a paragraph; None: each newline ends one, or with newline_markup none does.
    """

    page_width: float = 595
    page_height: float = 842
    dpi: float = 72
    margin_x: float = 10
    margin_y: float = 10
    frame_padding: float = 0
    font_path: str | None = None
    fallback_font_paths: tuple[str, ...] = ()
    font_size: float = 9
    line_height: float = 10
    font_color: str = "#000000"
    page_bg_color: str = "#FFFFFF"
    para_bg_color: str = "#FFFFFF"
    border_color: str = "#FFFFFF"
    alignment: str = "LEFT"
    horizontal_scale: float = 1.0
    first_line_indent: float = 0
    left_indent: float = 0
    right_indent: float = 0
    space_before: float = 0
    space_after: float = 0
    border_width: float = 0
    border_padding: float = 0
    newline_markup: str | None = None
    newline_color: str | None = None
    auto_crop_width: bool = False
    auto_crop_last_page: bool = False
    page_multiple: int = 1
    line_breaking: str = "plain"
    lines_per_paragraph: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.fallback_font_paths, (str, os.PathLike)):
            raise ValueError(
                f"fallback_font_paths={self.fallback_font_paths!r} is one path; give a list or tuple of paths"
            )
        object.__setattr__(self, "fallback_font_paths", tuple(os.fspath(path) for path in self.fallback_font_paths))
        if self.font_path is not None:
            object.__setattr__(self, "font_path", os.fspath(self.font_path))
        for name in ("page_width", "page_height", "dpi", "font_size", "line_height", "horizontal_scale"):
            self._check_number(name, positive=True)
        for name in ("margin_x", "margin_y", "frame_padding", "space_before", "space_after", "border_width"):
            self._check_number(name)
        self._check_number("border_padding")
        for name in ("first_line_indent", "left_indent", "right_indent"):
            self._check_number(name, negative=True)
        for name in ("font_color", "page_bg_color", "para_bg_color", "border_color", "newline_color"):
            value = getattr(self, name)
            if name == "newline_color" and value is None:
                continue
            if not isinstance(value, str) or not _COLOR.fullmatch(value):
                raise ValueError(f"{name}={value!r} is not a colour; write it as '#RRGGBB', for example '#000000'")
        self._check_choice("alignment", ("LEFT", "CENTER", "RIGHT", "JUSTIFY"))
        self._check_choice("line_breaking", ("plain", "reportlab"))
        for name in ("page_multiple", "lines_per_paragraph"):
            value = getattr(self, name)
            if name == "lines_per_paragraph" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name}={value!r} must be a whole number of at least 1")
        mark = self.newline_markup
        if mark is not None and (not isinstance(mark, str) or not mark.strip() or any(c in _NEWLINES for c in mark)):
            raise ValueError(
                f"newline_markup={mark!r} must be visible text on one line, for example '¶'; None breaks the line"
            )
        for name, room, needed in (
            ("font_size", self.text_width - max(self.first_line_indent, 0), self.font_size),
            ("line_height", self.text_height, self.line_height),
        ):
            if room < needed - 1e-9:
                raise ValueError(
                    f"{name}={needed:g} does not fit the {room:g} points that margins, padding and indents leave "
                    f"of a page of {self.page_width:g} x {self.page_height:g} points; "
                    f"make the page larger or {name} smaller"
                )
        width = self.page_width * self.dpi / 72 * self.horizontal_scale
        for name, side in (("page_width", width), ("page_height", self.page_height * self.dpi / 72)):
            if side > _LARGEST_SIDE:
                raise ValueError(
                    f"{name}={getattr(self, name):g} at dpi={self.dpi:g} makes {side:.0f} pixels, more than the "
                    f"{_LARGEST_SIDE} that a page may have a side; lower one of them"
                )

    def _check_number(self, name: str, positive: bool = False, negative: bool = False) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{name}={value!r} is not a finite number")
        if positive and value <= 0:
            raise ValueError(f"{name}={value!r} must be greater than 0")
        if not negative and value < 0:
            raise ValueError(f"{name}={value!r} must not be negative")

    def _check_choice(self, name: str, choices: tuple[str, ...]) -> None:
        if getattr(self, name) not in choices:
            raise ValueError(f"{name}={getattr(self, name)!r} is unknown; choose one of {', '.join(choices)}")

    @property
    def text_width(self) -> float:
        """Points a line may fill, without first_line_indent."""
        return self.page_width - 2 * (self.margin_x + self.frame_padding) - self.left_indent - self.right_indent

    @property
    def text_height(self) -> float:
        """Points of a page that lines may fill."""
        return self.page_height - 2 * (self.margin_y + self.frame_padding)

    @property
    def font_paths(self) -> tuple[str, ...]:
        """Every font file of the chain in the order of asking, the bundled ones included."""
        return tuple(dict.fromkeys([self.font_path or BUNDLED_MONO, *self.fallback_font_paths, BUNDLED_SANS]))

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold; `from_dict` reads them back."""
        values = dataclasses.asdict(self)
        values["fallback_font_paths"] = list(self.fallback_font_paths)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RenderConfig:
        """The config of `to_dict`'s values. An unknown key is a ValueError that names it."""
        known = {field.name for field in dataclasses.fields(cls)}
        for key in values:
            if key not in known:
                raise ValueError(f"unknown RenderConfig key {key!r}; known keys: {', '.join(sorted(known))}")
        return cls(**values)

    @classmethod
    def from_glyph(cls, source: str | os.PathLike[str] | Mapping[str, Any]) -> RenderConfig:
        """The config that draws pages as the published Glyph renderer does (github.com/thu-coai/Glyph, config/*.json).

        source: the path of such a JSON file, or its content. What it leaves out takes that renderer's defaults (A4,
            20 pt
        margins, justified). A relative font-path is looked up from the JSON file's folder. An unknown key is a
        ValueError that names it; "newline-markup" may be "<br/>", plain text, or text in one <font color="#RRGGBB">.
        """
        if isinstance(source, Mapping):
            values, folder = dict(source), None
        else:
            with open(source, encoding="utf-8") as file:
                values = json.load(file)
            if not isinstance(values, dict):
                raise ValueError(f"{os.fspath(source)!r} holds {type(values).__name__}, not a JSON object of settings")
            folder = os.path.dirname(os.path.abspath(source))
        fields: dict[str, Any] = {
            "page_width": 210 / 25.4 * 72,
            "page_height": 297 / 25.4 * 72,
            "margin_x": 20,
            "margin_y": 20,
            "alignment": "JUSTIFY",
            "frame_padding": 6,
            "line_breaking": "reportlab",
            "lines_per_paragraph": 30,
        }
        for key, value in values.items():
            if key == "page-size":
                fields["page_width"], fields["page_height"] = _page_size(value)
            elif key == "newline-markup":
                fields["newline_markup"], fields["newline_color"] = _reportlab_mark(value)
            elif key == "font-path":
                if folder is not None and value is not None:
                    value = os.path.normpath(os.path.join(folder, value))
                fields["font_path"] = value
            elif key in _GLYPH_KEYS:
                fields[_GLYPH_KEYS[key]] = value
            else:
                known = sorted([*_GLYPH_KEYS, "page-size", "newline-markup", "font-path"])
                raise ValueError(f"unknown Glyph setting {key!r}; known settings: {', '.join(known)}")
        if not fields.get("line_height"):
            fields["line_height"] = fields.get("font_size", 9) + 1
        return cls(**fields)


_GLYPH_KEYS = {
    "dpi": "dpi",
    "margin-x": "margin_x",
    "margin-y": "margin_y",
    "font-size": "font_size",
    "line-height": "line_height",
    "font-color": "font_color",
    "alignment": "alignment",
    "horizontal-scale": "horizontal_scale",
    "first-line-indent": "first_line_indent",
    "left-indent": "left_indent",
    "right-indent": "right_indent",
    "space-before": "space_before",
    "space-after": "space_after",
    "border-width": "border_width",
    "border-padding": "border_padding",
    "page-bg-color": "page_bg_color",
    "para-bg-color": "para_bg_color",
    "para-border-color": "border_color",
    "auto-crop-width": "auto_crop_width",
    "auto-crop-last-page": "auto_crop_last_page",
}


def _page_size(value: Any) -> tuple[float, float]:
    parts = value.split(",") if isinstance(value, str) else value
    try:
        width, height = (float(part) for part in parts)
    except (TypeError, ValueError):
        raise ValueError(f"page-size={value!r} is not 'width,height' in points, for example '595,842'") from None
    return width, height


def _reportlab_mark(value: Any) -> tuple[str | None, str | None]:
    """(text, colour) of reportlab paragraph markup that stands for a newline; (None, None) for a line break."""
    if value is None or value == "" or _REPORTLAB_BREAK.fullmatch(str(value)):
        return None, None
    found = _REPORTLAB_MARK.fullmatch(str(value))
    if found is None:
        raise ValueError(
            f"newline-markup={value!r} is not understood; use '<br/>', plain text, "
            'or text in one <font color="#RRGGBB">'
        )
    color, colored, plain = found.groups()
    return (plain if color is None else colored), color


class FontFace:
    """One font file: its characters, and advances in its own units (never hinted)."""

    def __init__(self, path: str) -> None:
        if not os.path.isfile(path):
            raise FileNotFoundError(
                f"font file {path!r} does not exist; give the path of a TrueType or OpenType font, "
                "or font_path=None for the bundled DejaVu Sans Mono"
            )
        self.path = path
        face = hb.Face(hb.Blob.from_file_path(path))
        if face.glyph_count == 0 or not {"glyf", "CFF ", "CFF2"} & set(face.table_tags):
            raise ValueError(
                f"font file {path!r} holds no glyph outlines; give a TrueType or OpenType font with outlines "
                "(bitmap-only emoji fonts cannot be scaled)"
            )
        self.face = face
        self.font = hb.Font(face)
        self.upem: int = face.upem
        self.characters: frozenset[int] = frozenset(face.unicodes)
        extents = self.font.get_font_extents("ltr")
        self.ascender: int = extents.ascender
        self.descender: int = -extents.descender

    def __reduce__(self) -> tuple[Any, ...]:
        return load_face, (self.path,)

    def glyph(self, codepoint: int) -> int:
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

    Tables by code point, filled as characters turn up: keys (int32), advances (int64), flags (uint16).
    """

    def __init__(self, config: RenderConfig) -> None:
        self.config = config
        self.faces = [load_face(path) for path in config.font_paths]
        self.units = math.lcm(*(face.upem for face in self.faces))
        size = 0x110000
        self.keys = np.full(size, NO_GLYPH, dtype=np.int32)
        self.advances = np.zeros(size, dtype=np.int64)
        self.flags = np.zeros(size, dtype=np.uint16)
        self._runs: dict[str, ShapedRun] = {}
        self._extents: dict[int, tuple[float, float]] = {}
        face = self.faces[0]
        ascent = face.ascender / face.upem * config.font_size
        descent = face.descender / face.upem * config.font_size
        # From a line's top to its baseline, the glyphs' height centred in the line.
        self.ascent = (config.line_height - ascent - descent) / 2 + ascent

    def __reduce__(self) -> tuple[Any, ...]:
        return FontChain, (self.config,), np.flatnonzero(self.flags)

    def __setstate__(self, learned: np.ndarray) -> None:
        self.learn(learned)

    def find(self, codepoint: int) -> tuple[int, int] | None:
        """(face index, glyph id) of the first face that has the character."""
        for index, face in enumerate(self.faces):
            if codepoint in face.characters:
                return index, face.glyph(codepoint)
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
        present = np.zeros(len(self.flags), dtype=bool)
        present[codes] = True
        present &= self.flags == 0
        for codepoint in np.flatnonzero(present).tolist():
            key, advance, flags = self._describe(codepoint)
            self.keys[codepoint] = key
            self.advances[codepoint] = advance
            self.flags[codepoint] = flags | _SEEN

    def _describe(self, codepoint: int) -> tuple[int, int, int]:
        character = chr(codepoint)
        config = self.config
        reportlab = config.line_breaking == "reportlab"
        if character == "\n" or (character in _NEWLINES and not reportlab):
            if config.newline_markup is None:
                return NO_GLYPH, 0, _NEWLINE | (_PAGE_BREAK if character == "\x0c" else 0)
            mark = config.newline_markup
            return (*self.nominal(ord(mark)), _MARK) if len(mark) == 1 else (NO_GLYPH, 0, _MARK)
        if character == "\t":
            return NO_GLYPH, 4 * self.space_advance, 0 if reportlab else _SPACE
        if character.isspace() and not "\x1c" <= character <= "\x1f":
            found = self.find(codepoint)
            advance = self.units if found is None and codepoint == 0x3000 else self.space_advance
            if found is not None and not reportlab:
                advance = self.nominal(codepoint)[1]
            return NO_GLYPH, advance, 0 if character in _NO_BREAK_SPACES else _SPACE
        category = unicodedata.category(character)
        extender = category in ("Mn", "Mc", "Me") or _within(codepoint, _EXTENDER_RANGES)
        flags = _EXTENDER | _COMPLEX if extender else 0
        flags |= {"R": _RTL, "AL": _RTL, "L": _LTR}.get(unicodedata.bidirectional(character), 0)
        if _within(codepoint, _INVISIBLE_RANGES) or (category == "Cf" and codepoint not in _SHOWN_FORMATS):
            return NO_GLYPH, 0, flags | _INVISIBLE
        if category in ("Cc", "Cs"):
            return MISSING_GLYPH, self.missing_advance, _UNDRAWABLE
        if _within(codepoint, _CJK_RANGES):
            flags |= _CJK
        if character in _CANNOT_START:
            flags |= _NO_START
        if character in _CANNOT_END:
            flags |= _NO_END
        key, advance = self.nominal(codepoint)
        if key == MISSING_GLYPH:
            return key, advance, flags | _UNDRAWABLE
        if _within(codepoint, _COMPLEX_RANGES) and unicodedata.bidirectional(character) != "AN":
            flags |= _COMPLEX
        if _within(codepoint, (_REGIONAL_INDICATORS,)):
            flags |= _COMPLEX
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
            while end < len(codes) and (flags[end] & _EXTENDER or codes[end - 1] == _ZERO_WIDTH_JOINER):
                end += 1
            needed = {code for code, flag in zip(codes[position:end], flags[position:end], strict=True)}
            needed -= {code for code in needed if self.flags[code] & _INVISIBLE}
            whole = next((n for n, face in enumerate(self.faces) if needed <= face.characters), None)
            for code in codes[position:end]:
                found = self.find(code)
                if whole is not None:
                    faces.append(whole)
                elif found is not None:
                    faces.append(found[0])
                else:
                    faces.append(faces[-1] if self.flags[code] & _INVISIBLE and faces else -1)
            position = end
        clusters: list[_Cluster] = []
        rtl = [bool(flag & _RTL) for flag in flags]
        for index in range(1, len(codes)):
            if flags[index] & _EXTENDER:
                rtl[index] = rtl[index - 1]
        start = 0
        while start < len(codes):
            end = start + 1
            while end < len(codes) and faces[end] == faces[start] and rtl[end] == rtl[start]:
                end += 1
            if faces[start] < 0:
                for index in range(start, end):
                    hidden = flags[index] & _INVISIBLE
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


def code_points(text: str) -> np.ndarray:
    """The text's code points, uint32 [len(text)]; lone surrogates pass."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """[starts[0], starts[0] + 1, ..., starts[0] + lengths[0] - 1, starts[1], ...] as int64."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total, dtype=np.int64) + np.repeat(starts - (ends - lengths), lengths)


Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Line:
    """Characters [start, end) of the text on one line; box is (left, top, right, bottom) in pixels at scale 1."""

    page: int
    start: int
    end: int
    box: Box


@dataclass(frozen=True)
class Shaped:
    """All `ShapedRun`s of a document, by position in the display text.

    at, advances: every shaped character, ascending; glyph_at (ascending), keys, right, up: the glyphs.
    """

    at: np.ndarray
    advances: np.ndarray
    glyph_at: np.ndarray
    keys: np.ndarray
    right: np.ndarray
    up: np.ndarray


@dataclass
class Cells:
    """Where the characters of some lines lie. One entry a character, in the order of the text (the display text, that
    is, the text with each newline replaced by its mark). left and width are points from the page's left edge.
    """

    index: np.ndarray
    line: np.ndarray
    left: np.ndarray
    width: np.ndarray
    keys: np.ndarray


class _Lines(Sequence[Line]):
    """Lines made as they are asked for, since a log of a million lines should not cost a million objects."""

    def __init__(self, document: TypesetDocument) -> None:
        self._document = document

    def __len__(self) -> int:
        return len(self._document.line_starts)

    @overload
    def __getitem__(self, index: int) -> Line: ...
    @overload
    def __getitem__(self, index: slice) -> list[Line]: ...
    def __getitem__(self, index: int | slice) -> Line | list[Line]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        document = self._document
        start, end = document.line_span(number)
        return Line(int(document.line_pages[number]), start, end, document.line_box(number))


class TypesetDocument:
    """A text on pages: every character lies on exactly one line, or is white space at a line break.

    Attributes:
        text, config: what was typeset, and how.
        lines: a sequence of `Line`, top to bottom.
        num_pages: number of pages.
        undrawable: [(position, character), ...] that no font has; a hollow box stands for each on its line.
    """

    def __init__(
        self,
        text: str,
        fonts: FontChain,
        display: str,
        marks: tuple[np.ndarray, np.ndarray, np.ndarray] | None,
        shaped: Shaped,
        attached: np.ndarray,
        undrawable: np.ndarray,
        lines: dict[str, np.ndarray],
    ) -> None:
        self.text = text
        self.config = fonts.config
        self.fonts = fonts
        self.display = display
        self._marks = marks
        self.shaped = shaped
        self._attached = attached
        self.undrawable: list[tuple[int, str]] = [(int(at), text[at]) for at in undrawable.tolist()]
        self.line_starts = lines["starts"]
        self.line_ends = lines["ends"]
        self.line_pages = lines["pages"]
        self.line_tops = lines["tops"]
        self.line_lefts = lines["lefts"]
        self.line_widths = lines["widths"]
        self.line_gaps = lines["gaps"]
        self.line_paragraphs = lines["paragraphs"]
        self.line_directions = lines["directions"]
        self.num_pages = int(self.line_pages[-1]) + 1
        self._page_firsts = np.searchsorted(self.line_pages, np.arange(self.num_pages + 1))
        self.pixels_per_point = self.config.dpi / 72

    @property
    def lines(self) -> Sequence[Line]:
        return _Lines(self)

    # Positions in the text and in the display text differ only where a mark is longer or shorter than its newline.

    def _to_display(self, position: int) -> int:
        if self._marks is None:
            return position
        newline_at, newline_length, mark_at = self._marks
        mark = int(np.searchsorted(newline_at, position, "right")) - 1
        if mark < 0:
            return position
        past = position - int(newline_at[mark]) - int(newline_length[mark])
        return int(mark_at[mark]) + (len(self.config.newline_markup or "") + past if past >= 0 else 0)

    def _to_text(self, position: int) -> int:
        if self._marks is None:
            return position
        newline_at, newline_length, mark_at = self._marks
        mark = int(np.searchsorted(mark_at, position, "right")) - 1
        if mark < 0:
            return position
        offset = position - int(mark_at[mark])
        text, after = self.config.newline_markup or "", int(newline_at[mark]) + int(newline_length[mark])
        if offset >= len(text):
            return after + offset - len(text)
        # The visible part of a mark is one with its newline; the white space around it is nobody's.
        return int(newline_at[mark]) if offset <= len(text) - len(text.lstrip()) else after

    def is_mark(self, positions: np.ndarray) -> np.ndarray:
        """Which of these characters of the display text stand for a newline: bool."""
        if self._marks is None:
            codes = np.array([ord(self.display[position]) for position in positions.tolist()], dtype=np.uint32)
            return np.asarray((self.fonts.flags[codes] & _MARK) != 0)
        mark_at = self._marks[2]
        if not len(mark_at):
            return np.zeros(len(positions), dtype=bool)
        mark = np.searchsorted(mark_at, positions, "right") - 1
        inside = positions - mark_at[np.maximum(mark, 0)] < len(self.config.newline_markup or "")
        return np.asarray((mark >= 0) & inside)

    def line_span(self, number: int) -> tuple[int, int]:
        """Characters [start, end) of line `number` of the document."""
        start, end = int(self.line_starts[number]), int(self.line_ends[number])
        return self._to_text(start), self._to_text(end)

    def line_box(self, number: int, scale: float = 1.0) -> Box:
        """(left, top, right, bottom) of line `number` in pixels."""
        left = float(self.line_lefts[number])
        return self._pixels(number, left, left + float(self.line_widths[number]), scale)

    def _pixels(self, number: int, left: float, right: float, scale: float) -> Box:
        down = self.pixels_per_point * scale
        across = down * self.config.horizontal_scale
        top = float(self.line_tops[number])
        return left * across, top * down, right * across, (top + self.config.line_height) * down

    def page_lines(self, page: int) -> tuple[int, int]:
        """Numbers [first, last) of a page's lines. An unknown page is an IndexError."""
        if not 0 <= page < self.num_pages:
            raise IndexError(f"page {page} does not exist; the document has pages 0 to {self.num_pages - 1}")
        return int(self._page_firsts[page]), int(self._page_firsts[page + 1])

    def page_size(self, page: int, scale: float = 1.0) -> tuple[int, int]:
        """(height, width) of a page in pixels, without drawing it."""
        check_scale(scale)
        config = self.config
        ppp = self.pixels_per_point
        height = math.ceil(config.page_height * ppp - 1e-6)
        width = math.ceil(config.page_width * ppp - 1e-6)
        if config.horizontal_scale != 1:
            width = int(width * config.horizontal_scale)
        first, last = self.page_lines(page)
        if config.auto_crop_last_page and page == self.num_pages - 1:
            height = min(height, self._cropped_height(first, last))
        if config.auto_crop_width:
            ink = float(self._ink_rights[first:last].max()) * ppp * config.horizontal_scale
            if ink > 0:
                width = min(width, int(math.ceil(ink - 1e-6) + config.margin_x))
        multiple = config.page_multiple
        padded = (-(-side // multiple) * multiple for side in (height, width))
        high, wide = (max(1, round(side * scale)) for side in padded)
        return high, wide

    def _cropped_height(self, first: int, last: int) -> int:
        config, ppp = self.config, self.pixels_per_point
        if config.line_breaking == "plain":
            bottom = float(self.line_tops[last - 1]) + config.line_height + config.margin_y + config.frame_padding
            return math.ceil(bottom * ppp - 1e-6)
        # Glyph's renderer cuts margin_y pixels below the last inked row.
        for number in range(last - 1, first - 1, -1):
            keys = self.cells(number, number + 1).keys
            keys = keys[keys != NO_GLYPH]
            if len(keys):
                depth = max(self.fonts.extents(key)[1] for key in np.unique(keys).tolist())
                baseline = math.floor((float(self.line_tops[number]) + self.fonts.ascent) * ppp + 0.5)
                return int(baseline + math.ceil(max(depth, 0.0) * config.font_size * ppp) - 1 + config.margin_y)
        return math.ceil(config.page_height * ppp - 1e-6)

    @functools.cached_property
    def _ink_rights(self) -> np.ndarray:
        """Rightmost ink of each line in points; 0 for a line without ink. float64 [num_lines]."""
        rights = np.where(self.line_ends > self.line_starts, self.line_lefts + self.line_widths, 0.0)
        # The last glyph may stop short of its advance, or reach over it.
        codes = np.array([ord(self.display[end - 1]) for end in self.line_ends.tolist() if end], dtype=np.uint32)
        has = np.flatnonzero((self.line_ends > self.line_starts) & (self.line_directions == 0))
        offset = int((self.line_ends == 0).sum())
        codes = codes[has - offset]
        keys = self.fonts.keys[codes]
        simple = (keys != NO_GLYPH) & ((self.fonts.flags[codes] & (_COMPLEX | _MARK)) == 0)
        has, codes, keys = has[simple], codes[simple], keys[simple]
        unique, inverse = np.unique(keys, return_inverse=True)
        reach = np.array([self.fonts.extents(key)[0] for key in unique.tolist()])[inverse] if len(unique) else 0.0
        short = self.fonts.advances[codes] / self.fonts.units - reach
        rights[has] -= short * self.config.font_size
        return rights

    def cells(self, first: int, last: int) -> Cells:
        """Where every character of lines [first, last) lies."""
        fonts = self.fonts
        starts, ends = self.line_starts[first:last], self.line_ends[first:last]
        base, stop = int(starts[0]), int(ends[-1])
        codes = code_points(self.display[base : stop + 1])[: stop - base]
        widths = fonts.advances[codes]
        keys = fonts.keys[codes]
        low, high = np.searchsorted(self.shaped.at, [base, stop])
        here = self.shaped.at[low:high] - base
        widths[here] = self.shaped.advances[low:high]
        keys[here] = NO_GLYPH
        halves = _first_halves(codes) if self.config.line_breaking == "plain" else _NOTHING
        widths[halves] = 0
        keys[halves] = NO_GLYPH
        pen = np.zeros(len(codes) + 1, dtype=np.int64)
        np.cumsum(widths, out=pen[1:])
        lengths = ends - starts
        line = np.repeat(np.arange(last - first), lengths)
        index = _ranges(starts - base, lengths)
        unit = self.config.font_size / fonts.units
        left = self.line_lefts[first:last][line] + (pen[index] - pen[starts[line] - base]) * unit
        width = widths[index] * unit
        gaps = self.line_gaps[first:last]
        if gaps.any():
            space = self._breaking_spaces(base, stop)
            before = np.concatenate([[0], np.cumsum(space)])
            left += gaps[line] * (before[index] - before[starts[line] - base])
            width += gaps[line] * space[index]
        cells = Cells(index + base, line + first, left, width, keys[index])
        for number in np.flatnonzero(self.line_directions[first:last]).tolist():
            where = slice(*np.searchsorted(line, [number, number + 1]).tolist())
            self._reorder(cells, where, codes[index[where]], first + number)
        return cells

    def _breaking_spaces(self, base: int, stop: int) -> np.ndarray:
        """Which characters [base, stop) of the display text are spaces that lines may break at: bool."""
        start = max(base - 1, 0)
        codes = code_points(self.display[start : stop + 1])
        space = (self.fonts.flags[codes] & _SPACE) != 0
        if self.config.line_breaking == "reportlab":
            space &= ~_space_runs(codes)
        space = space[base - start : base - start + stop - base]
        if self._marks is not None:
            mark = self.config.newline_markup or ""
            low, high = np.searchsorted(self._marks[2], [base - len(mark), stop])
            for offset, character in enumerate(mark):
                at = self._marks[2][low:high] + offset - base
                at = at[(at >= 0) & (at < stop - base)]
                space[at] = (character.isspace() and not mark[:offset].strip()) or not mark[offset:].strip()
        return space

    def _reorder(self, cells: Cells, where: slice, codes: np.ndarray, number: int) -> None:
        """Put the characters of a line with right-to-left script where the reader expects them (UAX #9)."""
        positions = cells.index[where]
        if not len(positions):
            return
        levels = bidi_levels(codes.tolist(), 1 if self.line_directions[number] == 2 else 0)
        low, high = np.searchsorted(self._attached, [positions[0], positions[-1] + 1])
        joined = np.zeros(len(positions), dtype=bool)
        joined[self._attached[low:high] - positions[0]] = True
        joined[0] = False
        atoms = np.flatnonzero(~joined)
        sizes = np.diff(np.append(atoms, len(positions)))
        order = _visual_order([levels[atom] for atom in atoms.tolist()])
        width = cells.width[where]
        atom_widths = np.add.reduceat(width, atoms)
        visual_left = np.empty(len(atoms))
        ordered = atom_widths[order]
        visual_left[order] = float(self.line_lefts[number]) + np.cumsum(ordered) - ordered
        inside = np.cumsum(width) - width
        inside -= np.repeat(inside[atoms], sizes)
        cells.left[where] = np.repeat(visual_left, sizes) + inside
        keys = cells.keys[where]
        for place, (level, code) in enumerate(zip(levels, codes.tolist(), strict=True)):
            mirror = _MIRRORS.get(chr(code)) if level % 2 and keys[place] >= 0 else None
            if mirror is not None:
                self.fonts.learn(np.array([ord(mirror)], dtype=np.uint32))
                keys[place] = self.fonts.keys[ord(mirror)]

    def page_of(self, char_index: int) -> int:
        """The page of a character; white space dropped at a line break counts to the line before it."""
        if not 0 <= char_index < len(self.text):
            raise IndexError(f"character {char_index} does not exist; the text has {len(self.text)} characters")
        line = int(np.searchsorted(self.line_starts, self._to_display(char_index), "right")) - 1
        return int(self.line_pages[max(line, 0)])

    def page_span(self, page: int) -> tuple[int, int]:
        """Characters [start, end) of a page. The spans of all pages tile the text: white space at a break goes to the
        page before it.
        """
        first, last = self.page_lines(page)
        start = 0 if page == 0 else self._to_text(int(self.line_starts[first]))
        end = len(self.text) if page == self.num_pages - 1 else self._to_text(int(self.line_starts[last]))
        return start, end

    def boxes(self, start: int, end: int, scale: float = 1.0) -> list[tuple[int, Box]]:
        """[(page, (left, top, right, bottom)), ...] of characters [start, end), top to bottom, in pixels.

        One box a line, more where right-to-left script puts neighbours apart; none for white space at a line break.
        A character inside a cluster (a letter with its accents, a ligature) has the cluster's box.
        """
        if not 0 <= start <= end <= len(self.text):
            raise ValueError(f"[{start}, {end}) is not within the text's {len(self.text)} characters")
        check_scale(scale)
        if start == end:
            return []
        start, end = self._to_display(start), self._to_display(end)
        while start > 0 and self._is_attached(start):
            start -= 1
        while end < len(self.display) and self._is_attached(end):
            end += 1
        first = max(int(np.searchsorted(self.line_starts, start, "right")) - 1, 0)
        last = int(np.searchsorted(self.line_starts, end, "left"))
        found: list[tuple[int, Box]] = []
        for number in range(first, last):
            line_start, line_end = int(self.line_starts[number]), int(self.line_ends[number])
            if line_start == line_end or line_end <= start:
                continue
            page = int(self.line_pages[number])
            if start <= line_start and line_end <= end:
                if self.line_widths[number] > 0:
                    found.append((page, self.line_box(number, scale)))
                continue
            cells = self.cells(number, number + 1)
            chosen = (cells.index >= start) & (cells.index < end) & (cells.width > 0)
            lefts, rights = cells.left[chosen], cells.left[chosen] + cells.width[chosen]
            order = np.argsort(lefts, kind="stable")
            pieces: list[list[float]] = []
            for left, right in zip(lefts[order].tolist(), rights[order].tolist(), strict=True):
                if pieces and left <= pieces[-1][1] + 1e-6:
                    pieces[-1][1] = max(pieces[-1][1], right)
                else:
                    pieces.append([left, right])
            found += [(page, self._pixels(number, left, right, scale)) for left, right in pieces]
        return found

    def _is_attached(self, position: int) -> bool:
        where = int(np.searchsorted(self._attached, position))
        return where < len(self._attached) and int(self._attached[where]) == position

    def spans_in_box(self, page: int, box: Box, scale: float = 1.0) -> list[tuple[int, int]]:
        """Characters that a region (left, top, right, bottom) of a page shows, whole or in part: [(start, end),
        ...].
        """
        check_scale(scale)
        first, last = self.page_lines(page)
        down = self.pixels_per_point * scale
        across = down * self.config.horizontal_scale
        left, top, right, bottom = box[0] / across, box[1] / down, box[2] / across, box[3] / down
        fuzz = 1e-6
        tops = self.line_tops[first:last]
        # Lines go down the page, so those that the region meets are neighbours.
        low = first + int(np.searchsorted(tops + self.config.line_height, top + fuzz, "right"))
        high = first + int(np.searchsorted(tops, bottom - fuzz, "left"))
        if low >= high:
            return []
        cells = self.cells(low, high)
        shown = (cells.left < right - fuzz) & (cells.left + cells.width > left + fuzz) & (cells.width > 0)
        positions = cells.index[shown]
        if not len(positions):
            return []
        jump = np.flatnonzero((np.diff(positions) > 1) | (np.diff(cells.line[shown]) > 0)) + 1
        spans = []
        for piece in np.split(positions, jump):
            start, end = int(piece[0]), int(piece[-1]) + 1
            while start > 0 and self._is_attached(start):
                start -= 1
            while end < len(self.display) and self._is_attached(end):
                end += 1
            spans.append((self._to_text(start), self._to_text(end)))
        return [span for span in spans if span[0] < span[1]]


def check_scale(scale: float) -> None:
    """ValueError unless scale is a finite number greater than 0."""
    if not isinstance(scale, (int, float)) or not math.isfinite(scale) or scale <= 0:
        raise ValueError(f"scale={scale!r} must be a finite number greater than 0; 1.0 draws at the config's dpi")


_NOTHING = np.zeros(0, dtype=np.int64)


def _first_halves(codes: np.ndarray) -> np.ndarray:
    """Positions of the CR of every CRLF."""
    return np.flatnonzero((codes[:-1] == 0x0D) & (codes[1:] == 0x0A))


def _space_runs(codes: np.ndarray) -> np.ndarray:
    """Spaces in runs of two or more, which Glyph's renderer writes as no-break spaces: bool."""
    blank = codes == 0x20
    run = np.zeros(len(codes), dtype=bool)
    run[1:] = blank[1:] & blank[:-1]
    run[:-1] |= run[1:]
    return run


def bidi_levels(codes: Sequence[int], base: int) -> list[int]:
    """Embedding level of each character of a line (Unicode Standard Annex #9, rules W1-W7, N0-N2, I1-I2 and L1;
    explicit embeddings and isolates are not interpreted). base: 0 left to right, 1 right to left.
    """
    kinds = [unicodedata.bidirectional(chr(code)) or "L" for code in codes]
    kinds = ["BN" if kind in _BIDI_CONTROLS else kind for kind in kinds]
    original = list(kinds)
    edge = "R" if base else "L"
    previous, strong = edge, edge
    for index, kind in enumerate(kinds):
        if kind == "NSM":
            kind = previous
        elif kind == "EN" and strong == "AL":
            kind = "AN"
        if kind in ("L", "R", "AL"):
            strong = kind
        kinds[index] = previous = kind
        if kind == "AL":
            kinds[index] = "R"
    for index in range(1, len(kinds) - 1):
        before, after = kinds[index - 1], kinds[index + 1]
        separates = kinds[index] == "CS" or (kinds[index] == "ES" and before == "EN")
        if separates and before == after and before in ("EN", "AN"):
            kinds[index] = before
    index = 0
    while index < len(kinds):
        end = index
        while end < len(kinds) and kinds[end] in ("ET", "BN"):
            end += 1
        if end > index:
            touches = (index > 0 and kinds[index - 1] == "EN") or (end < len(kinds) and kinds[end] == "EN")
            if touches and "ET" in kinds[index:end]:
                kinds[index:end] = ["EN"] * (end - index)
        index = max(end, index + 1)
    strong = edge
    for index, kind in enumerate(kinds):
        if kind in ("L", "R"):
            strong = kind
        elif kind == "EN" and strong == "L":
            kinds[index] = "L"
    _pair_brackets(codes, kinds, edge)
    index = 0
    while index < len(kinds):
        end = index
        while end < len(kinds) and kinds[end] not in ("L", "R", "EN", "AN"):
            end += 1
        if end > index:
            before = edge if index == 0 else "L" if kinds[index - 1] == "L" else "R"
            after = edge if end == len(kinds) else "L" if kinds[end] == "L" else "R"
            kinds[index:end] = [before if before == after else edge] * (end - index)
        index = max(end, index + 1)
    if base:
        levels = [1 if kind == "R" else 2 for kind in kinds]
    else:
        levels = [{"L": 0, "R": 1}.get(kind, 2) for kind in kinds]
    for index in range(len(levels) - 1, -1, -1):
        if original[index] not in ("WS", "BN", "B", "S"):
            break
        levels[index] = base
    return levels


def _pair_brackets(codes: Sequence[int], kinds: list[str], edge: str) -> None:
    """Rule N0: the two brackets of a pair take the same direction."""
    waiting: list[tuple[str, int]] = []
    pairs = []
    for index, code in enumerate(codes):
        character = chr(code)
        if kinds[index] != "ON" or character not in _MIRRORS or unicodedata.category(character) not in ("Ps", "Pe"):
            continue
        if unicodedata.category(character) == "Ps":
            waiting.append((_MIRRORS[character], index))
            continue
        for depth in range(len(waiting) - 1, -1, -1):
            if waiting[depth][0] == character:
                pairs.append((waiting[depth][1], index))
                del waiting[depth:]
                break
    other = "L" if edge == "R" else "R"
    for start, end in sorted(pairs):
        inside = {"L" if kind == "L" else "R" for kind in kinds[start + 1 : end] if kind in ("L", "R", "EN", "AN")}
        if edge in inside:
            kinds[start] = kinds[end] = edge
        elif inside:
            before = next((kind for kind in reversed(kinds[:start]) if kind in ("L", "R", "EN", "AN")), edge)
            kinds[start] = kinds[end] = other if ("L" if before == "L" else "R") == other else edge


_BIDI_CONTROLS = frozenset(("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"))


def _visual_order(levels: Sequence[int]) -> np.ndarray:
    """Logical positions from left to right (rule L2)."""
    order = list(range(len(levels)))
    for level in range(max(levels), 0, -1):
        index = 0
        while index < len(order):
            end = index
            while end < len(order) and levels[order[end]] >= level:
                end += 1
            order[index:end] = order[index:end][::-1]
            index = max(end, index + 1)
    return np.array(order, dtype=np.int64)


class Typesetter:
    """Lays text out on pages by one config: `Typesetter(config).typeset(text)`."""

    def __init__(self, config: RenderConfig | None = None) -> None:
        self.config = config or RenderConfig()
        self.fonts = FontChain(self.config)

    def typeset(self, text: str) -> TypesetDocument:
        """A text without one visible character is a ValueError ("empty document")."""
        if not isinstance(text, str):
            raise TypeError(f"the document is {type(text).__name__}, not str; decode bytes first")
        fonts, config = self.fonts, self.config
        plain = config.line_breaking == "plain"
        display, marks = self._expand(text)
        codes = code_points(display)
        fonts.learn(codes)
        flags = fonts.flags[codes]
        self._check_visible(text, codes if marks is None else code_points(text))
        widths = fonts.advances[codes]
        attached = np.zeros(len(codes) + 1, dtype=bool)
        if plain:
            # CRLF is one newline: its first half takes no room, and no line ends between the halves.
            halves = _first_halves(codes)
            widths[halves] = 0
            attached[halves + 1] = True
        else:
            flags[_space_runs(codes)] &= ~np.uint16(_SPACE)
        if marks is not None:
            self._bind_marks(marks[2], flags, attached)
        elif config.newline_markup is not None and config.lines_per_paragraph is not None:
            paragraph_end = np.flatnonzero(((flags & _MARK) != 0) & ~attached[1:])
            paragraph_end = paragraph_end[config.lines_per_paragraph - 1 :: config.lines_per_paragraph]
            flags[paragraph_end] = _NEWLINE
            flags[paragraph_end[attached[paragraph_end]] - 1] = _NEWLINE
        shaped = self._shape(display, codes, flags, widths, attached)
        undrawable = self._source(np.flatnonzero((flags & _UNDRAWABLE) != 0), marks)
        pen = np.zeros(len(codes) + 1, dtype=np.int64)
        np.cumsum(widths, out=pen[1:])

        newline = (flags & _NEWLINE) != 0
        paragraph_ends = np.append(np.flatnonzero(newline & ~attached[:-1]), len(codes))
        next_starts = np.flatnonzero(newline & ~attached[1:]) + 1
        paragraph_starts = np.append(0, next_starts)
        new_page = np.append(False, (flags[next_starts - 1] & _PAGE_BREAK) != 0)
        if len(next_starts) and next_starts[-1] == len(codes):
            # What follows the last newline of a text is not another, empty line.
            paragraph_starts, paragraph_ends, new_page = paragraph_starts[:-1], paragraph_ends[:-1], new_page[:-1]
        breaker = _LineBreaker(config, fonts.units, codes, flags, pen, attached)
        starts, ends, paragraphs = breaker.break_paragraphs(paragraph_starts, paragraph_ends)

        first = np.append(True, paragraphs[1:] != paragraphs[:-1])
        last = np.append(first[1:], True)
        forced = new_page[paragraphs] & first
        if config.newline_markup is None and config.lines_per_paragraph is not None:
            paragraphs = paragraphs // config.lines_per_paragraph
            first = np.append(True, paragraphs[1:] != paragraphs[:-1])
        directions = self._directions(flags, starts, ends, paragraphs)
        lefts, line_widths, gaps = self._place(starts, ends, directions, first, last, pen, flags)
        pages, tops = self._paginate(paragraphs, forced)
        lines = {
            "starts": starts,
            "ends": ends,
            "pages": pages,
            "tops": tops,
            "lefts": lefts,
            "widths": line_widths,
            "gaps": gaps,
            "paragraphs": paragraphs,
            "directions": directions,
        }
        return TypesetDocument(text, fonts, display, marks, shaped, np.flatnonzero(attached[:-1]), undrawable, lines)

    def _check_visible(self, text: str, codes: np.ndarray) -> None:
        fonts = self.fonts
        fonts.learn(codes)
        if not np.any((fonts.keys[codes] != NO_GLYPH) & ((fonts.flags[codes] & _MARK) == 0)):
            raise ValueError(
                f"empty document: none of the text's {len(text)} characters is visible; "
                "give a text with something to read"
            )

    def _expand(self, text: str) -> tuple[str, tuple[np.ndarray, np.ndarray, np.ndarray] | None]:
        """The display text, where a mark of several characters replaces each newline that is drawn, and where these
        are: (newline at, its length, mark at), all int64; None where both texts are the same.
        """
        mark, group = self.config.newline_markup, self.config.lines_per_paragraph
        if mark is None or len(mark) == 1:
            return text, None
        pattern = "\n" if self.config.line_breaking == "reportlab" else "\r\n|[\n\r\x0b\x0c\x85\u2028\u2029]"
        newline_at, lengths, mark_at, pieces = [], [], [], []
        done = size = 0
        for number, found in enumerate(re.finditer(pattern, text), start=1):
            if group is not None and number % group == 0:
                continue
            start, end = found.span()
            pieces += [text[done:start], mark]
            size += start - done
            newline_at.append(start)
            lengths.append(end - start)
            mark_at.append(size)
            size += len(mark)
            done = end
        pieces.append(text[done:])
        marks = tuple(np.array(values, dtype=np.int64) for values in (newline_at, lengths, mark_at))
        return "".join(pieces), (marks[0], marks[1], marks[2])

    def _bind_marks(self, mark_at: np.ndarray, flags: np.ndarray, attached: np.ndarray) -> None:
        """Lines may break at a mark's outer spaces, never inside it; newlines that are not drawn end their lines."""
        flags[(flags & _MARK) != 0] = _NEWLINE
        mark = self.config.newline_markup or ""
        begin, end = len(mark) - len(mark.lstrip()), len(mark.rstrip())
        for offset in range(len(mark)):
            inside = begin <= offset < end
            flags[mark_at + offset] = (_MARK if offset == end - 1 else 0) if inside else _SPACE
            attached[mark_at + offset] = inside and offset > begin

    def _source(self, positions: np.ndarray, marks: tuple[np.ndarray, np.ndarray, np.ndarray] | None) -> np.ndarray:
        """Positions in the display text, outside marks, as positions in the text."""
        if marks is None:
            return positions
        before = np.searchsorted(marks[2], positions, "right")
        shrunk = np.append(0, np.cumsum(len(self.config.newline_markup or "") - marks[1]))
        return np.asarray(positions - shrunk[before])

    def _shape(
        self, display: str, codes: np.ndarray, flags: np.ndarray, widths: np.ndarray, attached: np.ndarray
    ) -> Shaped:
        """Shape what needs it; writes the shaped characters' widths and attachment in place."""
        chosen = (flags & _COMPLEX) != 0
        if not chosen.any():
            return Shaped(_NOTHING, _NOTHING, _NOTHING, _NOTHING.astype(np.int32), _NOTHING, _NOTHING)
        base = (flags & (_SPACE | _NEWLINE | _MARK)) == 0
        chosen[:-1] |= (flags[1:] & _EXTENDER) != 0
        chosen[1:] |= (codes[:-1] == _ZERO_WIDTH_JOINER) & chosen[:-1]
        chosen &= base
        edges = np.flatnonzero(np.diff(chosen.astype(np.int8), prepend=0, append=0))
        starts: list[int] = []
        runs: list[ShapedRun] = []
        for start, end in edges.reshape(-1, 2).tolist():
            while start < end:
                cut = min(start + _LONGEST_RUN, end)
                while cut < end and flags[cut] & _EXTENDER:
                    cut += 1
                starts.append(start)
                runs.append(self.fonts.shape(display[start:cut]))
                start = cut
        firsts = np.array(starts, dtype=np.int64)
        at = _ranges(firsts, np.array([len(run.advances) for run in runs], dtype=np.int64))
        advances = np.concatenate([run.advances for run in runs])
        widths[at] = advances
        attached[at] |= np.concatenate([run.attached for run in runs])
        glyph_at = np.concatenate([run.at for run in runs]) + np.repeat(firsts, [len(run.at) for run in runs])
        keys, right, up = (np.concatenate([getattr(run, name) for run in runs]) for name in ("keys", "right", "up"))
        return Shaped(at, advances, glyph_at, keys, right, up)

    def _directions(
        self, flags: np.ndarray, starts: np.ndarray, ends: np.ndarray, paragraphs: np.ndarray
    ) -> np.ndarray:
        """Of each line: 0 left to right only, 1 with right-to-left parts, 2 in a right-to-left paragraph. int8.

        The first strong character of a paragraph decides (rules P2 and P3); where newlines are only drawn, of a line.
        """
        directions = np.zeros(len(starts), dtype=np.int8)
        rtl = np.flatnonzero((flags & _RTL) != 0)
        if not len(rtl):
            return directions
        strong = np.flatnonzero((flags & (_RTL | _LTR)) != 0)
        if self.config.newline_markup is None:
            begins = starts[np.searchsorted(paragraphs, paragraphs)]
            stops = ends[np.searchsorted(paragraphs, paragraphs, "right") - 1]
        else:
            begins, stops = starts, ends
        first = strong[np.minimum(np.searchsorted(strong, begins), len(strong) - 1)]
        directions[np.searchsorted(rtl, ends) > np.searchsorted(rtl, starts)] = 1
        directions[(first >= begins) & (first < stops) & ((flags[first] & _RTL) != 0) & (ends > starts)] = 2
        return directions

    def _place(
        self,
        starts: np.ndarray,
        ends: np.ndarray,
        directions: np.ndarray,
        first: np.ndarray,
        last: np.ndarray,
        pen: np.ndarray,
        flags: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(left end, width, what each space is wider than its advance) of lines in points, float64 [num_lines]."""
        config = self.config
        natural = (pen[ends] - pen[starts]) * (config.font_size / self.fonts.units)
        indent = first * float(config.first_line_indent)
        room = config.text_width - indent
        gaps = np.zeros(len(starts))
        stretched = np.zeros(len(starts), dtype=bool)
        if config.line_breaking == "reportlab":
            stretched |= natural > room + 1e-6
        if config.alignment == "JUSTIFY":
            stretched |= ~last
        if stretched.any():
            counted = np.append(0, np.cumsum((flags & _SPACE) != 0))
            spaces = counted[ends] - counted[starts]
            stretched &= spaces > 0
            gaps[stretched] = (room - natural)[stretched] / spaces[stretched]
            natural[stretched] = room[stretched]
        free = room - natural
        share = {"CENTER": 0.5, "RIGHT": 1.0}.get(config.alignment, 0.0)
        shares = np.where((directions == 2) & (share == 0), 1.0, share)
        lefts = config.margin_x + config.frame_padding + config.left_indent + indent + free * shares
        return lefts, natural, gaps

    def _paginate(self, paragraphs: np.ndarray, forced: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(page, top in points) of each line. forced: lines that begin a page."""
        config = self.config
        count = len(paragraphs)
        origin = config.margin_y + config.frame_padding
        if config.line_breaking == "reportlab":
            # Its first baseline is one font size below the frame's top.
            origin += config.font_size - self.fonts.ascent
        gap = max(config.space_before, config.space_after)
        if gap == 0:
            per_page = math.floor(config.text_height / config.line_height + 1e-9)
            segments = np.flatnonzero(forced)
            if not len(segments) or segments[0] != 0:
                segments = np.append(0, segments)
            lengths = np.diff(np.append(segments, count))
            pages_before = np.append(0, np.cumsum(-(-lengths // per_page))[:-1])
            row = np.arange(count) - np.repeat(segments, lengths)
            pages = np.repeat(pages_before, lengths) + row // per_page
            return pages, origin + (row % per_page) * config.line_height
        bottom = config.text_height + 1e-9
        pages = np.zeros(count, dtype=np.int64)
        tops = np.zeros(count)
        page, top, previous = 0, 0.0, -1
        for number, (paragraph, new_page) in enumerate(zip(paragraphs.tolist(), forced.tolist(), strict=True)):
            if paragraph != previous and top > 0:
                top += gap
            if (new_page and number) or top + config.line_height > bottom:
                page, top = page + 1, 0.0
            pages[number], tops[number] = page, origin + top
            top += config.line_height
            previous = paragraph
        return pages, tops


class _LineBreaker:
    """Greedy line breaking over one text's prefix sums of advances (`pen`, int64 [characters + 1]).

    A unit is a stretch that a line takes whole: a word, a newline mark, a CJK character with its punctuation.
    """

    def __init__(
        self,
        config: RenderConfig,
        units: int,
        codes: np.ndarray,
        flags: np.ndarray,
        pen: np.ndarray,
        attached: np.ndarray,
    ) -> None:
        self.codes, self.flags, self.pen, self.attached = codes, flags, pen, attached
        self.plain = config.line_breaking == "plain"
        self.group = config.lines_per_paragraph or 1
        self.room = math.floor(config.text_width / config.font_size * units + 1e-6)
        self.first_room = math.floor((config.text_width - config.first_line_indent) / config.font_size * units + 1e-6)
        solid = (flags & (_SPACE | _NEWLINE)) == 0
        before = np.ones(len(codes) + 1, dtype=bool)  # may a line start here?
        before[1:-1] = ~(solid[:-1] & solid[1:])
        if self.plain:
            before[1:-1] |= ((flags[:-1] & _MARK) != 0) | (codes[:-1] == _ZERO_WIDTH_SPACE)
            wide = ((flags[:-1] | flags[1:]) & _CJK) != 0
            before[1:-1] |= wide & ((flags[1:] & _NO_START) == 0) & ((flags[:-1] & _NO_END) == 0)
        before &= ~attached
        self.starts = np.flatnonzero(solid & before[:-1])
        self.ends = np.flatnonzero(solid & before[1:]) + 1
        if self.plain:
            self.fitted, self.parts = pen, 1
        else:
            space = (flags & _SPACE) != 0
            self.parts = _SHRINK_PARTS
            self.fitted = pen * self.parts
            self.fitted[1:] -= np.cumsum(np.diff(pen) * space)
        self.fitted_ends = self.fitted[self.ends]
        low, high = _REPORTLAB_CJK
        self.by_characters = not self.plain and bool(np.any((codes >= low) & (codes <= high)))

    def break_paragraphs(
        self, paragraph_starts: np.ndarray, paragraph_ends: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(start, end, paragraph) of every line, int64. A paragraph without units is one empty line."""
        number = np.arange(len(paragraph_starts))
        firsts = np.searchsorted(self.starts, paragraph_starts)
        lasts = np.searchsorted(self.starts, paragraph_ends)
        filled = lasts > firsts
        if self.by_characters:
            filled = paragraph_ends > paragraph_starts
            begins, stops = paragraph_starts, paragraph_ends
        else:
            begins = paragraph_starts.copy()
            if not self.plain:
                begins[filled] = self.starts[firsts[filled]]
            stops = paragraph_starts.copy()
            stops[filled] = self.ends[lasts[filled] - 1]
        rooms = np.where(number % self.group == 0, self.first_room, self.room)
        measure = self.pen if self.by_characters else self.fitted
        parts = 1 if self.by_characters else self.parts
        simple = ~filled | (measure[stops] - measure[begins] <= rooms * parts)
        starts, ends, paragraphs = [begins[simple]], [stops[simple]], [number[simple]]
        for paragraph in np.flatnonzero(~simple).tolist():
            room = int(rooms[paragraph])
            begin, stop = int(begins[paragraph]), int(stops[paragraph])
            if self.by_characters:
                broken = self._break_by_characters(begin, stop, room)
            else:
                broken = self._break_by_units(begin, int(firsts[paragraph]), int(lasts[paragraph]), room)
            spans = np.array(broken, dtype=np.int64)
            starts.append(spans[:, 0])
            ends.append(spans[:, 1])
            paragraphs.append(np.full(len(spans), paragraph))
        start, end, owner = np.concatenate(starts), np.concatenate(ends), np.concatenate(paragraphs)
        order = np.argsort(start, kind="stable")
        return start[order], end[order], owner[order]

    def _break_by_units(self, start: int, unit: int, last: int, room: int) -> list[tuple[int, int]]:
        lines = []
        while unit < last:
            limit = int(self.fitted[start]) + room * self.parts
            fit = min(int(np.searchsorted(self.fitted_ends, limit, "right")), last)
            word_start = int(self.starts[min(max(fit, unit), last - 1)])
            if fit > unit:
                end = int(self.ends[fit - 1])
                unit = fit
                if fit < last and not self.plain and self.pen[self.ends[fit]] - self.pen[word_start] > self.room:
                    # reportlab begins a word that no line can hold on the line before.
                    cut = self._cut(start, room)
                    if cut > word_start:
                        end = word_start = cut
                lines.append((start, end))
                start = word_start
            elif start < word_start:
                start = word_start
                continue
            else:
                cut = max(self._cut(start, room), self._after(start))
                lines.append((start, cut))
                start = cut
                if start >= self.ends[unit]:
                    unit += 1
                    start = int(self.starts[min(unit, last - 1)])
            room = self.room
        return lines

    def _cut(self, start: int, room: int) -> int:
        """The last place between clusters that a line from start reaches; start if not even one cluster fits."""
        cut = int(np.searchsorted(self.pen, self.pen[start] + room, "right")) - 1
        while cut > start and self.attached[cut]:
            cut -= 1
        return cut

    def _after(self, start: int) -> int:
        """The end of the cluster at start."""
        end = start + 1
        while self.attached[end]:
            end += 1
        return end

    def _break_by_characters(self, start: int, stop: int, room: int) -> list[tuple[int, int]]:
        """Reportlab's breaking of a text that holds CJK: anywhere, but back to a space or CJK character from Latin."""
        lines = []
        while start < stop:
            over = int(np.searchsorted(self.pen, self.pen[start] + room, "right")) - 1
            if over >= stop:
                lines.append((start, stop))
                break
            end, code = over + 1, int(self.codes[over])
            if code < 0x3000:
                for back in range(over, (start + end) >> 1, -1):
                    candidate = int(self.codes[back])
                    if back < over and (candidate >= 0x3000 or unicodedata.category(chr(candidate)) == "Zs"):
                        end, code = back + 2, int(self.codes[back + 1])
                        break
            if code not in _REPORTLAB_CANNOT_START and end > start + 1:
                end -= 1
            while end > start + 1 and self.attached[end]:
                end -= 1
            while self.attached[end]:
                end += 1
            lines.append((start, end))
            start, room = end, self.room
        return lines
