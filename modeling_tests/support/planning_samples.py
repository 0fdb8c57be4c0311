# SPDX-License-Identifier: Apache-2.0
"""A document and a tokenizer that a reader can count by hand, for tests of budgets, plans and text policies."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from transformers_hybridctx.planning.budget import ContextBudget
from transformers_hybridctx.planning.plan import ContextPlan, encodable
from transformers_hybridctx.planning.planner import ContextPlanner
from transformers_hybridctx.planning.policies.base import TextPolicy
from transformers_hybridctx.planning.policies.registry import resolve_text_policy


@dataclass(eq=False)
class Pages:
    """A document of pages of 100 characters, 100 x 100 pixels at scale 1, without a font for '☃'."""

    text: str
    only_scale: float | None = None
    num_pages: int = field(init=False)

    def __post_init__(self) -> None:
        self.num_pages = max(1, -(-len(self.text) // 100))

    @property
    def undrawable(self) -> list[tuple[int, str]]:
        return [(index, char) for index, char in enumerate(self.text) if char in "☃\ud83d"]

    def page_size(self, page: int, scale: float = 1.0) -> tuple[int, int]:
        return round(100 * scale), round(100 * scale)

    def page_of(self, char_index: int) -> int:
        return char_index // 100

    def page_span(self, page: int) -> tuple[int, int]:
        return page * 100, min(len(self.text), page * 100 + 100)


def encode(texts: list[str]) -> list[list[int]]:
    """Tokens of up to four letters, two signs or a run of newlines: those of parts do not add up to the whole's."""
    return [[hash(token) for token in re.findall(r"\w{1,4}|[^\w\s]{1,2}|\n+", text)] for text in texts]


def page_tokens(height: int, width: int) -> int:
    """One token for every 10 x 10 pixels."""
    return (height // 10) * (width // 10)


PLANNER = ContextPlanner(encode, page_tokens)
TEMPLATE = {(False, False): 8, (False, True): 9, (True, False): 12, (True, True): 13}
QUESTION = "Where is the green-lemur code?"

PROSE = (
    "It was the best of times, it was the worst of times, it was the age of wisdom. "
    "The magic number for green-lemur is 4821930. Nobody knew why. "
    "It was the epoch of belief, it was the epoch of incredulity, it was the season of light. "
    "Call 555-0199 to hear more. It was the season of darkness, it was the spring of hope. "
    "She met Zebulon there. We had everything before us, we had nothing before us. "
)


def plan(
    text: str = PROSE,
    policy: str | dict[str, Any] | TextPolicy = "anchors",
    question: str | None = QUESTION,
    **budget: Any,
) -> ContextPlan:
    document = Pages(text)
    return PLANNER.plan(
        document,
        question,
        ContextBudget(**budget),
        resolve_text_policy(policy),
        lambda pages, spans: TEMPLATE[pages, spans],
        question_tokens=len(encode([question or ""])[0]),
        document_tokens=len(encode([encodable(text)])[0]),
    )


def texts(made: ContextPlan) -> list[str]:
    return [span.text for span in made.spans]
