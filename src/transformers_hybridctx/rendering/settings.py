# SPDX-License-Identifier: Apache-2.0
"""How text is laid out and drawn: every setting with its unit, and Glyph's settings read into them."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .characters import NEWLINES
from .glyph_settings import fields_of_glyph

_FONT_FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "fonts")
BUNDLED_MONO = os.path.join(_FONT_FOLDER, "DejaVuSansMono.ttf")
BUNDLED_SANS = os.path.join(_FONT_FOLDER, "DejaVuSans.ttf")

_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_LARGEST_SIDE = 32768


@dataclass(frozen=True)
class RenderConfig:
    """How text is laid out and drawn (theta in Render(C; theta)). Lengths are in points (1/72 in) unless said.

    Args:
        page_width, page_height: the page.
        dpi: pixels per 72 points at scale 1.
        margin_x, margin_y: empty border left and right, above and below.
        frame_padding: more empty border inside the margins, on all four sides (reportlab's frames have 6).
        font_path: a TrueType or OpenType font with outlines; None is the bundled DejaVu Sans Mono. A face of a
            collection is named by its number, from 0: "NotoSansCJK-Regular.ttc#2".
        fallback_font_paths: fonts asked in turn for what the first one lacks; the bundled DejaVu Sans ends the chain.
        font_size, line_height: size of the em and distance from baseline to baseline.
        baseline: from a line's top to its baseline; None centres the font's height in the line.
        hinted: glyphs are drawn by the font's hints, sharper at small sizes. The bytes are then those of the FreeType
            that Pillow brings; without, they are the same everywhere.
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
        line_breaking: "plain" (greedy, white space kept, CJK broken between characters), "reportlab" (the rules of
            the renderer that Glyph was trained on: lines may run over by a twentieth of their spaces, leading spaces
            go, runs of spaces do not break, one CJK character switches the whole text to breaking by characters) or
            "cells" (a cell, as wide as a column and cell_lines high, holds contiguous text: its lines run on through
            words, a word that fits into a cell never straddles two, one with a digit begins a cell, white space
            between words is one space). See `cell_aligned_config`, whose cells are visual tokens.
        cell_lines: lines of a cell.
        number_lines: lines of a cell that a word with a digit may take before it is cut; None is all of them.
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
    baseline: float | None = None
    hinted: bool = False
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
    cell_lines: int = 1
    number_lines: int | None = None
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
        if self.baseline is not None:
            self._check_number("baseline", positive=True)
        if self.hinted and self.horizontal_scale != 1 and self.line_breaking != "reportlab":
            raise ValueError(
                f"hinted letters cannot be drawn horizontal_scale={self.horizontal_scale:g} times as wide; leave it 1"
            )
        for name in ("first_line_indent", "left_indent", "right_indent"):
            self._check_number(name, negative=True)
        for name in ("font_color", "page_bg_color", "para_bg_color", "border_color", "newline_color"):
            value = getattr(self, name)
            if name == "newline_color" and value is None:
                continue
            if not isinstance(value, str) or not _COLOR.fullmatch(value):
                raise ValueError(f"{name}={value!r} is not a colour; write it as '#RRGGBB', for example '#000000'")
        self._check_choice("alignment", ("LEFT", "CENTER", "RIGHT", "JUSTIFY"))
        self._check_choice("line_breaking", ("plain", "reportlab", "cells"))
        for name in ("columns", "page_multiple", "cell_lines", "number_lines", "lines_per_paragraph"):
            value = getattr(self, name)
            if name in ("number_lines", "lines_per_paragraph") and value is None:
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
            (
                "line_height" if self.cell_lines == 1 else "cell_lines * line_height",
                self.text_height,
                self.line_height * self.cell_lines,
            ),
        ):
            if room < needed - 1e-9:
                raise ValueError(
                    f"{name}={needed:g} does not fit the {room:g} points that margins, padding and indents leave "
                    f"{self.columns} columns of a page of {self.page_width:g} x {self.page_height:g} points; "
                    f"make the page larger or {name} smaller"
                )
        self._check_cells()
        width = self.page_width * self.dpi / 72 * self.horizontal_scale
        for name, side in (("page_width", width), ("page_height", self.page_height * self.dpi / 72)):
            if side > _LARGEST_SIDE:
                raise ValueError(
                    f"{name}={getattr(self, name):g} at dpi={self.dpi:g} makes {side:.0f} pixels, more than the "
                    f"{_LARGEST_SIDE} that a page may have a side; lower one of them"
                )

    def _check_cells(self) -> None:
        if self.line_breaking != "cells":
            if self.cell_lines != 1 or self.number_lines is not None:
                raise ValueError(
                    f"cell_lines={self.cell_lines} and number_lines={self.number_lines} are for line_breaking='cells', "
                    f"not {self.line_breaking!r}"
                )
            return
        free: dict[str, Any] = {"alignment": "LEFT", "lines_per_paragraph": None}
        free |= dict.fromkeys(("first_line_indent", "space_before", "space_after"), 0)
        for name, value in free.items():
            if getattr(self, name) != value:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} would move text out of its cell; with line_breaking='cells' "
                    f"leave it {value!r}"
                )
        if self.number_lines is not None and self.number_lines > self.cell_lines:
            raise ValueError(
                f"number_lines={self.number_lines} is more than the cell_lines={self.cell_lines} of a cell"
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
    def only_scale(self) -> float | None:
        """The one scale that pages may have, 1, where their cells are visual tokens; None where any will do."""
        return 1.0 if self.line_breaking == "cells" else None

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
        return cls(**fields_of_glyph(source))
