# SPDX-License-Identifier: Apache-2.0
"""One answer, many ways to ask: batches, caches, beams, embeddings, with and without pages."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tiny_models import (
    FAMILIES,
    IMAGE,
    ORDERS,
    PAGES_FIRST,
    TOKENS_FIRST,
    TowerCalls,
    make_inputs,
    make_model,
    pixels_of,
    randomize,
    tower_configs,
)
from torch import nn
from transformers import DynamicCache

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


# what callers leave out, or pass again

GREEDY = {"do_sample": False, "output_logits": True, "return_dict_in_generate": True}


def without(inputs: dict, *names: str) -> dict:
    return {name: value for name, value in inputs.items() if name not in names}


def loop(model, inputs: dict, cache: DynamicCache, steps: int) -> Iterator[torch.Tensor]:
    """A decoding loop of one's own: the cache, one token, and the mask of all tokens."""
    mask = inputs["attention_mask"]
    logits = model(**inputs, past_key_values=cache).logits[:, -1]
    for _ in range(steps):
        yield logits
        token = logits.argmax(-1, keepdim=True)
        mask = torch.cat([mask, torch.ones_like(token)], dim=1)
        logits = model(input_ids=token, past_key_values=cache, attention_mask=mask).logits[:, -1]


@pytest.mark.parametrize("order", ORDERS)
def test_token_types_that_are_not_given_are_those_of_the_tokens(model, order):
    inputs = make_inputs(ORDERS[order])
    bare = without(inputs, "mm_token_type_ids")
    with torch.no_grad():
        assert torch.equal(model(**bare).logits, model(**inputs).logits)
    expected = model.generate(**inputs, max_new_tokens=3, **GREEDY)
    assert torch.equal(
        torch.stack(model.generate(**bare, max_new_tokens=3, **GREEDY).logits), torch.stack(expected.logits)
    )


def test_decoding_loops_of_two_documents_may_take_turns(model):
    """Positions go on from each cache, not from whichever prompt the model saw last."""
    prompts = [make_inputs(PAGES_FIRST), make_inputs(TOKENS_FIRST, seed=1), make_inputs([[9], [4]])]
    expected = [torch.stack(model.generate(**prompt, max_new_tokens=4, **GREEDY).logits) for prompt in prompts]
    loops = [loop(model, prompt, DynamicCache(), 4) for prompt in prompts]
    with torch.no_grad():
        found = [torch.stack(logits) for logits in zip(*zip(*loops))]
    for logits, others in zip(found, expected):
        torch.testing.assert_close(logits, others, rtol=1e-4, atol=1e-4)


def test_threads_may_share_a_model(model):
    prompts = [make_inputs(PAGES_FIRST), make_inputs([[(5, 1), 3]], seed=1), make_inputs([[9], [4]])] * 4
    expected = [model.generate(**prompt, max_new_tokens=6, **GREEDY) for prompt in prompts]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda prompt: model.generate(**prompt, max_new_tokens=6, **GREEDY), prompts))
    finally:
        sys.setswitchinterval(interval)
    for one, other in zip(found, expected):
        torch.testing.assert_close(torch.stack(one.logits), torch.stack(other.logits), rtol=1e-5, atol=1e-5)


def test_pages_behind_a_cache_are_placed_behind_its_tokens(model):
    inputs = make_inputs([[(2, 3), 3, (1, 2), 4, (3, 1), 2]])
    ids, patches = inputs["input_ids"], inputs["pixel_values"].split(inputs["image_grid_thw"].prod(-1).tolist())
    cut = int((ids[0] == IMAGE).nonzero()[6]) - 1  # before the second page
    cache = DynamicCache()
    with torch.no_grad():
        expected = model(**inputs).logits
        model(
            input_ids=ids[:, :cut],
            pixel_values=patches[0],
            image_grid_thw=inputs["image_grid_thw"][:1],
            past_key_values=cache,
        )
        found = model(
            input_ids=ids[:, cut:],
            pixel_values=torch.cat(patches[1:]),
            image_grid_thw=inputs["image_grid_thw"][1:],
            past_key_values=cache,
        ).logits
    torch.testing.assert_close(found, expected[:, cut:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "left_out", [("pixel_values",), ("pixel_values", "image_grid_thw", "mm_token_type_ids")], ids=len
)
def test_generation_goes_on_from_an_earlier_one_with_what_it_was_given(model, left_out):
    inputs = make_inputs(PAGES_FIRST)
    expected = model.generate(**inputs, max_new_tokens=7, **GREEDY)
    first = model.generate(**inputs, max_new_tokens=4, **GREEDY)
    new = first.sequences.shape[1] - inputs["input_ids"].shape[1]
    again = without(inputs, *left_out) | {
        "input_ids": first.sequences,
        "attention_mask": nn.functional.pad(inputs["attention_mask"], (0, new), value=1),
    }
    model.generate(**make_inputs([[(5, 1), 3]], seed=1), max_new_tokens=2)  # another document in between
    second = model.generate(**again, past_key_values=first.past_key_values, max_new_tokens=3, **GREEDY)
    assert torch.equal(second.sequences, expected.sequences)
    torch.testing.assert_close(torch.stack(second.logits), torch.stack(expected.logits[4:]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("order", ORDERS)
def test_prompt_lookup_gives_the_greedy_answer(model, order):
    inputs = make_inputs(ORDERS[order][:1])
    expected = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    found = model.generate(**inputs, max_new_tokens=12, do_sample=False, prompt_lookup_num_tokens=3)
    assert torch.equal(found, expected)


def test_embeddings_with_token_types_are_placed_as_their_tokens(model):
    inputs = make_inputs(TOKENS_FIRST)
    embeds = model.get_input_embeddings()(inputs["input_ids"]).detach()
    with torch.no_grad():
        expected = model(**inputs).logits
        found = model(inputs_embeds=embeds, **without(inputs, "input_ids")).logits
    assert torch.equal(found, expected)
    generated = model.generate(inputs_embeds=embeds, **without(inputs, "input_ids"), max_new_tokens=3, **GREEDY)
    torch.testing.assert_close(generated.logits[0], expected[:, -1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("given", [{}, {"labels": 1}, {"position_ids": 1}], ids=str)
def test_image_tokens_without_pages_are_refused(model, given):
    """As when a data collator keeps the tokens and loses the pages: the loss would fall all the same."""
    inputs = without(make_inputs(PAGES_FIRST), "pixel_values", "image_grid_thw")
    given = dict.fromkeys(given, inputs["input_ids"])
    with pytest.raises(
        ValueError, match=r"20 image tokens \(id 3\), but no pages came with it.*DataCollatorWithPacking"
    ):
        model(**inputs, **given)
    with pytest.raises(ValueError, match="no pages came with it"):
        model.generate(**inputs, max_new_tokens=1)


@pytest.mark.parametrize("family", ["glm4v", "glm_ocr"])
def test_image_features_are_those_of_the_family(family):
    config_class, model_class, towers = FAMILIES[family]
    reference = randomize(model_class(config_class(**tower_configs(towers))))
    reference.set_attn_implementation("eager")
    ours = make_model(towers)
    ours.load_state_dict(reference.state_dict())
    inputs = make_inputs([[(2, 3), (1, 2), (2, 3), (3, 2)]])  # pages of one size are not neighbours
    floats = ours.model.visual.patch_embed.normalize(inputs["pixel_values"])
    asked = {"output_hidden_states": True, "output_attentions": True, "return_dict": True}
    with torch.no_grad():
        expected = reference.get_image_features(floats, inputs["image_grid_thw"], **asked)
        found = ours.get_image_features(*pixels_of(inputs), **asked)
        plain = ours.get_image_features(*pixels_of(inputs))
    assert found.keys() == expected.keys()
    assert plain.keys() == {"last_hidden_state", "pooler_output"}
    flat = [[o.last_hidden_state, *o.pooler_output, *o.hidden_states, *o.attentions] for o in (found, expected)]
    for one, other in zip(*flat, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
