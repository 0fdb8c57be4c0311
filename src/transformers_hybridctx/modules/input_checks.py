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


def check_latent_chunks(
    config: PreTrainedConfig, latent_input_ids: torch.Tensor, latent_attention_mask: torch.Tensor | None
) -> None:
    """
    Raises `ValueError` where chunks do not fit the latent encoder.

    Args:
        config: the model's.
        latent_input_ids: int64 `[chunks, longest]`.
        latent_attention_mask: of the same shape, 0 on padding.
    """
    if config.latent_config is None:
        raise ValueError(
            "chunks for latents are given, but the model has no latent encoder (latent_config=None): leave "
            "latent_input_ids out, or load a checkpoint that has one."
        )
    if latent_input_ids.ndim != 2 or not len(latent_input_ids):
        raise ValueError(
            f"latent_input_ids has shape {list(latent_input_ids.shape)}: pass [chunks, longest], a row for each chunk; "
            "leave it out where a prompt has no latents."
        )
    if latent_attention_mask is None:
        lengths = [latent_input_ids.shape[1]] * len(latent_input_ids)
    elif latent_attention_mask.shape != latent_input_ids.shape:
        raise ValueError(
            f"latent_attention_mask has shape {list(latent_attention_mask.shape)}, latent_input_ids "
            f"{list(latent_input_ids.shape)}: pass one value for each token."
        )
    else:
        lengths = latent_attention_mask.count_nonzero(dim=1).tolist()
    positions = getattr(config.latent_config, "max_position_embeddings", None)
    for chunk, length in enumerate(lengths):
        needed = length + config.num_latent_tokens
        if not length:
            raise ValueError(f"chunk {chunk} of latent_input_ids has no tokens: leave it out.")
        for name, most in (
            ("max_position_embeddings", positions),
            ("latent_batch_tokens", config.latent_batch_tokens),
        ):
            if most is not None and needed > most:
                raise ValueError(
                    f"chunk {chunk} of latent_input_ids has {length} tokens, with {config.num_latent_tokens} queries "
                    f"{needed}, more than the latent encoder's {name}={most}: cut the text into shorter chunks."
                )


def check_latent_tokens(config: PreTrainedConfig, input_ids: torch.Tensor, num_latents: int) -> None:
    """Raises `ValueError` where latent tokens and latents cannot be paired."""
    if input_ids.is_meta or torch.compiler.is_compiling():
        return
    found = int((input_ids == config.latent_token_id).count_nonzero())
    if found == num_latents:
        return
    tokens = f"The prompt has {found} latent tokens (id {config.latent_token_id}), but"
    if not num_latents:
        raise ValueError(
            f"{tokens} no chunks came with it, so nothing would stand where they do: pass latent_input_ids and "
            "latent_attention_mask, as the processor returns them. (Data collators that know nothing of latents lose "
            "them, DataCollatorWithPacking among them: train on latents in padded batches.)"
        )
    raise ValueError(
        f"{tokens} its chunks make {num_latents} latents: write num_latent_tokens={config.num_latent_tokens} latent "
        "tokens for each row of latent_input_ids, as the processor does, and truncate neither."
    )
