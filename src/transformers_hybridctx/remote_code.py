# SPDX-License-Identifier: Apache-2.0
"""The code that travels: a repository that holds these modules can be used without the package.

Whoever has the package uses the package's code. Whoever has not can pass `trust_remote_code=True`, and transformers
runs the copies that lie beside the weights. Nothing of a repository is run without that.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from transformers.dynamic_module_utils import get_relative_import_files

_ENTRY_FILES = [Path(__file__).with_name(name) for name in ("modeling_hybridctx.py", "pipeline_long_doc_qa.py")]
_MODEL = "modeling_hybridctx.HybridCtxForCausalLM"
_IMAGE_PROCESSOR = {"AutoImageProcessor": "image_processing_hybridctx.HybridCtxImageProcessor"}
_PROCESSOR = {"AutoProcessor": "processing_hybridctx.HybridCtxProcessor"}
_CONFIG = {
    "AutoConfig": "configuration_hybridctx.HybridCtxConfig",
    "AutoModel": "modeling_hybridctx.HybridCtxModel",
    "AutoModelForCausalLM": _MODEL,
    "AutoModelForImageTextToText": _MODEL,
    "AutoModelForMultimodalLM": _MODEL,
}
_PIPELINES = {
    "long-doc-qa": {
        "impl": "pipeline_long_doc_qa.LongDocQAPipeline",
        "pt": ["AutoModelForImageTextToText"],
        "type": "multimodal",
    }
}


def travelling_files() -> list[Path]:
    """The modules that the model, the processor and the pipeline need, side by side in this folder."""
    needed = {Path(file) for entry in _ENTRY_FILES for file in get_relative_import_files(entry)}
    return sorted(needed.union(_ENTRY_FILES))


def write_remote_code(folder: str | os.PathLike[str]) -> None:
    """Make a saved checkpoint one that needs no package: copy the code into it and name its classes in its configs."""
    for file in travelling_files():
        shutil.copyfile(file, Path(folder) / file.name)
    _edit(Path(folder) / "config.json", {"auto_map": _CONFIG, "custom_pipelines": _PIPELINES})
    _edit(Path(folder) / "processor_config.json", {"auto_map": _PROCESSOR}, ("image_processor", _IMAGE_PROCESSOR))


def _edit(file: Path, values: dict[str, Any], part: tuple[str, dict[str, str]] | None = None) -> None:
    """Add values to a JSON file, where there is one, and an auto_map to one of its parts."""
    if not file.exists():
        return
    content = json.loads(file.read_text(encoding="utf-8")) | values
    if part is not None and part[0] in content:
        content[part[0]] = {**content[part[0]], "auto_map": part[1]}
    file.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


class TravelsWithCode:
    """Mixin for what has `push_to_hub`, before its own base class: what is uploaded brings its code along."""

    def _upload_modified_files(self, working_dir: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        write_remote_code(working_dir)
        return super()._upload_modified_files(working_dir, *args, **kwargs)  # type: ignore[misc]
