# SPDX-License-Identifier: Apache-2.0
"""Plans from the files of a checkpoint's folder, without the imports of a processor (torch, and all of transformers)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..documents.joined_document import DocumentParts, laid_out
from ..documents.scans import ScannedPages
from ..planning.budget import ContextBudget
from ..planning.latents import LatentSettings
from ..planning.page_tokens import PageTokens
from ..planning.paged_document import PagedDocument
from ..planning.plan import ContextPlan
from ..planning.planner import ContextPlanner
from ..planning.policies.base import TextPolicy
from ..prompting.conversations import ConversationReader
from ..prompting.encoder import PlainEncoder
from ..prompting.frames import PromptRenderer
from ..prompting.writing import PromptWriter
from ..rendering.checkpoint_fonts import checkpoint_font_loader, with_loaded_fonts
from ..rendering.rasterizing import PageRenderer
from ..rendering.settings import RenderConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CONFIG = "processor_config.json"


@dataclass
class QuickPlanner:
    """
    Lays documents out and plans as the [`HybridCtxProcessor`] of a checkpoint does, which defines what is right.

    Attributes:
        tokenizer: with the checkpoint's chat template.
        settings: the processor's saved config.
        render_config: its fonts are those of the checkpoint.
    """

    tokenizer: PreTrainedTokenizerBase
    settings: dict[str, Any]
    render_config: RenderConfig

    @staticmethod
    def fits(folder: Path) -> bool:
        """Whether a folder has the files that this needs; a processor copes with more."""
        return all((folder / name).is_file() for name in (_CONFIG, "tokenizer.json", "chat_template.jinja"))

    @classmethod
    def from_folder(cls, folder: Path) -> QuickPlanner:
        from transformers import PreTrainedTokenizerFast

        settings = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        load = checkpoint_font_loader(str(folder), settings["font_sha256"], {})
        config = RenderConfig.from_dict(with_loaded_fonts(settings["render_config"], load))
        return cls(PreTrainedTokenizerFast.from_pretrained(folder), settings, config)

    @property
    def default_text_policy(self) -> str | dict[str, Any]:
        policy: str | dict[str, Any] = self.settings["default_text_policy"]
        return policy

    @cached_property
    def encoder(self) -> PlainEncoder:
        return PlainEncoder(self.tokenizer)

    def read_document(self, document: str | DocumentParts | ScannedPages | PagedDocument) -> PagedDocument:
        """A document laid out, from what `documents.files` reads."""
        if isinstance(document, (str, DocumentParts)):
            return laid_out(document, PageRenderer(self.render_config).typeset)
        return document

    def plan(
        self, document: PagedDocument, question: str | None, budget: dict[str, Any], text_policy: str | TextPolicy
    ) -> ContextPlan:
        default = ContextBudget.of(self.settings["default_budget"])
        reader = ConversationReader(self.read_document, _no_pictures, default, budget, text_policy)
        conversations, _ = reader.read_questions(document, question)
        return self._writer.write_all(conversations)[0].plans[0]

    @cached_property
    def _writer(self) -> PromptWriter:
        order = self.settings["fusion_order"]
        template = self.tokenizer.get_chat_template()
        options = {"add_generation_prompt": True}
        image_token = getattr(self.tokenizer, "image_token", None) or "<|image|>"
        renderer = PromptRenderer(self.tokenizer, image_token, template, order, options)
        tokens = PageTokens.of(self.settings["image_processor"])
        latents = LatentSettings.of(self.settings.get("latents"))
        token = -1 if latents is None else self.tokenizer.convert_tokens_to_ids(latents.token)
        planner = ContextPlanner(self.encoder, tokens, self.encoder.memory, latents, token)
        return PromptWriter(renderer, self.encoder, planner, self.tokenizer.convert_tokens_to_ids(image_token))


def _no_pictures(picture: Any) -> NoReturn:
    raise TypeError("a question about a document brings no pictures of its own")
