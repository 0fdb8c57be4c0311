# SPDX-License-Identifier: Apache-2.0
"""The recipe of latents: a few steps of it, what it leaves as it was, and what its report counts."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from recipes.latents.models import METHODS, Method, load, with_encoder
from recipes.latents.report import report
from recipes.latents.training import REPEAT, inputs_of, train, windows
from transformers_hybridctx import HybridCtxForCausalLM
from transformers_hybridctx.bundled_checkpoint import BUNDLED_CHECKPOINT

PROSE = "It was the best of times, it was the worst of times; the number of room 7 is 4821930, said Mr. Lorry. "


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for name in ("austen_emma", "austen_persuasion"):
        (folder / f"{name}.txt").write_text(PROSE * 40, encoding="utf-8")
    return folder


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
            layers=2,
            steps=4,
            batch_size=2,
            lengths=(8, 12),
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


def test_windows_are_stretches_of_texts() -> None:
    texts = [list(range(100)), list(range(200, 215))]
    drawn = windows(texts, (5, 9), Random(0), both=True)
    for _ in range(50):
        chunk, after = next(drawn)
        assert 5 <= len(chunk) == len(after) <= 9
        assert [*chunk, *after] == list(range(chunk[0], chunk[0] + 2 * len(chunk)))


def test_the_report_has_all_ways_side_by_side(corpus: Path, folders: dict[Method, Path]) -> None:
    found = report(list(folders.values()), BUNDLED_CHECKPOINT, corpus, bins=(4, 8, 12), examples=2)
    rows: dict[tuple[str, str, int], dict[str, Any]] = {
        (row["way"], row["kind"], row["to_tokens"]): row for row in found["rows"]
    }
    ways = {way for way, _, _ in rows}
    assert ways == {"latents", "mean", "truncation", "pages, scale 1"}
    assert len(rows) == len(found["rows"]) == len(ways) * 2 * 2
    for (way, kind, _), row in rows.items():
        assert 0 <= row["precision"] <= 1 and 0 <= row["edit_distance"] <= 1
        assert (row["by_part"] is None) == (way not in METHODS)
        if way == "truncation":
            assert row["decoder_tokens"] == 4 and row["exact"] == 0 and row["recall"] < 1
            assert row["precision"] > 0.5 or kind == "random"  # whose only word is cut
    assert set(found["perplexity"]) == {"before", *map(str, folders.values())}


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no method\.txt"):
        load(tmp_path)
