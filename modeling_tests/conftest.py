# SPDX-License-Identifier: Apache-2.0
"""Tiny fixtures that all tests share: a tokenizer, an image processor, a processor and a checkpoint of the GLM family."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from tiny_checkpoints import TEXT_TOWER, VISION_TOWER
from tiny_models import make_model
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, pipeline

from transformers_hybridctx import (
    HybridCtxConfig,
    HybridCtxForCausalLM,
    HybridCtxImageProcessor,
    HybridCtxProcessor,
    LongDocQAPipeline,
)
from transformers_hybridctx.planning.policies.registry import TEXT_POLICIES

# The suite tries the same cases everywhere; new ones come by `pytest --hypothesis-profile=explore`.
settings.register_profile("repeatable", derandomize=True)
settings.register_profile("explore", print_blob=True)
settings.load_profile("repeatable")

# Workers share few cores, where threads of several wait for one another; and sums of several threads are other numbers.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of processes that tests start

SPECIAL_TOKENS = [
    "<|endoftext|>",
    "[gMASK]",
    "<sop>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|begin_of_image|>",
    "<|image|>",
    "<|end_of_image|>",
]

# The shape of GLM-4.1V's template: text and image parts in order, an open assistant turn at the end.
CHAT_TEMPLATE = """[gMASK]<sop>
{%- for message in messages -%}
{%- if message.role == 'system' %}<|system|>
{{ message.content if message.content is string else message.content[0].text }}
{%- elif message.role == 'user' %}<|user|>
{% if message.content is string %}{{ message.content }}
{%- else %}
{%- for item in message.content %}
{%- if item.type == 'image' or 'image' in item %}<|begin_of_image|><|image|><|end_of_image|>
{%- elif item.type == 'text' %}{{ item.text }}
{%- endif %}
{%- endfor %}
{%- endif %}
{%- elif message.role == 'assistant' %}<|assistant|>
{% generation %}{{ message.content if message.content is string else message.content[0].text }}<|endoftext|>
{%- endgeneration %}
{%- endif %}
{%- endfor -%}
{%- if add_generation_prompt %}<|assistant|>
{% endif %}"""

_TRAINING_TEXTS = [
    "The special magic number for green-lemur is: 4821930. Remember it, it will be asked for later.",
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness.",
    "page 1 page 2 page 3 what is the value of the key, and where does the document say so? Answer in one word.",
    "她在二零二四年花费了一百二十三元。他们走进了图书馆。",
    "def request(worker_id: int) -> None: raise ValueError('no such worker')",
]


def train_tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with GLM's special tokens and pre-tokenisation: single digits, newlines end a word."""
    backend = Tokenizer(models.BPE())
    words = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=SPECIAL_TOKENS,
        show_progress=False,
    )
    backend.train_from_iterator(_TRAINING_TEXTS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=SPECIAL_TOKENS[1:],
        chat_template=CHAT_TEMPLATE,
    )


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tiny_tokenizer()


@pytest.fixture(scope="session")
def image_processor() -> HybridCtxImageProcessor:
    """One visual token shows 28 x 28 pixels."""
    sizes = {"shortest_edge": 28**2, "longest_edge": 28**2 * 800}
    return HybridCtxImageProcessor(patch_size=14, merge_size=2, size=sizes)


@pytest.fixture(scope="session")
def render_config() -> dict[str, Any]:
    """Small pages of 24 x 12 characters, 36 visual tokens, so that short texts have several of them."""
    return {
        "page_width": 168,
        "page_height": 168,
        "margin_x": 10,
        "margin_y": 10,
        "font_size": 10,
        "line_height": 12,
    }


@pytest.fixture(scope="session")
def processor(
    tokenizer: PreTrainedTokenizerFast, image_processor: HybridCtxImageProcessor, render_config: dict[str, Any]
) -> HybridCtxProcessor:
    # with pages in any case, however short a text is
    return HybridCtxProcessor(image_processor, tokenizer, render_config=render_config, default_text_policy="anchors")


@pytest.fixture(scope="session")
def checkpoint(processor: HybridCtxProcessor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random HybridCtx model, small enough to answer at once, and its processor. Not to be written to."""
    ids = processor.tokenizer.convert_tokens_to_ids
    eos = processor.tokenizer.eos_token_id
    config = HybridCtxConfig(
        text_config={
            **TEXT_TOWER,
            "vocab_size": len(processor.tokenizer),
            "initializer_range": 0.5,  # so that answers differ with what is asked
            "pad_token_id": eos,
            "eos_token_id": eos,
        },
        vision_config={**VISION_TOWER, "image_size": 168, "initializer_range": 0.5},
        image_token_id=ids("<|image|>"),
        image_start_token_id=ids("<|begin_of_image|>"),
        image_end_token_id=ids("<|end_of_image|>"),
        pad_token_id=eos,
        eos_token_id=eos,
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoint")
    HybridCtxForCausalLM(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model() -> HybridCtxForCausalLM:
    """A model with all optional parts. Tests must leave it as it is."""
    return make_model(phi="residual_adapter", modality_embedding=True)


@pytest.fixture(scope="session")
def pipe(checkpoint: Path) -> LongDocQAPipeline:
    """A pipeline with the random model, not to be changed."""
    return pipeline("long-doc-qa", model=str(checkpoint), max_new_tokens=6)


@pytest.fixture
def fresh_pipe(checkpoint: Path) -> LongDocQAPipeline:
    """A pipeline of its own, to be changed."""
    return pipeline("long-doc-qa", model=str(checkpoint), max_new_tokens=6)


@pytest.fixture
def own_text_policies() -> Iterator[None]:
    """Text policies that a test registers are forgotten after it: errors in other tests name those that are known."""
    known = dict(TEXT_POLICIES)
    yield
    TEXT_POLICIES.clear()
    TEXT_POLICIES.update(known)
