# SPDX-License-Identifier: Apache-2.0
"""Reinforcement from exact evidence: TRL's GRPO on questions about documents, shown as pages, as tokens and as both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from trl import GRPOConfig, GRPOTrainer

from ..modules.loading import base_model
from ..planning.budget import ContextBudget, ContextBudgetError
from ..planning.policies.base import TextPolicy
from ..processing_hybridctx import HybridCtxProcessor
from ..prompting.pages import drawn_pages
from .checkpoints import WholeCheckpoints
from .held_out import MeasuresHeldOut
from .objectives import ExampleMaker
from .records import TrainingRecord, TrainingTurn
from .rewards import REWARDS, answer_reward, evidence_boxes, place_reward, quote_reward
from .unused import note_unused

_REWARDS: dict[str, Any] = dict(zip(REWARDS, (answer_reward, quote_reward, place_reward), strict=True))

_FORM = "\nQuote the words of the document that the answer rests on between <think> and </think>, then answer."
_PLACE = "\nName the page and the box where that stands."


class HybridCtxGRPOTrainer(MeasuresHeldOut, WholeCheckpoints, GRPOTrainer):
    """TRL's trainer, with prompts whose messages hold documents (`{"type": "document", "text": ...}`)."""

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], list[Any] | None, dict[str, Any]]:
        """
        (token ids, page pictures, what the model takes beside the ids) of each prompt, as the processor writes it. TRL
        looks for pictures in messages, and documents become pictures only when they are planned.
        """
        features, plans = self.processing_class.apply_chat_template(
            prompts, add_generation_prompt=True, tokenize=True, return_dict=True, return_plan=True
        )
        if any(plan.latents for few in plans for plan in few):
            raise ValueError(
                "a prompt's budget gives text to latents, which is not trained so yet: leave latent_share out"
            )
        kept = [np.flatnonzero(mask) for mask in features["attention_mask"]]

        def without_padding(name: str) -> list[list[int]]:
            return [np.asarray(row)[places].tolist() for row, places in zip(features[name], kept, strict=True)]

        fields: dict[str, Any] = {"mm_token_type_ids": without_padding("mm_token_type_ids")}
        if "pixel_values" not in features:
            return without_padding("input_ids"), None, fields
        fields |= {name: torch.as_tensor(features[name]) for name in ("pixel_values", "image_grid_thw")}
        pages = [
            [page for plan in few if plan.num_pages for page in drawn_pages(plan.document, plan.scale)]
            for few in plans
        ]
        return without_padding("input_ids"), pages, fields

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        # TRL's are of the prompt as one text, which has other tokens at the borders of what the processor puts together;
        # the model finds them in the tokens themselves
        kwargs.pop("mm_token_type_ids", None)

        def scored(**inputs: Any) -> Any:
            if "image_grid_thw" in inputs and not len(inputs["image_grid_thw"]):  # of a few prompts, none has a page
                del inputs["image_grid_thw"], inputs["pixel_values"]
            return model(**inputs)

        return super()._get_per_token_logps_and_entropies(scored, *args, **kwargs)


def reward_rows(
    tables: Sequence[Sequence[Mapping[str, Any]]],
    maker: ExampleMaker,
    rewards: Mapping[str, float],
    channels: Mapping[str, float],
    seed: int,
    unused_path: Path,
) -> Any:
    """
    A `datasets.Dataset` for GRPO, of any records that have evidence: a row for each question that has, with the columns
    `prompt`, `answer`, `context` and `boxes`, made when it is asked for.

    Args:
        tables: records, as [`TrainingRecord.as_row`] makes them.
        maker: whose processor, budget and text policy the prompts have.
        rewards: what is asked for: with "quote" a quotation before the answer, with "place" the place of the evidence.
        channels: how often a document is shown in which form; the same for all samples of a question.
        unused_path: a file that a line of JSON is added to for each question that cannot be used.

    Raises:
        ValueError: no question can be used.
    """
    from datasets import Dataset

    def rng_of(place: tuple[int, int, int]) -> Random:
        return Random(f"{seed} {place}")

    places = []
    for number, table in enumerate(tables):
        for row, record in enumerate(TrainingRecord.of_row(dict(one)) for one in table):
            for turn, asked in enumerate(record.turns):
                place = (number, row, turn)
                reason = _hindrance(record, asked, maker, rewards, channels, rng_of(place))
                if reason is None:
                    places.append(place)
                else:
                    note_unused(unused_path, record.source, "rewards", reason)
    if not places:
        raise ValueError(f"data: no question can be rewarded: see {unused_path}")

    def made(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        rows = []
        for place in zip(*(batch[name] for name in _PLACES), strict=True):
            number, row, turn = place
            record = TrainingRecord.of_row(dict(tables[number][row]))
            rows.append(_row(record, record.turns[turn], maker, rewards, channels, rng_of(place)))
        return {name: [one[name] for one in rows] for name in rows[0]}

    return Dataset.from_dict(dict(zip(_PLACES, map(list, zip(*places))))).with_transform(made)


_PLACES = ("table", "row", "turn")


def _row(
    record: TrainingRecord,
    turn: TrainingTurn,
    maker: ExampleMaker,
    rewards: Mapping[str, float],
    channels: Mapping[str, float],
    rng: Random,
) -> dict[str, Any]:
    budget, policy, asked = _shown(turn, maker, rewards, channels, rng)
    document = {"type": "document", "text": record.context, "budget": budget, "text_policy": policy}
    messages: list[dict[str, Any]] = [{"role": "user", "content": [document, {"type": "text", "text": asked}]}]
    if record.system:
        messages.insert(0, {"role": "system", "content": record.system})
    boxes = []
    if "place" in rewards:
        one = TrainingRecord(record.context, (turn,))
        boxes = [list(box) for box in evidence_boxes(one, maker.processor.read_document(record.context))]
    return {"prompt": messages, "answer": turn.answer, "context": record.context, "boxes": boxes}


def _hindrance(
    record: TrainingRecord,
    turn: TrainingTurn,
    maker: ExampleMaker,
    rewards: Mapping[str, float],
    channels: Mapping[str, float],
    rng: Random,
) -> str | None:
    """Why a question cannot be used, or None."""
    if not record.context.strip() or not turn.evidence:
        return "a question without evidence"
    budget, policy, asked = _shown(turn, maker, rewards, channels, rng)
    if maker.processor.image_token in record.context + asked:
        return "a text with the token of a picture in it, which TRL counts"
    try:
        maker.processor.plan(record.context, asked, budget, policy, system=record.system)
    except ContextBudgetError:
        return "a document that no plan brings under the budget"
    return None


def _shown(
    turn: TrainingTurn,
    maker: ExampleMaker,
    rewards: Mapping[str, float],
    channels: Mapping[str, float],
    rng: Random,
) -> tuple[ContextBudget, TextPolicy, str]:
    """Budget, policy and words of a question; a place can only be told from pages."""
    channel = "pages" if "place" in rewards else rng.choices(list(channels), list(channels.values()))[0]
    return *maker.shown(channel), turn.question + _FORM * ("quote" in rewards) + _PLACE * ("place" in rewards)


def reinforcement_trainer(
    model: Any,
    arguments: GRPOConfig,
    processor: HybridCtxProcessor,
    rows: Any,
    rewards: Mapping[str, float],
) -> HybridCtxGRPOTrainer:
    """
    Args:
        rewards: what each reward weighs: `answer`, `quote`, `place`.

    Raises:
        ValueError: with "quote", a tokenizer that leaves out the marks around a quotation when it decodes.
    """
    tokenizer = processor.tokenizer
    decoded = tokenizer.decode(tokenizer.encode("</think>", add_special_tokens=False), skip_special_tokens=True)
    if "quote" in rewards and "</think>" not in decoded:
        raise ValueError(
            "rewards: quote needs a tokenizer for which </think> is no special token: it decodes to nothing"
        )
    tokenizer.padding_side = "left"
    if (
        arguments.fsdp
    ):  # accelerate spreads it without saying so, and processes whose answers end would leave the others
        base_model(model)._is_fsdp_managed_module = True
    arguments.reward_weights = list(rewards.values())
    return HybridCtxGRPOTrainer(
        model,
        reward_funcs=[_REWARDS[name] for name in rewards],
        args=arguments,
        train_dataset=rows,
        eval_dataset=rows,  # is asked for, and what is measured is held_out
        processing_class=processor,
    )


__all__ = ["HybridCtxGRPOTrainer", "reinforcement_trainer", "reward_rows"]
