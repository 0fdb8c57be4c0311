# SPDX-License-Identifier: Apache-2.0
"""HybridCtx models against the GLM-4V family: the same logits, attributes and weights; and what is new in them."""

import importlib.util

import numpy as np
import pytest
import torch
from tiny_models import (
    FAMILIES,
    IMAGE_PROCESSORS,
    IMAGE_SETTINGS,
    ORDERS,
    PAGES_FIRST,
    TOKENS_FIRST,
    attended,
    make_inputs,
    make_model,
    make_pages,
    randomize,
    tower_configs,
)
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
)

from transformers_hybridctx.configuration_hybridctx import HybridCtxConfig
from transformers_hybridctx.image_processing_hybridctx import HybridCtxImageProcessor
from transformers_hybridctx.modeling_hybridctx import HybridCtxForCausalLM, HybridCtxModel

# parity


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("colour", [False, True], ids=["grey", "colour"])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_those_of_the_family(family, colour, order):
    config_class, model_class, towers = FAMILIES[family]
    rows = ORDERS[order]
    reference = randomize(model_class(config_class(**tower_configs(towers))))
    ours = HybridCtxForCausalLM(HybridCtxConfig(**tower_configs(towers))).eval()
    ours.load_state_dict(reference.state_dict(), strict=True)

    pages = make_pages([part for row in rows for part in row if isinstance(part, tuple)], colour)
    rgb = pages if colour else [np.repeat(page[..., None], 3, axis=-1) for page in pages]
    floats = IMAGE_PROCESSORS[family](**IMAGE_SETTINGS)(rgb, return_tensors="pt")
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
    config_class, model_class, towers = FAMILIES[family]
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


def test_attention_is_chosen_for_each_tower(tmp_path):
    make_model().save_pretrained(tmp_path)
    choice = {"text_config": "eager", "vision_config": "sdpa"}
    loaded = HybridCtxForCausalLM.from_pretrained(tmp_path, attn_implementation=choice)
    assert loaded.model.language_model.config._attn_implementation == "eager"
    assert {block.attn.config._attn_implementation for block in loaded.model.visual.blocks} == {"sdpa"}


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


# GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("attention", ["sdpa", "flash_attention_2"])
def test_bf16_on_a_gpu_agrees_with_fp32_on_the_cpu(attention, tmp_path):
    if attention == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        pytest.skip("flash-attn is not installed")
    configs = tower_configs()
    configs["vision_config"] |= {"hidden_size": 128}  # flash kernels want head sizes that are multiples of 8
    configs["text_config"] |= {"hidden_size": 128, "head_dim": 32, "num_key_value_heads": 4}
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
