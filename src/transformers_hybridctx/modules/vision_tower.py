# SPDX-License-Identifier: Apache-2.0
"""The GLM-4V family's vision tower, made to read many uint8 pages at once, and what that takes in memory."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.glm4v.modeling_glm4v import (
    Glm4vVisionAttention,
    apply_rotary_pos_emb_vision,
    eager_attention_forward,
)
from transformers.models.glm4v_moe.modeling_glm4v_moe import Glm4vMoeVisionAttention
from transformers.models.glm_ocr.modeling_glm_ocr import GlmOcrVisionAttention
from transformers.utils.generic import get_max_seqlen, is_flash_attention_requested

from ..configuration_hybridctx import HybridCtxConfig


class HybridCtxVisionPatchEmbed(nn.Module):
    """
    The family's patch convolution, which also reads uint8 pages.

    A uint8 patch holds each pixel once: `patch * patch` bytes where the page is grey, three times that in colour. What
    the tower expects is `(pixel * rescale_factor - mean) / std` in each of its channels and frames. That is linear in
    the pixel, so it is folded into the convolution's weight and bias: exact, and differentiable.

    Args:
        patch_embed: the family's module; its convolution `proj` is taken over, name and all.
        config: states `image_mean`, `image_std` and `rescale_factor`.
    """

    def __init__(self, patch_embed: Any, config: HybridCtxConfig) -> None:
        super().__init__()
        self.proj: Any = patch_embed.proj
        self.in_channels = config.vision_config.in_channels
        self.temporal_patch_size = config.vision_config.temporal_patch_size
        self.patch_size = config.vision_config.patch_size
        # pixel * scale + shift is the normalised value, for each channel
        self.scale = [config.rescale_factor / std for std in config.image_std]
        self.shift = [-mean / std for mean, std in zip(config.image_mean, config.image_std)]

    def normalize(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """
        The plain version, which defines the fold: uint8 `[patches, C * p * p]` to float
        `[patches, in_channels * T * p * p]`, as transformers' image processors make them.
        """
        pixels = pixel_values.float().view(len(pixel_values), -1, 1, self.patch_size**2)
        scale, shift = pixels.new_tensor([self.scale, self.shift]).view(2, -1, 1, 1)
        return (pixels * scale + shift).expand(-1, -1, self.temporal_patch_size, -1).flatten(1)

    def fold(self, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight `[hidden, channels * p * p]` and bias `[hidden]` for uint8 pages of 1 or all channels, in float32."""
        weight = self.proj.weight.float().sum(2).flatten(2)  # [hidden, in_channels, p * p]: the frames are equal
        scale, shift = weight.new_tensor([self.scale, self.shift]).unsqueeze(-1)  # [in_channels, 1] each
        bias = self.proj.bias.float() + (weight * shift).sum((1, 2))
        weight = weight * scale
        if channels == 1:
            weight = weight.sum(1, keepdim=True)
        return weight.flatten(1), bias

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """uint8 `[patches, C * p * p]` or float `[patches, in_channels * T * p * p]` to `[patches, hidden]`."""
        is_uint8 = pixel_values.dtype == torch.uint8
        dtype = self.proj.weight.dtype
        # An adapter's own forward has to run, and so has that which brings offloaded weights here.
        if not isinstance(self.proj, nn.Conv3d) or self.proj.weight.is_meta:
            pixel_values = self.normalize(pixel_values) if is_uint8 else pixel_values
            patch = (self.in_channels, self.temporal_patch_size, self.patch_size, self.patch_size)
            return self.proj(pixel_values.to(dtype).view(-1, *patch)).flatten(1)
        if not is_uint8:
            return nn.functional.linear(pixel_values.to(dtype), self.proj.weight.flatten(1), self.proj.bias)
        # in float32, because the bias takes back most of what white paper adds; a small part of the tower's work
        weight, bias = self.fold(channels=pixel_values.shape[1] // self.patch_size**2)
        return nn.functional.linear(pixel_values.float(), weight, bias).to(dtype)


class HybridCtxVisionAttention(nn.Module):
    """
    The family's vision attention, with one call for all pages of a batch where they are equally long.

    Args:
        attention: the family's module; its projections (and GLM-OCR's norms) are taken over, names and all.
    """

    def __init__(self, attention: Any) -> None:
        nn.Module.__init__(self)  # not the family's, which would build its own projections
        self.config: PreTrainedConfig = attention.config
        self.num_heads = attention.num_heads
        self.head_dim = attention.head_dim
        self.num_key_value_groups = 1  # read by eager attention
        self.scaling = attention.scaling
        self.attention_dropout = attention.attention_dropout
        self.is_causal = False
        self.qkv: nn.Module = attention.qkv
        self.proj: nn.Module = attention.proj
        self.q_norm: nn.Module = getattr(attention, "q_norm", nn.Identity())
        self.k_norm: nn.Module = getattr(attention, "k_norm", nn.Identity())

    def forward(
        self,
        hidden_states: torch.Tensor,
        cu_seqlens: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        max_seqlen: int | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """
        Args:
            hidden_states: `[patches, hidden]`, pages one after another.
            cu_seqlens: `[pages + 1]`, where each page begins, and the end.
            position_embeddings: cosines and sines, `[patches, head_dim]` each.
            max_seqlen: patches of the longest page, where the caller knows.

        Returns:
            `[patches, hidden]`; patches see those of their own page.
        """
        num_patches, num_pages = hidden_states.shape[0], cu_seqlens.shape[0] - 1
        query, key, value = self.qkv(hidden_states).view(num_patches, 3, self.num_heads, self.head_dim).unbind(1)
        query, key = apply_rotary_pos_emb_vision(self.q_norm(query), self.k_norm(key), *position_embeddings)

        batch_size, lengths = 1, [num_patches]
        if is_flash_attention_requested(self.config):
            max_seqlen = get_max_seqlen(cu_seqlens, self.config, kwargs={"max_seqlen": max_seqlen})
            kwargs |= {
                "cu_seq_lens_q": cu_seqlens,
                "cu_seq_lens_k": cu_seqlens,
                "max_length_q": max_seqlen,
                "max_length_k": max_seqlen,
            }
        elif max_seqlen is not None and max_seqlen * num_pages == num_patches:  # so each is as long as the longest
            batch_size = num_pages
        else:
            lengths = cu_seqlens.diff().tolist()

        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        shape = (batch_size, -1, self.num_heads, self.head_dim)
        outputs = [
            attention_interface(
                self,
                *(states.view(shape).transpose(1, 2) for states in chunk),
                attention_mask=None,
                scaling=self.scaling,
                dropout=self.attention_dropout if self.training else 0.0,
                is_causal=False,
                **kwargs,
            )[0]
            for chunk in zip(*(states.split(lengths) for states in (query, key, value)))
        ]
        return self.proj(torch.cat([output.reshape(-1, self.num_heads * self.head_dim) for output in outputs]))


# transformers records `output_attentions` of the family's own classes: ours are theirs, too
class _Glm4vPages(HybridCtxVisionAttention, Glm4vVisionAttention):
    pass


class _Glm4vMoePages(HybridCtxVisionAttention, Glm4vMoeVisionAttention):
    pass


class _GlmOcrPages(HybridCtxVisionAttention, GlmOcrVisionAttention):
    pass


_PAGES_OF: dict[type, type[HybridCtxVisionAttention]] = {
    Glm4vVisionAttention: _Glm4vPages,
    Glm4vMoeVisionAttention: _Glm4vMoePages,
    GlmOcrVisionAttention: _GlmOcrPages,
}


def reads_pages(attention: nn.Module) -> HybridCtxVisionAttention:
    """[`HybridCtxVisionAttention`] in place of a tower's own, and of its class as well."""
    return _PAGES_OF.get(type(attention), HybridCtxVisionAttention)(attention)


def page_batches(visual: Any, grids: list[list[int]], limit: int) -> list[tuple[tuple[int, int, int], list[int]]]:
    """
    Splits pages into batches of one grid and at most `limit` bytes of activations: pairs of grid and page numbers.

    Args:
        visual: the tower.
        grids: frames, height and width of each page in patches.
        limit: `vision_batch_bytes`.

    Raises:
        `ValueError`: a page that takes more by itself.
    """
    pages_of = defaultdict(list)
    for page, (t, h, w) in enumerate(grids):
        pages_of[t, h, w].append(page)
    batches = []
    for (t, h, w), pages in pages_of.items():
        needed = t * activation_bytes(visual, h * w)
        if needed > limit:
            raise ValueError(
                f"image_grid_thw[{pages[0]}] is {[t, h, w]}: a page of {t * h * w} patches takes about {needed:,} "
                f"bytes in the vision tower, and vision_batch_bytes={limit:,}; raise it to that or more, or draw the "
                "page at a smaller scale."
            )
        for start in range(0, len(pages), limit // needed):
            batches.append(((t, h, w), pages[start : start + limit // needed]))
    return batches


def in_page_order(pages: list[list[int]], batches: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Each page's part, by its number, of tensors that hold the pages of a batch one after another."""
    parts: dict[int, torch.Tensor] = {}
    for numbers, batch in zip(pages, batches):
        parts |= zip(numbers, batch.chunk(len(numbers)))
    return tuple(parts[page] for page in range(len(parts)))


def activation_bytes(visual: Any, patches: int) -> int:
    """
    About what the tower's activations take for one page at their peak, without gradients, in bytes.

    The most of three moments: attention (residual, norm, queries, keys, values, output, and the rotation in float32),
    the MLP, and the merger after the last layer. Eager attention also holds each head's scores twice.

    Args:
        visual: the tower, whose `mlp_width` is noted while its layers are the family's: engines fuse them.
        patches: of the page.
    """
    config, size = visual.config, visual.dtype.itemsize
    hidden, merged = config.hidden_size, config.spatial_merge_size**2
    attention = 8 * hidden * size + 7 * hidden * 4
    if config._attn_implementation == "eager":
        attention += 2 * config.num_heads * patches * 4
    merger = hidden + 3 * (config.intermediate_size + config.out_hidden_size) // merged
    return patches * max(attention, (3 * hidden + 4 * visual.mlp_width) * size, merger * size)
