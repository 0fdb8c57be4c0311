# SPDX-License-Identifier: Apache-2.0
"""Small tokenizers of each kind, and a random text model to generate with."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEXTS = [
    "The special magic number for green-lemur is: 4821930. Remember it, it will be asked for later on.",
    'It was the best of times, it was the worst of times; "it\'s the age" of wisdom, 1,234,567 and 10.0.0.1!',
    "Das Straßencafé öffnet für Gäste: Übergröße, naïve façade, Ελληνικά και Русский язык, don't (well-known).",
    "她在二零二四年花费了一百二十三元。他们走进了图书馆。 서울은 크다. ประเทศไทย हिन्दी العربية שלום 👩‍👩‍👧 🇮🇸",
    "def request(worker_id: int) -> None: raise ValueError('no such worker 550e8400-e29b-41d4-a716-446655440000')",
]
SPECIAL = ["<s>", "</s>", "<unk>", "[MASK]"]
MARKS = ["<think>", "</think>"]


def byte_level(marks: bool = True, vocab_size: int = 420) -> PreTrainedTokenizerFast:
    """Byte-level BPE: any character can be said, most of them in several tokens."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=SPECIAL,
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS, trainer)
    return _wrapped(backend, marks)


def sentencepiece(marks: bool = True, byte_fallback: bool = True) -> PreTrainedTokenizerFast:
    """Unigram with SentencePiece's mark for a blank, and its tokens for single bytes."""
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    backend.train_from_iterator(TEXTS, trainer)
    vocabulary = [(piece, float(score)) for piece, score in _unigram_pieces(backend)]
    if byte_fallback:
        vocabulary += [(f"<0x{byte:02X}>", -20.0) for byte in range(256)]
    backend.model = models.Unigram(vocabulary, unk_id=2, byte_fallback=byte_fallback)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        if byte_fallback
        else [decoders.Metaspace()]
    )
    return _wrapped(backend, marks)


def _unigram_pieces(backend: Tokenizer) -> list[tuple[str, float]]:
    import json

    return [tuple(entry) for entry in json.loads(backend.to_str())["model"]["vocab"]]


def wordpiece(marks: bool = True, lowercase: bool = False) -> PreTrainedTokenizerFast:
    """BERT's: words, parts of words behind `##`, punctuation by itself."""
    backend = Tokenizer(models.WordPiece(unk_token="<unk>"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=420, special_tokens=SPECIAL, show_progress=False)
    backend.train_from_iterator(TEXTS, trainer)
    return _wrapped(backend, marks)


def _wrapped(backend: Tokenizer, marks: bool) -> PreTrainedTokenizerFast:
    if marks:
        backend.add_tokens([AddedToken(mark, normalized=False) for mark in MARKS])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )


@lru_cache
def tokenizer_of(kind: str, marks: bool = True) -> PreTrainedTokenizerFast:
    kinds: dict[str, Any] = {"byte level": byte_level, "sentencepiece": sentencepiece, "wordpiece": wordpiece}
    return kinds[kind](marks)


@lru_cache
def random_text_model(vocab_size: int, seed: int = 0) -> LlamaForCausalLM:
    """A decoder of random weights whose next tokens differ much with what was said."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.6,
        max_position_embeddings=4096,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=1,
    )
    return LlamaForCausalLM(config).eval()
