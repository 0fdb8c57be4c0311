# SPDX-License-Identifier: Apache-2.0
"""Settings: which are taken, how mistakes are named, and Glyph's own."""

import json
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
from render_layouts import GLYPH_MARKED, GRID

from transformers_hybridctx.rendering.settings import BUNDLED_SANS, RenderConfig
from transformers_hybridctx.rendering.typesetting import Typesetter

GLYPH_JSON = {
    "page-size": "595,842",
    "dpi": 72,
    "margin-x": 10,
    "margin-y": 10,
    "font-path": "fonts/Own.ttf",
    "font-size": 9,
    "line-height": 10,
    "font-color": "#000000",
    "alignment": "LEFT",
    "horizontal-scale": 1.0,
    "first-line-indent": 0,
    "left-indent": 0,
    "right-indent": 0,
    "space-after": 0,
    "space-before": 0,
    "border-width": 0,
    "border-padding": 0,
    "page-bg-color": "#FFFFFF",
    "para-bg-color": "#FFFFFF",
    "auto-crop-width": True,
    "auto-crop-last-page": True,
}


def test_glyph_settings_are_read(tmp_path):
    (tmp_path / "fonts").mkdir()
    (tmp_path / "fonts" / "Own.ttf").write_bytes(Path(BUNDLED_SANS).read_bytes())
    path = tmp_path / "config.json"
    path.write_text(json.dumps(GLYPH_JSON))
    config = RenderConfig.from_glyph(path)
    assert config.font_path == str(tmp_path / "fonts" / "Own.ttf")
    assert (config.page_width, config.page_height, config.text_width) == (595, 842, 563)
    assert config.auto_crop_width and config.auto_crop_last_page
    document = Typesetter(config).typeset("word\n" * 82)
    assert document.page_lines(0) == (0, 81)
    baseline = document.line_table.tops[0] + document.fonts.ascent
    assert baseline == pytest.approx(25)
    assert document.lines[0].box[0] == 16


def test_glyph_defaults_and_newline_marks():
    config = RenderConfig.from_glyph({"font-size": 10})
    assert (config.alignment, config.line_height, config.margin_x) == ("JUSTIFY", 11, 20)
    assert (config.page_width, config.page_height) == pytest.approx((595.2756, 841.8898), abs=1e-3)
    assert config.newline_markup is None
    assert RenderConfig.from_glyph({"newline-markup": "<br/>"}).newline_markup is None
    marked = RenderConfig.from_glyph({"newline-markup": '<font color="#FF0000"> \\n </font>'})
    assert (marked.newline_markup, marked.newline_color) == (" \\n ", "#FF0000")
    document = Typesetter(marked).typeset("\n".join(["ab"] * 31))
    assert document.display.count("\\n") == 29, "every thirtieth newline ends a paragraph instead"
    assert len({int(paragraph) for paragraph in document.line_table.paragraphs}) == 2


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"font-szie": 9}, "unknown Glyph setting 'font-szie'"),
        ({"page-size": "595"}, "page-size='595'"),
        ({"newline-markup": "<b>x</b>"}, "newline-markup='<b>x</b>'"),
    ],
)
def test_glyph_mistakes_are_named(source, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        RenderConfig.from_glyph(source)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"page_width": 0}, "page_width=0 must be greater than 0"),
        ({"dpi": float("nan")}, "dpi=nan is not a finite number"),
        ({"margin_x": -1}, "margin_x=-1 must not be negative"),
        ({"font_size": "9"}, "font_size='9' is not a finite number"),
        ({"margin_x": 119}, "font_size=9.9659"),
        ({"margin_y": 55}, "line_height=12 does not fit the 10 points"),
        ({"font_color": "red"}, "font_color='red' is not a colour"),
        ({"alignment": "left"}, "alignment='left' is unknown; choose one of LEFT"),
        ({"line_breaking": "tex"}, "line_breaking='tex' is unknown"),
        ({"page_multiple": 0}, "page_multiple=0 must be a whole number of at least 1"),
        ({"lines_per_paragraph": 1.5}, "lines_per_paragraph=1.5"),
        ({"newline_markup": " "}, "newline_markup=' ' must be visible text"),
        ({"newline_markup": "a\nb"}, "must be visible text on one line"),
        ({"dpi": 72000}, "page_width=240 at dpi=72000 makes 240000 pixels"),
        ({"fallback_font_paths": "a.ttf"}, "fallback_font_paths='a.ttf' is one path"),
    ],
)
def test_config_mistakes_are_named(change, message):
    with pytest.raises(ValueError, match=re.escape(message[:40])):
        replace(GRID, **change)


def test_fonts_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no/such\.ttf.*font_path=None"):
        Typesetter(replace(GRID, font_path="no/such.ttf"))
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"not a font")
    with pytest.raises(ValueError, match=r"broken\.ttf.*no glyph outlines"):
        Typesetter(replace(GRID, font_path=str(broken)))


def test_config_goes_to_json_and_back():
    config = replace(GLYPH_MARKED, fallback_font_paths=[BUNDLED_SANS])
    assert RenderConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert set(config.to_dict()) == {field.name for field in fields(RenderConfig)}
    with pytest.raises(ValueError, match="unknown RenderConfig key 'font-size'"):
        RenderConfig.from_dict({"font-size": 9})
