# SPDX-License-Identifier: Apache-2.0
"""Visual tokens by arithmetic are those of the image processor, which are those of transformers."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from transformers_hybridctx import HybridCtxImageProcessor
from transformers_hybridctx.planning.page_tokens import PageTokens

EDGES = st.integers(1, 6000)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"patch_size": 18, "size": {"shortest_edge": 12544, "longest_edge": 11760000}},
        {"patch_size": 14, "size": {"shortest_edge": 28**2, "longest_edge": 28**2 * 800}},
        {"patch_size": 24, "merge_size": 2, "temporal_patch_size": 1},
    ],
)
def test_tokens_are_those_of_the_image_processor(settings: dict) -> None:
    processor = HybridCtxImageProcessor(**settings)
    tokens = PageTokens.of(processor.to_dict())

    @given(EDGES, EDGES)
    @example(1, 1)
    @example(20, 4000)
    @example(4000, 20)
    @example(842, 595)
    def check(height: int, width: int) -> None:
        try:
            expected = processor.get_number_of_image_patches(height, width) // processor.merge_size**2
        except ValueError:
            with pytest.raises(ValueError, match=f"{height}|oblong"):
                tokens(height, width)
        else:
            assert tokens(height, width) == expected

    check()
