# SPDX-License-Identifier: Apache-2.0
"""Render configs made to measure: pages whose lines and characters keep to the vision tower's patches, and styles drawn
at random, within legible bounds, for training.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any

from .fonts import load_face
from .settings import BUNDLED_MONO, BUNDLED_SANS, RenderConfig

_PRINTABLE = range(0x21, 0x7F)


def patch_aligned_config(
    merged_patch: int = 36,
    columns_per_patch: int | None = 6,
    lines_per_patch: int = 3,
    patches_wide: int = 16,
    patches_high: int = 21,
    margin_patches: int = 0,
    columns: int = 1,
    gap_patches: int = 1,
    font_path: str | None = None,
    **settings: Any,
) -> RenderConfig:
    """A config at whose pages, at scale 1, no line and no character of the font straddles two visual tokens.

    Args:
        merged_patch: side of the square that one visual token shows, in pixels (patch size times merge size).
        columns_per_patch: characters across a token; needs a monospaced font. None lets widths be, as proportional
            fonts need: then only lines keep to the patches.
        lines_per_patch: lines down a token.
        patches_wide, patches_high: the page in visual tokens; margin_patches: the margin on each side.
        columns, gap_patches: text columns, and the tokens between two of them.
        font_path: the font; None is the bundled DejaVu Sans Mono.
        settings: other fields of `RenderConfig`, for example newline_markup="¶".

    Characters that only a fallback font has keep that font's advance, so those may straddle; a tab moves on by four
    characters. Lengths are whole pixels only if the counts divide merged_patch. A font that is not monospaced, one too
    tall for its lines, or columns that do not come out even, is a ValueError.
    """
    counts = {
        "merged_patch": merged_patch,
        "lines_per_patch": lines_per_patch,
        "patches_wide": patches_wide,
        "patches_high": patches_high,
        "columns": columns,
    }
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name}={value!r} must be at least 1")
    text_patches = patches_wide - 2 * margin_patches - (columns - 1) * gap_patches
    if text_patches < columns or text_patches % columns:
        raise ValueError(
            f"patches_wide={patches_wide} leaves {text_patches} patches for columns={columns}; with margin_patches="
            f"{margin_patches} and gap_patches={gap_patches} it must leave a multiple of {columns}"
        )
    for name in ("dpi", "alignment", "line_breaking", "page_width", "page_height", "line_height", "horizontal_scale"):
        if name in settings:
            raise ValueError(f"{name}={settings[name]!r} is not free in a patch-aligned config; leave it out")
    face = load_face(font_path or BUNDLED_MONO)
    line_height = merged_patch / lines_per_patch
    em_heights = (face.ascender + face.descender) / face.upem
    if columns_per_patch is None:
        font_size = settings.pop("font_size", line_height / em_heights)
    else:
        advances = {face.advance(face.glyph(code)) for code in _PRINTABLE}
        if len(advances) > 1:
            raise ValueError(
                f"the font {face.path!r} is not monospaced; take one that is, or columns_per_patch=None to align "
                "lines only"
            )
        if "font_size" in settings:
            raise ValueError(f"font_size={settings['font_size']!r} follows from columns_per_patch; leave it out")
        font_size = merged_patch / columns_per_patch * face.upem / advances.pop()
    if font_size * em_heights > line_height + 1e-6:
        raise ValueError(
            f"letters {font_size * em_heights:.2f} pixels high do not fit lines of {line_height:g} pixels; "
            "lower lines_per_patch or raise columns_per_patch"
        )
    return RenderConfig(
        page_width=patches_wide * merged_patch,
        page_height=patches_high * merged_patch,
        margin_x=margin_patches * merged_patch,
        margin_y=margin_patches * merged_patch,
        font_path=font_path,
        font_size=font_size,
        line_height=int(line_height) if line_height == int(line_height) else line_height,
        columns=columns,
        column_gap=gap_patches * merged_patch,
        page_multiple=merged_patch,
        **settings,
    )


def cell_aligned_config(
    merged_patch: int = 48,
    columns_per_cell: int = 8,
    lines_per_cell: int = 2,
    cells_high: int = 64,
    columns: int = 1,
    number_lines: int | None = 1,
    newline_markup: str | None = " ¶ ",
    font_path: str | None = None,
    **settings: Any,
) -> RenderConfig:
    """A config of cells that are visual tokens: each holds contiguous text, lines_per_cell times columns_per_cell
    characters, and no word that fits into one straddles two (see `RenderConfig.line_breaking`).

    Args:
        merged_patch: side of the square that one visual token shows, in pixels (patch size times merge size).
        columns_per_cell: characters across a cell, of a monospaced font.
        lines_per_cell: lines down a cell.
        cells_high, columns: the page in cells; text goes down a column before the next one begins.
        number_lines: lines of a cell that a word with a digit may take before it is cut; None is all of them.
        newline_markup: what is drawn for a newline; None begins a cell instead.
        font_path: the font; None is the bundled DejaVu Sans Mono.
        settings: other fields of `RenderConfig`, for example fallback_font_paths or hinted.

    A font that is not monospaced, or too tall for its lines, is a ValueError.
    """
    made = patch_aligned_config(
        merged_patch,
        columns_per_cell,
        lines_per_cell,
        patches_wide=columns,
        patches_high=cells_high,
        columns=columns,
        gap_patches=0,
        font_path=font_path,
        newline_markup=newline_markup,
        **{"auto_crop_last_page": True, **settings},
    )
    return replace(made, line_breaking="cells", cell_lines=lines_per_cell, number_lines=number_lines)


def contrast_ratio(one: str, other: str) -> float:
    """Contrast of two colours "#RRGGBB", 1 to 21 (Web Content Accessibility Guidelines 2.2, 1.4.3)."""

    def luminance(color: str) -> float:
        total = 0.0
        for weight, at in ((0.2126, 1), (0.7152, 3), (0.0722, 5)):
            value = int(color[at : at + 2], 16) / 255
            total += weight * (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4)
        return total

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@dataclass(frozen=True)
class StyleSampler:
    """Draws render configs for training-time augmentation: `StyleSampler().sample(seed)`, equal for equal seeds.

    Args:
        base: what is not drawn.
        font_paths: fonts to choose from; None is the bundled DejaVu Sans Mono.
        font_sizes: least and largest size in points.
        smallest_em: least size in pixels; a size below it at the dpi drawn is raised to it.
        leading: least and largest line height as a multiple of the font size.
        margins: least and largest margin in points, horizontal and vertical drawn apart.
        dpis: to choose from.
        columns: numbers of columns to choose from; too narrow ones are left out (see narrowest_column).
        narrowest_column: in ems.
        colored, dark: parts of the styles that have colours, and light letters on dark pages.
        contrast: least contrast ratio of letters and page (WCAG asks for 4.5).
    """

    base: RenderConfig = field(default_factory=RenderConfig)
    font_paths: tuple[str | None, ...] = (None, BUNDLED_SANS)
    font_sizes: tuple[float, float] = (7.5, 13.0)
    smallest_em: float = 8.0
    leading: tuple[float, float] = (1.05, 1.6)
    margins: tuple[float, float] = (0.0, 54.0)
    dpis: tuple[float, ...] = (72, 96, 120)
    columns: tuple[int, ...] = (1, 1, 2)
    narrowest_column: float = 16.0
    colored: float = 0.5
    dark: float = 0.15
    contrast: float = 4.5

    def __post_init__(self) -> None:
        for name in ("font_sizes", "leading", "margins"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise ValueError(f"{name}={getattr(self, name)!r} must be (least, largest), neither negative")
        for name in ("font_paths", "dpis", "columns"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; give at least one to choose from")
        if self.leading[0] < 1:
            raise ValueError(f"leading={self.leading!r} begins below 1, where lines run into each other")
        if not 1 <= self.contrast <= 12:
            raise ValueError(f"contrast={self.contrast!r} must be 1 to 12; more leaves no colours to choose from")
        for name in ("colored", "dark"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)!r} is a part of all styles, 0 to 1")

    def sample(self, seed: int) -> RenderConfig:
        """The config of one seed."""
        # Only random() itself is promised to give the same numbers under every version of Python.
        draw = random.Random(seed).random

        def between(bounds: tuple[float, float], step: float) -> float:
            return round((bounds[0] + (bounds[1] - bounds[0]) * draw()) / step) * step

        dpi = self.dpis[int(draw() * len(self.dpis))]
        font_path = self.font_paths[int(draw() * len(self.font_paths))]
        font_size = max(between(self.font_sizes, 0.25), self.smallest_em * 72 / dpi)
        line_height = max(
            font_size * self.leading[0], between((font_size * self.leading[0], font_size * self.leading[1]), 0.25)
        )
        margin_x, margin_y = between(self.margins, 1), between(self.margins, 1)
        gap = 2 * font_size
        inside = self.base.page_width - 2 * (margin_x + self.base.frame_padding)
        wide = [
            count
            for count in self.columns
            if (inside - (count - 1) * gap) / count >= self.narrowest_column * font_size
        ] or [1]
        columns = wide[int(draw() * len(wide))]
        dark = draw() < self.dark
        page = "#000000" if dark else "#FFFFFF"
        ink = "#FFFFFF" if dark else "#000000"
        if draw() < self.colored:
            page = self._color(draw, 0 if dark else 200, 55 if dark else 255)
            ink = next(
                (
                    color
                    for color in (self._color(draw, 0, 255) for _ in range(50))
                    if contrast_ratio(color, page) >= self.contrast
                ),
                ink,
            )
        return replace(
            self.base,
            dpi=dpi,
            font_path=font_path,
            font_size=font_size,
            line_height=line_height,
            margin_x=margin_x,
            margin_y=margin_y,
            columns=columns,
            column_gap=gap,
            font_color=ink,
            page_bg_color=page,
            para_bg_color=page,
            border_color=page,
        )

    @staticmethod
    def _color(draw: Any, low: int, high: int) -> str:
        return "#" + "".join(f"{low + int(draw() * (high - low + 1)):02X}" for _ in range(3))
