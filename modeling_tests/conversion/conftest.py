# SPDX-License-Identifier: Apache-2.0
"""A source to convert."""

from pathlib import Path

import pytest
from tiny_checkpoints import save_source
from transformers import PreTrainedTokenizerFast


@pytest.fixture
def source(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A glm4v checkpoint in several shards."""
    save_source(tmp_path / "source", tokenizer)
    assert len(list((tmp_path / "source").glob("*.safetensors"))) > 2
    return tmp_path / "source"
