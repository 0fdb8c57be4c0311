# SPDX-License-Identifier: Apache-2.0
"""`hybridctx render`: pages, their map, and the folder that they stand in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command_line import TALE, refused, run
from document_samples import SamplePage, pdf_file, scan
from PIL import Image

from transformers_hybridctx import PageRenderer, RenderConfig


@pytest.fixture
def glyph_config(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"page-size": "168,168", "dpi": 72, "font-size": 10, "line-height": 12}))
    return path


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_render_writes_pages_and_where_each_character_stands(
    glyph_config: Path, document: str, tmp_path: Path, scale: float
) -> None:
    out = tmp_path / "pages"
    result = run("render", document, "--out", out, "--config", glyph_config, "--scale", scale)
    assert result.exit_code == 0, result.output
    assert str(out) in result.stdout
    rendered = PageRenderer(RenderConfig.from_glyph(glyph_config)).render(TALE, scale)
    files = sorted(out.glob("*.png"))
    assert [path.name for path in files] == [f"page-{page + 1:04}.png" for page in range(rendered.num_pages)]
    for path, page in zip(files, rendered.pages, strict=True):
        assert np.array_equal(np.asarray(Image.open(path)), page)
    layout = json.loads((out / "layout.json").read_text())
    assert layout["pages"] == [list(page.shape[:2]) for page in rendered.pages]
    assert RenderConfig.from_dict(layout["config"]) == rendered.config
    assert layout["undrawable"] == []
    assert len(layout["lines"]) == len(rendered.lines)
    for line in layout["lines"]:
        if line["start"] < line["end"]:
            ((page, box),) = rendered.boxes(line["start"], line["end"])
            assert page + 1 == line["page"]
            assert line["box"][1] <= box[1] + 1
            assert box[3] <= line["box"][3] + 1


def test_render_counts_what_no_font_has(glyph_config: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a\x01bcdefghijklmno")
    result = run("render", tmp_path / "a.txt", "--out", tmp_path / "out", "--config", glyph_config)
    assert "undrawable   1 characters" in result.stdout
    assert json.loads((tmp_path / "out" / "layout.json").read_text())["undrawable"] == [[1, "U+0001"]]


def test_pages_of_a_pdf_are_rendered_as_they_are_with_their_characters(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf_file(["The code is 4821.", SamplePage(b"", picture=scan("a scan"))]))
    result = run("render", tmp_path / "a.pdf", "--layout", "source", "--scale", "0.5", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "layout       2 pages as in the file (unknown text on 2)" in result.stdout
    assert Image.open(tmp_path / "out" / "page-0002.png").size == (300, 200)
    layout = json.loads((tmp_path / "out" / "layout.json").read_text())
    assert layout["pages"] == [[200, 300], [200, 300]]
    ((line),) = layout["lines"]
    assert (line["page"], line["start"], line["end"]) == (1, 0, len("The code is 4821."))
    left, top, right, bottom = line["box"]
    assert 15 < left < 25 < right < 150
    assert 10 < top < bottom < 40


def test_boxes_are_those_of_the_pages_as_they_are_drawn_where_cells_keep_their_scale(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf_file(["The code is 4821.", SamplePage(b"", picture=scan("a scan"))]))
    maps = {}
    for scale in (1, 0.5):
        result = run("render", tmp_path / "a.pdf", "--out", tmp_path / f"{scale}", "--scale", scale)
        assert result.exit_code == 0, result.output
        maps[scale] = json.loads((tmp_path / f"{scale}" / "layout.json").read_text())
        pictures = [Image.open(path) for path in sorted((tmp_path / f"{scale}").glob("*.png"))]
        assert maps[scale]["pages"] == [[picture.height, picture.width] for picture in pictures]
    assert "2 at scale 0.5, but for 1 that keep their own" in result.stdout
    assert maps[0.5]["pages"][0] == maps[1]["pages"][0]  # of cells
    assert maps[0.5]["pages"][1] != maps[1]["pages"][1]
    assert maps[0.5]["lines"] == [line for line in maps[1]["lines"] if line["page"] == 1]


def test_pages_as_they_are_have_their_boxes_at_their_scale(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf_file(["The code is 4821."]))
    boxes = {}
    for scale in (1, 0.25):
        run("render", tmp_path / "a.pdf", "--layout", "source", "--out", tmp_path / f"{scale}", "--scale", scale)
        (boxes[scale],) = (
            line["box"] for line in json.loads((tmp_path / f"{scale}" / "layout.json").read_text())["lines"]
        )
    assert boxes[0.25] == pytest.approx([side / 4 for side in boxes[1]], rel=0.005)


def test_cells_have_one_scale(document: str, tmp_path: Path) -> None:
    assert refused("render", document, "--out", tmp_path / "out", "--scale", 0.5).startswith("--scale 0.5 would take")


def test_pages_of_an_earlier_call_do_not_stay(glyph_config: Path, document: str, tmp_path: Path) -> None:
    out = tmp_path / "pages"
    (tmp_path / "short.txt").write_text("Short.")
    assert run("render", document, "--out", out, "--config", glyph_config).exit_code == 0
    assert (out / "page-0002.png").exists()
    (out / "notes.txt").write_text("mine")
    assert run("render", tmp_path / "short.txt", "--out", out, "--config", glyph_config).exit_code == 0
    assert {path.name for path in out.iterdir()} == {"layout.json", "notes.txt", "page-0001.png"}


def test_pages_of_another_program_are_not_written_over(glyph_config: Path, document: str, tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "page-0001.png")
    before = (tmp_path / "page-0001.png").read_bytes()
    assert "another program wrote it" in refused("render", document, "--out", tmp_path, "--config", glyph_config)
    assert (tmp_path / "page-0001.png").read_bytes() == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_what_is_broken_off_leaves_the_folder_as_it_was(
    glyph_config: Path, document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    (tmp_path / "short.txt").write_text("Short.")
    out = tmp_path / "pages"
    assert run("render", tmp_path / "short.txt", "--out", out, "--config", glyph_config).exit_code == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def draw_some(self: PageRenderer, *args: object) -> Iterator[np.ndarray]:
        yield np.zeros((8, 8), np.uint8)
        raise error("stopped")

    monkeypatch.setattr(PageRenderer, "draw_pages", draw_some)
    assert run("render", document, "--out", out, "--config", glyph_config).exit_code != 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
