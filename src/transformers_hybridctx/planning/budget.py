# SPDX-License-Identifier: Apache-2.0
"""Budgets: how many tokens a prompt may take, and how pages and copied text share them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from .knobs import real_number, shown, whole_number

# Scales are tried in steps of this size, from the largest down.
SCALE_STEP = 0.01
# Smallest and largest scale that can be asked for: what users send must be cheap to refuse.
SCALES = (0.01, 16.0)
# The smallest part of a prompt that can be asked for as pages.
LEAST_SHARE = 0.001
_DEFAULT_MIN_SCALE = 0.5
_DEFAULT_MAX_SCALE = 1.0


@dataclass(frozen=True)
class ContextBudget:
    """How many tokens a prompt may take, and how pages and copied text share them. None: the processor's default.

    Attributes:
        max_context_tokens: bound on the whole prompt, in tokens. None everywhere: no bound.
        visual_share: part of what template and question leave that pages may take: 0, or 0.001 to 1. 0: tokens only; 1:
            pages only. None: pages take the largest scale that leaves room for the spans that the text policy wishes for,
            where these may claim at most a quarter of what template and question leave (all of it under a policy that
            must have everything); copied text then gets what the pages leave.
        min_scale: pages are never drawn smaller than this (1: the render config's dpi). 0.5 unless said; 0.01 to 16.
        max_scale: pages are never drawn larger than this. 1.0 unless said; 0.01 to 16.
        max_text_tokens: bound on copied text, page labels included, in tokens.
        latent_share: part of what template and question leave that latents may take, 0, or 0.001 to 1; for processors of
            a checkpoint with a latent encoder. Pages give way from the document's beginning on, as few as have to, where
            they do not fit at their smallest scale; with visual_share=0 latents stand for as much as they may. 0: none.
        latent_chunks: how many chunks, from the document's beginning on, become latents, in place of as many as have to.
    """

    max_context_tokens: int | None = None
    visual_share: float | None = None
    min_scale: float | None = None
    max_scale: float | None = None
    max_text_tokens: int | None = None
    latent_share: float | None = None
    latent_chunks: int | None = None

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {}
        for name in ("max_context_tokens", "max_text_tokens"):
            if (value := getattr(self, name)) is not None:
                checked[name] = whole_number(name, value, 0, "tokens, or None for no bound")
        if (count := self.latent_chunks) is not None:
            checked["latent_chunks"] = whole_number(
                "latent_chunks", count, 0, "chunks, or None for as many as have to"
            )
        for name in ("min_scale", "max_scale"):
            if (value := getattr(self, name)) is not None:
                checked[name] = real_number(name, value, *SCALES, "1 draws pages at the render config's own dpi")
        shares = (("visual_share", "pages", "1 is pages only"), ("latent_share", "latents", "1 is all that is left"))
        for name, what, whole in shares:
            if (share := getattr(self, name)) is not None:
                share = real_number(name, share, 0, 1, f"0 is no {what}, {whole}")
                if 0 < share < LEAST_SHARE:
                    raise ValueError(f"{name}={share!r} must be 0 (no {what}), or {LEAST_SHARE:g} or more")
                checked[name] = share
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if self.min_scale is not None and self.max_scale is not None and self.min_scale > self.max_scale:
            raise ValueError(f"min_scale={self.min_scale} is above max_scale={self.max_scale}; exchange them")

    @classmethod
    def of(cls, budget: ContextBudget | dict[str, Any] | None) -> ContextBudget:
        """A budget from itself, from a dict of its fields (plain JSON), or the default one from None."""
        if isinstance(budget, ContextBudget):
            return budget
        if budget is not None and not isinstance(budget, dict):
            raise TypeError(f"budget must be a ContextBudget, a dict of its fields, or None, not {shown(budget)}")
        known = {item.name for item in fields(cls)}
        for key in budget or {}:
            if key not in known:
                raise ValueError(f"unknown ContextBudget field {shown(key)}; known fields: {', '.join(sorted(known))}")
        return cls(**(budget or {}))

    def filled_from(self, default: ContextBudget) -> ContextBudget:
        """This budget, its fields that are None taken from `default`; a scale that is set moves a default aside."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        for name, value in values.items():
            if value is None:
                values[name] = getattr(default, name)
        low, high = values["min_scale"], values["max_scale"]
        if low is not None and high is not None and low > high:
            values["min_scale"] = values["max_scale"] = low if self.max_scale is None else high
        return ContextBudget(**values)

    def at_only_scale(self, only: float | None) -> ContextBudget:
        """This budget for a document whose pages have but one scale (None: any). ValueError where it is left out."""
        if only is None:
            return self
        low, high = self.scales
        if not low <= only <= high:
            bound, beyond = (f"min_scale={low:g}", "less") if low > only else (f"max_scale={high:g}", "more")
            raise ValueError(
                f"{bound} leaves out {only:g}, the only scale of pages whose cells are visual tokens; give {only:g} or "
                f"{beyond}, or leave it out"
            )
        return replace(self, min_scale=only, max_scale=only)

    @property
    def scales(self) -> tuple[float, float]:
        """(smallest, largest) scale allowed."""
        low, high = self.min_scale, self.max_scale
        high = max(_DEFAULT_MAX_SCALE, low or 0) if high is None else high
        return (min(_DEFAULT_MIN_SCALE, high) if low is None else low), high

    def candidate_scales(self) -> list[float]:
        """All scales that may be used, largest first."""
        low, high = self.scales
        steps = int((high - low) / SCALE_STEP + 1e-9)
        scales = [high, *(round(high - step * SCALE_STEP, 6) for step in range(1, steps + 1))]
        return [*scales, low] if high - steps * SCALE_STEP - low > 1e-9 else scales


class ContextBudgetError(ValueError):
    """A budget that cannot be met.

    Attributes:
        smallest: the smallest value of `field` with which the same request works.
        field: the budget's field that is too small, "max_context_tokens" or "max_text_tokens".
    """

    def __init__(self, message: str, smallest: int, field: str = "max_context_tokens") -> None:
        super().__init__(message)
        self.smallest = smallest
        self.field = field

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.smallest, self.field)
