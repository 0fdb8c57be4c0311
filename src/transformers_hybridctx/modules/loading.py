# SPDX-License-Identifier: Apache-2.0
"""Loading that is never silent: weights that a checkpoint lacks are an error, those that it has too many a warning."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from typing import Any
from weakref import WeakKeyDictionary

from .quantization import settle_four_bit

# Parameters that start as the identity: a checkpoint without them gives the same logits as before they were asked for.
_IDENTITY_AT_START = ("phi.", "modality_embedding.")
_NAMED = 8
_WHERE_FROM = ("cache_dir", "proxies", "token", "revision", "local_files_only")
_loaded_with: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()
"""Beside the models and not in them: a token must not be pickled with one."""


class CompleteLoading:
    """Mixin for `PreTrainedModel`s, before their own base class."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Any,
        *model_args: Any,
        allow_missing_keys: bool = False,
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> Any:
        """As in transformers, from safetensors files only unless `use_safetensors` says otherwise, and:

        Args:
            allow_missing_keys: take random weights for what the checkpoint does not have, to train them.

        Raises:
            ValueError: the checkpoint lacks weights, which would be random, and `allow_missing_keys` is not set. Those
                of phi and of the modality embedding start as the identity and are warned of.
            RuntimeError: weights of another shape.
            ValueError: 4-bit layers that a CPU would compute wrong numbers with, see [`settle_four_bit`].
        """
        kwargs.setdefault("use_safetensors", True)  # a pickle can run any code when it is read
        where = repr(str(pretrained_model_name_or_path))
        try:
            model, info = super().from_pretrained(  # type: ignore[misc]
                pretrained_model_name_or_path, *model_args, output_loading_info=True, **kwargs
            )
        except NotImplementedError as error:  # torch has no random 4-bit codes for what is missing
            raise ValueError(
                f"the checkpoint {where} lacks weights that its config says are quantised ({error}); fetch it again"
            ) from error
        missing = sorted(info["missing_keys"])
        fresh = [key for key in missing if key.removeprefix("model.").startswith(_IDENTITY_AT_START)]
        lost = [key for key in missing if key not in fresh]
        if lost and not allow_missing_keys:
            raise ValueError(
                f"the checkpoint {where} lacks {len(lost)} of the weights of {cls.__name__}, which would be random: "
                f"{_named(lost)}. Load it with the class that it was saved from, convert it again, or pass "
                "allow_missing_keys=True to train them"
            )
        unexpected = sorted(info["unexpected_keys"])
        if model.get_output_embeddings() is None:
            unexpected = [key for key in unexpected if key != "lm_head.weight"]  # left out on purpose
        for keys, what in (
            (fresh, "are not in the checkpoint and start as the identity, to be trained"),
            (lost, "are not in the checkpoint and are random now, as allow_missing_keys asks"),
            (unexpected, "are in the checkpoint and have no place in this model; they are lost"),
        ):
            if keys:
                warnings.warn(f"{where}: {len(keys)} weights {what}: {_named(keys)}", stacklevel=2)
        if getattr(model, "is_loaded_in_4bit", False):
            settle_four_bit(model)
        how = {name: kwargs[name] for name in _WHERE_FROM if kwargs.get(name) is not None}
        if commit := getattr(model.config, "_commit_hash", None):
            how["revision"] = commit  # a branch may have moved on since
        _loaded_with[model] = how
        return (model, info) if output_loading_info else model


def loaded_with(model: Any) -> dict[str, Any]:
    """Arguments of `from_pretrained` with which what belongs to a model is found where the model was: its very commit.

    Args:
        model: that was loaded here, or an adapter around it; there are no arguments for any other.
    """
    return dict(_loaded_with.get(base_model(model), {}))


def base_model(model: Any) -> Any:
    """The HybridCtx model itself, without the adapters' wrapper that PEFT puts around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _named(keys: Collection[str]) -> str:
    shown = ", ".join(list(keys)[:_NAMED])
    return shown if len(keys) <= _NAMED else f"{shown} and {len(keys) - _NAMED} more"
