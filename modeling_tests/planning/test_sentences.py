# SPDX-License-Identifier: Apache-2.0
"""Where sentences begin."""

from __future__ import annotations

from transformers_hybridctx.planning.sentences import sentence_starts


def test_a_line_break_inside_running_prose_ends_no_sentence() -> None:
    text = "The number for\ngreen-lemur is 5. Dr. Who came.\n\nNew paragraph\n2024 log\n2025 log"
    starts = sentence_starts(text)
    pieces = [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]
    assert pieces == [
        "The number for\ngreen-lemur is 5. ",
        "Dr. Who came.\n\n",
        "New paragraph\n",
        "2024 log\n",
        "2025 log",
    ]
