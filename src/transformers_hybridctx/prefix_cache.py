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

KeysAndValues = tuple[torch.Tensor, torch.Tensor]


class SharedPrefixLayer(DynamicLayer):
    """
    A cache layer that begins with somebody else's keys and values, and owns only what comes after.

    All rows of a batch, all beams and all caches share one prefix in memory. Attention gets the two parts joined, for
    the time of one layer's computation.

    Args:
        prefix: keys and values `[1, heads, prefix length, head_dim]` each.
    """

    def __init__(self, prefix: KeysAndValues) -> None:
        super().__init__()
        self.prefix = prefix

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keeps `[rows, heads, new, head_dim]`; returns all keys and values, `[rows, heads, length, head_dim]` each."""
        own = super().update(key_states, value_states, *args, **kwargs)
        if self.prefix[0].device != self.device:
            self.prefix = self.prefix[0].to(self.device), self.prefix[1].to(self.device)
        keys, values = (
            torch.cat([shared.expand(len(states), -1, -1, -1), states], dim=-2)
            for shared, states in zip(self.prefix, own, strict=True)
        )
        return keys, values

    def get_seq_length(self) -> int:
        """Tokens of the prefix and after it."""
        return self.prefix[0].shape[-2] + super().get_seq_length()

    def crop(self, tokens_to_remove: int) -> None:
        """Forgets the last `abs(tokens_to_remove)` tokens; those of the prefix are not this layer's to forget."""
        if abs(tokens_to_remove) > super().get_seq_length():
            raise ValueError(
                f"cannot remove {abs(tokens_to_remove)} tokens: only the last {super().get_seq_length()} were added "
                "after the shared prefix; take a shorter prefix instead"
            )
        super().crop(tokens_to_remove)


@dataclass(frozen=True, eq=False)
class PrefixCache:
    """
    The beginning of a prompt as the decoder keeps it.

    Attributes:
        input_ids: its tokens, int64 `[length]`, on the CPU.
        image_token_id: stands for a visual token among them.
        image_grid_thw: int64 `[pages, 3]`, the grids of its pages; None without pages.
        states: keys and values of each layer, `[1, heads, length, head_dim]` each.
    """

    input_ids: torch.Tensor
    image_token_id: int
    image_grid_thw: torch.Tensor | None
    states: tuple[KeysAndValues, ...]

    @classmethod
    def read(cls, model: Any, features: dict[str, Any], prefill_chunk_size: int | None = None) -> PrefixCache:
        """
        Let a model read the beginning of a prompt.

        Args:
            model ([`HybridCtxForCausalLM`]): an adapter around it is as good.
            features: what `generate` takes, one row; pages as `pixel_values`, or as `mm_encoder_outputs`.
            prefill_chunk_size: tokens that go through the decoder at a time; None: all at once.

        Raises:
            ValueError: the checkpoint computes NaN or infinity.
        """
        # generate() knows how to prefill: encoders first, chunks, positions, devices. Its one new token is not kept.
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
                raise ValueError(
                    f"the decoder's layer {index} gives keys and values that are not finite: the checkpoint's weights "
                    f"hold NaN or infinity, or overflow in {model.dtype}; load it in float32 or bfloat16, or anew"
                )
        return cls(
            input_ids=features["input_ids"][0].cpu(),
            image_token_id=model.config.image_token_id,
            image_grid_thw=features.get("image_grid_thw"),
            states=states,
        )

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def num_bytes(self) -> int:
        """Memory of the keys and values, in bytes."""
        return sum(states.nbytes for layer in self.states for states in layer)

    def to(self, device: torch.device | str) -> PrefixCache:
        """The same, its keys and values on another device."""
        return replace(self, states=tuple((keys.to(device), values.to(device)) for keys, values in self.states))

    def shared_length(self, input_ids: Sequence[int]) -> int:
        """How many tokens of a prompt are already read: 0 where a page is not among them, as pages go all or none."""
        length = common_length([self.input_ids.tolist(), input_ids])
        length = min(length, len(input_ids) - 1)  # something has to be left to predict the next token from
        return 0 if (self.input_ids[length:] == self.image_token_id).any() else length

    def past_key_values(self, length: int | None = None, rows: int = 1, into: Cache | None = None) -> Cache:
        """
        The first `length` tokens (None: all) as a cache of transformers, to generate or to run forward from.

        Args:
            rows: sequences that `into` is for: batch size times beams.
            into: an empty cache of any kind that gets a copy. None: a dynamic cache that shares the prefix, whatever the
                number of rows, and so takes no memory for it.

        Raises:
            ValueError: `into` is not empty, or too small for the prefix.
        """
        states = [tuple(part[..., :length, :] for part in layer) for layer in self.states]
        if into is None:
            cache = DynamicCache()
            cache.layers = [SharedPrefixLayer((keys, values)) for keys, values in states]
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

    def features(self, prompts: Sequence[Sequence[int]], length: int, pad_token_id: int | None) -> BatchFeature:
        """
        Prompts that share the first `length` tokens with the prefix, as `generate` takes them with
        `past_key_values(length)`. Padding goes behind the prefix, which stands at the same place in every row.

        Returns:
            [`BatchFeature`]: `input_ids`, `attention_mask`, `mm_token_type_ids`, int64 `[prompts, sequence]` on the CPU;
            where there are pages, `image_grid_thw` `[prompts * pages, 3]`.

        Raises:
            ValueError: prompts of different length and no `pad_token_id`.
        """
        longest = max(map(len, prompts))
        if pad_token_id is None and any(len(prompt) < longest for prompt in prompts):
            raise ValueError("prompts of a batch differ in length and the tokenizer has no pad_token; set one")
        rows, masks = [], []
        for prompt in prompts:
            padding = longest - len(prompt)
            rows.append([*prompt[:length], *[pad_token_id] * padding, *prompt[length:]])
            masks.append([1] * length + [0] * padding + [1] * (len(prompt) - length))
        input_ids = torch.tensor(rows)
        data = {
            "input_ids": input_ids,
            "attention_mask": torch.tensor(masks),
            "mm_token_type_ids": (input_ids == self.image_token_id).long(),
        }
        if self.image_grid_thw is not None:
            data["image_grid_thw"] = self.image_grid_thw.cpu().repeat(len(prompts), 1)
        return BatchFeature(data)


def common_length(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with alike."""
    shortest = min(map(len, prompts))
    table = np.array([prompt[:shortest] for prompt in prompts])
    different = (table != table[0]).any(axis=0)
    return int(different.argmax()) if different.any() else shortest


def empty_cache(config: Any, implementation: str | None, options: dict[str, Any] | None, max_length: int) -> Any:
    """
    What `generate(cache_implementation=...)` makes, for [`PrefixCache.past_key_values`] to fill; None where that is the
    dynamic cache, whose prefix can be shared.

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


__all__ = ["PrefixCache", "SharedPrefixLayer", "common_length", "empty_cache"]
