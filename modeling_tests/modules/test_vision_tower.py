# SPDX-License-Identifier: Apache-2.0
"""Pages through the vision tower: the fold of their normalisation, batches of equal grids, memory, flash attention."""

import pytest
import torch
from tiny_models import (
    IMAGE_SETTINGS,
    PAGES_FIRST,
    PATCH,
    TowerCalls,
    make_inputs,
    make_model,
    make_pages,
    pixels_of,
    tower_configs,
)
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AttentionInterface,
    Glm4vImageProcessorPil,
)

from transformers_hybridctx.configuration_hybridctx import HybridCtxConfig
from transformers_hybridctx.evaluation.memory_meter import MemoryMeter
from transformers_hybridctx.image_processing_hybridctx import HybridCtxImageProcessor
from transformers_hybridctx.modeling_hybridctx import HybridCtxForCausalLM
from transformers_hybridctx.modules.vision_tower import activation_bytes

# the fold and the tower's input


@pytest.mark.parametrize("channels", [1, 3])
def test_fold_equals_normalising_and_convolving_with_the_same_gradients(channels):
    patch_embed = make_model().model.visual.patch_embed
    pixels = torch.randint(0, 256, (20, channels * PATCH**2), dtype=torch.uint8)
    folded = patch_embed(pixels)
    plain = patch_embed.proj(patch_embed.normalize(pixels).view(-1, 3, 2, PATCH, PATCH)).flatten(1)
    torch.testing.assert_close(folded, plain, rtol=1e-5, atol=1e-5)
    weights = torch.randn_like(folded)
    parameters = list(patch_embed.proj.parameters())
    for ours, theirs in zip(
        torch.autograd.grad((folded * weights).sum(), parameters),
        torch.autograd.grad((plain * weights).sum(), parameters),
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_fold_uses_the_config_s_normalisation():
    normalisation = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "rescale_factor": 1 / 200}
    ours = make_model(**normalisation)
    pages = make_pages([(2, 2)], colour=True)
    floats = Glm4vImageProcessorPil(**IMAGE_SETTINGS, **normalisation)(pages, return_tensors="pt")
    bytes_ = HybridCtxImageProcessor(**IMAGE_SETTINGS)(pages, return_tensors="pt")
    with torch.no_grad():
        expected, found = (
            ours.model.visual.patch_embed(floats.pixel_values),
            ours.model.visual.patch_embed(bytes_.pixel_values),
        )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_half_precision_reads_pages_no_worse_than_the_family():
    ours = make_model().to(torch.bfloat16)
    patch_embed = ours.model.visual.patch_embed
    pixels = torch.full((20, PATCH**2), 255, dtype=torch.uint8)  # white paper, with some ink
    pixels[:, ::7] = torch.randint(0, 256, (20, len(range(0, PATCH**2, 7))), dtype=torch.uint8)
    with torch.no_grad():
        found, rounded = patch_embed(pixels), patch_embed(patch_embed.normalize(pixels).bfloat16())
        exact = patch_embed.float()(pixels)
        assert found.dtype == torch.bfloat16
        assert (found - exact).norm() <= (rounded - exact).norm()
        assert ours.bfloat16()(**make_inputs(PAGES_FIRST)).logits.dtype == torch.bfloat16


@pytest.mark.parametrize("towers", ["glm4v", "glm_ocr"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_pages_are_read_alike_together_and_alone(towers, attention):
    ours = make_model(towers)
    ours.set_attn_implementation(attention)
    inputs = make_inputs([[(2, 3), (1, 2), (2, 3), (2, 3), (3, 2)]])
    pixels, grids = inputs["pixel_values"], inputs["image_grid_thw"]
    with torch.no_grad(), TowerCalls(ours) as calls:
        together = ours.get_image_features(pixels, grids).pooler_output
        assert calls == [72, 8, 24]
        alone = [
            ours.get_image_features(page, grid[None]).pooler_output[0]
            for page, grid in zip(pixels.split(grids.prod(-1).tolist()), grids)
        ]
        packed = ours.model.visual(pixels, grid_thw=grids).pooler_output  # the tower's own loop over pages
    for page, expected in zip(together, alone):
        torch.testing.assert_close(page, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.cat(together), packed, rtol=1e-5, atol=1e-5)


def test_patches_in_the_tower_at_once_are_bounded():
    ours = make_model()
    page = activation_bytes(ours.model.visual, 24)
    for block in ours.model.visual.blocks:
        block.mlp.gate_proj = nn.Identity()  # engines fuse it with its neighbour
    assert activation_bytes(ours.model.visual, 24) == page
    ours = make_model()
    ours.config.vision_batch_bytes = 3 * page - 1
    inputs = make_inputs([[(2, 3)] * 5 + [(2, 2), 3]])
    with torch.no_grad(), TowerCalls(ours) as calls:
        bounded = ours(**inputs).logits
        assert calls == [48, 48, 24, 16]
        ours.config.vision_batch_bytes = 1 << 30
        torch.testing.assert_close(ours(**inputs).logits, bounded, rtol=1e-4, atol=1e-4)
        assert calls[4:] == [120, 16]
        ours.config.vision_batch_bytes = page - 1
        with pytest.raises(
            ValueError, match=rf"a page of 24 patches takes about {page:,} bytes .*vision_batch_bytes="
        ):
            ours(**inputs)
        assert len(calls) == 6  # none of the pages was read


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("towers", ["glm4v", "glm_ocr"])
def test_memory_is_what_was_estimated_and_does_not_grow_with_the_pages(towers, dtype, attention):
    settings = tower_configs(towers)
    settings["vision_config"] |= {"hidden_size": 96, "intermediate_size": 128}
    ours = HybridCtxForCausalLM(HybridCtxConfig(**settings)).to(dtype).eval()
    ours.set_attn_implementation(attention)
    page = activation_bytes(ours.model.visual, 20 * 24)
    ours.config.vision_batch_bytes = 4 * page
    peaks = {}
    for num_pages in (8, 64):
        pixels = torch.zeros(num_pages * 20 * 24, PATCH**2, dtype=torch.uint8)
        with torch.no_grad(), MemoryMeter() as meter:
            output = ours.get_image_features(pixels, torch.tensor([[1, 20, 24]] * num_pages))
        outputs = (output.last_hidden_state, *output.pooler_output)
        peaks[num_pages] = meter.peak - sum(tensor.nbytes for tensor in outputs)
    assert 0.6 * ours.config.vision_batch_bytes < peaks[8] < 1.25 * ours.config.vision_batch_bytes
    assert peaks[64] < 1.02 * peaks[8]


def attend_packed_pages(module, query, key, value, attention_mask, scaling, cu_seq_lens_q, max_length_q, **kwargs):
    """What a variable-length flash kernel computes."""
    assert attention_mask is None and max_length_q == int(cu_seq_lens_q.diff().max())
    pages = [states.split(cu_seq_lens_q.diff().tolist(), dim=2) for states in (query, key, value)]
    outputs = [nn.functional.scaled_dot_product_attention(*page, scale=scaling) for page in zip(*pages)]
    return torch.cat(outputs, dim=2).transpose(1, 2), None


@pytest.mark.parametrize("towers", ["glm4v", "glm_ocr"])
def test_flash_attention_reads_a_batch_of_pages_in_one_call_a_layer(towers):
    calls = []

    def flash_cpu(module, query, *args, **kwargs):
        calls.append(query.shape[2])
        return attend_packed_pages(module, query, *args, **kwargs)

    AttentionInterface.register("flash_cpu", flash_cpu)
    ours = make_model(towers)
    inputs = make_inputs(PAGES_FIRST)
    with torch.no_grad():
        expected = ours(**inputs).logits
        ours.config.vision_config._attn_implementation = "flash_cpu"
        found = ours(**inputs).logits
        assert calls == [48, 48, 8, 8, 24, 24]
        tower = ours.model.visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]).pooler_output
    assert calls[-2:] == [80, 80]  # the tower by itself takes pages of any sizes in one call
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(tower, torch.cat(ours.get_image_features(*pixels_of(inputs)).pooler_output))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU may have flash attention")
def test_flash_attention_2_on_a_cpu_is_an_error():
    with pytest.raises((ImportError, ValueError), match=r"(?i)flash.?attention"):
        HybridCtxForCausalLM._from_config(HybridCtxConfig(**tower_configs()), attn_implementation="flash_attention_2")


class MaskRecorder(TorchDispatchMode):
    """Records the shapes of all boolean tensors that are made, and the names of all operations."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: set[tuple[int, ...]] = set()
        self.operations: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.operations.add(func.overloadpacket.__name__)
        if isinstance(result, torch.Tensor) and result.dtype == torch.bool:
            self.shapes.add(tuple(result.shape))
        return result


def test_no_mask_over_the_hidden_size_is_built(model):
    inputs = make_inputs(PAGES_FIRST)
    with torch.no_grad(), MaskRecorder() as recorder:
        model(**inputs)
    assert (2, 29) in recorder.shapes
    assert (2, 29, 48) not in recorder.shapes
    assert "index_put" in recorder.operations
    assert "masked_scatter" not in recorder.operations  # expands its mask inside
