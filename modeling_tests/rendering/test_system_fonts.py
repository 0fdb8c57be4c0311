# SPDX-License-Identifier: Apache-2.0
"""Fonts of the machine, for the characters that a document needs and a config's own fonts lack."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from made_fonts import font_of, save_collection

from transformers_hybridctx import PageRenderer, RenderConfig
from transformers_hybridctx.rendering import system_fonts
from transformers_hybridctx.rendering.system_fonts import all_characters, lacking, with_system_fonts

needs_fontconfig = pytest.mark.skipif(shutil.which("fc-match") is None, reason="fontconfig is not installed")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that has all fonts that fontconfig knows."""
    (tmp_path / "fonts").mkdir()
    (tmp_path / "fonts.conf").write_text(
        f"<fontconfig><dir>{tmp_path / 'fonts'}</dir><cachedir>{tmp_path / 'c'}</cachedir></fontconfig>"
    )
    monkeypatch.setenv("FONTCONFIG_FILE", str(tmp_path / "fonts.conf"))
    return tmp_path / "fonts"


def test_what_is_lacking_is_what_another_font_may_have() -> None:
    assert lacking("abc \u4e2d\u6587\u4e2d \x07\ue000\ud800", RenderConfig()) == {"\u4e2d": 2, "\u6587": 1}


@needs_fontconfig
def test_few_fonts_that_have_most_are_found_and_named(machine: Path) -> None:
    font_of("\u4e2d", "One").save(machine / "one.ttf")
    font_of("\u4e2d\u6587", "Both").save(machine / "both.ttf")
    font_of("\u0e01\u0e02", "Thai").save(machine / "thai.ttf")
    font_of("\u0905", "Unneeded").save(machine / "unneeded.ttf")
    text = "\u4e2d\u6587 \u4e2d \u0e01 a \u2fd5"
    config, found = with_system_fonts(RenderConfig(), text)
    assert [(Path(font.path).name, font.family, font.characters) for font in found] == [
        ("both.ttf", "Both", 3),
        ("thai.ttf", "Thai", 1),
    ]
    assert config.fallback_font_paths == tuple(font.path for font in found)
    assert PageRenderer(config).typeset(text).undrawable == [(9, "\u2fd5")]
    assert with_system_fonts(config, "plain \u4e2d") == (config, [])


@needs_fontconfig
def test_fonts_for_whatever_comes_are_all_that_help(machine: Path) -> None:
    font_of("\u4e2d\u6587", "Han").save(machine / "han.ttf")
    font_of("\u4e2d", "Less").save(machine / "less.ttf")
    font_of("\u0e01", "Thai").save(machine / "thai.ttf")
    font_of("abc", "Latin").save(machine / "latin.ttf")
    _, found = with_system_fonts(RenderConfig(), all_characters())
    assert [(font.family, font.characters) for font in found] == [("Han", 2), ("Thai", 1)]


@needs_fontconfig
def test_a_face_of_a_collection_is_found_by_its_number(machine: Path) -> None:
    save_collection([font_of("\u4e2d", "First"), font_of("\u6587\u4ef6", "Second")], machine / "two.ttc")
    config, (font,) = with_system_fonts(RenderConfig(), "\u6587\u4ef6")
    assert font.path == f"{machine / 'two.ttc'}#1"
    assert not PageRenderer(config).typeset("\u6587\u4ef6").undrawable


def test_without_fontconfig_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_fonts.shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="fontconfig, which is not installed: apt install fontconfig, or name a font"):
        with_system_fonts(RenderConfig(), "\u4e2d")
    assert with_system_fonts(RenderConfig(), "plain") == (RenderConfig(), [])


@needs_fontconfig
@pytest.mark.parametrize(
    ("package", "text"),
    [
        (
            "fonts-wqy-microhei or fonts-noto-cjk",
            "\u5408\u540c\u7f16 \u5951\u7d04\u66f8\u3067 \uacc4\uc57d\uc11c",
        ),
        (
            "fonts-noto-core",
            "\u0905\u0928\u0941\u092c\u0902\u0927 \u0e2a\u0e31\u0e0d\u0e0d\u0e32",
        ),
        ("fonts-symbola", "\U0001f600\U0001f389"),
    ],
    ids=["Chinese, Japanese, Korean", "Devanagari, Thai", "emoji"],
)
def test_the_packages_that_the_documentation_names_draw_these_scripts(package: str, text: str) -> None:
    config, found = with_system_fonts(RenderConfig(), text)
    if not found:
        pytest.skip(f"no font of this machine has these: apt install {package}")
    document = PageRenderer(config).typeset(text)
    assert not document.undrawable
    (page,) = PageRenderer(config).draw_pages(document)
    assert page.min() < 128
