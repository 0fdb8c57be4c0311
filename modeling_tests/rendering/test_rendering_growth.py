# SPDX-License-Identifier: Apache-2.0
"""Adversarial texts take time that grows with their length, not with its square."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from growth import check_growth

from transformers_hybridctx.rendering.rasterizing import PageRenderer
from transformers_hybridctx.rendering.settings import BUNDLED_SANS, RenderConfig
from transformers_hybridctx.rendering.styles import cell_aligned_config

CONFIGS = {
    "plain": RenderConfig(newline_markup=" ¶ "),
    "glyph": RenderConfig.from_glyph({"font-path": BUNDLED_SANS, "auto-crop-width": True}),
    "cells": cell_aligned_config(),
}
TEXTS: dict[str, Callable[[int], str]] = {
    "marks on one letter": lambda n: "a" + "\u0301" * n,
    "marks on a right-to-left letter": lambda n: "א" + "\u05b4" * n,
    "joiners": lambda n: "👩\u200d" * (n // 2),
    "open brackets": lambda n: "א" + "(" * n,
    "brackets that do not match": lambda n: "א" + "(" * (n // 2) + "]" * (n // 2),
    "brackets on a line without width": lambda n: "א" + "\u200f" * n + "(a)" * 20,
    "one word": lambda n: "x" * n,
    "numbers and hyphens": lambda n: "1-" * (n // 2),
    "newlines": lambda n: "\n" * n + "end",
    "tabs": lambda n: "\t" * n + "end",
    "undrawable": lambda n: "\x00" * n,
}


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("text", TEXTS)
def test_typesetting_drawing_and_maps_grow_with_the_text(config: str, text: str) -> None:
    renderer = PageRenderer(CONFIGS[config])
    renderer.render("warm")

    def work(given: str) -> None:
        document = renderer.typeset(given)
        for _ in renderer.draw_pages(document):
            pass
        for at in range(0, len(given), len(given) // 20):
            document.boxes(at, at + 1)
        document.boxes(0, len(given))
        document.spans_in_box(0, (0, 0, 90, 90))

    check_growth(work, TEXTS[text], 3000)
