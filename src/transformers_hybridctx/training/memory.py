# SPDX-License-Identifier: Apache-2.0
"""What a training takes in memory, by arithmetic on shapes that are built on the meta device: no weights, no data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..configuration_hybridctx import HybridCtxConfig
from ..conversion.four_bit import four_bit_bytes, four_bit_keys
from ..conversion.tensor_files import Tensor
from ..modules.quantization import four_bit_config
from .config import TrainingConfig
from .starting_point import learning_on_meta, model_config_of

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_NORM_BYTES = 4  # norms compute in float32 whatever comes in


@dataclass(frozen=True)
class TrainingMemory:
    """
    Bytes of one process, but for the counts.

    Attributes:
        parameters, trainable: numbers of them, of the whole model.
        weights, gradients, optimizer: exact, for AdamW and what the arguments name.
        gathered: with a model that is spread, what is whole at a time; in several processes that each have all of it, the
            buckets that gradients are sent in; with `bf16` and weights of float32, their copies in bfloat16.
        activations: of the longest batch; an estimate, between half and twice of what is kept for the gradients.
        logits: of the labels that are computed at a time.
        examples, tokens: of a step, over all processes; tokens at most.
    """

    parameters: int
    trainable: int
    weights: int
    gradients: int
    optimizer: int
    gathered: int
    activations: int
    logits: int
    examples: int
    tokens: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.gathered + self.activations + self.logits

    def rows(self) -> list[tuple[str, str]]:
        """Labels and values, as the command prints them; GB are 10^9 bytes."""

        def gigabytes(size: int) -> str:
            return f"{size / 1e9:,.2f} GB"

        return [
            ("parameters", f"{self.parameters:,}, of which {self.trainable:,} learn"),
            ("a step", f"{self.examples:,} examples, {self.tokens:,} tokens at most"),
            ("weights", gigabytes(self.weights)),
            ("gradients", gigabytes(self.gradients)),
            ("optimiser", gigabytes(self.optimizer)),
            ("gathered", gigabytes(self.gathered)),
            ("activations", f"{gigabytes(self.activations)}, an estimate for the longest batch"),
            ("logits", gigabytes(self.logits)),
            ("in all", f"{gigabytes(self.total)} in each process"),
        ]


def memory_of_training(config: TrainingConfig, processes: int = 1) -> TrainingMemory:
    """
    Args:
        processes: that torchrun will start.

    Raises:
        ValueError, OSError: no checkpoint of this name, or one of which nothing learns so; only its config is read.
    """
    model_config = model_config_of(config)
    model, rounded = _on_meta(config, model_config)
    given = config.trainer
    named = dict(model.named_parameters())
    width = _BYTES[_dtype(config, model_config)]
    spread = bool(given.get("fsdp")) or (config.distributed or {}).get("fsdp_size", 1) > 1
    shares = processes if spread else 1
    trained = [one for one in named.values() if one.requires_grad]
    trainable = sum(one.numel() for one in trained)
    # adapters are float32 on top of any weights, as PEFT makes them
    learned_width = 4 if config.lora is not None else width
    weights = sum(
        rounded.get(name, one.numel() * (learned_width if one.requires_grad else width)) for name, one in named.items()
    )
    gradients = trainable * learned_width
    batch = given.get("per_device_train_batch_size", 8)
    examples = batch * given.get("gradient_accumulation_steps", 1) * processes
    compute = 2 if given.get("bf16") or given.get("fp16") else width
    return TrainingMemory(
        sum(one.numel() for one in named.values()),
        trainable,
        weights // shares,
        gradients // shares,
        trainable * _state_bytes(str(given.get("optim", "adamw_torch")), learned_width) // shares,
        _gathered(named, spread, processes, gradients, compute, width),
        _activations(config, model_config, batch * config.max_tokens, compute),
        min(config.chunk_tokens, batch * config.max_tokens) * model_config.text_config.vocab_size * (2 * 4 + compute),
        examples,
        examples * config.max_tokens,
    )


def _on_meta(config: TrainingConfig, model_config: HybridCtxConfig) -> tuple[Any, dict[str, int]]:
    """The model that learns, without its weights; and bytes of the weights that are in 4 bits, by name."""
    model = learning_on_meta(config, model_config)
    if not config.load_in_4bit:
        return model, {}
    keys = four_bit_keys(model_config, four_bit_config(model_config))
    rounded = {}
    for name, one in model.named_parameters():
        known = name.removeprefix("base_model.model.").replace(".base_layer", "")
        if known in keys:
            rounded[name] = four_bit_bytes(Tensor(known, Path(), "BF16", tuple(one.shape), 0))
    return model, rounded


def _dtype(config: TrainingConfig, model_config: HybridCtxConfig) -> str:
    name = config.dtype or ("float32" if config.lora is None else "auto")
    if name == "auto":
        name = str(model_config.dtype or model_config.text_config.dtype or "float32").removeprefix("torch.")
    return name


def _state_bytes(optimizer: str, width: int) -> int:
    """Bytes a parameter of an optimiser's state."""
    if "8bit" in optimizer:
        return 2
    if "adafactor" in optimizer or optimizer in ("sgd", "lomo", "adalomo"):
        return 0  # rows and columns, or nothing
    return 2 * width


def _gathered(named: dict[str, Any], spread: bool, processes: int, gradients: int, compute: int, width: int) -> int:
    if spread:
        layers: dict[str, int] = {}
        for name, one in named.items():
            place = name.split(".layers.")
            unit = f"layer {place[1].split('.')[0]}" if len(place) == 2 and "visual" not in name else "the rest"
            layers[unit] = layers.get(unit, 0) + one.numel()
        rest = layers.pop("the rest", 0)
        # the next layer is fetched while one computes
        return (rest + 2 * max(layers.values(), default=0)) * compute
    copies = sum(one.numel() for one in named.values() if one.requires_grad) * compute if compute < width else 0
    return copies + (gradients if processes > 1 else 0)


def _activations(config: TrainingConfig, model_config: HybridCtxConfig, tokens: int, compute: int) -> int:
    """What the longest batch keeps for the gradients: of every layer, or of its input and one layer at a time."""
    text, vision = model_config.text_config, model_config.vision_config
    flags = config.trainer
    kept_small = bool(
        flags.get("activation_checkpointing")
        or flags.get("gradient_checkpointing")
        or (flags.get("fsdp_config") or {}).get("activation_checkpointing")
    )
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    heads = (2 * text.num_attention_heads + 2 * text.num_key_value_heads) * head_dim
    layer = _layer_bytes(text.hidden_size, text.intermediate_size, heads, 4, compute)
    total = _stack_bytes(tokens, text.num_hidden_layers, text.hidden_size, layer, compute, kept_small)
    if not str(config.attn_implementation or "").startswith("flash"):
        total += tokens * tokens  # the mask of a batch
    if "vision" not in config.freeze and config.lora is None:
        patches = tokens * vision.spatial_merge_size**2 if config.channels.keys() != {"tokens"} else 0
        layer = _layer_bytes(vision.hidden_size, vision.intermediate_size, 4 * vision.hidden_size, 2, compute)
        seen = _stack_bytes(patches, vision.depth, vision.hidden_size, layer, compute, kept_small)
        if kept_small:  # pages go through the tower some at a time
            seen -= max(0, patches * layer - model_config.vision_batch_bytes)
        total += seen
    return total


def _layer_bytes(hidden: int, inner: int, heads: int, norms: int, compute: int) -> int:
    """Bytes a token that one layer keeps: its norms' inputs, queries to values, the gated products, inputs of linears."""
    return norms * 2 * hidden * _NORM_BYTES + (2 * heads + 4 * inner + 4 * hidden) * compute


def _stack_bytes(tokens: int, layers: int, hidden: int, layer: int, compute: int, kept_small: bool) -> int:
    return tokens * (layers * hidden * compute + layer if kept_small else layers * layer)


__all__ = ["TrainingMemory", "memory_of_training"]
