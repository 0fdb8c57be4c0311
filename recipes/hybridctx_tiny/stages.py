# SPDX-License-Identifier: Apache-2.0
"""The stages that train hybridctx-tiny, each one `transformers.Trainer` run that can be stopped and resumed.

`recall`: the decoder learns to look facts up in passages given as tokens.
`read`: the tower learns to read its pages. Independent of `recall`; the two may run side by side.
`fuse`: both together, on pages with copied passages, on pages alone, and on passages alone.
"""

from __future__ import annotations

from collections import defaultdict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformers_hybridctx.configuration_hybridctx import HybridCtxConfig
from transformers_hybridctx.modeling_hybridctx import HybridCtxForCausalLM

from .batches import CHARACTERS, IGNORE
from .reference import COLUMNS_PER_TOKEN, LINES_PER_TOKEN

CELLS = COLUMNS_PER_TOKEN * LINES_PER_TOKEN
FIRST_TOKEN_WEIGHT = 4.0
"""Loss weight of an answer's first token, which chooses the place; the others mostly go on copying from there."""


class HybridCtxForReading(HybridCtxForCausalLM):
    """The model with its training losses: one forward pass per batch, with whatever losses the batch has labels for.

    Answers: cross entropy on the labelled tokens alone, the first of each answer weighing most; the output layer does not
    run where nothing is asked.
    Reading, dense, on every visual embedding: the character in each of its 18 cells, by a linear layer.

    Its checkpoints load as `HybridCtxForCausalLM`, which leaves the reading head behind.
    """

    def __init__(self, config: HybridCtxConfig) -> None:
        super().__init__(config)
        hidden_size = config.text_config.hidden_size
        self.characters = nn.Linear(hidden_size, CELLS * len(CHARACTERS))
        self.averages: dict[str, float] = defaultdict(float)
        self.post_init()

    def forward(
        self,
        pixel_values: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        characters: Tensor | None = None,
        labels: Tensor | None = None,
        **inputs: Tensor,
    ) -> dict[str, Tensor]:
        """
        Args:
            characters: [visual tokens, 18] index of the character in each cell.
            labels: [batch, sequence], not shifted.
        """
        loss = torch.zeros(())
        pages = None
        if pixel_values is not None:
            pages = self.model.get_image_features(pixel_values, image_grid_thw, return_dict=True)
            visual = torch.cat(list(pages.pooler_output))
            if characters is not None:
                logits = self.characters(visual).view(-1, len(CHARACTERS))
                loss = loss + self._cross_entropy("characters", logits, characters.flatten())
        if labels is not None:
            encoded = {"image": pages} if pages is not None else None
            hidden = self.model(
                **inputs, image_grid_thw=image_grid_thw, mm_encoder_outputs=encoded, use_cache=False
            ).last_hidden_state
            asked = labels[:, 1:] != IGNORE
            begins = asked & (labels[:, :-1] == IGNORE)
            logits = self.lm_head(hidden[:, :-1][asked])
            weights = torch.where(begins, FIRST_TOKEN_WEIGHT, 1.0)[asked]
            loss = loss + self._cross_entropy("answers", logits, labels[:, 1:][asked], weights)
        return {"loss": loss}

    def _cross_entropy(self, name: str, logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
        losses = F.cross_entropy(logits, target, reduction="none")
        loss = losses.mean() if weights is None else (losses * weights).sum() / weights.sum()
        hits = (logits.argmax(-1) == target).float().mean()
        for key, value in ((f"{name}_loss", loss), (f"{name}_accuracy", hits)):
            self.averages[key] = 0.95 * self.averages[key] + 0.05 * value.item()
        return loss
