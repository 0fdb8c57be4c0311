# SPDX-License-Identifier: Apache-2.0
"""M-RoPE positions, found for all tokens at once: those of the family's loop."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import (
    MERGE,
    make_inputs,
    tower_configs,
)
from transformers import (
    Glm4vConfig,
    Glm4vForConditionalGeneration,
)

from transformers_hybridctx.configuration_hybridctx import HybridCtxConfig
from transformers_hybridctx.modeling_hybridctx import HybridCtxForCausalLM

# positions

ROW = st.lists(st.one_of(st.integers(1, 4), st.tuples(st.integers(1, 4), st.integers(1, 4))), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=3))
def test_positions_equal_the_family_s_loop(rows):
    sizes = [part for row in rows for part in row if isinstance(part, tuple)]
    grids = torch.tensor([[1, h * MERGE, w * MERGE] for h, w in sizes], dtype=torch.long).view(-1, 3)
    inputs = make_inputs(rows, {"image_grid_thw": grids})
    arguments = {k: inputs[k] for k in ("input_ids", "mm_token_type_ids", "attention_mask")}
    expected, expected_deltas = POSITION_REFERENCE.model.get_rope_index(image_grid_thw=grids, **arguments)
    found, deltas = POSITION_MODEL.model.get_rope_index(image_grid_thw=grids, **arguments)
    assert torch.equal(found, expected)
    assert torch.equal(deltas, expected_deltas)


POSITION_MODEL = HybridCtxForCausalLM(HybridCtxConfig(**tower_configs()))
POSITION_REFERENCE = Glm4vForConditionalGeneration(Glm4vConfig(**tower_configs()))


def test_video_frames_are_positioned_as_in_the_family():
    types = torch.tensor([[0, 2, 2, 2, 2, 0, 2, 2, 2, 2, 0, 1, 1, 0]])
    arguments = {
        "input_ids": types,
        "mm_token_type_ids": types,
        "image_grid_thw": torch.tensor([[1, 2, 4]]),
        "video_grid_thw": torch.tensor([[2, 4, 4]]),
    }
    expected = POSITION_REFERENCE.model.get_rope_index(**arguments)
    for ours, theirs in zip(POSITION_MODEL.model.get_rope_index(**arguments), expected):
        assert torch.equal(ours, theirs)


def test_pages_without_a_token_between_them_are_positioned_one_after_another():
    types = torch.tensor([[0, 1, 1, 1, 1, 0]])
    positions, deltas = POSITION_MODEL.model.get_rope_index(
        types, types, image_grid_thw=torch.tensor([[1, 2, 4], [1, 4, 2]])
    )
    assert positions[:, 0].tolist() == [[0, 1, 1, 3, 3, 5], [0, 1, 1, 3, 4, 5], [0, 1, 2, 3, 3, 5]]
    assert deltas.tolist() == [[0]]
