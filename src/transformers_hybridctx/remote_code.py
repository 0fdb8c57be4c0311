# SPDX-License-Identifier: Apache-2.0
"""The code that travels: a repository that holds these modules can be used without the package.

Whoever has the package uses the package's code. Whoever has not can pass `trust_remote_code=True`, and transformers
runs the copies that lie beside the weights. Nothing of a repository is run without that.

transformers runs modules that lie side by side in one folder and knows no sub-packages (`get_relative_imports` in
`dynamic_module_utils` looks `from .a.b import c` up as a file `a.b.py`), so the copies are flattened:
`rendering/fonts.py` travels as `rendering_fonts.py`, and the imports of its name with it.
"""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent
_ENTRY_FILES = ("modeling_hybridctx.py", "pipeline_long_doc_qa.py")
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


def travelling_code() -> dict[str, str]:
    """The modules that the model, the processor and the pipeline need: name of each flat copy -> its source."""
    code: dict[str, str] = {}
    waiting = [_FOLDER / name for name in _ENTRY_FILES]
    while waiting:
        file = waiting.pop()
        if _flat_name(file) not in code:
            code[_flat_name(file)], needed = _flattened(file)
            waiting += needed
    return dict(sorted(code.items()))


def _flat_name(file: Path) -> str:
    return "_".join(file.relative_to(_FOLDER).parts)


def _flattened(file: Path) -> tuple[str, list[Path]]:
    """(source of a module whose relative imports name flat siblings, the modules that these are)."""
    source = file.read_text(encoding="utf-8")
    lines, needed = source.splitlines(keepends=True), []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level and node.module:
            imported = file.parents[node.level - 1].joinpath(*node.module.split(".")).with_suffix(".py")
            written, flat = f"from {'.' * node.level}{node.module} import", _flat_name(imported).removesuffix(".py")
            lines[node.lineno - 1] = lines[node.lineno - 1].replace(written, f"from .{flat} import")
            needed.append(imported)
    return "".join(lines), needed


def write_remote_code(folder: str | os.PathLike[str]) -> None:
    """Make a saved checkpoint one that needs no package: copy the code into it and name its classes in its configs."""
    for name, source in travelling_code().items():
        (Path(folder) / name).write_text(source, encoding="utf-8")
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
