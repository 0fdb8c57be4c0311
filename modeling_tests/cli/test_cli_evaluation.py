# SPDX-License-Identifier: Apache-2.0
"""`hybridctx evaluate` and `hybridctx heads`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import refused, run
from transformers import Glm4vConfig


@pytest.fixture(scope="module")
def haystack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("prose") / "haystack.txt"
    file.write_text("It was the best of times, it was the worst of times. " * 40)
    return file


SMALL = ("--num-tokens", 120, "--examples", 1, "--task", "single_number", "--max-new-tokens", 2, "--budget-share", 2)


def test_a_text_file_is_a_haystack_and_the_table_goes_where_it_is_asked_for(
    checkpoint: Path, haystack: Path, tmp_path: Path
) -> None:
    contexts = ("--context", "pages", "--context", "hybrid", "--policy", "bm25", "--blank-pages")
    common = (haystack, "--model", checkpoint, *SMALL, *contexts)
    alone = run("evaluate", *common, "--out", tmp_path / "new" / "table.json")
    assert alone.exit_code == 0, alone.output
    figures = json.loads((tmp_path / "new" / "table.json").read_text())
    labels = ["pages", "pages, blank pages", "hybrid, bm25", "hybrid, bm25, blank pages"]
    assert [row["context"] for row in figures["rows"]] == labels
    for label in labels:
        assert label in alone.stdout
    named = run("evaluate", "needles", "--prose", *common, "--out", tmp_path / "run")
    assert named.exit_code == 0, named.output
    assert json.loads((tmp_path / "run" / "table.json").read_text())["tasks"] == ["single_number"]
    assert len((tmp_path / "run" / "records.jsonl").read_text().splitlines()) == 4
    assert (tmp_path / "run" / "table.md").read_text().startswith("| length | budget | context | single_number |")


def test_one_command_keeps_samples_writes_the_table_and_fills_the_card(
    checkpoint: Path, haystack: Path, tmp_path: Path
) -> None:
    card, folder, table = tmp_path / "card.md", tmp_path / "run", tmp_path / "table.json"
    card.write_text("---\nlicense: mit\n---\n\n# A model\n")
    common = ("evaluate", "needles-said", "--prose", haystack, "--model", checkpoint, *SMALL, "--context", "pages")
    given = (*common, "--grounding", "quote", "--quote-after", "</think>", "--out", folder, "--out", table)
    result = run(*given, "--card", card)
    assert result.exit_code == 0, result.output
    figures = json.loads(table.read_text())
    assert figures == json.loads((folder / "table.json").read_text())
    assert (figures["suite"], figures["metric"]) == ("needles-said", "string match")
    assert "| pages, held to quote |" in card.read_text() and "model-index" in card.read_text()
    lines = (folder / "records.jsonl").read_text().splitlines()
    more = run(*given, "--examples", 3)  # what is done stays done
    assert more.exit_code == 0, more.output
    assert (folder / "records.jsonl").read_text().splitlines()[: len(lines)] == lines
    assert json.loads(table.read_text())["rows"][0]["counts"] == {"single_number": 3}
    assert "holds another run: examples is 3 there and 1 here" in refused(*given)
    assert "are two folders" in refused(*given, "--out", tmp_path / "other")
    assert "--card nowhere.md: there is no such file" in refused(*common, "--card", "nowhere.md")


def test_a_run_in_which_nothing_was_answered_is_no_result(checkpoint: Path, haystack: Path, tmp_path: Path) -> None:
    given = (haystack, "--model", checkpoint, *SMALL[:-2], "--budget", 5, "--context", "pages")
    told = refused("evaluate", *given, "--out", tmp_path / "table.json")
    assert "nothing was measured, as every question failed" in told and "smallest" in told and "0.0%" not in told
    assert not (tmp_path / "table.json").exists()


def test_a_checkpoint_that_is_not_converted_is_answered_with_the_command_that_does_it(
    haystack: Path, tmp_path: Path
) -> None:
    Glm4vConfig().save_pretrained(tmp_path / "Glyph")
    message = refused("evaluate", haystack, "--model", tmp_path / "Glyph")
    assert f"hybridctx convert {tmp_path / 'Glyph'} ./glyph-hybridctx, then --model ./glyph-hybridctx" in message


def test_evaluate_says_what_is_wrong_in_one_line(checkpoint: Path, haystack: Path, tmp_path: Path) -> None:
    assert "unknown suite 'rular'" in refused("evaluate", "rular")
    assert "--lengths 4k is not a list of numbers" in refused("evaluate", haystack, "--lengths", "4k")
    assert "context 'page' is not one of" in refused("evaluate", haystack, "--context", "page")
    assert "needles has no task 'single'" in refused("evaluate", haystack, "--task", "single")
    assert "has no data" in refused("evaluate", haystack, "--data", tmp_path)
    none_asked = "which is not asked for"
    for option, value in (("--policy", "bm25"), ("--fusion-order", "tokens_first"), ("--latent-share", "0.5")):
        told = refused("evaluate", haystack, "--context", "truncated", option, value)
        assert told.startswith(f"{option} {value} is for --context ") and told.endswith(none_asked)
    told = refused("evaluate", haystack, "--context", "pages", "--quote-after", "</think>")
    assert told == f"--quote-after </think> is for --grounding quote, {none_asked}"
    for latents in (("--context", "latents"), ("--context", "pages", "--latent-share", "0.5")):
        told = refused("evaluate", haystack, "--model", checkpoint, *latents)
        assert told.endswith("are for checkpoints with a latent encoder: this has none")
    assert "give --prose FILE" in refused("evaluate", "ruler", "--model", checkpoint, "--task", "niah_single_2")


def test_heads_prints_and_writes_what_each_head_finds(checkpoint: Path, haystack: Path, tmp_path: Path) -> None:
    out = tmp_path / "heads.json"
    result = run("heads", haystack, "--model", checkpoint, "--num-tokens", 150, "--examples", 2, "--out", out)
    assert result.exit_code == 0, result.output
    found = json.loads(out.read_text())
    assert len(found["heads"]) == 8
    assert all(0 < head["mean_reciprocal_rank"] <= 1 for head in found["heads"])
    assert found["bm25"]["hit_at_4"] == 1
    for name in ("all heads", "bm25", "chance", "layer"):
        assert name in result.stdout
