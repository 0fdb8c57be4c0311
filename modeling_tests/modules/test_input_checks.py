# SPDX-License-Identifier: Apache-2.0
"""Mistakes in a model's inputs are named before its towers run."""

import pytest
import torch
from tiny_models import (
    IMAGE,
    PAGES_FIRST,
    TowerCalls,
    make_inputs,
    pixels_of,
)

# errors


def drop_image_token(inputs):
    inputs["input_ids"][0, inputs["input_ids"][0].tolist().index(IMAGE)] = 9
    inputs["mm_token_type_ids"] = (inputs["input_ids"] == IMAGE).int()


def drop_patch(inputs):
    inputs["pixel_values"] = inputs["pixel_values"][1:]


def halve_width(inputs):
    inputs["pixel_values"] = inputs["pixel_values"][:, ::2]


def cast_to_int(inputs):
    inputs["pixel_values"] = inputs["pixel_values"].long()


def cast_to_float(inputs):
    inputs["pixel_values"] = inputs["pixel_values"].float()


def odd_grid(inputs):
    inputs["image_grid_thw"][0] = torch.tensor([1, 8, 3])


def empty_page(inputs):
    inputs["image_grid_thw"] = torch.cat([inputs["image_grid_thw"], torch.tensor([[1, 0, 4]])])


def no_page(inputs):
    inputs["image_grid_thw"] = inputs["image_grid_thw"][:0]
    inputs["pixel_values"] = inputs["pixel_values"][:0]
    inputs["input_ids"] = inputs["input_ids"].clamp(min=6)
    inputs["mm_token_type_ids"] = torch.zeros_like(inputs["input_ids"])


def flat_grid(inputs):
    inputs["image_grid_thw"] = inputs["image_grid_thw"].flatten()


MISTAKES = [
    (drop_image_token, "19 image tokens (id 3)", "20 visual embeddings", "as the processor does"),
    (drop_patch, "[79, 36]", "80 patches", "pages one after another"),
    (halve_width, "18 wide", "36 or 108 wide", "patch_size"),
    (cast_to_int, "torch.int64", "uint8", "image processor"),
    (cast_to_float, "36 wide", "216 wide", "temporal_patch_size"),
    (odd_grid, "image_grid_thw[0] is [1, 8, 3]", "spatial_merge_size=2", "image processor"),
    (empty_page, "image_grid_thw[4] is [1, 0, 4]", "positive", "image processor"),
    (no_page, "no rows", "pixel_values", "leave it"),
    (flat_grid, "[12]", "[pages, 3]", "row per page"),
]


@pytest.mark.parametrize("method", ["forward", "generate"])
@pytest.mark.parametrize(
    ("mistake", "value", "bound", "way_out"), MISTAKES, ids=lambda value: getattr(value, "__name__", "")
)
def test_mistakes_are_named_before_the_towers_run(model, method, mistake, value, bound, way_out):
    inputs = make_inputs(PAGES_FIRST)
    mistake(inputs)
    with TowerCalls(model) as calls, pytest.raises(ValueError) as error:
        getattr(model, method)(**inputs)
    assert not calls
    for part in (value, bound, way_out):
        assert part in str(error.value)


def test_missing_arguments_are_named(model):
    inputs = make_inputs(PAGES_FIRST)
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    pixels = {"pixel_values": inputs["pixel_values"], "image_grid_thw": inputs["image_grid_thw"]}
    with pytest.raises(ValueError, match="image_grid_thw"):
        model(**{k: v for k, v in inputs.items() if k != "image_grid_thw"})
    with pytest.raises(ValueError, match="image_grid_thw"):
        model(
            mm_encoder_outputs={"image": model.get_image_features(*pixels_of(inputs))},
            **{k: v for k, v in inputs.items() if k not in pixels},
        )
    with pytest.raises(ValueError, match="mm_token_type_ids"):
        model(inputs_embeds=embeds, **pixels)
    with pytest.raises(ValueError, match="exactly one of input_ids or inputs_embeds"):
        model(**pixels)
    with pytest.raises(ValueError, match="pixel_values and mm_encoder_outputs"):
        model(**inputs, mm_encoder_outputs={"image": model.get_image_features(*pixels_of(inputs))})
