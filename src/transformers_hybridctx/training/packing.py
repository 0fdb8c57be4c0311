# SPDX-License-Identifier: Apache-2.0
"""Packing: several documents in one sequence without padding, for training. None sees another."""

import os
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor
from transformers.utils.generic import is_flash_attention_requested

from ..configuration_hybridctx import HybridCtxConfig
from ..modules.input_checks import check_image_tokens, check_pixels
from ..modules.positions import rope_index

_IGNORE = -100  # the label that carries no loss, torch's own
_ROWS = ("input_ids", "attention_mask", "labels")


class DataCollatorWithPacking:
    """
    Flattens a batch of examples, each a prompt with its pages, into one sequence without padding: what transformers'
    `DataCollatorWithFlattening` does for text, with pages and their M-RoPE positions.

    No example attends to another. `sdpa` and `eager` find where examples begin from row 0 of `position_ids`, and only
    where there is neither an attention mask nor a cache: the batch has none of the former and asks for none of the
    latter; their mask and their work grow with the square of the whole batch's length. FlashAttention is told by
    `cu_seq_lens_q`, and works on each example by itself. The loss is the mean over all labelled tokens of the batch,
    so it is that of a padded batch of the same examples.

    Pages in colour make grey pages of the same batch three times as large, as all share one tensor.

    Where several processes train together, each has to use the same parameters, or they wait for one another for ever:
    a batch without pages would leave the vision tower out. There, such a batch gets a document more: one blank page of
    one visual token, which carries no loss and gives the tower gradients of exactly zero. (So weight decay moves a tower
    that sees no pages at all; freeze it where all the data is text.)

    Args:
        config: the model's `config`, the very object: whether FlashAttention is in use is read from it for each batch.
        max_length: tokens that one example may have; `None` for any number. A batch may have that many for each of
            `per_device_train_batch_size` examples.
        blank_page: give a batch without pages a blank one; `None` does so in a run of several processes, as launchers
            such as torchrun and accelerate tell it by `WORLD_SIZE`.
        needs_labels: refuse a batch of which nothing is learned.

    With an `IterableDataset`, pass `accelerator_config={"dispatch_batches": False}` to `TrainingArguments`: accelerate
    would cut the batch between its processes along first dimensions, which here are not examples.
    """

    def __init__(
        self,
        config: HybridCtxConfig,
        max_length: int | None = None,
        blank_page: bool | None = None,
        needs_labels: bool = True,
    ) -> None:
        if max_length is not None and max_length < 1:
            raise ValueError(f"max_length is {max_length}: it must be at least 1 token, or None for no bound.")
        self.config = config
        self.max_length = max_length
        self.needs_labels = needs_labels
        self.blank_page = int(os.environ.get("WORLD_SIZE", "1")) > 1 if blank_page is None else blank_page

    def __call__(self, features: list[Mapping[str, Any]]) -> dict[str, Any]:
        """
        Args:
            features: examples, as lists, arrays or tensors, with or without a batch dimension of 1:

                - `input_ids` `[length]`, with `image_token_id` wherever a visual embedding goes
                - `labels` `[length]`, optional, not shifted; -100 carries no loss. Where no example has them, every
                  token is learned. A page's tokens never are: no model says them.
                - `attention_mask` `[length]`, optional: tokens of 0 are padding and left out
                - `pixel_values` `[patches, patch width]` and `image_grid_thw` `[pages, 3]`, both or neither

        Returns:
            - `input_ids` and `mm_token_type_ids` (0 text, 1 page) `[1, total]`
            - `labels` `[1, total]`: no example's first token carries loss, as nothing of its own comes before it
            - `position_ids` `[4, 1, total]`: the token's number within its example, and its M-RoPE positions in time,
              height and width, which are those of the example by itself
            - `pixel_values` and `image_grid_thw` of all pages, where there are any (see `blank_page`)
            - `use_cache` `False`
            - where the decoder's attention is a flash one, `cu_seq_lens_q` and `cu_seq_lens_k` int32 `[examples + 1]`,
              `max_length_q` and `max_length_k`

        Raises:
            `ValueError`: an example that is empty, too long or does not fit its pages, by its number in the batch; or a
                batch whose labels are all -100.
        """
        if not features:
            raise ValueError("there are no examples to pack: pass at least one.")
        if len({"labels" in feature for feature in features}) > 1:
            raise ValueError("some examples have labels and some have not: give labels to all of them, or to none.")
        examples = []
        for index, feature in enumerate(features):
            try:
                examples.append(self._read(feature))
            except ValueError as error:
                raise ValueError(f"example {index} of {len(features)} cannot be packed: {error}") from error
        if self.needs_labels and all((example["labels"] == _IGNORE).all() for example in examples):
            raise ValueError(
                f"nothing is learned of a batch of {len(examples)} examples: all their labels are {_IGNORE}, or on first "
                "tokens, which nothing comes before. Leave such examples out, or see what makes the labels: a mask of "
                "what the model writes is zero where the chat template marks nothing"
            )
        if self.blank_page and not any("pixel_values" in example for example in examples):
            examples.append(self._read(self._blank_page()))

        batch: dict[str, Any] = {
            key: torch.cat([example[key] for example in examples], dim=-1)
            for key in ("input_ids", "mm_token_type_ids", "labels", "position_ids")
        }
        batch["use_cache"] = False
        pages = [example for example in examples if "pixel_values" in example]
        if pages:
            batch["pixel_values"] = _stack([example["pixel_values"] for example in pages])
            batch["image_grid_thw"] = torch.cat([example["image_grid_thw"] for example in pages])
        if is_flash_attention_requested(self.config.text_config):
            lengths = torch.tensor([0, *(example["input_ids"].shape[1] for example in examples)])
            cu_seq_lens, max_length = lengths.cumsum(0, dtype=torch.int32), int(lengths.max())
            batch |= {"cu_seq_lens_q": cu_seq_lens, "cu_seq_lens_k": cu_seq_lens}
            batch |= {"max_length_q": max_length, "max_length_k": max_length}
        return batch

    def _blank_page(self) -> dict[str, Any]:
        """An example that is one page of one visual token, and teaches nothing."""
        vision = self.config.vision_config
        side = vision.spatial_merge_size
        return {
            "input_ids": [self.config.image_token_id],
            "labels": [_IGNORE],
            "pixel_values": torch.full((side**2, vision.patch_size**2), 255, dtype=torch.uint8),
            "image_grid_thw": [[1, side, side]],
        }

    def _read(self, feature: Mapping[str, Any]) -> dict[str, Tensor]:
        """One example's tensors in the forms that the batch has."""
        rows = {key: _row(key, feature[key]) for key in _ROWS if key in feature}
        lengths = {key: row.shape[1] for key, row in rows.items()}
        if "input_ids" not in rows or len(set(lengths.values())) > 1:
            raise ValueError(f"its lengths are {lengths}: pass input_ids, and one value for each token in the others.")
        if "attention_mask" in rows:
            attended = rows.pop("attention_mask").bool()
            rows = {key: row[attended][None] for key, row in rows.items()}
        input_ids = rows["input_ids"]
        length = input_ids.shape[1]
        if length == 0:
            raise ValueError("it has no tokens: leave it out.")
        if self.max_length is not None and length > self.max_length:
            raise ValueError(
                f"it has {length} tokens, more than max_length={self.max_length}: plan it with a smaller "
                "ContextBudget, leave it out, or raise max_length."
            )
        mm_token_type_ids = rows["mm_token_type_ids"] = (input_ids == self.config.image_token_id).int()
        labels = rows.get("labels", input_ids).masked_fill(mm_token_type_ids != 0, _IGNORE)
        rows["labels"] = torch.cat([torch.full((1, 1), _IGNORE), labels[:, 1:]], dim=1)

        # Checked for each example: too many pages in one and too few in the next would add up to the right number.
        image_grid_thw = None
        if feature.get("pixel_values") is not None:
            pixel_values = _pixels(feature["pixel_values"])
            if feature.get("image_grid_thw") is not None:
                image_grid_thw = torch.as_tensor(feature["image_grid_thw"])
            check_pixels(pixel_values, image_grid_thw, self.config.vision_config)
            rows |= {"pixel_values": pixel_values, "image_grid_thw": cast(Tensor, image_grid_thw)}
        elif mm_token_type_ids.any():
            check_image_tokens(int(mm_token_type_ids.count_nonzero()), 0, self.config.image_token_id)
        positions, _ = rope_index(self.config, mm_token_type_ids, image_grid_thw)
        rows["position_ids"] = torch.cat([torch.arange(length).view(1, 1, -1), positions])
        return rows


def _row(key: str, value: Any) -> Tensor:
    """One value a token, as int64 `[1, length]`."""
    row = torch.as_tensor(value)
    row = row[None] if row.ndim == 1 else row
    if row.ndim != 2 or row.shape[0] != 1:
        raise ValueError(f"{key} has shape {list(row.shape)}: pass [length], one example at a time.")
    return row.long()


def _pixels(pixel_values: Any) -> Tensor:
    """Patches as a tensor; integers that have lost their dtype on the way, as in lists, are uint8 again."""
    pixels = torch.as_tensor(pixel_values)
    if pixels.dtype == torch.int64 and pixels.numel() and pixels.min() >= 0 and pixels.max() <= 255:
        return pixels.to(torch.uint8)
    return pixels


def _stack(pixel_values: list[Tensor]) -> Tensor:
    """All examples' patches `[patches, widest]`; grey ones become colour where there is colour."""
    dtypes = {pixels.dtype for pixels in pixel_values}
    if len(dtypes) > 1:
        raise ValueError(
            f"examples mix pixel_values of {sorted(map(str, dtypes))}: make all of them with one image processor."
        )
    width = max(pixels.shape[1] for pixels in pixel_values)
    return torch.cat([pixels.repeat(1, width // pixels.shape[1]) for pixels in pixel_values])


__all__ = ["DataCollatorWithPacking"]
