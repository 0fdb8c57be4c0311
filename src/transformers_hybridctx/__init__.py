# SPDX-License-Identifier: Apache-2.0
"""Hybrid visual-textual long context for language models, as an integration into Hugging Face Transformers.

`import transformers_hybridctx` makes the Auto classes and `pipeline("long-doc-qa")` of transformers know HybridCtx: the
modules imported here register their classes as they are loaded.
"""

import os
import sys
from importlib import import_module
from multiprocessing import current_process
from typing import Any

__version__ = "0.1.0"

# The command, as a console script or as `python -m`, and processes that only draw pages (`rendering/parallel.py` names
# them so), start without torch: they import their parts by name.
_starts_light = current_process().name.startswith("hybridctx-drawing")
_starts_light |= os.environ.pop("HYBRIDCTX_LIGHT_START", None) is not None
# While Python looks for the module to run, its arguments begin with "-m" alone; `orig_argv` says which module that is.
_starts_light |= sys.argv[:1] == ["-m"] and sys.orig_argv[-len(sys.argv) :][:1] == [__name__]
if not _starts_light:
    from .answering.results import LongDocAnswer
    from .caching.document_cache import DocumentCache
    from .configuration_hybridctx import HybridCtxConfig
    from .grounding.grounded import Grounding
    from .grounding.quote_processor import DocumentQuoteProcessor, Quotation
    from .grounding.span_index import DocumentIndex
    from .grounding.string_processor import DocumentStringProcessor
    from .grounding.support import AnswerSupport, SupportChecker
    from .image_processing_hybridctx import HybridCtxImageProcessor
    from .modeling_hybridctx import HybridCtxForCausalLM, HybridCtxModel
    from .modules.quantization import four_bit_config
    from .pipeline_long_doc_qa import LongDocQAPipeline
    from .planning.budget import ContextBudget, ContextBudgetError
    from .planning.plan import ContextPlan
    from .planning.policies.base import TextPolicy
    from .planning.policies.ranked import RankedPolicy
    from .planning.policies.registry import register_text_policy
    from .processing_hybridctx import HybridCtxProcessor
    from .rendering.rasterizing import PageRenderer
    from .rendering.rendered_document import RenderedDocument
    from .rendering.settings import RenderConfig
    from .rendering.styles import StyleSampler, cell_aligned_config, patch_aligned_config
    from .rendering.visual_token_maps import characters_of_visual_token, visual_tokens_of_characters
    from .training.packing import DataCollatorWithPacking

__all__ = [
    "AnswerSupport",
    "ContextBudget",
    "ContextBudgetError",
    "ContextPlan",
    "DataCollatorWithPacking",
    "DocumentCache",
    "DocumentIndex",
    "DocumentQuoteProcessor",
    "DocumentStringProcessor",
    "Grounding",
    "HybridCtxConfig",
    "HybridCtxForCausalLM",
    "HybridCtxImageProcessor",
    "HybridCtxModel",
    "HybridCtxProcessor",
    "LongDocAnswer",
    "LongDocQAPipeline",
    "PageRenderer",
    "Quotation",
    "RankedPolicy",
    "RenderConfig",
    "RenderedDocument",
    "StyleSampler",
    "SupportChecker",
    "TextPolicy",
    "cell_aligned_config",
    "characters_of_visual_token",
    "four_bit_config",
    "patch_aligned_config",
    "register_text_policy",
    "visual_tokens_of_characters",
]

# Where the names come from, those first that bring no torch.
_HOMES = (
    *("rendering.rasterizing", "rendering.rendered_document", "rendering.settings", "rendering.styles"),
    *("rendering.visual_token_maps", "planning.budget", "planning.plan", "planning.policies.base"),
    *(
        "planning.policies.ranked",
        "planning.policies.registry",
        "configuration_hybridctx",
        "image_processing_hybridctx",
    ),
    *("processing_hybridctx", "caching.document_cache", "modules.quantization", "grounding.quote_processor"),
    *("grounding.span_index", "grounding.string_processor", "grounding.support", "grounding.grounded"),
    *("answering.results", "training.packing", "modeling_hybridctx", "pipeline_long_doc_qa"),
)


def __getattr__(name: str) -> Any:
    """A name of `__all__` after a light start, when it is asked for.

    A process that draws runs the script again that started it, as Python's `spawn` does, and a script may import any
    name at its top: what rendering has brings no torch, and anything else what the script asks for.
    """
    if _starts_light and name in __all__:
        for home in _HOMES:
            found = getattr(import_module(f".{home}", __name__), name, None)
            if found is not None:
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
