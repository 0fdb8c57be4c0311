# SPDX-License-Identifier: Apache-2.0
"""HybridCtx in vLLM: its Transformers backend, for any number of M-RoPE sections. Imported by vLLM alone."""

from __future__ import annotations

from typing import Any

import torch
from vllm.model_executor.models.transformers import (
    MultiModalDummyInputsBuilder,
    MultiModalProcessingInfo,
    MultiModalProcessor,
    TransformersMultiModalForCausalLM,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

# Time, height and width.
_AXES = 3


class AllChannels(MultiModalProcessor):
    """
    Gives grey pages all channels of colour ones, which this package's image processor leaves out.

    vLLM reads the pages of several requests in one batch, and fills narrower patches up with zeros there: a grey page
    beside a coloured one would be read as a red one.
    """

    def _get_mm_fields_config(self, hf_inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if (pixels := hf_inputs.get("pixel_values")) is not None:
            vision = self.info.get_hf_config().vision_config
            width = vision.in_channels * vision.patch_size**2
            hf_inputs["pixel_values"] = pixels.repeat(1, width // pixels.shape[1])
        return super()._get_mm_fields_config(hf_inputs, *args, **kwargs)


@MULTIMODAL_REGISTRY.register_processor(
    AllChannels, info=MultiModalProcessingInfo, dummy_inputs=MultiModalDummyInputsBuilder
)
class HybridCtxForVllm(TransformersMultiModalForCausalLM):
    """
    [`HybridCtxModel`] with vLLM's attention, caches and scheduling.

    vLLM sets a row of positions aside for each entry of `mrope_section`. The GLM-4V family deals its axes out to the
    entries in turn, so a checkpoint may have more entries than axes: rows beyond the third are filled and not read.
    """

    def get_mrope_input_positions(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, int]:
        """Positions int64 `[rows, tokens]` of a prompt, and what to add to the number of tokens for the next one."""
        positions, delta = super().get_mrope_input_positions(*args, **kwargs)
        more = max(0, self.model_config.mrope_num_dims - len(positions))
        return torch.cat([positions, positions[-1:].expand(more, -1)]), delta

    def forward(self, input_ids: Any, positions: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Hidden states `[tokens, hidden]` of a step's tokens, whose positions are int64 `[rows, tokens]`."""
        return super().forward(input_ids, positions[:_AXES], *args, **kwargs)


__all__ = ["HybridCtxForVllm"]
