# SPDX-License-Identifier: Apache-2.0
"""Latents in the fused context: where they go, what they are, and what is refused."""

from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from tiny_models import LATENT, VOCAB, latent_inputs, latent_options, make_inputs, make_model, tower_configs
from transformers import BertConfig, BertModel, Qwen2Config, T5Config

from transformers_hybridctx.caching.prefix import PrefixCache
from transformers_hybridctx.configuration_hybridctx import HybridCtxConfig
from transformers_hybridctx.modeling_hybridctx import HybridCtxForCausalLM
from transformers_hybridctx.modules.quantization import FULL_PRECISION

# Rows of chunks, page sizes and numbers of tokens, in the order of the prompt.
ROWS: list[list[Any]] = [["c9", 2, "c5", (2, 3), (1, 2), 9], [4, (2, 2), "c7", 3], [(1, 2), 5], ["c3", 6]]


@pytest.fixture(scope="module")
def model() -> HybridCtxForCausalLM:
    """A model with all channels. Tests must leave it as it is."""
    return make_model(phi="residual_adapter", modality_embedding=True, **latent_options())


def logits(model: HybridCtxForCausalLM, inputs: dict[str, Any]) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs).logits


# what they are


@pytest.mark.parametrize("encoder", ["qwen2", "bert", "glm4v_text"])
def test_latents_are_the_encoder_s_hidden_states_at_the_queries_mapped(encoder: str) -> None:
    """The plain version: each chunk by itself, its tokens' embeddings with the queries behind them."""
    model = make_model(**latent_options(encoder))
    inputs = latent_inputs(ROWS)
    with torch.no_grad():
        found = model.get_latent_features(inputs["latent_input_ids"], inputs["latent_attention_mask"]).pooler_output
        latent = model.model.latent
        for ids, mask, latents in zip(inputs["latent_input_ids"], inputs["latent_attention_mask"].bool(), found):
            embeds = torch.cat([latent.encoder.get_input_embeddings()(ids[mask]), latent.queries.weight])[None]
            hidden = latent.encoder(inputs_embeds=embeds).last_hidden_state[0, -model.config.num_latent_tokens :]
            torch.testing.assert_close(latents, latent.projection(hidden), rtol=1e-4, atol=1e-5)
    assert len(found) == 4 and found[0].shape == (3, 48)
    assert (found[0] - found[1]).abs().max() > 1e-2


def test_latents_are_those_of_c3_s_layout() -> None:
    """
    Context Cascade Compression's own: text, a begin token, a pad for each latent, an end token, in one Qwen2; its queries
    in place of the pads' embeddings, its last hidden states there through its projector. A chunk ends with its begin.
    """
    model = make_model(**latent_options())
    latent, begin, pad, end = model.model.latent, 90, 91, 92
    encoder, queries, projector = latent.encoder, latent.queries.weight, latent.projection
    text = latent_inputs([["c9"]])["latent_input_ids"][0].tolist()
    ids = torch.tensor([[*text, begin, *[pad] * len(queries), end]])
    with torch.no_grad():
        embeds = encoder.get_input_embeddings()(ids)
        embeds[ids == pad] = queries
        expected = projector(encoder(inputs_embeds=embeds).last_hidden_state[ids == pad])
        (found,) = model.get_latent_features(torch.tensor([[*text, begin]])).pooler_output
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_latents_stand_in_the_prompt_as_embeddings_would(model: HybridCtxForCausalLM) -> None:
    inputs = latent_inputs([["c9", 2, "c5", 4]])
    chunks = {name: inputs.pop(name) for name in ("latent_input_ids", "latent_attention_mask")}
    with torch.no_grad():
        embeds = model.get_input_embeddings()(inputs["input_ids"])
        embeds[inputs["input_ids"] == LATENT] = torch.cat(model.get_latent_features(**chunks).pooler_output)
        expected = model(inputs_embeds=embeds, attention_mask=inputs["attention_mask"]).logits
    assert torch.equal(logits(model, inputs | chunks), expected)


def test_batches_are_bounded_and_change_nothing(model: HybridCtxForCausalLM) -> None:
    inputs = latent_inputs(ROWS)
    sizes: list[tuple[int, int]] = []
    latent = model.model.latent
    hook = latent.encoder.register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
    )
    whole = logits(model, inputs)
    latent.batch_tokens, wide = 20, latent.batch_tokens
    try:
        torch.testing.assert_close(logits(model, inputs), whole, rtol=1e-4, atol=1e-4)
    finally:
        latent.batch_tokens = wide
        hook.remove()
    assert sizes[0] == (4, 12)
    assert sizes[1:] == [(1, 12), (2, 10)] or all(rows * columns <= 20 for rows, columns in sizes[1:])
    assert sum(rows for rows, _ in sizes[1:]) == 4


def test_chunks_may_be_padded_on_either_side(model: HybridCtxForCausalLM) -> None:
    inputs = latent_inputs(ROWS)
    flipped = inputs | {
        "latent_input_ids": torch.stack(
            [ids.roll(int((mask == 0).sum())) for ids, mask in zip(*chunks_of(inputs), strict=True)]
        ),
        "latent_attention_mask": inputs["latent_attention_mask"].flip(1),
    }
    assert not torch.equal(flipped["latent_input_ids"], inputs["latent_input_ids"])
    assert torch.equal(logits(model, flipped), logits(model, inputs))


def chunks_of(inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    return inputs["latent_input_ids"], inputs["latent_attention_mask"]


# one answer, many ways to ask


def test_a_padded_batch_gives_each_row_s_own_logits(model: HybridCtxForCausalLM) -> None:
    inputs = latent_inputs(ROWS)
    batch = logits(model, inputs)
    chunk = page = patch = 0
    for row, parts in enumerate(ROWS):
        kept = inputs["attention_mask"][row].bool()
        alone = {name: inputs[name][row, kept][None] for name in ("input_ids", "attention_mask", "mm_token_type_ids")}
        if count := sum(isinstance(part, str) for part in parts):
            alone |= {name: inputs[name][chunk : chunk + count] for name in inputs if name.startswith("latent")}
            chunk += count
        if count := sum(isinstance(part, tuple) for part in parts):
            alone["image_grid_thw"] = inputs["image_grid_thw"][page : page + count]
            patches = int(alone["image_grid_thw"].prod(-1).sum())
            alone["pixel_values"] = inputs["pixel_values"][patch : patch + patches]
            page, patch = page + count, patch + patches
        torch.testing.assert_close(batch[row, kept], logits(model, alone)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"prefill_chunk_size": 4}], ids=["whole", "chunked_prefill"])
@pytest.mark.parametrize("rows", [ROWS, [["c9", 2, "c5", 4]]], ids=["with_pages", "latents_only"])
def test_cached_generation_equals_full_forward(model: HybridCtxForCausalLM, rows: list, options: dict) -> None:
    inputs = latent_inputs(rows)
    calls: list[int] = []
    hook = model.model.latent.register_forward_pre_hook(lambda *_: calls.append(1))
    output = model.generate(
        **inputs, max_new_tokens=5, do_sample=False, output_logits=True, return_dict_in_generate=True, **options
    )
    hook.remove()
    assert len(calls) == 1, "the latent encoder runs at prefill only"
    length, new = inputs["input_ids"].shape[1], output.sequences.shape[1] - inputs["input_ids"].shape[1]
    whole = inputs | {
        "input_ids": output.sequences,
        "attention_mask": torch.nn.functional.pad(inputs["attention_mask"], (0, new), value=1),
        "mm_token_type_ids": torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, new)),
    }
    expected = logits(model, whole)[:, length - 1 : -1]
    torch.testing.assert_close(torch.stack(output.logits, dim=1), expected, rtol=1e-4, atol=1e-4)


def test_each_beam_has_its_own_prompt_s_latents(model: HybridCtxForCausalLM) -> None:
    options = {"max_new_tokens": 4, "num_beams": 3, "num_return_sequences": 2, "do_sample": False}
    together = model.generate(**latent_inputs([["c9", 2, "c5", 9], ["c4", 2, "c8", 9]]), **options)
    inputs = latent_inputs([["c9", 2, "c5", 9], ["c4", 2, "c8", 9]])
    for row in range(2):
        alone = {name: value[row : row + 1] for name, value in inputs.items() if not name.startswith("latent")}
        alone |= {name: inputs[name][2 * row : 2 * row + 2] for name in ("latent_input_ids", "latent_attention_mask")}
        assert torch.equal(model.generate(**alone, **options), together[2 * row : 2 * row + 2])


@pytest.mark.parametrize("encoder", ["qwen2", "bert", "glm4v_text"])
def test_gradients_reach_all_of_the_encoder_and_checkpointing_changes_none(encoder: str) -> None:
    model = make_model(**latent_options(encoder)).train()
    inputs = latent_inputs(ROWS)
    inputs["labels"] = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)

    def gradients() -> dict[str, torch.Tensor]:
        model.zero_grad()
        model(**inputs, use_cache=False).loss.backward()
        found = {name: value.grad for name, value in model.model.latent.named_parameters() if value.grad is not None}
        return {name: grad.clone() for name, grad in found.items()}

    plain = gradients()
    left_out = {name for name, _ in model.model.latent.named_parameters()} - plain.keys()
    assert all("pooler" in name for name in left_out), "BERT's pooler has no part in its hidden states"
    assert plain["queries.weight"].abs().max() > 0
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for name, grad in gradients().items():
        torch.testing.assert_close(grad, plain[name], rtol=1e-4, atol=1e-5)


def test_saved_and_loaded_logits_are_bitwise_equal(model: HybridCtxForCausalLM, tmp_path) -> None:
    model.save_pretrained(tmp_path)
    again = HybridCtxForCausalLM.from_pretrained(tmp_path).eval()
    assert again.config.latent_config.model_type == "qwen2" and again.config.num_latent_tokens == 3
    inputs = latent_inputs(ROWS)
    assert torch.equal(logits(again, inputs), logits(model, inputs))
    parts = ("visual", "phi", "modality_embedding", "language_model")
    places = {"lm_head": "cpu", "model.latent": "disk"} | {f"model.{part}": "cpu" for part in parts}
    spread = HybridCtxForCausalLM.from_pretrained(tmp_path, device_map=places, offload_folder=tmp_path / "offloaded")
    assert all(parameter.is_meta for parameter in spread.model.latent.parameters())
    assert torch.equal(logits(spread, inputs), logits(model, inputs))


def test_an_encoder_is_added_to_a_checkpoint_to_be_trained(tmp_path) -> None:
    plain = make_model()
    plain.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"lacks 29 of the weights .* model\.latent\.encoder"):
        HybridCtxForCausalLM.from_pretrained(tmp_path, **latent_options())
    with pytest.raises((ValueError, StrictDataclassError), match="latent_token_id=None must be a token of its own"):
        HybridCtxForCausalLM.from_pretrained(tmp_path, latent_config=latent_options()["latent_config"])
    added = HybridCtxForCausalLM.from_pretrained(tmp_path, allow_missing_keys=True, **latent_options()).eval()
    assert added.model.latent.encoder.config.hidden_size == 24
    assert 0 < added.model.latent.queries.weight.std() < 0.1 and not added.model.latent.projection.bias.any()
    inputs = make_inputs([[(2, 3), 9], [5]])
    assert torch.equal(logits(added, inputs), logits(plain, inputs))
    assert logits(added, latent_inputs(ROWS)).isfinite().all()


def test_attention_is_chosen_for_the_encoder(model: HybridCtxForCausalLM, tmp_path) -> None:
    model.save_pretrained(tmp_path)
    loaded = HybridCtxForCausalLM.from_pretrained(tmp_path, attn_implementation={"latent_config": "eager"})
    assert loaded.model.latent.encoder.config._attn_implementation == "eager"


# none of it


def test_without_an_encoder_nothing_is_there() -> None:
    plain, full = make_model(), make_model(**latent_options())
    assert plain.model.latent is None
    names = {name for name, _ in full.named_parameters()} - {name for name, _ in plain.named_parameters()}
    assert names and all(name.startswith("model.latent.") for name in names)
    assert HybridCtxConfig(**tower_configs()).to_diff_dict()["latent_config"] is None
    full.load_state_dict(plain.state_dict(), strict=False)
    inputs = make_inputs([[(2, 3), 9], [5]])
    assert torch.equal(logits(plain, inputs), logits(full, inputs))


def test_the_encoder_stays_out_of_four_bits() -> None:
    assert {"model.latent", "latent"} <= set(FULL_PRECISION)


# what is refused


def test_what_does_not_fit_is_refused_before_an_encoder_runs(model: HybridCtxForCausalLM) -> None:
    inputs = latent_inputs([["c9", 2, "c5", 4]])
    plain = {name: value for name, value in inputs.items() if not name.startswith("latent")}
    ids, mask = inputs["latent_input_ids"], inputs["latent_attention_mask"]
    embeds = {"inputs_embeds": model.get_input_embeddings()(inputs["input_ids"])}
    cases: list[tuple[dict[str, Any], str]] = [
        (plain, r"6 latent tokens \(id 2\), but no chunks came with it.*DataCollatorWithPacking"),
        (inputs | {"latent_input_ids": ids[:1], "latent_attention_mask": mask[:1]}, "its chunks make 3 latents"),
        (inputs | {"latent_attention_mask": mask[:1]}, r"latent_attention_mask has shape \[1, 9\]"),
        (inputs | {"latent_attention_mask": mask * torch.tensor([[1], [0]])}, "chunk 1 .* has no tokens"),
        (
            inputs | {"latent_input_ids": ids.repeat(1, 20), "latent_attention_mask": None},
            "max_position_embeddings=64",
        ),
        (inputs | {"latent_input_ids": ids[0]}, r"latent_input_ids has shape \[9\]"),
        ({**inputs, **embeds, "input_ids": None}, "chunks for latents need input_ids"),
        (inputs | {"mm_encoder_outputs": {"latent": model.get_latent_features(ids, mask)}}, "are both given"),
    ]
    hook = model.model.latent.register_forward_pre_hook(lambda *_: pytest.fail("the encoder ran"))
    for case, message in cases:
        with pytest.raises(ValueError, match=message):
            model(**case)
    with pytest.raises(ValueError, match="the model has no latent encoder"):
        make_model()(**inputs)
    hook.remove()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latent_config": T5Config(vocab_size=VOCAB)}, "'t5' is an encoder-decoder"),
        ({"latent_config": {"model_type": "glm4v"}}, "a model of several towers"),
        ({"latent_config": Qwen2Config(vocab_size=VOCAB - 1)}, "latent_config.vocab_size=96 is less"),
        ({"latent_token_id": None}, "latent_token_id=None must be a token of its own"),
        ({"latent_token_id": 3}, "latent_token_id=3 must be a token of its own"),
        ({"latent_token_id": VOCAB}, "0 to 96"),
        ({"num_latent_tokens": 0}, "num_latent_tokens=0 is not between"),
        ({"latent_batch_tokens": 0}, "latent_batch_tokens=0 is not between"),
        (
            {"latent_config": {"model_type": "qwen2", "vocab_size": VOCAB, "num_hidden_layers": 10**6}},
            "latent_config asks",
        ),
        ({"latent_config": {"model_type": "nothing"}}, "nothing"),
    ],
    ids=str,
)
def test_configs_that_make_no_sense_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        HybridCtxConfig(**{**tower_configs(), **latent_options(), **change})


def test_encoders_are_of_the_type_that_they_name() -> None:
    model = make_model(**latent_options("bert"))
    assert isinstance(model.model.latent.encoder, BertModel)
    assert isinstance(model.config.latent_config, BertConfig)


def test_a_prefix_with_latents_is_read_once_and_goes_all_or_none(model: HybridCtxForCausalLM) -> None:
    inputs = latent_inputs([["c9", 2, "c5", (2, 3), 9]])
    options = {"max_new_tokens": 5, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    expected = model.generate(**inputs, **options)
    prompt, length = inputs["input_ids"][0].tolist(), inputs["input_ids"].shape[1] - 4
    rows = {"input_ids", "attention_mask", "mm_token_type_ids"}
    read = {name: value[:, :length] if name in rows else value for name, value in inputs.items()}
    prefix = PrefixCache.read(model, read)
    assert prefix.shared_length(prompt) == length
    calls: list[int] = []
    hook = model.model.latent.register_forward_pre_hook(lambda *_: calls.append(1))
    found = model.generate(**prefix.features([prompt], None), **options)
    hook.remove()
    assert torch.equal(found.sequences, expected.sequences) and not calls
    torch.testing.assert_close(torch.stack(found.logits), torch.stack(expected.logits), rtol=1e-4, atol=1e-4)
    # only some of its latents, before any page
    other = [*prompt[:4], *[token + 1 for token in prompt[4:]]]
    without_pages = PrefixCache(prefix.input_ids[:8], prefix.image_token_id, None, (), LATENT)
    assert LATENT in without_pages.input_ids[4:] and without_pages.shared_length(other) == 0
