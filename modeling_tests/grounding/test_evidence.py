# SPDX-License-Identifier: Apache-2.0
"""Evidence is found where the document says the same in another form of writing, as its policies find it."""

from __future__ import annotations

import unicodedata

import pytest

from transformers_hybridctx import HybridCtxProcessor
from transformers_hybridctx.grounding.evidence import find_evidence

ACCENTED = "Z\u00e9phyrin\u00e9t\u00e9"


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        (unicodedata.normalize("NFD", ACCENTED), ACCENTED),
        (ACCENTED, unicodedata.normalize("NFD", ACCENTED)),
        ("refrigera-\ntor", "refrigerator"),
        ("re\u00adfrige\u00adrator", "Refrigerator"),
        ("\ufb01re\ufb02y", "firefly"),
        ("\uff21\uff22\uff23\uff11\uff12\uff13", "ABC123"),
        ("refri\u200bgerator", "refrigerator"),
        ("1,234,567", "1234567"),
        ("1234567", "1,234,567"),
        ("1\u202f234\u00a0567", "1,234,567"),
        ("1,234,567.50", "1234567.50"),
        ("12'000 EUR", "12000 EUR"),
        ("\u201cquoted\u201d", '"quoted"'),
    ],
)
def test_evidence_is_what_readers_take_for_the_same(processor: HybridCtxProcessor, written: str, answer: str) -> None:
    text = f"Some words here: {written} \u2192 88417. And more of \ufb01ne words."
    evidence = find_evidence(processor.plan(text, "What?"), answer, "What?")
    assert text[evidence[0]["start"] : evidence[-1]["end"]] == written
    assert all(text[item["start"] : item["end"]] == item["text"] for item in evidence)


@pytest.mark.parametrize(("written", "answer"), [("1.234", "1234"), ("12345678", "5678"), ("1,2345", "12345")])
def test_other_numbers_are_no_evidence(processor: HybridCtxProcessor, written: str, answer: str) -> None:
    assert find_evidence(processor.plan(f"The sum is {written} EUR.", "What?"), answer, "What?") == []
