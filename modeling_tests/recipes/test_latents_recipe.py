# SPDX-License-Identifier: Apache-2.0
"""The recipe of latents: a few steps of it, what it leaves as it was, and what its report counts."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from recipes.hybridctx_tiny.batches import IGNORE
from recipes.hybridctx_tiny.corpus import load_prose
from recipes.hybridctx_tiny.pages import CHARACTERS, PageReader, ReadBatches
from recipes.hybridctx_tiny.reference import VISUAL_TOKEN
from recipes.hybridctx_tiny.tasks import TaskMixture
from recipes.latents.answers import WHOLE, LatentAnswers
from recipes.latents.cells import CellTargets
from recipes.latents.long_document import long_document
from recipes.latents.lookup import codes_of, encoder_fields, hidden_of_windows, queries, set_lookups, windows_of
from recipes.latents.models import METHODS, Method, load, with_encoder
from recipes.latents.questions import BEFORE, FieldsOfCountries, LatentsOfAnother, questions
from recipes.latents.reading import ReadingHeads, load_heads, read
from recipes.latents.report import is_loop, report
from recipes.latents.training import REPEAT, inputs_of, perplexity, train, windows
from recipes.latents.ways import MeanPooled
from transformers_hybridctx import HybridCtxForCausalLM, HybridCtxProcessor
from transformers_hybridctx.bundled_checkpoint import BUNDLED_CHECKPOINT

PROSE = "It was the best of times, it was the worst of times; the number of room 7 is 4821930, said Mr. Lorry. "
FIELD_LINES = "".join(f"Chad - {field}: {number} km\n" for number, field in enumerate(("Coastline", "Area", "Roads")))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for name in ("austen_emma", "austen_persuasion"):
        (folder / f"{name}.txt").write_text(PROSE * 40, encoding="utf-8")
    for country in ("chad", "chile", "china", "cuba", "cyprus", "norway"):  # the last is held out
        text = f"{country}: Geography\n{FIELD_LINES.replace('Chad', country)}\n\n" * 30
        (folder / f"factbook_{country}.txt").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def read_folder(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("read")
    sizes: dict[str, Any] = {"num_latents": (4, 6), "stretch": 4, "layers": 2, "cells_per_batch": 48}
    found = read(BUNDLED_CHECKPOINT, corpus, folder, **sizes, minutes=5, max_steps=3)
    assert found["steps"] == 3 and 0 <= found["held_out_4"] <= 1 and found["lacking_6"] > 0
    return folder / "latents-4"


@pytest.fixture(scope="module")
def folders(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Method, Path]:
    trained = {method: tmp_path_factory.mktemp(method) for method in METHODS}
    for method, folder in trained.items():
        found = train(
            BUNDLED_CHECKPOINT,
            corpus,
            folder,
            method=method,
            num_latents=4,
            chunk_tokens=16,
            layers=2,
            steps=4,
            batch_size=2,
            tasks={"repeat": 0.7, "go on": 0.3},
        )
        assert found["steps"] == 4
    return trained


@pytest.mark.parametrize("method", METHODS)
def test_a_model_with_what_makes_latents_still_says_what_it_said(method: Method) -> None:
    model, processor = with_encoder(BUNDLED_CHECKPOINT, method, num_latents=4, layers=2, chunk_tokens=32)
    plain = HybridCtxForCausalLM.from_pretrained(BUNDLED_CHECKPOINT)
    ids = torch.tensor([processor.encoder([PROSE])[0]])
    with torch.no_grad():
        found, expected = (one.eval()(input_ids=ids).logits for one in (model, plain))
    assert torch.equal(found[..., : expected.shape[-1]], expected)
    assert processor.latent_token_id == expected.shape[-1] == model.config.latent_token_id


def test_mean_pooling_is_the_mean_of_stretches() -> None:
    model, processor = with_encoder(BUNDLED_CHECKPOINT, "mean", num_latents=4, layers=2, chunk_tokens=32)
    chunk = torch.tensor(processor.encoder([PROSE])[0][:12])
    with torch.no_grad():
        (latents,) = model.get_latent_features(chunk[None]).pooler_output
        expected = model.get_input_embeddings()(chunk).unflatten(0, (4, 3)).mean(1)
    torch.testing.assert_close(latents, expected)


def test_training_moves_the_encoder_more_than_the_decoder_and_is_saved(folders: dict[Method, Path]) -> None:
    plain = HybridCtxForCausalLM.from_pretrained(BUNDLED_CHECKPOINT).state_dict()
    for method, folder in folders.items():
        model, processor, found = load(folder)
        assert found == method and processor.latents is not None and processor.latents.num_latent_tokens == 4
        moved = {name: value for name, value in model.state_dict().items() if name in plain and "embed" not in name}
        largest = {
            kind: max(float((value - plain[name]).abs().max()) for name, value in moved.items() if kind in name)
            for kind in ("visual", "language_model")
        }
        assert largest["visual"] == 0 < largest["language_model"] < 1e-3
        chunk = processor.encoder([PROSE])[0][:8]
        inputs = inputs_of(processor, [chunk], REPEAT, [chunk])
        assert (inputs["labels"][0] != -100).sum() == 8
        with torch.no_grad():
            assert model(**inputs).loss.isfinite()


def test_each_latent_is_read_as_its_own_stretch_counted_from_the_end() -> None:
    # in double precision: products of other shapes may round in another order
    heads, embeddings = ReadingHeads(3, 8).double(), torch.randn(20, 8).double()
    latents = torch.randn(1, 4, 8).double()
    whole = heads(latents, embeddings, 12)
    assert whole.shape == (1, 12, 20)
    torch.testing.assert_close(heads(latents, embeddings, 7), whole[:, -7:], rtol=1e-12, atol=1e-12)
    changed = latents.clone()
    changed[:, 2] += 1
    differs = (heads(changed, embeddings, 12) != whole).any(-1)[0]
    assert differs.tolist() == [False] * 6 + [True] * 3 + [False] * 3


def test_a_latent_of_one_token_is_read_as_it_is() -> None:
    heads, embeddings = ReadingHeads(1, 8), torch.randn(20, 8)
    assert (heads(embeddings[None, 3:9], embeddings, 6).argmax(-1) == torch.arange(3, 9)).float().mean() > 0.8
    assert not any(weight.requires_grad for weight in heads.parameters())


def test_heads_find_the_tokens_of_each_latent_s_stretch_as_training_takes_them_to() -> None:
    latents, stretch = 12, 4
    model, processor = with_encoder(BUNDLED_CHECKPOINT, "latents", latents, 2, latents * stretch, encoder_fields)
    latent, vocabulary = model.eval().model.latent, len(processor.tokenizer)
    generator = torch.Generator().manual_seed(0)
    set_lookups(latent.encoder, torch.randn(vocabulary, 42, generator=generator))
    latent.queries = queries(latent.encoder, latents, stretch)
    for length, first in ((latents * stretch, 0), (37, 3)):  # the first latents of a short text have none
        chunk = torch.randint(20, 4000, (length,), generator=generator)
        windows = windows_of([chunk.tolist()], latents, stretch, vocabulary)
        assert windows[0, -2, :6].tolist() == chunk[-9:-3].tolist() and windows[0, -1, -1] == vocabulary
        with torch.no_grad():
            found = latent([chunk])[0]
            expected = latent.projection(hidden_of_windows(latent.encoder, windows, latent.queries.weight[None]))[0]
        torch.testing.assert_close(found[first:], expected[first:], rtol=0, atol=0.01)


def test_a_number_s_digits_are_put_in_line_wherever_in_a_stretch_it_begins() -> None:
    model, processor = with_encoder(BUNDLED_CHECKPOINT, "latents", 8, 1, 32, encoder_fields)
    encoder, vocabulary = model.model.latent.encoder, len(processor.tokenizer)
    codes = codes_of([processor.tokenizer.decode([token]) for token in range(vocabulary)], torch.ones(vocabulary))
    set_lookups(encoder, codes)
    written: list[torch.Tensor] = []
    encoder.layers[0].mlp.register_forward_hook(
        lambda module, args, output: written.append(output[:, 11 * 42 :][:, :63])
    )
    (number,) = processor.encoder(["4821930"])
    filler, blank = processor.encoder(["and", " "])
    chunks = [[*filler * (3 + shift), *blank, *number, *filler * 24][:32] for shift in range(4)]
    windows = torch.cat([windows_of([chunk], 8, 4, vocabulary)[0, 1:2] for chunk in chunks])
    with torch.no_grad():
        hidden_of_windows(encoder, windows, queries(encoder, 4, 4).weight)
    found = nn.functional.normalize(written[0].unflatten(1, (7, 9)), dim=-1)
    digits = nn.functional.normalize(codes[number, :9], dim=-1)
    assert ((found * digits).sum(-1) > 0.95).all()


def test_a_stopped_training_goes_on_as_if_it_had_not_been(corpus: Path, read_folder: Path, tmp_path: Path) -> None:
    # read_folder took three steps in one run
    run = partial(
        read, BUNDLED_CHECKPOINT, corpus, tmp_path, num_latents=(4, 6), layers=2, cells_per_batch=48, minutes=5
    )
    assert run(max_steps=1)["steps"] == 1 and run(max_steps=3)["steps"] == 3
    whole, stopped = (load(folder)[0].state_dict() for folder in (read_folder, tmp_path / "latents-4"))
    assert all(torch.equal(value, whole[name]) for name, value in stopped.items())
    assert torch.equal(load_heads(read_folder).map.weight, load_heads(tmp_path / "latents-4").map.weight)
    with pytest.raises(ValueError, match=r"with seed=0, not 1: name another folder"):
        run(seed=1)


def test_one_training_serves_any_number_of_latents(read_folder: Path) -> None:
    few, many = (load(read_folder.with_name(f"latents-{count}"))[0].model.latent for count in (4, 6))
    assert torch.equal(few.projection.weight, many.projection.weight)
    assert torch.equal(few.queries.weight, queries(few.encoder, 4, 4).weight) and len(many.queries.weight) == 6


def test_tokens_that_are_spelled_alike_have_codes_that_are_alike() -> None:
    tokenizer = HybridCtxProcessor.from_pretrained(BUNDLED_CHECKPOINT).tokenizer
    pieces = [tokenizer.decode([token]) for token in range(0, 4096, 8)]
    counts = torch.tensor([1, 1, 1, 100, 100] + [1] * len(pieces)).float()
    codes = codes_of([" the", " tho", " zebra", "4", "5", *pieces], counts)
    distance = torch.cdist(codes, codes)
    assert codes.shape == (len(pieces) + 5, 42) and distance[0, 1] < distance[0, 2] and distance[3, 4] > 0.1


def test_a_latent_is_to_be_the_cell_that_begins_in_its_stretch() -> None:
    processor = HybridCtxProcessor.from_pretrained(BUNDLED_CHECKPOINT)
    model = HybridCtxForCausalLM.from_pretrained(BUNDLED_CHECKPOINT).eval()
    targets = CellTargets(model, processor, 4)
    (chunk,) = processor.encoder(["Mr. Lorry said that the number of room is 4821930, and left."])
    texts = targets.texts(chunk, 8)
    blank = 8 - -(-len(chunk) // 4)
    assert texts[: blank + 1] == [""] * blank + ["Mr. Lorry said t"] and texts[-1] == "and left."
    (number,) = [latent for latent, text in enumerate(texts) if text.startswith("4821930")]
    assert not any(text.startswith(tuple("0123456789")) for latent, text in enumerate(texts) if latent != number)
    for shown, text in zip(targets.cells(texts[blank:]), texts[blank:], strict=True):
        assert np.array_equal(shown, PageReader(processor.tokenizer).draw(text).pages[0][:VISUAL_TOKEN])
    found = targets([chunk, chunk[:20]], 8)
    assert found.shape == (2, 8, 256) and found.isfinite().all() and not found.requires_grad


def test_reading_leaves_the_decoder_as_it_was_and_the_size_of_pages_to_latents(read_folder: Path) -> None:
    plain = HybridCtxForCausalLM.from_pretrained(BUNDLED_CHECKPOINT).state_dict()
    model, processor, method = load(read_folder)
    assert method == "latents" and processor.latents is not None and processor.latents.chunk_tokens == 16
    kept = {
        name: value for name, value in model.state_dict().items() if name in plain and value.shape == plain[name].shape
    }
    assert kept and all(torch.equal(value, plain[name]) for name, value in kept.items())
    (chunk,) = processor.encoder([PROSE])
    with torch.no_grad():
        latents = model.model.latent([torch.tensor(chunk[:12])])
    assert 0.4 < float(latents.pow(2).mean().sqrt()) < 1.2
    assert load_heads(read_folder).map.weight.shape == (4 * 256, 256)


def test_documents_in_latents_are_asked_about_as_the_processor_writes_it(corpus: Path, read_folder: Path) -> None:
    _, processor, _ = load(read_folder)
    made = LatentAnswers(processor, load_prose(corpus, held_out=False), num_chars=(60, 300), tokens_per_batch=600)
    document = TaskMixture(load_prose(corpus, held_out=False)).draw(Random(3), 300, 2)
    question = document.questions[0].text
    ids, labels, plan = made.row(document, [])
    prompt = processor(document=document.text, question=question, budget=WHOLE, text_policy="none")["input_ids"][0]
    assert ids[: len(prompt)] == prompt and set(labels[: len(prompt)]) == {IGNORE}
    assert ids.count(processor.latent_token_id) == 4 * len(plan.latents)
    assert plan.latents[-1].end == len(document.text) and len(ids) == len(labels)
    batch = made.draw(Random(0))
    assert batch["weights"].shape == batch["labels"].shape == batch["input_ids"].shape
    count = int((batch["input_ids"] == processor.latent_token_id).sum())
    assert count == 4 * len(batch["latent_input_ids"]) > 0
    model, _, _ = load(read_folder)
    with torch.no_grad():
        del batch["weights"]
        assert model(**batch).loss.isfinite()


def test_training_goes_on_with_an_encoder_that_reads(corpus: Path, read_folder: Path, tmp_path: Path) -> None:
    tasks = {"answer": 0.5, "keep": 0.5}
    found = train(read_folder, corpus, tmp_path, steps=3, tasks=tasks, seed=1)
    assert found["steps"] == 3 and set(tasks) & set(found)
    model, processor, _ = load(tmp_path)
    assert model.config.num_latent_tokens == 4 and processor.latents == load(read_folder)[1].latents


def test_a_decoder_without_a_rate_stays_as_it_is_and_a_stopped_training_goes_on(
    corpus: Path, read_folder: Path, tmp_path: Path
) -> None:
    run = partial(train, read_folder, corpus, tasks={"answer": 0.7, "keep": 0.3}, decoder_rate=0, seed=1)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    # the rate falls over the last two fifths of the steps, so that it is the same for the first two of two and of three
    found = run(whole, steps=3)
    assert found["steps"] == 3 and set(found) == {"steps", "minutes", "answer"}, "nothing has to be kept"
    assert run(stopped, steps=2)["steps"] == 2 and run(stopped, steps=3)["steps"] == 3
    weights, again, before = (load(folder)[0].state_dict() for folder in (whole, stopped, read_folder))
    assert all(torch.equal(value, weights[name]) for name, value in again.items())
    moved = {name for name, value in weights.items() if not torch.equal(value, before[name])}
    assert moved and all(name.startswith("model.latent.") for name in moved), "encoder and map alone"
    assert not any("self_attn" in name or "queries" in name for name in moved), "what was set stays"
    with pytest.raises(ValueError, match=r"with decoder_rate=0, not 0.5: name another folder"):
        run(stopped, decoder_rate=0.5)
    with pytest.raises(ValueError, match="no task to train on with decoder_rate=0"):
        run(tmp_path / "none", tasks={"keep": 1.0})


def test_a_long_document_is_asked_about_through_all_channels(read_folder: Path) -> None:
    text = PROSE * 60
    sizes = {"chunks": 20, "max_context_tokens": 2000, "text_tokens": 200, "chunk_tokens": 17}
    found = long_document(read_folder, text, "What is the number of room 7?", **sizes)
    assert found["planned"] == found["prompt"] <= 2000 and found["latents"] == 80 and found["chunks"] == 20
    assert found["visual"] > 0 < found["copied"] <= 200 and found["omitted_characters"] == 0
    assert found["characters"] == len(text) and isinstance(found["answer"], str)


def test_questions_are_asked_of_all_channels_at_one_budget(corpus: Path, read_folder: Path) -> None:
    sizes: dict[str, Any] = {"tasks": ("single_number", "fields"), "length": 200, "examples": 1, "budget_share": 1.0}
    found = questions([read_folder], BUNDLED_CHECKPOINT, corpus, **sizes)
    rows = {(row["checkpoint"], row["context"]): row for row in found["rows"]}
    alone, together = (
        ("truncated", "bm25-only", "pages", "hybrid, bm25"),
        ("bm25-only", "pages", "hybrid, bm25"),
    )
    latents = ("latents", *(f"a chunk of latents and {name}" for name in together))
    assert set(rows) == {
        *((BEFORE, name) for name in alone),
        *((read_folder.name, name) for name in latents),
        (f"{read_folder.name}, another text's", "latents"),
    }
    for (_, context), row in rows.items():
        assert set(row["scores"]) == set(found["tasks"]) == {"single_number", "fields"}
        assert set(row["counts"].values()) == {1} and 0 <= row["cut_off"] <= 1
        assert max(row["prompt_tokens"]) <= 200
        assert all((count > 0) == ("latents" in context) for count in row["latent_tokens"])
    own, another = (rows[name, "latents"] for name in (read_folder.name, f"{read_folder.name}, another text's"))
    assert own["prompt_tokens"] == another["prompt_tokens"], "they cost the same"
    sizes["tasks"] = ("single_number",)
    (row,) = questions([read_folder], BUNDLED_CHECKPOINT, corpus, **sizes, channels=False)["rows"]
    assert row["scores"] == {"single_number": own["scores"]["single_number"]} and len(row["prompt_tokens"]) == 1


def test_latents_of_another_text_are_what_the_encoder_makes_of_it(read_folder: Path) -> None:
    model, processor, _ = load(read_folder)
    other, chunk = (processor.encoder([text])[0][:16] for text in (PROSE[::-1], PROSE))
    given = LatentsOfAnother(model.model.latent, other)
    with torch.no_grad():
        assert torch.equal(given([torch.tensor(chunk[:9])]), model.model.latent([torch.tensor(other[:9])]))


def test_fields_are_asked_of_a_held_out_country(corpus: Path) -> None:
    tokenizer = HybridCtxProcessor.from_pretrained(BUNDLED_CHECKPOINT).tokenizer
    for sample in FieldsOfCountries(examples=3, corpus=corpus, length=60).samples(tokenizer):
        assert len(tokenizer(sample.context).input_ids) <= 60 and "norway" in sample.question
        assert sample.context.count(sample.answer[0]) == 1
        suite = FieldsOfCountries(corpus=corpus)
        assert suite.score(sample, f" {sample.answer[0]}.") == 1 and suite.score(sample, "7 km") == 0


def test_windows_are_stretches_of_texts() -> None:
    texts = [list(range(100)), list(range(200, 215))]
    drawn = windows(texts, (5, 9), Random(0), both=True)
    for _ in range(50):
        chunk, after = next(drawn)
        assert 5 <= len(chunk) == len(after) <= 9
        assert [*chunk, *after] == list(range(chunk[0], chunk[0] + 2 * len(chunk)))


def test_the_report_has_all_ways_side_by_side(
    corpus: Path, folders: dict[Method, Path], read_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 10,000 tokens for each model would take most of the time
    monkeypatch.setattr("recipes.latents.report.perplexity", partial(perplexity, length=16, examples=2))
    monkeypatch.setattr("recipes.latents.ways._CELLS_DRAWN", 64)
    sizes: dict[str, Any] = {"bins": (4, 12, 20), "examples": 2, "cells": ((8, 2), (12, 3)), "steps": 2, "said": 12}
    found = report([*folders.values(), read_folder], BUNDLED_CHECKPOINT, corpus, **sizes)
    rows: dict[tuple[str, str, int], dict[str, Any]] = {
        (row["way"], row["kind"], row["to_tokens"]): row for row in found["rows"]
    }
    drawn = {"pages, 8 x 2, read off", "pages, 12 x 3, read off"}
    always = {*METHODS, *drawn, "latents, read off", "mean pooling, read off", "truncation"}
    said = {"latents, said", "pages, said"}
    assert {way for way, _, most in rows if most == 12} == always | said
    assert {way for way, _, most in rows if most == 20} == always, "the decoder is asked of short texts only"
    for (way, _, most), row in rows.items():
        low, high = row["interval"]
        assert 0 <= low <= row["precision"] <= high <= 1 and 0 <= row["edit_distance"] <= 1
        assert row["decoder_tokens"] == 4 and row["examples"] == 2 and 0 <= row["loops"] <= 1
        assert (row["by_part"] is None) == (way == "pages, said")
        if way == "truncation":
            assert row["exact"] == 0 and row["by_part"][-1] == 0 < row["by_part"][0]
        if way in ("latents, read off", "mean pooling, read off") and most == 20:
            assert row["by_part"][-1] < 1, "of 20 tokens, four latents hold 16"
    assert set(found["perplexity"]) == {"before", *(folder.name for folder in (*folders.values(), read_folder))}


def test_means_are_of_stretches_counted_from_the_end_and_short_ones_are_the_text() -> None:
    model = HybridCtxForCausalLM.from_pretrained(BUNDLED_CHECKPOINT)
    processor = HybridCtxProcessor.from_pretrained(BUNDLED_CHECKPOINT)
    source = ReadBatches(processor.tokenizer, {"austen": PROSE * 40, "factbook_chad": FIELD_LINES}, steps=0)
    way = MeanPooled(model, processor, source, stretch=2, steps=1).way(8)
    (chunk,) = processor.encoder([PROSE])
    assert way.repeat(chunk[:8]) == processor.tokenizer.decode(chunk[:8]) and way.right is not None
    assert way.right(chunk[:20])[16:].tolist() == [False] * 4, "there is room for sixteen"


def test_characters_are_where_the_cells_of_pages_show_them() -> None:
    processor = HybridCtxProcessor.from_pretrained(BUNDLED_CHECKPOINT)
    for cell in ((8, 2), (12, 3)):
        reader = PageReader(processor.tokenizer, cell)
        drawn = reader.draw(PROSE)
        places = reader.places(drawn)
        assert places.shape == (sum(reader.tokens(drawn)), cell[0] * cell[1])
        (seen,) = np.nonzero(np.bincount(places[places >= 0]))
        assert {PROSE[index] for index in range(len(PROSE)) if index not in seen} <= {" "}
        shown = reader.characters(drawn).numpy()
        assert "".join(CHARACTERS[index] for index in shown[places >= 0]) == "".join(
            PROSE[i] for i in places[places >= 0]
        )


def test_what_says_the_same_three_words_three_times_loops() -> None:
    assert is_loop("and so on and so on and so on") and not is_loop("and so on and so on, and so forth")
    assert not is_loop("") and not is_loop("the the the")


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no method\.txt"):
        load(tmp_path)
