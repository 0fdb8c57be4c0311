# SPDX-License-Identifier: Apache-2.0
r"""Answers held to a long document: seconds of its index, milliseconds of a step.

    OMP_NUM_THREADS=1 python benchmarks/grounding.py [--megabytes 1 10] [--vocabulary 150000] [--quotations 20]

The document is made of sentences of `examples/`, drawn at random, with a needle among each hundred; the vocabulary of
byte-level BPE that is trained on it, filled up with pseudo-words to the given size.

- index: what is made once for a document, seconds a megabyte; from a kept order: where that was saved (`order`);
- vocabulary: what is made once for a tokenizer; bound: what is made once for both;
- a step: `DocumentQuoteProcessor` on scores of the whole vocabulary, while spans of the document are quoted that begin
  in one place (needles) or in many (a blank, "the"), token by token, masking of the scores included; a step of
  `DocumentStringProcessor` while a sentence with a number is said;
- the named alternative is the plain way, as a prototype would do it: all occurrences of what was quoted by `str.find`,
  and of each the tokens that go on by looking its next bytes up in a dict. Both allow the same tokens, or the script
  fails.

Seconds are those that the process computed, on one thread. Results: `benchmarks/results/grounding.json`.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe_machine
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from transformers_hybridctx.evaluation.needles import draw_number, draw_uuid, needle_sentence
from transformers_hybridctx.grounding.borders import word_borders
from transformers_hybridctx.grounding.matching import IndexMatcher
from transformers_hybridctx.grounding.quote_processor import DocumentQuoteProcessor
from transformers_hybridctx.grounding.span_index import DocumentIndex, character_offsets
from transformers_hybridctx.grounding.string_processor import DocumentStringProcessor
from transformers_hybridctx.grounding.support import SupportChecker
from transformers_hybridctx.grounding.token_pieces import MAX_PIECE_BYTES, TokenPieces, pieces_of

EXAMPLES = Path(__file__).parents[1] / "examples"
RESULTS = Path(__file__).parent / "results" / "grounding.json"
MEGABYTE = 10**6
MARKS = ("<think>", "</think>")
WORDS = ("amber", "brisk", "calm", "dusty", "eager", "fable", "glade", "harbor", "ivory", "jolly")

Row = dict[str, Any]


def clocked(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that the process computed, and what the call returned."""
    started = time.process_time()
    output = call()
    return time.process_time() - started, output


def make_document(rng: random.Random, num_bytes: int) -> tuple[str, list[str]]:
    """A text of about so many bytes, and the needles in it."""
    prose = [(EXAMPLES / name).read_text(encoding="utf-8") for name in ("persuasion.txt", "nordic_factbook.txt")]
    sentences = [one for text in prose for one in re.split(r"(?<=[.!?\n])\s+", text) if one]
    drawn: list[str] = []
    needles: list[str] = []
    size = 0
    while size < num_bytes:
        sentence = rng.choice(sentences)
        if len(drawn) % 100 == 50:
            kind, value = rng.choice((("numbers", draw_number), ("uuids", draw_uuid)))
            sentence = needle_sentence(kind, f"{rng.choice(WORDS)}-{rng.choice(WORDS)}-{len(needles)}", value(rng))
            needles.append(sentence)
        drawn.append(sentence)
        size += len(sentence.encode()) + 1
    return "\n".join(drawn), needles


def make_tokenizer(rng: random.Random, text: str, size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE with pieces of up to three digits, filled up with pseudo-words."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([text[: 2 * MEGABYTE]], trainer)
    model = json.loads(backend.to_str())["model"]
    vocabulary = model["vocab"]
    syllables = [first + second for first in "bcdfghklmnprst" for second in ("a", "e", "i", "o", "u", "er", "in")]
    fill = (f"{blank}{number}" for blank in ("", "Ġ") for number in range(1000))
    while len(vocabulary) < size:
        word = next(fill, None) or rng.choice(("", "Ġ")) + "".join(rng.choices(syllables, k=rng.randint(1, 4)))
        vocabulary.setdefault(word, len(vocabulary))
    merges = [tuple(merge) for merge in model["merges"]]
    backend.model = models.BPE(vocab=vocabulary, merges=merges)
    backend.add_tokens([AddedToken(mark, normalized=False) for mark in MARKS])
    backend.add_special_tokens(["</s>"])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")


class PlainSteps:
    """The named alternative: occurrences by `str.find`, the tokens that go on with each by a dict of pieces."""

    def __init__(self, folded: str, pieces: TokenPieces) -> None:
        self._text = folded.encode("utf-8", "surrogatepass")
        self._borders = set(character_offsets(self._text)[word_borders(folded)].tolist())
        self._pieces = {piece: number for number, piece in enumerate(pieces.pieces)}
        self._piece_of = pieces.piece_of

    def allowed(self, said: bytes) -> np.ndarray:
        """Bool `[vocabulary]`: the tokens that go on with an occurrence of `said`, which is not empty."""
        found = np.zeros(len(self._pieces) + 1, bool)
        start = self._text.find(said)
        while start >= 0:
            if start in self._borders:
                end = start + len(said)
                for stop in range(end + 1, min(end + MAX_PIECE_BYTES, len(self._text)) + 1):
                    piece = self._pieces.get(self._text[end:stop])
                    if piece is not None:
                        found[piece] = True
            start = self._text.find(said, start + 1)
        allowed: np.ndarray = found[self._piece_of]
        return allowed


def quoted_tokens(tokenizer: PreTrainedTokenizerFast, spans: list[str]) -> Iterator[list[int]]:
    for span in spans:
        yield tokenizer(f"{MARKS[0]}{span}{MARKS[1]}", add_special_tokens=False)["input_ids"]


def step_seconds(processor: Any, tokens: list[int], scores: torch.Tensor) -> list[float]:
    """Of each step while the tokens are said, one by one."""
    prompt = [0, 1, 2]
    seconds = []
    for length in range(len(tokens) + 1):
        ids = torch.tensor([prompt + tokens[:length]])
        taken, held = clocked(lambda ids=ids: processor(ids, scores))
        seconds.append(taken)
        if length < len(tokens) and not held[0, tokens[length]].isfinite():
            raise AssertionError(f"token {tokens[length]} of a span of the document was not allowed")
    return seconds


def measure(
    megabytes: float, text: str, needles: list[str], tokenizer: Any, quotations: int, rng: random.Random
) -> Row:
    size = len(text.encode()) / MEGABYTE
    row: Row = {"megabytes": round(size, 2), "characters": len(text), "vocabulary": len(tokenizer)}
    index_seconds, index = clocked(lambda: DocumentIndex(text))
    again_seconds, _ = clocked(lambda: DocumentIndex(text, index.order))
    row |= {"index_seconds_per_mb": index_seconds / size, "index_from_order_seconds_per_mb": again_seconds / size}
    row["order_bytes_per_byte"] = index.order.nbytes / len(index.spans.buffer)
    row["vocabulary_seconds"], pieces = clocked(lambda: TokenPieces(tokenizer))
    pieces = pieces_of(tokenizer)
    bound_seconds, _ = clocked(lambda: index.bound_to(pieces))
    row["bound_seconds_per_mb"] = bound_seconds / size
    scores = torch.zeros(1, len(tokenizer))
    first, processor = clocked(lambda: DocumentQuoteProcessor(index, tokenizer))
    row["processor_seconds"] = first

    words = text.split()
    common = ["the", "and she", "of the", "Anne", "I"]
    kinds = {
        "needles": rng.sample(needles, min(quotations, len(needles))),
        "prose": [" ".join(words[at : at + 12]) for at in rng.sample(range(len(words) - 12), quotations)],
        "common words": [word for word in common if f" {word} " in text],
    }
    for kind, spans in kinds.items():
        steps: list[float] = []
        for tokens in quoted_tokens(tokenizer, spans):
            try:
                steps += step_seconds(processor, tokens, scores)
            except AssertionError:
                if kind == "needles":  # prose may begin or end inside a word
                    raise
        row[f"{kind}: steps"] = len(steps)
        row[f"{kind}: ms a step, mean"] = 1e3 * statistics.mean(steps)
        row[f"{kind}: ms a step, median"] = 1e3 * statistics.median(steps)
        row[f"{kind}: ms a step, most"] = 1e3 * max(steps)

    made, strings = clocked(lambda: DocumentStringProcessor(index, tokenizer, question="Which number?"))
    row["strings processor, first question, seconds"] = made
    made, strings = clocked(
        lambda: DocumentStringProcessor(index, tokenizer, question="Which other number is it, 77?")
    )
    row["strings processor, later question, seconds"] = made
    said = [f"It says that it is {needle.split()[-1]}" for needle in kinds["needles"]]
    taken = [step_seconds(strings, tokenizer(one)["input_ids"], scores) for one in said]
    steps = [one for each in taken for one in each]
    row |= {"strings: ms a step, mean": 1e3 * statistics.mean(steps), "strings: ms a step, most": 1e3 * max(steps)}

    checker = SupportChecker(index)
    answers = [
        "One of the special magic numbers is 1234567",
        needles[0],
        needles[0][:-3],
        "They walked to the cottage",
    ]
    checks = [clocked(lambda answer=answer: checker.check(answer)) for answer in [*answers, *answers]]
    row["support: first checks, seconds"] = sum(seconds for seconds, _ in checks[: len(answers)])
    row["support: later checks, ms each"] = 1e3 * statistics.mean(seconds for seconds, _ in checks[len(answers) :])

    plain = PlainSteps(index.folded.text, pieces)
    matcher = IndexMatcher(index.bound_to(pieces)[0])
    for kind, spans in kinds.items():
        theirs, ours = [], []
        for tokens in quoted_tokens(tokenizer, spans[:3]):
            cursor = matcher.start()
            for token in tokens[1:-1]:
                following = matcher.extend(cursor, token)
                if following is None:
                    break
                cursor = following
                seconds, expected = clocked(lambda cursor=cursor: plain.allowed(cursor.said))
                theirs.append(seconds)
                seconds, found = clocked(lambda cursor=cursor: matcher.allowed(cursor))
                ours.append(seconds)
                if not np.array_equal(found, expected):
                    raise AssertionError(f"other tokens are allowed after {cursor.said!r}")
        row[f"{kind}: str.find, ms a step, mean"] = 1e3 * statistics.mean(theirs)
        row[f"{kind}: str.find, ms a step, most"] = 1e3 * max(theirs)
        row[f"{kind}: index alone, ms a step, mean"] = 1e3 * statistics.mean(ours)
        row[f"{kind}: index alone, ms a step, most"] = 1e3 * max(ours)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, nargs="+", default=[1, 10])
    parser.add_argument("--vocabulary", type=int, default=150_000)
    parser.add_argument("--quotations", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    tokenizer = None
    for megabytes in options.megabytes:
        rng = random.Random(f"{options.seed} {megabytes}")
        text, needles = make_document(rng, round(megabytes * MEGABYTE))
        tokenizer = tokenizer or make_tokenizer(rng, text, options.vocabulary)
        rows.append(measure(megabytes, text, needles, tokenizer, options.quotations, rng))
    for name in rows[0]:
        shown = [f"{row[name]:,.3f}" if isinstance(row[name], float) else f"{row[name]:,}" for row in rows]
        print(f"{name:48}", *(f"{value:>14}" for value in shown))
    command = " ".join(["python", "benchmarks/grounding.py", *sys.argv[1:]])
    measured = describe_machine(("numpy", "pydivsufsort", "rapidfuzz", "tokenizers", "torch", "transformers"))
    found = {"command": command, "machine": measured, "arguments": vars(options), "rows": rows}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
