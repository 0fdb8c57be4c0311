# SPDX-License-Identifier: Apache-2.0
"""M-RoPE positions, found for all tokens at once, and how they go on behind a cache."""

from typing import Any

import torch
from transformers import PreTrainedConfig

from .input_checks import check_grid, check_image_tokens


def rope_index(
    config: PreTrainedConfig,
    mm_token_type_ids: torch.Tensor,
    image_grid_thw: torch.Tensor | None = None,
    video_grid_thw: torch.Tensor | None = None,
    attention_mask: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    A text token moves the position on by one. A page's tokens share the position where the page begins, plus their row
    and column; the whole page moves the position on by its longer side.

    Args:
        config: the model's.
        mm_token_type_ids: int `[batch, sequence]`, 0 text, 1 page, 2 video.
        image_grid_thw: int64 `[pages, 3]`, pages in the order of the batch's rows.
        video_grid_thw: int64 `[videos, 3]`; each frame counts as a page.
        attention_mask: `[batch, sequence]`, 0 on padding, which gets position 0.

    Returns:
        Positions `[3, batch, sequence]` in time, height and width; and, `[batch, 1]`, what to add to the number of
        tokens to get the next position.

    Raises:
        `ValueError`: grids that do not fit the tokens.
    """
    if video_grid_thw is not None:
        video_grid_thw = video_grid_thw.repeat_interleave(video_grid_thw[:, 0], dim=0)
        video_grid_thw = torch.cat([torch.ones_like(video_grid_thw[:, :1]), video_grid_thw[:, 1:]], dim=1)
    merge_size = config.vision_config.spatial_merge_size
    attended = torch.ones_like(mm_token_type_ids).bool() if attention_mask is None else attention_mask.bool()
    step = attended.long()  # how far each token moves the position on
    offset = step.new_zeros(3, *step.shape)  # where each token is in its page
    for token_type, grid_thw in ((1, image_grid_thw), (2, video_grid_thw)):
        if grid_thw is None:
            continue
        check_grid(grid_thw, merge_size)
        where = ((mm_token_type_ids == token_type) & attended).nonzero(as_tuple=True)
        grid_thw = grid_thw.to(step.device)
        t, h, w = grid_thw[:, 0], grid_thw[:, 1] // merge_size, grid_thw[:, 2] // merge_size
        size = t * h * w
        check_image_tokens(len(where[0]), int(size.sum()), config.image_token_id)
        page = torch.arange(len(size), device=step.device).repeat_interleave(size)
        index = torch.arange(len(page), device=step.device) - (size.cumsum(0) - size)[page]
        h, w, size = h[page], w[page], size[page]
        offset[:, where[0], where[1]] = torch.stack([index // (h * w), index // w % h, index % w])
        # the page's last token moves the position on for all of them
        step[where] = torch.where(index == size - 1, torch.maximum(h, w), 0)
    position_ids = (step.cumsum(-1) - step + offset).masked_fill(~attended, 0)
    rope_deltas = position_ids.amax((0, 2)) + 1 - attended.sum(-1)
    return position_ids, rope_deltas.unsqueeze(1)


def positions_behind_cache(
    config: PreTrainedConfig,
    mm_token_type_ids: torch.Tensor,
    cache: Any,
    image_grid_thw: torch.Tensor | None = None,
    attention_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """
    M-RoPE positions `[3, batch, sequence]` of tokens that come after those of a cache.

    Args:
        config: the model's.
        mm_token_type_ids: int `[batch, sequence]` of the new tokens.
        cache: what [`keep_rope_deltas`] has seen; one that it has not is taken to hold text alone.
        image_grid_thw: int64 `[pages, 3]` of the new tokens' pages.
        attention_mask: `[batch, cached + sequence]`, 0 on padding.
    """
    batch_size, length = mm_token_type_ids.shape
    past, mask = cache.get_seq_length(), None
    if attention_mask is not None and attention_mask.ndim == 2 and attention_mask.shape[1] > length:
        past, mask = attention_mask[:, :-length].sum(-1), attention_mask[:, -length:]
    positions, _ = rope_index(config, mm_token_type_ids, image_grid_thw, attention_mask=mask)
    start = torch.as_tensor(past, device=positions.device).view(-1, 1)
    return positions + start + rope_deltas_of(cache, batch_size, positions.device)


def keep_rope_deltas(
    cache: Any, position_ids: torch.Tensor | None, attention_mask: torch.Tensor | None, past_length: Any
) -> None:
    """
    Note with a cache how its next position differs from the number of its tokens: each cache knows its own document,
    whichever other the model has read since, in this thread or another.

    Args:
        cache: that has taken tokens up in a forward pass.
        position_ids: `[3 or 4, batch, sequence]` of these tokens; None where they are simply counted.
        attention_mask: of that pass.
        past_length: tokens that the cache had before.
    """
    if cache is None:
        return
    if position_ids is None:
        cache.rope_deltas = None
        return
    last = position_ids[-3:].amax((0, 2)) if position_ids.ndim == 3 else position_ids.amax(1)
    tokens = past_length + position_ids.shape[-1]
    if attention_mask is not None and attention_mask.ndim == 2:
        tokens = attention_mask.sum(-1)
    cache.rope_deltas = last + 1 - tokens


def rope_deltas_of(cache: Any, batch_size: int, device: torch.device) -> torch.Tensor:
    """What to add to the number of a cache's tokens for their next position, `[batch_size, 1]`."""
    deltas = getattr(cache, "rope_deltas", None)
    if deltas is None:
        return torch.zeros(batch_size, 1, dtype=torch.long, device=device)
    # beams and returned sequences are rows that stand beside those that they come from
    return deltas.to(device).repeat_interleave(batch_size // len(deltas)).unsqueeze(1)


def positions_of_embeddings(
    config: PreTrainedConfig,
    input_ids: torch.Tensor | None,
    inputs_embeds: torch.Tensor,
    image_grid_thw: torch.Tensor | None,
    video_grid_thw: torch.Tensor | None,
    attention_mask: torch.Tensor | None,
    past_key_values: Any,
    mm_token_type_ids: torch.Tensor | None,
) -> torch.Tensor | None:
    """As `HybridCtxModel.compute_3d_position_ids`, for the model of a config."""
    batch_size, length, _ = inputs_embeds.shape
    types, has_pages = mm_token_type_ids, image_grid_thw is not None or video_grid_thw is not None
    if types is None and input_ids is not None:
        types = (input_ids == config.image_token_id).int()
    elif types is None and has_pages:
        raise ValueError("inputs_embeds with pages need mm_token_type_ids, 1 where a visual embedding goes.")
    elif types is None:
        types = torch.zeros(batch_size, length, dtype=torch.int, device=inputs_embeds.device)
    types = types[:, -length:]
    past_length = 0 if past_key_values is None else past_key_values.get_seq_length()
    if past_length:
        is_page_new = image_grid_thw is not None and bool(types.any())
        new_grids = image_grid_thw if is_page_new else None
        return positions_behind_cache(config, types, past_key_values, new_grids, attention_mask)
    mask = attention_mask if attention_mask is not None and attention_mask.ndim == 2 else None
    if not has_pages and mask is None:
        return None
    positions, _ = rope_index(config, types, image_grid_thw, video_grid_thw, mask)
    return positions
