# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a model's inputs, found before its towers run."""

import torch
from transformers import PreTrainedConfig


def check_grid(image_grid_thw: torch.Tensor, merge_size: int) -> None:
    """
    Raises `ValueError` where a page cannot be cut into merge blocks.

    Args:
        image_grid_thw: `[pages, 3]`, frames, height and width of each page in patches.
        merge_size: patches of a merge block's side.
    """
    if image_grid_thw.ndim != 2 or image_grid_thw.shape[1] != 3:
        raise ValueError(f"image_grid_thw has shape {list(image_grid_thw.shape)}: pass [pages, 3], a row per page.")
    for page, (t, h, w) in enumerate(image_grid_thw.tolist()):
        if min(t, h, w) < 1 or h % merge_size or w % merge_size:
            raise ValueError(
                f"image_grid_thw[{page}] is {[t, h, w]}: height and width in patches must be positive multiples "
                f"of spatial_merge_size={merge_size}; let the image processor resize the page."
            )


def check_pixels(
    pixel_values: torch.Tensor, image_grid_thw: torch.Tensor | None, vision_config: PreTrainedConfig
) -> None:
    """
    Raises `ValueError` where pixels do not fit their grid or the vision tower.

    Args:
        pixel_values: `[patches, patch width]` of all pages, uint8 or float.
        image_grid_thw: `[pages, 3]`.
        vision_config: the tower's.
    """
    if image_grid_thw is None:
        raise ValueError("pixel_values came without image_grid_thw: pass both, as the image processor returns them.")
    check_grid(image_grid_thw, vision_config.spatial_merge_size)
    if not len(image_grid_thw):
        raise ValueError("image_grid_thw has no rows: leave it and pixel_values out where a prompt has no pages.")
    num_patches = int(image_grid_thw.prod(-1).sum())
    if pixel_values.ndim != 2 or pixel_values.shape[0] != num_patches:
        raise ValueError(
            f"pixel_values has shape {list(pixel_values.shape)}, but image_grid_thw adds up to {num_patches} "
            f"patches: pass [{num_patches}, patch width], all pages one after another."
        )
    area = vision_config.patch_size**2
    if pixel_values.dtype == torch.uint8:
        widths = [area, vision_config.in_channels * area]
    elif pixel_values.is_floating_point():
        widths = [vision_config.in_channels * vision_config.temporal_patch_size * area]
    else:
        raise ValueError(
            f"pixel_values has dtype {pixel_values.dtype}: pass uint8 pixels, or floats that a GLM-4V image "
            "processor has normalised."
        )
    if pixel_values.shape[1] not in widths:
        raise ValueError(
            f"pixel_values of dtype {pixel_values.dtype} is {pixel_values.shape[1]} wide, but the vision tower "
            f"reads patches of {vision_config.patch_size} x {vision_config.patch_size} pixels, "
            f"{' or '.join(map(str, widths))} wide: give the image processor the tower's patch_size and "
            "temporal_patch_size."
        )


def check_image_tokens(num_tokens: int, num_embeddings: int, image_token_id: int) -> None:
    """Raises `ValueError` where image tokens and visual embeddings cannot be paired."""
    if num_tokens == num_embeddings:
        return
    if not num_embeddings:
        raise ValueError(
            f"The prompt has {num_tokens} image tokens (id {image_token_id}), but no pages came with it, so nothing "
            "would stand where they do: pass pixel_values and image_grid_thw, as the processor returns them. (A data "
            "collator that keeps only the tokens loses them; DataCollatorWithPacking does not.)"
        )
    raise ValueError(
        f"The prompt has {num_tokens} image tokens (id {image_token_id}), but its pages make {num_embeddings} visual "
        "embeddings: write t * h * w / spatial_merge_size**2 image tokens for each row of image_grid_thw, as the "
        "processor does, and truncate neither."
    )
