# SPDX-License-Identifier: Apache-2.0
"""HybridCtx models against the GLM-4V family, and against themselves: the same logits however they are asked for."""

import importlib.util
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AttentionInterface,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    BatchFeature,
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Glm4vImageProcessorPil,
    Glm4vMoeConfig,
    Glm4vMoeForConditionalGeneration,
    Glm46VConfig,
    Glm46VForConditionalGeneration,
    Glm46VImageProcessorPil,
    GlmOcrConfig,
    GlmOcrForConditionalGeneration,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)

from transformers_hybridctx.configuration_hybridctx import HybridCtxConfig
from transformers_hybridctx.evaluation.memory_meter import MemoryMeter
from transformers_hybridctx.image_processing_hybridctx import HybridCtxImageProcessor
from transformers_hybridctx.modeling_hybridctx import HybridCtxForCausalLM, HybridCtxModel
from transformers_hybridctx.modules.vision_tower import activation_bytes

PATCH, MERGE, VOCAB = 6, 2, 97
IMAGE, IMAGE_START, IMAGE_END, PAD = 3, 4, 5, 0
FACTOR = PATCH * MERGE
IMAGE_SETTINGS = {"patch_size": PATCH, "size": {"shortest_edge": FACTOR**2, "longest_edge": 2 * 30 * FACTOR**2}}
FAMILIES = {
    "glm4v": (Glm4vConfig, Glm4vForConditionalGeneration, Glm4vImageProcessorPil, "glm4v"),
    "glm46v": (Glm46VConfig, Glm46VForConditionalGeneration, Glm46VImageProcessorPil, "glm4v"),
    "glm_ocr": (GlmOcrConfig, GlmOcrForConditionalGeneration, Glm46VImageProcessorPil, "glm_ocr"),
    "glm4v_moe": (Glm4vMoeConfig, Glm4vMoeForConditionalGeneration, Glm4vImageProcessorPil, "glm4v_moe"),
}
EXPERTS = {
    "moe_intermediate_size": 32,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}


def tower_configs(towers: str = "glm4v") -> dict:
    """Keyword arguments of a tiny config of the family: its two towers and token ids."""
    vision = {
        "model_type": f"{towers}_vision",
        "depth": 2,
        "hidden_size": 32,
        "num_heads": 2,
        "patch_size": PATCH,
        "image_size": 8 * PATCH,
        "out_hidden_size": 48,
        "intermediate_size": 64,
    }
    text = {
        "model_type": f"{towers}_text",
        "vocab_size": VOCAB,
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "pad_token_id": PAD,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 1.0,
            "mrope_section": [2, 2, 2],
        },
    }
    if towers == "glm4v_moe":
        text |= EXPERTS
    ids = {"image_token_id": IMAGE, "image_start_token_id": IMAGE_START, "image_end_token_id": IMAGE_END}
    return {"vision_config": vision, "text_config": text} | ids


def randomize(model: PreTrainedModel) -> PreTrainedModel:
    """Weights large enough that every part of the model shows in the logits."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.2 * noise if parameter.ndim == 1 else noise / math.sqrt(parameter[0].numel()))
    return model.eval()


def make_model(towers: str = "glm4v", **kwargs) -> HybridCtxForCausalLM:
    return randomize(HybridCtxForCausalLM(HybridCtxConfig(**tower_configs(towers), **kwargs)))


@pytest.fixture(scope="module")
def model() -> HybridCtxForCausalLM:
    """A model with all optional parts. Tests must leave it as it is."""
    return make_model(phi="residual_adapter", modality_embedding=True)


def make_pages(sizes: list[tuple[int, int]], colour: bool = False, seed: int = 0) -> list[np.ndarray]:
    """Noise pages of the given heights and widths in merge blocks, a few pixels off, so that they are resized."""
    rng = np.random.default_rng(seed)
    shape = (3,) if colour else ()
    return [rng.integers(0, 256, (h * FACTOR + 3, w * FACTOR - 2, *shape), dtype=np.uint8) for h, w in sizes]


def make_inputs(rows: list[list], pixels: dict | BatchFeature | None = None, seed: int = 0, **kwargs) -> dict:
    """
    Model inputs for rows that list page sizes `(height, width)` in merge blocks and numbers of text tokens, in any
    order. Padded on the left. Pixels are those of `pixels`, where given, or our image processor's.
    """
    sizes = [part for row in rows for part in row if isinstance(part, tuple)]
    if pixels is None:
        pixels = HybridCtxImageProcessor(**IMAGE_SETTINGS)(make_pages(sizes, seed=seed, **kwargs), return_tensors="pt")
    generator = torch.Generator().manual_seed(seed)
    grids, sequences = iter(pixels["image_grid_thw"].tolist()), []
    for row in rows:
        ids: list[int] = []
        for part in row:
            if isinstance(part, tuple):
                _, height, width = next(grids)
                ids += [IMAGE_START, *[IMAGE] * (height * width // MERGE**2), IMAGE_END]
            else:
                ids += torch.randint(6, VOCAB, (part,), generator=generator).tolist()
        sequences.append(ids)
    length = max(map(len, sequences))
    input_ids = torch.tensor([[PAD] * (length - len(ids)) + ids for ids in sequences])
    attention_mask = torch.tensor([[0] * (length - len(ids)) + [1] * len(ids) for ids in sequences])
    return {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "mm_token_type_ids": (input_ids == IMAGE).int(),
        **(dict(pixels.items()) if sizes else {}),
    }


PAGES_FIRST = [[(2, 3), (2, 3), (1, 2), 9], [(3, 2), 4]]
TOKENS_FIRST = [[7, (2, 3), 2, (1, 2), 3], [5, (2, 3), (2, 2), 2]]
ORDERS = {"pages_first": PAGES_FIRST, "tokens_first": TOKENS_FIRST}


def attended(logits: torch.Tensor, inputs: dict) -> torch.Tensor:
    return logits[inputs["attention_mask"].bool()]


class TowerCalls:
    """Counts how many patches went through the vision tower in each of its calls."""

    def __init__(self, model: HybridCtxForCausalLM) -> None:
        self.patches: list[int] = []
        self.hook = model.model.visual.register_forward_pre_hook(lambda _, args: self.patches.append(len(args[0])))

    def __enter__(self) -> list[int]:
        return self.patches

    def __exit__(self, *exc_info) -> None:
        self.hook.remove()


# parity


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("colour", [False, True], ids=["grey", "colour"])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_those_of_the_family(family, colour, order):
    config_class, model_class, image_processor_class, towers = FAMILIES[family]
    rows = ORDERS[order]
    reference = randomize(model_class(config_class(**tower_configs(towers))))
    ours = HybridCtxForCausalLM(HybridCtxConfig(**tower_configs(towers))).eval()
    ours.load_state_dict(reference.state_dict(), strict=True)

    pages = make_pages([part for row in rows for part in row if isinstance(part, tuple)], colour)
    rgb = pages if colour else [np.repeat(page[..., None], 3, axis=-1) for page in pages]
    floats = image_processor_class(**IMAGE_SETTINGS)(rgb, return_tensors="pt")
    bytes_ = HybridCtxImageProcessor(**IMAGE_SETTINGS)(pages, return_tensors="pt")
    assert bytes_.pixel_values.dtype == torch.uint8
    assert floats.pixel_values.nbytes == bytes_.pixel_values.nbytes * (8 if colour else 24)

    inputs = make_inputs(rows, floats)
    with torch.no_grad():
        expected = attended(reference(**inputs).logits, inputs)
        from_bytes = attended(ours(**make_inputs(rows, bytes_)).logits, inputs)
        from_floats = attended(ours(**inputs).logits, inputs)
    difference = (from_bytes - expected).abs().max().item()
    print(f"{family:8} {'colour' if colour else 'grey':6} {order:12} max abs difference {difference:.1e}", end=" ")
    print(f"from uint8, {(from_floats - expected).abs().max():.1e} from floats; logits' std {expected.std():.2f}")
    assert expected.std() > 0.5
    assert difference < 2e-5
    assert (from_floats - expected).abs().max() < 2e-5


@pytest.mark.parametrize("family", ["glm4v", "glm46v", "glm_ocr"])
def test_class_attributes_are_the_family_s(family):
    config_class, model_class, _, towers = FAMILIES[family]
    reference, ours = model_class(config_class(**tower_configs(towers))), make_model(towers)
    assert ours.tp_plan == reference.tp_plan
    assert ours._no_split_modules == reference._no_split_modules
    assert ours._tied_weights_keys == reference._tied_weights_keys
    for name in dir(reference):
        if name.startswith("_supports_"):
            assert bool(getattr(ours, name)) == bool(getattr(reference, name)), name


def test_tied_embeddings_are_one_tensor_and_saved_once(tmp_path):
    ours = HybridCtxForCausalLM(HybridCtxConfig(**tower_configs(), tie_word_embeddings=True))
    assert ours.lm_head.weight is ours.get_input_embeddings().weight
    ours.save_pretrained(tmp_path)
    again = HybridCtxForCausalLM.from_pretrained(tmp_path)
    assert again.lm_head.weight is again.get_input_embeddings().weight


def test_new_parameters_start_as_the_identity():
    torch.manual_seed(0)
    plain = HybridCtxForCausalLM(HybridCtxConfig(**tower_configs())).eval()
    torch.manual_seed(1)
    config = HybridCtxConfig(**tower_configs(), phi="residual_adapter", phi_bottleneck=5, modality_embedding=True)
    full = HybridCtxForCausalLM(config).eval()
    assert full.model.phi.down.weight.shape == (5, 48)
    assert full.model.phi.down.weight.std() > 0
    missing, unexpected = full.load_state_dict(plain.state_dict(), strict=False)
    assert all(name.startswith(("model.phi.", "model.modality_embedding.")) for name in missing)
    assert not unexpected
    inputs = make_inputs(PAGES_FIRST)
    with torch.no_grad():
        assert torch.equal(full(**inputs).logits, plain(**inputs).logits)


def test_new_parameters_missing_from_a_checkpoint_start_as_the_identity(tmp_path):
    plain = make_model()
    plain.save_pretrained(tmp_path)
    options = {"phi": "residual_adapter", "modality_embedding": True}
    full = HybridCtxForCausalLM.from_pretrained(tmp_path, **options).eval()
    inputs = make_inputs(PAGES_FIRST)
    with torch.no_grad():
        assert torch.equal(full(**inputs).logits, plain(**inputs).logits)


def test_modality_embedding_adds_its_text_row_to_text_and_its_page_row_to_pages():
    ours = make_model(modality_embedding=True)
    inputs = make_inputs(TOKENS_FIRST)
    seen = {}
    hook = ours.model.language_model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.update(kwargs), with_kwargs=True
    )
    with torch.no_grad():
        ours(**inputs)
        with_rows = seen["inputs_embeds"]
        rows = ours.model.modality_embedding.weight.clone()
        ours.model.modality_embedding.weight.zero_()
        ours(**inputs)
    hook.remove()
    torch.testing.assert_close(with_rows - seen["inputs_embeds"], rows[inputs["mm_token_type_ids"]])


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
            output = ours.get_image_features(pixels, torch.tensor([[1, 20, 24]] * num_pages)).pooler_output
        peaks[num_pages] = meter.peak - sum(embeddings.nbytes for embeddings in output)
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


def pixels_of(inputs: dict) -> tuple[torch.Tensor, torch.Tensor]:
    return inputs["pixel_values"], inputs["image_grid_thw"]


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


# one answer, many ways to ask


@pytest.mark.parametrize("order", ORDERS)
def test_a_left_padded_batch_gives_each_row_s_own_logits(model, order):
    rows = ORDERS[order]
    inputs = make_inputs(rows)
    with torch.no_grad():
        batch = model(**inputs).logits
    first_page = 0
    for index, row in enumerate(rows):
        num_pages = sum(isinstance(part, tuple) for part in row)
        pages = slice(first_page, first_page + num_pages)
        first_page += num_pages
        mask = inputs["attention_mask"][index].bool()
        patches = inputs["pixel_values"].split(inputs["image_grid_thw"].prod(-1).tolist())
        single = {
            "input_ids": inputs["input_ids"][index, mask][None],
            "mm_token_type_ids": inputs["mm_token_type_ids"][index, mask][None],
            "pixel_values": torch.cat(patches[pages]),
            "image_grid_thw": inputs["image_grid_thw"][pages],
        }
        with torch.no_grad():
            alone = model(**single).logits[0]
        torch.testing.assert_close(batch[index, mask], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("options", [{}, {"prefill_chunk_size": 5}], ids=["whole", "chunked_prefill"])
def test_cached_generation_equals_full_forward(model, order, options):
    inputs = make_inputs(ORDERS[order])
    length = inputs["input_ids"].shape[1]
    output = model.generate(
        **inputs, max_new_tokens=6, do_sample=False, output_logits=True, return_dict_in_generate=True, **options
    )
    assert output.sequences.shape[1] == length + 6
    new_tokens = output.sequences[:, length:]
    full = inputs | {
        "input_ids": output.sequences,
        "attention_mask": torch.cat([inputs["attention_mask"], torch.ones_like(new_tokens)], 1),
        "mm_token_type_ids": torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(new_tokens).int()], 1),
    }
    with torch.no_grad():
        logits = model(**full).logits[:, length - 1 : -1]
    torch.testing.assert_close(torch.stack(output.logits, 1), logits, rtol=1e-4, atol=1e-4)


def test_a_cache_of_an_earlier_document_answers_as_if_read_anew(model):
    """Positions come from the prompt, not from whichever prompt the model saw last."""
    inputs = make_inputs([[(2, 3), (1, 2), 9]])
    other = make_inputs([[(5, 1), 3]], seed=1)
    prefix_length = inputs["input_ids"].shape[1] - 4
    prefix = inputs | {k: inputs[k][:, :prefix_length] for k in ("input_ids", "attention_mask", "mm_token_type_ids")}
    options = {"max_new_tokens": 4, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    anew = model.generate(**inputs, **options)
    with torch.no_grad():
        cache = model(**prefix).past_key_values
    model.generate(**other, **options)
    without_pixels = {k: v for k, v in inputs.items() if k != "pixel_values"}
    with TowerCalls(model) as calls:
        cached = model.generate(**without_pixels, past_key_values=cache, **options)
    assert not calls
    torch.testing.assert_close(torch.stack(cached.logits), torch.stack(anew.logits), rtol=1e-4, atol=1e-4)


def test_attention_is_chosen_for_each_tower(tmp_path):
    make_model().save_pretrained(tmp_path)
    choice = {"text_config": "eager", "vision_config": "sdpa"}
    loaded = HybridCtxForCausalLM.from_pretrained(tmp_path, attn_implementation=choice)
    assert loaded.model.language_model.config._attn_implementation == "eager"
    assert {block.attn.config._attn_implementation for block in loaded.model.visual.blocks} == {"sdpa"}


def test_beam_search_gives_each_row_its_own_pages(model):
    inputs = make_inputs(PAGES_FIRST)
    options = {"max_new_tokens": 5, "num_beams": 3, "do_sample": False}
    batch = model.generate(**inputs, **options)[:, -5:]
    patches = inputs["pixel_values"].split(inputs["image_grid_thw"].prod(-1).tolist())
    for index, pages in ((0, slice(0, 3)), (1, slice(3, 4))):
        single = {k: inputs[k][index : index + 1] for k in ("input_ids", "attention_mask", "mm_token_type_ids")}
        single |= {"pixel_values": torch.cat(patches[pages]), "image_grid_thw": inputs["image_grid_thw"][pages]}
        assert torch.equal(model.generate(**single, **options)[0, -5:], batch[index])


def test_every_beam_reads_all_pages_in_order(model):
    inputs = make_inputs(PAGES_FIRST)
    with torch.no_grad():
        expected = model(**inputs).logits[:, -1]
    said = model.generate(
        **inputs, max_new_tokens=1, num_beams=3, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    beams = said.logits[0].view(len(expected), 3, -1)
    torch.testing.assert_close(beams, expected[:, None].expand_as(beams), rtol=1e-4, atol=1e-4)


def test_inputs_embeds_and_encoder_outputs_give_the_same_logits(model):
    inputs = make_inputs(TOKENS_FIRST)
    with torch.no_grad():
        expected = model(**inputs).logits
        position_ids, _ = model.model.get_rope_index(
            **{k: inputs[k] for k in ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")}
        )
        embeds = model.get_input_embeddings()(inputs["input_ids"])
        without_ids = {k: v for k, v in inputs.items() if k != "input_ids"}
        assert torch.equal(model(inputs_embeds=embeds, position_ids=position_ids, **without_ids).logits, expected)
        encoded = model.get_image_features(*pixels_of(inputs))
        without_pixels = {k: v for k, v in inputs.items() if k != "pixel_values"}
        assert torch.equal(model(mm_encoder_outputs={"image": encoded}, **without_pixels).logits, expected)
        # as vLLM's Transformers backend does: features are written outside
        is_visual = inputs["input_ids"] == IMAGE
        embeds[is_visual] = torch.cat(encoded.pooler_output)
        outside = model(inputs_embeds=embeds, position_ids=position_ids, attention_mask=inputs["attention_mask"])
    torch.testing.assert_close(outside.logits, expected, rtol=1e-4, atol=1e-4)


def test_text_alone_needs_no_pages(model):
    inputs = make_inputs([[9], [4]])
    assert model.generate(**inputs, max_new_tokens=2).shape == (2, 11)


def test_attentions_of_every_text_layer_are_given_on_request(model):
    inputs = make_inputs(PAGES_FIRST)
    ours = make_model()
    ours.set_attn_implementation("eager")
    with torch.no_grad():
        output = ours(**inputs, output_attentions=True, output_hidden_states=True)
    length = inputs["input_ids"].shape[1]
    assert [tuple(attention.shape) for attention in output.attentions] == [(2, 4, length, length)] * 2
    assert len(output.hidden_states) == 3


@pytest.mark.parametrize(
    "auto_class",
    [AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMultimodalLM],
    ids=lambda c: c.__name__,
)
def test_saved_and_loaded_logits_are_bitwise_equal(model, auto_class, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = auto_class.from_pretrained(tmp_path).eval()
    assert type(loaded) is HybridCtxForCausalLM
    assert loaded.config.phi == "residual_adapter" and loaded.config.vision_config.depth == 2
    buffers = dict(loaded.named_buffers())
    assert buffers and all(torch.equal(buffers[name], buffer) for name, buffer in model.named_buffers())
    inputs = make_inputs(PAGES_FIRST)
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)


def test_base_model_loads_from_the_causal_lm_s_checkpoint(model, tmp_path):
    model.save_pretrained(tmp_path)
    base = AutoModel.from_pretrained(tmp_path).eval()
    assert type(base) is HybridCtxModel
    inputs = make_inputs(PAGES_FIRST)
    with torch.no_grad():
        assert torch.equal(base(**inputs).last_hidden_state, model.model(**inputs).last_hidden_state)


# training


def gradients(model: PreTrainedModel, inputs: dict) -> dict[str, torch.Tensor]:
    model.zero_grad()
    labels = inputs["input_ids"].masked_fill(inputs["mm_token_type_ids"] == 1, -100)
    model(**inputs, labels=labels).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("towers", ["glm4v", "glm_ocr"])
def test_gradient_checkpointing_gives_the_same_gradients(towers):
    ours = make_model(towers, phi="residual_adapter", modality_embedding=True).train()
    inputs = make_inputs(TOKENS_FIRST)
    plain = gradients(ours, inputs)
    assert {name for name, _ in ours.named_parameters()} == set(plain)
    ours.gradient_checkpointing_enable()
    checkpointed = gradients(ours, inputs)
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, rtol=1e-4, atol=1e-5)


def test_gradients_equal_the_family_s():
    reference = randomize(Glm4vForConditionalGeneration(Glm4vConfig(**tower_configs())))
    ours = HybridCtxForCausalLM(HybridCtxConfig(**tower_configs()))
    ours.load_state_dict(reference.state_dict())
    pages = make_pages([part for row in PAGES_FIRST for part in row if isinstance(part, tuple)])
    rgb = [np.repeat(page[..., None], 3, axis=-1) for page in pages]
    floats = Glm4vImageProcessorPil(**IMAGE_SETTINGS)(rgb, return_tensors="pt")
    expected = gradients(reference, make_inputs(PAGES_FIRST, floats))
    found = gradients(ours, make_inputs(PAGES_FIRST))
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-6, name


@pytest.mark.parametrize("targets", [["q_proj", "v_proj", "qkv"], ["patch_embed.proj"]], ids=["linear", "patch_embed"])
def test_lora_trains_one_step_and_comes_back_from_disk(targets, tmp_path):
    ours = get_peft_model(make_model(), LoraConfig(r=2, target_modules=targets))
    ours.enable_input_require_grads()
    ours.gradient_checkpointing_enable()
    inputs = make_inputs(PAGES_FIRST)
    with torch.no_grad():
        before = ours.eval()(**inputs).logits
    optimizer = torch.optim.SGD([p for p in ours.parameters() if p.requires_grad], lr=0.1)
    ours.train()
    for _ in range(2):  # LoRA's B is zero at first, so the second step is the first to move A
        assert all("lora" in name for name in gradients(ours, inputs))
        optimizer.step()
    with torch.no_grad():
        after = ours.eval()(**inputs).logits
    assert (after - before).abs().max() > 1e-3
    ours.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(make_model(), tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(**inputs).logits, after, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_adapters_in_the_tower_learn_under_gradient_checkpointing(use_reentrant):
    ours = get_peft_model(make_model(), LoraConfig(target_modules=["qkv", "q_proj"]))
    ours.train()
    inputs = make_inputs(PAGES_FIRST)
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)

    def gradients_of_adapters():
        ours.zero_grad()
        ours(**inputs, labels=labels).loss.backward()
        return {name: p.grad.clone() for name, p in ours.named_parameters() if p.requires_grad}

    expected = gradients_of_adapters()
    ours.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    ours.enable_input_require_grads()
    found = gradients_of_adapters()
    assert any("visual" in name for name in found)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


def test_trainer_takes_one_step(tmp_path):
    ours = make_model()
    before = {name: parameter.clone() for name, parameter in ours.named_parameters()}
    inputs = make_inputs(PAGES_FIRST)
    arguments = TrainingArguments(
        tmp_path,
        max_steps=1,
        learning_rate=1e-2,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    batch = inputs | {"labels": inputs["input_ids"]}
    trainer = Trainer(ours, arguments, train_dataset=[0, 1], data_collator=lambda _: batch)
    assert math.isfinite(trainer.train().training_loss)
    assert all(not torch.equal(parameter, before[name]) for name, parameter in ours.named_parameters())


def test_blank_and_black_pages_give_finite_logits(model):
    inputs = make_inputs(PAGES_FIRST)
    for value in (0, 255):
        inputs["pixel_values"] = torch.full_like(inputs["pixel_values"], value)
        with torch.no_grad():
            assert model(**inputs).logits.isfinite().all()


# errors


def drop_image_token(inputs):
    inputs["input_ids"][0, inputs["input_ids"][0].tolist().index(IMAGE)] = 9
    inputs["mm_token_type_ids"] = (inputs["input_ids"] == IMAGE).int()


def drop_patch(inputs):
    inputs["pixel_values"] = inputs["pixel_values"][1:]


def halve_width(inputs):
    inputs["pixel_values"] = inputs["pixel_values"][:, ::2]


def cast_to_int(inputs):
    inputs["pixel_values"] = inputs["pixel_values"].long()


def cast_to_float(inputs):
    inputs["pixel_values"] = inputs["pixel_values"].float()


def odd_grid(inputs):
    inputs["image_grid_thw"][0] = torch.tensor([1, 8, 3])


def empty_page(inputs):
    inputs["image_grid_thw"] = torch.cat([inputs["image_grid_thw"], torch.tensor([[1, 0, 4]])])


def no_page(inputs):
    inputs["image_grid_thw"] = inputs["image_grid_thw"][:0]
    inputs["pixel_values"] = inputs["pixel_values"][:0]
    inputs["input_ids"] = inputs["input_ids"].clamp(min=6)
    inputs["mm_token_type_ids"] = torch.zeros_like(inputs["input_ids"])


def flat_grid(inputs):
    inputs["image_grid_thw"] = inputs["image_grid_thw"].flatten()


MISTAKES = [
    (drop_image_token, "19 image tokens (id 3)", "20 visual embeddings", "as the processor does"),
    (drop_patch, "[79, 36]", "80 patches", "pages one after another"),
    (halve_width, "18 wide", "36 or 108 wide", "patch_size"),
    (cast_to_int, "torch.int64", "uint8", "image processor"),
    (cast_to_float, "36 wide", "216 wide", "temporal_patch_size"),
    (odd_grid, "image_grid_thw[0] is [1, 8, 3]", "spatial_merge_size=2", "image processor"),
    (empty_page, "image_grid_thw[4] is [1, 0, 4]", "positive", "image processor"),
    (no_page, "no rows", "pixel_values", "leave it"),
    (flat_grid, "[12]", "[pages, 3]", "row per page"),
]


@pytest.mark.parametrize("method", ["forward", "generate"])
@pytest.mark.parametrize(
    ("mistake", "value", "bound", "way_out"), MISTAKES, ids=lambda value: getattr(value, "__name__", "")
)
def test_mistakes_are_named_before_the_towers_run(model, method, mistake, value, bound, way_out):
    inputs = make_inputs(PAGES_FIRST)
    mistake(inputs)
    with TowerCalls(model) as calls, pytest.raises(ValueError) as error:
        getattr(model, method)(**inputs)
    assert not calls
    for part in (value, bound, way_out):
        assert part in str(error.value)


def test_missing_arguments_are_named(model):
    inputs = make_inputs(PAGES_FIRST)
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    pixels = {"pixel_values": inputs["pixel_values"], "image_grid_thw": inputs["image_grid_thw"]}
    with pytest.raises(ValueError, match="image_grid_thw"):
        model(**{k: v for k, v in inputs.items() if k != "image_grid_thw"})
    with pytest.raises(ValueError, match="mm_token_type_ids"):
        model(**{k: v for k, v in inputs.items() if k != "mm_token_type_ids"})
    with pytest.raises(ValueError, match="mm_token_type_ids"):
        model(inputs_embeds=embeds, **pixels)
    with pytest.raises(ValueError, match="exactly one of input_ids or inputs_embeds"):
        model(**pixels)
    with pytest.raises(ValueError, match="pixel_values and mm_encoder_outputs"):
        model(**inputs, mm_encoder_outputs={"image": model.get_image_features(*pixels_of(inputs))})


# GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("attention", ["sdpa", "flash_attention_2"])
def test_bf16_on_a_gpu_agrees_with_fp32_on_the_cpu(attention, tmp_path):
    if attention == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        pytest.skip("flash-attn is not installed")
    configs = tower_configs()
    configs["vision_config"] |= {"hidden_size": 128}  # flash kernels want head sizes that are multiples of 8
    configs["text_config"] |= {"hidden_size": 128, "num_key_value_heads": 4}
    configs["text_config"]["rope_parameters"] |= {"mrope_section": [4, 6, 6]}
    configs["vision_config"]["out_hidden_size"] = 128
    torch.manual_seed(0)
    reference = HybridCtxForCausalLM(HybridCtxConfig(**configs)).eval()
    reference.save_pretrained(tmp_path)
    ours = HybridCtxForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16, attn_implementation=attention)
    inputs = make_inputs(PAGES_FIRST)
    with torch.no_grad():
        expected = attended(reference(**inputs).logits, inputs)
        found = ours.cuda().eval()(**{k: v.cuda() for k, v in inputs.items()}).logits.float().cpu()
    assert (attended(found, inputs) - expected).norm() < 0.05 * expected.norm()
