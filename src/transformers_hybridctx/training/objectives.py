# SPDX-License-Identifier: Apache-2.0
"""Objectives: what a record teaches. Each makes of a record an example: tokens, labels and pages as the model takes them.

Prompts are those of the processor, token by token: what is trained is what is run. Labels stand on what the model has to
say, and on nothing else; pages and what a user writes carry none.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np

from ..planning.budget import ContextBudget, ContextBudgetError
from ..planning.plan import ContextPlan
from ..planning.policies.base import TextPolicy
from ..planning.policies.registry import resolve_text_policy
from ..processing_hybridctx import HybridCtxProcessor
from ..prompting.pages import renderer_for
from ..rendering.settings import RenderConfig
from .records import TrainingRecord, TrainingTurn, UnusableRow

IGNORE = -100
USER = "<|user|>"
"""What a template of the family writes before a user's words, and so behind an answer."""
Example = dict[str, Any]
"""`input_ids` and `labels`, lists of equal length, and where there are pages `pixel_values` and `image_grid_thw`."""

_MARKS = re.compile(r"(</?think>)")
_PARAGRAPH = re.compile(r"\n\s*\n")
_READ_BACK = "Write out the text of the document, word for word."
_PIECE = 2000  # characters of a piece of interleaved text, about
_BOX_UNITS = 1000
_TOKEN = 8  # characters of a token at most, on average, where half of the text is pages


@dataclass(frozen=True)
class ExampleMaker:
    """
    Makes examples with one processor.

    Attributes:
        processor: of the checkpoint that is trained.
        budget: of each prompt, labels not counted.
        text_policy: what is copied as tokens where pages and tokens are shown.
        max_tokens: longest example, labels counted.
        end_token_id: what ends an answer, and is learned with it.
        image_borders: the tokens around a page.
        quote_form: how `quote` writes evidence and answer; `{evidence}` and `{answer}` stand in it.
    """

    processor: HybridCtxProcessor
    budget: ContextBudget
    text_policy: TextPolicy
    max_tokens: int
    end_token_id: int
    image_borders: tuple[int, int]
    quote_form: str = "<think>{evidence}</think>{answer}"

    def answer(self, record: TrainingRecord, rng: Random, style: RenderConfig | None, channel: str) -> Example:
        """
        Every question about a document, one after another; some of them, at random, where all are too long for
        `max_tokens` or answers change what the next question is shown. A policy that looks at the question gets one.
        """
        return self._conversation(record, record.turns, rng, style, channel)

    def quote(self, record: TrainingRecord, rng: Random, style: RenderConfig | None, channel: str) -> Example:
        """
        As `answer`, and before each answer the words that it rests on, as the document has them; of questions whose
        evidence is known.
        """
        turns = []
        for turn in _with_evidence(record, "a turn without evidence has nothing to quote"):
            if _MARKS.search(turn.answer):
                raise UnusableRow("an answer with reasoning of its own, which is no quotation")
            evidence = "\n".join(record.context[start:end] for start, end in turn.evidence)
            turns.append(replace(turn, answer=self.quote_form.format(evidence=evidence, answer=turn.answer)))
        return self._conversation(record, turns, rng, style, channel)

    def locate(self, record: TrainingRecord, rng: Random, style: RenderConfig | None, channel: str) -> Example:
        """
        Where on the pages the evidence stands: `Page 2 [x1, y1, x2, y2]`, a line each, in thousandths of the page's width
        and height, as grounded vision-language models say boxes.
        """
        turn = rng.choice(_with_evidence(record, "a turn without evidence has no place"))
        document = self._typeset(record.context, style)
        lines = []
        for start, end in turn.evidence:
            for page, (left, top, right, bottom) in document.boxes(start, end):
                height, width = document.page_size(page)
                box = (left / width, top / height, right / width, bottom / height)
                lines.append(f"Page {page + 1} [{', '.join(str(round(_BOX_UNITS * part)) for part in box)}]")
        question = f"{turn.question}\nName the page and the box where that stands."
        return self._prompted(document, [TrainingTurn(question, "\n".join(lines))], record.system, "pages")

    def read_back(self, record: TrainingRecord, rng: Random, style: RenderConfig | None, channel: str) -> Example:
        """A piece of text from pages alone (OCR): some hundred words, as far as the longest example allows."""
        piece = _piece(record.context, rng, min(_PIECE, 2 * self.max_tokens))
        return self._prompted(self._typeset(piece, style), [TrainingTurn(_READ_BACK, piece)], None, "pages")

    def interleaved(self, record: TrainingRecord, rng: Random, style: RenderConfig | None, channel: str) -> Example:
        """
        Language modelling of a text whose pieces are pages or tokens in turn, either first (Glyph, arXiv 2510.17800:
        interleaved language modelling): the pieces that are tokens are learned, given all pieces before them. It begins
        anywhere in a text that is longer than fits.
        """
        if not record.context.strip():
            raise UnusableRow("no text to go on with")
        processor, left = self.processor, self.max_tokens
        begin, end = self.image_borders
        ids = list(processor.tokenizer("").input_ids)
        labels, plans = [IGNORE] * len(ids), []
        as_page = rng.random() < 0.5
        for piece in _pieces(_from_anywhere(record.context, rng, self.max_tokens), rng):
            if as_page:
                plan = processor.plan(self._typeset(piece, style), budget=_PAGES, text_policy="none")
                tokens = [
                    token for count in plan.page_tokens for token in (begin, *[processor.image_token_id] * count, end)
                ]
                targets = [IGNORE] * len(tokens)
            else:
                tokens = processor.encoder([piece])[0]
                targets = tokens
            if len(ids) + len(tokens) > left:
                break
            ids, labels = ids + tokens, labels + targets
            plans += [plan] if as_page else []
            as_page = not as_page
        if all(label == IGNORE for label in labels) or not plans:
            raise UnusableRow("a text of one piece, or pieces longer than the longest example")
        return self._with_pages(ids, labels, plans)

    def chat(self, record: TrainingRecord, rng: Random, style: RenderConfig | None, channel: str) -> Example:
        """
        A dialogue as it is, without a document; where it is longer than the longest example, its earlier turns are the
        document that the last one is about.
        """
        if record.context:
            return self.answer(record, rng, style, channel)
        try:
            try:
                return self._prompted(None, record.turns, record.system, "tokens")
            except _RetoldError:
                return self._prompted(None, record.turns, record.system, "tokens", only_last=True)
        except _TooLongError:
            *earlier, last = record.turns
            if not earlier:
                raise
            told = "\n\n".join(f"User: {turn.question}\n\nAssistant: {turn.answer}" for turn in earlier)
            return self._prompted(self._typeset(told, style), [last], record.system, channel)

    def _conversation(
        self,
        record: TrainingRecord,
        turns: Sequence[TrainingTurn],
        rng: Random,
        style: RenderConfig | None,
        channel: str,
    ) -> Example:
        if not turns or not record.context.strip():
            raise UnusableRow("no question about a document")
        if len(turns) > 1 and channel == "both" and self.text_policy.looks_at_question:
            turns = [rng.choice(turns)]
        document = self._typeset(record.context, style)
        while True:
            try:
                return self._prompted(document, turns, record.system, channel)
            except (_TooLongError, _RetoldError):
                if len(turns) == 1:
                    raise
                kept = sorted(rng.sample(range(len(turns)), len(turns) // 2))
                turns = [turns[number] for number in kept]

    def _prompted(
        self,
        document: Any,
        turns: Sequence[TrainingTurn],
        system: str | None,
        channel: str,
        only_last: bool = False,
    ) -> Example:
        """
        One conversation; each answer, or the last one alone, and the token that ends it, is learned.

        Raises:
            _RetoldError: an answer stands otherwise in the prompt of the next question than where it was given.
            _TooLongError: no plan, or too many tokens.
        """
        ids: list[int] = []
        labels: list[int] = []
        plan = None
        for index, turn in list(enumerate(turns))[-1 if only_last else 0 :]:
            history = [(one.question, one.answer) for one in turns[:index]]
            prompt, plan = self._prompt(document, turn.question, history, system, channel)
            if prompt[: len(ids)] != ids:
                raise _RetoldError("answers that the prompt of the next question has otherwise")
            place = len(ids)
            labels += [IGNORE] * (len(prompt) - place)
            if place:  # what ends an answer is what the template writes behind it
                labels[place] = prompt[place] if prompt[place] in self._ends else IGNORE
            answer = self._answer_ids(turn.answer)
            ids, labels = prompt + answer, labels + answer
        ids, labels = [*ids, self.end_token_id], [*labels, self.end_token_id]
        if len(ids) > self.max_tokens:
            raise _TooLongError("an example longer than max_tokens")
        return self._with_pages(ids, labels, [plan] if plan is not None and plan.num_pages else [])

    def _prompt(
        self, document: Any, question: str, history: list[tuple[str, str]], system: str | None, channel: str
    ) -> tuple[list[int], ContextPlan | None]:
        if document is None:
            messages = [{"role": "system", "content": system}] if system else []
            for asked, said in history:
                messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
            messages.append({"role": "user", "content": question})
            try:
                ids = self.processor.apply_chat_template(messages, tokenize=True, add_generation_prompt=True)
            except ValueError as error:
                raise UnusableRow(f"a prompt that the processor refuses: {error}") from error
            return list(ids[0] if isinstance(ids[0], (list, np.ndarray)) else ids), None
        shown, policy = self.shown(channel)
        try:
            features, plan = self.processor(
                document=document,
                question=question,
                history=history,
                system=system,
                budget=shown,
                text_policy=policy,
                draw_pages=False,
                return_plan=True,
            )
        except ContextBudgetError as error:
            raise _TooLongError("a document that no plan brings under the budget") from error
        except ValueError as error:
            raise UnusableRow(f"a prompt that the processor refuses: {error}") from error
        if plan.latents:
            raise ValueError(
                f"the budget gives {len(plan.latents)} chunks of a document to latents, with which no examples are made "
                "yet: leave latent_share out of the training's budget and of the processor's default_budget"
            )
        return list(features["input_ids"][0]), plan

    def shown(self, channel: str) -> tuple[ContextBudget, TextPolicy]:
        """(budget, policy) of a document shown as pages, as tokens, or as both."""
        match channel:
            case "pages":
                return replace(self.budget, visual_share=1), resolve_text_policy("none")
            case "tokens":
                return replace(self.budget, visual_share=0, max_text_tokens=sys.maxsize), resolve_text_policy("middle")
        return self.budget, self.text_policy

    def _answer_ids(self, answer: str) -> list[int]:
        # the marks around reasoning are the model's tokens; no other of its own is written by what a data set says
        tokenizer, encode = self.processor.tokenizer, self.processor.encoder
        marks = tokenizer.get_added_vocab()
        pieces = _MARKS.split(answer) if marks.keys() & {"<think>", "</think>"} else [answer]
        return [
            token
            for piece in pieces
            for token in ([marks[piece]] if piece in marks and _MARKS.fullmatch(piece) else encode([piece])[0])
        ]

    @property
    def _ends(self) -> frozenset[int]:
        ends = self.processor.tokenizer.convert_tokens_to_ids([USER, "<|endoftext|>"])
        return frozenset((self.end_token_id, *(token for token in ends if token is not None)))

    def _with_pages(self, ids: list[int], labels: list[int], plans: list[ContextPlan]) -> Example:
        example: Example = {"input_ids": ids, "labels": labels}
        if plans:
            drawn = [self.processor.draw_pages(plan, return_tensors="np") for plan in plans]
            example |= {
                name: np.concatenate([one[name] for one in drawn]) for name in ("pixel_values", "image_grid_thw")
            }
        return example

    def _typeset(self, text: str, style: RenderConfig | None) -> Any:
        return renderer_for(style or self.processor.render_config).typeset(text)


class _TooLongError(UnusableRow):
    """A record whose example is too long; its reason is counted."""


class _RetoldError(UnusableRow):
    """
    A conversation whose earlier part is not what it was: templates of reasoning models leave the reasoning of earlier
    answers out, and a budget leaves less for a document where more was said about it.
    """


_PAGES = ContextBudget(visual_share=1)

OBJECTIVES: dict[str, Callable[..., Example]] = {
    name: getattr(ExampleMaker, name) for name in ("answer", "quote", "locate", "read_back", "interleaved", "chat")
}


def possible_objectives(record: TrainingRecord) -> frozenset[str]:
    """Those that a record has what it takes for, as far as that is seen without making an example."""
    has_text = bool(record.context.strip())
    of_text = ("read_back", "interleaved") if has_text else ()
    of_turns = ("chat", *(["answer"] if has_text else [])) if record.turns else ()
    of_evidence = ("quote", "locate") if any(turn.evidence for turn in record.turns) else ()
    return frozenset((*of_text, *of_turns, *of_evidence))


def _with_evidence(record: TrainingRecord, otherwise: str) -> list[TrainingTurn]:
    turns = [turn for turn in record.turns if turn.evidence]
    if not turns:
        raise UnusableRow(otherwise)
    return turns


def _from_anywhere(text: str, rng: Random, tokens: int) -> str:
    """A text from a word on that is drawn, with enough behind it to fill so many tokens."""
    start = rng.randrange(max(1, len(text) - _TOKEN * tokens + 1))
    return text[text.find(" ", start) + 1 :] if start else text


def _piece(text: str, rng: Random, length: int) -> str:
    """Up to so many characters, from a word's beginning to a word's end."""
    if not text.strip():
        raise UnusableRow("no text to read")
    start = rng.randrange(max(1, len(text) - length + 1))
    piece = text[start : start + length]
    if start and " " in piece:
        piece = piece.partition(" ")[2]
    if start + length < len(text) and " " in piece:
        piece = piece.rpartition(" ")[0]
    return piece.strip() or text.strip()[:length]


def _pieces(text: str, rng: Random) -> list[str]:
    """The whole text in pieces of half to one and a half times `_PIECE`, at paragraphs' borders where there are any."""
    pieces, start = [], 0
    while start < len(text):
        wanted = start + round(_PIECE * (0.5 + rng.random()))
        border = next((match.end() for match in _PARAGRAPH.finditer(text, min(wanted, len(text)))), len(text))
        end = border if border - wanted < _PIECE // 2 else text.find(" ", wanted) + 1 or len(text)
        pieces.append(text[start:end])
        start = end
    return [piece for piece in pieces if piece.strip()]


__all__ = ["IGNORE", "OBJECTIVES", "USER", "Example", "ExampleMaker", "possible_objectives"]
