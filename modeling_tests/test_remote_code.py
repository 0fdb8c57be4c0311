# SPDX-License-Identifier: Apache-2.0
"""The modules that travel are complete, flat, and run where the package is not installed."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_checkpoints import save_source
from transformers import PreTrainedTokenizerFast

from transformers_hybridctx import HybridCtxConfig, HybridCtxForCausalLM, HybridCtxProcessor, RenderConfig
from transformers_hybridctx.conversion.convert import convert_checkpoint
from transformers_hybridctx.remote_code import travelling_code, write_remote_code

WITHOUT_PACKAGE = """
import sys
sys.modules["transformers_hybridctx"] = None  # not to be had
from transformers import AutoConfig, AutoImageProcessor, AutoModelForMultimodalLM, AutoProcessor, pipeline
folder, remote = sys.argv[1], {"trust_remote_code": True}
for auto_class, name in (
    (AutoConfig, "HybridCtxConfig"),
    (AutoImageProcessor, "HybridCtxImageProcessor"),
    (AutoProcessor, "HybridCtxProcessor"),
    (AutoModelForMultimodalLM, "HybridCtxForCausalLM"),
):
    found = type(auto_class.from_pretrained(folder, **remote))
    assert found.__name__ == name and found.__module__.startswith("transformers_modules."), found
pipe = pipeline("long-doc-qa", model=folder, **remote)
page = pipe.processor.read_document("The code is 4711. " * 20)
(item,) = [item for item in sys.modules[type(pipe).__module__].find_evidence(
    pipe.processor.plan(page, "What is the code?"), "4711", "What is the code?")][:1]
assert item["text"] == "4711" and item["page"] == 0
answer = pipe(question="What is the code?", document="The code is 4711.", max_new_tokens=2)
assert answer["usage"]["new_tokens"] == 2
"""


@pytest.fixture
def checkpoint(tmp_path: Path, tokenizer: PreTrainedTokenizerFast, render_config: dict[str, Any]) -> Path:
    save_source(tmp_path / "source", tokenizer)
    convert_checkpoint(str(tmp_path / "source"), tmp_path / "checkpoint", render_config=RenderConfig(**render_config))
    return tmp_path / "checkpoint"


def test_a_folder_works_where_the_package_is_not_installed(checkpoint: Path, tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITHOUT_PACKAGE, str(checkpoint)],
        env=env | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.parametrize("name", travelling_code())
def test_a_module_that_travels_imports_only_its_siblings_and_packages(name: str) -> None:
    siblings = {file.removesuffix(".py") for file in travelling_code()}
    for node in ast.walk(ast.parse(travelling_code()[name])):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1 and node.module in siblings, f"line {node.lineno}: from . import loses the file"
        names = [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        assert not any(str(name).startswith("transformers_hybridctx") for name in names), f"line {node.lineno}"


def test_what_needs_the_package_does_not_travel() -> None:
    names = travelling_code().keys()
    assert {"modeling_hybridctx.py", "processing_hybridctx.py", "pipeline_long_doc_qa.py"} <= names
    assert "rendering_fonts.py" in names
    assert not [name for name in names if name.startswith(("cli", "conversion", "training", "evaluation", "__init__"))]


def test_saved_again_it_names_no_code_until_it_is_pushed(checkpoint: Path, tmp_path: Path) -> None:
    """A config that names code which does not lie beside it would send its readers to somebody else's."""
    HybridCtxForCausalLM.from_pretrained(checkpoint).save_pretrained(tmp_path / "again")
    HybridCtxProcessor.from_pretrained(checkpoint).save_pretrained(tmp_path / "again")
    assert "auto_map" in (checkpoint / "config.json").read_text()
    for name in ("config.json", "processor_config.json"):
        text = (tmp_path / "again" / name).read_text()
        assert "auto_map" not in text and "custom_pipelines" not in text
    assert not hasattr(HybridCtxConfig.from_pretrained(checkpoint), "custom_pipelines")
    write_remote_code(tmp_path / "again")
    for name in ("config.json", "processor_config.json"):
        again, before = (json.loads((folder / name).read_text()) for folder in (tmp_path / "again", checkpoint))
        assert again["auto_map"] == before["auto_map"]
        assert again.get("custom_pipelines") == before.get("custom_pipelines")
