# SPDX-License-Identifier: Apache-2.0
"""The passages that the model itself attends to."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import ClassVar

from ...rendering.characters import CharRange
from ..knobs import real_number, shown
from ..paged_document import PagedDocument
from ..passages import check_passages
from .ranked import RankedPolicy

LARGEST_ZOOM = 8


@dataclass(frozen=True)
class AttentionPolicy(RankedPolicy):
    """Copies the passages that the model itself attends to when it reads the question after the pages.

    The model's part is done by whoever has one: the pipeline ranks the passages
    (`attention_ranking.rank_by_attention`) and plans with that ranking.

    Attributes:
        passage_chars: passages end with the sentence that reaches this length.
        top_k: how many passages are copied at most.
        heads: (layer, head) of the attention heads that are listened to; None: those of the model's config.
        zoom: how many times larger the passages are drawn, as pictures behind the question, in place of being copied as
            tokens; that is done by `look_closer` of the pipeline.
        ranking: passages as characters [start, end), best first; None before the model has ranked them.
    """

    name: ClassVar[str] = "attention"
    looks_at_question: ClassVar[bool] = True
    passage_chars: int = 300
    top_k: int = 8
    heads: tuple[tuple[int, int], ...] | None = None
    ranking: tuple[CharRange, ...] | None = field(default=None, repr=False)
    zoom: float | None = None

    def __post_init__(self) -> None:
        check_passages(self.passage_chars, self.top_k)
        if self.zoom is not None:
            real_number("zoom", self.zoom, 1, LARGEST_ZOOM, "how many times larger to draw what is looked at")
        for name, means in (("heads", "(layer, head)"), ("ranking", "(start, end)")):
            if (value := getattr(self, name)) is not None:  # lists, where they come from JSON
                try:
                    pairs = tuple((operator.index(first), operator.index(second)) for first, second in value)
                except (TypeError, ValueError) as error:
                    raise ValueError(f"{name}={shown(value)} must be pairs {means} of whole numbers") from error
                object.__setattr__(self, name, pairs)

    def rank(self, document: PagedDocument, question: str | None) -> list[CharRange]:
        if self.ranking is None:
            raise ValueError(
                "the policy 'attention' needs a model that ranks the passages: ask through the pipeline 'long-doc-qa', "
                "or use a policy that needs none, such as 'bm25'"
            )
        if self.zoom is not None:
            raise ValueError(
                f"zoom={self.zoom:g} draws passages behind the question, which the pipeline's look_closer does: leave it "
                "out to copy them as tokens"
            )
        best = list(self.ranking[: self.top_k])
        last = 0
        for start, end in sorted(best):
            if not last <= start < end <= len(document.text):
                raise ValueError(
                    f"ranking={shown(best)} must be passages apart from each other, within the {len(document.text)} "
                    "characters of the document"
                )
            last = end
        return best
