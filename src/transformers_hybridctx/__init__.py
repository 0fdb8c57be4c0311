# SPDX-License-Identifier: Apache-2.0
"""Hybrid visual-textual long context for language models, as an integration into Hugging Face Transformers.

`import transformers_hybridctx` makes the Auto classes and `pipeline("long-doc-qa")` of transformers know HybridCtx.
Neither torch nor transformers is imported before it is used: names below are loaded on first access, and the rooms that
register themselves are imported right after transformers' own modules that they register with.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .configuration_hybridctx import HybridCtxConfig
    from .context_planning import ContextBudget, ContextBudgetError, ContextPlan
    from .document_cache import DocumentCache
    from .image_processing_hybridctx import HybridCtxImageProcessor
    from .modeling_hybridctx import HybridCtxForCausalLM, HybridCtxModel
    from .packing import DataCollatorWithPacking
    from .page_styles import StyleSampler, patch_aligned_config
    from .pipeline_long_doc_qa import LongDocQAPipeline
    from .processing_hybridctx import HybridCtxProcessor
    from .quantization import four_bit_config
    from .rasterizing import PageRenderer, RenderedDocument
    from .typesetting import RenderConfig
    from .visual_token_maps import characters_of_visual_token, visual_tokens_of_characters

__version__ = "0.1.0"

_ROOMS = {
    "configuration_hybridctx": ("HybridCtxConfig",),
    "context_planning": ("ContextBudget", "ContextBudgetError", "ContextPlan"),
    "document_cache": ("DocumentCache",),
    "image_processing_hybridctx": ("HybridCtxImageProcessor",),
    "modeling_hybridctx": ("HybridCtxForCausalLM", "HybridCtxModel"),
    "packing": ("DataCollatorWithPacking",),
    "page_styles": ("StyleSampler", "patch_aligned_config"),
    "pipeline_long_doc_qa": ("LongDocQAPipeline",),
    "processing_hybridctx": ("HybridCtxProcessor",),
    "quantization": ("four_bit_config",),
    "rasterizing": ("PageRenderer", "RenderedDocument"),
    "typesetting": ("RenderConfig",),
    "visual_token_maps": ("characters_of_visual_token", "visual_tokens_of_characters"),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}
__all__ = [
    "ContextBudget",
    "ContextBudgetError",
    "ContextPlan",
    "DataCollatorWithPacking",
    "DocumentCache",
    "HybridCtxConfig",
    "HybridCtxForCausalLM",
    "HybridCtxImageProcessor",
    "HybridCtxModel",
    "HybridCtxProcessor",
    "LongDocQAPipeline",
    "PageRenderer",
    "RenderConfig",
    "RenderedDocument",
    "StyleSampler",
    "characters_of_visual_token",
    "four_bit_config",
    "patch_aligned_config",
    "visual_tokens_of_characters",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_ROOM_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


_NEEDED_WITH = {
    "transformers.models.auto.configuration_auto": "configuration_hybridctx",
    "transformers.models.auto.image_processing_auto": "image_processing_hybridctx",
    "transformers.models.auto.processing_auto": "processing_hybridctx",
    "transformers.models.auto.modeling_auto": "modeling_hybridctx",
    "transformers.pipelines": "pipeline_long_doc_qa",
}
"""Modules of transformers, and the room of ours that registers itself with each at its end."""


class _RegisterAfterImports(importlib.abc.MetaPathFinder):
    """Imports each room of ours once the module that it registers with is there, by whomever that was imported.

    Modules of transformers import one another in circles, so this waits until the outermost import, of a module of
    transformers or of ours, is complete: then none of them is half made.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._searching: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] not in ("transformers", __name__) or fullname in self._searching:
            return None
        self._searching.add(fullname)  # the search below must pass this finder by
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._searching.discard(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            self._depth += 1
            try:
                execute(module)
            finally:
                self._depth -= 1
            if self._depth == 0:
                _register_with_imported()

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def _register_with_imported() -> None:
    for module, room in _NEEDED_WITH.items():
        if module in sys.modules and f"{__name__}.{room}" not in sys.modules:
            importlib.import_module(f".{room}", __name__)


sys.meta_path.insert(0, _RegisterAfterImports())
_register_with_imported()
