# SPDX-License-Identifier: Apache-2.0
"""Pictures as pages: upright, on white paper, with their tones, decoded one at a time."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from transformers_hybridctx.documents import pictures
from transformers_hybridctx.documents.files import read_document_file
from transformers_hybridctx.documents.pictures import eight_bits
from transformers_hybridctx.documents.scans import ScannedPages


def write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def pixels(pages: str | ScannedPages) -> list[np.ndarray]:
    assert isinstance(pages, ScannedPages)
    drawn = [np.asarray(page) for page in pages.draw_pages(1)]
    assert [page.shape[:2] for page in drawn] == [pages.page_size(page) for page in range(pages.num_pages)]
    return drawn


@pytest.mark.parametrize("suffix", ["png", "tiff", "webp", "bmp"])
def test_a_picture_is_one_page(tmp_path: Path, suffix: str) -> None:
    page = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8))
    page.save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    (read,) = pixels(read_document_file(tmp_path / f"a.{suffix}"))
    assert np.array_equal(read, np.asarray(page))


def test_every_frame_of_a_picture_is_a_page(tmp_path: Path) -> None:
    frames = [Image.new("L", (20, 10), shade) for shade in (0, 100, 200)]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    assert [page[0, 0] for page in pixels(read_document_file(tmp_path / "a.tif"))] == [0, 100, 200]


@pytest.mark.parametrize(
    ("picture", "shade"),
    [
        (Image.new("RGBA", (8, 8), (0, 0, 0, 0)), 255),
        (Image.new("LA", (8, 8), (0, 0)), 255),
        (Image.new("1", (8, 8), 1), 255),
        (Image.fromarray(np.full((8, 8), 0x80FF, dtype=np.uint16)), 128),
    ],
    ids=["transparent", "transparent grey", "bilevel", "16 bits"],
)
def test_pictures_lie_on_white_paper_in_8_bits(tmp_path: Path, picture: Image.Image, shade: int) -> None:
    picture.save(tmp_path / "a.png")
    (page,) = pixels(read_document_file(tmp_path / "a.png"))
    assert page.dtype == np.uint8
    assert (page == shade).all()


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.new("L", (30, 10)).save(tmp_path / "a.jpg", exif=exif)
    (page,) = pixels(read_document_file(tmp_path / "a.jpg"))
    assert page.shape == (30, 10)


# Tones

SHADES = np.array([[0, 20, 128, 235, 255]], dtype=np.uint8).repeat(4, axis=0)


@pytest.mark.parametrize(
    "values",
    [
        SHADES.astype(np.uint16) * 257,
        SHADES.astype(np.uint16) * 16 + 15,
        SHADES.astype(np.int32) * 257,
        SHADES.astype(np.int32),
        SHADES.astype(np.float32) / 255,
        SHADES.astype(np.float32),
        SHADES.astype(np.float32) * 257,
    ],
    ids=["16 bits", "12 bits in 16", "16 bits in 32", "8 bits in 32", "0 to 1", "0 to 255", "0 to 65535"],
)
def test_deep_pictures_keep_their_tones(tmp_path: Path, values: np.ndarray) -> None:
    picture = Image.fromarray(values)
    picture.save(tmp_path / "a.tif")
    for pages in (ScannedPages([picture]), read_document_file(tmp_path / "a.tif")):
        (page,) = pixels(pages)
        assert page.dtype == np.uint8
        assert np.abs(page.astype(int) - SHADES).max() <= 1


def test_tones_of_odd_ranges_are_stretched() -> None:
    assert eight_bits(np.array([-1.0, 0.0, 1.0])).tolist() == [0, 128, 255]
    assert eight_bits(np.array([0.0, np.nan, np.inf, 1.0])).tolist() == [0, 0, 0, 255]
    assert eight_bits(np.array([0, 2**40], dtype=np.int64)).tolist() == [0, 255]
    assert eight_bits(np.zeros((2, 2), dtype=np.float32)).tolist() == [[0, 0], [0, 0]]
    assert eight_bits(np.array([0, 65535], dtype=np.uint16), inverted=True).tolist() == [255, 0]


def test_a_large_picture_is_toned_by_what_all_of_it_holds_in_little_more_memory_than_its_own() -> None:
    values = np.full((3000, 2000), 100, dtype=np.uint16)
    values[-1, -1] = 60_000  # in the last rows, so that 16 bits are meant throughout
    tracemalloc.start()
    grey = eight_bits(values)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (grey[0, 0], grey[-1, -1]) == (0, 233)
    assert peak < 6 * values.nbytes  # 16 times in double precision


# Frames


def test_every_frame_of_a_given_picture_is_a_page_in_any_order(tmp_path: Path) -> None:
    frames = [Image.new("L", (20, 10), shade) for shade in (0, 100, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "a.gif") as picture:
        drawn = ScannedPages([picture]).draw_pages(1, [2, 0, 1])
        assert [int(np.asarray(page).max()) for page in drawn] == [200, 0, 100]


def test_frames_of_a_tiff_have_sizes_of_their_own(tmp_path: Path) -> None:
    frames = [Image.new("L", size) for size in ((20, 10), (30, 40), (5, 6))]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    assert [page.shape for page in pixels(read_document_file(tmp_path / "a.tif"))] == [(10, 20), (40, 30), (6, 5)]
    assert [page.shape for page in pixels(read_document_file(tmp_path / "a.tif", pages="2"))] == [(40, 30)]


def test_pictures_and_frames_beyond_the_bounds_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [Image.new("L", (20, 10), shade) for shade in (0, 100, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    monkeypatch.setattr(pictures, "MAX_FRAMES", 2)
    with pytest.raises(ValueError, match=r"a\.gif has 3 frames, more than 2; split it up$"):
        read_document_file(tmp_path / "a.gif")
    monkeypatch.setattr(pictures, "MAX_FRAMES", 3)
    monkeypatch.setattr(pictures, "MAX_PICTURE_PIXELS", 199)
    with pytest.raises(ValueError, match=r"a\.gif has 20 x 10 pixels, more than 199; make it smaller"):
        read_document_file(tmp_path / "a.gif")


def tiled_tiff(side: int) -> bytes:
    """A picture of 64 x 64 pixels in one tile of `side` x `side`."""
    data = zlib.compress(bytes(side))
    tags = {256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 134, 325: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP"])
def test_small_files_of_large_pictures_are_refused_before_they_are_decoded(kind: str, monkeypatch) -> None:
    file = BytesIO()
    Image.new("L", (300, 200)).save(file, kind)
    monkeypatch.setattr(pictures, "MAX_WEBP_PIXELS" if kind == "WEBP" else "MAX_PICTURE_PIXELS", 59_999)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    way_out = "save it as PNG, which takes less memory," if kind == "WEBP" else "make it smaller"
    with pytest.raises(ValueError, match=rf"^x\.png has 300 x 200 pixels, more than 59,999; {way_out} or cut it"):
        read_document_file(file.getvalue(), name="x.png")


def test_a_tile_larger_than_its_picture_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a\.tif has 20000 x 20000 pixels in a tile, more than"):
        read_document_file(tiled_tiff(20_000), name="a.tif")


def test_kinds_that_pillow_hands_to_programs_are_not_read() -> None:
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    with pytest.raises(ValueError, match=r"a\.png is not a picture that can be read"):
        read_document_file(postscript, name="a.png")


def test_a_given_picture_is_not_changed_by_what_is_drawn_of_it() -> None:
    given = Image.new("L", (20, 10), 100)
    (page,) = ScannedPages([given]).draw_pages(1)
    page.paste(0, (0, 0, 20, 10))
    assert given.getpixel((0, 0)) == 100


def test_transparency_is_laid_on_paper_in_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_AT_ONCE", 60)  # three rows of 20 pixels at a time
    values = np.random.default_rng(0).integers(0, 256, (10, 20, 4), dtype=np.uint8)
    (page,) = pixels(ScannedPages([Image.fromarray(values)]))
    shown = values[:, :, :3] * (values[:, :, 3:] / 255) + 255 - values[:, :, 3:]
    assert np.abs(page - shown).max() <= 1


def test_a_large_photograph_is_decoded_no_larger_than_it_is_drawn(tmp_path: Path) -> None:
    Image.linear_gradient("L").resize((1600, 800)).save(tmp_path / "a.jpg")
    pages = read_document_file(tmp_path / "a.jpg")
    assert isinstance(pages, ScannedPages)
    (small,) = pages.draw_pages(0.25)
    assert small.size == (400, 200)
    assert abs(int(np.asarray(small)[100].mean()) - 128) < 4


def test_a_given_picture_is_left_as_it_was(tmp_path: Path) -> None:
    Image.new("L", (1600, 800), 9).save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as picture:
        list(ScannedPages([picture]).draw_pages(0.1))
        assert picture.size == (1600, 800)


def test_a_truncated_picture_is_refused(tmp_path: Path) -> None:
    Image.effect_noise((64, 64), 50).save(tmp_path / "whole.png")
    path = write(tmp_path, "half.png", (tmp_path / "whole.png").read_bytes()[:1500])
    with pytest.raises(ValueError, match=r"half.png is not a picture that can be read .*truncated"):
        pixels(read_document_file(path))
