# SPDX-License-Identifier: Apache-2.0
"""Forms: lines of a label and a value, as on an invoice, a record of service or the head of a letter."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from transformers_hybridctx.evaluation.intervals import interval_95
from transformers_hybridctx.evaluation.needles import draw_key

from .fields import folded_answer
from .invented_records import draw_figure
from .tasks import ATTRIBUTES, KINDS_OF_VALUE, PLAIN_QUERIES, THINGS, VALUES, Document, Question, draw_date

LINES = ("{}: {}", "{}: {}", "{}: {}", "{} = {}", "- {}: {}", "{}:\t{}", "{} - {}", "* {}: {}", "| {} | {} |")
ROLES = (
    "customer", "technician", "tenant", "landlord", "buyer", "seller", "sender", "recipient", "owner", "contact person",
    "author", "supplier", "patient", "physician", "inspector", "manager", "witness", "agent", "guarantor", "carrier",
)  # fmt: skip
DAYS = (
    "date of birth", "due date", "next inspection", "date of issue", "start of the lease", "delivery", "last visit",
    "expiry", "departure", "arrival", "date of purchase", "signing", "handover", "end of the term", "renewal",
    "installation",
)  # fmt: skip
SUMS = (
    "total", "deposit", "rent", "net price", "amount due", "discount", "shipping", "tax", "hourly rate", "penalty",
    "total price", "salary", "late fee", "down payment", "insured sum", "purchase price",
)  # fmt: skip
MEASURES = (
    "warranty",
    "weight",
    "length",
    "term",
    "notice period",
    "temperature",
    "power",
    "quantity",
    "mileage",
    "size",
)
TITLES = (
    "Service record",
    "Invoice",
    "Order",
    "Contract",
    "Report",
    "Application form",
    "Receipt",
    "Protocol",
    "Data sheet",
)

Draw = Callable[[Random], str]


def one_of(words: tuple[str, ...]) -> Draw:
    return lambda rng: rng.choice(words)


def draw_sum(rng: Random) -> str:
    amount = f"{rng.uniform(1, 10 ** rng.randint(1, 6)):,.2f}"
    return rng.choice(("{} EUR", "${}", "€{}", "{} USD", "EUR {}", "{} kr", "£{}", "{} dollars")).format(amount)


def draw_person(rng: Random) -> str:
    name = " ".join(word.capitalize() for word in draw_key(rng, held_out=False).split("-"))
    return rng.choice(("{}", "{}", "{}", "Dr. {}", "Ms {}", "{} Ltd", "{} GmbH", "{} & Sons")).format(name)


def draw_plain_label(rng: Random) -> str:
    attribute = rng.choice((*KINDS_OF_VALUE, *ATTRIBUTES))
    return attribute if rng.random() < 0.4 else f"{rng.choice(THINGS)} {attribute}"


_PLAIN_QUERIES = tuple(one.lower().replace("{what}", "{}") for one in PLAIN_QUERIES)
_KINDS: tuple[tuple[Draw, Draw, tuple[str, ...]], ...] = (
    (one_of(ROLES), draw_person, ("Who is the {}?", "Who was the {}?", "What is the name of the {}?")),
    (one_of(DAYS), draw_date, ("When is the {}?", "When was the {}?", "What is the date of the {}?")),
    (one_of(SUMS), draw_sum, ("How much is the {}?", "How high is the {}?", "What does the {} come to?")),
    (one_of(MEASURES), lambda rng: draw_figure(rng, ""), ("What is the {}?", "How much is the {}?")),
    (draw_plain_label, lambda rng: rng.choice(VALUES)(rng), _PLAIN_QUERIES),
)
"""Labels, their values, and questions for them; any of these may be asked for by the last ones."""
_WEIGHTS = (2, 2, 2, 1, 5)


def draw_form(rng: Random) -> Document:
    """A form of 3 to 20 lines, and a question for one of them."""
    facts: dict[str, tuple[str, tuple[str, ...]]] = {}
    for _ in range(rng.randint(3, 20)):
        draw_label, draw_value, queries = rng.choices(_KINDS, _WEIGHTS)[0]
        label = draw_label(rng)
        asked_by = _PLAIN_QUERIES if rng.random() < 0.4 else queries
        facts[label] = draw_value(rng), asked_by
    line, write = rng.choice(LINES), rng.choices((str.capitalize, str.title, str.upper, str), (6, 2, 1, 1))[0]
    text = f"{rng.choice((str.upper, str))(rng.choice(TITLES))}\n\n" if rng.random() < 0.6 else ""
    places: dict[str, tuple[int, int]] = {}
    for label, (value, _) in facts.items():
        written = line.format(write(label), value)
        places[label] = (len(text), len(text) + len(written))
        text += written + "\n"
    label = rng.choice(list(facts))
    (value, queries), place = facts[label], places[label]
    quote = " ".join(text[slice(*place)].lstrip("-*| ").removesuffix(" |").split())
    asked = rng.choice(queries).format(label)
    return Document(text.rstrip(), (Question(asked[0].upper() + asked[1:], value, (place,), (quote,)),))


def score_forms(pipe: Any, examples: int, seed: int, **options: Any) -> dict[str, Any]:
    """
    Ask `pipe` for one line of each of so many forms, the form being the whole document.

    Args:
        pipe: a `LongDocQAPipeline`.
        examples: how many forms.
        seed: of the draw.
        options: of each call, such as `text_policy` and `grounding`.

    Returns:
        `exact_match` (0 to 1; white space and a final stop do not count), its `interval` of 95%, and `answers`: text,
        question, value, what was said, its confidence, and whether it was right.
    """
    rng = Random(f"forms {seed}")
    answers = []
    for _ in range(examples):
        form = draw_form(rng)
        question, value = form.questions[0].text, form.questions[0].answer
        said = pipe(question=question, text=form.text, **options)
        answers.append(
            {
                "text": form.text,
                "question": question,
                "value": value,
                "answer": said["answer"],
                "reasoning": said["reasoning"],
                "confidence": said["confidence"],
                "is_right": folded_answer(said["answer"]) == folded_answer(value),
            }
        )
    hits = [float(answer["is_right"]) for answer in answers]
    return {"exact_match": sum(hits) / len(hits), "interval": interval_95(hits), "answers": answers}
