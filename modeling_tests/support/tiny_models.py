# SPDX-License-Identifier: Apache-2.0
"""Tiny models of the GLM-4V family, in memory, and inputs for them."""

import copy
from typing import Any

import numpy as np
import tiny_checkpoints
import torch
from tiny_checkpoints import TEXT_TOWER, VISION_TOWER, randomize
from transformers import (
    BatchFeature,
    Glm4vImageProcessorPil,
    Glm4vMoeConfig,
    Glm4vMoeForConditionalGeneration,
    Glm46VImageProcessorPil,
)

from transformers_hybridctx.configuration_hybridctx import HybridCtxConfig
from transformers_hybridctx.image_processing_hybridctx import HybridCtxImageProcessor
from transformers_hybridctx.modeling_hybridctx import HybridCtxForCausalLM

PATCH, MERGE, VOCAB = 6, 2, 97
IMAGE, IMAGE_START, IMAGE_END, PAD = 3, 4, 5, 0
LATENT, NUM_LATENTS = 2, 3
FACTOR = PATCH * MERGE
IMAGE_SETTINGS = {"patch_size": PATCH, "size": {"shortest_edge": FACTOR**2, "longest_edge": 2 * 30 * FACTOR**2}}
FAMILIES = {**tiny_checkpoints.FAMILIES, "glm4v_moe": (Glm4vMoeConfig, Glm4vMoeForConditionalGeneration, "glm4v_moe")}
IMAGE_PROCESSORS = {
    name: Glm46VImageProcessorPil if name in ("glm46v", "glm_ocr") else Glm4vImageProcessorPil for name in FAMILIES
}
EXPERTS = {
    "moe_intermediate_size": 32,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}


def tower_configs(towers: str = "glm4v") -> dict:
    """Keyword arguments of a tiny config of the family: its two towers and token ids."""
    vision = VISION_TOWER | {"model_type": f"{towers}_vision", "patch_size": PATCH, "image_size": 8 * PATCH}
    text = copy.deepcopy(TEXT_TOWER) | {"model_type": f"{towers}_text", "vocab_size": VOCAB, "pad_token_id": PAD}
    if towers == "glm4v_moe":
        text |= EXPERTS
    ids = {"image_token_id": IMAGE, "image_start_token_id": IMAGE_START, "image_end_token_id": IMAGE_END}
    return {"vision_config": vision, "text_config": text} | ids


def make_model(towers: str = "glm4v", **kwargs) -> HybridCtxForCausalLM:
    return randomize(HybridCtxForCausalLM(HybridCtxConfig(**tower_configs(towers), **kwargs)))


def latent_options(encoder: str = "qwen2") -> dict[str, Any]:
    """What to add to a tiny config for a latent encoder of another width than the decoder's."""
    sizes = {"vocab_size": VOCAB, "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64}
    latent = {"model_type": encoder, **sizes, **heads, "pad_token_id": PAD}
    if encoder == "bert":
        del latent["num_key_value_heads"]
        latent |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    if encoder == "glm4v_text":
        latent |= {"rope_parameters": {**TEXT_TOWER["rope_parameters"], "mrope_section": [2, 2, 2]}, "head_dim": 12}
    return {"latent_config": latent, "latent_token_id": LATENT, "num_latent_tokens": NUM_LATENTS}


def latent_inputs(rows: list[list[Any]]) -> dict[str, Any]:
    """Inputs as of `make_inputs`, for rows that also hold chunks: "c9" is one of nine tokens."""
    generator = torch.Generator().manual_seed(1)
    sizes = [int(part[1:]) for row in rows for part in row if isinstance(part, str)]
    placeholders = [LATENT] * NUM_LATENTS
    inputs = make_inputs([[placeholders if isinstance(part, str) else part for part in row] for row in rows])
    chunks = [torch.randint(6, VOCAB, (size,), generator=generator) for size in sizes]
    pad = torch.nn.utils.rnn.pad_sequence
    return inputs | {
        "latent_input_ids": pad(chunks, batch_first=True),
        "latent_attention_mask": pad([torch.ones_like(chunk) for chunk in chunks], batch_first=True),
    }


def make_pages(sizes: list[tuple[int, int]], colour: bool = False, seed: int = 0) -> list[np.ndarray]:
    """Noise pages of the given heights and widths in merge blocks, a few pixels off, so that they are resized."""
    rng = np.random.default_rng(seed)
    shape = (3,) if colour else ()
    return [rng.integers(0, 256, (h * FACTOR + 3, w * FACTOR - 2, *shape), dtype=np.uint8) for h, w in sizes]


def make_inputs(rows: list[list], pixels: dict | BatchFeature | None = None, seed: int = 0, **kwargs) -> dict:
    """
    Model inputs for rows that list page sizes `(height, width)` in merge blocks, numbers of text tokens and lists of
    tokens, in any order. Padded on the left. Pixels are those of `pixels`, where given, or our image processor's.
    """
    sizes = [part for row in rows for part in row if isinstance(part, tuple)]
    if pixels is None:
        pixels = HybridCtxImageProcessor(**IMAGE_SETTINGS)(make_pages(sizes, seed=seed, **kwargs), return_tensors="pt")
    generator = torch.Generator().manual_seed(seed)
    grids, sequences = iter(pixels["image_grid_thw"].tolist()), []
    for row in rows:
        ids: list[int] = []
        for part in row:
            if isinstance(part, tuple):
                _, height, width = next(grids)
                ids += [IMAGE_START, *[IMAGE] * (height * width // MERGE**2), IMAGE_END]
            elif isinstance(part, list):
                ids += part
            else:
                ids += torch.randint(6, VOCAB, (part,), generator=generator).tolist()
        sequences.append(ids)
    length = max(map(len, sequences))
    input_ids = torch.tensor([[PAD] * (length - len(ids)) + ids for ids in sequences])
    attention_mask = torch.tensor([[0] * (length - len(ids)) + [1] * len(ids) for ids in sequences])
    return {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "mm_token_type_ids": (input_ids == IMAGE).int(),
        **(dict(pixels.items()) if sizes else {}),
    }


PAGES_FIRST = [[(2, 3), (2, 3), (1, 2), 9], [(3, 2), 4]]
TOKENS_FIRST = [[7, (2, 3), 2, (1, 2), 3], [5, (2, 3), (2, 2), 2]]
PACKED_ROWS: list[list[Any]] = [[(2, 3), (1, 2), 9], [5, (3, 2), 2, (2, 2), 4], [7], [(2, 3), 3], [1]]
ORDERS = {"pages_first": PAGES_FIRST, "tokens_first": TOKENS_FIRST}


def attended(logits: torch.Tensor, inputs: dict) -> torch.Tensor:
    return logits[inputs["attention_mask"].bool()]


class TowerCalls:
    """Counts how many patches went through the vision tower in each of its calls."""

    def __init__(self, model: HybridCtxForCausalLM) -> None:
        self.patches: list[int] = []
        self.hook = model.model.visual.register_forward_pre_hook(lambda _, args: self.patches.append(len(args[0])))

    def __enter__(self) -> list[int]:
        return self.patches

    def __exit__(self, *exc_info) -> None:
        self.hook.remove()


def pixels_of(inputs: dict) -> tuple[torch.Tensor, torch.Tensor]:
    return inputs["pixel_values"], inputs["image_grid_thw"]


def make_examples(
    rows: list[list[Any]] = PACKED_ROWS, colour: tuple[int, ...] = (1,)
) -> list[dict[str, torch.Tensor]]:
    """An example for each row of page sizes and numbers of tokens; those in `colour` have colour pages."""
    examples = []
    for index, row in enumerate(rows):
        inputs = make_inputs([row], seed=index, colour=index in colour)
        labels = inputs["input_ids"].masked_fill(inputs["input_ids"] == IMAGE, -100)
        labels[:, : labels.shape[1] // 3] = -100
        examples.append(inputs | {"labels": labels})
    return examples
