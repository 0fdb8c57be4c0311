# SPDX-License-Identifier: Apache-2.0
"""How text is laid out and drawn: every setting with its unit, and Glyph's settings read into them."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .characters import NEWLINES

_FONT_FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "fonts")
BUNDLED_MONO = os.path.join(_FONT_FOLDER, "DejaVuSansMono.ttf")
BUNDLED_SANS = os.path.join(_FONT_FOLDER, "DejaVuSans.ttf")

_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_REPORTLAB_MARK = re.compile(r"""<font\s+color\s*=\s*["']?(#[0-9a-fA-F]{6})["']?\s*>([^<>]*)</font>|([^<>]*)""")
_REPORTLAB_BREAK = re.compile(r"\s*<br\s*/?>\s*")
_LARGEST_SIDE = 32768


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
        border_width, border_padding: frame drawn around paragraphs, the middle of its stroke border_padding away from
            them; it moves no text.
        newline_markup: text drawn in place of each newline, which then breaks no line; None breaks the line.
        newline_color: "#RRGGBB" of that text; None is font_color.
        auto_crop_width: each page ends margin_x pixels right of its rightmost ink.
        auto_crop_last_page: the last page ends margin_y below its content.
        columns: lines fill this many columns of equal width, one after the other, before the next page.
        column_gap: empty strip between columns.
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
    columns: int = 1
    column_gap: float = 12
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
        for name in (
            "margin_x",
            "margin_y",
            "frame_padding",
            "space_before",
            "space_after",
            "border_width",
            "column_gap",
        ):
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
        for name in ("columns", "page_multiple", "lines_per_paragraph"):
            value = getattr(self, name)
            if name == "lines_per_paragraph" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name}={value!r} must be a whole number of at least 1")
        mark = self.newline_markup
        if mark is not None and (not isinstance(mark, str) or not mark.strip() or any(c in NEWLINES for c in mark)):
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
                    f"{self.columns} columns of a page of {self.page_width:g} x {self.page_height:g} points; "
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
        return self.column_width - self.left_indent - self.right_indent

    @property
    def column_width(self) -> float:
        """Points from a column's left edge to its right one, indents included."""
        inside = self.page_width - 2 * (self.margin_x + self.frame_padding)
        return (inside - (self.columns - 1) * self.column_gap) / self.columns

    @property
    def text_height(self) -> float:
        """Points of a page that lines may fill."""
        return self.page_height - 2 * (self.margin_y + self.frame_padding)

    @property
    def font_paths(self) -> tuple[str, ...]:
        """Every font file of the chain in the order of asking, the bundled ones included."""
        # Code that travels with a checkpoint has no fonts beside it; the checkpoint names all of its own.
        last = (BUNDLED_SANS,) if os.path.isdir(_FONT_FOLDER) else ()
        return tuple(dict.fromkeys([self.font_path or BUNDLED_MONO, *self.fallback_font_paths, *last]))

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
        20 pt margins, justified). A relative font-path is looked up from the JSON file's folder. An unknown key is a
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
