# SPDX-License-Identifier: Apache-2.0
"""What a prompt is made of, by name: pages, tokens, both, and what a hybrid has to be better than at the same cost."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..planning.policies.registry import resolve_text_policy

_PARTS: dict[str, dict[str, Any]] = {
    "pages": {"policy": "none", "visual_share": 1.0},
    "tokens": {"policy": "full", "visual_share": 0.0, "is_bounded": False},
    "truncated": {"policy": "middle", "visual_share": 0.0},
    "bm25-only": {"policy": {"name": "bm25", "top_k": 4}, "visual_share": 0.0},
    "latents": {"policy": "none", "visual_share": 0.0, "latent_share": 1.0},
    "hybrid": {},
}
KINDS = tuple(_PARTS)
"""`pages`: all pages, no text; `tokens`: the whole text, whatever it costs; `truncated`: the text's head and tail, as
many tokens as the budget has (RULER's and LongBench's own baseline); `bm25-only`: the passages that a hybrid copies,
without its pages; `latents`: the text from its beginning on as latents, as many as the budget has; `hybrid`: all pages,
and what a policy copies."""
_UNASKED = ("pages", "truncated", "bm25-only", "hybrid")
"""Kinds that are made where none is named: no whole text, and nothing that needs a latent encoder."""
_BESIDE_LATENTS = ("pages", "bm25-only", "hybrid")
GROUNDINGS = ("none", "quote", "strings")
HYBRID_POLICIES = ("anchors", "bm25", "attention")
_PASSAGES = 4  # that the query-aware policies copy


@dataclass(frozen=True)
class Context:
    """
    How a sample becomes a prompt.

    Attributes:
        kind: one of `KINDS`.
        policy: of a hybrid: what is copied; None: the checkpoint's own.
        fusion_order: of a hybrid: "pages_first", "tokens_first" or "tokens_last"; None: the checkpoint's own.
        grounding: how answers are held to the document: "none", "quote" or "strings".
        quote_after: of "quote": what follows these words is a quotation ("</think>"); None: what stands between <think>
            and </think>, as the bundled checkpoint has it.
        blank_pages: the same prompt with nothing on its pages: what a score owes to reading them is the difference.
        budget: longest prompt in tokens.
        budget_share: the same as a part of the context's tokens; with both, the smaller one counts.
        scale: pages are drawn at this scale only: how densely they are written.
        latent_share: of pages, hybrids and passages: latents for the beginning of the document take at most this share of
            the prompt; None: there are none. Beside pages, that is for what pages have no room for.

    Raises:
        ValueError: an unknown name, or parts that make no sense together.
    """

    kind: str
    policy: str | None = None
    fusion_order: str | None = None
    grounding: str = "none"
    quote_after: str | None = None
    blank_pages: bool = False
    budget: int | None = None
    budget_share: float | None = None
    scale: float | None = None
    latent_share: float | None = None

    def __post_init__(self) -> None:
        for name, value, known in (("context", self.kind, KINDS), ("grounding", self.grounding, GROUNDINGS)):
            if value not in known:
                raise ValueError(f"{name} {value!r} is not one of {', '.join(map(repr, known))}")
        if self.policy is not None:
            resolve_text_policy(self.policy)
        if self.kind != "hybrid" and (self.policy or self.fusion_order):
            raise ValueError(f"the context {self.kind!r} has no policy and no fusion order of its own; hybrid has")
        if self.blank_pages and not self.has_pages:
            raise ValueError(f"the context {self.kind!r} has no pages that could be blank")
        if self.latent_share is not None and self.kind not in _BESIDE_LATENTS:
            kinds = ", ".join(map(repr, _BESIDE_LATENTS))
            raise ValueError(f"the context {self.kind!r} has no latent_share of its own; {kinds} have")
        if self.latent_share is not None and not 0 < self.latent_share <= 1:
            raise ValueError(f"latent_share={self.latent_share} must be above 0, and 1 at most")
        if self.budget_share is not None and not 0 < self.budget_share < math.inf:
            raise ValueError(f"budget_share={self.budget_share} must be above 0 and finite")

    @property
    def has_pages(self) -> bool:
        return _PARTS[self.kind].get("visual_share") != 0

    @property
    def has_latents(self) -> bool:
        return self.latent_share is not None or "latent_share" in _PARTS[self.kind]

    @property
    def is_bounded(self) -> bool:
        """Whether the budget holds for it."""
        return bool(_PARTS[self.kind].get("is_bounded", True))

    @property
    def label(self) -> str:
        """Its name in tables and records: two contexts with the same label are the same."""
        parts: list[Any] = [
            self.kind,
            self.policy,
            self.fusion_order,
            None if self.scale is None else f"scale {self.scale:g}",
            None if self.latent_share is None else f"latents {self.latent_share:g}",
        ]
        if self.grounding != "none":
            parts.append(f"held to {self.grounding}")
        if self.blank_pages:
            parts.append("blank pages")
        return ", ".join(str(part) for part in parts if part)

    @property
    def can_be_read_ahead(self) -> bool:
        """Whether pages or latents come first, so that many questions can share one reading of them."""
        return (self.has_pages or self.has_latents) and self.fusion_order != "tokens_first"

    def prompt_bound(self, context_tokens: int) -> int | None:
        """`max_context_tokens` for a context of that many tokens; None: the checkpoint's own bound."""
        if not self.is_bounded:
            return None
        share = None if self.budget_share is None else round(self.budget_share * context_tokens)
        return min((bound for bound in (self.budget, share) if bound is not None), default=None)

    def options(self, context_tokens: int) -> dict[str, Any]:
        """Keyword arguments of a [`LongDocQAPipeline`] call."""
        parts = _PARTS[self.kind]
        budget = {
            "max_context_tokens": self.prompt_bound(context_tokens),
            "visual_share": parts.get("visual_share"),
            "latent_share": parts.get("latent_share", self.latent_share),
            "min_scale": self.scale,
            "max_scale": self.scale,
            "max_text_tokens": None if self.is_bounded else sys.maxsize,
        }
        options: dict[str, Any] = {"budget": {name: value for name, value in budget.items() if value is not None}}
        if (policy := parts.get("policy", self.policy)) is not None:
            options["text_policy"] = (
                {"name": policy, "top_k": _PASSAGES} if policy in ("bm25", "attention") else policy
            )
        if self.fusion_order is not None:
            options["fusion_order"] = self.fusion_order
        if self.grounding == "quote" and self.quote_after is not None:
            return options | {"grounding": {"begin": self.quote_after, "end": None}}
        return options | {"grounding": self.grounding}


def make_contexts(
    kinds: Sequence[str] = (),
    policies: Sequence[str] = (),
    groundings: Sequence[str] = ("none",),
    fusion_orders: Sequence[str] = (),
    blank_pages: bool = False,
    latent_shares: Sequence[float] = (),
    **fields: Any,
) -> list[Context]:
    """
    Every combination that makes sense.

    Args:
        kinds: of `KINDS`; all but `tokens` and `latents` if none is given.
        policies: for `hybrid`, one context each; `anchors`, `bm25` and `attention` if none is given.
        groundings: each context once for each.
        fusion_orders: each hybrid once for each.
        blank_pages: each context that has pages once more with nothing on them.
        latent_shares: each context that may have latents once more for each.
        fields: `budget`, `budget_share`, `scale` and `quote_after` of all.
    """
    contexts = []
    for kind in kinds or _UNASKED:
        variants = [Context(kind, **fields)]
        if kind == "hybrid":
            variants = [
                Context(kind, policy, order, **fields)
                for policy in policies or HYBRID_POLICIES
                for order in fusion_orders or (None,)
            ]
        if kind in _BESIDE_LATENTS:
            variants = [
                replace(variant, latent_share=share) for variant in variants for share in (None, *latent_shares)
            ]
        for variant in variants:
            for grounding in groundings:
                held = replace(variant, grounding=grounding)
                contexts.append(held)
                if blank_pages and held.has_pages:
                    contexts.append(replace(held, blank_pages=True))
    return contexts


def parse_context(words: str, **fields: Any) -> Context:
    """A context from its label's first words: `pages`, `hybrid:bm25`, `hybrid:bm25:tokens_first`."""
    kind, *rest = re.split(r"[:,]\s*", words.strip())
    if len(rest) > 2:
        raise ValueError(f"context {words!r} has too many parts: write KIND, hybrid:POLICY or hybrid:POLICY:ORDER")
    policy, order = (*rest, None, None)[:2]
    return Context(kind, policy, order, **fields)


__all__ = ["GROUNDINGS", "HYBRID_POLICIES", "KINDS", "Context", "make_contexts", "parse_context"]
