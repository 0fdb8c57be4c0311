# SPDX-License-Identifier: Apache-2.0
"""How long a text is, by a model's own tokenizer."""

from __future__ import annotations

from typing import Any


class TokenCounter:
    """Tokens of a text, without special tokens, as RULER counts them."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __call__(self, text: str) -> int:
        return len(self._tokenizer.tokenize(text, verbose=False))  # no word about texts that no model sees whole


__all__ = ["TokenCounter"]
