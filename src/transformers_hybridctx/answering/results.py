# SPDX-License-Identifier: Apache-2.0
"""What a person or a program gets of an answer: its words, how they stand to the document, where, and at what cost."""

from __future__ import annotations

import time
import warnings
from dataclasses import asdict
from typing import Any, Literal, NotRequired, TypedDict

from PIL import Image
from transformers import PreTrainedTokenizerBase

from ..grounding.evidence import Evidence, find_evidence, mark_evidence, quoted_evidence, split_reasoning
from ..grounding.grounded import support_checker
from ..planning.plan import ContextPlan
from .confidence import ABSTAIN_BELOW, confidence
from .engine import GeneratedAnswer

MAX_AGREEING = 64
"""Places of an answer that are compared with the question."""
Standing = Literal["verbatim", "near", "absent", "unchecked", "cut off"]


class StringSupport(TypedDict):
    """
    How an answer, or a string of it, stands to the document: the fields of [`Support`].

    `places` are characters [start, end) of the document, of all occurrences of the first of `found`.
    """

    text: str
    start: int
    end: int
    status: Standing
    found: tuple[str, ...]
    places: tuple[tuple[int, int], ...]
    distance: int | None


class AnswerStanding(TypedDict):
    """
    How an answer stands to the document: the fields of [`AnswerSupport`].

    `agreement`: whether the document speaks of what is asked where the answer stands, 0 to 1.
    """

    agreement: float
    status: Standing
    whole: StringSupport
    strings: tuple[StringSupport, ...]
    beyond: str


class QuotedSpan(TypedDict):
    """What an answer quotes: the fields of [`Quotation`], characters [start, end) of the document in `places`."""

    text: str
    places: tuple[tuple[int, int], ...]
    is_answer: bool
    is_complete: bool


class Usage(TypedDict):
    """What an answer cost: tokens, and the seconds of each stage."""

    document_tokens: int
    visual_tokens: int
    text_tokens: int
    latent_tokens: NotRequired[int]  # where there are latents
    prompt_tokens: int
    new_tokens: int
    compression_ratio: float | None
    seconds: dict[str, float]


class LongDocAnswer(TypedDict):
    """
    One question's answer.

    Attributes:
        answer: what the model says.
        checked: the same, as it may be used: with the document's own strings where `repair` was asked for and exactly one
            is near; None where `abstain` was, and nothing in the document supports it, or `confidence` is too low.
        support: how the answer stands to the document; None where the document's text is not known (page pictures).
        reasoning: what the model said before it.
        finish_reason: `"stop"`, or `"length"` where the answer was cut off at `max_new_tokens` (with an empty `answer`,
            and the support `"cut off"`: while the model was still thinking, or quoting).
        score: the geometric mean of the probabilities of all these tokens, as the model has them where nothing holds it.
        confidence: the chance that the answer is right, as far as the score, its support and what stands around it tell
            ([`confidence`]); None where the document's text is not known, or the support is `"unchecked"`.
        evidence: where the answer stands: of an answer that quotes, all places of what it took from its quotations (the
            first 2,000); else the places that are nearest to the question. One item a line.
        quotations: what the answer quotes, with `grounding="quote"`.
        usage: counts of tokens, and the seconds of each stage.
        plan: the [`ContextPlan`]; characters are those of its `document.text`.
        pages: {page: picture} with the evidence marked, with `return_pages=True`.
    """

    answer: str
    checked: str | None
    support: AnswerStanding | None
    reasoning: str
    finish_reason: Literal["stop", "length"]
    score: float
    confidence: float | None
    evidence: list[Evidence]
    quotations: list[QuotedSpan]
    usage: Usage
    plan: ContextPlan
    pages: NotRequired[dict[int, Image.Image]]


def result_of(
    generated: GeneratedAnswer,
    tokenizer: PreTrainedTokenizerBase,
    return_pages: bool = False,
    repair: bool = False,
    abstain: bool | float = False,
) -> LongDocAnswer:
    """
    A generated answer as text, held against its document.

    Args:
        return_pages, repair: see [`LongDocAnswer`].
        abstain: whether to withhold answers; a number: below which confidence, in place of `ABSTAIN_BELOW`.

    Warns:
        UserWarning: the answer was cut off before it began.
    """
    started = time.perf_counter()
    plan, question = generated.plan, generated.question
    reasoning, answer = spoken(generated, tokenizer)
    is_cut_off = generated.finish_reason == "length" and not answer
    if is_cut_off:
        warnings.warn(
            f"the answer to {question!r:.80} was cut off after {len(generated.token_ids)} tokens, "
            "before it began: raise max_new_tokens, or let the model answer without thinking, where its chat "
            'template knows that: chat_template_kwargs={"enable_thinking": False}',
            stacklevel=4,
        )
    evidence = quoted_evidence(plan, generated.quotations)
    if is_cut_off:
        evidence = []  # what a quotation has begun with stands in many places, and is no answer
    elif not generated.quotations:
        evidence = find_evidence(plan, answer, f"{question} {reasoning}")
    support, checked, sure = None, answer, None
    if plan.document.text.strip():
        checker = support_checker(plan.document)
        found = checker.check(answer, question, is_cut_off, bool(plan.document.unknown_pages))
        places = [(item["start"], item["end"]) for item in evidence] or found.places
        spans = [one.places for one in generated.quotations if one.is_answer] or [tuple(places)]
        agreement = min(checker.agreement(question, span[:MAX_AGREEING]) for span in spans)  # of several, the worst
        if found.beyond:
            agreement = 0.0  # what stands there is not what is asked
        support = AnswerStanding(agreement=agreement, **asdict(found))  # type: ignore[typeddict-item]
        if found.status != "unchecked":
            sure = confidence(generated.score, found.status, agreement)
        if repair:
            checked = checker.repaired(answer, found)
    least = ABSTAIN_BELOW if abstain is True else float(abstain)
    nothing = support is not None and support["status"] in ("absent", "cut off")
    withheld = abstain is not False and (nothing or (sure is not None and sure < least))
    result = LongDocAnswer(
        answer=answer,
        checked=None if withheld else checked,
        support=support,
        reasoning=reasoning,
        finish_reason=generated.finish_reason,
        score=generated.score,
        confidence=sure,
        evidence=evidence,
        quotations=[
            QuotedSpan(text=one.text, places=one.places, is_answer=one.is_answer, is_complete=one.is_complete)
            for one in generated.quotations
        ],
        usage=Usage(
            document_tokens=plan.document_tokens,
            visual_tokens=plan.visual_tokens,
            text_tokens=plan.text_tokens,
            prompt_tokens=plan.total_tokens,
            new_tokens=len(generated.token_ids),
            compression_ratio=plan.compression_ratio,
            seconds={},
        ),
        plan=plan,
    )
    if plan.latents:
        result["usage"]["latent_tokens"] = plan.latent_tokens
    if return_pages:
        result["pages"] = mark_evidence(plan, evidence)
    result["usage"]["seconds"] = {**generated.seconds, "evidence": time.perf_counter() - started}
    return result


def spoken(generated: GeneratedAnswer, tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """What a model says before its answer, and the answer: what is marked as one, or was taken from quotations."""

    def said(tokens: Any) -> str:
        return str(tokenizer.decode(tokens, skip_special_tokens=True))

    grounding, quotations = generated.grounding, generated.quotations
    is_free = grounding is None or (grounding.form.end is not None and grounding.form.answer == "free")
    if is_free or not quotations:
        return split_reasoning(said(generated.token_ids))
    assert grounding is not None
    parts = [one.tokens for one in quotations if one.is_answer]
    if grounding.form.end is None:
        parts = [quotations[-1].tokens]
    start, end = (parts[0][0], parts[-1][1]) if parts else (len(generated.token_ids),) * 2
    before = split_reasoning(said(generated.token_ids[:start]))
    return " ".join(filter(None, before)), said(generated.token_ids[start:end]).strip()


__all__ = ["AnswerStanding", "LongDocAnswer", "QuotedSpan", "StringSupport", "Usage", "result_of", "spoken"]
