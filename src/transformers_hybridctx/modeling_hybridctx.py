# SPDX-License-Identifier: Apache-2.0
"""HybridCtx model: pages of a document as visual embeddings beside its exact spans as token embeddings.

The towers, their weights and their names are those of the GLM-4V family in transformers. What differs is how pages go
in: as uint8, many at once, and into one buffer of embeddings.
"""

from collections import defaultdict
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    GenerationMixin,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache
from transformers.generation.configuration_utils import GenerationMode
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    BaseModelOutputWithPooling,
    CausalLMOutputWithPast,
)
from transformers.modeling_utils import slice_logits_to_keep
from transformers.models.glm4v.modeling_glm4v import (
    Glm4vForConditionalGeneration,
    Glm4vModel,
    Glm4vRMSNorm,
)
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple
from transformers.utils.generic import accepts_precomputed_kwargs
from transformers.vision_utils import get_vision_position_ids

from .configuration_hybridctx import HybridCtxConfig
from .modules.loading import CompleteLoading
from .modules.vision_tower import HybridCtxVisionAttention, HybridCtxVisionPatchEmbed, activation_bytes
from .remote_code import TravelsWithCode


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
        # where gradients begin, for adapters in the tower under (reentrant) checkpointing; the family names no such place
        self.visual._input_embed_layer = "patch_embed"
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

    def _page_batches(self, grids: list[list[int]]) -> list[tuple[tuple[int, int, int], list[int]]]:
        """Splits pages into batches of one grid and at most `vision_batch_bytes`: pairs of grid and page indices."""
        pages_of = defaultdict(list)
        for page, (t, h, w) in enumerate(grids):
            pages_of[t, h, w].append(page)
        batches = []
        limit = self.config.vision_batch_bytes
        for (t, h, w), pages in pages_of.items():
            needed = t * activation_bytes(self.visual, h * w)
            if needed > limit:
                raise ValueError(
                    f"image_grid_thw[{pages[0]}] is {[t, h, w]}: a page of {t * h * w} patches takes about {needed:,} "
                    f"bytes in the vision tower, and vision_batch_bytes={limit:,}; raise it to that or more, or draw the "
                    "page at a smaller scale."
                )
            for start in range(0, len(pages), limit // needed):
                batches.append(((t, h, w), pages[start : start + limit // needed]))
        return batches

    def _read_batch(
        self, pixel_values: torch.Tensor, grid: tuple[int, int, int], num_pages: int, kwargs: dict[str, Any]
    ) -> torch.Tensor:
        """Visual embeddings `[visual tokens, hidden]` of pages of one grid."""
        t, h, w = grid
        num_frames, frame = t * num_pages, torch.tensor([[1, h, w]], device=pixel_values.device)
        # found once for all frames, as they are alike, where the tower would go from frame to frame
        precomputed = {
            "position_ids": get_vision_position_ids(frame, self.visual.spatial_merge_size).repeat(num_frames, 1),
            "cu_seqlens": torch.arange(num_frames + 1, dtype=torch.int32, device=frame.device) * (h * w),
            "max_seqlen": h * w,
        }
        outputs = self.visual(
            pixel_values, grid_thw=frame.expand(num_frames, -1), **kwargs | precomputed | {"return_dict": True}
        )
        hidden_states = self.phi(outputs.pooler_output)
        if self.modality_embedding is not None:
            # forward() adds the text row to every position, and so undoes its subtraction here
            text, page = self.modality_embedding(torch.arange(2, device=hidden_states.device))
            hidden_states = hidden_states + (page - text)
        return hidden_states

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
        for grid, pages in self._page_batches(grids):
            visual_embeds = self._read_batch(torch.cat([patches[page] for page in pages]), grid, len(pages), kwargs)
            embeddings |= zip(pages, visual_embeds.chunk(len(pages)))
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

    def _prepare_cache_for_generation(
        self, generation_config: Any, model_kwargs: dict[str, Any], generation_mode: Any, *args: Any
    ) -> Any:
        # both would read the whole prompt again behind what the cache holds, and answer wrongly without a word
        cache = model_kwargs.get("past_key_values")
        if cache is not None and cache.get_seq_length():
            if generation_mode == GenerationMode.ASSISTED_GENERATION:
                raise ValueError(
                    "transformers' assisted generation (prompt_lookup_num_tokens, assistant_model) cannot begin from "
                    f"past_key_values, which hold {int(cache.get_seq_length())} tokens: leave out one of them."
                )
            if generation_config.use_cache is False:
                raise ValueError(
                    "use_cache=False contradicts past_key_values that hold tokens: leave out one of them."
                )
        return super()._prepare_cache_for_generation(generation_config, model_kwargs, generation_mode, *args)

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
