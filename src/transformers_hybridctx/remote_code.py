# SPDX-License-Identifier: Apache-2.0
"""The code that travels: a repository that holds these modules can be used without the package.

Whoever has the package uses the package's code. Whoever has not can pass `trust_remote_code=True`, and transformers
runs the copies that lie beside the weights. Nothing of a repository is run without that.

transformers runs modules that lie side by side in one folder and knows no sub-packages (`get_relative_imports` in
`dynamic_module_utils` looks `from .a.b import c` up as a file `a.b.py`), so the copies are flattened:
`rendering/fonts.py` travels as `rendering_fonts.py`, and the imports of its name with it.

transformers copies the file that it asks for and those that are named in it, file by file, and looks at each file's
imports before it copies that one. So the files that a config names (`ENTRY_MODULES`) name all modules and all packages:
what is missing is told at once, before anything is copied; a copy that was cut off goes on; and what was loaded from a
repository has all of its code at hand, to be saved and pushed again.
"""

from __future__ import annotations

import ast
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent
ENTRY_MODULES = (
    "configuration_hybridctx",
    "image_processing_hybridctx",
    "modeling_hybridctx",
    "pipeline_long_doc_qa",
    "processing_hybridctx",
)
_COMPANY = "\n\n# All modules travel together, and need these packages: transformers reads this, and nobody runs it.\n"
_IMPORT = re.compile(rb"from(?:\s|\\\r?\n)+(\.+)((?:\w|\.)+)(?:\s|\\\r?\n)+import\b")
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
    """The modules that the model, the processor and the pipeline need: name of each flat copy -> its source.

    Raises:
        FileNotFoundError: a module is missing where this one lies.
        ValueError: an import that cannot be followed, or two modules whose flat names are equal.
    """
    code: dict[str, str] = {}
    files: dict[str, Path] = {}
    packages: set[str] = set()
    waiting = [_FOLDER / f"{name}.py" for name in ENTRY_MODULES]
    while waiting:
        file = waiting.pop()
        name = flat_name(file, _FOLDER)
        if name in code:
            if files[name] != file:
                raise ValueError(f"{file} and {files[name]} would both travel as {name}; rename one of them")
            continue
        if not file.is_file():
            raise FileNotFoundError(
                f"{file} is missing, a module that has to go along with every checkpoint: install the package again, or, "
                "where it was loaded with trust_remote_code, delete the folder and load the checkpoint again"
            )
        source = file.read_text(encoding="utf-8").partition(_COMPANY)[0]  # as it was before it travelled
        files[name], (code[name], needed, imported) = file, flattened(source, file, _FOLDER)
        waiting += needed
        packages |= imported
    company = [f"import {package}" for package in sorted(packages)]
    company += [f"from .{name.removesuffix('.py')} import __doc__ as _" for name in sorted(code)]
    for name in ENTRY_MODULES:
        code[f"{name}.py"] += _COMPANY + "\n    ".join(["if False:", *company]) + "\n"
    return dict(sorted(code.items()))


def flat_name(file: Path, root: Path) -> str:
    """The name that a module travels under."""
    return "_".join(file.relative_to(root).parts)


def flattened(source: str, file: Path, root: Path) -> tuple[str, list[Path], set[str]]:
    """A module with its relative imports naming flat siblings; the modules that these are; the packages that it needs.

    Packages imported in a `try` need not be there.

    Args:
        source: of the module.
        file: where it lies, under `root`.

    Raises:
        ValueError: an import that transformers could not follow.
    """
    data = source.encode()
    starts = [0, *(match.end() for match in re.finditer(rb"\r\n|\r|\n", data))]
    needed: list[Path] = []
    packages: set[str] = set()
    changes: list[tuple[int, int, bytes]] = []

    def visit(node: ast.AST, may_fail: bool) -> None:
        if isinstance(node, ast.ImportFrom | ast.Import):
            where = f"{file}, line {node.lineno}"
            absolute = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and node.level:
                at = starts[node.lineno - 1] + node.col_offset
                written = _IMPORT.match(data, at)
                target = (file, *file.parents)[node.level].joinpath(*(node.module or "").split("."))
                if written is None or target.is_dir() or not target.is_relative_to(root):
                    raise ValueError(
                        f"{where}: name the module that is imported from, in the form `from .x.y import z`"
                    )
                needed.append(target.with_suffix(".py"))
                flat = flat_name(needed[-1], root).removesuffix(".py")
                changes.append((at, written.end(), f"from .{flat} import".encode()))
            elif any(name.split(".")[0] == __name__.split(".")[0] for name in absolute):
                raise ValueError(f"{where}: what travels has no package to import from; write `from .x.y import z`")
            elif not may_fail:
                packages.update(name.split(".")[0] for name in absolute)
        for child in ast.iter_child_nodes(node):
            visit(child, may_fail or isinstance(node, ast.Try))

    visit(ast.parse(source), False)
    for start, end, written in sorted(changes, reverse=True):
        data = data[:start] + written + data[end:]
    return data.decode(), needed, packages - sys.stdlib_module_names


def write_remote_code(folder: str | os.PathLike[str]) -> None:
    """Make a saved checkpoint one that needs no package: copy the code into it and name its classes in its configs."""
    for name, source in travelling_code().items():
        (Path(folder) / name).write_text(source, encoding="utf-8")
    _edit(Path(folder) / "config.json", {"auto_map": _CONFIG, "custom_pipelines": _PIPELINES})
    _edit(Path(folder) / "processor_config.json", {"auto_map": _PROCESSOR}, ("image_processor", _IMAGE_PROCESSOR))
    _edit(Path(folder) / "preprocessor_config.json", {"auto_map": _IMAGE_PROCESSOR})


def _edit(file: Path, values: dict[str, Any], part: tuple[str, dict[str, str]] | None = None) -> None:
    """Add values to a JSON file, where there is one, and an auto_map to one of its parts."""
    if not file.exists():
        return
    content = json.loads(file.read_text(encoding="utf-8")) | values
    if part is not None and part[0] in content:
        content[part[0]] = {**content[part[0]], "auto_map": part[1]}
    file.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


class TravelsWithCode:
    """Mixin for what has `push_to_hub`, before its own base class: what is uploaded brings its code along.

    So does what is saved where the package is not installed, as nobody there could load it otherwise.
    """

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """As in transformers; with the code, where this is code of a repository itself."""
        saved = super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]
        if is_remote_code():
            write_remote_code(save_directory)
        return saved

    def _upload_modified_files(self, working_dir: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        write_remote_code(working_dir)
        return super()._upload_modified_files(working_dir, *args, **kwargs)  # type: ignore[misc]


def is_remote_code() -> bool:
    """Whether this is a repository's copy of the module, and not the package's own."""
    return __name__.startswith("transformers_modules.")
