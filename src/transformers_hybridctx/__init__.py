# SPDX-License-Identifier: Apache-2.0
"""Hybrid visual-textual long context for language models, as an integration into Hugging Face Transformers.

`import transformers_hybridctx` makes the Auto classes and `pipeline("long-doc-qa")` of transformers know HybridCtx: the
modules imported here register their classes as they are loaded.
"""

import os

__version__ = "0.1.0"

# The console script, and processes that only draw pages, start without torch: they import their parts by name.
if os.environ.pop("HYBRIDCTX_LIGHT_START", None) is None:
    from .caching.document_cache import DocumentCache
    from .configuration_hybridctx import HybridCtxConfig
    from .grounding.quote_processor import DocumentQuoteProcessor
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
    from .rendering.styles import StyleSampler, patch_aligned_config
    from .rendering.visual_token_maps import characters_of_visual_token, visual_tokens_of_characters
    from .training.packing import DataCollatorWithPacking

__all__ = [
    "ContextBudget",
    "ContextBudgetError",
    "ContextPlan",
    "DataCollatorWithPacking",
    "DocumentCache",
    "DocumentQuoteProcessor",
    "HybridCtxConfig",
    "HybridCtxForCausalLM",
    "HybridCtxImageProcessor",
    "HybridCtxModel",
    "HybridCtxProcessor",
    "LongDocQAPipeline",
    "PageRenderer",
    "RankedPolicy",
    "RenderConfig",
    "RenderedDocument",
    "StyleSampler",
    "TextPolicy",
    "characters_of_visual_token",
    "four_bit_config",
    "patch_aligned_config",
    "register_text_policy",
    "visual_tokens_of_characters",
]
