# SPDX-License-Identifier: Apache-2.0
"""HybridCtx model configuration: any GLM-4V-family vision and text tower, and how their embeddings are fused."""

from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, Glm4vConfig
from transformers.configuration_utils import SubConfigSpec
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from .remote_code import TravelsWithCode, is_remote_code

# More than any model of the family by far. What a config asks for beyond is a mistake or an attack: building a model
# of it would take all memory before its weights are looked at.
_MAX_LAYERS = 4096
_MAX_SIZE = 2**24
_MAX_PARAMETERS = 2**41
_LATENT_FIELDS = ("latent_config", "num_latent_tokens", "latent_token_id", "latent_batch_tokens")


@strict
class HybridCtxConfig(TravelsWithCode, Glm4vConfig):
    r"""
    Configuration of a [`HybridCtxModel`]: a vision tower and a text tower of the GLM-4V family (GLM-4.1V, Glyph,
    GLM-4.5V, GLM-4.6V, GLM-OCR), read from `vision_config` and `text_config` by their `model_type`.

    Args:
        text_config (`dict` or `PreTrainedConfig`, *optional*, defaults to `Glm4vTextConfig()`):
            The text tower: a decoder with M-RoPE positions (`glm4v_text`, `glm4v_moe_text`, `glm_ocr_text`).
        vision_config (`dict` or `PreTrainedConfig`, *optional*, defaults to `Glm4vVisionConfig()`):
            The vision tower (`glm4v_vision`, `glm4v_moe_vision`, `glm_ocr_vision`); its `out_hidden_size` is the text
            tower's `hidden_size`.
        fusion_order (`"pages_first"`, `"tokens_first"` or `"tokens_last"`, *optional*, defaults to `"pages_first"`):
            Whether the exact spans stand behind the pages, before them, or behind the question in the prompt. The
            processor writes prompts in this order; the model reads any interleaving.
        phi (`"identity"` or `"residual_adapter"`, *optional*, defaults to `"identity"`):
            The projection from visual embeddings to the text width. `"residual_adapter"` adds a bottleneck MLP whose
            output starts at zero, so that it is the identity until it is trained.
        phi_bottleneck (`int`, *optional*):
            Width of the residual adapter's bottleneck. A quarter of the text tower's `hidden_size` when `None`.
        modality_embedding (`bool`, *optional*, defaults to `False`):
            Whether a learned vector per modality (text, page) is added to the embeddings. Starts at zero.
        image_mean (`list[float]`, *optional*, defaults to CLIP's):
            Mean of each channel, in units of `rescale_factor`, that uint8 pages are normalised with.
        image_std (`list[float]`, *optional*, defaults to CLIP's):
            Standard deviation of each channel, in the same units.
        rescale_factor (`float`, *optional*, defaults to 1/255):
            What a uint8 pixel is multiplied with before it is normalised.
        vision_batch_bytes (`int`, *optional*, defaults to 1 GiB):
            What the vision tower's activations may take in memory (without gradients); pages beyond it wait for the next
            batch, so peak memory does not grow with the number of pages. A page that alone takes more is an error.
        retrieval_heads (`list[list[int]]`, *optional*):
            `[layer, head]` of the text tower's attention heads that find what a question asks for, best first. The text
            policy `"attention"` listens to them; to all heads when `None`.
        purpose (`str`, *optional*):
            What the checkpoint is for and what it is not, in one sentence: told with its answers, and by whoever made it.
        latent_config (`dict` or `PreTrainedConfig`, *optional*):
            The latent encoder: any text model of transformers, decoder or encoder but not both, named by its `model_type`
            (`"qwen2"` unless said). It reads the text tower's own tokens. `None`: no latents, and no parameters for them.
        num_latent_tokens (`int`, *optional*, defaults to 64):
            Latents of each chunk of text, and learned queries of the latent encoder.
        latent_token_id (`int`, *optional*):
            The token that stands for a latent in a prompt. Needed with `latent_config`.
        latent_batch_tokens (`int`, *optional*, defaults to 16384):
            Tokens, padding and queries included, that go through the latent encoder at a time; chunks beyond them wait
            for the next batch. A chunk that alone has more is an error.

    Example:
    ```python
    >>> from transformers_hybridctx import HybridCtxConfig, HybridCtxForCausalLM

    >>> config = HybridCtxConfig(phi="residual_adapter")
    >>> model = HybridCtxForCausalLM(config)
    ```
    """

    model_type = "hybridctx"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="glm4v_vision"),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="glm4v_text"),
        "latent_config": SubConfigSpec(config_class=AutoConfig, model_type="qwen2", optional=True),
    }

    # a dict or a PreTrainedConfig goes in, a PreTrainedConfig of the named type comes out
    text_config: Any = None
    vision_config: Any = None
    fusion_order: Literal["pages_first", "tokens_first", "tokens_last"] = "pages_first"
    phi: Literal["identity", "residual_adapter"] = "identity"
    phi_bottleneck: int | None = None
    modality_embedding: bool = False
    image_mean: list[float] | tuple[float, ...] = tuple(OPENAI_CLIP_MEAN)
    image_std: list[float] | tuple[float, ...] = tuple(OPENAI_CLIP_STD)
    rescale_factor: float = 1 / 255
    vision_batch_bytes: int = 1 << 30
    retrieval_heads: list[list[int]] | None = None
    purpose: str | None = None
    latent_config: Any = None
    num_latent_tokens: int = 64
    latent_token_id: int | None = None
    latent_batch_tokens: int = 1 << 14

    def __post_init__(self, **kwargs: Any) -> None:
        # Both name code of the repository that a config was loaded from. They are for the copy of this class that lies
        # there; this one stands for the package's own code, which needs nobody's trust.
        if not is_remote_code():
            for name in ("auto_map", "custom_pipelines"):
                kwargs.pop(name, None)
        super().__post_init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in transformers; a latent encoder that is added on loading is read and checked as one that was saved."""
        added = {name: kwargs.pop(name) for name in _LATENT_FIELDS if name in kwargs}
        return super().from_dict({**config_dict, **added}, **kwargs)

    @property
    def placeholder_token_ids(self) -> list[int]:
        """Tokens that stand for what an encoder makes: a visual embedding, and a latent where there are any."""
        return [self.image_token_id, *([] if self.latent_token_id is None else [self.latent_token_id])]

    def validate_towers(self) -> None:
        """Part of `@strict`-powered validation: the towers fit each other and the pages' normalisation."""
        vision, text = self.vision_config, self.text_config
        if vision.out_hidden_size != text.hidden_size:
            raise ValueError(
                f"vision_config.out_hidden_size={vision.out_hidden_size} must equal "
                f"text_config.hidden_size={text.hidden_size}: visual embeddings stand beside token embeddings."
            )
        for name, values in (("image_mean", self.image_mean), ("image_std", self.image_std)):
            if len(values) != vision.in_channels:
                raise ValueError(
                    f"{name}={list(values)} has {len(values)} values, but the vision tower reads "
                    f"{vision.in_channels} channels: give one value for each."
                )
        if not all(std > 0 for std in self.image_std):
            raise ValueError(f"image_std={list(self.image_std)} must be positive.")

    def validate_latents(self) -> None:
        """Part of `@strict`-powered validation: the latent encoder reads the text tower's tokens, and has a place."""
        encoder, text, token = self.latent_config, self.text_config, self.latent_token_id
        if encoder is None:
            return
        if encoder.is_encoder_decoder:
            raise ValueError(
                f"latent_config.model_type={encoder.model_type!r} is an encoder-decoder, whose two sequences have no one "
                "place for queries: name a decoder or an encoder."
            )
        if encoder.sub_configs:
            raise ValueError(
                f"latent_config.model_type={encoder.model_type!r} is a model of several towers: name its text model."
            )
        if encoder.vocab_size < text.vocab_size:
            raise ValueError(
                f"latent_config.vocab_size={encoder.vocab_size} is less than text_config.vocab_size={text.vocab_size}: "
                "the latent encoder reads the text tower's own tokens, so it needs an embedding for each."
            )
        if token is None or not 0 <= token < text.vocab_size or token in (self.image_token_id, self.video_token_id):
            raise ValueError(
                f"latent_token_id={token} must be a token of its own, 0 to {text.vocab_size - 1} and neither "
                f"image_token_id={self.image_token_id} nor video_token_id={self.video_token_id}: latents stand there."
            )
        for name in ("num_latent_tokens", "latent_batch_tokens"):
            if not 1 <= getattr(self, name) <= _MAX_SIZE:
                raise ValueError(f"{name}={getattr(self, name)} is not between 1 and {_MAX_SIZE}.")

    def validate_sizes(self) -> None:
        """Part of `@strict`-powered validation: no tower is so large that building it is out of the question."""
        total = 0
        towers = {name: getattr(self, name) for name in ("text_config", "vision_config", "latent_config")}
        for name, tower in towers.items():
            if tower is None:
                continue
            layers = tower.num_hidden_layers
            if not 0 <= layers <= _MAX_LAYERS:
                raise ValueError(f"{name} asks for {layers} layers; {_MAX_LAYERS} is the most.")
            fields = ("hidden_size", "intermediate_size", "vocab_size", "n_routed_experts", "out_hidden_size")
            sizes = {field: getattr(tower, field, None) or 0 for field in fields}
            for field, size in sizes.items():
                if not 0 <= size <= _MAX_SIZE:
                    raise ValueError(f"{name}.{field}={size} is not between 0 and {_MAX_SIZE}.")
            width, experts = sizes["hidden_size"], max(1, sizes["n_routed_experts"])
            expert = getattr(tower, "moe_intermediate_size", None) or sizes["intermediate_size"]
            total += layers * width * (4 * width + 3 * expert * experts) + 2 * sizes["vocab_size"] * width
        if total > _MAX_PARAMETERS:
            raise ValueError(f"the towers ask for about {total:.2g} parameters; {_MAX_PARAMETERS:.2g} is the most.")

    def validate_knobs(self) -> None:
        """Part of `@strict`-powered validation: sizes are positive."""
        if self.vision_batch_bytes < 1:
            raise ValueError(f"vision_batch_bytes={self.vision_batch_bytes} must be 1 or more.")
        text = self.text_config
        for entry in self.retrieval_heads or []:
            is_head = (
                len(entry) == 2 and 0 <= entry[0] < text.num_hidden_layers and 0 <= entry[1] < text.num_attention_heads
            )
            if not is_head:
                raise ValueError(
                    f"retrieval_heads has {entry}: give [layer, head], where the text tower has {text.num_hidden_layers} "
                    f"layers of {text.num_attention_heads} heads."
                )
        if self.phi_bottleneck is not None and self.phi_bottleneck < 1:
            raise ValueError(f"phi_bottleneck={self.phi_bottleneck} must be 1 or more, or None for the default.")


AutoConfig.register(HybridCtxConfig.model_type, HybridCtxConfig, exist_ok=True)

__all__ = ["HybridCtxConfig"]
