# SPDX-License-Identifier: Apache-2.0
"""HybridCtx model: pages of a document as visual embeddings beside its exact spans as token embeddings.

The towers, their weights and their names are those of the GLM-4V family in transformers. What differs is how pages go
in: as uint8, many at once, and into one buffer of embeddings.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
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
from .modules.generation import GeneratesFromFusedContext
from .modules.input_checks import check_image_tokens, check_pixels
from .modules.latent_encoder import HybridCtxLatentEncoder, ReadsLatents
from .modules.loading import CompleteLoading
from .modules.positions import keep_rope_deltas, positions_of_embeddings, rope_index
from .modules.vision_tower import HybridCtxVisionPatchEmbed, in_page_order, page_batches, reads_pages
from .progress import tell
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


class HybridCtxModel(CompleteLoading, TravelsWithCode, ReadsLatents, Glm4vModel):
    """
    Vision tower, phi, latent encoder and text tower: the fused context's hidden states.

    Pages, latents and tokens may stand in any order; each page's visual embeddings go where its image tokens are, each
    chunk's latents where its latent tokens are.
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
        self.visual.mlp_width = self.visual.blocks[0].mlp.gate_proj.out_features  # engines fuse that layer away
        for block in self.visual.blocks:
            block.attn = reads_pages(block.attn)
        self.language_model: Any = AutoModel.from_config(config.text_config)
        self.phi = HybridCtxResidualAdapter(config) if config.phi == "residual_adapter" else nn.Identity()
        self.latent = None if config.latent_config is None else HybridCtxLatentEncoder(config)
        # rows as in mm_token_type_ids: text, page
        self.modality_embedding = (
            nn.Embedding(2, config.text_config.hidden_size) if config.modality_embedding else None
        )
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        # told by identity: outside of transformers, only modules with parameters of their own are initialised
        if module is self.modality_embedding or module is getattr(self.phi, "up", None):
            init.zeros_(module.weight)

    def _read_batch(
        self, pixel_values: torch.Tensor, grid: tuple[int, int, int], num_pages: int, kwargs: dict[str, Any]
    ) -> BaseModelOutputWithPooling:
        """The tower's outputs for pages of one grid; the pooled, `[visual tokens, hidden]`, ready for the decoder."""
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
        outputs.pooler_output = hidden_states
        return outputs

    def _read_pages(
        self, pixel_values: torch.Tensor, image_grid_thw: torch.Tensor, kwargs: dict[str, Any]
    ) -> Iterator[tuple[list[int], BaseModelOutputWithPooling]]:
        """Pages in batches of equal grids: the numbers of a batch's pages, and what the tower makes of them."""
        check_pixels(pixel_values, image_grid_thw, self.config.vision_config)
        grids = image_grid_thw.tolist()
        patches = pixel_values.split([t * h * w for t, h, w in grids])
        for grid, pages in page_batches(self.visual, grids, self.config.vision_batch_bytes):
            yield pages, self._read_batch(torch.cat([patches[page] for page in pages]), grid, len(pages), kwargs)

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
            `[t * h * w / spatial_merge_size**2, hidden_size]`, ready for the decoder. `last_hidden_state` is the tower's
            before its merger, for all visual tokens; `hidden_states` and `attentions`, where they are asked for, are the
            tower's after each layer, for all patches, pages in order.

        Raises:
            `ValueError`: pixels and grids that do not fit each other or the tower, before the tower runs.
        """
        batches = list(self._read_pages(pixel_values, image_grid_thw, dict(kwargs)))
        pages, outputs = [pages for pages, _ in batches], [output for _, output in batches]

        def all_layers(name: str) -> tuple[torch.Tensor | None, ...] | None:
            layers = [output.get(name) for output in outputs]
            if layers[0] is None:
                return None
            # a layer that was not asked for is None
            return tuple(
                None if layer[0] is None else torch.cat(in_page_order(pages, list(layer))) for layer in zip(*layers)
            )

        return BaseModelOutputWithPooling(
            last_hidden_state=torch.cat(in_page_order(pages, [output.last_hidden_state for output in outputs])),
            # as in the family, a tuple: one tensor for each page
            pooler_output=in_page_order(pages, [output.pooler_output for output in outputs]),
            hidden_states=all_layers("hidden_states"),
            attentions=all_layers("attentions"),
        )

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
        return rope_index(self.config, mm_token_type_ids, image_grid_thw, video_grid_thw, attention_mask)

    def compute_3d_position_ids(
        self,
        input_ids: torch.Tensor | None,
        inputs_embeds: torch.Tensor,
        image_grid_thw: torch.Tensor | None = None,
        video_grid_thw: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        mm_token_type_ids: torch.Tensor | None = None,
    ) -> torch.Tensor | None:
        """
        M-RoPE positions `(3, batch_size, sequence_length)` of the tokens of a forward pass, behind those of its cache;
        `None` where they are simply counted. Token types are those of `input_ids` where none are given.

        Raises:
            `ValueError`: pages among embeddings, of which only `mm_token_type_ids` can say where they are.
        """
        return positions_of_embeddings(
            self.config,
            input_ids,
            inputs_embeds,
            image_grid_thw,
            video_grid_thw,
            attention_mask,
            past_key_values,
            mm_token_type_ids,
        )

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
        latent_input_ids: torch.Tensor | None = None,
        latent_attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple | BaseModelOutputWithPast:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
                The prompt, with `image_token_id` wherever a visual embedding goes, `latent_token_id` for latents.
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
                0 text or latent, 1 page. Needed with `image_grid_thw`.
            mm_encoder_outputs (`dict[str, BaseModelOutputWithPooling]`, *optional*):
                What `get_image_features` returned, under `"image"`, instead of `pixel_values`; what
                `get_latent_features` returned, under `"latent"`, instead of `latent_input_ids`.
            latent_input_ids, latent_attention_mask (`torch.LongTensor` of shape `(num_chunks, longest)`, *optional*):
                Chunks of text, see [`~HybridCtxModel.get_latent_features`], in the order of their latent tokens.

        Returns:
            `BaseModelOutputWithPast`: hidden states `[batch_size, sequence_length, hidden_size]` and the cache.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("You must specify exactly one of input_ids or inputs_embeds")
        image_outputs: Any = (mm_encoder_outputs or {}).get("image")
        chunks = (latent_input_ids, latent_attention_mask, (mm_encoder_outputs or {}).get("latent"))
        if pixel_values is not None and image_outputs is not None:
            raise ValueError("You cannot specify both pixel_values and mm_encoder_outputs at the same time")
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)

        # everything that can be wrong is found before an encoder runs
        image_token_id = self.config.image_token_id
        past_length = 0 if past_key_values is None else past_key_values.get_seq_length()
        has_pages = pixel_values is not None or image_outputs is not None
        if has_pages:
            if input_ids is not None:
                is_visual = input_ids == image_token_id
            elif mm_token_type_ids is not None:
                is_visual = mm_token_type_ids[:, -inputs_embeds.shape[1] :] == 1
            else:
                raise ValueError("inputs_embeds with pages need mm_token_type_ids, 1 where a visual embedding goes.")
            where = is_visual.to(inputs_embeds.device).nonzero(as_tuple=True)
        elif input_ids is not None and not (torch.compiler.is_compiling() or input_ids.is_meta or past_length):
            check_image_tokens(int((input_ids == image_token_id).count_nonzero()), 0, image_token_id)
        if pixel_values is not None:
            check_pixels(pixel_values, image_grid_thw, self.config.vision_config)
            num_embeddings = pixel_values.shape[0] // self.visual.spatial_merge_size**2
            check_image_tokens(len(where[0]), num_embeddings, image_token_id)
        latent_places = self.find_latents(input_ids, *chunks, is_continued=bool(past_length))
        if position_ids is None:
            if has_pages and image_grid_thw is None:
                raise ValueError("mm_encoder_outputs need image_grid_thw, or position_ids that were found with it.")
            position_ids = self.compute_3d_position_ids(
                input_ids=input_ids,
                inputs_embeds=inputs_embeds,
                image_grid_thw=image_grid_thw,
                attention_mask=attention_mask,
                past_key_values=past_key_values,
                mm_token_type_ids=mm_token_type_ids,
            )

        if has_pages:
            pooled: Any = None if image_outputs is None else image_outputs.pooler_output
            if pixel_values is not None:  # of the tower's layers nothing is kept: what is asked for is the decoder's
                options = {**kwargs, "output_hidden_states": False, "output_attentions": False, "return_dict": True}
                pooled = self.get_image_features(pixel_values, image_grid_thw, **options).pooler_output
            visual_embeds = torch.cat(tuple(pooled)).to(inputs_embeds.device, inputs_embeds.dtype)
            check_image_tokens(len(where[0]), len(visual_embeds), image_token_id)
            inputs_embeds = inputs_embeds.index_put(where, visual_embeds)
        if latent_places is not None:
            inputs_embeds = self.put_latents(inputs_embeds, latent_places, *chunks)
        if self.modality_embedding is not None:
            text = torch.zeros(1, dtype=torch.long, device=inputs_embeds.device)
            inputs_embeds = inputs_embeds + self.modality_embedding(text)

        outputs = self.language_model(
            input_ids=None,
            position_ids=position_ids,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        if not torch.compiler.is_compiling():
            keep_rope_deltas(outputs.past_key_values, position_ids, attention_mask, past_length)
            if inputs_embeds.shape[1] > 1:  # not an answer's next token
                tell("tokens read", past_length + inputs_embeds.shape[1])
        return outputs


class HybridCtxForCausalLM(CompleteLoading, TravelsWithCode, GeneratesFromFusedContext, Glm4vForConditionalGeneration):
    """The fused context, and the answer's tokens: [`HybridCtxModel`] with a language-modelling head."""

    config: HybridCtxConfig
    input_modalities = ("image", "text")
    _no_split_modules = None

    def __init__(self, config: HybridCtxConfig) -> None:
        PreTrainedModel.__init__(self, config)  # not Glm4vForConditionalGeneration's, which would build its own model
        self.model = HybridCtxModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

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
        latent_input_ids: torch.Tensor | None = None,
        latent_attention_mask: torch.Tensor | None = None,
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
            latent_input_ids=latent_input_ids,
            latent_attention_mask=latent_attention_mask,
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


AutoModel.register(HybridCtxConfig, HybridCtxModel, exist_ok=True)
for auto_class in (AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMultimodalLM):
    auto_class.register(HybridCtxConfig, HybridCtxForCausalLM, exist_ok=True)

__all__ = ["HybridCtxForCausalLM", "HybridCtxModel"]
