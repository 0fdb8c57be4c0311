# SPDX-License-Identifier: Apache-2.0
"""The long context inside a prompt that is one string: what can be drawn, and what is asked about it."""

from __future__ import annotations

import re

_LEAST_WORDS = 5


def split_prompt(prompt: str) -> tuple[str, str]:
    """
    A prompt's context and its question: nothing is lost, `context + question == prompt`.

    The question is the prompt's last lines: as few as have five words, so that an `Answer:` alone is none. A prompt
    of one
    line is split at its last sentence but one.

    Returns:
        The context, empty where there is none, and the question.
    """
    starts = [match.end() for match in re.finditer(r"\n+", prompt.rstrip())]
    for start in reversed(starts):
        if len(prompt[start:].split()) >= _LEAST_WORDS:
            return prompt[:start], prompt[start:]
    starts = [match.end() for match in re.finditer(r"(?<=[.!?])\s+", prompt.rstrip())]
    for start in reversed(starts):
        if len(prompt[start:].split()) >= _LEAST_WORDS:
            return prompt[:start], prompt[start:]
    return "", prompt


__all__ = ["split_prompt"]
