# SPDX-License-Identifier: Apache-2.0
"""Hybrid visual-textual long context for language models, as an integration into Hugging Face Transformers.

`import transformers_hybridctx` makes the Auto classes and `pipeline("long-doc-qa")` of transformers know HybridCtx.
Neither torch nor transformers is imported before it is used: names below are loaded on first access, and the
registrations run right after transformers' own modules that they need have been imported.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .configuration_hybridctx import HybridCtxConfig
    from .context_planning import ContextBudget, ContextBudgetError, ContextPlan
    from .image_processing_hybridctx import HybridCtxImageProcessor
    from .modeling_hybridctx import HybridCtxForCausalLM, HybridCtxModel
    from .pipeline_long_doc_qa import DocumentCache, LongDocQAPipeline
    from .processing_hybridctx import HybridCtxProcessor
    from .rasterizing import PageRenderer, RenderedDocument
    from .typesetting import RenderConfig

__version__ = "0.1.0"

_ROOMS = {
    "configuration_hybridctx": ("HybridCtxConfig",),
    "context_planning": ("ContextBudget", "ContextBudgetError", "ContextPlan"),
    "image_processing_hybridctx": ("HybridCtxImageProcessor",),
    "modeling_hybridctx": ("HybridCtxForCausalLM", "HybridCtxModel"),
    "pipeline_long_doc_qa": ("DocumentCache", "LongDocQAPipeline"),
    "processing_hybridctx": ("HybridCtxProcessor",),
    "rasterizing": ("PageRenderer", "RenderedDocument"),
    "typesetting": ("RenderConfig",),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}
__all__ = [
    "ContextBudget",
    "ContextBudgetError",
    "ContextPlan",
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
]


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_ROOM_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _register_config() -> None:
    from transformers import AutoConfig

    from .configuration_hybridctx import HybridCtxConfig

    AutoConfig.register(HybridCtxConfig.model_type, HybridCtxConfig, exist_ok=True)


def _register_image_processor() -> None:
    from transformers import AutoImageProcessor

    from .configuration_hybridctx import HybridCtxConfig
    from .image_processing_hybridctx import HybridCtxImageProcessor

    AutoImageProcessor.register(HybridCtxConfig, slow_image_processor_class=HybridCtxImageProcessor, exist_ok=True)


def _register_processor() -> None:
    from transformers import AutoProcessor

    from .configuration_hybridctx import HybridCtxConfig
    from .processing_hybridctx import HybridCtxProcessor

    AutoProcessor.register(HybridCtxConfig, HybridCtxProcessor, exist_ok=True)


def _register_models() -> None:
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMultimodalLM

    from .configuration_hybridctx import HybridCtxConfig
    from .modeling_hybridctx import HybridCtxForCausalLM, HybridCtxModel

    AutoModel.register(HybridCtxConfig, HybridCtxModel, exist_ok=True)
    for auto_class in (AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMultimodalLM):
        auto_class.register(HybridCtxConfig, HybridCtxForCausalLM, exist_ok=True)


def _register_pipeline() -> None:
    from .pipeline_long_doc_qa import register_pipeline

    register_pipeline()


class _AfterImport(importlib.abc.MetaPathFinder):
    """Runs a registration once the module that it extends has been imported, by whomever."""

    def __init__(self, pending: dict[str, Callable[[], None]]) -> None:
        self._pending = pending

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        register = self._pending.pop(fullname, None)  # popped first: the search below must pass this finder by
        if register is None:
            return None
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            register()

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def _register_when_imported(registrations: dict[str, Callable[[], None]]) -> None:
    pending = {}
    for name, register in registrations.items():
        if name in sys.modules:
            register()
        else:
            pending[name] = register
    sys.meta_path.insert(0, _AfterImport(pending))


_register_when_imported(
    {
        "transformers.models.auto.configuration_auto": _register_config,
        "transformers.models.auto.image_processing_auto": _register_image_processor,
        "transformers.models.auto.processing_auto": _register_processor,
        "transformers.models.auto.modeling_auto": _register_models,
        "transformers.pipelines": _register_pipeline,
    }
)
