# SPDX-License-Identifier: Apache-2.0
"""What a reading is bound to: the numbers that a model computes with, and what it computes from them.

Numbers alone do not tell all: a forward hook, a patched module or a setting on one changes what is computed from the
same weights. So a fingerprint also holds the keys and values that the model makes of a small fixed prompt with a page,
and a model has to make the same of it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.modules import module as torch_module
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..modules.loading import base_model
from ..progress import heard_by
from .checkpoint_checksum import checkpoint_checksum
from .model_lock import model_lock

_READ_AGAIN = "read the document again with this checkpoint"
# How far keys and values may lie apart, as a part of their size: computed in the same way, or on another device or by
# another attention implementation.
_SAME_WAY = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
_OTHER_WAY = {torch.float64: 1e-6, torch.float32: 5e-3, torch.float16: 3e-2, torch.bfloat16: 1e-1}
_PLAIN = (bool, int, float, str, tuple, list, dict)


@dataclass
class ModelFingerprint:
    """
    Attributes:
        checksum: of weights, buffers, adapters and config, see [`checkpoint_checksum`].
        states: keys and values of the fixed prompt, `[layers, 2, key heads, tokens, head_dim]` on the CPU.
        computed: how: torch's version, device and attention implementations.
    """

    checksum: str
    states: torch.Tensor
    computed: str
    # how the modules were wired when the states were last seen to agree; None: never in this process
    _wiring: int | None = field(default=None, repr=False)

    @classmethod
    def of(cls, model: Any) -> ModelFingerprint:
        """The fingerprint of a model as it is now."""
        with model_lock(model):
            return cls(checkpoint_checksum(model), probe_states(model), _way_of(model), _wiring_of(model))

    def check(self, model: Any) -> None:
        """
        Raises:
            ValueError: this model does not compute what that of the fingerprint did.
        """
        with model_lock(model):
            checksum = checkpoint_checksum(model)
            if checksum != self.checksum:
                raise ValueError(
                    f"the document cache was made by another checkpoint (checksum {self.checksum[:12]}, this model's is "
                    f"{checksum[:12]}): its weights, adapters, dtype or config differ; {_READ_AGAIN}"
                )
            wiring = _wiring_of(model)
            if wiring == self._wiring and not _has_hooks(model):
                return
            difference = _largest_difference(probe_states(model), self.states)
            tolerance = (_SAME_WAY if self.computed == _way_of(model) else _OTHER_WAY)[self.states.dtype]
            if not difference <= tolerance:
                raise ValueError(
                    f"the document cache was made by a model that computes something else from the same weights (keys "
                    f"and values of a test prompt differ by {difference:.2g} of their size, more than {tolerance:g}): a "
                    f"hook, a patched module or a setting of one differs; {_READ_AGAIN}"
                )
            self._wiring = wiring


def probe_states(model: Any) -> torch.Tensor:
    """Keys and values of a fixed prompt: a few words' tokens around a page of four visual tokens, and latents of them."""
    ours = base_model(model)
    config = ours.config
    merge_size, patch_size = config.vision_config.spatial_merge_size, config.vision_config.patch_size
    vocabulary = config.text_config.vocab_size
    special = {*config.placeholder_token_ids, getattr(config, "video_token_id", None)}
    words = [token for token in (vocabulary * step // 9 for step in range(1, 9)) if token not in special]
    chunks: dict[str, torch.Tensor] = {}
    latents: list[int] = []
    if config.latent_config is not None:
        chunks = {"latent_input_ids": torch.tensor([words], device=ours.device)}
        latents = [config.latent_token_id] * config.num_latent_tokens
    ids = torch.tensor([[*words[:3], *latents, *[config.image_token_id] * 4, *words[3:]]], device=ours.device)
    types = (ids == config.image_token_id).long()
    grid = torch.tensor([[1, 2 * merge_size, 2 * merge_size]], device=ours.device)
    count = 4 * merge_size**2 * patch_size**2
    pixels = (torch.arange(count, device=ours.device) * 37 % 251).to(torch.uint8).view(-1, patch_size**2)
    positions, _ = ours.model.get_rope_index(ids, types, image_grid_thw=grid)
    with torch.no_grad(), heard_by(lambda *_: None):  # these tokens are nobody's
        output = ours(
            input_ids=ids,
            mm_token_type_ids=types,
            position_ids=positions,
            pixel_values=pixels,
            image_grid_thw=grid,
            **chunks,
            use_cache=True,
            logits_to_keep=1,
        )
    layers = output.past_key_values.layers
    return torch.stack([torch.cat([layer.keys, layer.values]).cpu() for layer in layers])


def _largest_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Of any layer's keys or values, as a part of their size."""
    if found.shape != expected.shape:
        return torch.inf
    found, expected = found.double().flatten(2), expected.double().flatten(2)
    return float(((found - expected).norm(dim=2) / expected.norm(dim=2).clamp_min(1e-30)).max())


def _way_of(model: Any) -> str:
    config = base_model(model).config
    parts = (config.text_config, config.vision_config, config.latent_config)
    attention = [part._attn_implementation for part in parts if part is not None]
    return f"torch {torch.__version__}, {base_model(model).device.type}, {' and '.join(map(str, attention))}"


def _wiring_of(model: Any) -> int:
    """Changes where something other than a tensor changes in what runs: a hook, a module, a setting of one."""
    parts: list[Any] = [_way_of(model), *torch_module._global_forward_hooks, *torch_module._global_forward_pre_hooks]
    for name, module in model.named_modules():
        forward = vars(module).get("forward")
        settings = [item for item in list(vars(module).items()) if isinstance(item[1], _PLAIN) and item[0][0] != "_"]
        parts += (
            name,
            id(type(module)),
            id(type(module).forward),
            (id(forward), getattr(forward, "__qualname__", None)),
            tuple(module._forward_hooks),
            tuple(module._forward_pre_hooks),
            repr(settings),
        )
    parts += _functions_of(model)
    return hash(tuple(parts))


def _functions_of(model: Any) -> Iterator[tuple[str, int]]:
    """Functions that modules call by name, which a patch may replace: of their Python modules, torch and attention."""
    named = {base.__module__ for module in model.modules() for base in type(module).__mro__}
    for name in sorted({*named, "torch.nn.functional"} - {"builtins"}):
        for key, value in vars(sys.modules[name]).items() if name in sys.modules else ():
            if callable(value):
                yield f"{name}.{key}", id(value)
    yield from ((name, id(ALL_ATTENTION_FUNCTIONS[name])) for name in sorted(ALL_ATTENTION_FUNCTIONS))


def _has_hooks(model: Any) -> bool:
    """Whether functions of someone else's run within the model: what they do may change without a trace on it.

    Those of accelerate, which move weights about, are known.
    """
    return any(
        module._forward_hooks
        or module._forward_pre_hooks
        or ("forward" in vars(module) and not hasattr(module, "_hf_hook"))
        for module in model.modules()
    ) or bool(torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks)


__all__ = ["ModelFingerprint", "probe_states"]
