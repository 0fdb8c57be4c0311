# SPDX-License-Identifier: Apache-2.0
"""Processors saved and loaded, with their fonts."""

from __future__ import annotations

import json
import pathlib
import shutil
from typing import Any

import pytest
import torch
from prompt_samples import DOCUMENT, QUESTION
from transformers import AutoProcessor, PreTrainedTokenizerFast

from transformers_hybridctx import (
    ContextBudget,
    HybridCtxConfig,
    HybridCtxImageProcessor,
    HybridCtxProcessor,
    RenderConfig,
)
from transformers_hybridctx.rendering.settings import BUNDLED_SANS


@pytest.fixture
def saved(tmp_path: pathlib.Path, processor: HybridCtxProcessor) -> pathlib.Path:
    folder = tmp_path / "checkpoint"
    processor.save_pretrained(folder)
    HybridCtxConfig().save_pretrained(folder)
    return folder


def test_a_saved_processor_draws_the_same_pages_with_its_own_fonts(
    saved: pathlib.Path, processor: HybridCtxProcessor
) -> None:
    loaded = AutoProcessor.from_pretrained(saved)
    assert isinstance(loaded, HybridCtxProcessor)
    assert loaded.render_config.font_path == str(saved / "fonts" / "DejaVuSansMono.ttf")
    assert (saved / "fonts" / "LICENSE-DejaVu.txt").exists()
    ours, theirs = (one(document=DOCUMENT, question=QUESTION, return_tensors="pt") for one in (processor, loaded))
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def test_every_setting_comes_back_and_no_path_of_this_machine_is_written(
    tmp_path: pathlib.Path,
    tokenizer: PreTrainedTokenizerFast,
    image_processor: HybridCtxImageProcessor,
    render_config: dict[str, Any],
) -> None:
    font = tmp_path / "somewhere" / "Mine.ttf"
    font.parent.mkdir()
    shutil.copy(BUNDLED_SANS, font)
    config = RenderConfig(**{**render_config, "font_path": str(font), "newline_markup": "¶"})
    one = HybridCtxProcessor(
        image_processor,
        tokenizer,
        render_config=config,
        default_budget=ContextBudget(max_text_tokens=77),
        default_text_policy={"name": "bm25", "top_k": 2},
        fusion_order="tokens_first",
    )
    one.save_pretrained(tmp_path / "saved")
    written = (tmp_path / "saved" / "processor_config.json").read_text()
    assert str(tmp_path) not in written
    assert json.loads(written)["render_config"]["font_path"] == "fonts/Mine.ttf"
    one_as_written = one.to_dict()
    (tmp_path / "saved").rename(tmp_path / "moved")
    shutil.rmtree(font.parent)
    two = HybridCtxProcessor.from_pretrained(tmp_path / "moved")
    assert two.to_dict() == one_as_written
    assert two.default_budget == {"max_text_tokens": 77}
    assert two.default_text_policy == {"name": "bm25", "top_k": 2}
    assert two.fusion_order == "tokens_first"
    # Again, into the folder that it was loaded from.
    two.save_pretrained(tmp_path / "moved")
    assert (tmp_path / "moved" / "processor_config.json").read_text() == written


def test_a_missing_font_is_an_error_that_says_so(saved: pathlib.Path) -> None:
    (saved / "fonts" / "DejaVuSansMono.ttf").unlink()
    with pytest.raises(FileNotFoundError, match=r"fonts/DejaVuSansMono.ttf.*missing"):
        HybridCtxProcessor.from_pretrained(saved)


def test_a_changed_font_is_an_error_that_says_so(saved: pathlib.Path) -> None:
    font = saved / "fonts" / "DejaVuSansMono.ttf"
    font.write_bytes(font.read_bytes() + b"\0")
    with pytest.raises(ValueError, match=r"fonts/DejaVuSansMono.ttf.*sha256"):
        HybridCtxProcessor.from_pretrained(saved)


@pytest.mark.parametrize("name", ["/etc/hostname", "../Mine.ttf", "fonts/../../Mine.ttf"])
def test_a_checkpoint_cannot_name_fonts_outside_itself(saved: pathlib.Path, name: str) -> None:
    path = saved / "processor_config.json"
    values = json.loads(path.read_text())
    values["render_config"]["font_path"] = name
    values["font_sha256"][name] = "0" * 64
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="not a font of the checkpoint"):
        HybridCtxProcessor.from_pretrained(saved)


def test_fonts_come_from_the_hub_cache(
    saved: pathlib.Path, tmp_path: pathlib.Path, processor: HybridCtxProcessor
) -> None:
    """A repository in the cache, as huggingface_hub lays it out, is loaded without a network."""
    snapshot = tmp_path / "hub" / "models--someone--tiny" / "snapshots" / ("a" * 40)
    shutil.copytree(saved, snapshot)
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("a" * 40)
    loaded = HybridCtxProcessor.from_pretrained("someone/tiny", cache_dir=tmp_path / "hub", local_files_only=True)
    assert loaded.render_config.font_path == str(snapshot / "fonts" / "DejaVuSansMono.ttf")
    assert loaded.plan(DOCUMENT, QUESTION) == processor.plan(DOCUMENT, QUESTION)
