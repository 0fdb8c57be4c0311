# SPDX-License-Identifier: Apache-2.0
"""What `generate` has to know of pages and latents: their positions, beams, and encoders that run at prefill only."""

from typing import Any

import torch
from transformers import GenerationMixin
from transformers.generation.configuration_utils import GenerationMode
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..configuration_hybridctx import HybridCtxConfig
from .input_checks import check_image_tokens
from .positions import rope_deltas_of, rope_index


class GeneratesFromFusedContext(GenerationMixin):
    """Mixin for the model with a head, before the family's class."""

    config: HybridCtxConfig

    def get_latent_features(
        self, latent_input_ids: torch.Tensor, latent_attention_mask: torch.Tensor | None = None
    ) -> BaseModelOutputWithPooling:
        """As [`HybridCtxModel`]'s."""
        return self.model.get_latent_features(latent_input_ids, latent_attention_mask)

    def _prepare_multimodal_encoder_kwargs_for_generation(self, model_kwargs: dict[str, Any]) -> dict[str, Any]:
        """All encoders run before the decoder's first pass, the latent one too, and not again."""
        chunks = [model_kwargs.pop(name, None) for name in ("latent_input_ids", "latent_attention_mask")]
        model_kwargs = super()._prepare_multimodal_encoder_kwargs_for_generation(model_kwargs)
        if chunks[0] is not None:
            if model_kwargs["mm_encoder_outputs"].get("latent") is not None:
                raise ValueError("latent_input_ids and mm_encoder_outputs['latent'] are both given: pass one of them.")
            model_kwargs["mm_encoder_outputs"]["latent"] = self.get_latent_features(*chunks)
        return model_kwargs

    def _expand_multimodal_outputs(
        self,
        input_ids: torch.Tensor,
        mm_encoder_output: dict[str, Any],
        expand_size: int = 1,
        inputs_embeds: torch.Tensor | None = None,
    ) -> dict[str, Any]:
        """Each beam needs all pages of its prompt in order (A, B, A, B); GLM-4V's own repeats each (A, A, B, B)."""
        expand = GenerationMixin._expand_multimodal_outputs
        latents, images = mm_encoder_output.get("latent"), mm_encoder_output.get("image")
        if images is not None and input_ids is not None and len(input_ids) == 1:  # the first pages may be in the cache
            visual = (input_ids[0] == self.config.image_token_id).nonzero()[:, 0]
            input_ids = input_ids.clone()
            input_ids[0, visual[: max(0, len(visual) - sum(map(len, images.pooler_output)))]] = -1
        if latents is not None:  # which are to be repeated as pages are, and are told by another token
            is_latent: Any = input_ids == self.config.latent_token_id
            ids = torch.where(is_latent, self.config.image_token_id, -1)
            mm_encoder_output["latent"] = expand(self, ids, {"image": latents}, expand_size)["image"]
        return expand(self, input_ids, mm_encoder_output, expand_size, inputs_embeds)

    def _prepare_cache_for_generation(
        self, generation_config: Any, model_kwargs: dict[str, Any], generation_mode: Any, *args: Any
    ) -> Any:
        cache, is_assisted = model_kwargs.get("past_key_values"), generation_mode == GenerationMode.ASSISTED_GENERATION
        # both would read the whole prompt again behind what the cache holds, and answer wrongly without a word
        if cache is not None and cache.get_seq_length():
            if is_assisted:
                raise ValueError(
                    "transformers' assisted generation (prompt_lookup_num_tokens, assistant_model) cannot begin from "
                    f"past_key_values, which hold {int(cache.get_seq_length())} tokens: leave out one of them."
                )
            if generation_config.use_cache is False:
                raise ValueError(
                    "use_cache=False contradicts past_key_values that hold tokens: leave out one of them."
                )
        if is_assisted:  # what is looked up in a prompt may be a page's tokens, which nobody can say, or a latent's
            suppressed = {*(generation_config.suppress_tokens or ()), *self.config.placeholder_token_ids}
            generation_config.suppress_tokens = sorted(suppressed)
        return super()._prepare_cache_for_generation(generation_config, model_kwargs, generation_mode, *args)

    def _prepare_position_ids_for_generation(
        self, inputs_tensor: torch.Tensor, model_kwargs: dict[str, Any]
    ) -> torch.Tensor:
        """
        Text positions and M-RoPE positions `[4, batch, all tokens]`. They come from the prompt, not from whichever the
        model saw last; where only what follows a cache's tokens is given, from the cache.
        """
        text = GenerationMixin._prepare_position_ids_for_generation(self, inputs_tensor, model_kwargs)
        ids = model_kwargs.get("input_ids")
        ids = inputs_tensor if ids is None or not ids.shape[1] else ids
        types, cache = model_kwargs.get("mm_token_type_ids"), model_kwargs.get("past_key_values")
        grids = {name: model_kwargs.get(name) for name in ("image_grid_thw", "video_grid_thw")}
        has_grids = any(grid is not None for grid in grids.values())
        if not ids.is_floating_point():
            found = (ids == self.config.image_token_id).int()
            # those of an earlier prompt, that this one goes on from, are not all that there are
            types = found if types is None else torch.cat([types.to(found), found[:, types.shape[1] :]], dim=1)
            if "mm_token_type_ids" in model_kwargs:
                model_kwargs["mm_token_type_ids"] = types
        elif types is None and has_grids:
            raise ValueError("inputs_embeds with pages need mm_token_type_ids, 1 where a visual embedding goes.")

        num_tokens = 0 if types is None else int(types.count_nonzero())
        is_whole = types is None or types.shape[1] == text.shape[1]
        if types is not None and is_whole and has_grids:
            positions, _ = rope_index(self.config, types, **grids, attention_mask=model_kwargs.get("attention_mask"))
        elif is_whole and not num_tokens:
            positions = text.expand(3, *text.shape)
        else:
            if cache is None or not cache.get_seq_length():
                check_image_tokens(num_tokens, 0, self.config.image_token_id)
            if not is_whole and num_tokens:
                raise ValueError(
                    "a prompt that goes on from past_key_values with new pages has to be given whole: pass all "
                    "input_ids and the image_grid_thw of all pages."
                )
            positions = (text + rope_deltas_of(cache, len(text), text.device)).expand(3, *text.shape)
        return torch.cat([text.expand_as(positions[0])[None], positions])


__all__ = ["GeneratesFromFusedContext"]
