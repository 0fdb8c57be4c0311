# SPDX-License-Identifier: Apache-2.0
"""4-bit weights (bitsandbytes' nf4): which layers take them, and what a CPU has to be told about them.

The decoder's linear layers take 4 bits. The vision tower, phi, the latent encoder and the head stay as they are: they
are a small part of the weights, and the encoders' errors would be in all that the decoder reads of them.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, BitsAndBytesConfig, PreTrainedConfig

BLOCK_SIZE = 64
"""Weights that share one scale. Blocks go along a layer's rows."""
FULL_PRECISION = ("model.visual", "visual", "model.phi", "phi", "model.latent", "latent", "lm_head")
"""Modules that take no 4 bits, by the paths that they have with a language-modelling head and without one."""
_DECODER = "language_model"
_NATIVE_INSTRUCTIONS = {
    torch.bfloat16: ("avx512_bf16", "amx_bf16", "bf16"),
    torch.float16: ("avx512_fp16", "amx_fp16", "fp16_arith"),
}
"""What a CPU must have to compute in a type; without it PyTorch converts each number, some 200 times slower."""


def computes_natively(dtype: torch.dtype, device: str | torch.device = "cpu") -> bool:
    """Whether a device has instructions for a type, or the type is one that every device has."""
    if dtype not in _NATIVE_INSTRUCTIONS:
        return True
    if torch.device(device).type == "cuda":
        return dtype == torch.float16 or torch.cuda.is_bf16_supported(including_emulation=False)
    if torch.device(device).type != "cpu":
        return True
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(capabilities.get(name) for name in _NATIVE_INSTRUCTIONS[dtype])


def four_bit_config(
    config: PreTrainedConfig | str | os.PathLike[str],
    *,
    compute_dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    skip_modules: Iterable[str] = (),
) -> BitsAndBytesConfig:
    """The `quantization_config` with which a checkpoint is loaded, or saved, in 4 bits.

    nf4 with double quantisation, as QLoRA has it (arXiv 2305.14314, section 3), for the decoder's linear layers.

    Args:
        config: of the model; or its folder or Hub id. Any model of the GLM-4V family that holds its towers under
            `model.visual` and `model.language_model` will do.
        compute_dtype: what weights are expanded to for a product; bfloat16 where `device` computes in it natively, and
            float32 elsewhere, unless given.
        device: where the model will run; the GPU if there is one, unless given.
        skip_modules: full paths of further modules that stay in full precision, as `named_modules()` has them. A list
            in a `BitsAndBytesConfig` of your own replaces the default one and this one alike.

    Returns:
        The config, whose `llm_int8_skip_modules` (bitsandbytes' name for it, in 4 bits too) names what stays.

    Raises:
        ValueError: the decoder has no layer that can take 4 bits. A layer whose `in_features` is no multiple of
            [`BLOCK_SIZE`] cannot: on a CPU with AVX-512, bitsandbytes 0.50 expands its rows to wrong numbers. Where
            some layers can and some cannot, a warning says so, and the others stay in full precision.

    Example:
    ```python
    >>> from transformers import AutoModelForImageTextToText
    >>> from transformers_hybridctx import four_bit_config

    >>> model = AutoModelForImageTextToText.from_pretrained(
    ...     "org/name", quantization_config=four_bit_config("org/name")
    ... )
    ```
    """
    if not isinstance(config, PreTrainedConfig):
        config = AutoConfig.from_pretrained(config)
    if compute_dtype is None:
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        compute_dtype = torch.bfloat16 if computes_natively(torch.bfloat16, device) else torch.float32
    widths = _decoder_widths(config)
    unfit = [name for name, width in widths.items() if width % BLOCK_SIZE]
    if unfit:
        told = (
            f"{len(unfit)} of the decoder's {len(widths)} linear layers cannot take 4 bits: "
            f"model.{unfit[0]} has in_features={widths[unfit[0]]}, and bitsandbytes' blocks fill a row only where that "
            f"is a multiple of {BLOCK_SIZE}"
        )
        if len(unfit) == len(widths):
            raise ValueError(f"{told}; load this checkpoint without a quantization_config")
        warnings.warn(f"{told}; they stay in full precision", stacklevel=2)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
        llm_int8_skip_modules=[*FULL_PRECISION, *unfit, *skip_modules],
    )


def _decoder_widths(config: PreTrainedConfig) -> dict[str, int]:
    """`in_features` of the decoder's linear layers, by their path in a model without a head."""
    with torch.device("meta"):
        decoder = AutoModel.from_config(config.text_config)
    return {
        f"{_DECODER}.{name}": module.in_features
        for name, module in decoder.named_modules()
        if type(module) is nn.Linear
    }


def settle_four_bit(model: Any) -> None:
    """
    See that a model's 4-bit layers compute what their weights say. [`CompleteLoading`] does it after loading.

    Codes and scales have to belong together: bitsandbytes reads on beyond the end of what is too short.

    With AVX512-BF16 instructions, bitsandbytes repacks a layer at its first use for a kernel of its own. That kernel
    has no gradient, so what is trained after an evaluation gets wrong gradients without a word; and its scales are
    rounded, so that a model saved afterwards is not the one that was loaded. It is left unused: a new token takes
    longer, a prompt of hundreds of tokens does not (`benchmarks/checkpoint_memory.py` measures both).

    Raises:
        ValueError: codes or scales of the wrong number; or, on a CPU, a layer whose rows are no whole blocks, which
            would compute wrong numbers without a word.
    """
    is_stored_so = getattr(getattr(model, "hf_quantizer", None), "pre_quantized", False)
    for name, layer in model.named_modules():
        weight: Any = getattr(layer, "weight", None)
        if getattr(weight, "quant_state", None) is None:
            continue
        _check_codes(name, layer)
        if weight.device.type != "cpu":
            continue
        if layer.in_features % BLOCK_SIZE:
            raise ValueError(
                f"{name} has in_features={layer.in_features}, no multiple of {BLOCK_SIZE}: bitsandbytes computes wrong "
                "numbers with it in 4 bits on a CPU; let transformers_hybridctx.four_bit_config choose the layers, or "
                "name this one in llm_int8_skip_modules"
            )
        layer.support_avx512bf16_for_cpu = False
        # The device that a checkpoint was written for need not be this one.
        if is_stored_so and not computes_natively(layer.compute_dtype):
            layer.compute_dtype = torch.float32


def _check_codes(name: str, layer: Any) -> None:
    state = layer.weight.quant_state
    num_weights = layer.in_features * layer.out_features
    num_scales = math.ceil(num_weights / state.blocksize)
    found = {
        "weight.quant_state": (tuple(state.shape), (layer.out_features, layer.in_features)),
        "weight (bytes)": (layer.weight.nbytes, math.ceil(num_weights / 2)),
        "weight.quant_map": (state.code.numel(), 16),
        "weight.absmax": (state.absmax.numel(), num_scales),
    }
    if state.nested:
        found["weight.nested_absmax"] = (state.state2.absmax.numel(), math.ceil(num_scales / state.state2.blocksize))
        found["weight.nested_quant_map"] = (state.state2.code.numel(), 256)
    elif not state.absmax.is_floating_point():
        found["weight.nested_absmax"] = (
            0,
            math.ceil(num_scales / 256),
        )  # codes of scales, and not what they stand for
    for key, (held, due) in found.items():
        if held != due:
            raise ValueError(
                f"{name}.{key} is {held} where {due} is due for {layer.out_features} x {layer.in_features} weights in 4 "
                "bits; the checkpoint is damaged, fetch it again"
            )
