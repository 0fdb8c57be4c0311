# SPDX-License-Identifier: Apache-2.0
"""HybridCtx model: pages of a document as visual embeddings beside its exact spans as token embeddings.

The towers, their weights and their names are those of the GLM-4V family in transformers. What differs is how pages go
in: as uint8, many at once, and into one buffer of embeddings.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    BaseModelOutputWithPooling,
    CausalLMOutputWithPast,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, slice_logits_to_keep
from transformers.models.glm4v.modeling_glm4v import (
    Glm4vForConditionalGeneration,
    Glm4vModel,
    Glm4vRMSNorm,
    apply_rotary_pos_emb_vision,
    eager_attention_forward,
)
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple
from transformers.utils.generic import accepts_precomputed_kwargs, get_max_seqlen, is_flash_attention_requested
from transformers.vision_utils import get_vision_position_ids

from .checkpoint_loading import CompleteLoading
from .configuration_hybridctx import HybridCtxConfig
from .remote_code import TravelsWithCode


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
        if not isinstance(self.proj, nn.Conv3d):  # wrapped by an adapter, whose own forward has to run
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
        super().__init__()
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


class HybridCtxResidualAdapter(nn.Module):
    """Phi as a bottleneck MLP beside the identity: `x + up(act(down(norm(x))))`. `up` starts at zero."""

    def __init__(self, config: HybridCtxConfig) -> None:
        super().__init__()
        hidden_size = config.text_config.hidden_size
        bottleneck = config.phi_bottleneck or max(1, hidden_size // 4)
        self.norm = Glm4vRMSNorm(hidden_size, eps=config.text_config.rms_norm_eps)
        self.down = nn.Linear(hidden_size, bottleneck, bias=False)
        self.act_fn = ACT2FN[config.text_config.hidden_act]
        self.up = nn.Linear(bottleneck, hidden_size, bias=False)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """`[..., hidden]` to `[..., hidden]`."""
        return hidden_states + self.up(self.act_fn(self.down(self.norm(hidden_states))))


class HybridCtxModel(CompleteLoading, TravelsWithCode, Glm4vModel):
    """
    Vision tower, phi and text tower: the fused context's hidden states.

    Pages and tokens may stand in any order; each page's visual embeddings go where its image tokens are.
    """

    config: HybridCtxConfig
    input_modalities = ("image", "text")
    _no_split_modules = None  # each tower names its own

    def __init__(self, config: HybridCtxConfig) -> None:
        PreTrainedModel.__init__(self, config)  # not Glm4vModel's, which would build its own two towers
        self.visual: Any = AutoModel.from_config(config.vision_config)
        self.visual.patch_embed = HybridCtxVisionPatchEmbed(self.visual.patch_embed, config)
        for block in self.visual.blocks:
            block.attn = HybridCtxVisionAttention(block.attn)
        self.language_model: Any = AutoModel.from_config(config.text_config)
        self.phi = HybridCtxResidualAdapter(config) if config.phi == "residual_adapter" else nn.Identity()
        # rows as in mm_token_type_ids: text, page
        self.modality_embedding = (
            nn.Embedding(2, config.text_config.hidden_size) if config.modality_embedding else None
        )
        self.rope_deltas = None
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        # told by identity: outside of transformers, only modules with parameters of their own are initialised
        if module is self.modality_embedding or module is getattr(self.phi, "up", None):
            init.zeros_(module.weight)

    def _check_grid(self, image_grid_thw: torch.Tensor) -> None:
        """Raises `ValueError` where a page cannot be cut into merge blocks."""
        merge_size = self.config.vision_config.spatial_merge_size
        if image_grid_thw.ndim != 2 or image_grid_thw.shape[1] != 3:
            raise ValueError(
                f"image_grid_thw has shape {list(image_grid_thw.shape)}: pass [pages, 3], a row per page."
            )
        for page, (t, h, w) in enumerate(image_grid_thw.tolist()):
            if min(t, h, w) < 1 or h % merge_size or w % merge_size:
                raise ValueError(
                    f"image_grid_thw[{page}] is {[t, h, w]}: height and width in patches must be positive multiples "
                    f"of spatial_merge_size={merge_size}; let the image processor resize the page."
                )

    def _check_pixels(self, pixel_values: torch.Tensor, image_grid_thw: torch.Tensor | None) -> None:
        """Raises `ValueError` where pixels do not fit their grid or the vision tower."""
        if image_grid_thw is None:
            raise ValueError(
                "pixel_values came without image_grid_thw: pass both, as the image processor returns them."
            )
        self._check_grid(image_grid_thw)
        if not len(image_grid_thw):
            raise ValueError("image_grid_thw has no rows: leave it and pixel_values out where a prompt has no pages.")
        num_patches = int(image_grid_thw.prod(-1).sum())
        if pixel_values.ndim != 2 or pixel_values.shape[0] != num_patches:
            raise ValueError(
                f"pixel_values has shape {list(pixel_values.shape)}, but image_grid_thw adds up to {num_patches} "
                f"patches: pass [{num_patches}, patch width], all pages one after another."
            )
        config = self.config.vision_config
        area = config.patch_size**2
        if pixel_values.dtype == torch.uint8:
            widths = [area, config.in_channels * area]
        elif pixel_values.is_floating_point():
            widths = [config.in_channels * config.temporal_patch_size * area]
        else:
            raise ValueError(
                f"pixel_values has dtype {pixel_values.dtype}: pass uint8 pixels, or floats that a GLM-4V image "
                "processor has normalised."
            )
        if pixel_values.shape[1] not in widths:
            raise ValueError(
                f"pixel_values of dtype {pixel_values.dtype} is {pixel_values.shape[1]} wide, but the vision tower "
                f"reads patches of {config.patch_size} x {config.patch_size} pixels, {' or '.join(map(str, widths))} "
                "wide: give the image processor the tower's patch_size and temporal_patch_size."
            )

    def _check_image_tokens(self, num_tokens: int, num_embeddings: int) -> None:
        """Raises `ValueError` where image tokens and visual embeddings cannot be paired."""
        if num_tokens != num_embeddings:
            raise ValueError(
                f"The prompt has {num_tokens} image tokens (id {self.config.image_token_id}), but its pages make "
                f"{num_embeddings} visual embeddings: write t * h * w / spatial_merge_size**2 image tokens for each "
                "row of image_grid_thw, as the processor does, and truncate neither."
            )

    def _page_batches(self, grids: list[list[int]]) -> Iterator[tuple[tuple[int, int, int], list[int]]]:
        """Splits pages into batches of one grid and at most `vision_batch_patches`: pairs of grid and page indices."""
        pages_of = defaultdict(list)
        for page, (t, h, w) in enumerate(grids):
            pages_of[t, h, w].append(page)
        for (t, h, w), pages in pages_of.items():
            batch_size = max(1, self.config.vision_batch_patches // (t * h * w))
            for start in range(0, len(pages), batch_size):
                yield (t, h, w), pages[start : start + batch_size]

    @accepts_precomputed_kwargs(modality="image")
    @can_return_tuple
    def get_image_features(
        self,
        pixel_values: torch.Tensor,
        image_grid_thw: torch.Tensor,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | BaseModelOutputWithPooling:
        """
        Reads pages into visual embeddings, in batches of equal grids.

        Args:
            pixel_values (`torch.Tensor` of shape `(num_patches, patch_width)`):
                All pages' patches: uint8 from [`HybridCtxImageProcessor`] (grey or colour), or floats as transformers'
                own image processors make them.
            image_grid_thw (`torch.LongTensor` of shape `(num_pages, 3)`):
                Each page's frames (1), height and width in patches.

        Returns:
            `BaseModelOutputWithPooling`: `pooler_output` holds, for each page, its embeddings
            `[t * h * w / spatial_merge_size**2, hidden_size]`, ready for the decoder.

        Raises:
            `ValueError`: pixels and grids that do not fit each other or the tower, before the tower runs.
        """
        self._check_pixels(pixel_values, image_grid_thw)
        grids = image_grid_thw.tolist()
        patches = pixel_values.split([t * h * w for t, h, w in grids])
        embeddings: dict[int, torch.Tensor] = {}
        for (t, h, w), pages in self._page_batches(grids):
            num_frames, frame = t * len(pages), image_grid_thw.new_tensor([[1, h, w]])
            # found once for all frames, as they are alike, where the tower would go from frame to frame
            precomputed = {
                "position_ids": get_vision_position_ids(frame, self.visual.spatial_merge_size).repeat(num_frames, 1),
                "cu_seqlens": torch.arange(num_frames + 1, dtype=torch.int32, device=frame.device) * (h * w),
                "max_seqlen": h * w,
            }
            outputs = self.visual(
                torch.cat([patches[page] for page in pages]),
                grid_thw=frame.expand(num_frames, -1),
                **kwargs | precomputed | {"return_dict": True},
            )
            hidden_states = self.phi(outputs.pooler_output)
            if self.modality_embedding is not None:
                # forward() adds the text row to every position, and so undoes its subtraction here
                text, page = self.modality_embedding(torch.arange(2, device=hidden_states.device))
                hidden_states = hidden_states + (page - text)
            embeddings |= zip(pages, hidden_states.chunk(len(pages)))
        # as in the family, a tuple: one tensor for each page
        return BaseModelOutputWithPooling(pooler_output=tuple(embeddings[page] for page in range(len(grids))))

    def get_rope_index(
        self,
        input_ids: torch.Tensor,
        mm_token_type_ids: torch.Tensor,
        image_grid_thw: torch.Tensor | None = None,
        video_grid_thw: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        M-RoPE positions, for all tokens at once.

        A text token moves the position on by one. A page's tokens share the position where the page begins, plus their
        row and column; the whole page moves the position on by its longer side.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`):
                Tokens; only the shape matters.
            mm_token_type_ids (`torch.IntTensor` of shape `(batch_size, sequence_length)`):
                0 text, 1 page, 2 video.
            image_grid_thw (`torch.LongTensor` of shape `(num_pages, 3)`, *optional*):
                Pages in the order of the batch's rows.
            video_grid_thw (`torch.LongTensor` of shape `(num_videos, 3)`, *optional*):
                Videos, each of whose frames counts as a page.
            attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
                0 on padding, which gets position 0.

        Returns:
            Positions `(3, batch_size, sequence_length)` in time, height and width; and, `(batch_size, 1)`, what to add
            to the number of tokens to get the next position.
        """
        if video_grid_thw is not None:
            video_grid_thw = video_grid_thw.repeat_interleave(video_grid_thw[:, 0], dim=0)
            video_grid_thw = torch.cat([torch.ones_like(video_grid_thw[:, :1]), video_grid_thw[:, 1:]], dim=1)
        merge_size = self.config.vision_config.spatial_merge_size
        attended = torch.ones_like(input_ids).bool() if attention_mask is None else attention_mask.bool()
        step = attended.long()  # how far each token moves the position on
        offset = step.new_zeros(3, *step.shape)  # where each token is in its page
        for token_type, grid_thw in ((1, image_grid_thw), (2, video_grid_thw)):
            if grid_thw is None:
                continue
            self._check_grid(grid_thw)
            where = ((mm_token_type_ids == token_type) & attended).nonzero(as_tuple=True)
            grid_thw = grid_thw.to(step.device)
            t, h, w = grid_thw[:, 0], grid_thw[:, 1] // merge_size, grid_thw[:, 2] // merge_size
            size = t * h * w
            self._check_image_tokens(len(where[0]), int(size.sum()))
            page = torch.arange(len(size), device=step.device).repeat_interleave(size)
            index = torch.arange(len(page), device=step.device) - (size.cumsum(0) - size)[page]
            h, w, size = h[page], w[page], size[page]
            offset[:, where[0], where[1]] = torch.stack([index // (h * w), index // w % h, index % w])
            # the page's last token moves the position on for all of them
            step[where] = torch.where(index == size - 1, torch.maximum(h, w), 0)
        position_ids = (step.cumsum(-1) - step + offset).masked_fill(~attended, 0)
        rope_deltas = position_ids.amax((0, 2)) + 1 - attended.sum(-1)
        return position_ids, rope_deltas.unsqueeze(1)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
        mm_token_type_ids: torch.Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | BaseModelOutputWithPast:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
                The prompt, with `image_token_id` wherever a visual embedding goes.
            attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
                0 on padding.
            position_ids (`torch.LongTensor` of shape `(3 or 4, batch_size, sequence_length)`, *optional*):
                M-RoPE positions; found by [`~HybridCtxModel.get_rope_index`] when `None`.
            past_key_values (`Cache`, *optional*):
                Keys and values of the tokens before these.
            inputs_embeds (`torch.Tensor` of shape `(batch_size, sequence_length, hidden_size)`, *optional*):
                Token embeddings instead of `input_ids`; with pages, `mm_token_type_ids` says where they go.
            pixel_values (`torch.Tensor` of shape `(num_patches, patch_width)`, *optional*):
                Pages, see [`~HybridCtxModel.get_image_features`].
            image_grid_thw (`torch.LongTensor` of shape `(num_pages, 3)`, *optional*):
                Each page's frames, height and width in patches.
            mm_token_type_ids (`torch.IntTensor` of shape `(batch_size, sequence_length)`, *optional*):
                0 text, 1 page. Needed with `image_grid_thw`.
            mm_encoder_outputs (`dict[str, BaseModelOutputWithPooling]`, *optional*):
                What `get_image_features` returned, under `"image"`, instead of `pixel_values`.

        Returns:
            `BaseModelOutputWithPast`: hidden states `[batch_size, sequence_length, hidden_size]` and the cache.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("You must specify exactly one of input_ids or inputs_embeds")
        image_outputs: Any = (mm_encoder_outputs or {}).get("image")
        if pixel_values is not None and image_outputs is not None:
            raise ValueError("You cannot specify both pixel_values and mm_encoder_outputs at the same time")
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)

        # everything that can be wrong is found before the vision tower runs
        if pixel_values is not None or image_outputs is not None:
            if input_ids is not None:
                is_visual = input_ids == self.config.image_token_id
            elif mm_token_type_ids is not None:
                is_visual = mm_token_type_ids == 1
            else:
                raise ValueError("inputs_embeds with pages need mm_token_type_ids, 1 where a visual embedding goes.")
            where = is_visual.to(inputs_embeds.device).nonzero(as_tuple=True)
        if pixel_values is not None:
            self._check_pixels(pixel_values, image_grid_thw)
            merge_length = self.visual.spatial_merge_size**2
            self._check_image_tokens(len(where[0]), pixel_values.shape[0] // merge_length)
        if position_ids is None:
            position_ids = self.compute_3d_position_ids(
                input_ids=input_ids,
                inputs_embeds=inputs_embeds,
                image_grid_thw=image_grid_thw,
                attention_mask=attention_mask,
                past_key_values=past_key_values,
                mm_token_type_ids=mm_token_type_ids,
            )

        if pixel_values is not None:
            image_outputs = self.get_image_features(pixel_values, image_grid_thw, return_dict=True, **kwargs)
        if image_outputs is not None:
            visual_embeds = torch.cat(tuple(image_outputs.pooler_output)).to(inputs_embeds.device, inputs_embeds.dtype)
            self._check_image_tokens(len(where[0]), len(visual_embeds))
            inputs_embeds = inputs_embeds.index_put(where, visual_embeds)
        if self.modality_embedding is not None:
            text = torch.zeros(1, dtype=torch.long, device=inputs_embeds.device)
            inputs_embeds = inputs_embeds + self.modality_embedding(text)

        return self.language_model(
            input_ids=None,
            position_ids=position_ids,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )


class HybridCtxForCausalLM(CompleteLoading, TravelsWithCode, Glm4vForConditionalGeneration):
    """The fused context, and the answer's tokens: [`HybridCtxModel`] with a language-modelling head."""

    config: HybridCtxConfig
    input_modalities = ("image", "text")
    _no_split_modules = None

    def __init__(self, config: HybridCtxConfig) -> None:
        PreTrainedModel.__init__(self, config)  # not Glm4vForConditionalGeneration's, which would build its own model
        self.model = HybridCtxModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    # GLM-4V's own repeats page by page for beams (A, A, B, B), where each beam needs all pages in order (A, B, A, B).
    _expand_multimodal_outputs = GenerationMixin._expand_multimodal_outputs

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
        mm_token_type_ids: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | CausalLMOutputWithPast:
        """
        Takes what [`HybridCtxModel`] takes, and:

        Args:
            labels (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
                Tokens to predict, not shifted; -100 carries no loss.
            logits_to_keep (`int` or `torch.Tensor`, *optional*, defaults to 0):
                How many of the last positions get logits (0: all), or which ones.

        Returns:
            `CausalLMOutputWithPast`: the loss, where there are labels, logits `[batch_size, kept, vocab_size]` and the
            cache.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            pixel_values=pixel_values,
            image_grid_thw=image_grid_thw,
            mm_token_type_ids=mm_token_type_ids,
            mm_encoder_outputs=mm_encoder_outputs,
            **kwargs,
        )
        logits = self.lm_head(slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep))
        loss = None
        if labels is not None:
            vocab_size = self.config.text_config.vocab_size
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _prepare_position_ids_for_generation(
        self, inputs_tensor: torch.Tensor, model_kwargs: dict[str, Any]
    ) -> torch.Tensor:
        # `rope_deltas` remembers the last prompt, but a cache may hold an earlier one. Where the prompt's grids are at
        # hand, or it is known to have none, positions are found anew.
        token_types, attention_mask = model_kwargs.get("mm_token_type_ids"), model_kwargs["attention_mask"]
        is_text = token_types is not None and token_types.shape == attention_mask.shape and not token_types.any()
        if is_text or model_kwargs.get("image_grid_thw") is not None:
            self.model.rope_deltas = None
        return super()._prepare_position_ids_for_generation(inputs_tensor, model_kwargs)


AutoModel.register(HybridCtxConfig, HybridCtxModel, exist_ok=True)
for auto_class in (AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMultimodalLM):
    auto_class.register(HybridCtxConfig, HybridCtxForCausalLM, exist_ok=True)

__all__ = ["HybridCtxForCausalLM", "HybridCtxModel"]
