# SPDX-License-Identifier: Apache-2.0
"""Training batches of the stage `attend`: short pages, quoted token by token, each with the cell that it is read off.

Most of what is quoted cannot be guessed, so that it has to be chosen among its like by its key, and then spelled out.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from transformers_hybridctx.evaluation.needles import (
    draw_key,
    draw_number,
    draw_uuid,
    needle_question,
    needle_sentence,
)
from transformers_hybridctx.rendering.rendered_document import RenderedDocument

from .answer_batches import quoted_with_a_blank
from .batches import IGNORE
from .broad_batches import BroadBatches
from .tasks import Document, Question, draw_word

KINDS = {"needles": 0.65, "facts": 0.2, "prose": 0.15}
"""How often a batch of short pages is of each kind: RULER's needles, facts in other wordings, prose as it is."""
NEEDLES = {"numbers": (draw_number, 0.45), "uuids": (draw_uuid, 0.3), "words": (draw_word, 0.25)}
"""What needles hide, and how often."""
NUM_CHARS = (60, 1_500)
"""Lengths of documents, drawn on a logarithmic scale: reading is learned where little has to be searched."""
KEY_WEIGHT, CHOICE_WEIGHT = 0.3, 3.0
"""Loss weights of the key of a quotation, which the question has as text, and of the first two tokens of its value."""


class LookingBatches(BroadBatches):
    """
    Item i is the whole batch of step i: rows of short pages with several questions each, or a batch of `broaden`.

    Args:
        prose, others: as there.
        broad: how often a batch is of the stage `broaden`, which keeps what was learned there.
        page_tokens: bound on the padded tokens of a batch of short pages.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        prose: dict[str, str],
        *,
        broad: float = 0.2,
        page_tokens: int = 2_000,
        **others: Any,
    ) -> None:
        super().__init__(tokenizer, prose, **others)
        self._tokenizer, self._broad, self._page_tokens = tokenizer, broad, page_tokens
        names = ("<think>", "</think>", "<|user|>", "<|image|>")
        self._ids = {name: tokenizer.convert_tokens_to_ids(name) for name in names}

    def __getitem__(self, step: int) -> dict[str, Any]:
        rng = Random(f"spell {self._seed} {step}")
        if rng.random() < self._broad:
            return super().__getitem__(step)
        kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
        least, most = NUM_CHARS
        num_chars = round(least * (most / least) ** rng.random())
        rows: list[tuple[list[int], list[int]]] = []
        weights: list[list[float]] = []
        looks: list[tuple[int, int, int]] = []
        pages: list[Any] = []
        for ids, labels, shares, looked, drawn in self._short(rng, kind, num_chars):
            if rows and max(len(ids), *(len(row) for row, _ in rows)) * (len(rows) + 1) > self._page_tokens:
                break
            looks += [(len(rows), query, key) for query, key in looked]
            rows.append((ids, labels))
            weights.append(shares)
            pages += drawn.pages
        batch: dict[str, Any] = self._encode.pad(rows)
        batch["weights"] = torch.zeros(batch["labels"].shape)
        for row, shares in zip(batch["weights"], weights, strict=True):
            row[: len(shares)] = torch.tensor(shares)
        batch |= {"mm_token_type_ids": self._encode.page_tokens(batch["input_ids"]), "kind": f"short_{kind}"}
        return batch | {"looks": torch.tensor(looks)} | self._reader.pixels(pages)

    def _short(
        self, rng: Random, kind: str, num_chars: int
    ) -> Iterator[tuple[list[int], list[int], list[float], list[tuple[int, int]], RenderedDocument]]:
        """Tokens, labels, their weights, (position, position of the cell that is read there), and the document."""
        while True:
            document = quoted_with_a_blank(self._spelled(rng, kind, num_chars))
            drawn = self._reader.draw(document.text)
            quoted = [(one, start) for one in document.questions if (start := _verbatim(document.text, one)) >= 0]
            if not quoted:
                continue
            ids = self._encode.opening(self._reader.tokens(drawn))
            positions = [n for n, token in enumerate(ids) if token == self._ids["<|image|>"]]
            cells = self._reader.visual_tokens(drawn)
            labels, weights, looks = [IGNORE] * len(ids), [0.0] * len(ids), []
            for turn, (question, start) in enumerate(quoted):
                prompt = self._encode.prompt(question.text, is_first=not turn)
                quote = self._tokenizer(
                    question.quotes[0],
                    add_special_tokens=False,
                    split_special_tokens=True,
                    return_offsets_mapping=True,
                )
                said = [self._ids["<think>"], *quote.input_ids, self._ids["</think>"]]
                ids += prompt
                value = len(question.quotes[0]) - len(question.answer)
                shares = [KEY_WEIGHT]
                for number, (begin, end) in enumerate(quote.offset_mapping):
                    character = (
                        begin + len(question.quotes[0][begin:end]) - len(question.quotes[0][begin:end].lstrip())
                    )
                    if character < end and (cell := cells[start + character - 1]) >= 0:
                        looks.append((len(ids) + number, positions[cell]))
                    shares.append(KEY_WEIGHT if end <= value else 1.0)
                begins = next((n for n, share in enumerate(shares) if share == 1.0), len(shares))
                shares[begins : begins + 2] = [CHOICE_WEIGHT] * len(shares[begins : begins + 2])
                ids += [*said, self._ids["<|user|>"]]
                labels += [IGNORE] * len(prompt) + said + [IGNORE]
                weights += [0.0] * len(prompt) + shares + [KEY_WEIGHT, 0.0]
            yield ids, labels, weights, looks, drawn

    def _spelled(self, rng: Random, kind: str, num_chars: int) -> Document:
        if kind == "facts":
            return self._mixture.draw(rng, num_chars, rng.randint(1, 5))
        if kind == "prose":
            return self._prose(rng, max(num_chars, 150))
        name, (draw, _) = rng.choices(list(NEEDLES.items()), [share for _, share in NEEDLES.values()])[0]
        keys = list(dict.fromkeys(draw_key(rng, held_out=False) for _ in range(rng.choice((1, 2, 3, 4, 4, 5)))))
        pairs = [(key, draw(rng)) for key in keys]
        text, spans = self._mixture.hide(rng, num_chars, [needle_sentence(name, *pair) for pair in pairs])
        questions = [
            Question(needle_question(name, [key], several=False), value, (span,), (f"{key} is: {value}",))
            for (key, value), span in zip(pairs, spans, strict=True)
        ]
        rng.shuffle(questions)
        return Document(text, tuple(questions))

    def _prose(self, rng: Random, num_chars: int) -> Document:
        """Questions for what comes after a few words, of up to sixteen more."""
        text = self._mixture.draw_prose(rng, num_chars)
        words = text.split(" ")
        questions = []
        for _ in range(3):
            at = rng.randrange(max(1, len(words) - 14))
            lead, more = " ".join(words[at : at + 4]), " ".join(words[at + 4 : at + rng.randint(10, 20)])
            start = text.find(lead)
            if more and "\n" not in lead + more and text.count(lead) == 1:
                place = (start, start + len(lead) + 1 + len(more))
                questions.append(Question(f'What comes after "{lead}"?', more, (place,), (f"{lead} {more}",)))
        return Document(text, tuple(questions))


def _verbatim(text: str, question: Question) -> int:
    """Where the question's one quotation stands in the text, if it ends with the answer; else -1."""
    if len(question.quotes) != 1 or not question.quotes[0].endswith(question.answer):
        return -1
    near = question.places[0][0] if question.places else 0
    return text.find(question.quotes[0].removeprefix(" "), near)
