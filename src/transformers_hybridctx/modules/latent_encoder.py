# SPDX-License-Identifier: Apache-2.0
"""Latent context: chunks of text that a small text encoder condenses to a few embeddings for the decoder.

As in Context Cascade Compression (https://arxiv.org/abs/2511.15244, section 3): learnable queries stand behind a
chunk's tokens in one sequence, under the encoder's own attention, and its hidden states at the queries, mapped to the
decoder's width, stand in the prompt for the chunk. That map is in the paper's code and not in its text.
"""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from transformers import AutoModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..configuration_hybridctx import HybridCtxConfig
from .input_checks import check_latent_chunks, check_latent_tokens

# Row and column of each latent token of a batch.
Places = tuple[torch.Tensor, ...]


class HybridCtxLatentEncoder(nn.Module):
    """
    Chunks of tokens to `num_latent_tokens` embeddings each, in the decoder's width.

    Args:
        config: states the encoder (`latent_config`), the number of queries and the tokens of a batch.
    """

    def __init__(self, config: HybridCtxConfig) -> None:
        super().__init__()
        self.encoder: Any = AutoModel.from_config(config.latent_config)
        width = config.latent_config.hidden_size
        self.queries = nn.Embedding(config.num_latent_tokens, width)
        self.projection = nn.Linear(width, config.text_config.hidden_size)
        self.num_latent_tokens = config.num_latent_tokens
        self.batch_tokens = config.latent_batch_tokens
        # an encoder that is a decoder would keep its keys and values, which nobody reads
        takes = inspect.signature(self.encoder.forward).parameters
        self._options = {"use_cache": False} if "use_cache" in takes else {}

    def forward(self, chunks: Sequence[torch.Tensor]) -> torch.Tensor:
        """Token ids of chunks, int64 `[length]` each, to `[chunks, num_latent_tokens, hidden]`, all in one batch."""
        embed, device = self.encoder.get_input_embeddings(), chunks[0].device
        lengths = torch.tensor([len(chunk) for chunk in chunks], device=device)
        # chunk, queries, padding: what stands behind the queries is seen by none of them, and positions are counted
        # from the chunk's first token whatever else is in the batch
        ids = nn.utils.rnn.pad_sequence(list(chunks), batch_first=True)
        ids = nn.functional.pad(ids, (0, self.num_latent_tokens))
        number = torch.arange(self.num_latent_tokens, device=device)
        rows, columns = torch.arange(len(chunks), device=device)[:, None], lengths[:, None] + number
        embeds = embed(ids)
        queries = self.queries(number).to(embeds.device, embeds.dtype).expand(len(chunks), -1, -1)
        embeds = embeds.index_put((rows, columns), queries)
        is_real = torch.arange(ids.shape[1], device=device) < lengths[:, None] + self.num_latent_tokens
        outputs = self.encoder(
            inputs_embeds=embeds, attention_mask=is_real.long(), return_dict=True, **self._options
        ).last_hidden_state
        return self.projection(outputs[rows.to(outputs.device), columns.to(outputs.device)])

    def batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Numbers of chunks, like lengths together, within `latent_batch_tokens` with queries and padding."""
        batch: list[int] = []
        for chunk in sorted(range(len(lengths)), key=lambda chunk: -lengths[chunk]):
            longest = lengths[batch[0] if batch else chunk] + self.num_latent_tokens
            if batch and (len(batch) + 1) * longest > self.batch_tokens:
                yield batch
                batch = []
            batch.append(chunk)
        yield batch


class ReadsLatents:
    """Mixin for a model whose `latent` is a [`HybridCtxLatentEncoder`], or None."""

    config: HybridCtxConfig
    latent: HybridCtxLatentEncoder | None

    def get_latent_features(
        self, latent_input_ids: torch.Tensor, latent_attention_mask: torch.Tensor | None = None
    ) -> BaseModelOutputWithPooling:
        """
        Condenses chunks of text, in batches of at most `latent_batch_tokens`.

        Args:
            latent_input_ids (`torch.LongTensor` of shape `(num_chunks, longest)`):
                Tokens of each chunk, padded on either side.
            latent_attention_mask (`torch.Tensor` of shape `(num_chunks, longest)`, *optional*):
                0 on padding.

        Returns:
            `BaseModelOutputWithPooling`: `pooler_output` holds, for each chunk, its latents
            `[num_latent_tokens, hidden_size]`, ready for the decoder.

        Raises:
            `ValueError`: a model without a latent encoder, or chunks that it cannot take, before it runs.
        """
        check_latent_chunks(self.config, latent_input_ids, latent_attention_mask)
        assert self.latent is not None  # as the check found
        if latent_attention_mask is None:
            latent_attention_mask = torch.ones_like(latent_input_ids)
        chunks = [ids[mask] for ids, mask in zip(latent_input_ids, latent_attention_mask.bool())]
        latents: dict[int, torch.Tensor] = {}
        for batch in self.latent.batches([len(chunk) for chunk in chunks]):
            latents |= zip(batch, self.latent([chunks[chunk] for chunk in batch]))
        return BaseModelOutputWithPooling(pooler_output=tuple(latents[chunk] for chunk in range(len(chunks))))

    def find_latents(
        self,
        input_ids: torch.Tensor | None,
        latent_input_ids: torch.Tensor | None,
        latent_attention_mask: torch.Tensor | None,
        latent_outputs: BaseModelOutputWithPooling | None,
        is_continued: bool,
    ) -> Places | None:
        """
        Where the latents of a forward pass go; None where there are none.

        Args:
            is_continued: whether a cache holds what comes before `input_ids`.

        Raises:
            `ValueError`: chunks that do not fit the encoder or the prompt, before any encoder runs.
        """
        if latent_input_ids is None and latent_outputs is None:
            if self.latent is not None and input_ids is not None and not is_continued:
                check_latent_tokens(self.config, input_ids, 0)
            return None
        if latent_input_ids is not None and latent_outputs is not None:
            raise ValueError("latent_input_ids and mm_encoder_outputs['latent'] are both given: pass one of them.")
        if input_ids is None:
            raise ValueError("chunks for latents need input_ids, whose latent tokens say where they go.")
        if latent_input_ids is not None:
            check_latent_chunks(self.config, latent_input_ids, latent_attention_mask)
            num_latents = len(latent_input_ids) * self.config.num_latent_tokens
        else:
            made: Any = latent_outputs
            num_latents = sum(len(latents) for latents in made.pooler_output)
        check_latent_tokens(self.config, input_ids, num_latents)
        is_latent: Any = input_ids == self.config.latent_token_id
        return is_latent.nonzero(as_tuple=True)

    def put_latents(
        self,
        inputs_embeds: torch.Tensor,
        places: Places,
        latent_input_ids: torch.Tensor | None,
        latent_attention_mask: torch.Tensor | None,
        latent_outputs: BaseModelOutputWithPooling | None,
    ) -> torch.Tensor:
        """Embeddings `[batch, sequence, hidden]` with the latents where `find_latents` said that they go."""
        if latent_input_ids is not None:
            latent_outputs = self.get_latent_features(latent_input_ids, latent_attention_mask)
        latents = torch.cat(tuple(latent_outputs.pooler_output))  # type: ignore[union-attr]
        where = tuple(place.to(inputs_embeds.device) for place in places)
        return inputs_embeds.index_put(where, latents.to(inputs_embeds.device, inputs_embeds.dtype))


__all__ = ["HybridCtxLatentEncoder", "Places", "ReadsLatents"]
