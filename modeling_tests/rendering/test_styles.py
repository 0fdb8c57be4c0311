# SPDX-License-Identifier: Apache-2.0
"""Configs made to measure: pages that keep to the patches, and styles drawn at random."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes.hybridctx_tiny.reference import RENDER_CONFIG
from transformers_hybridctx import HybridCtxProcessor
from transformers_hybridctx.bundled_checkpoint import BUNDLED_CHECKPOINT
from transformers_hybridctx.rendering.rasterizing import PageRenderer
from transformers_hybridctx.rendering.settings import BUNDLED_SANS, RenderConfig
from transformers_hybridctx.rendering.styles import (
    StyleSampler,
    cell_aligned_config,
    contrast_ratio,
    patch_aligned_config,
)
from transformers_hybridctx.rendering.typesetting import Typesetter

PROSE = "A plain sentence of some words (and 42 figures), then another; it goes on.\n" * 60


def test_the_bundled_checkpoints_config_is_the_recipes():
    shipped = HybridCtxProcessor.from_pretrained(BUNDLED_CHECKPOINT).render_config
    here = {name: getattr(shipped, name) for name in ("font_path", "fallback_font_paths")}
    assert replace(RENDER_CONFIG, **here) == shipped
    assert cell_aligned_config(hinted=True, baseline=16) == RENDER_CONFIG


@given(
    merged_patch=st.sampled_from([24, 28, 32, 36, 48]),
    columns_per_patch=st.integers(2, 6),
    lines_per_patch=st.integers(1, 2),
    columns=st.integers(1, 2),
    margin=st.integers(0, 1),
)
@settings(max_examples=40, deadline=None)
def test_no_character_straddles_a_patch(merged_patch, columns_per_patch, lines_per_patch, columns, margin):
    sizes = {"merged_patch": merged_patch, "columns_per_patch": columns_per_patch, "lines_per_patch": lines_per_patch}
    try:
        config = patch_aligned_config(
            **sizes, patches_wide=15 + 2 * margin, patches_high=8, margin_patches=margin, columns=columns
        )
    except ValueError as error:
        assert "do not fit lines" in str(error)
        return
    document = Typesetter(config).typeset(PROSE)
    inside = 1e-6
    for line in range(len(document.lines)):
        cells = document.cells(line, line + 1)
        lefts, rights = cells.left, cells.left + cells.width
        assert np.array_equal((lefts + inside) // merged_patch, (rights - inside) // merged_patch)
        _, top, _, bottom = document.geometry.line_box(line)
        assert (top + inside) // merged_patch == (bottom - inside) // merged_patch
    assert all(side % merged_patch == 0 for page in range(document.num_pages) for side in document.page_size(page))


def test_lines_of_a_proportional_font_keep_to_the_patches():
    config = patch_aligned_config(columns_per_patch=None, font_path=BUNDLED_SANS, lines_per_patch=3)
    tops = {line.box[1] for line in Typesetter(config).typeset(PROSE).lines}
    assert all(top % 12 == 0 for top in tops)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"font_path": BUNDLED_SANS}, "is not monospaced"),
        ({"lines_per_patch": 4}, "do not fit lines of 9 pixels"),
        ({"columns": 2}, "leaves 15 patches for columns=2"),
        ({"dpi": 96}, "dpi=96 is not free"),
        ({"font_size": 9}, "font_size=9 follows from columns_per_patch"),
        ({"merged_patch": 0}, "merged_patch=0 must be at least 1"),
    ],
)
def test_alignment_that_cannot_be_is_refused(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        patch_aligned_config(**change)


def test_columns_are_filled_one_after_the_other():
    config = RenderConfig(page_width=200, page_height=60, columns=2, column_gap=20, margin_x=0, margin_y=0)
    document = Typesetter(config).typeset("\n".join(f"line {number}" for number in range(15)))
    assert document.num_pages == 2
    assert [line.page for line in document.lines] == [0] * 12 + [1] * 3
    assert [line.box[0] for line in document.lines] == [0] * 6 + [110] * 6 + [0] * 3
    assert [line.box[1] for line in document.lines[:7]] == [0, 10, 20, 30, 40, 50, 0]
    assert document.spans_in_box(0, (110, 0, 200, 10)) == [document.line_span(6)]
    assert document.spans_in_box(0, (0, 0, 200, 10)) == [document.line_span(0), document.line_span(6)]
    forced = Typesetter(config).typeset("a\x0cb")
    assert [(line.page, line.box[0]) for line in forced.lines] == [(0, 0), (1, 0)]


def test_two_columns_draw_what_one_column_of_that_width_draws():
    two = RenderConfig(page_width=220, page_height=100, columns=2, column_gap=20, margin_x=0, margin_y=0)
    one = replace(two, page_width=100, columns=1)
    drawn, narrow = PageRenderer(two).render(PROSE).pages, PageRenderer(one).render(PROSE).pages
    for number, page in enumerate(narrow):
        left = 120 * (number % 2)
        assert np.array_equal(drawn[number // 2][:, left : left + 100], page)


def test_styles_are_seeded_and_legible():
    sampler = StyleSampler()
    configs = [sampler.sample(seed) for seed in range(200)]
    assert configs == [StyleSampler().sample(seed) for seed in range(200)]
    assert len(set(configs)) == 200
    for name in ("font_path", "dpi", "columns", "page_bg_color", "font_color", "margin_x"):
        assert len({getattr(config, name) for config in configs}) > 1, name
    for config in configs:
        assert config.font_size * config.dpi / 72 >= sampler.smallest_em - 1e-9
        assert sampler.leading[0] - 1e-9 <= config.line_height / config.font_size <= sampler.leading[1] + 0.02
        assert contrast_ratio(config.font_color, config.page_bg_color) >= sampler.contrast
        assert config.column_width >= sampler.narrowest_column * config.font_size
    for config in configs[:12]:
        document = PageRenderer(config).render(PROSE[:600])
        [(page, box), *_] = document.boxes(8, 16)
        left, top, right, bottom = (round(side) for side in box)
        word = document.pages[page][top:bottom, left:right].astype(int)
        assert np.ptp(word) > 80


def test_contrast_is_that_of_the_guidelines():
    assert contrast_ratio("#000000", "#FFFFFF") == pytest.approx(21)
    assert contrast_ratio("#777777", "#FFFFFF") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"leading": (0.8, 1.2)}, "leading=(0.8, 1.2) begins below 1"),
        ({"font_sizes": (12, 9)}, "font_sizes=(12, 9) must be (least, largest)"),
        ({"dpis": ()}, "dpis is empty"),
        ({"contrast": 20}, "contrast=20 must be 1 to 12"),
        ({"dark": 2}, "dark=2 is a part of all styles"),
    ],
)
def test_bounds_that_make_no_sense_are_named(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        StyleSampler(**change)
