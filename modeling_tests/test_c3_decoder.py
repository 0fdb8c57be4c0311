# SPDX-License-Identifier: Apache-2.0
"""The decoder and encoder of Context Cascade Compression (two Qwen2 models) beside the same weights in a HybridCtx model.

Its positions are counted in one dimension. A text tower of the Qwen2-VL family has the same layers and keys, and where
all three of its positions are alike, as for text and latents, they are those of Qwen2.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import TEXT_TOWER, randomize
from tiny_models import LATENT, NUM_LATENTS, VOCAB, make_inputs, make_model, tower_configs
from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Model

from transformers_hybridctx.configuration_hybridctx import HybridCtxConfig
from transformers_hybridctx.modeling_hybridctx import HybridCtxForCausalLM

# As published: Qwen2.5 of 3 and of 1.5 billion parameters.
DECODER: dict[str, Any] = {
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
}
ENCODER: dict[str, Any] = {
    **DECODER,
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
}
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": VOCAB,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
BEGIN, END = 90, 92


def config_of(decoder: dict[str, Any], encoder: dict[str, Any], latents: int, token: int) -> HybridCtxConfig:
    """A HybridCtx config with these as its text tower and its latent encoder, and some vision tower."""
    half = decoder["hidden_size"] // decoder["num_attention_heads"] // 2
    sections = [half - 2 * (half * 3 // 8), half * 3 // 8, half * 3 // 8]
    text = {
        **decoder,
        "model_type": "qwen2_vl_text",
        "rope_parameters": {**decoder["rope_parameters"], "mrope_section": sections},
        "pad_token_id": 0,
    }
    fields = tower_configs()
    vision = {**fields["vision_config"], "out_hidden_size": decoder["hidden_size"]}
    return HybridCtxConfig(
        **{**fields, "text_config": text, "vision_config": vision},
        latent_config={**encoder, "model_type": "qwen2"},
        latent_token_id=token,
        num_latent_tokens=latents,
        tie_word_embeddings=decoder["tie_word_embeddings"],
    )


def test_logits_are_those_of_c3_on_random_weights() -> None:
    decoder = {**DECODER, **SMALL, "num_key_value_heads": 2}
    encoder = {**ENCODER, **SMALL, "hidden_size": 24, "num_key_value_heads": 2}
    theirs = randomize(Qwen2ForCausalLM(Qwen2Config(**decoder)))
    llm1 = randomize(Qwen2Model(Qwen2Config(**encoder)))
    queries, projector = randomize(nn.Embedding(NUM_LATENTS, 24)), randomize(nn.Linear(24, 32))
    ours = HybridCtxForCausalLM(config_of(decoder, encoder, NUM_LATENTS, LATENT)).eval()
    ours.model.language_model.load_state_dict(theirs.model.state_dict())
    ours.tie_weights()
    for part, weights in (("encoder", llm1), ("queries", queries), ("projection", projector)):
        getattr(ours.model.latent, part).load_state_dict(weights.state_dict())
    text = torch.randint(6, BEGIN, (1, 11), generator=torch.Generator().manual_seed(0))
    asked = torch.randint(6, BEGIN, (1, 5), generator=torch.Generator().manual_seed(1))
    begin, end, pads = torch.tensor([[BEGIN]]), torch.tensor([[END]]), torch.full((1, NUM_LATENTS), LATENT)
    with torch.no_grad():
        # theirs: text, begin, pads, end in the encoder; begin, latents, end, question in the decoder
        chunk = torch.cat([text, begin], 1)
        embeds = torch.cat([llm1.embed_tokens(chunk), queries.weight[None], llm1.embed_tokens(end)], 1)
        latents = projector(llm1(inputs_embeds=embeds).last_hidden_state[:, 12:-1])
        embed = theirs.model.embed_tokens
        context = torch.cat([embed(begin), latents, embed(torch.cat([end, asked], 1))], 1)
        expected = theirs(inputs_embeds=context).logits
        prompt = torch.cat([begin, pads, end, asked], 1)
        found = ours(input_ids=prompt, latent_input_ids=chunk).logits
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        said = ours.generate(input_ids=prompt, latent_input_ids=chunk, max_new_tokens=4, do_sample=False)
        again = theirs.generate(inputs_embeds=context, max_new_tokens=4, do_sample=False)
    assert said[0, prompt.shape[1] :].tolist() == again[0].tolist()


def test_the_published_sizes_have_a_place_for_each_of_c3_s_weights() -> None:
    config = config_of(DECODER, ENCODER, 32, 151858)
    with torch.device("meta"):
        ours = HybridCtxForCausalLM(config)
        parts = {
            "model.language_model.": Qwen2Model(Qwen2Config(**DECODER)),
            "model.latent.encoder.": Qwen2Model(Qwen2Config(**ENCODER)),
            "model.latent.queries.": nn.Embedding(32, 1536),
            "model.latent.projection.": nn.Linear(1536, 2048),
        }
    shapes = {name: value.shape for name, value in ours.state_dict().items()}
    expected = {
        prefix + name: value.shape for prefix, part in parts.items() for name, value in part.state_dict().items()
    }
    assert expected.items() <= shapes.items()
    assert {name for name in shapes if "visual" not in name} == {*expected, "lm_head.weight"}


def test_what_makes_c3_s_latents_has_a_place_beside_a_decoder_with_pages(tmp_path: Path) -> None:
    # C3's layout: the encoder in a folder of its own, queries and linear map among the decoder's weights
    width = TEXT_TOWER["hidden_size"]
    llm1 = randomize(
        Qwen2ForCausalLM(Qwen2Config(**{**ENCODER, **SMALL, "hidden_size": 24, "num_key_value_heads": 2}))
    )
    llm1.save_pretrained(tmp_path / "llm1")
    queries, projector = randomize(nn.Embedding(NUM_LATENTS, 24)), randomize(nn.Linear(24, width))
    named = {"model.Q": queries, "model.mm_projector": projector}
    theirs = {f"{name}.{key}": value for name, part in named.items() for key, value in part.state_dict().items()}
    save_file(theirs, tmp_path / "model.safetensors")
    plain = make_model()
    plain.save_pretrained(tmp_path / "pages")

    encoder, weights = Qwen2Model.from_pretrained(tmp_path / "llm1"), load_file(tmp_path / "model.safetensors")
    ours = HybridCtxForCausalLM.from_pretrained(
        tmp_path / "pages",
        allow_missing_keys=True,
        latent_config=encoder.config.to_dict(),
        latent_token_id=LATENT,
        num_latent_tokens=NUM_LATENTS,
    ).eval()
    of_c3 = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    of_c3["queries.weight"] = weights["model.Q.weight"]
    of_c3 |= {f"projection.{name}": weights[f"model.mm_projector.{name}"] for name in ("weight", "bias")}
    ours.model.latent.load_state_dict(of_c3)
    ours.save_pretrained(tmp_path / "with latents")
    again = HybridCtxForCausalLM.from_pretrained(tmp_path / "with latents").eval()

    chunk, end = torch.tensor([[7, 8, 9, 11, BEGIN]]), torch.tensor([[END]])
    with torch.no_grad():
        embed = llm1.get_input_embeddings()
        embeds = torch.cat([embed(chunk), queries.weight[None], embed(end)], 1)
        hidden = llm1(inputs_embeds=embeds, output_hidden_states=True).hidden_states[-1]
        (found,) = again.get_latent_features(chunk).pooler_output
        torch.testing.assert_close(found, projector(hidden)[0, 5:-1], rtol=1e-4, atol=1e-5)
        pages = make_inputs([[(2, 3), 9]])
        assert torch.equal(again(**pages).logits, plain(**pages).logits), "pages are read as before"
