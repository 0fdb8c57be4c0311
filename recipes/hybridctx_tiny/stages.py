# SPDX-License-Identifier: Apache-2.0
"""The losses of the stages that train hybridctx-tiny, each a `transformers.Trainer` run that can be stopped and resumed.

`recall`: the first layers of the decoder learn to look facts up in passages given as tokens.
`read`: the tower learns to read its pages, in terms of the token embeddings that `recall` made.
`append` (no training): two more decoder layers that copy digits from pages, set in closed form.
`answer`: the decoder learns to answer from pages, from passages and from both.
`lengthen`: it learns to do so behind long documents, which are read once for many questions.
`broaden`: it learns to answer with several values, in two steps, and in people's own words.
`attend`: its last layer learns to look at the cell that it quotes, and to spell out what stands there.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.glm4v.modeling_glm4v import apply_rotary_pos_emb

from transformers_hybridctx.configuration_hybridctx import HybridCtxConfig
from transformers_hybridctx.modeling_hybridctx import HybridCtxForCausalLM

from .batches import IGNORE
from .pages import CHARACTERS, PIECES, PLACES

FIRST_TOKEN_WEIGHT = 4.0
"""Loss weight of an answer's first token, which chooses the place; the others mostly go on copying from there."""
BLANK_WEIGHT = 0.3
"""Loss weight of a place of a cell that is blank."""
PIECES_WEIGHT, CONTEXT_WEIGHT, NORM_WEIGHT = 0.3, 0.5, 0.05
FETCHING_HEADS, LOOKING_WEIGHT = (1, 2, 3), 1.0
"""Heads of the last layer that bring what stands in a cell, and the weight of the loss of where they look."""
VISUAL_NORM = 2.5
"""What the norm of visual embeddings is drawn to while the tower learns to read."""
KEEPING_WEIGHT = 1.0
"""Of the change of visual embeddings that a decoder knows already, relative to their size, in place of that."""
OTHER_PIECES = 300
"""Word pieces, drawn at random, that those of a batch are told apart from."""


class ReadingHeads(nn.Module):
    """What the tower is trained by: linear maps from a visual embedding to what stands in its cell.

    Three losses: the character at each place; the word pieces of the cell in their order; and the word pieces of the two
    cells before it, which brings the key of a value into the value's own cell. Pieces are named through the decoder's
    token embeddings, so that what is seen is said in the terms in which text is read.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.characters = nn.Linear(hidden_size, PLACES * len(CHARACTERS))
        self.pieces = nn.Linear(hidden_size, PIECES * hidden_size)
        self.context = nn.Linear(hidden_size, hidden_size)
        self.sharpness = nn.Parameter(torch.tensor([1.0, 3.0]))

    def forward(
        self,
        visual: Tensor,
        embeddings: Tensor,
        characters: Tensor,
        pieces: Tensor,
        pieces_before: Tensor,
        kept: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """
        Args:
            visual: [cells, hidden size].
            kept: the same of the tower that the decoder knows.
            embeddings: of the tokens, [vocabulary, hidden size].
            characters: [cells, 16]. pieces: [cells, 8]. pieces_before: [cells, 16]; IGNORE where there is none.

        Returns:
            The loss, and what the running averages say of it.
        """
        logits, target = self.characters(visual).view(-1, len(CHARACTERS)), characters.flatten()
        inked = target != CHARACTERS.index(" ")
        weights = torch.where(inked, 1.0, BLANK_WEIGHT)
        reading = (F.cross_entropy(logits, target, reduction="none") * weights).sum() / weights.sum()

        size = visual.shape[-1:]
        said = F.layer_norm(self.pieces(visual).view(-1, PIECES, *size), size)
        asked = pieces != IGNORE
        names, piece = self._among_others(pieces[asked], embeddings)
        named = self.sharpness[0] * said[asked] @ F.normalize(embeddings[names], dim=-1).T
        naming = F.cross_entropy(named, piece)

        around = pieces_before != IGNORE
        names, near = self._among_others(pieces_before[around], embeddings - embeddings.mean(0))
        centred = F.normalize(embeddings[names] - embeddings.mean(0), dim=-1)
        likely = F.log_softmax(self.sharpness[1] * F.layer_norm(self.context(visual), size) @ centred.T, dim=-1)
        cell = around.nonzero()[:, 0]
        context = -likely[cell, near].mean()

        if kept is None:
            size_loss = NORM_WEIGHT * (visual.norm(dim=-1) - VISUAL_NORM).pow(2).mean()
        else:
            size_loss = KEEPING_WEIGHT * (visual - kept).pow(2).mean() / kept.pow(2).mean()
        loss = reading + PIECES_WEIGHT * naming + CONTEXT_WEIGHT * context + size_loss
        return loss, {
            "characters_loss": reading,
            "characters_accuracy": (logits.argmax(-1) == target)[inked].float().mean(),
            "pieces_accuracy": (named.argmax(-1) == piece).float().mean(),
            "context_loss": context,
        }

    @staticmethod
    def _among_others(pieces: Tensor, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Names of the pieces and of others, [names]; and the index of each piece among them."""
        others = torch.randint(len(embeddings), (OTHER_PIECES,))
        names, index = torch.unique(torch.cat([pieces, others]), return_inverse=True)
        return names, index[: len(pieces)]


class HybridCtxForReading(HybridCtxForCausalLM):
    """The model with its training losses: one forward pass per batch, with whatever losses the batch has labels for.

    Answers: cross entropy on the labelled tokens alone; the output layer does not run where nothing is asked.
    Reading: see [`ReadingHeads`].

    Its checkpoints load as `HybridCtxForCausalLM`, which leaves the reading heads behind.
    """

    def __init__(self, config: HybridCtxConfig) -> None:
        super().__init__(config)
        self.reading = ReadingHeads(config.text_config.hidden_size)
        self.averages: dict[str, float] = {}
        self._kept: list[nn.Module] = []  # not a module of the model, so that its weights are not saved
        self._given: dict[str, Any] = {}
        last = self.model.language_model.layers[-1].self_attn
        last.register_forward_pre_hook(lambda _, args, given: self._given.update(given), with_kwargs=True)
        self.post_init()

    def forward(
        self,
        pixel_values: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        characters: Tensor | None = None,
        pieces: Tensor | None = None,
        pieces_before: Tensor | None = None,
        labels: Tensor | None = None,
        weights: Tensor | None = None,
        shared_ids: Tensor | None = None,
        looks: Tensor | None = None,
        kind: str = "answers",
        **inputs: Any,
    ) -> dict[str, Tensor]:
        """
        Args:
            characters, pieces, pieces_before: what stands in the visual tokens, as [`ReadingHeads`] takes it.
            labels: [batch, sequence], not shifted.
            weights: [batch, sequence] of the labels; the first of each answer weighs most unless given.
            shared_ids: [1, shared sequence], what all rows begin with, its pages included; it is read without gradients.
            looks: [looks, 3]: a row, a position in it, and the earlier one of the visual token to be looked at there.
            kind: what the averages of this batch are called.
        """
        loss = torch.zeros(())
        pages = None
        if shared_ids is not None:
            inputs |= self._read_shared(shared_ids, pixel_values, image_grid_thw, inputs["attention_mask"])
        elif pixel_values is not None:
            pages = self.model.get_image_features(pixel_values, image_grid_thw, return_dict=True)
            if characters is not None:
                embeddings = self.model.language_model.embed_tokens.weight.detach()
                visual = torch.cat(list(pages.pooler_output))
                kept = self._as_kept(pixel_values, image_grid_thw)
                loss, scores = self.reading(visual, embeddings, characters, pieces, pieces_before, kept)
                self._average(scores)
        if labels is not None:
            if pages is not None:
                inputs |= {"mm_encoder_outputs": {"image": pages}, "image_grid_thw": image_grid_thw}
            hidden = self.model(**inputs, use_cache=False).last_hidden_state
            asked = labels[:, 1:] != IGNORE
            begins = asked & (labels[:, :-1] == IGNORE)
            shifted = torch.where(begins, FIRST_TOKEN_WEIGHT, 1.0) if weights is None else weights[:, 1:]
            logits, target, share = self.lm_head(hidden[:, :-1][asked]), labels[:, 1:][asked], shifted[asked]
            answers = (F.cross_entropy(logits, target, reduction="none") * share).sum() / share.sum()
            right = (logits.argmax(-1) == target).float().mean()
            self._average({f"{kind}_loss": answers, f"{kind}_accuracy": right})
            loss = loss + answers
            if looks is not None:
                looking = self._looking(looks)
                self._average({f"{kind}_looking": looking})
                loss = loss + LOOKING_WEIGHT * looking
        return {"loss": loss}

    def _read_shared(
        self, shared_ids: Tensor, pixel_values: Tensor | None, grid: Tensor | None, attention_mask: Tensor
    ) -> dict[str, Any]:
        """What `forward` needs to go on, in each row, behind what all of them begin with."""
        is_page = (shared_ids == self.config.image_token_id).int()
        with torch.no_grad():
            positions, _ = self.model.get_rope_index(shared_ids, is_page, image_grid_thw=grid)
            cache = self.model(
                input_ids=shared_ids,
                position_ids=positions,
                pixel_values=pixel_values,
                image_grid_thw=grid,
                mm_token_type_ids=is_page,
                use_cache=True,
            ).past_key_values
        torch.clear_autocast_cache()  # whose weights have no gradients
        rows, length = attention_mask.shape
        cache.batch_repeat_interleave(rows)
        following = positions.max() + 1 + torch.arange(length)
        before = attention_mask.new_ones(rows, shared_ids.shape[1])
        return {
            "past_key_values": cache,
            "position_ids": following.expand(3, rows, length),
            "attention_mask": torch.cat([before, attention_mask], dim=1),
        }

    def keep_tower(self) -> None:
        """From now on, the tower is trained to give visual embeddings near to those that it gives now."""
        self._kept = [deepcopy(self.model.visual).requires_grad_(False)]

    @torch.no_grad()
    def _as_kept(self, pixel_values: Tensor, grid: Tensor | None) -> Tensor | None:
        if not self._kept:
            return None
        learning, self.model.visual = self.model.visual, self._kept[0]
        try:
            return torch.cat(list(self.model.get_image_features(pixel_values, grid, return_dict=True).pooler_output))
        finally:
            self.model.visual = learning

    def _looking(self, looks: Tensor) -> Tensor:
        """Mean cross entropy of where the fetching heads of the last layer look, among all that stands before."""
        attention = self.model.language_model.layers[-1].self_attn
        hidden = self._given["hidden_states"]
        shape = (*hidden.shape[:2], -1, attention.head_dim)
        queries, keys = (proj(hidden).view(shape).transpose(1, 2) for proj in (attention.q_proj, attention.k_proj))
        queries, keys = apply_rotary_pos_emb(queries, keys, *self._given["position_embeddings"])
        row, query, key = looks.T
        groups = torch.tensor(FETCHING_HEADS) // attention.num_key_value_groups
        asked = queries[row[:, None], torch.tensor(FETCHING_HEADS), query[:, None]]
        scores = (asked[:, :, None] * keys[row][:, groups]).sum(-1) * attention.scaling
        later = torch.arange(hidden.shape[1]) > query[:, None]
        scores = scores.masked_fill(later[:, None], -torch.inf)
        return F.cross_entropy(scores.flatten(0, 1), key.repeat_interleave(len(FETCHING_HEADS)))

    def _average(self, scores: dict[str, Tensor]) -> None:
        for name, score in scores.items():
            last = self.averages.setdefault(name, score.item())
            self.averages[name] = 0.95 * last + 0.05 * score.item()
