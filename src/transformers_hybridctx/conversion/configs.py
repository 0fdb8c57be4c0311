# SPDX-License-Identifier: Apache-2.0
"""Configs of the GLM-4V family to HybridCtx configs, whatever the release of transformers that wrote them."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ..configuration_hybridctx import HybridCtxConfig
from .sources import Checkpoint
from .tensor_files import CheckpointError

FAMILIES = {
    "glm4v": ("Glyph, GLM-4.1V-9B-Base and -Thinking", "glm4v_text", "glm4v_vision"),
    "glm46v": ("GLM-4.6V-Flash", "glm4v_text", "glm4v_vision"),
    "glm_ocr": ("GLM-OCR", "glm_ocr_text", "glm_ocr_vision"),
}
"""`model_type` of a source: the checkpoints that have it, and the `model_type` of its text and vision tower."""

_OF_C3 = {"latent_token_len", "contexts_compression_llm_hidden_size"}
"""Fields that only configs of Context Cascade Compression (https://arxiv.org/abs/2511.15244) have."""
TOKEN_IDS = (
    "image_token_id",
    "image_start_token_id",
    "image_end_token_id",
    "video_token_id",
    "video_start_token_id",
    "video_end_token_id",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)


def source_config(checkpoint: Checkpoint) -> PreTrainedConfig:
    """The config of a source as transformers' own class reads it.

    Raises:
        CheckpointError: another family, or values that cannot be.
    """
    values = dict(checkpoint.config)
    family = values.pop("model_type", None)
    if _OF_C3 & values.keys():
        raise CheckpointError(
            f"{checkpoint.name} has the layout of Context Cascade Compression (model_type={family!r}, "
            + ", ".join(f"{name}={values[name]!r}" for name in sorted(_OF_C3 & values.keys()))
            + "), which cannot be converted: it has no vision tower and no image processor, which a HybridCtx "
            "checkpoint shows pages with, and its Qwen2 decoder is no text tower of the GLM-4V family. To have its "
            "latents beside pages, convert a checkpoint of that family, add a latent_config, put the weights of llm1, Q "
            "and (if the decoders are equally wide) mm_projector into it, and train them with that checkpoint's tokens "
            "(docs/latents.md)"
        )
    if family not in FAMILIES:
        known = "; ".join(f"{name} ({whose[0]})" for name, whose in FAMILIES.items())
        moe = ", a mixture of experts, which cannot be converted yet" if str(family).endswith("_moe") else ""
        raise CheckpointError(f"{checkpoint.name} has model_type={family!r}{moe}; these can be converted: {known}")
    text_class = CONFIG_MAPPING[FAMILIES[family][1]]
    if "text_config" not in values:
        # Releases before 4.54 wrote the text tower's fields beside the vision_config.
        outer = {"architectures", "vision_config", "transformers_version", "tie_word_embeddings", *TOKEN_IDS}
        text = {name: value for name, value in values.items() if name not in outer or name in TOKEN_IDS[6:]}
        values = {name: value for name, value in values.items() if name in outer} | {"text_config": text}
    _check_depth(checkpoint, values)
    text = values["text_config"] = {**values["text_config"], "model_type": FAMILIES[family][1]}
    given = checkpoint.config.get("text_config", {}).get("model_type", text["model_type"])
    if given not in (text["model_type"], f"{family}_text", family):
        raise CheckpointError(
            f"{checkpoint.name} has a text tower of model_type={given!r}; {text_class.model_type!r} can be converted "
            "(a mixture of experts cannot yet)"
        )
    return AutoConfig.for_model(family, **values)


def own_config(checkpoint: Checkpoint) -> HybridCtxConfig:
    """The config of a checkpoint that is a HybridCtx one already.

    Raises:
        CheckpointError: another model, or values that cannot be.
    """
    values = dict(checkpoint.config)
    if values.pop("model_type", None) != HybridCtxConfig.model_type:
        raise CheckpointError(
            f"{checkpoint.name} has model_type={checkpoint.config.get('model_type')!r}, not 'hybridctx'"
        )
    _check_depth(checkpoint, values)
    return HybridCtxConfig(**values)


def check_not_quantised(checkpoint: Checkpoint, what: str) -> None:
    """Raise `CheckpointError` for weights that were rounded already; `what` is to be done with others."""
    if "quantization_config" in checkpoint.config:
        raise CheckpointError(f"{checkpoint.name} is quantised; {what} the checkpoint that it was made from")


def _check_depth(checkpoint: Checkpoint, values: dict[str, Any]) -> None:
    """A config cannot ask for more layers than there are tensors; nothing is built for one that does."""
    towers = (("text_config", "num_hidden_layers"), ("vision_config", "depth"), ("latent_config", "num_hidden_layers"))
    for tower, field in towers:
        layers = (values.get(tower) or {}).get(field)
        if layers is not None and not (isinstance(layers, int) and 0 <= layers <= len(checkpoint.tensors)):
            raise CheckpointError(
                f"config.json of {checkpoint.name} asks for {tower}.{field}={layers!r}, but the checkpoint has "
                f"{len(checkpoint.tensors)} tensors in all"
            )


def num_extra_layers(checkpoint: Checkpoint) -> int:
    """Layers of a source that predict a second next token (GLM-OCR has one), which stand after the decoder's."""
    values = checkpoint.config.get("text_config", checkpoint.config)
    count = values.get("num_nextn_predict_layers", 0)
    return count if isinstance(count, int) else 0


def tower_fields(tower: PreTrainedConfig) -> dict[str, Any]:
    """A tower's config, without a dtype of its own: that of the whole model counts, and it may change on the way."""
    return {name: value for name, value in tower.to_dict().items() if name not in ("dtype", "torch_dtype")}


def hybridctx_config(source: PreTrainedConfig, image_settings: dict[str, Any]) -> HybridCtxConfig:
    """The config of the converted checkpoint.

    Args:
        source: of the checkpoint that it comes from.
        image_settings: of its image processor, whose normalisation the model takes over.
    """
    fields = {name: getattr(source, name) for name in TOKEN_IDS if getattr(source, name, None) is not None}
    normalisation = ("image_mean", "image_std", "rescale_factor")
    fields |= {name: image_settings[name] for name in normalisation if name in image_settings}
    config = HybridCtxConfig(
        text_config=tower_fields(source.text_config),
        vision_config=tower_fields(source.vision_config),
        tie_word_embeddings=source.tie_word_embeddings,
        **fields,
    )
    config.architectures = ["HybridCtxForCausalLM"]
    return config
