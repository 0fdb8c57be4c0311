# SPDX-License-Identifier: Apache-2.0
"""What the decoder made of the beginning of a prompt, kept for every prompt that begins alike.

Attention is causal, so the keys and values of a prefix are the same whatever follows it: a question that comes after a
document costs only its own tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, Cache, DynamicCache, QuantizedCache, StaticCache
from transformers.cache_utils import DynamicLayer

from ..progress import tell
from ..prompting.features import prompt_features
from .model_lock import model_lock

KeysAndValues = tuple[torch.Tensor, torch.Tensor]

_ROOM = 256
"""Tokens by which a layer's memory grows at a time."""


class PrefixLayer(DynamicLayer):
    """
    A cache layer that begins with given keys and values, and grows in place.

    The prefix is copied once, when the first tokens come, into memory with room for more. (transformers' own dynamic
    layer copies all that it holds for every token, which at 16,000 tokens takes longer than the attention to them.)

    Args:
        prefix: keys and values `[1, heads, prefix length, head_dim]` each; every row begins with them.
    """

    def __init__(self, prefix: KeysAndValues) -> None:
        super().__init__()
        self._prefix = prefix
        self._memory: KeysAndValues | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Takes `[rows, heads, new, head_dim]`; returns all keys and values, `[rows, heads, length, head_dim]` each."""
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = (part.expand(len(key_states), -1, -1, -1) for part in self._prefix)
        # Where rows were picked or repeated, the memory is not what keys and values are views of any more.
        if (
            self._memory is None
            or self._memory[0].data_ptr() != self.keys.data_ptr()
            or self._memory[0].shape[2] < end
        ):
            self._memory = _with_room(self.keys, end, key_states), _with_room(self.values, end, value_states)
        keys, values = self._memory
        keys[:, :, start:end], values[:, :, start:end] = key_states, value_states
        self.keys, self.values = keys[:, :, :end], values[:, :, :end]
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Tokens of the prefix and after it."""
        return super().get_seq_length() if self.is_initialized else self._prefix[0].shape[-2]

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Reorders the rows; the prefix is the same in all."""
        if self.is_initialized:
            for part in (self.keys, self.values):
                own = part[:, :, self._prefix[0].shape[-2] :]
                own.copy_(own.index_select(0, beam_idx.to(own.device)))

    def reset(self) -> None:
        """Back to the prefix alone."""
        super().reset()
        self._memory = None


def _with_room(states: torch.Tensor, length: int, like: torch.Tensor) -> torch.Tensor:
    """A copy of states `[rows, heads, tokens, head_dim]` with room for `length` tokens and some more."""
    memory = like.new_empty(*like.shape[:2], length + _ROOM, like.shape[3])
    memory[:, :, : states.shape[2]] = states
    return memory


@dataclass(frozen=True, eq=False)
class PrefixCache:
    """
    The beginning of a prompt as the decoder keeps it.

    Attributes:
        input_ids: its tokens, int64 `[length]`, on the CPU.
        image_token_id: stands for a visual token among them.
        image_grid_thw: int64 `[pages, 3]`, the grids of its pages; None without pages.
        states: keys and values of each layer, `[1, heads, length, head_dim]` each.
        latent_token_id: stands for a latent among them; None in a model without.
    """

    input_ids: torch.Tensor
    image_token_id: int
    image_grid_thw: torch.Tensor | None
    states: tuple[KeysAndValues, ...]
    latent_token_id: int | None = None

    @classmethod
    def read(cls, model: Any, features: dict[str, Any], prefill_chunk_size: int | None = None) -> PrefixCache:
        """
        Let a model read the beginning of a prompt.

        Args:
            model ([`HybridCtxForCausalLM`]): an adapter around it is as good.
            features: what `generate` takes, one row; pages as `pixel_values`, or as `mm_encoder_outputs`, latents alike.
            prefill_chunk_size: tokens that go through the decoder at a time; None: all at once.

        Raises:
            ValueError: the checkpoint computes NaN or infinity.
        """
        tell("tokens read", 0, features["input_ids"].shape[1])
        # generate() knows how to prefill: encoders first, chunks, positions, devices. Its one new token is not kept.
        with model_lock(model):
            output = model.generate(
                **features,
                max_new_tokens=1,
                min_new_tokens=None,
                do_sample=False,
                num_beams=1,
                num_return_sequences=1,
                use_cache=True,
                cache_implementation="dynamic",
                prefill_chunk_size=prefill_chunk_size,
                return_dict_in_generate=True,
                output_logits=False,
                output_scores=False,
            )
        states = tuple((layer.keys, layer.values) for layer in output.past_key_values.layers)
        for index, layer in enumerate(states):
            if not all(part.isfinite().all() for part in layer):
                raise not_finite_error(
                    f"the decoder's layer {index} gives keys and values that are not finite", model.dtype
                )
        return cls(
            input_ids=features["input_ids"][0].cpu(),
            image_token_id=model.config.image_token_id,
            image_grid_thw=features.get("image_grid_thw"),
            states=states,
            latent_token_id=model.config.latent_token_id,
        )

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def num_bytes(self) -> int:
        """Memory of the keys and values, in bytes."""
        return sum(states.nbytes for layer in self.states for states in layer)

    def to(self, device: torch.device | str) -> PrefixCache:
        """The same, its keys and values on this device."""
        if all(part.device == torch.device(device) for layer in self.states for part in layer):
            return self
        return replace(self, states=tuple((keys.to(device), values.to(device)) for keys, values in self.states))

    def extended(self, length: int, tail: PrefixCache) -> PrefixCache:
        """Its first `length` tokens and what was read behind these, which holds no page."""
        states = tuple(
            (torch.cat((keys[..., :length, :], own_keys), -2), torch.cat((values[..., :length, :], own_values), -2))
            for (keys, values), (own_keys, own_values) in zip(self.states, tail.states, strict=True)
        )
        return replace(self, input_ids=torch.cat((self.input_ids[:length], tail.input_ids)), states=states)

    def shared_length(self, input_ids: Sequence[int]) -> int:
        """
        How many tokens of a prompt are already read: 0 where a page or a chunk's latents are not all among them, as what
        encoders make goes all or none.
        """
        length = common_length([self.input_ids.numpy(), input_ids])
        length = min(length, len(input_ids) - 1)  # something has to be left to predict the next token from
        rest = self.input_ids[length:]
        is_cut = any(token in rest for token in (self.image_token_id, self.latent_token_id) if token is not None)
        return 0 if is_cut else length

    def past_key_values(self, length: int | None = None, rows: int = 1, into: Cache | None = None) -> Cache:
        """
        The first `length` tokens (None: all) as a cache of transformers, to generate or to run forward from.

        Args:
            rows: sequences that `into` is for: batch size times beams.
            into: an empty cache of any kind, to be filled. None: a dynamic cache, for any number of rows.

        Raises:
            ValueError: `into` is not empty, or too small for the prefix.
        """
        states = [tuple(part[..., :length, :] for part in layer) for layer in self.states]
        if into is None:
            cache = DynamicCache()
            cache.layers = [PrefixLayer((keys, values)) for keys, values in states]
            return cache
        if into.get_seq_length():
            raise ValueError(
                f"the cache to fill already holds {int(into.get_seq_length())} tokens: give an empty one, or reset() it"
            )
        needed, most = states[0][0].shape[-2], into.get_max_length(0)
        if 0 <= most <= needed:
            raise ValueError(
                f"the cache to fill holds {most} tokens at most, and the prefix alone has {needed}: make it larger by "
                "the question and the answer"
            )
        for index, (keys, values) in enumerate(states):
            into.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), index)
        return into

    def features(
        self,
        prompts: Sequence[Sequence[int]],
        pad_token_id: int | None,
        into: Cache | None = None,
        sequences: int = 1,
    ) -> BatchFeature:
        """
        Prompts as `generate` takes them, with `past_key_values` that hold what all of them share with the prefix.

        Args:
            into: as in [`PrefixCache.past_key_values`].
            sequences: that `generate` makes of each prompt: beams, or sequences to return.

        Returns:
            [`BatchFeature`]: `input_ids`, `attention_mask`, `mm_token_type_ids`, int64 `[prompts, sequence]` on the CPU,
            padded behind what is shared, which stands at the same place in every row; where there are pages,
            `image_grid_thw` `[prompts * pages, 3]`; `past_key_values`.

        Raises:
            ValueError: prompts of different length and no `pad_token_id`.
        """
        length = min(map(self.shared_length, prompts))
        data: dict[str, Any] = prompt_features(prompts, self.image_token_id, pad_token_id, pad_at=length)
        if self.image_grid_thw is not None:
            data["image_grid_thw"] = self.image_grid_thw.cpu().repeat(len(prompts), 1)
        data["past_key_values"] = self.past_key_values(length, len(prompts) * sequences, into)
        return BatchFeature(data)


def not_finite_error(what: str, dtype: torch.dtype) -> ValueError:
    """`what` is what a model computes that is not finite."""
    return ValueError(
        f"{what}: the checkpoint's weights hold NaN or infinity, or overflow in {dtype}; load it in float32 or bfloat16, "
        "or anew"
    )


def common_length(prompts: Sequence[Sequence[int] | np.ndarray]) -> int:
    """How many tokens all prompts begin with alike."""
    shortest = min(map(len, prompts))
    table = np.array([prompt[:shortest] for prompt in prompts])
    different = (table != table[0]).any(axis=0)
    return int(different.argmax()) if different.any() else shortest


def empty_cache(config: Any, implementation: str | None, options: dict[str, Any] | None, max_length: int) -> Any:
    """
    What `generate(cache_implementation=...)` makes, for [`PrefixCache.past_key_values`] to fill; None where that is the
    dynamic cache.

    Args:
        config: the model's.
        options: `generate`'s `cache_config`, for a quantized cache.
        max_length: tokens that a static cache has room for.
    """
    if implementation in (None, "dynamic"):
        return None
    if implementation == "offloaded":
        return DynamicCache(config=config, offloading=True)
    if implementation in ("static", "offloaded_static"):
        return StaticCache(config, max_cache_len=max_length, offloading=implementation != "static")
    if implementation == "quantized":
        return QuantizedCache(**{"backend": "quanto", "config": config, **(options or {})})
    raise ValueError(
        f"cache_implementation={implementation!r} is not one of 'dynamic', 'static', 'offloaded', "
        "'offloaded_static' and 'quantized'"
    )


__all__ = [
    "PrefixCache",
    "PrefixLayer",
    "common_length",
    "empty_cache",
    "not_finite_error",
]
