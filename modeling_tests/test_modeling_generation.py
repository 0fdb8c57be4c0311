# SPDX-License-Identifier: Apache-2.0
"""One answer, many ways to ask: batches, caches, beams, embeddings, with and without pages."""

import pytest
import torch
from tiny_models import (
    IMAGE,
    ORDERS,
    PAGES_FIRST,
    TOKENS_FIRST,
    TowerCalls,
    make_inputs,
    make_model,
    pixels_of,
)

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
