# SPDX-License-Identifier: Apache-2.0
"""Fonts that are saved with a checkpoint bring their licences, and those alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from made_fonts import font_of, save_collection

import transformers_hybridctx
from transformers_hybridctx import RenderConfig
from transformers_hybridctx.rendering.checkpoint_fonts import (
    checkpoint_font_loader,
    portable_config,
    save_fonts,
    with_loaded_fonts,
)
from transformers_hybridctx.rendering.fonts import load_face

FONTS = Path(transformers_hybridctx.__file__).parent / "fonts"


@pytest.fixture
def two_makers(tmp_path: Path) -> RenderConfig:
    """Fonts of two makers, whose licences have one name."""
    for maker, font in (("one", "DejaVuSansMono.ttf"), ("two", "DejaVuSans.ttf")):
        (tmp_path / maker).mkdir()
        shutil.copy(FONTS / font, tmp_path / maker)
        (tmp_path / maker / "LICENSE.txt").write_text(f"licence of {maker}")
        (tmp_path / maker / "LICENSE-BOTH").write_text("the same")
    first, second = tmp_path / "one" / "DejaVuSansMono.ttf", tmp_path / "two" / "DejaVuSans.ttf"
    return RenderConfig(font_path=str(first), fallback_font_paths=(str(second),))


def licences(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (folder / "fonts").iterdir() if path.suffix != ".ttf"}


def test_licences_of_one_name_are_all_kept(two_makers: RenderConfig, tmp_path: Path) -> None:
    save_fonts(two_makers, tmp_path)
    found = licences(tmp_path)
    assert sorted(found.values()) == ["licence of one", "licence of two", "the same"]
    assert found["LICENSE.txt"] == "licence of one"
    saved = RenderConfig(
        font_path=str(tmp_path / "fonts" / "DejaVuSansMono.ttf"),
        fallback_font_paths=(str(tmp_path / "fonts" / "DejaVuSans.ttf"),),
    )
    save_fonts(saved, tmp_path)  # where they lie already
    save_fonts(saved, tmp_path / "again")
    assert licences(tmp_path) == licences(tmp_path / "again") == found


def test_folders_of_licences_go_along_and_links_out_do_not(two_makers: RenderConfig, tmp_path: Path) -> None:
    (tmp_path / "one" / "LICENSES").mkdir()
    (tmp_path / "one" / "LICENSES" / "OFL.txt").write_text("of the folder")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "two" / "LICENSE-OTHER").symlink_to(tmp_path / "secret")
    save_fonts(two_makers, tmp_path)
    assert licences(tmp_path)["LICENSES-OFL.txt"] == "of the folder"
    assert "secret" not in licences(tmp_path).values()


def test_faces_of_a_collection_are_saved_once_and_loaded_by_their_numbers(tmp_path: Path) -> None:
    file = save_collection([font_of("ab", "One", 600), font_of("ab", "Two", 900)], tmp_path / "two.ttc")
    config = RenderConfig(font_path=f"{file}#1", fallback_font_paths=(str(file),))
    values, digests = portable_config(config)
    assert values["font_path"] == "fonts/two.ttc#1"
    assert values["fallback_font_paths"] == ["fonts/two.ttc", "fonts/DejaVuSans.ttf"]
    assert digests.keys() == {"fonts/two.ttc", "fonts/DejaVuSans.ttf"}
    save_fonts(config, tmp_path / "saved")
    load = checkpoint_font_loader(str(tmp_path / "saved"), digests, {})
    loaded = RenderConfig.from_dict(with_loaded_fonts(values, load))
    assert load_face(loaded.font_paths[0]).advance(1) == 900
    assert load_face(loaded.font_paths[1]).advance(1) == 600


def test_a_face_that_a_collection_does_not_have_is_refused(tmp_path: Path) -> None:
    file = save_collection([font_of("ab", "One")], tmp_path / "one.ttc")
    with pytest.raises(ValueError, match="holds no glyph outlines"):
        load_face(f"{file}#7")
    with pytest.raises(FileNotFoundError, match=r"none\.ttc#1' does not exist"):
        load_face(f"{tmp_path / 'none.ttc'}#1")
