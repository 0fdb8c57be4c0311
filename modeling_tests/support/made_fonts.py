# SPDX-License-Identifier: Apache-2.0
"""Small fonts, made for tests: each character a filled square."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest


def font_of(characters: str, family: str, advance: int = 1000, outlines: bool = True) -> Any:
    """A TrueType font (fontTools') that has the characters."""
    builder = pytest.importorskip("fontTools.fontBuilder").FontBuilder(1000, isTTF=True)
    pen_class = pytest.importorskip("fontTools.pens.ttGlyphPen").TTGlyphPen
    names = [".notdef", *(f"u{ord(character):X}" for character in characters)]
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(character): f"u{ord(character):X}" for character in characters})
    glyphs = {}
    for name in names:
        pen = pen_class(None)
        if outlines and name != ".notdef":
            pen.moveTo((100, 0))
            for corner in ((100, 700), (advance - 100, 700), (advance - 100, 0)):
                pen.lineTo(corner)
            pen.closePath()
        glyphs[name] = pen.glyph()
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(dict.fromkeys(names, (advance, 100)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, sTypoDescender=-200)
    builder.setupPost()
    return builder.font


def save_collection(fonts: Sequence[Any], path: Path) -> Path:
    """Several fonts in one file."""
    collection = pytest.importorskip("fontTools.ttLib.ttCollection").TTCollection()
    collection.fonts = list(fonts)
    collection.save(path)
    return path
