# SPDX-License-Identifier: Apache-2.0
"""Glyph's published settings (github.com/thu-coai/Glyph, config/*.json) as fields of a `RenderConfig`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

_FIELDS = {
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
# A4 with 20 points of margin, justified, and the rules of reportlab, whose frames have 6 points of padding.
_DEFAULTS: dict[str, Any] = {
    "page_width": 210 / 25.4 * 72,
    "page_height": 297 / 25.4 * 72,
    "margin_x": 20,
    "margin_y": 20,
    "alignment": "JUSTIFY",
    "frame_padding": 6,
    "line_breaking": "reportlab",
    "lines_per_paragraph": 30,
}
_MARK = re.compile(r"""<font\s+color\s*=\s*["']?(#[0-9a-fA-F]{6})["']?\s*>([^<>]*)</font>|([^<>]*)""")
_BREAK = re.compile(r"\s*<br\s*/?>\s*")


def fields_of_glyph(source: str | os.PathLike[str] | Mapping[str, Any]) -> dict[str, Any]:
    """What `RenderConfig.from_glyph` makes its config of: the fields by name."""
    if isinstance(source, Mapping):
        values, folder = dict(source), None
    else:
        try:
            with open(source, encoding="utf-8") as file:
                values = json.load(file)
        except ValueError as error:  # of what is no text, too
            raise ValueError(
                f"{os.fspath(source)!r} is no JSON ({error}): Glyph's settings are an object, such as "
                '{"dpi": 72, "font-size": 9}'
            ) from error
        if not isinstance(values, dict):
            raise ValueError(f"{os.fspath(source)!r} holds {type(values).__name__}, not a JSON object of settings")
        folder = os.path.dirname(os.path.abspath(source))
    fields = dict(_DEFAULTS)
    for key, value in values.items():
        if key == "page-size":
            fields["page_width"], fields["page_height"] = _page_size(value)
        elif key == "newline-markup":
            fields["newline_markup"], fields["newline_color"] = _newline_mark(value)
        elif key == "font-path":
            if folder is not None and value is not None:
                value = os.path.normpath(os.path.join(folder, value))
            fields["font_path"] = value
        elif key in _FIELDS:
            fields[_FIELDS[key]] = value
        else:
            known = sorted([*_FIELDS, "page-size", "newline-markup", "font-path"])
            raise ValueError(f"unknown Glyph setting {key!r}; known settings: {', '.join(known)}")
    if not fields.get("line_height"):
        fields["line_height"] = fields.get("font_size", 9) + 1
    return fields


def _page_size(value: Any) -> tuple[float, float]:
    parts = value.split(",") if isinstance(value, str) else value
    try:
        width, height = (float(part) for part in parts)
    except (TypeError, ValueError):
        raise ValueError(f"page-size={value!r} is not 'width,height' in points, for example '595,842'") from None
    return width, height


def _newline_mark(value: Any) -> tuple[str | None, str | None]:
    """(text, colour) of reportlab paragraph markup that stands for a newline; (None, None) for a line break."""
    if value is None or value == "" or _BREAK.fullmatch(str(value)):
        return None, None
    found = _MARK.fullmatch(str(value))
    if found is None:
        raise ValueError(
            f"newline-markup={value!r} is not understood; use '<br/>', plain text, "
            'or text in one <font color="#RRGGBB">'
        )
    color, colored, plain = found.groups()
    return (plain if color is None else colored), color
