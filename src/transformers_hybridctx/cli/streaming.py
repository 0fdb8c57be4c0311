# SPDX-License-Identifier: Apache-2.0
"""Answers as they come, on stderr, for somebody who waits at a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..pipeline_long_doc_qa import LongDocQAPipeline


def shown_as_it_comes(pipe: LongDocQAPipeline, show: Callable[[str], None]) -> dict[str, Any]:
    """Generation parameters that call `show` with the last words of the answer, again and again.

    None where stderr is no terminal, and under beam search, which does not know its answer before the end.
    """
    if not sys.stderr.isatty() or (pipe.model.generation_config.num_beams or 1) > 1:
        return {}
    from transformers import TextStreamer

    class LastWords(TextStreamer):
        def __init__(self) -> None:
            super().__init__(pipe.processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
            self.words = ""

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            self.words = " ".join(f"{self.words}{text}".split(" "))[-200:].replace("\n", " ")
            show(self.words[-60:])

    return {"streamer": LastWords()}
