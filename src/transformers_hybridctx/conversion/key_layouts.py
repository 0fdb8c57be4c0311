# SPDX-License-Identifier: Apache-2.0
"""Which key of a GLM-4V checkpoint becomes which key of a HybridCtx checkpoint, and what is left out and why."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ..configuration_hybridctx import HybridCtxConfig
from .tensor_files import CheckpointError, Tensor, largest_magnitude

EMBEDDINGS = "model.language_model.embed_tokens.weight"
HEAD = "lm_head.weight"
FUSION_PREFIXES = ("model.phi.", "model.modality_embedding.")
"""Parameters that HybridCtx has and GLM-4V has not."""
# Where these are zero, what they belong to adds nothing, whatever else it holds.
_ADDS_NOTHING_AT_ZERO = {
    "model.phi.": "model.phi.up.weight",
    "model.modality_embedding.": "model.modality_embedding.weight",
}
_LAYER = re.compile(r"model\.language_model\.layers\.(\d+)\.")
# The layouts that have been published and saved, as (what a key begins with, what it becomes). The first match counts.
_RENAMES = (
    ("model.visual.", "model.visual."),
    ("model.language_model.", "model.language_model."),
    ("model.phi.", "model.phi."),
    ("model.modality_embedding.", "model.modality_embedding."),
    ("model.latent.", "model.latent."),
    ("lm_head.", "lm_head."),
    ("visual.", "model.visual."),  # before transformers 4.52, and a Glm4vModel saved without its head
    ("language_model.", "model.language_model."),  # a Glm4vModel saved without its head
    ("model.", "model.language_model."),  # before transformers 4.52
)

Action = Literal["kept", "renamed", "dropped"]


@dataclass(frozen=True)
class KeyFate:
    """What becomes of one key: `target` is None where it is dropped, for the `reason`."""

    source: str
    target: str | None
    action: Action
    reason: str | None = None


def hybridctx_key(key: str) -> str | None:
    """The key in today's layout, or None for one of no known layout."""
    for prefix, replacement in _RENAMES:
        if key.startswith(prefix):
            return replacement + key[len(prefix) :]
    return None


def key_fates(
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, tuple[int, ...]],
    config: HybridCtxConfig,
    num_extra_layers: int,
    same_values: Callable[[Tensor, Tensor], bool],
) -> list[KeyFate]:
    """The fate of every key of a source, in the order of the source.

    Args:
        tensors: the source's, by key.
        expected: shapes of the model's own parameters, see [`parameter_shapes`].
        config: of the model that they are for.
        num_extra_layers: the source's next-token-prediction layers, which follow the decoder's.
        same_values: whether two tensors are equal.

    Raises:
        CheckpointError: keys that are missing, unknown or of a wrong shape, or two that become one.
    """
    fates = [_fate(key, expected, config, num_extra_layers) for key in tensors]
    by_target: dict[str, str] = {}
    for fate in fates:
        if fate.target is not None:
            if fate.target in by_target:
                raise CheckpointError(
                    f"both {by_target[fate.target]!r} and {fate.source!r} would become {fate.target!r}"
                )
            by_target[fate.target] = fate.source
    if config.tie_word_embeddings and HEAD in by_target and EMBEDDINGS in by_target:
        if not same_values(tensors[by_target[HEAD]], tensors[by_target[EMBEDDINGS]]):
            raise CheckpointError(
                f"{by_target[HEAD]!r} differs from {by_target[EMBEDDINGS]!r}, but the config ties them "
                '(tie_word_embeddings); set "tie_word_embeddings": false in config.json to keep both'
            )
        tied = "equal to the input embeddings, and tied to them by the config"
        source = by_target.pop(HEAD)
        fates = [KeyFate(source, None, "dropped", tied) if fate.source == source else fate for fate in fates]
    unknown = [fate.source for fate in fates if fate.target is not None and fate.target not in expected]
    lost = [key for key in expected if key not in by_target and not (key == HEAD and config.tie_word_embeddings)]
    if unknown:
        raise CheckpointError(
            f"the model has no place for {_listed(unknown)}; does config.json belong to these weights?"
        )
    if lost:
        raise CheckpointError(f"the checkpoint lacks {_listed(lost)}; fetch it again")
    wrong = [
        f"{source} {list(tensors[source].shape)} where config.json asks for {list(expected[target])}"
        for target, source in by_target.items()
        if tensors[source].shape != expected[target]
    ]
    if wrong:
        raise CheckpointError(f"wrong shapes: {_listed(wrong)}; does config.json belong to these weights?")
    return fates


def _fate(key: str, expected: Mapping[str, Any], config: HybridCtxConfig, num_extra_layers: int) -> KeyFate:
    target = hybridctx_key(key)
    if target is None:
        raise CheckpointError(f"{key!r} is a key of no known layout of the GLM-4V family")
    if target.endswith(".inv_freq"):
        return KeyFate(key, None, "dropped", "a buffer that is computed from the config")
    layer = _LAYER.match(target)
    num_layers = config.text_config.num_hidden_layers
    if layer and num_layers <= int(layer[1]) < num_layers + num_extra_layers:
        reason = f"layer {layer[1]} predicts a second next token; the decoder has layers 0 to {num_layers - 1}"
        return KeyFate(key, None, "dropped", reason)
    return KeyFate(key, target, "kept" if target == key else "renamed")


def without_fusion(fates: Sequence[KeyFate], tensors: Mapping[str, Tensor], same_answers: str) -> list[KeyFate]:
    """The fates, with phi and the modality embedding dropped, which is exact where they add nothing.

    Args:
        fates: of a HybridCtx checkpoint's keys.
        tensors: its tensors, by key.
        same_answers: what to do in its place where it is not exact.

    Raises:
        CheckpointError: one of them was trained. Phi is not linear; and of the modality embedding, the page's row would
            have to go into a layer without a bias. So neither can be folded into the weights beside it.
    """
    for prefix, key in _ADDS_NOTHING_AT_ZERO.items():
        if key in tensors and (largest := largest_magnitude(tensors[key])):
            what = prefix.removeprefix("model.").rstrip(".")
            raise CheckpointError(
                f"{what} was trained ({key} holds values up to {largest:.3g}), and GLM-4V's own layers have no place "
                f"for it: without it, the answers would be others; {same_answers}, or fine-tune one without it"
            )
    return [
        KeyFate(fate.source, None, "dropped", "adds nothing: it is still the identity that it started as")
        if fate.source.startswith(FUSION_PREFIXES)
        else fate
        for fate in fates
    ]


def parameter_shapes(config: HybridCtxConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of a HybridCtx model's weights by key, found without memory for any of them."""
    from ..modeling_hybridctx import HybridCtxForCausalLM

    with torch.device("meta"):
        model = HybridCtxForCausalLM(config)
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


def _listed(names: Iterable[str], most: int = 5) -> str:
    names = list(names)
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
