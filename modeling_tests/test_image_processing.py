# SPDX-License-Identifier: Apache-2.0
"""Pages to uint8 patches, bit for bit the pixels of transformers' own GLM-4V image processor."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoImageProcessor, Glm4vImageProcessorPil

from transformers_hybridctx.image_processing_hybridctx import HybridCtxImageProcessor


def noise(height: int, width: int, colour: bool = False, seed: int = 0) -> np.ndarray:
    shape = (height, width, 3) if colour else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def assert_same_pixels(ours, theirs, patch_size: int) -> None:
    """Theirs `[patches, 3 * 2 * p * p]` float, not normalised; ours `[patches, C * p * p]` uint8."""
    assert ours["pixel_values"].dtype == torch.uint8
    assert torch.equal(ours["image_grid_thw"], theirs["image_grid_thw"])
    shape = (len(theirs["pixel_values"]), 3, 2, patch_size**2)
    pixels = ours["pixel_values"].view(shape[0], -1, 1, shape[3])
    assert torch.equal(pixels.expand(shape).float(), theirs["pixel_values"].view(shape))


SIDE = st.integers(1, 260)


@settings(max_examples=60, deadline=None)
@given(SIDE, SIDE, st.booleans(), st.sampled_from([6, 14]), st.integers(1, 40), st.integers(1, 40))
def test_pixels_are_those_of_transformers_before_normalisation(height, width, colour, patch_size, fewest, more):
    factor = 2 * patch_size
    size = {"shortest_edge": 2 * fewest * factor**2, "longest_edge": 2 * (fewest + more) * factor**2}
    image = Image.fromarray(noise(height, width, colour))
    arguments = {"patch_size": patch_size, "size": size, "return_tensors": "pt"}
    if max(height, width) > 100 * min(height, width):
        return  # near the bound of the aspect ratio; tested below
    theirs = Glm4vImageProcessorPil(do_rescale=False, do_normalize=False)(image.convert("RGB"), **arguments)
    for page in (image, np.asarray(image), torch.tensor(np.asarray(image))):
        assert_same_pixels(HybridCtxImageProcessor()(page, **arguments), theirs, patch_size)


def test_several_pages_of_different_sizes_lie_one_after_another():
    processor = HybridCtxImageProcessor()
    pages = [noise(100, 70), noise(56, 300, seed=1), noise(200, 200, seed=2)]
    together = processor(pages, return_tensors="pt")
    alone = [processor(page, return_tensors="pt") for page in pages]
    for name in ("pixel_values", "image_grid_thw"):
        assert torch.equal(together[name], torch.cat([page[name] for page in alone]))
    counts = [processor.get_number_of_image_patches(*page.shape) for page in pages]
    assert together["image_grid_thw"].prod(-1).tolist() == counts


def test_a_page_of_the_right_size_is_only_cut():
    page = noise(756, 576)
    patches = HybridCtxImageProcessor(patch_size=18)(page, return_tensors="np")
    assert patches["image_grid_thw"].tolist() == [[1, 42, 32]]
    assert patches["image_grid_thw"].dtype == np.int64
    # merge blocks in reading order, and patches in reading order within each
    blocks = patches["pixel_values"].reshape(21, 16, 2, 2, 18, 18)
    assert np.array_equal(blocks.transpose(0, 2, 4, 1, 3, 5).reshape(756, 576), page)


def test_one_colour_page_makes_all_pages_coloured():
    processor, size = HybridCtxImageProcessor(), {"shortest_edge": 1, "longest_edge": 10**7}
    grey, colour = noise(56, 56), noise(56, 56, colour=True)
    assert processor(grey, size=size, return_tensors="pt")["pixel_values"].shape == (16, 196)
    both = processor([grey, colour], size=size, return_tensors="pt")["pixel_values"].view(2, 16, 3, 196)
    for found, page in zip(both, (grey, colour)):
        expected = processor(page, size=size, return_tensors="pt")["pixel_values"].view(16, -1, 196)
        assert torch.equal(found, expected.expand(-1, 3, -1))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_pictures_of_every_mode_are_read_as_transformers_reads_them(mode):
    image = Image.fromarray(noise(90, 120, colour=True)).convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(noise(90, 120, seed=3)))
    theirs = Glm4vImageProcessorPil(do_rescale=False, do_normalize=False)(image, return_tensors="pt")
    ours = HybridCtxImageProcessor()(image, return_tensors="pt")
    assert_same_pixels(ours, theirs, 14)
    assert ours["pixel_values"].shape[1] == (196 if mode in ("1", "L", "LA") else 588)


def test_grey_stored_in_colour_takes_one_byte_a_pixel():
    page = np.repeat(noise(90, 120)[..., None], 3, axis=-1)
    assert HybridCtxImageProcessor()(page)["pixel_values"].shape[1] == 196


def test_nested_lists_and_stacks_are_flattened():
    processor = HybridCtxImageProcessor()
    pages = [noise(60, 60, colour=True, seed=seed) for seed in range(3)]
    expected = processor(pages, return_tensors="pt")["pixel_values"]
    assert torch.equal(processor([pages[:1], pages[1:]], return_tensors="pt")["pixel_values"], expected)
    assert torch.equal(processor(np.stack(pages), return_tensors="pt")["pixel_values"], expected)


def test_saved_settings_come_back_through_the_auto_class(tmp_path):
    processor = HybridCtxImageProcessor(patch_size=18, size={"shortest_edge": 36**2, "longest_edge": 10**6})
    processor.save_pretrained(tmp_path)
    loaded = AutoImageProcessor.from_pretrained(tmp_path)
    assert type(loaded) is HybridCtxImageProcessor
    assert loaded.to_dict() == processor.to_dict()
    page = noise(500, 300)
    assert np.array_equal(loaded(page)["pixel_values"], processor(page)["pixel_values"])


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (np.zeros((0, 5), dtype=np.uint8), r"Page 1 has shape \(0, 5\): pass \[height, width\]"),
        (Image.new("RGB", (0, 7)), r"Page 1 has shape \(7, 0\): pass \[height, width\]"),
        (np.zeros((5, 5, 7), dtype=np.uint8), r"Page 1 has shape \(5, 5, 7\): pass \[height, width\]"),
        (np.zeros((20, 6000), dtype=np.uint8), "Page 1 of 20 x 6000 pixels: .*200.*300.*split"),
        (np.zeros((30, 30)), "Page 1 has dtype float64: pass uint8"),
    ],
    ids=["zero_array", "zero_picture", "seven_channels", "ribbon", "float"],
)
def test_unreadable_pages_are_named(page, message):
    with pytest.raises(ValueError, match=message):
        HybridCtxImageProcessor()([noise(30, 30), page])


def test_pages_that_must_not_be_resized_have_to_fit():
    with pytest.raises(ValueError, match=r"Page 0 is 30 x 56 pixels.* 28: pass do_resize=True"):
        HybridCtxImageProcessor()(noise(30, 56), do_resize=False)
