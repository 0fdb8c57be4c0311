# SPDX-License-Identifier: Apache-2.0
"""`import transformers_hybridctx` is light, and the Auto classes know HybridCtx in whatever order things are imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

CHECK = """
import transformers_hybridctx
from transformers import (
    AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMultimodalLM,
)
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.pipelines import PIPELINE_REGISTRY
from transformers_hybridctx import HybridCtxConfig, HybridCtxForCausalLM, HybridCtxModel

assert type(AutoConfig.for_model("hybridctx")) is HybridCtxConfig
assert AutoModel._model_mapping[HybridCtxConfig] is HybridCtxModel
for auto_class in (AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMultimodalLM):
    assert auto_class._model_mapping[HybridCtxConfig] is HybridCtxForCausalLM
assert HybridCtxConfig in IMAGE_PROCESSOR_MAPPING and HybridCtxConfig in PROCESSOR_MAPPING
assert "long-doc-qa" in PIPELINE_REGISTRY.supported_tasks
"""


def run(code: str) -> None:
    """In a process of its own; nothing is to go wrong, and no import to complain of it."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "[ERROR]" not in result.stdout + result.stderr


def test_the_console_script_starts_without_torch_and_transformers() -> None:
    run(
        "import os, sys; os.environ['HYBRIDCTX_LIGHT_START'] = '1'; import transformers_hybridctx.cli.app\n"
        "assert not {'torch', 'transformers', 'numpy'} & sys.modules.keys()"
    )


@pytest.mark.parametrize(
    "first",
    [
        "from transformers import pipeline",
        "import transformers_hybridctx.modeling_hybridctx",
        # what reads transformers' tables or loads more of it, after the package: one process for all of it
        "from transformers_hybridctx import *; import transformers_hybridctx.image_processing_hybridctx; "
        "from transformers import PreTrainedModel, Trainer",
    ],
)
def test_auto_classes_know_hybridctx_after(first: str) -> None:
    run(f"{first}\n{CHECK}")
