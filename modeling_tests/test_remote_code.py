# SPDX-License-Identifier: Apache-2.0
"""The modules that travel are complete, flat, and run where the package is not installed."""

from __future__ import annotations

import ast
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from tiny_checkpoints import edit_json, save_source
from transformers import AutoModel, AutoProcessor, PreTrainedTokenizerFast, pipeline
from transformers.dynamic_module_utils import get_relative_imports

from transformers_hybridctx import (
    HybridCtxConfig,
    HybridCtxForCausalLM,
    HybridCtxModel,
    HybridCtxProcessor,
    LongDocQAPipeline,
    RenderConfig,
    remote_code,
)
from transformers_hybridctx.conversion.convert import convert_checkpoint
from transformers_hybridctx.modules.loading import loaded_with
from transformers_hybridctx.remote_code import flattened, travelling_code, write_remote_code

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
(item,) = [item for item in sys.modules[type(pipe).__module__.replace("pipeline_long_doc_qa", "grounding_evidence")]
    .find_evidence(pipe.processor.plan(page, "What is the code?"), "4711", "What is the code?")][:1]
assert item["text"] == "4711" and item["page"] == 0
answer = pipe(question="What is the code?", document="The code is 4711.", max_new_tokens=2)
assert answer["usage"]["new_tokens"] == 2
whole = {"begin": None, "end": None}
answer = pipe(question="What is the code?", document="The code is 4711.", max_new_tokens=9, grounding=whole)
assert answer["quotations"][0]["text"] in "The code is 4711."
"""


SAVED_AGAIN = """
import sys
sys.modules["transformers_hybridctx"] = None  # not to be had
from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline
folder, target, remote = sys.argv[1], sys.argv[2], {"trust_remote_code": True}
ask = {"question": "What is the code?", "document": "The code is 4711.", "max_new_tokens": 2}
pipe = pipeline("long-doc-qa", model=folder, **remote)
expected = pipe(**ask)["answer"]
pipe.save_pretrained(target + "/pipe")
AutoModelForImageTextToText.from_pretrained(folder, **remote).save_pretrained(target + "/parts")
AutoProcessor.from_pretrained(folder, **remote).save_pretrained(target + "/parts")
for again in ("pipe", "parts"):
    assert type(AutoProcessor.from_pretrained(f"{target}/{again}", **remote)).__name__ == "HybridCtxProcessor"
    assert pipeline("long-doc-qa", model=f"{target}/{again}", **remote)(**ask)["answer"] == expected
"""

LACKS_PACKAGES = """
import importlib.abc, os, sys
sys.modules["transformers_hybridctx"] = None  # not to be had
from transformers import AutoConfig, AutoProcessor
from transformers.utils import HF_MODULES_CACHE

class Lacking(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in ("uharfbuzz", "pypdfium2"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

lacking = Lacking()
sys.meta_path.insert(0, lacking)
for auto_class in (AutoConfig, AutoProcessor):
    try:
        auto_class.from_pretrained(sys.argv[1], trust_remote_code=True)
    except ImportError as error:
        assert "pypdfium2, uharfbuzz" in str(error), error
    else:
        raise AssertionError("two packages are missing")
assert not [name for _, _, names in os.walk(HF_MODULES_CACHE) for name in names if name != "__init__.py"]
sys.meta_path.remove(lacking)  # as if they had been installed
assert type(AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)).__name__ == "HybridCtxProcessor"
"""


@pytest.fixture(scope="module")
def checkpoint(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast, render_config: dict[str, Any]
) -> Path:
    folder = tmp_path_factory.mktemp("remote_code")
    save_source(folder / "source", tokenizer)
    convert_checkpoint(str(folder / "source"), folder / "checkpoint", render_config=RenderConfig(**render_config))
    return folder / "checkpoint"


def run(script: str, folder: Path, *arguments: str | Path) -> None:
    """Run a script in a fresh process with an empty cache; what it raises fails the test."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, *map(str, arguments)],
        env=env | {"HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]


def test_a_folder_works_where_the_package_is_not_installed(checkpoint: Path, tmp_path: Path) -> None:
    run(WITHOUT_PACKAGE, tmp_path, checkpoint)


def test_what_is_saved_where_the_package_is_not_installed_is_whole(checkpoint: Path, tmp_path: Path) -> None:
    run(SAVED_AGAIN, tmp_path, checkpoint, tmp_path)
    for name in ("pipe", "parts"):
        files = {path.name: path.read_text() for path in (tmp_path / name).glob("*.py")}
        assert files == travelling_code()


def test_one_message_names_all_packages_that_are_missing_before_anything_is_copied(
    checkpoint: Path, tmp_path: Path
) -> None:
    run(LACKS_PACKAGES, tmp_path, checkpoint)


def as_pushed_from_flat_modules(checkpoint: Path, folder: Path) -> Path:
    """The folder as it was written when the package's modules stood flat, and had other names."""
    shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns("*.py"))
    code = "raise AssertionError('with the package, nothing of a repository is run')"
    for name in ("configuration", "image_processing", "modeling", "processing"):
        (folder / f"{name}_hybridctx.py").write_text(code)
    for name in ("pipeline_long_doc_qa", "loading", "vision_tower", "fonts", "frames", "document_files"):
        (folder / f"{name}.py").write_text(code)
    model = "modeling_hybridctx.HybridCtxForCausalLM"
    auto_map = {
        "AutoConfig": "configuration_hybridctx.HybridCtxConfig",
        "AutoModel": "modeling_hybridctx.HybridCtxModel",
        "AutoModelForCausalLM": model,
        "AutoModelForImageTextToText": model,
        "AutoModelForMultimodalLM": model,
    }
    impl = {"impl": "pipeline_long_doc_qa.LongDocQAPipeline", "pt": ["AutoModelForImageTextToText"]}
    edit_json(
        folder / "config.json", auto_map=auto_map, custom_pipelines={"long-doc-qa": {**impl, "type": "multimodal"}}
    )
    values = json.loads((folder / "processor_config.json").read_text())
    images = {**values["image_processor"], "auto_map": {}}
    images["auto_map"]["AutoImageProcessor"] = "image_processing_hybridctx.HybridCtxImageProcessor"
    processor = {"AutoProcessor": "processing_hybridctx.HybridCtxProcessor"}
    edit_json(folder / "processor_config.json", auto_map=processor, image_processor=images)
    return folder


def test_a_checkpoint_pushed_from_flat_modules_loads_with_the_package(checkpoint: Path, tmp_path: Path) -> None:
    ask = {"question": "What is the code?", "document": "The code is 4711.", "max_new_tokens": 2}
    expected = pipeline("long-doc-qa", model=str(checkpoint))(**ask)
    old = as_pushed_from_flat_modules(checkpoint, tmp_path / "old")
    assert pipeline("long-doc-qa", model=str(old))(**ask)["answer"] == expected["answer"]
    assert type(AutoProcessor.from_pretrained(old)) is HybridCtxProcessor
    assert type(AutoModel.from_pretrained(old)) is HybridCtxModel


def test_a_pipeline_takes_the_processor_of_the_model_s_own_commit_and_token(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = HybridCtxForCausalLM.from_pretrained(checkpoint, token="hf_mine")
    assert (
        loaded_with(model)
        == {"token": "hf_mine"}
        == loaded_with(get_peft_model(model, LoraConfig(target_modules=["q_proj"])))
    )
    assert b"hf_mine" not in pickle.dumps(model)
    asked: dict[str, Any] = {}
    load = HybridCtxProcessor.from_pretrained

    def noted(name: str, **kwargs: Any) -> HybridCtxProcessor:
        asked.update(kwargs, name=name)
        return load(name)

    monkeypatch.setattr(HybridCtxProcessor, "from_pretrained", noted)
    LongDocQAPipeline(model)
    assert asked == {"name": str(checkpoint), "token": "hf_mine"}


# imports that are followed

MODULES = {
    "top.py": "from .a.b import x\n",
    "a/__init__.py": "",
    "a/b.py": "x = 1\n",
    "a/c/__init__.py": "",
    "a/c/d.py": "y = 2\n",
}
FLATTENED = {
    "from .b import x": "from .a_b import x",
    "from ..top import x": "from .top import x",
    "from .c.d import (  # why\n    y as z,\n    y,\n)": "from .a_c_d import (  # why\n    y as z,\n    y,\n)",
    "from .b import x; from .c.d import y": "from .a_b import x; from .a_c_d import y",
    "from  .b \\\n    import x": "from .a_b import x",
    "def f():\n    from ..a.c.d import y": "def f():\n    from .a_c_d import y",
    "if TYPE_CHECKING:\n    from .b import x": "if TYPE_CHECKING:\n    from .a_b import x",
    "text = 'é'; from .b import x": "text = 'é'; from .a_b import x",
    "text = 'from .b import x'": "text = 'from .b import x'",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, source in MODULES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    return tmp_path


@pytest.mark.parametrize("source", FLATTENED)
def test_imports_name_flat_siblings_wherever_they_stand(tree: Path, source: str) -> None:
    found, needed, packages = flattened(source, tree / "a" / "e.py", tree)
    assert found == FLATTENED[source]
    assert all(file.is_file() for file in needed) and bool(needed) == (source != found) and not packages


@pytest.mark.parametrize(
    "source",
    [
        "from . import b",
        "from .c import d",
        "from ... import x",
        "from ...other import x",
        "import transformers_hybridctx.a.b",
        "from transformers_hybridctx.a.b import x",
        "from transformers_hybridctx import __version__",
    ],
)
def test_an_import_that_cannot_be_followed_is_named(tree: Path, source: str) -> None:
    with pytest.raises(ValueError, match=r"e\.py, line 2: .*`from \.x\.y import z`"):
        flattened(f"\n{source}", tree / "a" / "e.py", tree)


def test_packages_in_a_try_may_be_missing(tree: Path) -> None:
    source = (
        "import os.path, one.two\ndef f():\n    import three\ntry:\n    import four\nexcept ImportError:\n    pass"
    )
    _, _, packages = flattened(source, tree / "top.py", tree)
    assert packages == {"one", "three"}


def test_two_modules_of_one_flat_name_are_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / "a_b.py").write_text("")
    for name in remote_code.ENTRY_MODULES:
        (tree / f"{name}.py").write_text("from .a.b import x\nfrom .a_b import x\n")
    monkeypatch.setattr(remote_code, "_FOLDER", tree)
    with pytest.raises(ValueError, match=r"would both travel as a_b\.py; rename"):
        travelling_code()
    (tree / "a_b.py").unlink()
    with pytest.raises(FileNotFoundError, match=r"a_b\.py is missing.*load the checkpoint again"):
        travelling_code()


CODE = travelling_code()


@pytest.mark.parametrize("name", CODE)
def test_a_module_that_travels_imports_only_its_siblings_and_packages(name: str) -> None:
    siblings = {file.removesuffix(".py") for file in CODE}
    for node in ast.walk(ast.parse(CODE[name])):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1 and node.module in siblings, f"line {node.lineno}: from . import loses the file"
        names = [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        assert not any(str(name).startswith("transformers_hybridctx") for name in names), f"line {node.lineno}"


def test_transformers_reads_the_same_imports(tmp_path: Path) -> None:
    """It looks for them line by line, also in texts."""
    for name, source in CODE.items():
        (tmp_path / name).write_text(source)
        assert {f"{module}.py" for module in get_relative_imports(tmp_path / name)} <= CODE.keys(), name


def test_what_needs_the_package_does_not_travel() -> None:
    names = CODE.keys()
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
