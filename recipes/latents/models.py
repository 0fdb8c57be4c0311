# SPDX-License-Identifier: Apache-2.0
"""A checkpoint with a latent encoder of its own decoder's kind, and mean pooling in its place as the baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from transformers_hybridctx import HybridCtxConfig, HybridCtxForCausalLM, HybridCtxProcessor
from transformers_hybridctx.modules.latent_encoder import HybridCtxLatentEncoder
from transformers_hybridctx.planning.latents import LatentSettings

Method = Literal["latents", "mean"]
METHODS: tuple[Method, ...] = get_args(Method)
_METHOD_FILE = "method.txt"


class MeanPooling(HybridCtxLatentEncoder):
    """
    As many embeddings of a chunk as the encoder makes, each the mean of a stretch of the decoder's own token embeddings,
    mapped by a linear layer that starts as the identity.
    """

    def __init__(self, config: HybridCtxConfig, embed_tokens: nn.Module) -> None:
        nn.Module.__init__(self)
        width = config.text_config.hidden_size
        self.projection = nn.Linear(width, width)
        nn.init.eye_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)
        self.num_latent_tokens = config.num_latent_tokens
        self.batch_tokens = config.latent_batch_tokens
        self._embed = (embed_tokens,)  # the decoder's, and no part of this module

    def forward(self, chunks: Sequence[torch.Tensor]) -> torch.Tensor:
        """As the encoder's."""
        pool = nn.functional.adaptive_avg_pool1d
        pooled = [pool(self._embed[0](chunk).T[None], self.num_latent_tokens)[0].T for chunk in chunks]
        return self.projection(torch.stack(pooled))


def with_encoder(
    checkpoint: str | Path,
    method: Method,
    num_latents: int,
    layers: int,
    chunk_tokens: int,
    encoder_fields: Callable[[int, int], dict[str, Any]] | None = None,
) -> tuple[Any, HybridCtxProcessor]:
    """
    A checkpoint's model and processor, with what makes latents still to be trained.

    The encoder begins as the decoder's own first layers, as C3's begins as a smaller model of its decoder's family,
    unless another one is asked for.

    Args:
        layers: of the encoder.
        chunk_tokens: the most tokens of a chunk.
        encoder_fields: from vocabulary and layers to the `latent_config` of another encoder, which begins at random.
    """
    plain = HybridCtxForCausalLM.from_pretrained(checkpoint)
    processor = HybridCtxProcessor.from_pretrained(checkpoint)
    settings = LatentSettings(num_latents, chunk_tokens, 0)
    processor.tokenizer.add_tokens([settings.token], special_tokens=True)
    processor = HybridCtxProcessor(
        processor.image_processor,
        processor.tokenizer,
        render_config=processor.render_config,
        default_budget=processor.default_budget,
        default_text_policy=processor.default_text_policy,
        latents=settings,
    )
    plain.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
    fields = plain.config.to_dict()
    added = {
        "latent_config": encoder_fields(len(processor.tokenizer), layers)
        if encoder_fields
        else {**fields["text_config"], "num_hidden_layers": layers},
        "latent_token_id": processor.latent_token_id,
        "num_latent_tokens": num_latents,
    }
    config = HybridCtxConfig.from_dict(fields | added)
    model: Any = HybridCtxForCausalLM(config)
    model.load_state_dict(plain.state_dict(), strict=False)
    model.tie_weights()
    if encoder_fields is None:
        decoder, encoder = model.model.language_model.state_dict(), model.model.latent.encoder
        encoder.load_state_dict({name: decoder[name] for name in encoder.state_dict()})
    if method == "mean":
        _pool(model)
    model.generation_config = plain.generation_config
    return model, processor


def save(folder: Path, model: Any, processor: HybridCtxProcessor, method: Method) -> None:
    """Write model and processor, to be read by [`load`]."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / _METHOD_FILE).write_text(method, encoding="utf-8")


def load(folder: Path) -> tuple[Any, HybridCtxProcessor, Method]:
    """What [`save`] wrote.

    Raises:
        FileNotFoundError: another kind of folder.
    """
    if not (folder / _METHOD_FILE).is_file():
        raise FileNotFoundError(f"{folder} has no {_METHOD_FILE}: name a folder that the command train wrote")
    method = (folder / _METHOD_FILE).read_text(encoding="utf-8")
    if method == "latents":
        model = HybridCtxForCausalLM.from_pretrained(folder)
    else:
        from safetensors.torch import load_file

        model = HybridCtxForCausalLM(HybridCtxConfig.from_pretrained(folder))
        _pool(model)
        model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
        model.tie_weights()
    return model.eval(), HybridCtxProcessor.from_pretrained(folder), "latents" if method == "latents" else "mean"


def _pool(model: Any) -> None:
    model.model.latent = MeanPooling(model.config, model.get_input_embeddings())
